//! `devenv status`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::status::Status;

use super::Context;
use crate::{error::CliError, render};

/// Say what runs, how well, and where.
#[derive(Debug, Args)]
pub struct StatusArgs {}

pub async fn status(_: StatusArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let topology = project.load(context.namespace.as_deref())?;
    let client = match project.endpoints() {
        Ok(_) => Some(project.client().await?),
        Err(_) => None,
    };
    let status = Status::of(&topology, &project.state, client).await?;
    render::status(&status, context.format);
    Ok(ExitCode::SUCCESS)
}
