//! What a target needs around the Kubernetes API: addresses, the Cloud SQL engine,
//! what has to be installed. Nothing in here prints.
#![warn(missing_docs)]

pub mod address;
pub mod cloudsql;
pub mod containers;
pub mod doctor;
pub mod host;
mod local;
mod target;

pub use containers::ContainerEngine;
pub use devenv_cluster::Isolation;
pub use local::{DatabaseOptions, FIELD_MANAGER, LocalOptions, LocalTarget};
pub use target::{
    BuiltImage, Database, DatabaseFacts, Endpoints, Runtime, Target, TargetError, Volumes,
};
