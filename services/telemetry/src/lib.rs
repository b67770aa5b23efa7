//! What the telemetry services share: the record and its rules, the database
//! behind `cloudsql`, the write side of the HTTP contract, and the life of a
//! service in a pod (configuration from the environment, probes, metrics,
//! graceful shutdown).
//!
//! `api1` and `api2` are this crate under two names; `api3` uses its parts.

pub mod config;
pub mod db;
pub mod http;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod problem;
pub mod read;
pub mod record;
pub mod service;
#[cfg(feature = "testing")]
pub mod testing;
pub mod write;

pub use config::{Config, ConfigError, Defaults};
pub use db::{Db, DbError};
pub use problem::Problem;
pub use record::Record;
pub use service::{ServiceError, run_write_service};
