//! What runs pods: a seam with processes behind it, and containers.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use devenv_sandbox::{Bind, Limits, Tmpfs, Usage};
use k8s_openapi::api::core::v1::Container;
use tokio::io::AsyncRead;

use super::volumes::File;
use crate::image::ContainerImage;

/// A pod to be made.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The runtime that it asks for, by the annotation [`super::mixed::ANNOTATION`].
    pub runtime: Option<String>,
    /// Host name inside the pod.
    pub hostname: String,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Files that all its containers see (`/etc/resolv.conf`, `/etc/hosts`).
    pub files: Vec<File>,
    /// For all its containers together.
    pub limits: Limits,
    /// Folders of the host over which it has memory of its own.
    pub tmpfs: Vec<Tmpfs>,
}

/// A container to be started.
#[derive(Clone)]
pub struct StartSpec {
    /// Its name in the pod.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory in the container.
    pub cwd: PathBuf,
    /// Host paths that it sees.
    pub binds: Vec<Bind>,
    /// User and group; the owner of the checkout when not given.
    pub run_as: Option<(u32, u32)>,
    /// Host folders that it finds empty, unless they are bound themselves.
    pub hidden: Vec<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// The image of a container engine that it runs from, and not from this machine's files.
    pub image: Option<Arc<ContainerImage>>,
    /// User and group in that image, `UID[:GID]`; the image's own when not given.
    pub user: Option<String>,
    /// What it is kept from there.
    pub security: Security,
}

/// A container's `securityContext`, as far as container engines act on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `capabilities.add`.
    pub add: Vec<String>,
    /// `capabilities.drop`.
    pub drop: Vec<String>,
}

impl std::fmt::Debug for StartSpec {
    /// Without the environment: it may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartSpec")
            .field("name", &self.name)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}

/// Where a container's output comes from.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A container that was started.
pub struct Started {
    /// Process id on the host, for people; 0 where there is none.
    pub pid: u32,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error.
    pub stderr: Output,
    /// What it has to do without on this machine, each in a sentence for people.
    pub warnings: Vec<String>,
    /// What measures this run of it.
    pub meter: Arc<dyn Meter>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// What a container had used, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The moment, on a clock of the meter's own: two readings of one meter are so far apart.
    pub at: Duration,
    /// What it had used by then, and its memory.
    pub usage: Usage,
}

/// Measures one run of a container.
#[async_trait]
pub trait Meter: Send + Sync + std::fmt::Debug {
    /// What the run has used by now.
    ///
    /// # Errors
    /// When it has ended, or that can't be known.
    async fn read(&self) -> Result<Reading, RuntimeError>;
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// What happens in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxEvent {
    /// A container ended.
    Exited {
        /// Its name.
        container: String,
        /// How.
        ended: Ended,
        /// Whether it lost a process for want of memory.
        out_of_memory: bool,
    },
    /// Everything in the pod is gone.
    Gone,
}

/// Why the runtime could not do something. The message stands in the pod's status.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The sandbox refused.
    #[error(transparent)]
    Sandbox(#[from] devenv_sandbox::SandboxError),
    /// The container asks for what this runtime cannot give; it starts when that is mended.
    #[error("{0}")]
    Config(String),
    /// A handle of the operating system could not be used.
    #[error("cannot read the pod's output or events")]
    Io(#[from] std::io::Error),
    /// Anything else, said in a sentence.
    #[error("{0}")]
    Other(String),
}

impl RuntimeError {
    /// The whole chain of causes in one line, for a status.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Makes pods.
#[async_trait]
pub trait PodRuntime: Send + Sync + std::fmt::Debug {
    /// Makes a pod's namespaces and network; nothing runs in it yet.
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError>;
    /// Which limits are not enforced here, why, and what would mend it; `None` when all are.
    fn limits_missing(&self) -> Option<String> {
        None
    }
}

/// One pod. Dropping the last handle kills everything in it.
#[async_trait]
pub trait PodSandbox: Send + Sync + std::fmt::Debug {
    /// Changes the container's own variables, over those of its image, before its command line is
    /// made from them and it is started. A runtime that gives pods a network of their own has
    /// nothing to change.
    fn prepare(
        &self,
        _container: &Container,
        _image: &[(String, String)],
        _own: &mut Vec<(String, String)>,
    ) {
    }
    /// Starts a container; again after it ended, under the same name.
    async fn start(&self, spec: StartSpec) -> Result<Started, RuntimeError>;
    /// Runs a short command in the running container `spec.name` and waits for its end (exec probes).
    async fn exec(&self, spec: StartSpec) -> Result<Ended, RuntimeError>;
    /// Sends a signal to a container's processes.
    async fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError>;
    /// Leaves no room where the pod's containers write, those that start later too, or gives it
    /// back. What is bound from the host is not touched.
    async fn fill_disk(&self, full: bool) -> Result<(), RuntimeError> {
        if full {
            let why = "pods of this runtime write to the machine's own disk, which is never filled";
            return Err(RuntimeError::Other(why.to_owned()));
        }
        Ok(())
    }
    /// The next event; dropping the future loses nothing.
    async fn next_event(&self) -> SandboxEvent;
    /// Why the container's last run ended as it did, where the runtime knows more than its exit code.
    fn explain(&self, _container: &str) -> Option<String> {
        None
    }
    /// How many connections from outside the pod its servers hold now.
    async fn inbound(&self) -> usize;
    /// Kills everything in the pod; [`SandboxEvent::Gone`] follows.
    fn kill(&self);
}
