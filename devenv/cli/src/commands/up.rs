//! `devenv up`.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use clap::Args;
use devenv_engine::{
    UpError, UpOptions,
    control::Ask,
    event::{Bus, Event},
    logs::{self, LogQuery},
    needs,
};
use devenv_model::Topology;
use devenv_platform::{
    Runtime, containers,
    doctor::{self, Fix},
};
use futures_util::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::error::RecvError,
};

use super::{Context, ask::ask, duration};
use crate::{
    error::CliError,
    project::Project,
    render::{self, Progress},
    supervisor::Launch,
};

/// Bring the system up from its manifests.
///
/// Builds what changed, starts the database, applies the manifests and returns (-d)
/// or shows the logs (Ctrl-C stops everything, a second one at once) when every
/// workload is ready.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Leave it running in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Install the packages that this machine lacks (what `devenv doctor` names)
    #[arg(short, long)]
    pub yes: bool,
    /// How long workloads may take to get ready
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub timeout: Duration,
    /// Lay a profile of devenv.toml ([profile.NAME]) over the rest
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Don't reload what is saved
    #[arg(long)]
    pub no_watch: bool,
    #[command(flatten)]
    pub pods: super::PodArgs,
}

/// How long pods get to end when the system is stopped.
pub const GRACE: Duration = Duration::from_secs(20);

pub async fn up(args: UpArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let topology = project.load(&context.load_options(args.profile.as_deref()))?;
    if let Some(holder) = project.state.holder() {
        match already_up(&args, context, &project, holder.pid).await {
            // It has ended meanwhile.
            Err(CliError::NotUp) => {}
            done => return done,
        }
    }
    if let Some(run) = &context.run {
        return Err(CliError::NoRun(run.clone()));
    }
    ensure_installed(&topology, args.pods.runtime(), args.yes).await?;
    let mut progress = Progress::new(context.format);
    let done = if args.detach {
        detached(&args, context, &project, &mut progress).await
    } else {
        foreground(&args, context, &project, topology, &mut progress).await
    };
    match done {
        // A build's output that went by line by line is not shown a second time.
        Err(e @ (CliError::Up(_) | CliError::Reported(_))) if progress.shows_output() => {
            let mut report = e.report();
            report.output = None;
            Err(CliError::Reported(report))
        }
        done => done,
    }
}

/// Another `up` of a running system applies what the files say, and what somebody has
/// deleted from it since.
async fn already_up(
    args: &UpArgs,
    context: &Context,
    project: &Project,
    pid: u32,
) -> Result<ExitCode, CliError> {
    let Some(endpoints) = project.state.endpoints() else {
        return Err(CliError::Busy(pid));
    };
    if let Some(other) = args.pods.not_as(&endpoints) {
        return Err(CliError::Usage(format!(
            "the system that is up {other}; stop it first: devenv down"
        )));
    }
    if endpoints.watching {
        let timeout_s = args.timeout.as_secs();
        let mut progress = Progress::new(context.format);
        ask(project, &Ask::Apply { timeout_s }, &mut progress).await?;
    }
    render::already_up(pid, &endpoints, context.format);
    Ok(ExitCode::SUCCESS)
}

pub async fn ensure_installed(
    topology: &Topology,
    runtime: Runtime,
    yes: bool,
) -> Result<(), CliError> {
    let needs = needs(topology, runtime);
    let found = doctor::missing(&needs);
    if found.is_empty() {
        return Ok(());
    }
    let packages: Vec<String> = found
        .iter()
        .filter_map(|c| match &c.fix {
            Some(Fix::Packages(p)) => Some(p.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    if yes && !packages.is_empty() {
        render::say(&format!(
            "installing: {}",
            doctor::install_command(&packages)
        ));
        doctor::install(&packages).await?;
    }
    match doctor::missing(&needs) {
        none if none.is_empty() => Ok(()),
        left => Err(CliError::Missing(left)),
    }
}

/// Starts the supervisor, shows its events, and leaves it when all is ready.
async fn detached(
    args: &UpArgs,
    context: &Context,
    project: &Project,
    progress: &mut Progress,
) -> Result<ExitCode, CliError> {
    project.state.create()?;
    // Before there is anything to stop.
    let mut stop = Interrupts::new()?;
    let launch = Launch {
        root: project.root.clone(),
        namespace: context.namespace.clone(),
        profile: args.profile.clone(),
        timeout: args.timeout,
        watch: !args.no_watch,
        pods: args.pods.clone(),
    };
    let mut supervisor = launch.start(&project.state)?;
    let mut asked: Option<Asked> = None;
    loop {
        let event = tokio::select! {
            event = supervisor.next() => event?,
            signal = stop.wanted() => {
                let id = supervisor.process.id();
                if asked.is_none() {
                    render::say("stopping; Ctrl-C again stops at once");
                    send(id, Signal::SIGTERM);
                } else {
                    // The kernel ends all that it runs with it.
                    send(id, Signal::SIGKILL);
                }
                asked.get_or_insert(signal);
                continue;
            }
        };
        let Some(event) = event else {
            supervisor.ended().await?;
            return Err(match asked {
                Some(asked) => CliError::Interrupted(asked),
                None => gone(&supervisor.log),
            });
        };
        progress.show(&event);
        match event {
            Event::Ready { endpoints, .. } => {
                if asked.is_some() {
                    // It is on its way down already.
                    continue;
                }
                render::endpoints(&endpoints, context.format);
                return Ok(ExitCode::SUCCESS);
            }
            Event::Failed { report } => {
                // Its pods are gone; wait until it is as well, so that a next `up` can come.
                supervisor.ended().await?;
                return Err(CliError::Reported(report));
            }
            _ => {}
        }
    }
}

fn gone(log: &Path) -> CliError {
    if let Ok(text) = fs::read_to_string(log) {
        for line in text
            .lines()
            .rev()
            .take(20)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            render::say(line);
        }
    }
    CliError::SupervisorGone(log.to_owned())
}

fn send(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid {
        // Gone already is what was wanted.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Holds the system in this process and shows its logs.
async fn foreground(
    args: &UpArgs,
    context: &Context,
    project: &Project,
    topology: Topology,
    progress: &mut Progress,
) -> Result<ExitCode, CliError> {
    let mut stop = Interrupts::new()?;
    let bus = Bus::default();
    let (_, mut events) = bus.subscribe();
    let options = UpOptions {
        root: project.root.clone(),
        run: context.run.clone(),
        load: context.load_options(args.profile.as_deref()),
        timeout: args.timeout,
        watch: !args.no_watch,
        isolation: args.pods.isolation(),
        target: args.pods.target(),
        context: args.pods.context(),
        runtime: args.pods.runtime(),
        ingress: args.pods.ingress(),
    };
    let running = {
        let mut work = std::pin::pin!(devenv_engine::up(&options, topology, &bus));
        loop {
            tokio::select! {
                done = &mut work => break Ok(done),
                Ok(event) = events.recv() => progress.show(&event),
                asked = stop.wanted() => break Err(asked),
            }
        }
    };
    let running = match running {
        Ok(running) => running,
        Err(asked) => {
            // Dropping the work ended every pod of it, but for what an engine runs.
            let left = containers::remove_all(project.state.path(), context.run.is_some()).await;
            left.map_err(UpError::from)?;
            return Err(CliError::Interrupted(asked));
        }
    };
    while let Ok(event) = events.try_recv() {
        progress.show(&event);
    }
    let running = running?;
    render::endpoints(&running.endpoints(), context.format);
    let query = LogQuery {
        follow: true,
        tail: Some(0),
        ..LogQuery::default()
    };
    let namespace = running.endpoints().namespace;
    let mut lines = logs::lines(running.client(), &namespace, query).await?;
    let failure = loop {
        tokio::select! {
            Some(line) = lines.next() => render::log_event(&line, context.format),
            event = events.recv() => match event {
                Ok(event) => progress.show(&event),
                // Too many at once; the newest are coming.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break None,
            },
            _ = stop.wanted() => break None,
            e = running.failed() => break Some(e),
        }
    };
    render::say("stopping; Ctrl-C again stops at once");
    tokio::select! {
        done = running.down(GRACE) => done?,
        // Ending this process ends every pod: the kernel sees to it.
        asked = stop.wanted() => return Ok(ExitCode::from(asked.exit_code())),
    }
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(e) => Err(e.into()),
    }
}

/// How a process was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Ctrl-C.
    Interrupt,
    /// `kill`.
    Terminate,
}

impl Asked {
    /// What shells report of a process that a signal ended: 128 and its number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Ctrl-C and `kill`.
pub struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    /// Listens from now on.
    pub fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind).map_err(|source| CliError::Io {
                what: "listen for signals".to_owned(),
                source,
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Resolves when the process is asked to stop.
    pub async fn wanted(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}
