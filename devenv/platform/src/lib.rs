//! What a target needs around the Kubernetes API: addresses, the Cloud SQL engine,
//! what has to be installed. Nothing in here prints.
#![warn(missing_docs)]

pub mod address;
pub mod cloudsql;
pub mod containers;
pub mod doctor;
pub mod host;
pub mod kind;
mod local;
pub mod process;
mod target;
mod trace;

pub use containers::ContainerEngine;
pub use devenv_cluster::Isolation;
pub use kind::{IngressController, KindOptions, KindTarget};
pub use local::{DatabaseOptions, LocalOptions, LocalTarget};
pub use target::{
    Adapter, BuiltImage, Database, DatabaseFacts, Endpoints, Runtime, Serves, Target, TargetError,
    TargetKind, Volumes,
};

/// The field manager of everything that devenv applies.
pub const FIELD_MANAGER: &str = "devenv";
