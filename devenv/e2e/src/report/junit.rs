//! JUnit XML, as Jenkins, GitLab and the actions for GitHub read it. A test's `file`
//! and `line` are attributes; what is neither passed nor failed is a `skipped` with its
//! reason, something that is missing an `error`, an earlier failed attempt of a test
//! that passed a `flakyFailure` and of one that failed a `rerunFailure`.

use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite, XmlString,
};

use crate::outcome::{Attempt, Outcome, RunReport, SuiteReport, TestReport};

use super::{
    ReportError, clean, culprit, headline, step_headline,
    text::{self, Styles},
};

/// The whole file.
///
/// # Errors
/// When the XML can't be written, which its library alone knows about.
pub fn render(report: &RunReport) -> Result<String, ReportError> {
    let mut junit = Report::new("devenv test e2e");
    junit.set_time(Duration::from_millis(report.ms));
    if let Some(at) = timestamp(report, 0) {
        junit.set_timestamp(at);
    }
    for suite in &report.suites {
        junit.add_test_suite(test_suite(report, suite));
    }
    junit.to_string().map_err(|e| ReportError::Render {
        what: format!("JUnit XML: {e}"),
    })
}

fn test_suite(report: &RunReport, suite: &SuiteReport) -> TestSuite {
    let mut out = TestSuite::new(clean(&suite.name));
    out.set_time(Duration::from_millis(suite.ms));
    if let Some(at) = timestamp(report, suite.started_ms) {
        out.set_timestamp(at);
    }
    out.add_property(("run", clean(&report.id).as_str()));
    out.add_property(("target", clean(&report.target).as_str()));
    if let Some(profile) = &report.profile {
        out.add_property(("profile", clean(profile).as_str()));
    }
    out.add_property(("environment", clean(&suite.environment).as_str()));
    out.extra.insert(
        XmlString::new("file"),
        XmlString::new(clean(&suite.file.display().to_string())),
    );
    if let Some(error) = &suite.error {
        // The format has no place for it but a test.
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status
            .set_type("suite-error")
            .set_message(clean(error))
            .set_description(clean(error));
        let mut case = TestCase::new("(suite)", status);
        case.set_classname(clean(&suite.name));
        out.add_test_case(case);
    }
    for test in &suite.tests {
        out.add_test_case(test_case(report, suite, test));
    }
    out
}

fn test_case(report: &RunReport, suite: &SuiteReport, test: &TestReport) -> TestCase {
    let again = |status: &mut TestCaseStatus, earlier: &[Attempt]| {
        for attempt in earlier {
            status.add_rerun(rerun(report, attempt));
        }
    };
    let (last, earlier) = match test.attempts.split_last() {
        Some((last, earlier)) => (Some(last), earlier),
        None => (None, &[][..]),
    };
    let mut status = match test.outcome {
        Outcome::Passed | Outcome::Flaky => TestCaseStatus::success(),
        Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Missing => TestCaseStatus::non_success(NonSuccessKind::Error),
        Outcome::Unsupported | Outcome::Skipped => TestCaseStatus::skipped(),
    };
    match test.outcome {
        Outcome::Passed | Outcome::Flaky => again(&mut status, earlier),
        Outcome::Failed | Outcome::Missing => {
            let kind = last.and_then(culprit).map_or("test", |step| &step.kind);
            let kind = match test.outcome {
                Outcome::Missing => format!("missing: {kind}"),
                _ => kind.to_owned(),
            };
            status
                .set_type(clean(&kind))
                .set_message(clean(&headline(test)))
                .set_description(clean(&text::failure(suite, test, &Styles::plain())));
            again(&mut status, earlier);
        }
        Outcome::Unsupported | Outcome::Skipped => {
            status.set_type(match test.outcome {
                Outcome::Unsupported => "unsupported",
                _ => "skipped",
            });
            let why = headline(test);
            if !why.is_empty() {
                status.set_message(clean(&why));
            }
        }
    }
    let mut case = TestCase::new(clean(&test.name), status);
    case.set_classname(clean(&suite.name));
    for (name, value) in [
        ("file", test.place.file.display().to_string()),
        ("line", test.place.line.to_string()),
    ] {
        case.extra
            .insert(XmlString::new(name), XmlString::new(clean(&value)));
    }
    if let Some(last) = last {
        case.set_time(Duration::from_millis(last.ms));
        if let Some(at) = timestamp(report, last.started_ms) {
            case.set_timestamp(at);
        }
        if let Some(output) = output(last) {
            case.set_system_out(output);
        }
    }
    case
}

/// An earlier attempt.
fn rerun(report: &RunReport, attempt: &Attempt) -> TestRerun {
    let mut out = TestRerun::new(NonSuccessKind::Failure);
    out.set_time(Duration::from_millis(attempt.ms));
    if let Some(at) = timestamp(report, attempt.started_ms) {
        out.set_timestamp(at);
    }
    if let Some(step) = culprit(attempt) {
        out.set_type(clean(&step.kind))
            .set_message(clean(&step_headline(step)))
            .set_description(clean(&text::step(step, &Styles::plain())));
    }
    if let Some(output) = output(attempt) {
        out.set_system_out(output);
    }
    out
}

/// What each step of an attempt saw; the failed one is told about elsewhere.
fn output(attempt: &Attempt) -> Option<String> {
    let wrong = culprit(attempt).map(|step| &raw const *step);
    let text: String = attempt
        .steps
        .iter()
        .filter(|step| wrong != Some(&raw const **step))
        .map(|step| clean(&text::step(step, &Styles::plain())))
        .collect();
    (!text.is_empty()).then_some(text)
}

/// A moment of the run. `None` beyond what a calendar of the library knows.
fn timestamp(report: &RunReport, after_ms: u64) -> Option<chrono::DateTime<chrono::Utc>> {
    let ms = report
        .started
        .as_millisecond()
        .checked_add(i64::try_from(after_ms).ok()?)?;
    chrono::DateTime::from_timestamp_millis(ms)
}
