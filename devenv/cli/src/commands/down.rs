//! `devenv down`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use devenv_engine::{UpError, state::StateDir};
use devenv_platform::{containers, process::Process};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Context, up::GRACE};
use crate::{e2e::environments::clean_dead, error::CliError, project::Project, render};

/// Stop everything; the database's data stays.
///
/// Services get SIGTERM and time to finish, then the database. Safe to call when
/// nothing runs.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Throw the data away as well: the database, kept builds, the whole state folder
    #[arg(short, long)]
    volumes: bool,
}

pub async fn down(args: DownArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let start = Instant::now();
    if args.volumes && context.run.is_none() {
        let runs = project.state.runs();
        let runs: Vec<&str> = runs.iter().filter_map(StateDir::run_id).collect();
        if !runs.is_empty() {
            return Err(CliError::Runs(
                runs.iter().map(ToString::to_string).collect(),
            ));
        }
    }
    let was_up = stop(&project.state).await?;
    let all = args.volumes || context.run.is_some();
    if args.volumes {
        clean_dead(&project.state).await;
    }
    sweep(&project, all).await?;
    // Of a run nothing stays.
    project.state.end_run()?;
    let removed = args.volumes && project.state.delete()?;
    render::down(
        was_up,
        args.volumes,
        removed,
        start.elapsed(),
        context.format,
    );
    Ok(ExitCode::SUCCESS)
}

/// Removes what a killed supervisor left on a container engine; with `volumes` also what
/// one that ended in order keeps there.
async fn sweep(project: &Project, volumes: bool) -> Result<(), CliError> {
    let left = containers::remove_all(project.state.path(), volumes).await;
    match left.map_err(UpError::from)? {
        0 => {}
        1 => render::say("removed a container that was left"),
        n => render::say(&format!("removed {n} containers that were left")),
    }
    Ok(())
}

/// Asks the supervisor to stop and waits until it has.
async fn stop(state: &StateDir) -> Result<bool, CliError> {
    let Some(holder) = state.holder() else {
        return Ok(false);
    };
    let pid = holder.pid;
    // More than the pods' own grace: they are killed by then.
    let seconds = GRACE.as_secs() + 10;
    let late = CliError::NotStopped { pid, seconds };
    // A process that is gone already is what was wanted.
    let Some(ended) = Process::of(pid) else {
        return Ok(true);
    };
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    match tokio::time::timeout(Duration::from_secs(seconds), ended.ended()).await {
        Ok(()) => Ok(true),
        Err(_) => Err(late),
    }
}
