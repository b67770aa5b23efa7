//! A copy of the reference application that runs the optimised programs.

use crate::{Failure, built, checkout};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The services, with the path that says whether each is ready.
pub const SERVICES: &[(&str, &str)] = &[
    ("api1", "/readyz"),
    ("api2", "/readyz"),
    ("api3", "/readyz"),
    ("frontend", "/healthz"),
];

/// The copy; dropping it says `down -v` and removes it.
pub struct Project {
    folder: tempfile::TempDir,
    devenv: PathBuf,
    variables: Vec<(&'static str, OsString)>,
}

impl Project {
    /// Copies manifests, migrations and the page, and points devenv.toml at the
    /// optimised programs.
    pub fn new() -> Result<Self, Failure> {
        let project = Self::within(tempfile::Builder::new().prefix("bb-bench-").tempdir()?)?;
        let checkout = checkout();
        for folder in ["kind", "services/migrations", "services/frontend/web/dist"] {
            copy(&checkout.join(folder), &project.path().join(folder))?;
        }
        for service in SERVICES {
            fs::create_dir_all(project.path().join("services").join(service.0))?;
        }
        copy_file(&checkout, project.path(), "services/frontend/service.yaml")?;
        fs::create_dir_all(project.path().join("bin"))?;
        for (service, _) in SERVICES {
            fs::copy(built(service)?, project.path().join("bin").join(service))?;
        }
        let mut config: toml::Table = fs::read_to_string(checkout.join("devenv.toml"))?.parse()?;
        let images = config
            .get_mut("image")
            .and_then(toml::Value::as_table_mut)
            .ok_or("devenv.toml has no [image.NAME]")?;
        for (name, image) in images {
            let image = image.as_table_mut().ok_or("[image.NAME] is no table")?;
            let program = format!("bin/{name}");
            image.remove("install");
            image.remove("watch");
            image.insert("workdir".to_owned(), ".".into());
            image.insert("build".to_owned(), vec!["test", "-x", &program].into());
            image.insert("run".to_owned(), vec![program].into());
        }
        fs::write(project.path().join("devenv.toml"), config.to_string())?;
        Ok(project)
    }

    /// A temporary folder that always has the same path; what lay there is removed.
    pub fn folder(name: &str) -> Result<tempfile::TempDir, Failure> {
        let prefix = format!("{name}-{}", nix::unistd::geteuid());
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&prefix));
        let mut builder = tempfile::Builder::new();
        Ok(builder.prefix(&prefix).rand_bytes(0).tempdir()?)
    }

    /// Whatever is in this folder.
    pub fn within(folder: tempfile::TempDir) -> Result<Self, Failure> {
        let devenv = built("devenv")?;
        Ok(Self {
            folder,
            devenv,
            variables: Vec::new(),
        })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Sets a variable of every devenv that is run here.
    pub fn set(&mut self, name: &'static str, value: OsString) {
        self.variables.push((name, value));
    }

    /// `devenv ARGUMENTS`, and how long it took.
    pub fn run(&self, arguments: &[&str]) -> Result<(String, Duration), Failure> {
        let start = Instant::now();
        let output = self.output(arguments)?;
        let took = start.elapsed();
        if output.status.success() {
            Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
        } else {
            Err(format!(
                "devenv {} ended with {}\n{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
            .into())
        }
    }

    fn output(&self, arguments: &[&str]) -> std::io::Result<Output> {
        Command::new(&self.devenv)
            .arg("-C")
            .arg(self.path())
            .args(arguments)
            .stdin(Stdio::null())
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env_remove("CARGO_TARGET_DIR")
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .output()
    }

    /// `devenv status -o json`.
    pub fn status(&self) -> Result<Value, Failure> {
        Ok(serde_json::from_str(
            &self.run(&["status", "-o", "json"])?.0,
        )?)
    }

    /// `devenv reloads -o json`.
    pub fn reloads(&self) -> Result<Vec<Value>, Failure> {
        Ok(serde_json::from_str(
            &self.run(&["reloads", "-o", "json"])?.0,
        )?)
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> Result<u64, Failure> {
        let pid = self.status()?["supervisor"]["pid"].as_u64();
        pid.ok_or_else(|| "`devenv status -o json` names no supervisor.pid".into())
    }

    /// `devenv down -v`; says on stderr what went wrong.
    pub fn down(&self) {
        if let Ok(output) = self.output(&["down", "-v"])
            && !output.status.success()
        {
            eprintln!("down -v: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.down();
    }
}

/// Copies one file, with the folders above it.
pub fn copy_file(from: &Path, to: &Path, file: &str) -> Result<(), Failure> {
    let target = to.join(file);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from.join(file), &target).map_err(|error| format!("{file}: {error}"))?;
    Ok(())
}

/// Copies a folder with all in it; sockets and the like are left out.
pub fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
