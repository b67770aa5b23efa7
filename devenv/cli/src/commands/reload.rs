//! `devenv reload`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::control::Ask;

use super::{Context, ask::ask};
use crate::{error::CliError, render::Progress};

/// Build and roll services now, changed or not.
///
/// What runs serves until the new version is ready. For images with `reload = "manual"`
/// this is how a saved file gets to run.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Workloads or images; all that are built from source if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub async fn reload(args: ReloadArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let names = args.names.into_iter().collect();
    let mut progress = Progress::new(context.format);
    ask(&project, &Ask::Reload { names }, &mut progress).await?;
    Ok(ExitCode::SUCCESS)
}
