//! What somebody does without devenv: a script of kind, docker and kubectl commands, one
//! after the other, as people write them.

use super::app::{Containers, Tools, output};
use crate::{Failure, built};
use devenv_ingress_controller::{ManifestOptions, manifest};
use serde_json::json;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CLUSTER: &str = "devenv-bench-by-hand";
const SCRIPT: &str = include_str!("by-hand.sh");

/// A cluster of its own, and a folder for what the script writes.
pub struct Hand {
    folder: TempDir,
    project: PathBuf,
    path: std::ffi::OsString,
    node: String,
    mysql: String,
    devenv: PathBuf,
    port: u16,
}

/// The controller that devenv brings in, from the image that the script makes.
fn controller() -> serde_json::Value {
    let mut items = manifest(&ManifestOptions::new("hand/controller:1"));
    for item in &mut items {
        if let Some(container) = item.pointer_mut("/spec/template/spec/containers/0") {
            container["command"] = json!(["/app/program"]);
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

impl Hand {
    pub fn new(tools: &Tools, project: &Containers) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("bb-bench-hand-")
            .tempdir()?;
        let written = folder.path().join("controller.json");
        fs::write(written, controller().to_string())?;
        Ok(Self {
            folder,
            devenv: built("devenv")?,
            port: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port(),
            project: project.path().to_owned(),
            path: tools.path()?,
            node: tools.node.clone(),
            mysql: tools.mysql.clone(),
        })
    }

    fn script(&self, step: &str) -> Result<Duration, Failure> {
        let start = Instant::now();
        output(
            Command::new("bash")
                .args(["-euo", "pipefail", "-c", SCRIPT, "by-hand", step])
                .current_dir(&self.project)
                .env("PATH", &self.path)
                .env("CLUSTER", CLUSTER)
                .env("NODE", &self.node)
                .env("MYSQL", &self.mysql)
                .env("DEVENV", &self.devenv)
                .env("PORT", self.port.to_string())
                .env("WORK", self.folder.path())
                .env("KUBECONFIG", self.folder.path().join("kubeconfig")),
        )?;
        Ok(start.elapsed())
    }

    /// Builds the images.
    pub fn build(&self) -> Result<Duration, Failure> {
        self.script("build")
    }

    /// Cluster, database, images, objects, until all Deployments are available.
    pub fn up(&self) -> Result<Duration, Failure> {
        self.script("up")
    }

    /// A new image of api2, until it is rolled out.
    pub fn rebuild(&self) -> Result<Duration, Failure> {
        self.script("rebuild")
    }

    /// Removes everything.
    pub fn remove(&self) -> Result<Duration, Failure> {
        self.script("remove")
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error}");
        }
    }
}
