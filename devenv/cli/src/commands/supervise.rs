//! `devenv supervise`: what `up -d` leaves running.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Args;
use devenv_engine::{
    UpOptions,
    event::{Bus, Event},
};

use super::{
    Context, duration,
    up::{GRACE, Interrupts},
};
use crate::error::{CliError, exit};

/// Hold a system up in the background.
///
/// Writes its events to stdout as JSON lines until the system is ready; then runs
/// until SIGTERM.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// How long workloads may take to get ready
    #[arg(long, default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// The profile of devenv.toml
    #[arg(long)]
    profile: Option<String>,
    /// Don't reload what is saved
    #[arg(long)]
    no_watch: bool,
    #[command(flatten)]
    isolation: super::IsolationArgs,
}

pub async fn supervise(args: SuperviseArgs, context: &Context) -> Result<ExitCode, CliError> {
    // A session of its own: Ctrl-C in the terminal and its closing are not for it.
    // It fails only for a process that leads a group already, which is as good.
    let _ = nix::unistd::setsid();
    let mut stop = Interrupts::new()?;
    let project = context.project()?;
    let load = context.load_options(args.profile.as_deref());
    let topology = project.load(&load)?;
    let bus = Bus::default();
    let (_, mut events) = bus.subscribe();
    let options = UpOptions {
        root: project.root.clone(),
        load,
        timeout: args.timeout,
        watch: !args.no_watch,
        isolation: args.isolation.get(),
    };
    let result = {
        let mut work = std::pin::pin!(devenv_engine::up(&options, topology, &bus));
        loop {
            tokio::select! {
                done = &mut work => break done,
                Ok(event) = events.recv() => tell(&event),
                _ = stop.wanted() => return Ok(ExitCode::from(exit::FAILED)),
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        tell(&event);
    }
    match result {
        Ok(running) => {
            let failure = tokio::select! {
                _ = stop.wanted() => None,
                e = running.failed() => Some(e),
            };
            running.down(GRACE).await?;
            match failure {
                None => Ok(ExitCode::from(exit::OK)),
                Some(e) => Err(e.into()),
            }
        }
        Err(e) => {
            tell(&Event::Failed { report: e.report() });
            Ok(ExitCode::from(e.report().exit_code))
        }
    }
}

fn tell(event: &Event) {
    let mut out = std::io::stdout().lock();
    // Whoever started us may have gone; the system is what counts.
    let _ = serde_json::to_writer(&mut out, event).map_err(std::io::Error::from);
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}
