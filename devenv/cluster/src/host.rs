//! Programs beside the pods: builds, which see the host's files and network and die
//! with the cluster, in whatever way that dies.

use std::sync::Arc;

use devenv_sandbox::Netd;
pub use devenv_sandbox::{Exit, HostChild, HostProcess, SandboxError};

/// Runs them. Cheap to clone; it keeps the cluster's network alive.
#[derive(Debug, Clone)]
pub struct HostPrograms {
    netd: Arc<Netd>,
}

impl HostPrograms {
    pub(crate) fn new(netd: Arc<Netd>) -> HostPrograms {
        HostPrograms { netd }
    }

    /// Starts a program. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// As [`Netd::run_host`].
    pub fn run(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        self.netd.run_host(process)
    }
}
