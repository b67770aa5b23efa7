//! End-to-end suites: their format, their steps, the runner, and the reports. It knows
//! an environment by its addresses and its Kubernetes API, and nothing of how it was
//! brought up, so that the same suites run against every target.
#![warn(missing_docs)]

pub mod environment;
pub mod outcome;
pub mod report;
