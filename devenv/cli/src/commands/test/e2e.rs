//! `devenv test e2e`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use devenv_e2e::{
    environment::Provider,
    outcome::RunReport,
    plan::{Selection, Shard, plan},
    run::Options,
};
use devenv_engine::Runtime;
use devenv_model::LoadOptions;
use devenv_verdict::Tree;
use tokio_util::sync::CancellationToken;

use super::{
    Chosen,
    compare::{Common, CompareArgs},
    reports::{self, Wanted},
    run,
};
use crate::{
    commands::{Context, PodArgs, some_time, up::ensure_installed},
    e2e::{
        environments::{Attached, Fresh},
        images::Ran,
        tree,
    },
    error::CliError,
    project::Project,
    render,
    supervisor::Launch,
};

/// Run the suites of tests/e2e against a fresh environment.
///
/// The environment has a state folder, addresses and a database of its own, beside
/// whatever is up, and is gone afterwards. Exit codes: 0 passed, 1 failed, 2 the
/// suites can't be used, 3 something that a step needs is not installed, 130 stopped by
/// Ctrl-C. With --compare: 0 no difference, 1 differences.
#[derive(Debug, Args)]
pub struct E2eArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// The K-th of N parts of the tests
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Run everything so often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run again and again until a test fails
    #[arg(long, conflicts_with = "repeat")]
    until_fail: bool,
    /// How many environments at a time [default: one for each two processors, at least 2]
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Leave the environments up
    #[arg(long)]
    keep: bool,
    /// Test the system that is up, instead of a fresh one
    #[arg(long, conflicts_with = "keep")]
    attach: bool,
    /// The profile of devenv.toml
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// How long workloads may take to get ready
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = some_time)]
    timeout: Duration,
    /// Write this report besides; `junit=FILE` puts it there, `github` prints annotations
    #[arg(long, value_name = "FORMAT[=FILE]", value_parser = reports::wanted)]
    report: Vec<Wanted>,
    /// Install the packages that this machine lacks
    #[arg(short, long)]
    yes: bool,
    /// Say which tests would run, and run none
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    comparing: CompareArgs,
    #[command(flatten)]
    pods: PodArgs,
}

pub async fn e2e(mut args: E2eArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let mut target = args.pods.target();
    let containers = args.pods.runtime() == Runtime::Docker;
    if args.attach {
        let endpoints = project.endpoints()?;
        if let Some(other) = args.pods.not_as(&endpoints) {
            return Err(CliError::Usage(format!("the system that is up {other}")));
        }
        target = endpoints.target;
        args.profile = running_profile(endpoints.profile, args.profile)?;
    }
    let load = context.load_options(args.profile.as_deref());
    let topology = project.load(&load)?;
    let suites = run::suites(&project, &topology, &args.chosen.suites)?;
    let id = run::new_id();
    let options = options(&args, &project, &id, &target.to_string())?;
    if args.list {
        let planned = plan(suites, &options.selection);
        let mut names = Vec::new();
        for planned in planned.iter().filter(|p| p.skipped.is_none()) {
            let tests = planned.tests.iter().map(|n| &planned.suite.tests[*n]);
            names.extend(tests.map(|t| (planned.suite.name.clone(), t.name.clone())));
        }
        render::tests(&names, context.format);
        return Ok(ExitCode::SUCCESS);
    }
    if args.comparing.wanted() {
        let planned = plan(suites, &options.selection);
        let common = Common {
            context,
            project: &project,
            topology: &topology,
            load: &load,
            launch: launch(&args, &project, context),
            id: &id,
            yes: args.yes,
        };
        return args.comparing.run(&planned, common).await;
    }
    if !args.attach {
        ensure_installed(&topology, args.pods.runtime(), args.yes).await?;
    }
    // Before the first build.
    let before = match args.attach {
        false => Some(tree::look(&project, &load, target, containers).await?),
        true => None,
    };
    project.state.create()?;
    reports::make_room(&options.run_dir)?;
    let fresh = (!args.attach).then(|| {
        let launch = launch(&args, &project, context);
        Arc::new(Fresh::new(launch, args.keep, &id, &project))
    });
    let provider: Arc<dyn Provider> = match &fresh {
        Some(fresh) => fresh.clone(),
        None => Arc::new(Attached::new(&project)),
    };
    let (report, ended_by) = run::follow(suites, options.clone(), provider, context).await?;
    reports::publish(&args.report, &project, &options, &report, context)?;
    if let Some(fresh) = &fresh {
        let kept = fresh.kept();
        if !kept.is_empty() {
            render::kept(&kept, context.format);
        }
    }
    if let Some(asked) = ended_by {
        // Half a run says nothing for the tree or against it.
        return Err(CliError::Interrupted(asked));
    }
    match before.zip(fresh) {
        Some((before, fresh)) => {
            let ran = containers.then(|| fresh.ran());
            judge(&args, &project, &load, (before, ran), &report, context).await;
        }
        None => render::unjudged(UNJUDGED, context.format),
    }
    Ok(ExitCode::from(reports::exit_code(&report)))
}

/// Why a run with `--attach` says nothing of the tree.
const UNJUDGED: &str = "nobody knows what a system that was up already was made from";

/// The profile of the system that is up; one that was asked for must be that.
fn running_profile(
    running: Option<String>,
    asked: Option<String>,
) -> Result<Option<String>, CliError> {
    match asked {
        Some(asked) if running.as_ref() != Some(&asked) => {
            let has = match running {
                Some(running) => format!("the profile {running}"),
                None => "no profile".to_owned(),
            };
            Err(CliError::Usage(format!(
                "the system that is up has {has}; \
                 devenv down && devenv up -d --profile {asked} brings up the other"
            )))
        }
        _ => Ok(running),
    }
}

fn launch(args: &E2eArgs, project: &Project, context: &Context) -> Launch {
    Launch {
        root: project.root.clone(),
        namespace: context.namespace.clone(),
        profile: args.profile.clone(),
        timeout: args.timeout,
        watch: false,
        pods: args.pods.clone(),
    }
}

/// Writes the verdict: on the tree as it was `before`, and on the images that ran where pods
/// were containers. That there is none does not change what the tests said.
async fn judge(
    args: &E2eArgs,
    project: &Project,
    load: &LoadOptions,
    (before, ran): (Tree, Option<Ran>),
    report: &RunReport,
    context: &Context,
) {
    let verdict = async {
        let after = tree::look(project, load, args.pods.target(), ran.is_some()).await?;
        let (before, after) = match ran {
            Some(ran) => ran.of(before, after)?,
            None => (before, after),
        };
        tree::judge(project, before, after, report.clone(), partial(args)).await
    };
    match verdict.await {
        Ok(text) => render::verdict(&text, context.format),
        Err(e) => render::no_verdict(&e.report(), context.format),
    }
}

/// What was left out by hand, as one would type it.
fn partial(args: &E2eArgs) -> Option<String> {
    let mut words = args.chosen.suites.clone();
    words.extend(args.chosen.filter.iter().map(|f| format!("--filter {f}")));
    words.extend(
        args.shard
            .iter()
            .map(|s| format!("--shard {}/{}", s.index, s.of)),
    );
    (!words.is_empty()).then(|| words.join(" "))
}

fn options(args: &E2eArgs, project: &Project, id: &str, target: &str) -> Result<Options, CliError> {
    let selection = Selection {
        filters: args.chosen.filters()?,
        shard: args.shard,
        target: target.to_owned(),
        profile: args.profile.clone(),
    };
    Ok(Options {
        selection,
        retries: args.chosen.retries,
        repeat: args.repeat,
        until_fail: args.until_fail,
        jobs: args.jobs.map_or_else(run::jobs, std::num::NonZero::get),
        id: id.to_owned(),
        run_dir: reports::run_dir(project, id),
        cancel: CancellationToken::new(),
        stop: CancellationToken::new(),
    })
}
