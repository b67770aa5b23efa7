//! `devenv supervise`: what `up -d` leaves running.

use std::{io::Write, pin::pin, process::ExitCode, time::Duration};

use clap::Args;
use devenv_engine::{
    UpOptions,
    event::{Bus, Event},
};
use devenv_platform::containers;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::{
    Context, duration,
    up::{GRACE, Interrupts},
};
use crate::{
    error::{CliError, exit},
    project::Project,
};

/// What unties a supervisor from the process that started it.
pub const KEEP: &str = "keep";

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
    /// Go down when stdin ends, unless the line `keep` came before
    #[arg(long)]
    tied: bool,
    #[command(flatten)]
    pods: super::PodArgs,
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
        run: context.run.clone(),
        load,
        timeout: args.timeout,
        watch: !args.no_watch,
        isolation: args.pods.isolation(),
        target: args.pods.target(),
        context: args.pods.context(),
        runtime: args.pods.runtime(),
        ingress: args.pods.ingress(),
    };
    let mut untied = pin!(async {
        if args.tied {
            until_untied(tokio::io::stdin()).await;
        } else {
            std::future::pending().await
        }
    });
    let result = {
        let mut work = pin!(devenv_engine::up(&options, topology, &bus));
        loop {
            tokio::select! {
                done = &mut work => break Some(done),
                Ok(event) = events.recv() => tell(&event),
                _ = stop.wanted() => break None,
                () = &mut untied => break None,
            }
        }
    };
    let Some(result) = result else {
        // What it had started ended as the work was dropped, but for what an engine runs.
        clean(&project, context).await;
        project.state.end_run()?;
        return Ok(ExitCode::from(exit::FAILED));
    };
    while let Ok(event) = events.try_recv() {
        tell(&event);
    }
    match result {
        Ok(running) => {
            let failure = tokio::select! {
                _ = stop.wanted() => None,
                () = &mut untied => None,
                e = running.failed() => Some(e),
            };
            running.down(GRACE).await?;
            project.state.end_run()?;
            match failure {
                None => Ok(ExitCode::from(exit::OK)),
                Some(e) => Err(e.into()),
            }
        }
        Err(e) => {
            clean(&project, context).await;
            if let Err(e) = project.state.end_run() {
                tracing::warn!(error = %e, "the next run removes what is left of this one");
            }
            tell(&Event::Failed { report: e.report() });
            Ok(ExitCode::from(e.report().exit_code))
        }
    }
}

/// Removes what is left on a container engine; of a run the data, too.
async fn clean(project: &Project, context: &Context) {
    let state_dir = project.state.path();
    if let Err(e) = containers::remove_all(state_dir, context.run.is_some()).await {
        tracing::warn!(error = %e, "something is left on the container engine");
    }
}

/// Resolves when whoever holds the other end is gone, and never once it said `keep`.
async fn until_untied(stdin: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stdin).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == KEEP {
            std::future::pending::<()>().await;
        }
    }
}

fn tell(event: &Event) {
    let mut out = std::io::stdout().lock();
    // Whoever started us may have gone; the system is what counts.
    let _ = serde_json::to_writer(&mut out, event).map_err(std::io::Error::from);
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}
