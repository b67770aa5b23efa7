//! What a target needs around the Kubernetes API: addresses, the Cloud SQL engine,
//! what has to be installed. Nothing in here prints.
#![warn(missing_docs)]

pub mod address;
pub mod cloudsql;
pub mod containers;
pub mod doctor;
mod home;
pub mod host;
pub mod kind;
pub mod kubernetes;
mod local;
mod objects;
mod pods;
pub mod process;
pub mod shared;
mod target;
mod trace;
pub mod trouble;

pub use containers::ContainerEngine;
pub use devenv_cluster::Isolation;
pub use kind::{IngressController, KindOptions, KindTarget};
pub use kubernetes::{FIELD_MANAGER, Scope};
pub use local::{DatabaseOptions, LocalOptions, LocalTarget};
pub use shared::{KubeOptions, KubeTarget};
pub use target::{
    Adapter, BuiltImage, Database, DatabaseFacts, Endpoints, ImageFact, Images, NodeState,
    NodeTrouble, Runtime, Serves, Target, TargetError, TargetKind, Volumes, owner_of,
};
