//! For GitHub Actions: workflow commands that become annotations in the diff, and a
//! summary of the job in Markdown.

use std::{fmt::Write as _, path::Path};

use crate::outcome::{Outcome, RunReport, StepReport};

use super::{
    Counts, clean, culprit, headline, one_line, seconds, step_headline,
    text::{self, Styles},
    told,
};

/// GitHub takes a summary of at most 1 MiB and drops a longer one whole.
const SUMMARY_LIMIT: usize = 1_000_000;

/// Of one failure in the summary; the whole is in the other reports.
const FAILURE_LIMIT: usize = 20_000;

/// A workflow command on each line, to be printed to standard output: an `error` for
/// each failed test, a `warning` for each that was flaky. `project` is the project's
/// folder relative to the repository's, as annotations name files from there.
pub fn annotations(report: &RunReport, project: &Path) -> String {
    let mut out = String::new();
    for suite in &report.suites {
        if let Some(error) = &suite.error {
            let file = project.join(&suite.file);
            let title = format!("{} could not run", one_line(&suite.name));
            command(&mut out, "error", &file, 1, &title, &clean(error));
        }
        for test in told(suite) {
            let name = format!("{}: {}", one_line(&suite.name), one_line(&test.name));
            let (level, title) = match test.outcome {
                Outcome::Flaky => ("warning", format!("{name} is flaky")),
                Outcome::Missing => ("error", format!("{name} could not run")),
                _ => ("error", format!("{name} failed")),
            };
            let step = test.attempts.iter().rev().find_map(culprit);
            let place = step.map_or(&test.place, |step| &step.place);
            let mut message = step.map_or_else(|| headline(test), words);
            if let Some(reason) = &test.reason {
                let _ = write!(message, "\n{}", clean(reason));
            }
            let _ = write!(message, "\nagain: {}", clean(&test.again));
            let file = project.join(&place.file);
            command(&mut out, level, &file, place.line, &title, &message);
        }
    }
    out
}

/// A step's mismatches, without what fills a screen.
fn words(step: &StepReport) -> String {
    let mut out = step_headline(step);
    for mismatch in step.mismatches.iter().skip(1) {
        let _ = write!(
            out,
            "\n{}: expected {}, got {}",
            one_line(&mismatch.what),
            one_line(&mismatch.expected),
            one_line(&mismatch.got)
        );
    }
    out
}

fn command(out: &mut String, level: &str, file: &Path, line: u32, title: &str, message: &str) {
    let _ = writeln!(
        out,
        "::{level} file={},line={line},title={}::{}",
        property(&file.display().to_string()),
        property(title),
        data(message)
    );
}

/// What follows the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// What stands after a `=`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The job's summary, to be appended to the file that `GITHUB_STEP_SUMMARY` names.
pub fn summary(report: &RunReport) -> String {
    let mark = if report.passed() { "✅" } else { "❌" };
    let profile = match &report.profile {
        Some(profile) => format!(", profile {}", markdown(profile)),
        None => String::new(),
    };
    let mut out = format!(
        "## {mark} End-to-end: {}\n\n{} on {}{profile}; environment ready after {}, run {}.\n\n",
        Counts::of(report),
        seconds(report.ms),
        markdown(&report.target),
        seconds(report.ready_ms),
        markdown(&report.id)
    );
    out.push_str("| Suite | Test | Outcome | Time |\n| --- | --- | --- | ---: |\n");
    let mut failures = Vec::new();
    for suite in &report.suites {
        if let Some(error) = &suite.error {
            let name = markdown(&suite.name);
            let _ = writeln!(out, "| {name} | | 💥 could not run | |");
            failures.push(details(&format!("{name} could not run"), error));
        }
        for test in &suite.tests {
            let outcome = match test.outcome {
                Outcome::Passed => "✅ passed",
                Outcome::Flaky => "⚠️ flaky",
                Outcome::Failed => "❌ failed",
                Outcome::Missing => "🧩 missing something",
                Outcome::Unsupported => "🚫 unsupported here",
                Outcome::Skipped => "⏭️ skipped",
            };
            let reason = match &test.reason {
                Some(reason) => format!(": {}", markdown(reason)),
                None => String::new(),
            };
            let ms = test.attempts.last().map_or(0, |attempt| attempt.ms);
            let _ = writeln!(
                out,
                "| {} | {} | {outcome}{reason} | {} |",
                markdown(&suite.name),
                markdown(&test.name),
                seconds(ms)
            );
        }
        for test in told(suite) {
            let title = format!("{}: {}", markdown(&suite.name), markdown(&test.name));
            let block = text::failure(suite, test, &Styles::plain());
            failures.push(details(&title, &block));
        }
    }
    shorten(&mut out, SUMMARY_LIMIT / 2);
    out.push('\n');
    for (n, block) in failures.iter().enumerate() {
        if out.len() + block.len() > SUMMARY_LIMIT {
            let left = failures.len() - n;
            let _ = writeln!(out, "{left} more are in the other reports of this run.");
            break;
        }
        out.push_str(block);
    }
    out
}

/// A block that opens.
fn details(title: &str, block: &str) -> String {
    let mut block = clean(block);
    shorten(&mut block, FAILURE_LIMIT);
    let longest = block
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat((longest + 1).max(3));
    format!(
        "<details><summary>{title}</summary>\n\n{fence}text\n{}\n{fence}\n\n</details>\n\n",
        block.trim_end()
    )
}

/// Cut after a whole line.
fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        let cut = text.floor_char_boundary(limit);
        let cut = text[..cut].rfind('\n').unwrap_or(cut);
        text.truncate(cut);
        text.push_str("\n…\n");
    }
}

/// Text that stands for itself in a cell of a table and in HTML.
fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // As HTML, because `summary` is HTML and takes no backslash.
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '!' | '|' | '~'
            | '@' | ':' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
