//! The local Kubernetes, in process.
//!
//! [`store`] keeps the objects and tells of every change; [`api`] answers the
//! Kubernetes HTTP API for them, to kubectl and kube-rs alike.

#![warn(missing_docs)]

pub mod api;
pub mod kinds;
pub mod store;
// Controllers, pods, networks and the facade go below this line.
