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
    let status = match project.endpoints() {
        // What runs is told whatever the files say by now.
        Ok(up) => {
            let namespace = context.namespace.as_deref().unwrap_or(&up.namespace);
            let client = project.client().await?;
            Status::of(&up.project, namespace, &project.state, Some(client)).await?
        }
        Err(_) => {
            let topology = project.load(&context.load_options(None))?;
            let own = topology.project();
            Status::of(&own.name, &own.namespace, &project.state, None).await?
        }
    };
    render::status(&status, context.format);
    Ok(ExitCode::SUCCESS)
}
