//! Reloads and what keeps the newest save from serving.

use std::collections::VecDeque;

use devenv_engine::reload::{Budget, Outcome, Reload, Trouble};

use super::{BOLD, DIM, Format, GREEN, RED, RESET, YELLOW, json, output::outln};

/// The list of reloads.
pub fn reloads(reloads: &VecDeque<Reload>, format: Format) {
    if format == Format::Json {
        return json(reloads);
    }
    for reload in reloads {
        outln!("{}", line(reload));
    }
}

/// A reload as it is told when it happens: its line, and what went wrong.
pub(super) fn lines(reload: &Reload) -> Vec<String> {
    let mut lines = vec![line(reload)];
    if let Some(error) = &reload.error {
        lines.extend(error.output.iter().map(ToString::to_string));
        lines.push(format!("{RED}{BOLD}error{RESET}: {}", error.message));
        lines.extend(error.causes.iter().map(|c| format!("  because: {c}")));
        lines.extend(
            error
                .help
                .iter()
                .map(|h| format!("  {BOLD}help{RESET}: {h}")),
        );
    }
    lines
}

/// Something that is wrong now.
pub(super) fn trouble(t: &Trouble) -> Vec<String> {
    let mut lines = vec![format!("{RED}✗{RESET} {}: {}", t.what, t.report.message)];
    lines.extend(t.report.causes.iter().map(|c| format!("  because: {c}")));
    let output = t.report.output.iter().flat_map(|o| o.lines());
    lines.extend(output.map(|l| format!("  {l}")));
    lines.extend(
        t.report
            .help
            .iter()
            .map(|h| format!("  {BOLD}help{RESET}: {h}")),
    );
    lines
}

fn line(reload: &Reload) -> String {
    let what = match &reload.workload {
        Some(workload) if *workload != format!("Deployment {}", reload.what) => {
            format!("{} → {workload}", reload.what)
        }
        _ => reload.what.clone(),
    };
    let (mark, word) = match reload.outcome {
        Outcome::Reloaded => (format!("{GREEN}↻{RESET}"), ""),
        Outcome::Synced => (format!("{GREEN}↻{RESET}"), " synced"),
        Outcome::Applied => (format!("{GREEN}↻{RESET}"), " applied"),
        Outcome::BuildFailed => (format!("{RED}✗{RESET}"), " build failed"),
        Outcome::NotReady => (format!("{RED}✗{RESET}"), " not ready"),
        Outcome::Invalid => (format!("{RED}✗{RESET}"), " not taken over"),
        Outcome::Superseded => (format!("{YELLOW}–{RESET}"), " superseded"),
    };
    let files = match reload.files.as_slice() {
        [] => String::new(),
        [one] => format!("  {DIM}{one}{RESET}"),
        [first, more @ ..] => format!("  {DIM}{first} and {} more{RESET}", more.len()),
    };
    format!(
        "{mark} {BOLD}{what}{RESET}{word}  {DIM}{}{RESET}{files}",
        budget(&reload.ms)
    )
}

/// `saved → detected 12 → built 840 → started 845 → ready 1003 → first byte 1005 ms`.
fn budget(ms: &Budget) -> String {
    let steps = [
        ("detected", ms.detected),
        ("built", ms.built),
        ("started", ms.started),
        ("ready", ms.ready),
        ("first byte", ms.first_byte),
    ];
    let mut text = "saved".to_owned();
    for (name, at) in steps {
        if let Some(at) = at {
            text.push_str(&format!(" → {name} {at}"));
        }
    }
    text.push_str(" ms");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_names_the_steps_that_were_needed() {
        let ms = Budget {
            detected: Some(12),
            started: Some(30),
            ready: Some(45),
            ..Budget::default()
        };
        assert_eq!(
            budget(&ms),
            "saved → detected 12 → started 30 → ready 45 ms"
        );
    }
}
