//! What is left of a run for people and machines: pure functions of the
//! [`RunReport`], and one that writes their files.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use crate::outcome::{Attempt, Outcome, RunReport, StepReport, SuiteReport, TestReport};

pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod text;

#[cfg(test)]
mod tests;

/// A kind of report that is a file in the run's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `report.json`: all of the report.
    Json,
    /// `junit.xml`, as CI systems read it.
    Junit,
    /// `report.html`, for people: one file that needs no other and no network.
    Html,
    /// `summary.md`, for `GITHUB_STEP_SUMMARY`.
    Github,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::Junit, Self::Html, Self::Github];

    /// The name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Json => "report.json",
            Self::Junit => "junit.xml",
            Self::Html => "report.html",
            Self::Github => "summary.md",
        }
    }
}

/// Why there are no reports.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The report could not be put into words.
    #[error("the report could not be made: {what}")]
    Render {
        /// In which format, and why.
        what: String,
    },
    /// A file could not be written.
    #[error("the report {} could not be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the reports into the run's folder, which is made when it is not there, and
/// gives their paths in the order of `formats`. All are made and on the disk under
/// other names before the first gets its own, so a full disk or a report that can't be
/// made leaves whatever was there before.
///
/// Pictures are read from the same folder; one that can't be read is named instead.
///
/// # Errors
/// The first report that could not be made or written.
pub fn write_all(
    report: &RunReport,
    dir: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, ReportError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Write { path, source }
    };
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    let mut ready = Vec::with_capacity(formats.len());
    for format in formats {
        let path = dir.join(format.file_name());
        let text = match format {
            Format::Json => json::render(report)?,
            Format::Junit => junit::render(report)?,
            Format::Html => html::render(report, &pictures(report, dir)),
            Format::Github => github::summary(report),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".report-")
            // As any other file: the umask takes away what it takes away.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(at(&path))?;
        file.write_all(text.as_bytes()).map_err(at(&path))?;
        file.as_file().sync_data().map_err(at(&path))?;
        ready.push((file, path));
    }
    let mut paths = Vec::with_capacity(ready.len());
    for (file, path) in ready {
        file.persist(&path).map_err(|e| ReportError::Write {
            path: path.clone(),
            source: e.error,
        })?;
        paths.push(path);
    }
    Ok(paths)
}

/// The pictures of a run that can be read and are within its folder, by their path in
/// the report.
fn pictures(report: &RunReport, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut pictures = BTreeMap::new();
    let steps = report
        .suites
        .iter()
        .flat_map(|suite| &suite.tests)
        .flat_map(|test| &test.attempts)
        .flat_map(|attempt| &attempt.steps);
    for path in steps.flat_map(|step| &step.screenshots) {
        let within = path.components().all(|c| matches!(c, Component::Normal(_)));
        if within && let Ok(bytes) = std::fs::read(dir.join(path)) {
            pictures.insert(path.clone(), bytes);
        }
    }
    pictures
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// At the first attempt.
    pub passed: usize,
    /// At a later one.
    pub flaky: usize,
    /// Not as expected.
    pub failed: usize,
    /// Something they need is not here.
    pub missing: usize,
    /// The target can't do it.
    pub unsupported: usize,
    /// Left out.
    pub skipped: usize,
    /// Suites that could not run at all.
    pub errors: usize,
}

impl Counts {
    /// Of a run.
    pub fn of(report: &RunReport) -> Self {
        let mut counts = Self::default();
        for suite in &report.suites {
            counts.errors += usize::from(suite.error.is_some());
            for test in &suite.tests {
                *match test.outcome {
                    Outcome::Passed => &mut counts.passed,
                    Outcome::Flaky => &mut counts.flaky,
                    Outcome::Failed => &mut counts.failed,
                    Outcome::Missing => &mut counts.missing,
                    Outcome::Unsupported => &mut counts.unsupported,
                    Outcome::Skipped => &mut counts.skipped,
                } += 1;
            }
        }
        counts
    }

    /// How many tests there are.
    pub const fn tests(&self) -> usize {
        self.run() + self.unsupported + self.skipped
    }

    /// How many ran, or could not for want of something.
    pub const fn run(&self) -> usize {
        self.passed + self.flaky + self.failed + self.missing
    }
}

impl std::fmt::Display for Counts {
    /// `12 tests: 10 passed (1 flaky), 1 failed, 1 skipped`; what is none is left out,
    /// save for `passed`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tests = self.tests();
        let plural = if tests == 1 { "" } else { "s" };
        write!(
            f,
            "{tests} test{plural}: {} passed",
            self.passed + self.flaky
        )?;
        if self.flaky > 0 {
            write!(f, " ({} flaky)", self.flaky)?;
        }
        for (n, word) in [
            (self.failed, "failed"),
            (self.missing, "missing something"),
            (self.unsupported, "unsupported here"),
            (self.skipped, "skipped"),
        ] {
            if n > 0 {
                write!(f, ", {n} {word}")?;
            }
        }
        if self.errors > 0 {
            let plural = if self.errors == 1 { "" } else { "s" };
            write!(f, "; {} suite{plural} could not run", self.errors)?;
        }
        Ok(())
    }
}

/// The word for it in capitals, as test runners print it.
pub const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "PASS",
        Outcome::Flaky => "FLAKY",
        Outcome::Failed => "FAIL",
        Outcome::Missing => "MISSING",
        Outcome::Unsupported => "UNSUPPORTED",
        Outcome::Skipped => "SKIP",
    }
}

/// The step that an attempt ended at, when it is not as expected.
pub fn culprit(attempt: &Attempt) -> Option<&StepReport> {
    attempt
        .steps
        .iter()
        .find(|step| !matches!(step.outcome, Outcome::Passed | Outcome::Flaky))
}

/// A test's failure in one line, without its name.
fn headline(test: &TestReport) -> String {
    match test.attempts.last().and_then(culprit) {
        Some(step) => step_headline(step),
        None => test.reason.clone().unwrap_or_default(),
    }
}

/// A step's failure in one line.
fn step_headline(step: &StepReport) -> String {
    let name = one_line(&step.name);
    let Some(first) = step.mismatches.first() else {
        return name;
    };
    let more = match step.mismatches.len() - 1 {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    format!(
        "{name}: {}: expected {}, got {}{more}",
        one_line(&first.what),
        one_line(&first.expected),
        one_line(&first.got)
    )
}

/// Tests of a suite that are to be told about: failed, flaky, missing.
fn told(suite: &SuiteReport) -> impl Iterator<Item = &TestReport> {
    suite.tests.iter().filter(|test| {
        matches!(
            test.outcome,
            Outcome::Failed | Outcome::Flaky | Outcome::Missing
        )
    })
}

/// Without escape sequences and control characters, which a workload may print and a
/// terminal or an XML parser would choke on. Line ends and tabs stay.
fn clean(text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\t' => out.push(c),
            // Not allowed in XML.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            // Text that runs the other way would show other words than there are.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// On one line, and not longer than a person reads.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = clean(text);
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// `1.234s`.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}
