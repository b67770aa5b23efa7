//! The verdict itself: what was tested, how it went, and exactly which tree that is true
//! of.

use std::path::{Path, PathBuf};

use devenv_e2e::outcome::{Outcome, RunReport, SuiteReport, TestReport};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    coverage::{Change, Coverage, Group},
    seal::{Seal, SealError},
    tree::Tree,
};

/// The version of the format; readers refuse a later one.
pub const SCHEMA: u32 = 1;

/// What ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Processes of this tree.
    Source,
    /// Exactly these container images.
    Image,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Image => "image",
        })
    }
}

/// What was tested, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of devenv that wrote it.
    pub devenv: String,
    /// The project's name.
    pub project: String,
    /// The run's id.
    pub run: String,
    /// What ran.
    pub level: Level,
    /// `local`, `kind` or `kube:CONTEXT`.
    pub target: String,
    /// The profile of devenv.toml, if one was asked for.
    pub profile: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// When its last suite ended.
    pub ended: Timestamp,
    /// Whether all that ran passed, something ran, and nothing was left out by hand.
    pub passes: bool,
    /// What was left out by hand, such as `--filter split`: a verdict on a part passes
    /// nothing.
    pub partial: Option<String>,
    /// Files of suites that the run says nothing about.
    pub not_run: Vec<String>,
    /// What came of each suite.
    pub suites: Vec<SuiteOutcome>,
    /// What it is true of.
    pub coverage: Coverage,
}

/// What came of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteOutcome {
    /// Its name.
    pub name: String,
    /// Its file, relative to the project's folder.
    pub file: PathBuf,
    /// Milliseconds that it took.
    pub ms: u64,
    /// Why it could not run at all.
    pub error: Option<String>,
    /// Its tests in the file's order.
    pub tests: Vec<TestOutcome>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// Its name.
    pub name: String,
    /// The line in the suite's file where it begins, from 1.
    pub line: u32,
    /// How it ended. `flaky`: it passed, after an attempt that did not.
    pub outcome: Outcome,
    /// How often it was tried.
    pub attempts: usize,
    /// Why it was left out, if it was.
    pub reason: Option<String>,
}

/// Why there is no verdict on a run.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// Some of what it would cover changed during the run: nobody can say what was
    /// tested.
    #[error("{}", changed_meanwhile(.0))]
    ChangedMeanwhile(Vec<Change>),
    /// The report is of another run.
    #[error("the run was on {run}, and what was hashed is for {tree}")]
    OtherRun {
        /// Target and profile of the run.
        run: String,
        /// Target and profile that were looked at.
        tree: String,
    },
    /// A secret can't be hashed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

fn changed_meanwhile(changes: &[Change]) -> String {
    let first = changes.first().map(ToString::to_string).unwrap_or_default();
    let what = if changes.iter().all(|c| c.group == Group::Digest) {
        "images were built anew"
    } else {
        "the tree changed"
    };
    match changes.len() {
        0 | 1 => format!("no verdict, since {what} while it was tested: {first}"),
        n => format!(
            "no verdict, since {what} while it was tested: {first}, and {} more",
            n - 1
        ),
    }
}

impl Verdict {
    /// On a run that `report` tells about, between two looks at the tree: `before` the
    /// first build and `after` the last test. `partial` says what was left out by hand,
    /// as one would type it (`--filter split`, `--shard 1/4`); `devenv` is the version
    /// of the program. Takes some ten milliseconds for each secret.
    ///
    /// # Errors
    /// When the tree changed meanwhile, or the looks are at something else than the run.
    pub fn of_run(
        before: &Tree,
        after: &Tree,
        report: &RunReport,
        partial: Option<&str>,
        devenv: &str,
    ) -> Result<Self, VerdictError> {
        Self::sealed(before, after, report, partial, devenv, Seal::new())
    }

    pub(crate) fn sealed(
        before: &Tree,
        after: &Tree,
        report: &RunReport,
        partial: Option<&str>,
        devenv: &str,
        seal: Seal,
    ) -> Result<Self, VerdictError> {
        let changes = after.changes_since(before);
        if !changes.is_empty() {
            return Err(VerdictError::ChangedMeanwhile(changes));
        }
        if (&report.target, &report.profile) != (&after.target, &after.profile) {
            return Err(VerdictError::OtherRun {
                run: described(&report.target, report.profile.as_deref()),
                tree: described(&after.target, after.profile.as_deref()),
            });
        }
        let coverage = after.covered(seal)?;
        let not_run = not_run(&coverage, report);
        let length = SignedDuration::from_millis(i64::try_from(report.ms).unwrap_or(i64::MAX));
        Ok(Self {
            schema: SCHEMA,
            devenv: devenv.to_owned(),
            project: after.project.clone(),
            run: report.id.clone(),
            level: after.level,
            target: after.target.clone(),
            profile: after.profile.clone(),
            started: report.started,
            ended: report.started.checked_add(length).unwrap_or(Timestamp::MAX),
            passes: report.passed() && partial.is_none() && not_run.is_empty(),
            partial: partial.map(str::to_owned),
            not_run,
            suites: report.suites.iter().map(suite).collect(),
            coverage,
        })
    }

    /// The digests of the images that ran, by the names that manifests use; none at level
    /// `source`.
    pub fn digests(&self) -> impl Iterator<Item = (&str, &str)> {
        let digests = self.coverage.inputs.get(&Group::Digest);
        let digests = digests.into_iter().flatten();
        digests.map(|(image, digest)| (image.as_str(), digest.as_str()))
    }

    /// The tests that ended in one of these ways, with their suites.
    pub fn tests(
        &self,
        outcomes: &[Outcome],
    ) -> impl Iterator<Item = (&SuiteOutcome, &TestOutcome)> {
        self.suites.iter().flat_map(move |s| {
            s.tests
                .iter()
                .filter(move |t| outcomes.contains(&t.outcome))
                .map(move |t| (s, t))
        })
    }
}

/// `local, profile seed`.
pub(crate) fn described(target: &str, profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!("{target}, profile {profile}"),
        None => format!("{target}, no profile"),
    }
}

/// The suites that are there and that the report doesn't mention.
fn not_run(coverage: &Coverage, report: &RunReport) -> Vec<String> {
    let files = coverage.inputs.get(&Group::Suite);
    let mentioned = |file: &str| report.suites.iter().any(|s| s.file == Path::new(file));
    files
        .into_iter()
        .flat_map(|files| files.keys())
        .filter(|f| is_suite(f) && !mentioned(f))
        .cloned()
        .collect()
}

/// Suites lie directly in their folder; what lies deeper is theirs.
fn is_suite(file: &str) -> bool {
    let path = Path::new(file);
    path.extension().is_some_and(|e| e == "toml") && path.parent() == Some(Path::new(crate::SUITES))
}

fn suite(report: &SuiteReport) -> SuiteOutcome {
    SuiteOutcome {
        name: report.name.clone(),
        file: report.file.clone(),
        ms: report.ms,
        error: report.error.clone(),
        tests: report.tests.iter().map(test).collect(),
    }
}

fn test(report: &TestReport) -> TestOutcome {
    TestOutcome {
        name: report.name.clone(),
        line: report.place.line,
        outcome: report.outcome,
        attempts: report.attempts.len(),
        reason: report.reason.clone(),
    }
}
