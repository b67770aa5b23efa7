//! `devenv down`.

use std::{process::ExitCode, time::{Duration, Instant}};

use clap::Args;
use devenv_engine::state::StateDir;
use nix::{sys::signal::{Signal, kill}, unistd::Pid};
use tokio::io::unix::AsyncFd;

use super::{Context, up::GRACE};
use crate::{error::CliError, render};

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
    let was_up = stop(&project.state).await?;
    if args.volumes {
        project.state.delete()?;
    }
    let what = match (was_up, args.volumes) {
        (true, true) => "stopped, and the data is gone",
        (true, false) => "stopped; the data stays (`down -v` removes it)",
        (false, true) => "nothing was running; the data is gone",
        (false, false) => "nothing is running",
    };
    render::done(what, start.elapsed(), context.format);
    Ok(ExitCode::SUCCESS)
}

/// Asks the supervisor to stop and waits until it has.
async fn stop(state: &StateDir) -> Result<bool, CliError> {
    let Some(holder) = state.holder() else { return Ok(false) };
    let pid = holder.pid;
    // More than the pods' own grace: they are killed by then.
    let seconds = GRACE.as_secs() + 10;
    let late = CliError::NotStopped { pid, seconds };
    let Some(process) = rustix::process::Pid::from_raw(pid.cast_signed()) else { return Err(late) };
    // A pidfd stays with this very process, whatever the number is used for later.
    let Ok(pidfd) = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()) else {
        return Ok(true);
    };
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    let io = |source| CliError::Io { what: format!("wait for process {pid}"), source };
    let ended = AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE).map_err(io)?;
    match tokio::time::timeout(Duration::from_secs(seconds), ended.readable()).await {
        Ok(readable) => readable.map(|_| true).map_err(io),
        Err(_) => Err(late),
    }
}
