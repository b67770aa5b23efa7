//! Plain data: `devenv.toml`, Kubernetes manifests (with kustomize), Cloud Run YAML,
//! and the validated [`Topology`] that all of it becomes.
//!
//! [`Topology::load`] reads everything before it complains, and then returns every
//! [`Problem`] at once, each with file, line and column, what was expected, and what to
//! do. It prints nothing and needs no network.
//!
//! Files become trees in which every value knows its position (`node`), whether they
//! are TOML (`toml_tree`) or YAML (`yaml`). kustomize works on those trees, so that a
//! message about a patched value points into the patch. One deserializer (`de`) checks
//! trees against Rust types and collects all mismatches.
//!
//! A profile is laid over the tree of `devenv.toml` (`profile`). What an image's section
//! leaves out is inferred (`infer`) from its Dockerfile (`dockerfile`) and from the files
//! of package managers.

#![warn(missing_docs)]

mod config;
mod de;
mod dockerfile;
pub mod document;
mod image;
mod infer;
mod kinds;
pub mod knative;
mod kustomize;
mod load;
mod made;
mod manifests;
mod names;
mod node;
mod problem;
mod profile;
mod reading;
mod source;
mod toml_tree;
mod topology;
pub mod tree;
mod validate;
mod yaml;

pub use config::{CloudSqlEngine, Command, GateConfig, IngressConfig, Reload};
pub use dockerfile::clean as clean_path;
pub use load::{Invalid, LoadOptions, Loaded};
pub use made::MADE;
pub use names::is_label;
pub use problem::{Place, Problem, Severity};
pub use source::{Origin, SourceFile};
pub use topology::{
    CLOUD_SQL_SECRET_KEYS, CloudSql, ContainerBuild, ImageSource, Inferred, NginxManifest,
    NginxSource, Object, Project, PythonEnv, PythonKind, SyncPath, Topology,
};
