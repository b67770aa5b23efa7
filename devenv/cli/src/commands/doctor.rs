//! `devenv doctor`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::needs;
use devenv_platform::{
    Runtime,
    doctor::{self, Needs, State},
};

use super::Context;
use crate::{
    error::{CliError, exit},
    render,
};

/// Say what this machine lacks and the command that mends it.
///
/// Exits with 3 when something that the project needs is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

pub async fn doctor(_: DoctorArgs, context: &Context) -> Result<ExitCode, CliError> {
    let needs = match context.project() {
        Ok(project) => {
            let topology = project.load(&context.load_options(None))?;
            needs(&topology, Runtime::Process)
        }
        // Outside a project: what every project needs.
        Err(CliError::NoProject(_)) => Needs {
            database: true,
            ..Needs::default()
        },
        Err(e) => return Err(e),
    };
    let checks = doctor::examine(&needs);
    render::checks(&checks, context.format);
    let missing = checks.iter().any(|c| c.state == State::Missing);
    Ok(ExitCode::from(if missing {
        exit::MISSING
    } else {
        exit::OK
    }))
}
