//! Plain data: devenv.toml, Kubernetes manifests, the validated topology.

#![warn(missing_docs)]
