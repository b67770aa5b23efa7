//! `devenv test watch`: after each save and its reload, the suites of what has changed.

mod changes;
mod suites;

use std::{mem, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use devenv_e2e::{
    outcome::{RunEvent, RunReport},
    plan::{Filter, Selection, plan},
    run::{self as runner, Options, RunError},
};
use devenv_engine::control::{Ask, Asking, Reply};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Chosen, reports, run};
use crate::{
    commands::{Context, up::Interrupts},
    e2e::environments::Attached,
    error::CliError,
    project::Project,
    render,
};
pub use changes::Changes;
use changes::Pending;
use suites::{Saved, Suites};

/// After each save, run the suites of what has changed against the system that is up.
///
/// A suite is run when one of its `workloads` serves a new version, or when it was edited
/// itself; one that names no workloads is run for each of them. What fails to build, or
/// does not get ready, is told and runs nothing. A save while suites run lets the test
/// under way finish and begins again with all that has changed.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Wait for the first save, instead of running all suites now
    #[arg(long)]
    no_initial: bool,
}

/// After how long without news a version that does not serve yet is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ctrl-C is its only good end.
pub async fn watch(args: WatchArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let endpoints = project.endpoints()?;
    let filters = args.chosen.filters()?;
    let mut interrupts = Interrupts::new()?;
    let mut supervisor = follow(&project, context.run.is_some()).await?;
    let load = context.load_options(endpoints.profile.as_deref());
    let mut suites = Suites::watch(&project, load, args.chosen.suites)?;
    let runs = Runs {
        project,
        profile: endpoints.profile,
        filters,
        retries: args.chosen.retries,
        context,
    };
    render::watching(suites.now.len(), context.format);
    let mut pending = Pending::default();
    if !args.no_initial {
        pending.changes = Changes::all();
    }
    let mut running: Option<Running> = None;
    // What it ends with, once no run is to be begun any more.
    let mut end: Option<Result<ExitCode, CliError>> = None;
    loop {
        match (&running, end.take()) {
            (None, Some(why)) => return why,
            (Some(run), Some(why)) => {
                run.options.cancel.cancel();
                end = Some(why);
            }
            (None, None) if pending.is_ready() => {
                running = runs.start(&suites, mem::take(&mut pending.changes))?;
                continue;
            }
            (Some(run), None) if pending.is_ready() => run.options.stop.cancel(),
            _ => {}
        }
        tokio::select! {
            biased;
            asked = interrupts.wanted() => {
                let code = ExitCode::from(asked.exit_code());
                if running.is_none() || end.is_some() {
                    return Ok(code);
                }
                render::say("stopping; Ctrl-C again stops at once");
                end = Some(Ok(code));
            }
            happened = happened(&mut running) => match happened {
                Happened::Event(event) => runs.show(&mut running, &event),
                Happened::Ended(report) => {
                    if let Some(run) = running.take() {
                        let because = runs.ended(run, &report?)?;
                        pending.changes.merge(because);
                    }
                }
            },
            reply = supervisor.next(), if end.is_none() => match reply {
                Ok(Some(Reply::Event { happened })) => {
                    pending.happened(&happened, |image| suites.users(image));
                    if let (Some(run), true) = (&running, pending.is_ready()) {
                        run.options.stop.cancel();
                    }
                    // Whoever reads this may count on it.
                    render::watched(&happened, context.format);
                }
                Ok(Some(Reply::Lagged)) => pending.lagged(),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => end = Some(Err(CliError::NotUp)),
            },
            saved = suites.saved(), if end.is_none() => match saved {
                Some(saved) => pending.changes.merge(edited(&mut suites, saved, context)),
                None => {
                    let why = CliError::Check("files are no longer watched".to_owned());
                    end = Some(Err(why));
                }
            },
            () = tokio::time::sleep(PATIENCE), if pending.is_held_up() => pending.hurry(),
        }
    }
}

/// Listens to the running supervisor; `of_run`: to that of an end-to-end run.
async fn follow(project: &Project, of_run: bool) -> Result<Asking, CliError> {
    let no = |_| CliError::NoReloads { of_run };
    let mut supervisor = Asking::start(project.state.path(), &Ask::Follow)
        .await
        .map_err(no)?;
    match supervisor.next().await.map_err(no)? {
        Some(Reply::Following) => Ok(supervisor),
        _ => Err(CliError::NoReloads { of_run }),
    }
}

/// The suites that a save has changed; none while they can't be used.
fn edited(suites: &mut Suites, saved: Saved, context: &Context) -> Changes {
    match suites.read_again(saved) {
        Ok(changes) => changes,
        // The supervisor tells of the project's own files.
        Err(CliError::Problems(_)) => Changes::default(),
        Err(e) => {
            render::error(&e, context.format);
            Changes::default()
        }
    }
}

/// What all runs have in common.
struct Runs<'c> {
    project: Project,
    profile: Option<String>,
    filters: Vec<Filter>,
    retries: u32,
    context: &'c Context,
}

/// A run under way.
struct Running {
    because: Changes,
    options: Options,
    events: mpsc::UnboundedReceiver<RunEvent>,
    work: JoinHandle<Result<RunReport, RunError>>,
    shown: render::Run,
}

/// Why a run ended before all its tests had run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Something else has changed.
    Superseded,
    /// The command ends.
    Interrupted,
}

enum Happened {
    Event(Box<RunEvent>),
    Ended(Result<RunReport, CliError>),
}

/// What a run does next; never anything where there is none.
async fn happened(running: &mut Option<Running>) -> Happened {
    let Some(run) = running else {
        return std::future::pending().await;
    };
    // The channel closes as the run ends.
    if let Some(event) = run.events.recv().await {
        return Happened::Event(Box::new(event));
    }
    Happened::Ended(match (&mut run.work).await {
        Ok(report) => report.map_err(CliError::from),
        // Only when it panics.
        Err(e) => Err(CliError::Check(e.to_string())),
    })
}

impl Runs<'_> {
    /// Begins a run of the suites that these changes concern, if any is.
    fn start(&self, suites: &Suites, because: Changes) -> Result<Option<Running>, CliError> {
        let id = run::new_id();
        let selection = Selection {
            filters: self.filters.clone(),
            target: "local".to_owned(),
            profile: self.profile.clone(),
            ..Selection::default()
        };
        let concerned = suites.now.iter().filter(|s| because.concern(s)).cloned();
        let concerned: Vec<_> = concerned.collect();
        let planned = plan(concerned.clone(), &selection);
        let names: Vec<&str> = planned.iter().map(|p| p.suite.name.as_str()).collect();
        render::because(&because, &names, self.context.format);
        if planned.is_empty() {
            return Ok(None);
        }
        let options = Options {
            selection,
            retries: self.retries,
            repeat: 1,
            until_fail: false,
            jobs: run::jobs(),
            run_dir: reports::run_dir(&self.project, &id),
            id,
            cancel: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        reports::make_room(&options.run_dir)?;
        let (events_tx, events) = mpsc::unbounded_channel();
        let provider = Arc::new(Attached::new(&self.project));
        let work = runner::run(concerned, options.clone(), provider, events_tx);
        Ok(Some(Running {
            because,
            options,
            events,
            work: tokio::spawn(work),
            shown: render::Run::new(self.context.format),
        }))
    }

    fn show(&self, running: &mut Option<Running>, event: &RunEvent) {
        // The environment is there already; programs get the report at the end.
        let shows = !matches!(event, RunEvent::Preparing { .. } | RunEvent::Ready { .. })
            && self.context.format == render::Format::Text;
        if let (Some(run), true) = (running, shows) {
            run.shown.show(event);
        }
    }

    /// Reports a run; returns what it leaves to the next one.
    fn ended(&self, run: Running, report: &RunReport) -> Result<Changes, CliError> {
        let options = &run.options;
        reports::publish(&[], &self.project, options, report, self.context)?;
        let cut = if options.cancel.is_cancelled() {
            Some(Cut::Interrupted)
        } else {
            options.stop.is_cancelled().then_some(Cut::Superseded)
        };
        render::watched_run(&run.because, cut, report, self.context.format);
        Ok(match cut {
            Some(_) => run.because,
            None => Changes::default(),
        })
    }
}
