//! Steps: what each can see, what comes of one, and who runs it.
//!
//! A kind of step is a module with `async fn run(spec, …, &mut Context) -> StepResult`.
//! Variables have been put into the spec. What all kinds have in common (`expect.json`
//! and its like, captures, polling, deadlines, cancellation, logs) is done here and by
//! the runner. A step that takes too long, or whose run is cancelled, is dropped: what
//! must not outlive it ends with its guards.

mod browser;
mod exec;
pub mod fault;
pub(crate) mod http;
mod hurl;
mod kubectl;
mod load;
mod program;
mod sessions;
mod socketio;
mod split;
mod sql;
#[cfg(test)]
mod testing;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::time::Instant;

use crate::{
    capture::Answer,
    environment::Environment,
    expect,
    outcome::{Mismatch, Outcome},
    redact::Redactor,
    suite::{Action, Step, spec::Expect},
    vars::{VarError, Vars},
};
pub use sessions::{Session, Sessions};

/// What a step can see and use. One for each attempt at a test.
pub struct Context {
    /// Variables and captures.
    pub vars: Vars,
    /// Where it runs.
    pub environment: Arc<Environment>,
    /// The project's folder.
    pub root: PathBuf,
    /// The suite's folder: files that steps name are relative to it.
    pub folder: PathBuf,
    /// The run's folder. What reports point to is in here.
    pub run_dir: PathBuf,
    /// Names this attempt in file names: `suite.test.1`, of letters, digits, `-`, `_`
    /// and `.`.
    pub label: String,
    /// When the test's time is up. Nothing needs to look: the step is dropped then.
    pub deadline: Instant,
    /// What lives as long as the test: connections, browsers, loads, faults.
    pub sessions: Sessions,
    /// Takes secrets out of what is shown.
    pub redact: Redactor,
    /// Sends requests: no proxy, no redirects.
    pub http: reqwest::Client,
}

/// What came of a step.
#[derive(Debug, Default)]
pub struct StepResult {
    /// What was seen, for people.
    pub seen: Option<String>,
    /// What the kind itself found not to be as expected.
    pub mismatches: Vec<Mismatch>,
    /// What `expect` and `capture` look at.
    pub answer: Answer,
    /// Pictures, relative to the run's folder.
    pub screenshots: Vec<PathBuf>,
    /// Of a split: how many each backend answered.
    pub split: Option<BTreeMap<String, u64>>,
    /// Why it could not be done at all, if so.
    pub stopped: Option<Stopped>,
}

/// Why a step could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Something it needs is not installed or not running; with what to do.
    Missing(String),
    /// This target can't do it.
    Unsupported(String),
}

impl StepResult {
    /// One that was not as expected.
    pub fn failed(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self {
            mismatches: vec![Mismatch {
                what: what.into(),
                expected: expected.into(),
                got: got.into(),
            }],
            ..Self::default()
        }
    }

    /// One that needs what is not there; `why` names it and says how to get it.
    pub fn missing(why: impl Into<String>) -> Self {
        Self {
            stopped: Some(Stopped::Missing(why.into())),
            ..Self::default()
        }
    }

    /// One that this target can't do.
    pub fn unsupported(why: impl Into<String>) -> Self {
        Self {
            stopped: Some(Stopped::Unsupported(why.into())),
            ..Self::default()
        }
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match &self.stopped {
            Some(Stopped::Missing(_)) => Outcome::Missing,
            Some(Stopped::Unsupported(_)) => Outcome::Unsupported,
            None if self.mismatches.is_empty() => Outcome::Passed,
            None => Outcome::Failed,
        }
    }
}

impl From<VarError> for StepResult {
    fn from(error: VarError) -> Self {
        match error {
            VarError::Absent { .. } => Self::unsupported(error.to_string()),
            _ => Self::failed("variables", "values that fit", error.to_string()),
        }
    }
}

/// Runs a step once: variables in, the action, what is expected, captures out.
pub async fn run(step: &Step, context: &mut Context) -> StepResult {
    let mut expected = match context.vars.fill(&step.expect) {
        Ok(expected) => expected,
        Err(error) => return error.into(),
    };
    let started = Instant::now();
    let mut result = match act(&step.action, &expected, context).await {
        Ok(result) => result,
        Err(error) => return error.into(),
    };
    if result.stopped.is_some() {
        return result;
    }
    // A mismatch of the kind's own (no connection, say) makes the rest mean nothing.
    if result.mismatches.is_empty() || result.answer != Answer::default() {
        let took = started.elapsed();
        if matches!(step.action, Action::Split(_)) {
            // Of each answer, not of the step.
            expected.status = None;
        }
        let found = expect::check(&expected, &result.answer, took, &context.folder);
        for mismatch in found {
            if !result.mismatches.contains(&mismatch) {
                result.mismatches.push(mismatch);
            }
        }
    }
    if result.mismatches.is_empty() {
        capture(step, &mut result, context);
    }
    result
}

async fn act(
    action: &Action,
    expect: &Expect,
    context: &mut Context,
) -> Result<StepResult, VarError> {
    Ok(match action {
        Action::Http(spec) => http::run(&context.vars.fill(spec)?, context).await,
        Action::Exec(spec) => exec::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Socketio(spec) => socketio::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Browser(spec) => browser::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Hurl(spec) => hurl::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Sql(spec) => sql::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Kubectl(spec) => kubectl::run(&context.vars.fill(spec)?, expect, context).await,
        Action::Split(spec) => {
            // Each of its requests has variables put in.
            context.vars.fill(spec)?;
            split::run(spec, expect, context).await
        }
        Action::Fault(spec) => fault::run(&context.vars.fill(spec)?, context).await,
        Action::Load(spec) => load::run(spec, context).await,
    })
}

fn capture(step: &Step, result: &mut StepResult, context: &mut Context) {
    for (name, written) in &step.capture {
        let found =
            crate::capture::Source::parse(written).map(|source| source.find(&result.answer));
        match found {
            Ok(Some(value)) => context.vars.set(name, value),
            Ok(None) => result.mismatches.push(Mismatch {
                what: format!("capture {name}"),
                expected: format!("a value at {written}"),
                got: "nothing there".into(),
            }),
            Err(why) => result.mismatches.push(Mismatch {
                what: format!("capture {name}"),
                expected: "a place in the answer".into(),
                got: why,
            }),
        }
    }
}

/// A few words for a step that has no name.
pub fn describe(step: &Step) -> String {
    if let Some(name) = &step.name {
        return name.clone();
    }
    match &step.action {
        Action::Http(http) => format!("{} {}", http::method(http), short_url(http.url.as_str())),
        Action::Sql(sql) => crate::matcher::shortened(sql.query.as_str().trim(), 60),
        Action::Split(split) => format!(
            "{} requests to {}",
            split.requests.unwrap_or(100),
            short_url(split.url.as_str())
        ),
        Action::Exec(exec) => crate::matcher::shortened(&exec.command.to_string(), 60),
        Action::Kubectl(kubectl) => {
            let args: Vec<&str> = kubectl.args.iter().map(|arg| arg.as_str()).collect();
            crate::matcher::shortened(&format!("kubectl {}", args.join(" ")), 60)
        }
        Action::Hurl(hurl) => {
            let files: Vec<&str> = hurl.files.iter().map(|file| file.as_str()).collect();
            files.join(" ")
        }
        Action::Load(load) => match (&load.start, &load.stop) {
            (Some(name), _) => format!("start {name}"),
            (_, Some(name)) => format!("stop {name}"),
            _ => "load".into(),
        },
        Action::Socketio(spec) => socketio_words(spec),
        Action::Browser(spec) => browser_words(spec),
        Action::Fault(spec) => fault_words(spec),
    }
}

fn socketio_words(spec: &crate::suite::spec::SocketioSpec) -> String {
    let on = spec.on.as_ref().map_or("", |on| on.as_str());
    match (&spec.open, &spec.emit, &spec.event) {
        (Some(name), _, _) => format!("open {name}"),
        (_, Some(event), _) => format!("{on}: emit {event}"),
        (_, _, Some(event)) => format!("{on}: wait for {event}"),
        _ if spec.disconnected => format!("{on}: wait for the disconnection"),
        _ => format!("close {on}"),
    }
}

fn browser_words(spec: &crate::suite::spec::BrowserSpec) -> String {
    let of = |word: &str, text: &Option<crate::suite::value::Text>| {
        text.as_ref().map(|text| format!("{word} {text}"))
    };
    of("open", &spec.open)
        .or_else(|| of("click", &spec.click))
        .or_else(|| spec.type_.as_ref().map(|t| format!("type into {}", t.into)))
        .or_else(|| of("see", &spec.see))
        .or_else(|| of("gone", &spec.gone))
        .or_else(|| of("count", &spec.count))
        .or_else(|| of("screenshot", &spec.screenshot))
        .unwrap_or_else(|| "script".into())
}

fn fault_words(spec: &crate::suite::spec::FaultSpec) -> String {
    if let Some(workload) = &spec.delete_pod {
        format!("delete a pod of {workload}")
    } else if let Some(workload) = &spec.pause {
        format!("pause {workload}")
    } else if spec.stop_database {
        "stop the database".into()
    } else if let Some(cut) = &spec.cut {
        format!("cut {} from {}", cut.from, cut.to)
    } else if let Some(delay) = &spec.delay {
        format!("delay {} to {} by {}", delay.from, delay.to, delay.by)
    } else if let Some(workload) = &spec.fill_disk {
        format!("fill the disk of {workload}")
    } else if let Some(name) = &spec.lift {
        format!("lift {name}")
    } else {
        "fault".into()
    }
}

/// Without the variable or host that it begins with.
pub(crate) fn short_url(url: &str) -> &str {
    let rest = url
        .strip_prefix("${")
        .and_then(|rest| rest.split_once('}').map(|(_, path)| path))
        .or_else(|| {
            let rest = url.split_once("://")?.1;
            rest.find('/').map(|slash| &rest[slash..])
        })
        .unwrap_or(url);
    if rest.is_empty() { "/" } else { rest }
}

/// A client for requests to the system under test: no proxy and no redirects.
///
/// # Errors
/// If the TLS library can't be set up.
pub fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    http::client(false)
}

/// Text that can be part of a file name.
pub fn file_safe(text: &str) -> String {
    let safe: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(120)
        .collect();
    let safe = safe.trim_matches(['-', '.']).to_owned();
    if safe.is_empty() { "x".into() } else { safe }
}
