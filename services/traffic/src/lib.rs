//! `traffic` sends telemetry records to the reference application and says honestly what came back.
//!
//! It is the library behind `devenv traffic`: it prints nothing and knows no command line. A run takes
//! a [`Source`] of records (this machine's own `/proc`, or a JSON file), [`Options`] that say where, how
//! fast and how long, and gives a [`Report`]; [`ExpectSplit`] and [`MaxFailures`] judge that report.
//!
//! Two ways to set the pace, because they answer different questions:
//! - [`Pace::Rate`], an **open loop**: request *i* is due at `start + i / rate`, whatever the answers do,
//!   and its latency counts from that moment. A server that stalls for a second shows a second of
//!   latency on every request that was due meanwhile (no coordinated omission).
//! - [`Pace::Users`], a **closed loop**: so many users, each sending its next request when the last one
//!   was answered; latency counts from the sending.
//!
//! Memory is bounded whatever the length of the run: histograms of fixed range, at most
//! [`Options::max_in_flight`] requests and connections; only [`Options::collect_ids`] grows with it.
#![warn(missing_docs)]

mod checks;
mod client;
mod error;
mod options;
mod pace;
mod proc;
mod record;
mod report;
mod run;
mod source;
mod tally;

pub use checks::{ExpectSplit, MaxFailures, ParseCheckError};
pub use error::TrafficError;
pub use options::{Idempotency, Options, Pace, Stop};
pub use proc::{ProcReader, ProcSample};
pub use record::Record;
pub use report::{Latency, Progress, Report};
pub use run::run;
pub use source::Source;
