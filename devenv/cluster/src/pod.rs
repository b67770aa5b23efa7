//! Pods: from the object to processes, and back to its status.
//!
//! [`kubelet`] watches Pods and gives each to one [`instance`] task, which owns
//! that pod's state alone. A [`runtime::PodRuntime`] makes the pod's sandbox
//! and runs its containers; everything else here is decisions.

pub mod backoff;
pub mod configs;
mod connections;
pub mod docker;
pub mod env;
mod hooks;
pub mod instance;
pub mod ip;
pub mod kubelet;
mod limits;
pub mod links;
pub mod logs;
pub mod metrics;
pub mod mixed;
pub mod pids;
pub mod plain;
pub mod probes;
pub mod runtime;
pub mod sandbox;
pub mod spec;
pub mod status;
pub mod volumes;

pub use limits::{bytes, milli_cpus, nano_cpus};

#[cfg(test)]
pub(crate) mod fake;
