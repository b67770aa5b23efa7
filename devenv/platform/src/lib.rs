//! What a target needs around the Kubernetes API.

#![warn(missing_docs)]
