//! The local Kubernetes, in process.

#![warn(missing_docs)]
