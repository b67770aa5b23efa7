//! Pods where namespaces are forbidden: process trees of this machine.
//!
//! Every container is a session of processes under a holder of
//! [`devenv_sandbox::Plain`], which ends all that comes of it. What a network
//! and a root of its own would give is given otherwise, as far as it goes:
//!
//! - **Ports.** Every pod has a loopback address of its own
//!   ([`Loopback`](crate::net::loopback)). Every container is given a free port
//!   in `PORT` and that address in `HOST`, in place of what its manifest sets
//!   there. Whoever connects to the pod's port from the manifest is led to the
//!   given one, or to the port itself where a program of this pod listens there
//!   although it was told otherwise ([`door`]). A program with a hard-coded port
//!   holds it on every address, so a second one cannot have it: its end is
//!   explained, and a Deployment of such a program stops the old pod first.
//! - **Names.** Names and addresses of the cluster in variables and arguments are
//!   replaced by real addresses when a container starts ([`rewrite`]).
//! - **Files.** Nothing can be mounted. ConfigMaps, Secrets and emptyDirs are
//!   folders of the pod, and variables and arguments that name where they
//!   should be are made to name where they are ([`paths`]). A container that has
//!   a mount which nothing names is not started, and says so.
//! - **Users.** As root, containers run as the owner of the checkout or as their
//!   `runAsUser`; otherwise as the user that devenv runs as.

mod door;
mod hosts;
mod listen;
mod paths;
mod rewrite;
mod room;
mod sandbox;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use devenv_sandbox::Plain;

use super::runtime::{PodRuntime, PodSandbox, RuntimeError, SandboxSpec};
use crate::net::loopback::Loopback;
use crate::store::Store;
use door::PodDoor;
use sandbox::PlainSandbox;

/// Runs pods as plain processes.
pub struct PlainRuntime {
    shared: Arc<Shared>,
}

/// What all its pods share.
struct Shared {
    plain: Arc<Plain>,
    loopback: Arc<Loopback>,
    store: Store,
    /// Where pods have their folders; private.
    dir: PathBuf,
    /// Who owns what is made there.
    owner: (u32, u32),
    /// What gives pods namespaces here.
    remedy: String,
}

impl std::fmt::Debug for PlainRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainRuntime")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl PlainRuntime {
    /// A runtime whose pods have folders in `dir`, which is private to devenv and `owner`, and are
    /// reached through `loopback`. `remedy` says what gives pods namespaces on this machine.
    pub fn new(
        plain: Arc<Plain>,
        loopback: Arc<Loopback>,
        store: Store,
        dir: PathBuf,
        owner: (u32, u32),
        remedy: String,
    ) -> PlainRuntime {
        PlainRuntime {
            shared: Arc::new(Shared {
                plain,
                loopback,
                store,
                dir,
                owner,
                remedy,
            }),
        }
    }
}

#[async_trait]
impl PodRuntime for PlainRuntime {
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        let name = format!("pod {}/{}", spec.namespace, spec.hostname);
        let door = self
            .shared
            .loopback
            .admit(spec.ip, |real| Arc::new(PodDoor::new(name, real)))
            .ok_or_else(|| {
                RuntimeError::Other(
                    "all loopback addresses of this project are in use; end some pods".to_owned(),
                )
            })?;
        Ok(Arc::new(PlainSandbox::new(self.shared.clone(), spec, door)))
    }
}
