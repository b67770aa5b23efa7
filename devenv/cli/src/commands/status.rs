//! `devenv status`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::status::Status;

use super::Context;
use crate::{error::CliError, render};

/// Say what runs, how well, and where.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Also say what was inferred about the images, and from what
    #[arg(short, long)]
    verbose: bool,
}

pub async fn status(args: StatusArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let endpoints = project.endpoints();
    let profile = endpoints.as_ref().ok().and_then(|e| e.profile.clone());
    let mut status = match endpoints {
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
    if args.verbose {
        let topology = project.load(&context.load_options(profile.as_deref()))?;
        status.infer(&topology);
    }
    render::status(&status, context.format);
    Ok(ExitCode::SUCCESS)
}
