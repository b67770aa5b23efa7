//! devenv's data plane as an ingress controller inside a Kubernetes cluster.
//!
//! [`run`] watches Ingresses, IngressClasses, Services and their endpoints of
//! all namespaces, compiles them with [`devenv_ingress::compile`] and publishes
//! the table to a [`devenv_ingress::Proxy`] that connects to pods directly; it
//! writes the Ingresses' status and tells compile's warnings as Events.
//! [`manifest`] is what must be applied for it to run in a cluster.
//!
//! Supported are Kubernetes 1.19 (the first with `networking.k8s.io/v1`) through
//! current. Where the API differs between versions, discovery is asked: see
//! [`slices`].
//!
//! What the local cluster's own controller does and this one does not: it has
//! no opinion on which Services have endpoints on the way
//! ([`Inputs::coming`](devenv_ingress::Inputs::coming) is empty), as that would
//! take watching every pod and workload of the cluster. A Service without ready
//! endpoints is 503 at once, as with ingress-nginx. Only until the endpoints
//! have been listed for the first time are requests held for them.
//!
//! The layers, each testable without the next: `convert` (pure: older forms of
//! endpoints → EndpointSlices), `cache` (what is known of the API), `feed` (the
//! task that turns changes into tables), `report` (the task that writes status
//! and Events), `health` (the kubelet's probes), `controller` (their life).

#![warn(missing_docs)]

mod cache;
mod controller;
mod convert;
mod feed;
mod health;
mod manifest;
mod options;
mod report;
pub mod slices;
mod v1beta1;

pub use controller::{Controller, run};
pub use manifest::{ManifestOptions, NAMESPACE, manifest};
pub use options::{ControllerError, ControllerOptions};
