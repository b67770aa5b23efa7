//! `devenv logs`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use devenv_engine::logs::{self, LogQuery};
use devenv_platform::process::Process;
use futures_util::StreamExt;

use super::{Context, duration, up::Interrupts};
use crate::{error::CliError, render};

/// Show what services print.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Only this workload or pod
    workload: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only what is newer than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Only so many lines of each container
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
}

pub async fn logs(args: LogsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let endpoints = project.endpoints()?;
    let supervisor = project.state.holder().and_then(|h| Process::of(h.pid));
    let client = project.client().await?;
    let namespace = context.namespace.clone().unwrap_or(endpoints.namespace);
    let query = LogQuery {
        workload: args.workload,
        follow: args.follow,
        since_seconds: args.since.map(|d| d.as_secs().max(1).cast_signed()),
        tail: args.tail.map(i64::from),
    };
    let mut stop = Interrupts::new()?;
    let mut lines = logs::lines(client, &namespace, query).await?;
    let down = async {
        match &supervisor {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(down);
    loop {
        tokio::select! {
            // What was printed comes before the news that all is over.
            biased;
            _ = stop.wanted() => return Ok(ExitCode::SUCCESS),
            line = lines.next() => match line {
                Some(line) => {
                    render::log_line(&line, context.format);
                    if render::gone() {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                None => return Ok(ExitCode::SUCCESS),
            },
            () = &mut down => {
                render::say("the project went down");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}
