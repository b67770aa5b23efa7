//! `up`: from a folder to a running system, and down again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use devenv_model::{CloudSqlEngine, ImageSource, LoadOptions, Object, Topology};
use devenv_platform::{
    Database, Endpoints, IngressController, Isolation, Runtime, Target, TargetError, TargetKind,
    cloudsql::{MigrateError, migrate},
    doctor::Needs,
    owner_of,
};

use crate::{
    apply::{Applier, ApplyError},
    build::{BuildError, Builder},
    event::{Bus, Event, Report, Step},
    live::{Live, is_workload, used_sources},
    nodes,
    observe::Observer,
    prints::Hint,
    reload::{self, Journal, Reloader},
    start,
    state::{ProjectLock, StateDir, StateError},
    wait, warnings,
    workload::NotReady,
};

/// Why `up` failed. Whatever it had started is gone again.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The state folder, or another supervisor.
    #[error(transparent)]
    State(#[from] StateError),
    /// A build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// An object.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Workloads that did not get ready in time.
    #[error("not ready after {} s:\n{}", waited.as_secs(), .late.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// Each of them and what it says.
        late: Vec<NotReady>,
    },
}

impl UpError {
    /// The error for another process or a terminal.
    pub fn report(&self) -> Report {
        let mut report = self.plain_report();
        if let Self::Build(e) = self {
            report.output = e.output().map(str::to_owned);
        }
        report
    }

    fn plain_report(&self) -> Report {
        let (help, code) = match self {
            Self::Target(e) if e.is_missing() => {
                (e.help().or_else(|| Some("devenv doctor".to_owned())), 3)
            }
            Self::Target(e) if e.help().is_some() => (e.help(), 1),
            Self::Target(TargetError::Database { .. }) => (
                Some(
                    "devenv down -v throws the database's data away, for a fresh start".to_owned(),
                ),
                1,
            ),
            Self::NotReady { .. } => (
                Some(
                    "fix the service, then run `devenv up` again; `--timeout 5m` waits longer"
                        .to_owned(),
                ),
                1,
            ),
            Self::State(StateError::Running(_)) => (Some("devenv status".to_owned()), 1),
            Self::Migrate(MigrateError::Statement { half_way: true, .. }) => (
                Some(
                    "the statements before it are applied, and MySQL can't undo them; mend the \
                     file, then start afresh: devenv down -v && devenv up"
                        .to_owned(),
                ),
                1,
            ),
            Self::Apply(e) => (e.help(), 1),
            _ => (None, 1),
        };
        Report::of(self, help, code)
    }
}

/// What `up` is asked for.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The project's folder.
    pub root: PathBuf,
    /// A system of its own beside the project's, of this name: with a state folder, an
    /// address and a database that go when it ends.
    pub run: Option<String>,
    /// How its files are read: now, and after each change.
    pub load: LoadOptions,
    /// How long workloads may take to get ready.
    pub timeout: Duration,
    /// Whether saved files are reloaded.
    pub watch: bool,
    /// How pods are kept apart from the machine and from each other.
    pub isolation: Isolation,
    /// Where it runs.
    pub target: TargetKind,
    /// The context of the user's kubeconfig, with [`TargetKind::Kube`].
    pub context: Option<String>,
    /// What pods of the local target are; those of others are containers.
    pub runtime: Runtime,
    /// Who serves the Ingresses of a kind cluster.
    pub ingress: IngressController,
}

/// What the machine must have for this topology, beside an engine for containers.
pub fn needs(topology: &Topology, runtime: Runtime) -> Needs {
    let mut programs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // What is in containers is not this machine's.
    let here = topology.images().values();
    for image in here.filter(|_| runtime == Runtime::Process) {
        let mut commands = vec![image.install.as_ref()];
        // What an active virtual environment has is not the machine's.
        if image.python.is_none() {
            commands.extend([image.build.as_ref(), Some(&image.run)]);
        }
        let firsts = commands.into_iter().flatten();
        let firsts = firsts.filter_map(|c| c.argv().into_iter().next());
        for program in firsts.chain(image.python.as_ref().map(|_| "python3".to_owned())) {
            let user = format!("[image.{}]", image.name);
            programs.entry(program).or_default().insert(user);
        }
    }
    Needs {
        database: topology.cloud_sql().is_some_and(|sql| {
            sql.engine_beside(runtime == Runtime::Docker) == CloudSqlEngine::Local
        }),
        programs,
    }
}

/// A running system. Dropping it ends every pod at once; [`Running::down`] ends them
/// in order.
#[derive(Debug)]
pub struct Running {
    live: Arc<Live>,
    reloader: Option<Reloader>,
    nodes: nodes::Follower,
    state: StateDir,
    bus: Bus,
    /// The last to go: until then nobody else has the project.
    lock: ProjectLock,
}

/// Brings the system up; returns when every workload is ready.
///
/// # Errors
/// What failed first. Whatever was started by then is gone again.
pub async fn up(options: &UpOptions, topology: Topology, bus: &Bus) -> Result<Running, UpError> {
    let began = Instant::now();
    let mut state = StateDir::of(&options.root);
    if let Some(run) = &options.run {
        state = state.of_run(run);
    }
    let lock = state.lock()?;
    // From before the first build, so that no save is lost.
    let watcher = options
        .watch
        .then(|| reload::watch(&options.root, &topology));
    let watcher = match watcher.transpose() {
        Ok(watcher) => watcher,
        Err(e) => {
            bus.emit(Event::Warning {
                message: reload::watch_warning(&e),
            });
            None
        }
    };
    let target = timed(bus, Step::Cluster, async {
        let target = start::target(options, &topology, &state).await?;
        let detail = target.endpoints().kubernetes;
        Ok::<_, UpError>((target, detail))
    })
    .await?;
    let adapt = target.adapter();
    let topology = Arc::new(adapt(topology));
    for note in target.notes() {
        bus.emit(Event::Warning { message: note });
    }
    let live = live(options, &topology, &state, target, bus).await?;
    let live = Arc::new(live);
    let mut running = Running {
        nodes: nodes::Follower::start(&live),
        live,
        reloader: None,
        state,
        bus: bus.clone(),
        lock,
    };
    match running.bring_up(options, &topology).await {
        Ok(()) => {
            let mut endpoints = running.endpoints();
            endpoints.profile.clone_from(&options.load.profile);
            endpoints.watching = watcher.is_some();
            endpoints.images.extend(running.live.images());
            if let Some(watcher) = watcher {
                let (root, load) = (options.root.clone(), options.load.clone());
                let load = Arc::new(move || {
                    let mut loaded = Topology::load(&root, &load);
                    loaded.topology = loaded.topology.map(|topology| adapt(topology));
                    loaded
                });
                running.reloader = Some(Reloader::start(running.live.clone(), watcher, load));
            }
            running.state.publish(&endpoints)?;
            bus.emit(Event::Ready {
                ms: millis(began),
                endpoints: Box::new(endpoints),
            });
            Ok(running)
        }
        Err(e) => {
            // What failed first is what counts.
            if let Err(second) = running.down(Duration::from_secs(5)).await {
                tracing::warn!(error = %second, "going down after a failure");
            }
            Err(e)
        }
    }
}

async fn live(
    options: &UpOptions,
    topology: &Arc<Topology>,
    state: &StateDir,
    target: Box<dyn Target>,
    bus: &Bus,
) -> Result<Live, UpError> {
    let owner = owner_of(&options.root)?;
    let client = target.client();
    let applier = Applier::new(
        client.clone(),
        &topology.project().namespace,
        target.scope(),
    )
    .await?;
    let builder = Builder::new(&options.root, state.base(), target.host(), owner, bus)
        .with_containers(target.containers(), &topology.project().name);
    let observer = Observer::start(&client, target.serves(), &target.scope());
    let journal = Journal::new(state.path(), bus);
    let parts = (applier, builder, observer, journal);
    let folders = (options.root.as_path(), state);
    Ok(Live::new(folders, target, parts, topology.clone(), bus))
}

impl Running {
    /// A client for the system's Kubernetes API.
    pub fn client(&self) -> kube::Client {
        self.live.target.client()
    }

    /// Where it is.
    pub fn endpoints(&self) -> Endpoints {
        self.live.target.endpoints()
    }

    /// Resolves when the system can't go on by itself, with the reason.
    pub async fn failed(&self) -> UpError {
        tokio::select! {
            e = self.live.target.failed() => e.into(),
            e = self.lock.lost() => e.into(),
        }
    }

    /// Ends the workloads, then the database, within `grace`; the data stays.
    pub async fn down(self, grace: Duration) -> Result<(), StateError> {
        self.bus.emit(Event::Stopping);
        let withdrawn = self.state.withdraw();
        if let Some(reloader) = self.reloader {
            reloader.stop().await;
        }
        self.nodes.stop().await;
        // Also where its files can't be removed: the pods end in order.
        match Arc::try_unwrap(self.live) {
            Ok(live) => live.into_target().shutdown(grace).await,
            // Whoever it is, all ends with this process.
            Err(_) => tracing::warn!("something still uses the system; its pods are killed"),
        }
        withdrawn.and_then(|()| self.state.clear_run())
    }

    async fn bring_up(&self, options: &UpOptions, topology: &Arc<Topology>) -> Result<(), UpError> {
        let live = &self.live;
        let bus = &self.bus;
        let others = topology.objects().iter().filter(|o| !is_workload(o));
        let (namespaces, others): (Vec<&Object>, Vec<&Object>) =
            others.partition(|o| o.kind() == "Namespace");
        // Until the target's own controller is there its webhook can't be asked about them.
        let asked = live.target.asks_about_ingresses();
        let (ingresses, others): (Vec<&Object>, Vec<&Object>) = others
            .into_iter()
            .partition(|o| asked && o.kind() == "Ingress");
        live.apply(&namespaces).await?;
        let applied = timed(bus, Step::Apply, async {
            live.apply(&others).await?;
            let gone = live.applier.prune(topology.objects()).await?;
            let detail = match gone.len() {
                0 => format!("{} objects", topology.objects().len()),
                _ => format!(
                    "{} objects; removed {}",
                    topology.objects().len(),
                    gone.join(", ")
                ),
            };
            Ok::<_, UpError>(((), detail))
        });
        let settled = async {
            live.target.settled().await?;
            live.apply(&ingresses).await?;
            Ok::<_, UpError>(())
        };
        let sources = used_sources(topology);
        let built = async {
            let digests = self.build(&sources).await?;
            live.prepare(&sources).await?;
            Ok::<_, UpError>(digests)
        };
        let database = self.database(&options.root, topology);
        let roll = async |digests| self.roll(options, topology, &sources, digests).await;
        // The database starts and images are built meanwhile: none needs another.
        let ready = if asked {
            // Who serves the Ingresses takes them up while workloads get ready.
            let ((), digests, (), ()) = tokio::try_join!(applied, built, database, settled)?;
            roll(digests).await
        } else {
            // Who serves them knows them when it is ready.
            let started = async {
                let ((), digests, ()) = tokio::try_join!(applied, built, database)?;
                Ok::<_, UpError>(roll(digests).await)
            };
            let (ready, ()) = tokio::try_join!(started, settled)?;
            ready
        };
        self.warn(topology).await;
        ready
    }

    /// Brings the workloads up, and waits until they are ready.
    async fn roll(
        &self,
        options: &UpOptions,
        topology: &Topology,
        sources: &[&ImageSource],
        digests: BTreeMap<String, String>,
    ) -> Result<(), UpError> {
        let live = &self.live;
        let workloads = topology.objects().iter().filter(|o| is_workload(o));
        let workloads: Vec<&Object> = workloads.collect();
        timed(&self.bus, Step::Workloads, async {
            // Workloads of an earlier run are in the store from the start: what makes
            // them wait for the schema is that their images come only now.
            live.deliver(sources, &digests).await?;
            live.apply(&workloads).await?;
            let ready = wait::until_ready(
                &live.client,
                &live.observer,
                &topology.project().namespace,
                topology.objects(),
                options.timeout,
                &self.bus,
            );
            match ready.await {
                Ok(()) => Ok(((), format!("{} ready", workloads.len()))),
                Err(late) => Err(UpError::NotReady {
                    waited: options.timeout,
                    late,
                }),
            }
        })
        .await
    }

    /// Tells what the cluster warns of, such as an annotation that the ingress does
    /// not know.
    async fn warn(&self, topology: &Topology) {
        match warnings::since(&self.client(), &self.live.target.scope(), self.lock.since()).await {
            Ok(all) => {
                for warning in all {
                    self.bus.emit(Event::Warning {
                        message: warning.text(Some(topology)),
                    });
                }
            }
            Err(e) => tracing::debug!(error = %e, "the cluster's warnings can't be read"),
        }
    }

    async fn build(&self, sources: &[&ImageSource]) -> Result<BTreeMap<String, String>, UpError> {
        timed(&self.bus, Step::Build, async {
            let builder = &self.live.builder;
            let digests = builder.look(sources, &Hint::All).await?;
            let names = sources.iter().map(|s| s.name.as_str()).collect();
            let ran = builder.build(sources, &names, &names).await?;
            // Others may run what this system does not.
            if self.state.run_id().is_none() && self.state.runs().is_empty() {
                builder.prune(sources);
            }
            let detail = if ran.is_empty() {
                "nothing changed".to_owned()
            } else {
                ran.join(", ")
            };
            Ok((digests, detail))
        })
        .await
    }

    async fn database(&self, root: &Path, topology: &Topology) -> Result<(), UpError> {
        let Some(config) = topology.cloud_sql() else {
            return Ok(());
        };
        let database = timed(&self.bus, Step::Database, async {
            let database = self.live.target.database(topology).await?;
            let detail = database.as_ref().map(describe).unwrap_or_default();
            Ok::<_, UpError>((database, detail))
        })
        .await?;
        if let Some(note) = database.as_ref().and_then(|d| d.note.clone()) {
            self.bus.emit(Event::Warning { message: note });
        }
        self.live.set_database(database);
        let (Some(database), Some(folder)) = (self.live.database(), &config.migrations) else {
            return Ok(());
        };
        timed(&self.bus, Step::Migrate, async {
            // Messages name files as people write them, from the project's folder.
            let folder = folder.strip_prefix(root).unwrap_or(folder);
            let done = migrate::run(&database.connect, root, folder).await?;
            let detail = match done.applied.len() {
                0 => format!("{} applied already", done.before),
                n => format!("{n} applied"),
            };
            Ok(((), detail))
        })
        .await
    }
}

fn describe(d: &Database) -> String {
    let f = &d.facts;
    let stands_in = if f.stands_in {
        format!(", standing in for {}", f.asked)
    } else {
        String::new()
    };
    format!(
        "{} {}{stands_in} at {}:{}",
        f.engine, f.version, f.host, f.port
    )
}

async fn timed<T, E>(
    bus: &Bus,
    step: Step,
    work: impl Future<Output = Result<(T, String), E>>,
) -> Result<T, E> {
    let start = Instant::now();
    bus.emit(Event::StepStarted { step });
    let (value, detail) = work.await?;
    bus.emit(Event::StepDone {
        step,
        ms: millis(start),
        detail,
    });
    Ok(value)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
