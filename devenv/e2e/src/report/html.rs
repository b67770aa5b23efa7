//! For people: one file without scripts that needs no other and no network. Every text
//! from the run goes through the macro of `maud`, which escapes it; a policy in the page
//! forbids scripts and anything from elsewhere besides.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::outcome::{Attempt, Outcome, RunReport, StepReport, SuiteReport, TestReport};

use super::{Counts, clean, culprit, seconds, word};

const STYLE: &str = include_str!("html.css");

/// Nothing but what is in the file itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Of all pictures together; what is beyond is named only.
const PICTURES_LIMIT: usize = 64 * 1024 * 1024;

/// The whole file. `pictures` are the contents of PNG files by their path in the report.
pub fn render(report: &RunReport, pictures: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    let (class, verdict) = if report.passed() {
        ("passed", "passed")
    } else {
        ("failed", "not passed")
    };
    let mut page = Page {
        pictures,
        room: PICTURES_LIMIT,
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "devenv test e2e: " (verdict) ", " (clean(&report.id)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "End-to-end " span class={ "badge " (class) } { (verdict) } }
                    p { (Counts::of(report)) }
                    dl {
                        (fact("run", &report.id))
                        (fact("started", &report.started.to_string()))
                        (fact("time", &seconds(report.ms)))
                        (fact("environment ready after", &seconds(report.ready_ms)))
                        (fact("target", &report.target))
                        @if let Some(profile) = &report.profile { (fact("profile", profile)) }
                    }
                }
                section { h2 { "Timeline" } (timeline(report)) }
                @for (s, suite) in report.suites.iter().enumerate() {
                    (page.suite(s, suite))
                }
            }
        }
    };
    markup.into_string()
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (clean(value)) } } }
}

/// How an outcome is called in the style sheet.
const fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Flaky => "flaky",
        Outcome::Failed => "failed",
        Outcome::Missing => "missing",
        Outcome::Unsupported => "unsupported",
        Outcome::Skipped => "skipped",
    }
}

/// Where a test is told about in the page.
fn anchor(suite: usize, test: usize) -> String {
    format!("t{suite}-{test}")
}

/// A row for each suite and each of its tests, from the run's start to its end.
fn timeline(report: &RunReport) -> Markup {
    const ROW: u64 = 20;
    const LABELS: u64 = 320;
    const WIDTH: u64 = 680;
    let end = (report.suites.iter())
        .map(|suite| suite.started_ms.saturating_add(suite.ms))
        .chain([report.ms, 1])
        .max()
        .unwrap_or(1);
    let scale = |ms: u64| {
        let share = u128::from(ms.min(end)) * u128::from(WIDTH) / u128::from(end);
        u64::try_from(share).unwrap_or(WIDTH)
    };
    let bar = |y: u64, started: u64, ms: u64, class: &str, title: &str| {
        let x = scale(started);
        let width = scale(started.saturating_add(ms)).saturating_sub(x).max(2);
        html! {
            rect class={ "bar " (class) } x=(LABELS + x) y=(y + 4) width=(width) height=(ROW - 8) rx="2" {
                title { (title) }
            }
        }
    };
    let rows: usize = report
        .suites
        .iter()
        .map(|suite| 1 + suite.tests.len())
        .sum();
    let height = ROW * (u64::try_from(rows).unwrap_or(u64::MAX / ROW - 2) + 1);
    let mut y = 0;
    let mut next = || {
        y += ROW;
        y
    };
    html! {
        svg class="timeline" role="img" aria-label="When each suite and test ran"
            viewBox={ "0 0 " (LABELS + WIDTH + 20) " " (height + 4) } {
            @for quarter in 0..=4_u64 {
                @let at = u64::try_from(u128::from(end) * u128::from(quarter) / 4).unwrap_or(end);
                @let x = LABELS + WIDTH * quarter / 4;
                line class="grid" x1=(x) x2=(x) y1=(ROW - 4) y2=(height) {}
                text class="tick" x=(x) y=(ROW - 8) text-anchor="middle" { (seconds(at)) }
            }
            @for (s, suite) in report.suites.iter().enumerate() {
                @let y = next();
                @let title = format!("{} in {}: {}", clean(&suite.name), clean(&suite.environment), seconds(suite.ms));
                text class="suite" x="0" y=(y + 14) { (short(&suite.name, 46)) }
                (bar(y, suite.started_ms, suite.ms, "whole", &title))
                @for (t, test) in suite.tests.iter().enumerate() {
                    @let y = next();
                    a href={ "#" (anchor(s, t)) } {
                        text x="12" y=(y + 14) { (short(&test.name, 44)) }
                        @for (n, attempt) in test.attempts.iter().enumerate() {
                            @let last = n + 1 == test.attempts.len();
                            @let class = match (last, test.outcome) {
                                (true, Outcome::Flaky) => "passed",
                                (true, outcome) => class(outcome),
                                (false, _) => "failed",
                            };
                            @let title = format!("{}, attempt {}: {}", clean(&test.name), n + 1, seconds(attempt.ms));
                            (bar(y, attempt.started_ms, attempt.ms, class, &title))
                        }
                    }
                }
            }
        }
    }
}

/// As much of a name as has room.
fn short(text: &str, limit: usize) -> String {
    let mut text = clean(text);
    if let Some((end, _)) = text.char_indices().nth(limit) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What is left to be used up over the page.
struct Page<'a> {
    pictures: &'a BTreeMap<PathBuf, Vec<u8>>,
    room: usize,
}

impl Page<'_> {
    fn suite(&mut self, s: usize, suite: &SuiteReport) -> Markup {
        html! {
            section {
                h2 { (clean(&suite.name)) }
                p class="dim" {
                    code { (clean(&suite.file.display().to_string())) }
                    " in environment " (clean(&suite.environment)) ", " (seconds(suite.ms))
                }
                @if let Some(error) = &suite.error {
                    pre class="error" { (clean(error)) }
                }
                @for (t, test) in suite.tests.iter().enumerate() {
                    (self.test(&anchor(s, t), test))
                }
            }
        }
    }

    fn test(&mut self, id: &str, test: &TestReport) -> Markup {
        let open = matches!(test.outcome, Outcome::Failed | Outcome::Missing);
        let ms = test.attempts.last().map_or(0, |attempt| attempt.ms);
        let attempts = test.attempts.len();
        html! {
            details class="test" id=(id) open[open] {
                summary {
                    span class={ "badge " (class(test.outcome)) } { (word(test.outcome)) }
                    " " (clean(&test.name))
                    span class="dim" {
                        " " (seconds(ms))
                        @if attempts > 1 { ", " (attempts) " attempts" }
                    }
                }
                p class="dim" { code { (clean(&test.place.to_string())) } }
                @if let Some(reason) = &test.reason { p { (clean(reason)) } }
                @for (n, attempt) in test.attempts.iter().enumerate() {
                    @if attempts > 1 {
                        h3 { "Attempt " (n + 1) }
                    }
                    (self.attempt(attempt))
                }
                @if !test.again.is_empty() {
                    p { "Again: " code class="again" { (clean(&test.again)) } }
                }
            }
        }
    }

    fn attempt(&mut self, attempt: &Attempt) -> Markup {
        let wrong = culprit(attempt).map(|step| &raw const *step);
        html! {
            @for step in &attempt.steps {
                @let open = wrong == Some(&raw const *step);
                details class="step" open[open] {
                    summary {
                        span class={ "badge " (class(step.outcome)) } { (word(step.outcome)) }
                        " " span class="kind" { (clean(&step.kind)) } " " (clean(&step.name))
                        span class="dim" { " " (seconds(step.ms)) }
                    }
                    (self.step(step))
                }
            }
        }
    }

    fn step(&mut self, step: &StepReport) -> Markup {
        html! {
            p class="dim" { code { (clean(&step.place.to_string())) } }
            @if !step.mismatches.is_empty() {
                table {
                    thead { tr { th { "What" } th { "Expected" } th { "Got" } } }
                    tbody {
                        @for mismatch in &step.mismatches {
                            tr {
                                td { (clean(&mismatch.what)) }
                                td class="expected" { pre { (clean(&mismatch.expected)) } }
                                td class="got" { pre { (clean(&mismatch.got)) } }
                            }
                        }
                    }
                }
            }
            @if let Some(split) = &step.split { (split_chart(split)) }
            @if let Some(seen) = &step.seen {
                h4 { "Seen" }
                pre { (clean(seen)) }
            }
            @for (workload, lines) in &step.logs {
                h4 { "Logs of " (clean(workload)) " during this step" }
                pre class="logs" { @for line in lines { (clean(line)) "\n" } }
            }
            @for path in &step.screenshots { (self.picture(path)) }
        }
    }

    fn picture(&mut self, path: &Path) -> Markup {
        let name = clean(&path.display().to_string());
        let bytes = self.pictures.get(path);
        html! {
            figure {
                @match bytes {
                    Some(bytes) if bytes.len() <= self.room => {
                        @let () = self.room -= bytes.len();
                        @let data = base64::engine::general_purpose::STANDARD.encode(bytes);
                        img alt=(name) src={ "data:image/png;base64," (data) };
                    }
                    Some(_) => p class="dim" { "The pictures of this run are too large for one page." },
                    None => p class="dim" { "This picture is not there any more." },
                }
                figcaption { code { (name) } }
            }
        }
    }
}

/// How many requests each backend answered.
fn split_chart(split: &BTreeMap<String, u64>) -> Markup {
    const ROW: u64 = 24;
    const WIDTH: u64 = 400;
    let total: u128 = split.values().copied().map(u128::from).sum();
    let height = ROW * u64::try_from(split.len()).unwrap_or_default();
    html! {
        svg class="split" role="img" aria-label="How many requests each backend answered"
            viewBox={ "0 0 800 " (height) } {
            @for (n, (backend, count)) in split.iter().enumerate() {
                @let y = ROW * u64::try_from(n).unwrap_or_default();
                @let part = |of: u128| u128::from(*count) * of / total.max(1);
                text x="0" y=(y + 16) { (short(backend, 24)) }
                rect class={ "part part" (n % 6) } x="190" y=(y + 4) height=(ROW - 8) rx="2"
                    width=(part(u128::from(WIDTH)).max(1)) {}
                text x=(200 + WIDTH) y=(y + 16) {
                    (count) " (" (part(1000) / 10) "." (part(1000) % 10) " %)"
                }
            }
        }
    }
}
