//! A program in any language.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{
    Context, StepResult,
    program::{self, Finished, Run, RunError},
};
use crate::{
    capture::Answer,
    outcome::Mismatch,
    suite::spec::{ExecSpec, Expect},
    vars::{BUILT_IN, VarError},
};

/// What is shown of each output.
const SHOWN_LINES: usize = 60;

/// Runs the program in the project's folder or below it.
pub async fn run(spec: &ExecSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let mut env = match environment(context) {
        Ok(env) => env,
        Err(error) => return error.into(),
    };
    env.extend(spec.env.iter().map(|(k, v)| (k.clone(), v.0.clone())));
    let dir = match &spec.dir {
        Some(dir) => context.root.join(dir.as_str()),
        None => context.root.clone(),
    };
    let run = Run {
        argv: spec.command.argv(),
        dir,
        env,
        stdin: spec.stdin.as_ref().map(|text| text.0.clone()),
        timeout: spec.timeout.map(Duration::from),
    };
    let limit = spec.timeout.map(|limit| limit.to_string());
    let install = spec.missing.as_ref().map(|text| text.as_str());
    finish(program::run(run).await, expect, limit, install)
}

/// What came of a program, as a step's result.
pub(super) fn finish(
    finished: Result<Finished, RunError>,
    expect: &Expect,
    limit: Option<String>,
    install: Option<&str>,
) -> StepResult {
    let finished = match finished {
        Ok(finished) => finished,
        Err(error @ RunError::NotFound(_)) => {
            let how = install.map_or(String::new(), |how| format!("; install it: {how}"));
            return StepResult::missing(format!("{error}{how}"));
        }
        Err(error) => {
            return StepResult::failed("program", "one that runs", super::http::chain(&error));
        }
    };
    let mut mismatches = Vec::new();
    if finished.timed_out {
        mismatches.push(Mismatch {
            what: "time".into(),
            expected: format!("within {}", limit.unwrap_or_default()),
            got: "still running".into(),
        });
    } else if finished.exit == 127
        && let Some(how) = install
        // A shell says so when the program in its line is not there.
        && expect.exit.is_none()
    {
        return StepResult {
            seen: Some(seen(&finished)),
            ..StepResult::missing(format!("a program is not there; install it: {how}"))
        };
    } else if expect.exit.is_none() && finished.exit != 0 {
        mismatches.push(Mismatch {
            what: "exit".into(),
            expected: "0".into(),
            got: finished.exit.to_string(),
        });
    }
    StepResult {
        seen: Some(seen(&finished)),
        mismatches,
        answer: Answer {
            json: serde_json::from_str::<Value>(&finished.stdout).ok(),
            exit: Some(finished.exit),
            body: Some(finished.stdout),
            stderr: Some(finished.stderr),
            ..Answer::default()
        },
        ..StepResult::default()
    }
}

/// What a program gets of the environment: addresses, and the suite's variables and
/// captures as `DEVENV_VAR_NAME`.
pub(super) fn environment(context: &Context) -> Result<BTreeMap<String, String>, VarError> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut out = BTreeMap::new();
    for name in BUILT_IN {
        if name.chars().any(|c| c.is_ascii_lowercase()) {
            continue;
        }
        match context.vars.get(name) {
            Ok(value) => {
                out.insert(name.to_owned(), text(value));
            }
            // A program that needs it says so better than we could.
            Err(VarError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for (name, value) in context.vars.of_suite()? {
        let name = name.to_ascii_uppercase().replace('-', "_");
        out.insert(format!("DEVENV_VAR_{name}"), text(value));
    }
    Ok(out)
}

fn seen(finished: &Finished) -> String {
    let mut out = format!("exit {}", finished.exit);
    for (name, text) in [("stdout", &finished.stdout), ("stderr", &finished.stderr)] {
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            continue;
        }
        let from = lines.len().saturating_sub(SHOWN_LINES);
        let cut = if from > 0 {
            format!(" (the last {SHOWN_LINES} of {} lines)", lines.len())
        } else {
            String::new()
        };
        out.push_str(&format!("\n{name}{cut}:\n{}", lines[from..].join("\n")));
    }
    out
}
