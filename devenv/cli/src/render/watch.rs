//! `devenv test watch`: what was saved, and which suites run for it.

use devenv_e2e::outcome::RunReport;
use devenv_engine::{event::Event, reload::Outcome};
use serde_json::json;

use super::{DIM, Format, RESET, YELLOW, errln, json, reload};
use crate::commands::{Changes, Cut};

/// From now on nothing is missed.
pub fn watching(suites: usize, format: Format) {
    match format {
        Format::Json => json(&json!({"event": "watching", "suites": suites})),
        Format::Text => errln!("{DIM}watching, with {suites} suites; Ctrl-C ends{RESET}"),
    }
}

/// What the supervisor tells, as far as it decides which suites run.
pub fn watched(event: &Event, format: Format) {
    let Event::Reload { reload } = event else {
        return;
    };
    match format {
        Format::Json => json(event),
        Format::Text if reload.outcome == Outcome::Superseded => {}
        Format::Text => {
            for line in reload::lines(reload) {
                errln!("{line}");
            }
        }
    }
}

/// Which suites run now, and why.
pub fn because(changes: &Changes, suites: &[&str], format: Format) {
    if format == Format::Json {
        // What runs is in the run's own line.
        if suites.is_empty() {
            json(&json!({"event": "nothing-to-run", "because": changes}));
        }
        return;
    }
    let why = words(changes);
    match suites {
        [] => errln!("{DIM}{why}: no suite is concerned{RESET}"),
        some => errln!("{DIM}{why}: running {}{RESET}", some.join(", ")),
    }
}

/// A run that ended, perhaps before all its tests had run.
pub fn watched_run(because: &Changes, cut: Option<Cut>, report: &RunReport, format: Format) {
    if format == Format::Json {
        return json(&json!({
            "event": "run",
            "because": because,
            "superseded": cut == Some(Cut::Superseded),
            "interrupted": cut == Some(Cut::Interrupted),
            "report": report,
        }));
    }
    match cut {
        None => errln!("{DIM}waiting for a save{RESET}"),
        Some(Cut::Superseded) => errln!("{YELLOW}stopped early{RESET}: there are newer changes"),
        Some(Cut::Interrupted) => {}
    }
}

fn words(changes: &Changes) -> String {
    let mut all = Vec::new();
    all.extend(changes.everything.then(|| "everything".to_owned()));
    all.extend(changes.workloads.iter().cloned());
    all.extend(changes.suites.iter().map(|s| format!("suite {s}")));
    all.join(", ")
}
