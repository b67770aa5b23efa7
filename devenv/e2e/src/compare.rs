//! The same traffic against two systems, and what differs in their answers: shadow testing
//! on one machine.
//!
//! The traffic is what suites send: the requests of their `http` steps, and one for each
//! `split` and `load` step, test by test, so many rounds. What a step captures is captured
//! on each side by itself, so that an id leads to the record that this side made of it;
//! `${uuid}` is the same on both. What is expected of a step doesn't matter here, and steps
//! of other kinds are left out, and said to be. Each request goes to both sides, one right
//! after the other, in turns first, before the next one.
//!
//! What differs by its nature is named in a suite's `[compare]` table. How values are
//! judged is said in `tally`, how times are in [`latency`].

mod diff;
pub mod latency;
mod replay;
mod tally;
pub mod text;
mod traffic;

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;

use crate::{environment::Environment, outcome::Place};
use latency::{Latency, Verdict};

pub use replay::compare;

/// How often the traffic is sent, unless said otherwise: enough for an exact split to show
/// every backend, and for times to be told apart where they clearly are.
pub const ROUNDS: u32 = 20;

/// One of the two systems.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called, for people: `main (1a2b3c4)`, `this tree`.
    pub label: String,
    /// Where it is.
    pub environment: Arc<Environment>,
}

/// How a comparison is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the traffic is sent.
    pub rounds: u32,
    /// The run's id: `${run}`.
    pub run: String,
    /// The run's folder: `${DEVENV_RUN_DIR}`.
    pub run_dir: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The left side's label.
    pub left: String,
    /// The right side's label.
    pub right: String,
    /// How often the traffic was sent.
    pub rounds: u32,
    /// How many requests were sent to both sides.
    pub pairs: u64,
    /// What differs, in the order in which it was met.
    pub differences: Vec<Difference>,
    /// What was sent, by method and path, in the order of the suites.
    pub requests: Vec<Requests>,
    /// What was left out and what may be a mistake in the rules, for people.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Whether anything was compared, and nothing differs. Times don't count: they are
    /// told, and never judged.
    pub fn same(&self) -> bool {
        self.pairs > 0 && self.differences.is_empty()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `POST /api`.
    pub request: String,
    /// Where: `answer`, `status`, `header NAME`, `body`, or a JSON path.
    pub place: String,
    /// What the left side has there; where there are several, an example.
    pub left: String,
    /// What the right side has there.
    pub right: String,
    /// How many of them differ.
    pub count: u64,
    /// Of how many: answers, or elements of lists in them.
    pub of: u64,
    /// What is to be known about it.
    pub note: Option<String>,
    /// The steps whose request it was.
    pub steps: Vec<Place>,
}

/// The requests of one method and path.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    /// `POST /api`.
    pub request: String,
    /// How many were sent to both sides.
    pub pairs: u64,
    /// Their times, unless none was answered alike.
    pub latency: Option<Latency>,
    /// Whether the right side is slower or faster.
    pub verdict: Verdict,
}
