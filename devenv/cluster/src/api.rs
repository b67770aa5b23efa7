//! The Kubernetes API over HTTPS: discovery, verbs, patches, tables, logs.

mod logs;

pub use logs::{LogError, LogQuery, LogSource};
