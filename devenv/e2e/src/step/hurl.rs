//! Hurl files, run with the `hurl` program.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, time::Duration};

use tempfile::NamedTempFile;

use super::{
    Context, StepResult, exec,
    program::{self, Run},
};
use crate::suite::spec::{Expect, HurlSpec};

/// Runs the files; the addresses and the suite's variables are theirs too.
pub async fn run(spec: &HurlSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let variables = match variables(context) {
        Ok(variables) => variables,
        Err(result) => return *result,
    };
    let mut argv: Vec<String> = ["hurl", "--test", "--no-color", "--variables-file"]
        .map(str::to_owned)
        .into();
    argv.push(variables.path().display().to_string());
    argv.extend(spec.files.iter().map(|file| file.0.clone()));
    let run = Run {
        argv,
        dir: context.folder.clone(),
        env: BTreeMap::new(),
        stdin: None,
        timeout: spec.timeout.map(Duration::from),
    };
    let limit = spec.timeout.map(|limit| limit.to_string());
    let install = Some(
        "cargo install --locked hurl (it needs libcurl4-openssl-dev, libxml2-dev and pkg-config)",
    );
    exec::finish(program::run(run).await, expect, limit, install)
}

/// In a file that only this user can read: arguments are for everybody to see.
fn variables(context: &Context) -> Result<NamedTempFile, Box<StepResult>> {
    let mut text = String::new();
    for (name, value) in exec::environment(context).map_err(|error| Box::new(error.into()))? {
        let name = name.strip_prefix("DEVENV_VAR_").unwrap_or(&name);
        // Of several lines it can't be a value there.
        if !value.contains(['\n', '\r']) {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    for (name, value) in context
        .vars
        .of_suite()
        .map_err(|error| Box::new(error.into()))?
    {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if !value.contains(['\n', '\r']) {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    let file = NamedTempFile::new().and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file)
    });
    file.map_err(|error| {
        Box::new(StepResult::failed(
            "variables",
            "a file for them",
            error.to_string(),
        ))
    })
}
