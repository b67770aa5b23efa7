//! A comparison for the terminal.

use std::fmt::Write as _;

use super::{
    Comparison, Difference, Requests,
    latency::{Latency, Times, Verdict},
};
use crate::report::{one_line, text::Styles};

/// How many steps of a difference are named.
const STEPS: usize = 3;

/// All of a comparison: differences, times, what was left out, and the verdict at the end.
pub fn render(comparison: &Comparison, styles: &Styles) -> String {
    let mut out = String::new();
    for difference in &comparison.differences {
        self::difference(&mut out, difference, styles);
    }
    if !comparison.differences.is_empty() {
        out.push('\n');
    }
    times(&mut out, &comparison.requests, styles);
    let dim = styles.dim;
    for note in &comparison.notes {
        let _ = writeln!(out, "{dim}{}{dim:#}", one_line(note));
    }
    let (style, verdict) = match (comparison.differences.len(), comparison.pairs) {
        (_, 0) => (styles.bad, "nothing was compared".to_owned()),
        (0, _) => (styles.good, "no difference".to_owned()),
        (1, _) => (styles.bad, "1 difference".to_owned()),
        (n, _) => (styles.bad, format!("{n} differences")),
    };
    let _ = write!(
        out,
        "{style}{verdict}{style:#}: {} → {}, {} requests to each in {} round{}",
        one_line(&comparison.left),
        one_line(&comparison.right),
        comparison.pairs,
        comparison.rounds,
        if comparison.rounds == 1 { "" } else { "s" },
    );
    out
}

fn difference(out: &mut String, difference: &Difference, styles: &Styles) {
    let (bold, bad, good, dim) = (styles.bold, styles.bad, styles.good, styles.dim);
    let _ = writeln!(
        out,
        "{bold}{}{bold:#}: {}: {bad}{}{bad:#} → {good}{}{good:#} ({} of {})",
        one_line(&difference.request),
        one_line(&difference.place),
        one_line(&difference.left),
        one_line(&difference.right),
        difference.count,
        difference.of,
    );
    let mut steps = difference.steps.iter().take(STEPS).map(ToString::to_string);
    let mut places = steps.by_ref().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = difference.steps.len().checked_sub(STEPS) {
        let _ = write!(places, " and {more} more");
    }
    let _ = writeln!(out, "    {dim}{}{dim:#}", one_line(&places));
    if let Some(note) = &difference.note {
        let _ = writeln!(out, "    {dim}{}{dim:#}", one_line(note));
    }
}

fn times(out: &mut String, requests: &[Requests], styles: &Styles) {
    let told: Vec<(&Requests, &Latency)> = (requests.iter())
        .filter_map(|request| Some((request, request.latency.as_ref()?)))
        .collect();
    let width = told.iter().map(|(r, _)| r.request.chars().count()).max();
    let Some(width) = width else { return };
    let dim = styles.dim;
    let _ = writeln!(out, "{dim}median (95th percentile) in ms{dim:#}");
    for (request, latency) in told {
        let (style, verdict) = match (request.verdict, latency.ratio) {
            (Verdict::Slower, Some(ratio)) => (
                styles.bad,
                format!(
                    "takes {:.2} times as long ({:.2} to {:.2})",
                    ratio.median, ratio.low, ratio.high
                ),
            ),
            (Verdict::Faster, Some(ratio)) => (
                styles.good,
                format!(
                    "takes {:.2} of the time ({:.2} to {:.2})",
                    ratio.median, ratio.low, ratio.high
                ),
            ),
            (_, Some(_)) => (dim, "can't be told apart".to_owned()),
            (_, None) => (dim, "too few to be told apart".to_owned()),
        };
        let _ = writeln!(
            out,
            "{:width$}  {} → {}  {style}{verdict}{style:#}",
            one_line(&request.request),
            of_side(&latency.left),
            of_side(&latency.right),
        );
    }
    out.push('\n');
}

fn of_side(times: &Times) -> String {
    match times.p95 {
        Some(p95) => format!("{:.1} ({p95:.1})", times.median),
        None => format!("{:.1}", times.median),
    }
}
