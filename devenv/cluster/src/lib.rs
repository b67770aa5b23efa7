//! The local Kubernetes, in process.
//!
//! [`store`] keeps the objects and tells of every change; [`api`] answers the
//! Kubernetes HTTP API for them, to kubectl and kube-rs alike.

#![warn(missing_docs)]

pub mod api;
pub mod kinds;
pub mod store;
// Controllers, pods, networks and the facade go below this line.
pub mod cluster;
pub mod controllers;
mod ground;
pub mod host;
pub mod image;
pub mod net;
pub mod pod;
mod time;

pub use cluster::{Cluster, ClusterError, ClusterOptions, Containers, TaskFailed};
pub use devenv_sandbox::{Access, Bind};
pub use ground::Isolation;
pub use host::HostPrograms;
pub use image::{ContainerImage, ImageTable, RunSpec};
pub use net::dial::ServicePort;
pub use pod::mixed::{ANNOTATION as RUNTIME_ANNOTATION, PROCESS as RUNTIME_PROCESS};

/// Plays this process's role in a cluster, if it was started for one, and then never
/// returns. Call it first in `main`, before any thread exists and before the arguments
/// are parsed.
pub fn run_role_if_asked() {
    devenv_sandbox::run_role_if_asked();
    pod::docker::run_role_if_asked();
}
