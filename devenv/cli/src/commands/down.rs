//! `devenv down`.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use devenv_engine::state::StateDir;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::event::{PollFd, PollFlags};

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
    let Some(holder) = state.holder() else {
        return Ok(false);
    };
    let pid = holder.pid;
    // More than the pods' own grace: they are killed by then.
    let seconds = GRACE.as_secs() + 10;
    let late = CliError::NotStopped { pid, seconds };
    let Some(process) = rustix::process::Pid::from_raw(pid.cast_signed()) else {
        return Err(late);
    };
    // A pidfd stays with this very process, whatever the number is used for later.
    let Ok(pidfd) = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
    else {
        return Ok(true);
    };
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
    let limit = rustix::event::Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let ended = tokio::task::spawn_blocking(move || {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&limit))
    });
    let io = |source| CliError::Io {
        what: format!("wait for process {pid}"),
        source,
    };
    match ended
        .await
        .map_err(|e| io(e.into()))?
        .map_err(|e| io(e.into()))?
    {
        0 => Err(late),
        _ => Ok(true),
    }
}
