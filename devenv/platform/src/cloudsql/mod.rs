//! Cloud SQL on this machine: a private MySQL or MariaDB server, run as a pod
//! beside the application's namespace, as Cloud SQL stands beside the cluster; or the
//! container that a Compose file describes.

pub mod engine;
pub mod migrate;
pub mod statements;
pub mod template;

mod account;
mod container;
pub(crate) mod follow;
mod server;
mod slice;

pub(crate) use account::{Account, database, in_container, service_of};
pub(crate) use container::described;

pub use container::{
    ComposeDatabase, ContainerServer, ContainerServerError, has_container, remove_container,
};
pub use engine::{Engine, EngineError, Flavour};
pub use migrate::{MigrateError, Migrated};
pub use server::{
    CREDENTIALS_PASSWORD, CREDENTIALS_USER, Credentials, NAMESPACE, Server, server_pid,
};
pub use slice::{endpoint_ports, endpoint_slice, endpoints};
