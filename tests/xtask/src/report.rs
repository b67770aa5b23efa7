//! The end of a run: a table, what was skipped, and one plain closing line.

use crate::needs::Missing;
use crate::part::{Counts, Outcome};
use std::process::ExitCode;
use std::time::Duration;

/// Prints the summary and answers the exit code: 0 when every part went well,
/// and under CI nothing was skipped for want of a tool.
pub fn close(outcomes: &[Outcome], missing: &[Missing]) -> ExitCode {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let mut total = Counts::default();
    let mut took = Duration::ZERO;
    let mut ok = true;
    println!(
        "\n{:<14} {:>9}  {:<6}  {:>6} {:>6} {:>7}",
        "part", "time", "result", "passed", "failed", "skipped"
    );
    for part in outcomes {
        total += part.counts;
        took += part.took;
        ok &= part.ok;
        println!(
            "{:<14} {:>9}  {:<6}  {:>6} {:>6} {:>7}",
            part.name,
            seconds(part.took),
            if part.ok { "ok" } else { "FAILED" },
            part.counts.passed,
            part.counts.failed,
            part.counts.skipped
        );
    }
    println!("{:<14} {:>9}", "all", seconds(took));
    table(outcomes);
    for (tool, why) in missing {
        println!("not here: {tool} ({why})");
    }
    for part in outcomes {
        for skip in &part.skips {
            println!("skipped in {}: {skip}", part.name);
        }
    }
    if ci && !missing.is_empty() {
        println!("CI=true, so what is not here is a failure");
        total.failed += missing.len() as u64;
        ok = false;
    }
    println!(
        "\n{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    if ok && total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Targets and profiles, and what was proven on each in this run.
fn table(outcomes: &[Outcome]) {
    let all: Vec<_> = outcomes.iter().flat_map(|part| &part.proven).collect();
    if all.is_empty() {
        return;
    }
    println!("\n{:<26} {:<8} proven", "target", "profile");
    for [target, profile, what] in all {
        println!("{target:<26} {profile:<8} {what}");
    }
    println!();
}

fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole >= 60 {
        format!("{} m {:02} s", whole / 60, whole % 60)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
