//! For the terminal: the block of a failed test, and the line at the end.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::outcome::{Outcome, RunReport, StepReport, SuiteReport, TestReport};

use super::{Counts, clean, culprit, one_line, seconds, word};

/// How parts of a text look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Styles {
    /// Headings and names.
    pub bold: Style,
    /// What is as expected.
    pub good: Style,
    /// What is not.
    pub bad: Style,
    /// What asks for attention: flaky, missing, unsupported, skipped.
    pub warning: Style,
    /// What stands in the background: labels, logs.
    pub dim: Style,
}

impl Styles {
    /// No escape sequences at all.
    pub const fn plain() -> Self {
        Self {
            bold: Style::new(),
            good: Style::new(),
            bad: Style::new(),
            warning: Style::new(),
            dim: Style::new(),
        }
    }

    /// The terminal's own colours.
    pub const fn colored() -> Self {
        const fn color(color: AnsiColor) -> Style {
            color.on_default().bold()
        }
        Self {
            bold: Style::new().bold(),
            good: color(AnsiColor::Green),
            bad: color(AnsiColor::Red),
            warning: color(AnsiColor::Yellow),
            dim: Style::new().dimmed(),
        }
    }

    /// For an outcome's word.
    pub const fn of(&self, outcome: Outcome) -> Style {
        match outcome {
            Outcome::Passed => self.good,
            Outcome::Failed => self.bad,
            Outcome::Flaky | Outcome::Missing | Outcome::Unsupported | Outcome::Skipped => {
                self.warning
            }
        }
    }
}

/// The label before a step's details, and where those begin.
const INDENT: &str = "              ";

/// A test that ended: `PASS [   0.123s] suite: test`, with the attempts of a flaky one
/// and the reason of one that was left out.
pub fn line(suite: &str, test: &TestReport, styles: &Styles) -> String {
    let style = styles.of(test.outcome);
    let time = test.attempts.last().map(|attempt| seconds(attempt.ms));
    let mut line = format!(
        "{style}{:>11}{style:#} [{:>9}] {}: {}",
        word(test.outcome),
        time.unwrap_or_default(),
        one_line(suite),
        one_line(&test.name),
    );
    let attempts = test.attempts.len();
    if attempts > 1 {
        let _ = write!(line, " (attempt {attempts} of {attempts})");
    }
    if let Some(reason) = &test.reason {
        let dim = styles.dim;
        let _ = write!(line, " {dim}({}){dim:#}", one_line(reason));
    }
    line
}

/// What there is to know about a test that was not as expected: of a failed one its
/// last attempt, of a flaky one the last that failed. Ends with a line end.
pub fn failure(suite: &SuiteReport, test: &TestReport, styles: &Styles) -> String {
    let style = styles.of(test.outcome);
    let bold = styles.bold;
    let mut out = format!(
        "{style}{:>11}{style:#} {bold}{}: {}{bold:#}\n",
        word(test.outcome),
        one_line(&suite.name),
        one_line(&test.name)
    );
    let attempts = test.attempts.len();
    let told = (test.attempts.iter().enumerate().rev())
        .find_map(|(n, attempt)| culprit(attempt).map(|step| (n + 1, step)));
    match told {
        Some((n, step)) => {
            if attempts > 1 {
                label(&mut out, "attempt", &format!("{n} of {attempts}"), styles);
            }
            out.push_str(&self::step(step, styles));
        }
        None => label(&mut out, "at", &test.place.to_string(), styles),
    }
    if let Some(reason) = &test.reason {
        label(&mut out, "reason", reason, styles);
    }
    label(&mut out, "environment", &suite.environment, styles);
    label(&mut out, "again", &test.again, styles);
    out
}

/// The step that a test failed in, in its last attempt that did.
pub fn failed_step(test: &TestReport, styles: &Styles) -> Option<String> {
    let failed = test.attempts.iter().rev().find_map(culprit)?;
    Some(step(failed, styles))
}

/// A step: what, where, expected and got, what was seen, the workloads' logs, pictures.
pub fn step(step: &StepReport, styles: &Styles) -> String {
    let mut out = String::new();
    let name = format!("{} ({}, {})", step.name, step.kind, seconds(step.ms));
    label(&mut out, "step", &name, styles);
    label(&mut out, "at", &step.place.to_string(), styles);
    for mismatch in &step.mismatches {
        let Styles { good, bad, .. } = *styles;
        label(&mut out, "wrong", &mismatch.what, styles);
        painted(&mut out, "expected", &mismatch.expected, good, styles);
        painted(&mut out, "got", &mismatch.got, bad, styles);
    }
    if let Some(seen) = &step.seen {
        label(&mut out, "seen", seen, styles);
    }
    for (workload, lines) in &step.logs {
        let heading = format!("of {workload} during this step:");
        label(&mut out, "logs", &heading, styles);
        let dim = styles.dim;
        for line in lines {
            for line in clean(line).lines() {
                let _ = writeln!(out, "{INDENT}{dim}│ {line}{dim:#}");
            }
        }
    }
    for picture in &step.screenshots {
        label(
            &mut out,
            "screenshot",
            &picture.display().to_string(),
            styles,
        );
    }
    out
}

/// Why a suite could not run. Ends with a line end.
pub fn suite_error(suite: &SuiteReport, styles: &Styles) -> Option<String> {
    let error = suite.error.as_ref()?;
    let Styles { bad, bold, .. } = *styles;
    let mut out = format!(
        "{bad}{:>11}{bad:#} {bold}{}{bold:#}\n",
        "ERROR",
        one_line(&suite.name)
    );
    label(&mut out, "at", &suite.file.display().to_string(), styles);
    label(&mut out, "reason", error, styles);
    Some(out)
}

/// The line at the end.
pub fn summary(report: &RunReport, styles: &Styles) -> String {
    let counts = Counts::of(report);
    let (style, verdict) = if report.passed() {
        (styles.good, "Passed")
    } else if counts.failed + counts.errors > 0 {
        (styles.bad, "Failed")
    } else if counts.missing > 0 {
        (styles.warning, "Incomplete")
    } else {
        (styles.warning, "Nothing ran")
    };
    let profile = match &report.profile {
        Some(profile) => format!(", profile {profile}"),
        None => String::new(),
    };
    format!(
        "{style}{verdict:>11}{style:#} [{:>9}] {counts} ({}{profile}, ready after {})",
        seconds(report.ms),
        report.target,
        seconds(report.ready_ms)
    )
}

fn label(out: &mut String, label: &str, text: &str, styles: &Styles) {
    painted(out, label, text, Style::new(), styles);
}

fn painted(out: &mut String, label: &str, text: &str, style: Style, styles: &Styles) {
    let dim = styles.dim;
    let text = clean(text);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let _ = writeln!(out, "{dim}{label:>12}{dim:#}  {style}{first}{style:#}");
    for line in lines {
        let _ = writeln!(out, "{INDENT}{style}{line}{style:#}");
    }
}
