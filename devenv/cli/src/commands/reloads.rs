//! `devenv reloads`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::reload::Written;

use super::Context;
use crate::{error::CliError, render};

/// List what saved files led to, and how long each step took.
///
/// The newest last; `-o json` gives all times in milliseconds since the save.
#[derive(Debug, Args)]
pub struct ReloadsArgs {
    /// Only the newest N
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

pub async fn reloads(args: ReloadsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    project.endpoints()?;
    let mut written = Written::read(project.state.path()).map_err(|source| CliError::Io {
        what: "read the list of reloads".to_owned(),
        source,
    })?;
    if let Some(n) = args.tail {
        let older = written.reloads.len().saturating_sub(n);
        written.reloads.drain(..older);
    }
    render::reloads(&written.reloads, context.format);
    Ok(ExitCode::SUCCESS)
}
