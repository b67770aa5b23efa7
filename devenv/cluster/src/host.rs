//! Programs beside the pods: builds, which see the host's files and network and die
//! with the cluster, in whatever way that dies.

use std::sync::Arc;

pub use devenv_sandbox::{Exit, HostChild, HostProcess, SandboxError};

use crate::ground::Ground;

/// Runs them. Cheap to clone; it keeps the cluster's network alive.
#[derive(Debug, Clone)]
pub struct HostPrograms {
    ground: Arc<Ground>,
}

impl HostPrograms {
    pub(crate) fn new(ground: Arc<Ground>) -> HostPrograms {
        HostPrograms { ground }
    }

    /// Starts a program. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// As [`devenv_sandbox::Netd::run_host`].
    pub fn run(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        self.ground.run_host(process)
    }
}
