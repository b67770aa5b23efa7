//! End-to-end suites: their format, their steps, the runner, and the reports. It knows
//! an environment by its addresses and its Kubernetes API, and nothing of how it was
//! brought up, so that the same suites run against every target.
//!
//! A file becomes a [`suite`]; its variables ([`vars`]) are put into a [`step`] just
//! before that runs; what comes of it is an answer ([`capture`]) that is held against
//! what was expected ([`expect`], [`matcher`]). [`plan`] says which tests run, [`run`] runs
//! them, [`outcome`] is what came of it, and [`report`] shows that. [`compare`] sends what
//! suites send to two systems, and says what differs.
#![warn(missing_docs)]

pub mod capture;
pub mod compare;
pub mod environment;
pub mod expect;
pub mod matcher;
pub mod outcome;
pub mod plan;
pub mod redact;
pub mod report;
pub mod run;
pub mod socketio;
mod statistics;
pub mod step;
pub mod suite;
pub mod vars;
