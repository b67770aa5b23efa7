//! `devenv test`.

mod compare;
mod e2e;
mod reports;
mod run;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use devenv_e2e::{plan::Filter, suite};

pub use watch::{Changes, Cut};

use super::Context;
use crate::{error::CliError, render};

/// Prove the system: run its suites and say what came of it.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run the suites of tests/e2e against a fresh environment
    E2e(Box<e2e::E2eArgs>),
    /// After each save, run the suites of what has changed against the system that is up
    Watch(watch::WatchArgs),
    /// Print the JSON schema of suites, for editors
    Schema,
}

/// Which tests, and how often a failed one is tried.
#[derive(Debug, Args)]
struct Chosen {
    /// The suites to run, by name [default: all]
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// Only tests whose `suite::test` holds this text, or fits this /regular expression/
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Try a failed test so often again; if it passes then, it is called flaky
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
}

impl Chosen {
    fn filters(&self) -> Result<Vec<Filter>, CliError> {
        let filters: Result<_, _> = self.filter.iter().map(|f| f.parse()).collect();
        filters.map_err(|e| CliError::Usage(format!("--filter: {e}")))
    }
}

pub async fn test(args: TestArgs, context: &Context) -> Result<ExitCode, CliError> {
    match args.what {
        What::E2e(args) => e2e::e2e(*args, context).await,
        What::Watch(args) => watch::watch(args, context).await,
        What::Schema => {
            render::schema(&suite::schema(), context.format);
            Ok(ExitCode::SUCCESS)
        }
    }
}
