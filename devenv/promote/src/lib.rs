//! What a promotion decides, without doing any of it: no network, no clock, no file.
//!
//! A promotion observes, plans and acts. This crate holds the plans and the judgements,
//! each a pure function of what was observed, so that all of them can be tested in tables
//! and by simulation:
//!
//! - [`analysis`]: is the canary worse than stable? A sequential test with a stated rate
//!   of false alarms.
//! - [`shares`]: which weights a route carries at each step, and how to get back.
//! - [`translate`]: Ingresses with ingress-nginx's annotations as Gateway API objects, and
//!   every reason why they can't be.
//! - [`diff`]: what would change in a cluster, for people and as JSON, and what others
//!   have changed there.
//! - [`migrations`]: which SQL statements the version that still runs would not survive.
#![warn(missing_docs)]

pub mod analysis;
pub mod diff;
pub mod migrations;
pub mod shares;
pub mod translate;
