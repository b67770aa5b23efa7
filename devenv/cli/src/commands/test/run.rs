//! The suites of a project, and a run of them that is shown as it happens.

use std::{pin::pin, sync::Arc};

use devenv_e2e::{
    environment::Provider,
    outcome::RunReport,
    run::{self, Options},
    suite::{self, Suite},
};
use devenv_model::Topology;
use tokio::sync::mpsc;

use crate::{
    commands::{
        Context,
        up::{Asked, Interrupts},
    },
    error::CliError,
    project::Project,
    render,
};

/// A name for a run that no other has.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// A system keeps about one processor busy; waiting for time-outs takes none.
pub fn jobs() -> usize {
    let processors = std::thread::available_parallelism();
    (processors.map_or(2, std::num::NonZero::get) / 2).max(2)
}

/// The suites of this project, or those of them that were named.
pub fn suites(
    project: &Project,
    topology: &Topology,
    named: &[String],
) -> Result<Vec<Suite>, CliError> {
    let loaded = suite::load(&project.root, &known(topology))?;
    let (errors, warnings): (Vec<_>, Vec<_>) = loaded
        .problems
        .into_iter()
        .partition(devenv_model::Problem::is_error);
    render::problems(&warnings);
    if !errors.is_empty() {
        return Err(CliError::BadSuites(errors));
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

/// What suites may name.
fn known(topology: &Topology) -> suite::Known {
    let workloads = topology.workload_images().into_values().flatten();
    suite::Known {
        workloads: workloads.map(|o| o.name().to_owned()).collect(),
        profile: topology.profile().map(str::to_owned),
    }
}

/// Runs the suites and shows what happens; Ctrl-C ends the running tests in order, a
/// second one at once. Says who asked for the end, if somebody did.
pub async fn follow(
    suites: Vec<Suite>,
    options: Options,
    provider: Arc<dyn Provider>,
    context: &Context,
) -> Result<(RunReport, Option<Asked>), CliError> {
    let mut stop = Interrupts::new()?;
    let cancel = options.cancel.clone();
    let mut ended_by = None;
    let (events_tx, mut events) = mpsc::unbounded_channel();
    let mut shown = render::Run::new(context.format);
    let mut work = pin!(run::run(suites, options, provider, events_tx));
    let report = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => shown.show(&event),
            report = &mut work => break report?,
            asked = stop.wanted() => {
                if ended_by.is_some() {
                    return Err(CliError::Interrupted(asked));
                }
                ended_by = Some(asked);
                render::say("stopping; Ctrl-C again stops at once");
                cancel.cancel();
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        shown.show(&event);
    }
    Ok((report, ended_by))
}
