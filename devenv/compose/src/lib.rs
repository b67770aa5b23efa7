//! The [Compose specification](https://compose-spec.io), as far as devenv needs it: what
//! stands beside the cluster, run on a Docker Engine the way Compose 2 runs it.
//!
//! [`load`] reads a file and tells everything that is wrong at once, each problem with its
//! place. What devenv can't run of the specification is such a problem: nothing is
//! silently left out.
//!
//! [`Engine`] runs a project with Compose's own names, labels and hashes, so that
//! `docker compose ls`, `ps`, `logs` and `down` work on what devenv has started, and devenv
//! on what Compose has started.
//!
//! It prints nothing and reads no environment: what it needs is handed in.

#![warn(missing_docs)]

mod engine;
mod hash;
mod project;
mod read;

pub use engine::{
    Container, DEFAULT_HOST, Engine, EngineError, LogLine, LogOptions, Progress, Published, Share,
    Stream, Told, is_disk_full,
};
pub use project::{
    Attachment, Condition, Dependency, Healthcheck, Limits, Mount, MountKind, Network, Pool, Port,
    Project, PullPolicy, Restart, Service, Ulimit, Volume,
};
pub use read::{LoadError, Loaded, Options, load};
