//! An end-to-end run as it goes, and what came of it.

use devenv_e2e::{
    compare::{self, Comparison},
    outcome::{Outcome, RunEvent, RunReport},
    report::{
        github,
        text::{self, Styles},
    },
};

use devenv_engine::event::Report;
use devenv_verdict::Verification;

use super::{DIM, Format, GREEN, RED, RESET, YELLOW, errln, json, outln};

/// Shows a run. For people results go to stdout, as lines that stay: a run is read later
/// as often as it is watched.
pub struct Run {
    format: Format,
    styles: Styles,
    failures: Vec<String>,
}

impl Run {
    /// In this format.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            styles: Styles::colored(),
            failures: Vec::new(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &RunEvent) {
        if self.format == Format::Json {
            return json(event);
        }
        match event {
            RunEvent::Preparing { suites } => {
                errln!(
                    "{DIM}preparing an environment for {}{RESET}",
                    suites.join(", ")
                );
            }
            RunEvent::Ready { environment, ms } => {
                errln!("{DIM}environment {environment} is ready after {ms} ms{RESET}");
            }
            RunEvent::TestStarted { .. } => {}
            RunEvent::Retry {
                suite,
                test,
                attempt,
                step,
            } => {
                errln!("{YELLOW}attempt {attempt} failed{RESET} {suite}: {test}");
                errln!("{}", text::step(step, &self.styles).trim_end());
            }
            RunEvent::TestEnded { suite, report, .. } => {
                outln!("{}", text::line(suite, report, &self.styles));
                // At once as well as at the end, which may be hours away (--repeat).
                if matches!(report.outcome, Outcome::Failed | Outcome::Missing)
                    && let Some(step) = text::failed_step(report, &self.styles)
                {
                    errln!("{}", step.trim_end());
                }
            }
            RunEvent::Ended { report } => self.ended(report),
        }
    }

    fn ended(&mut self, report: &RunReport) {
        for suite in &report.suites {
            self.failures.extend(text::suite_error(suite, &self.styles));
            let bad = |o: Outcome| matches!(o, Outcome::Failed | Outcome::Missing | Outcome::Flaky);
            let bad = suite.tests.iter().filter(|t| bad(t.outcome));
            self.failures
                .extend(bad.map(|t| text::failure(suite, t, &self.styles)));
        }
        for failure in &self.failures {
            outln!("\n{}", failure.trim_end());
        }
        outln!("\n{}", text::summary(report, &self.styles));
    }
}

/// What differs between two systems.
pub fn comparison(comparison: &Comparison, format: Format) {
    match format {
        Format::Json => json(comparison),
        Format::Text => outln!("{}", compare::text::render(comparison, &Styles::colored())),
    }
}

/// What GitHub reads from a job's output.
pub fn github(report: &RunReport, project: &std::path::Path) {
    let text = github::annotations(report, project);
    if !text.is_empty() {
        outln!("{}", text.trim_end());
    }
}

/// Where the reports are.
pub fn reports(folder: &std::path::Path, format: Format) {
    if format == Format::Text {
        errln!("{DIM}reports: {}{RESET}", folder.display());
    }
}

/// The environments that were left up.
pub fn kept(ids: &[String], format: Format) {
    if format == Format::Json {
        return json(&serde_json::json!({"event": "kept", "runs": ids}));
    }
    for id in ids {
        outln!("environment {id} is left up:");
        outln!("  devenv --run {id} url        its addresses");
        outln!("  devenv --run {id} logs -f    what it prints");
        outln!("  export KUBECONFIG=$(devenv --run {id} url kubeconfig)");
        outln!("  devenv --run {id} down       ends it");
    }
}

/// The names of tests, a line each.
pub fn tests(all: &[(String, String)], format: Format) {
    if format == Format::Json {
        let all: Vec<_> = all
            .iter()
            .map(|(suite, test)| serde_json::json!({"suite": suite, "test": test}))
            .collect();
        return json(&all);
    }
    for (suite, test) in all {
        outln!("{suite}::{test}");
    }
}

/// A JSON schema.
pub fn schema(schema: &serde_json::Value, format: Format) {
    match format {
        Format::Json => json(schema),
        Format::Text => outln!("{schema:#}"),
    }
}

/// What became of the verdict.
pub fn verdict(text: &str, format: Format) {
    if format == Format::Json {
        return json(&serde_json::json!({"event": "verdict", "verdict": text}));
    }
    errln!("{DIM}verdict: {text}{RESET}");
}

/// Why there is no verdict.
pub fn no_verdict(why: &Report, format: Format) {
    if format == Format::Json {
        return json(&serde_json::json!({"event": "no-verdict", "why": why}));
    }
    errln!("{YELLOW}{}{RESET}", why.message);
    for cause in &why.causes {
        errln!("  because: {cause}");
    }
}

/// There is no verdict on such a run, and why.
pub fn unjudged(why: &str, format: Format) {
    let message = format!("no verdict: {why}");
    if format == Format::Json {
        return json(&serde_json::json!({"event": "no-verdict", "why": {"message": message}}));
    }
    errln!("{DIM}{message}{RESET}");
}

/// Whether a verdict applies, and why not.
pub fn verification(found: &Verification, format: Format) {
    if format == Format::Json {
        return json(found);
    }
    if let Some(closest) = &found.closest {
        let verdict = &closest.verdict;
        outln!("verdict {} of {}", closest.file.display(), verdict.ended);
        let profile = verdict.profile.as_ref();
        let profile = profile.map(|profile| format!(", profile {profile}"));
        outln!(
            "level {}, target {}{}",
            verdict.level,
            verdict.target,
            profile.unwrap_or_default()
        );
        for (image, digest) in verdict.digests() {
            outln!("  {DIM}{image} {digest}{RESET}");
        }
    }
    if found.applies {
        outln!(
            "{GREEN}it applies{RESET} to exactly this tree, {}",
            found.tree
        );
    } else {
        outln!("{RED}none applies{RESET} to this tree, {}", found.tree);
        for reason in &found.reasons {
            outln!("  {reason}");
        }
    }
    for damaged in &found.damaged {
        errln!(
            "{YELLOW}warning{RESET}: {} is no verdict",
            damaged.file.display()
        );
    }
}
