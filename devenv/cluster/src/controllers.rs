//! What moves the objects: each controller observes, plans with a pure function, and acts.
//!
//! [`runtime`] is the loop around all of them: a deduplicating queue of keys,
//! woken by the store's watch. The reason for a wake-up is logged and never
//! acted on; every decision comes from the objects as they are now.

pub mod coming;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod events;
pub mod gc;
pub mod ingress;
pub mod knative;
pub mod node;
pub mod owner;
pub mod replicaset;
pub mod runtime;
