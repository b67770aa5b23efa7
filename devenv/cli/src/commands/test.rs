//! `devenv test`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use devenv_e2e::{
    environment::Provider,
    outcome::{Outcome, RunReport},
    plan::{Filter, Selection, Shard, plan},
    report,
    run::{self, Options},
    suite::{self, Suite},
};
use devenv_model::LoadOptions;
use devenv_verdict::Tree;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Context, IsolationArgs, some_time,
    up::{Interrupts, ensure_installed},
};
use crate::{
    e2e::{
        environments::{Attached, Fresh},
        tree,
    },
    error::{CliError, exit},
    project::Project,
    render,
    supervisor::Launch,
};

/// Prove the system: run its suites and say what came of it.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run the suites of tests/e2e against a fresh environment
    E2e(Box<E2eArgs>),
}

/// Run the suites of tests/e2e against a fresh environment.
///
/// The environment has a state folder, addresses and a database of its own, beside
/// whatever is up, and is gone afterwards. Exit codes: 0 passed, 1 failed, 3
/// something that a step needs is not installed.
#[derive(Debug, Args)]
pub struct E2eArgs {
    /// The suites to run, by name [default: all]
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// Only tests whose `suite::test` holds this text, or fits this /regular expression/
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// The K-th of N parts of the tests
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Run everything so often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run again and again until a test fails
    #[arg(long, conflicts_with = "repeat")]
    until_fail: bool,
    /// Try a failed test so often again; if it passes then, it is called flaky
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// How many environments at a time [default: one for each two processors, at least 2]
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Leave the environments up
    #[arg(long)]
    keep: bool,
    /// Test the system that is up, instead of a fresh one
    #[arg(long, conflicts_with = "keep")]
    attach: bool,
    /// Where: local
    #[arg(long, value_name = "TARGET", default_value = "local", value_parser = target)]
    target: String,
    /// The profile of devenv.toml
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// How long workloads may take to get ready
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = some_time)]
    timeout: Duration,
    /// Write this report besides; `junit=FILE` puts it there, `github` prints annotations
    #[arg(long, value_name = "FORMAT[=FILE]", value_parser = wanted)]
    report: Vec<Wanted>,
    /// Install the packages that this machine lacks
    #[arg(short, long)]
    yes: bool,
    /// Say which tests would run, and run none
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    isolation: IsolationArgs,
}

/// A report that was asked for.
#[derive(Debug, Clone)]
struct Wanted {
    kind: Kind,
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Junit,
    Json,
    Html,
    Github,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (kind, file) = match text.split_once('=') {
        Some((kind, file)) => (kind, Some(PathBuf::from(file))),
        None => (text, None),
    };
    let kind = Kind::from_str(kind, false).map_err(|_| {
        "expected junit, json, html or github, or one of them with =FILE".to_owned()
    })?;
    Ok(Wanted { kind, file })
}

fn target(text: &str) -> Result<String, String> {
    match text {
        "local" => Ok(text.to_owned()),
        _ if text == "kind" || text.starts_with("kube:") => {
            Err("this version runs suites on the local target alone".to_owned())
        }
        _ => Err("expected local".to_owned()),
    }
}

pub async fn test(args: TestArgs, context: &Context) -> Result<ExitCode, CliError> {
    match args.what {
        What::E2e(args) => e2e(*args, context).await,
    }
}

async fn e2e(args: E2eArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let load = context.load_options(args.profile.as_deref());
    let topology = project.load(&load)?;
    let suites = suites(&project, &args.suites)?;
    let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let options = options(&args, &project, &id)?;
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
    if !args.attach {
        ensure_installed(&topology, args.yes).await?;
    }
    // Before the first build. Of a system that is up nobody knows what it was made from.
    let before = match args.attach {
        false => Some(tree::look(&project, &load, &args.target).await?),
        true => None,
    };
    project.state.create()?;
    prune(options.run_dir.parent().unwrap_or(&options.run_dir));
    fs::create_dir_all(&options.run_dir).map_err(io_error("make", &options.run_dir))?;
    let fresh = (!args.attach).then(|| {
        let launch = Launch {
            root: project.root.clone(),
            namespace: context.namespace.clone(),
            profile: args.profile.clone(),
            timeout: args.timeout,
            watch: false,
            isolation: args.isolation,
        };
        Arc::new(Fresh::new(launch, args.keep, &id, &project))
    });
    let provider: Arc<dyn Provider> = match &fresh {
        Some(fresh) => fresh.clone(),
        None => Arc::new(Attached::new(&project)),
    };
    let report = follow(suites, options.clone(), provider, context).await?;
    publish(&args, &project, &options, &report, context)?;
    if let Some(fresh) = &fresh {
        let kept = fresh.kept();
        if !kept.is_empty() {
            render::kept(&kept, context.format);
        }
    }
    match before {
        Some(before) => judge(&args, &project, &load, before, &report, context).await,
        None => render::no_verdict_of_attached(context.format),
    }
    Ok(ExitCode::from(exit_code(&report)))
}

/// Writes the verdict. That there is none does not change what the tests said.
async fn judge(
    args: &E2eArgs,
    project: &Project,
    load: &LoadOptions,
    before: Tree,
    report: &RunReport,
    context: &Context,
) {
    let verdict = async {
        let after = tree::look(project, load, &args.target).await?;
        tree::judge(project, before, after, report.clone(), partial(args)).await
    };
    match verdict.await {
        Ok(text) => render::verdict(&text, context.format),
        Err(e) => render::no_verdict(&e.report(), context.format),
    }
}

/// What was left out by hand, as one would type it.
fn partial(args: &E2eArgs) -> Option<String> {
    let mut words = args.suites.clone();
    words.extend(args.filter.iter().map(|f| format!("--filter {f}")));
    words.extend(
        args.shard
            .iter()
            .map(|s| format!("--shard {}/{}", s.index, s.of)),
    );
    (!words.is_empty()).then(|| words.join(" "))
}

/// Runs the suites and shows what happens; Ctrl-C ends the running tests in order, a
/// second one at once.
async fn follow(
    suites: Vec<Suite>,
    options: Options,
    provider: Arc<dyn Provider>,
    context: &Context,
) -> Result<RunReport, CliError> {
    let mut stop = Interrupts::new()?;
    let cancel = options.cancel.clone();
    let (events_tx, mut events) = mpsc::unbounded_channel();
    let mut shown = render::Run::new(context.format);
    let mut work = pin!(run::run(suites, options, provider, events_tx));
    let report = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => shown.show(&event),
            report = &mut work => break report?,
            asked = stop.wanted() => {
                if cancel.is_cancelled() {
                    return Err(CliError::Interrupted(asked));
                }
                render::say("stopping; Ctrl-C again stops at once");
                cancel.cancel();
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        shown.show(&event);
    }
    Ok(report)
}

/// The suites of this project, or those of them that were named.
fn suites(project: &Project, named: &[String]) -> Result<Vec<Suite>, CliError> {
    let loaded = suite::load(&project.root)?;
    let (errors, warnings): (Vec<_>, Vec<_>) = loaded
        .problems
        .into_iter()
        .partition(devenv_model::Problem::is_error);
    render::problems(&warnings);
    if !errors.is_empty() {
        return Err(CliError::Problems(errors));
    }
    let known: Vec<String> = loaded.suites.iter().map(|s| s.name.clone()).collect();
    if known.is_empty() {
        return Err(CliError::NoSuites(project.root.join(suite::FOLDER)));
    }
    if let Some(name) = named.iter().find(|n| !known.contains(n)) {
        return Err(CliError::NoSuite {
            name: name.clone(),
            known,
        });
    }
    let mut suites = loaded.suites;
    suites.retain(|s| named.is_empty() || named.contains(&s.name));
    Ok(suites)
}

fn options(args: &E2eArgs, project: &Project, id: &str) -> Result<Options, CliError> {
    let filters: Result<Vec<Filter>, _> = args.filter.iter().map(|f| f.parse()).collect();
    let filters = filters.map_err(|e| CliError::Usage(format!("--filter: {e}")))?;
    let selection = Selection {
        filters,
        shard: args.shard,
        target: args.target.clone(),
        profile: args.profile.clone(),
        workloads: None,
    };
    Ok(Options {
        selection,
        retries: args.retries,
        repeat: args.repeat,
        until_fail: args.until_fail,
        jobs: args.jobs.map_or_else(jobs, std::num::NonZero::get),
        id: id.to_owned(),
        run_dir: project.state.base().join("e2e").join(id),
        cancel: CancellationToken::new(),
    })
}

/// A system keeps about one processor busy; waiting for time-outs takes none.
fn jobs() -> usize {
    let processors = std::thread::available_parallelism();
    (processors.map_or(2, std::num::NonZero::get) / 2).max(2)
}

/// Of how many runs the reports are kept.
const KEPT_REPORTS: usize = 20;

/// Removes the oldest reports. What can't be removed now is tried again next time.
fn prune(folder: &Path) {
    let runs = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<_> = runs
        .filter_map(|run| Some((run.metadata().ok()?.modified().ok()?, run.path())))
        .collect();
    runs.sort();
    let old = runs.len().saturating_sub(KEPT_REPORTS - 1);
    for (_, run) in runs.drain(..old) {
        if let Err(e) = fs::remove_dir_all(&run) {
            tracing::warn!(error = %e, run = %run.display(), "can't remove old reports");
        }
    }
}

/// Writes the reports.
fn publish(
    args: &E2eArgs,
    project: &Project,
    options: &Options,
    report: &RunReport,
    context: &Context,
) -> Result<(), CliError> {
    let written = report::write_all(report, &options.run_dir, &report::Format::ALL)?;
    for wanted in &args.report {
        let format = match wanted.kind {
            Kind::Junit => report::Format::Junit,
            Kind::Json => report::Format::Json,
            Kind::Html => report::Format::Html,
            Kind::Github => report::Format::Github,
        };
        if wanted.kind == Kind::Github && wanted.file.is_none() {
            render::github(report, &project.root);
        }
        let Some(to) = &wanted.file else { continue };
        let from = written.iter().find(|p| p.ends_with(format.file_name()));
        if let Some(from) = from {
            fs::copy(from, to).map_err(io_error("write", to))?;
        }
    }
    render::reports(&options.run_dir, context.format);
    Ok(())
}

fn exit_code(report: &RunReport) -> u8 {
    if report.passed() {
        return exit::OK;
    }
    let mut tests = report.suites.iter().flat_map(|s| &s.tests);
    let failed = report.suites.iter().any(|s| s.error.is_some())
        || tests.any(|t| t.outcome == Outcome::Failed);
    let mut tests = report.suites.iter().flat_map(|s| &s.tests);
    if !failed && tests.any(|t| t.outcome == Outcome::Missing) {
        return exit::MISSING;
    }
    exit::FAILED
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> CliError + use<> {
    let what = format!("{what} {}", path.display());
    move |source| CliError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devenv_e2e::outcome::{Place, SuiteReport, TestReport};
    use rstest::rstest;

    fn report(outcomes: &[Outcome]) -> RunReport {
        let test = |outcome: &Outcome| TestReport {
            name: String::new(),
            place: Place {
                file: PathBuf::new(),
                line: 1,
            },
            outcome: *outcome,
            attempts: Vec::new(),
            reason: None,
            again: String::new(),
        };
        RunReport {
            id: String::new(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ms: 0,
            ready_ms: 0,
            target: "local".to_owned(),
            profile: None,
            suites: vec![SuiteReport {
                name: String::new(),
                file: PathBuf::new(),
                environment: String::new(),
                started_ms: 0,
                ms: 0,
                tests: outcomes.iter().map(test).collect(),
                error: None,
            }],
        }
    }

    #[rstest]
    #[case(&[Outcome::Passed, Outcome::Skipped], exit::OK)]
    #[case(&[Outcome::Flaky, Outcome::Unsupported], exit::OK)]
    #[case(&[Outcome::Passed, Outcome::Missing], exit::MISSING)]
    #[case(&[Outcome::Failed, Outcome::Missing], exit::FAILED)]
    #[case(&[Outcome::Skipped, Outcome::Unsupported], exit::FAILED)]
    #[case(&[], exit::FAILED)]
    fn exit_codes(#[case] outcomes: &[Outcome], #[case] code: u8) {
        assert_eq!(exit_code(&report(outcomes)), code);
    }

    #[test]
    fn old_reports_go_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let time = |n: u64| std::time::UNIX_EPOCH + Duration::from_secs(n);
        for n in 0..30 {
            let run = folder.path().join(n.to_string());
            fs::create_dir(&run).unwrap();
            fs::File::open(&run).unwrap().set_modified(time(n)).unwrap();
        }
        prune(folder.path());
        assert!(!folder.path().join("10").exists() && folder.path().join("11").exists());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            KEPT_REPORTS - 1
        );
    }
}
