//! `devenv traffic`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tokio_util::sync::CancellationToken;
use traffic::{ExpectSplit, Idempotency, MaxFailures, Options, Pace, Source, Stop};

use super::{Context, some_time, up::Interrupts};
use crate::{
    error::{CliError, exit},
    render,
};

/// Send telemetry of this machine to the Ingress and report what came of it.
///
/// With --rate requests are due at even distances whatever the answers do (open
/// loop), and latency counts from when a request was due. With --concurrency so
/// many users each send when their last request was answered.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Stop after so many requests [default: 1000, without --duration]
    #[arg(long, value_name = "N", value_parser = count)]
    requests: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    duration: Option<Duration>,
    /// So many users at once [default: 8, without --rate]
    #[arg(long, value_name = "N", conflicts_with = "rate",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: Option<u32>,
    /// So many requests a second
    #[arg(long, value_name = "N", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Where to [default: the Ingress of this project]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The Host header, for an Ingress that routes by host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Send the records of this JSON file instead of this machine's
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// Give each request an Idempotency-Key and repeat it up to N times when it fails
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Send an OPTIONS before each POST, as browsers do
    #[arg(long)]
    preflight: bool,
    /// Give up on a request after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = some_time)]
    request_timeout: Duration,
    /// Exit with 1 when more requests than this fail (a number or a percentage)
    #[arg(long, value_name = "N")]
    max_failures: Option<MaxFailures>,
    /// Exit with 1 when the APIs' shares are others, e.g. 50:50±2
    #[arg(long, value_name = "SHARES")]
    expect_split: Option<ExpectSplit>,
}

/// One or more.
fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number of 1 or more".to_owned()),
        Ok(n) => Ok(n),
    }
}

/// A rate that can be kept.
fn rate(text: &str) -> Result<f64, String> {
    let n: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if n > 0.0 && n <= 1e6 {
        Ok(n)
    } else {
        Err("expected more than 0 and at most 1000000 requests a second".to_owned())
    }
}

pub async fn traffic(args: TrafficArgs, context: &Context) -> Result<ExitCode, CliError> {
    let url = match args.url {
        Some(url) => url,
        None => context
            .project()?
            .endpoints()?
            .ingress
            .ok_or_else(|| CliError::Check("this project has no Ingress".to_owned()))?,
    };
    let pace = match args.rate {
        Some(rate) => Pace::Rate(rate),
        None => Pace::Users(args.concurrency.map_or(8, |n| n as usize)),
    };
    let unlimited = args.requests.is_none() && args.duration.is_none();
    let stop = Stop {
        requests: if unlimited { Some(1000) } else { args.requests },
        duration: args.duration,
    };
    let mut options = Options::new(url, pace, stop);
    options.host = args.host;
    options.preflight = args.preflight;
    options.timeout = args.request_timeout;
    options.idempotency = args.retries.map_or(Idempotency::Off, Idempotency::Retry);
    let source = match &args.records {
        Some(file) => Source::file(file),
        None => Source::machine().await,
    }?;

    let mut interrupts = Interrupts::new()?;
    let cancel = CancellationToken::new();
    let run = traffic::run(&options, source, render::traffic_progress, cancel.clone());
    let mut run = std::pin::pin!(run);
    let report = loop {
        tokio::select! {
            report = &mut run => break report?,
            _ = interrupts.wanted() => cancel.cancel(),
        }
    };
    render::traffic(&report, context.format);
    let mut broken = Vec::new();
    broken.extend(args.max_failures.and_then(|c| c.check(&report).err()));
    broken.extend(args.expect_split.and_then(|c| c.check(&report).err()));
    for what in &broken {
        render::say(what);
    }
    Ok(ExitCode::from(if broken.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1", true, true)]
    #[case("0.5", false, true)]
    #[case("0", false, false)]
    #[case("-1", false, false)]
    #[case("NaN", false, false)]
    #[case("inf", false, false)]
    #[case("many", false, false)]
    fn numbers(#[case] text: &str, #[case] is_count: bool, #[case] is_rate: bool) {
        assert_eq!(count(text).is_ok(), is_count, "count");
        assert_eq!(rate(text).is_ok(), is_rate, "rate");
    }
}
