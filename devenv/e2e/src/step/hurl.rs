//! Hurl files, run with the `hurl` program.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, time::Duration};

use tempfile::NamedTempFile;

use super::{
    Context, StepResult, exec,
    program::{self, Run},
};
use crate::suite::spec::{Expect, HurlSpec};

/// Hurl is in no Debian release, and as a library it would make libcurl and libxml2 part
/// of every build of devenv.
const INSTALL: &str = "apt-get install libcurl4-openssl-dev libxml2-dev libclang-dev pkg-config \
    && cargo install --locked hurl@8.0.1";

/// Runs the files; the addresses and the suite's variables are theirs too.
pub async fn run(spec: &HurlSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let variables = match variables(context) {
        Ok(variables) => variables,
        Err(result) => return *result,
    };
    // No proxy, as in the other steps: what is tested is here.
    let argv = ["hurl", "--test", "--no-color", "--noproxy", "*"];
    let mut argv: Vec<String> = argv.map(str::to_owned).into();
    argv.push("--variables-file".to_owned());
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
    exec::finish(program::run(run).await, expect, limit, Some(INSTALL))
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
