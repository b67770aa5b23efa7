//! What came of a run: the one model behind the terminal, JSON, JUnit, GitHub
//! annotations, HTML and the verdict. Serialized it is the JSON report; fields are only
//! ever added.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A place in a suite's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Relative to the project's folder.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// How a test or step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As expected.
    Passed,
    /// As expected, after at least one attempt that was not.
    Flaky,
    /// Not as expected.
    Failed,
    /// Something it needs is not installed or not running: no pass, and no fault of the
    /// system under test. The exit code is 3.
    Missing,
    /// This target can't do it; never counted as passed.
    Unsupported,
    /// Not run: left out by its own `targets` or `profiles`, or after a failed step.
    Skipped,
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Of the run, also the name of its folder.
    pub id: String,
    /// RFC 3339.
    pub started: jiff::Timestamp,
    /// Milliseconds from the start to the end of the last suite.
    pub ms: u64,
    /// Milliseconds until the first environment was ready.
    pub ready_ms: u64,
    /// `local`, `kind`, `kube:CONTEXT`.
    pub target: String,
    /// The profile of devenv.toml.
    pub profile: Option<String>,
    /// Suites in the order of their names.
    pub suites: Vec<SuiteReport>,
}

/// A suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuiteReport {
    /// Its name.
    pub name: String,
    /// Its file, relative to the project's folder.
    pub file: PathBuf,
    /// The environment it ran in.
    pub environment: String,
    /// Milliseconds from the run's start.
    pub started_ms: u64,
    /// How long it took.
    pub ms: u64,
    /// Its tests in the file's order.
    pub tests: Vec<TestReport>,
    /// Why it could not run at all.
    pub error: Option<String>,
}

/// A test, with each attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestReport {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// How it ended.
    pub outcome: Outcome,
    /// Every attempt, the last one decides.
    pub attempts: Vec<Attempt>,
    /// Why it was left out.
    pub reason: Option<String>,
    /// The command that runs this test again.
    pub again: String,
}

/// One attempt at a test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Milliseconds from the run's start.
    pub started_ms: u64,
    /// How long it took.
    pub ms: u64,
    /// Its steps up to the one that failed.
    pub steps: Vec<StepReport>,
}

/// A step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepReport {
    /// `http`, `sql`, …
    pub kind: String,
    /// Its name, or what it does in a few words: `POST /api`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds from the run's start.
    pub started_ms: u64,
    /// How long it took.
    pub ms: u64,
    /// What was not as expected.
    pub mismatches: Vec<Mismatch>,
    /// What was seen, shortened and without secrets: an answer, rows, a program's output.
    pub seen: Option<String>,
    /// Of a failed step: what the workloads printed while it ran, by workload.
    pub logs: BTreeMap<String, Vec<String>>,
    /// Pictures, relative to the run's folder.
    pub screenshots: Vec<PathBuf>,
    /// Of a split: how many each backend answered.
    pub split: Option<BTreeMap<String, u64>>,
}

/// One thing that was expected, and what came instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// What was looked at: `status`, `$.api`, `rows[0].n`.
    pub what: String,
    /// What was expected, in words.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl RunReport {
    /// Whether all that ran passed, and something ran. `Unsupported` and `Skipped` are
    /// neither.
    pub fn passed(&self) -> bool {
        let mut any = false;
        for suite in &self.suites {
            if suite.error.is_some() {
                return false;
            }
            for test in &suite.tests {
                match test.outcome {
                    Outcome::Passed | Outcome::Flaky => any = true,
                    Outcome::Failed | Outcome::Missing => return false,
                    Outcome::Unsupported | Outcome::Skipped => {}
                }
            }
        }
        any
    }
}

/// What happens in a run, as it happens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEvent {
    /// An environment is being made.
    Preparing {
        /// For which suites.
        suites: Vec<String>,
    },
    /// It is ready.
    Ready {
        /// What it is called.
        environment: String,
        /// How long it took.
        ms: u64,
    },
    /// A test begins.
    TestStarted {
        /// Its suite.
        suite: String,
        /// Its name.
        test: String,
    },
    /// An attempt failed, and there is another.
    Retry {
        /// Its suite.
        suite: String,
        /// Its name.
        test: String,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// The failed step.
        step: Box<StepReport>,
    },
    /// A test ended.
    TestEnded {
        /// Its suite.
        suite: String,
        /// What came of it.
        report: Box<TestReport>,
        /// How many tests have ended, of how many.
        done: usize,
        /// All tests of the run.
        total: usize,
    },
    /// The run ended.
    Ended {
        /// All of it.
        report: Box<RunReport>,
    },
}
