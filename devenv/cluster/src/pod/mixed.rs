//! Two runtimes in one cluster: containers, and processes for the pods that ask for
//! them. All of them share the cluster's network.

use std::sync::Arc;

use async_trait::async_trait;

use super::runtime::{PodRuntime, PodSandbox, RuntimeError, SandboxSpec};

/// On a pod: what runs it, where its cluster's runtime is another.
pub const ANNOTATION: &str = "devenv.dev/runtime";
/// The annotation's value for processes of this machine.
pub const PROCESS: &str = "process";

/// Runs pods as containers, and those with the [`ANNOTATION`] as processes.
#[derive(Debug)]
pub(crate) struct MixedRuntime {
    pub(crate) processes: Arc<dyn PodRuntime>,
    pub(crate) containers: Arc<dyn PodRuntime>,
}

#[async_trait]
impl PodRuntime for MixedRuntime {
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        match spec.runtime.as_deref() {
            Some(PROCESS) => self.processes.create(spec).await,
            None => self.containers.create(spec).await,
            Some(other) => Err(RuntimeError::Other(format!(
                "the annotation {ANNOTATION} is {other:?}; expected {PROCESS:?} or none"
            ))),
        }
    }
}
