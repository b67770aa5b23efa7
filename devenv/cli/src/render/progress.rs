//! The steps of `up` as they go: a spinner in a terminal, a line each elsewhere.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use devenv_engine::event::{Event, Step};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    BOLD, DIM, Format, GREEN, RESET, YELLOW,
    output::{errln, outln},
    reload,
};

/// Shows events.
pub struct Progress {
    format: Format,
    spinner: Option<ProgressBar>,
    /// Whether there was a spinner from the start: then what builds print is not shown
    /// as it comes.
    terminal: bool,
    running: Vec<Step>,
    /// The last line that a build printed, beside the spinner.
    building: String,
    reasons: BTreeMap<String, String>,
    /// Whether `up` is over.
    is_ready: bool,
}

impl Progress {
    /// For people on a terminal or elsewhere, or as JSON lines.
    pub fn new(format: Format) -> Self {
        let spinner = (format == Format::Text && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::default_spinner().tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            format,
            terminal: spinner.is_some(),
            spinner,
            running: Vec::new(),
            building: String::new(),
            reasons: BTreeMap::new(),
            is_ready: false,
        }
    }

    /// Whether what builds print is shown as it comes.
    pub fn shows_output(&self) -> bool {
        !self.terminal
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        if self.format == Format::Json {
            // What failed is said by the command's end, with all that belongs to it.
            if !matches!(event, Event::Failed { .. })
                && let Ok(text) = serde_json::to_string(event)
            {
                outln!("{text}");
            }
            return;
        }
        match event {
            Event::StepStarted { step } => {
                self.running.push(*step);
                self.spin();
            }
            Event::StepDone { step, ms, detail } => {
                self.running.retain(|s| s != step);
                self.line(&format!(
                    "{GREEN}✓{RESET} {:<10} {DIM}{:>8}{RESET}  {detail}",
                    name(*step),
                    took(*ms)
                ));
                self.spin();
            }
            // What a reload's build prints is shown if it fails.
            Event::Output { .. } if self.is_ready => {}
            Event::Output { source, line } => {
                if self.spinner.is_some() {
                    self.building = line.trim().to_owned();
                    self.spin();
                } else {
                    self.line(&format!("{DIM}{source} |{RESET} {line}"));
                }
            }
            Event::Warning { message } => self.line(&format!("{YELLOW}!{RESET} {message}")),
            Event::Node {
                name, ready: true, ..
            } => {
                self.line(&format!("{GREEN}✓{RESET} the node {name} is ready again"));
            }
            Event::Node {
                name, reason, help, ..
            } => {
                let reason = reason.as_deref().unwrap_or("it does not say why");
                self.line(&format!(
                    "{YELLOW}!{RESET} the node {name} is not ready: {reason}"
                ));
                if let Some(help) = help {
                    self.line(&format!("  {BOLD}help{RESET}: {help}"));
                }
            }
            Event::Workload {
                name,
                reason: Some(reason),
                ..
            } => {
                // The same trouble is told once.
                if self.reasons.insert(name.clone(), reason.clone()).as_ref() != Some(reason) {
                    self.line(&format!("{YELLOW}!{RESET} {name}: {reason}"));
                }
            }
            Event::Workload { .. } | Event::Rolling { .. } | Event::Failed { .. } => {}
            Event::Reload { reload } => {
                for line in reload::lines(reload) {
                    self.line(&line);
                }
            }
            Event::Ready { ms, .. } => {
                self.end();
                self.is_ready = true;
                errln!("{GREEN}{BOLD}ready{RESET} in {}", took(*ms));
            }
            Event::Stopping => self.end(),
        }
    }

    fn line(&self, text: &str) {
        match &self.spinner {
            Some(bar) => bar.suspend(|| errln!("{text}")),
            None => errln!("{text}"),
        }
    }

    fn spin(&self) {
        let Some(bar) = &self.spinner else { return };
        let steps: Vec<&str> = self.running.iter().map(|s| name(*s)).collect();
        let mut text = steps.join(", ");
        if self.running.contains(&Step::Build) && !self.building.is_empty() {
            text = format!("{text}: {}", self.building);
        }
        // A line that wraps would leave its rest behind.
        bar.set_message(text.chars().take(76).collect::<String>());
    }

    fn end(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Cluster => "cluster",
        Step::Apply => "manifests",
        Step::Build => "build",
        Step::Database => "database",
        Step::Migrate => "migrations",
        Step::Workloads => "workloads",
    }
}

fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        _ => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}
