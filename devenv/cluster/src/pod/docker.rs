//! The docker runtime: pods as containers of a Docker Engine, in the cluster's network.
//!
//! A pod is a pause container, made without a network, which joins the cluster's by
//! itself ([`devenv_sandbox::Door`]), and the pod's own containers, which use the pause
//! container's network. So addresses, Services, DNS, probes and faults are those of pods
//! that are processes. Each container is PID 1 in a PID namespace of its own, as in
//! Kubernetes: a program that does not handle SIGTERM ignores it there.
//!
//! Containers carry labels that say whose they are ([`sweep`]); a killed devenv's are
//! removed by the process that [`janitor`] starts, or else by the next `up` or `down`.

mod body;
mod janitor;
mod meter;
mod output;
mod pause;
mod sandbox;
pub mod sweep;

pub use janitor::run_role_if_asked;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bollard::Docker;
use devenv_sandbox::Netd;

use super::runtime::{PodRuntime, PodSandbox, RuntimeError, SandboxSpec};
use janitor::Janitor;
use sandbox::DockerSandbox;
use sweep::Owner;

/// Where a system's runtime has its files, in the folder with the system's state: it is
/// there as long as containers may be. Not below `run`, which the next start empties.
pub const RUNTIME_FOLDER: &str = "docker";

/// Runs pods as containers.
#[derive(Debug)]
pub(crate) struct DockerRuntime {
    shared: Arc<Shared>,
}

/// What all its pods use.
#[derive(Debug)]
struct Shared {
    docker: Docker,
    netd: Arc<Netd>,
    /// Whose containers they are.
    owner: Owner,
    /// Folder for the files of pods; private.
    dir: PathBuf,
    /// This program, as containers are shown it.
    program: PathBuf,
    /// Numbers sandboxes.
    sandboxes: AtomicU64,
    /// What removes them when this process is killed.
    janitor: Janitor,
}

impl DockerRuntime {
    /// Pods of `owner` on the engine `docker` at `host`, in the network of `netd`, with their files
    /// in `dir`. What an earlier system of the same owner left is removed.
    ///
    /// # Errors
    /// When the engine can't be used.
    pub(crate) async fn start(
        (docker, host): (Docker, &str),
        netd: Arc<Netd>,
        owner: Owner,
        dir: PathBuf,
    ) -> Result<DockerRuntime, RuntimeError> {
        sweep::containers(&docker, &owner.of_system()).await?;
        // A killed start of before may still be ending in its own.
        let dir = dir.join(&owner.generation);
        let program = pause::program(&dir)?;
        pause::ensure_image(&docker).await?;
        let janitor = Janitor::start(host, &owner, &dir)?;
        Ok(DockerRuntime {
            shared: Arc::new(Shared {
                docker,
                netd,
                owner,
                dir,
                program,
                sandboxes: AtomicU64::new(0),
                janitor,
            }),
        })
    }
}

impl Drop for DockerRuntime {
    fn drop(&mut self) {
        // Nobody makes pods any more.
        self.shared.janitor.dismiss();
    }
}

#[async_trait]
impl PodRuntime for DockerRuntime {
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        Ok(DockerSandbox::create(self.shared.clone(), spec).await?)
    }
}

impl Shared {
    /// A number that no sandbox had before.
    fn number(&self) -> u64 {
        self.sandboxes.fetch_add(1, Ordering::Relaxed)
    }

    /// The labels of a container: whose it is, and those that container runtimes of
    /// Kubernetes give theirs.
    fn labels(&self, pod: &SandboxSpec, container: &str) -> HashMap<String, String> {
        let mut labels = self.owner.labels();
        labels.extend([
            ("io.kubernetes.pod.name".to_owned(), pod.name.clone()),
            (
                "io.kubernetes.pod.namespace".to_owned(),
                pod.namespace.clone(),
            ),
            ("io.kubernetes.pod.uid".to_owned(), pod.uid.clone()),
            (
                "io.kubernetes.container.name".to_owned(),
                container.to_owned(),
            ),
        ]);
        labels
    }

    /// A container's name: legible, and unique on the engine.
    fn name(&self, pod: &SandboxSpec, sandbox: u64, container: &str) -> String {
        let project = &self.owner.project;
        let unique = pod.uid.get(..8).unwrap_or(&pod.uid);
        format!("{project}_{}_{container}_{unique}-{sandbox}", pod.name)
    }
}

/// An answer of the engine that was not the one hoped for.
fn failed(doing: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> RuntimeError {
    let doing = doing.into();
    move |error| {
        let said = match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => message,
            other => other.to_string(),
        };
        RuntimeError::Other(format!("{doing}: the Docker Engine says: {said}"))
    }
}

/// Whether it means that there is no such thing, or that it is on its way out already.
fn is_gone(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError;
    match error {
        DockerResponseServerError {
            status_code: 404, ..
        } => true,
        DockerResponseServerError {
            status_code: 409,
            message,
        } => message.contains("already in progress"),
        _ => false,
    }
}
