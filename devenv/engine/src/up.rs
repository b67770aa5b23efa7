//! `up`: from a folder to a running system, and down again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use devenv_model::{ImageSource, Object, Topology};
use devenv_platform::{
    BuiltImage, Database, DatabaseOptions, Endpoints, LocalOptions, LocalTarget, Target,
    TargetError, address,
    cloudsql::{MigrateError, migrate},
    doctor::Needs,
};

use crate::{
    apply::{Applier, ApplyError},
    build::{self, BuildError},
    event::{Bus, Event, Report, Step},
    fingerprint::Ledger,
    run_spec::run_spec,
    state::{ProjectLock, StateDir, StateError},
    wait::{self, NotReady},
    warnings,
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
        if let Self::Build(BuildError::Failed { output, .. }) = self
            && !output.is_empty()
        {
            report.output = Some(output.clone());
        }
        report
    }

    fn plain_report(&self) -> Report {
        let (help, code) = match self {
            Self::Target(e) if e.is_missing() => (Some("devenv doctor".to_owned()), 3),
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
    /// How long workloads may take to get ready.
    pub timeout: Duration,
}

/// What the machine must have for this topology.
pub fn needs(topology: &Topology) -> Needs {
    let mut programs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for image in topology.images().values() {
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
        database: topology.cloud_sql().is_some(),
        programs,
    }
}

/// A running system. Dropping it ends every pod at once; [`Running::down`] ends them
/// in order.
#[derive(Debug)]
pub struct Running {
    target: LocalTarget,
    state: StateDir,
    bus: Bus,
    /// The last to go: until then nobody else has the project.
    lock: ProjectLock,
}

/// Brings the system up; returns when every workload is ready.
pub async fn up(options: &UpOptions, topology: &Topology, bus: &Bus) -> Result<Running, UpError> {
    let start = Instant::now();
    let state = StateDir::of(&options.root);
    let lock = state.lock()?;
    let target = timed(bus, Step::Cluster, async {
        let target = LocalTarget::start(local_options(options, topology, &state)).await?;
        let detail = target.endpoints().kubernetes;
        Ok::<_, UpError>((target, detail))
    })
    .await?;
    for note in target.notes() {
        bus.emit(Event::Warning {
            message: note.clone(),
        });
    }
    let running = Running {
        target,
        state,
        bus: bus.clone(),
        lock,
    };
    match running.bring_up(options, topology).await {
        Ok(()) => {
            let endpoints = running.target.endpoints();
            running.state.publish(&endpoints)?;
            bus.emit(Event::Ready {
                ms: millis(start),
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

impl Running {
    /// A client for the system's Kubernetes API.
    pub fn client(&self) -> kube::Client {
        self.target.client()
    }

    /// Where it is.
    pub fn endpoints(&self) -> Endpoints {
        self.target.endpoints()
    }

    /// Resolves when the system can't go on by itself, with the reason.
    pub async fn failed(&self) -> UpError {
        tokio::select! {
            e = self.target.failed() => e.into(),
            e = self.lock.lost() => e.into(),
        }
    }

    /// Ends the workloads, then the database, within `grace`; the data stays.
    pub async fn down(self, grace: Duration) -> Result<(), StateError> {
        self.bus.emit(Event::Stopping);
        let withdrawn = self.state.withdraw();
        // Also where its files can't be removed: the pods end in order.
        self.target.shutdown(grace).await;
        withdrawn.and_then(|()| self.state.clear_run())
    }

    async fn bring_up(&self, options: &UpOptions, topology: &Topology) -> Result<(), UpError> {
        let bus = &self.bus;
        let applier = Applier::new(self.target.client(), &topology.project().namespace).await?;
        let (workloads, others): (Vec<&Object>, Vec<&Object>) =
            topology.objects().iter().partition(|o| is_workload(o));
        let (namespaces, others): (Vec<&Object>, Vec<&Object>) =
            others.into_iter().partition(|o| o.kind() == "Namespace");
        applier.apply(&namespaces).await?;
        let applied = timed(bus, Step::Apply, async {
            applier.apply(&others).await?;
            let gone = applier.prune(topology.objects()).await?;
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
        // The database starts and images are built meanwhile: none needs another.
        let ((), images, ()) = tokio::try_join!(
            applied,
            self.build(&options.root, topology),
            self.database(&options.root, topology)
        )?;
        let ready = timed(bus, Step::Workloads, async {
            // Workloads of an earlier run are in the store from the start: what makes
            // them wait for the schema is that their images come only now.
            for image in &images {
                self.target.deliver(image).await?;
            }
            applier.apply(&workloads).await?;
            let ready = wait::until_ready(
                self.target.client(),
                &topology.project().namespace,
                topology.objects(),
                options.timeout,
                bus,
            );
            match ready.await {
                Ok(()) => Ok(((), format!("{} ready", workloads.len()))),
                Err(late) => Err(UpError::NotReady {
                    waited: options.timeout,
                    late,
                }),
            }
        })
        .await;
        self.warn(topology).await;
        ready
    }

    /// Tells what the cluster warns of, such as an annotation that the ingress does
    /// not know.
    async fn warn(&self, topology: &Topology) {
        match warnings::since(self.target.client(), self.lock.since()).await {
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

    async fn build(&self, root: &Path, topology: &Topology) -> Result<Vec<BuiltImage>, UpError> {
        // By the names that manifests use, which may carry a registry and a tag.
        let used: Vec<(&str, &ImageSource)> = topology
            .workload_images()
            .into_keys()
            .filter_map(|image| Some((image, topology.image_source(image)?)))
            .collect();
        let mut sources: Vec<&ImageSource> = used.iter().map(|(_, source)| *source).collect();
        sources.sort_by_key(|s| &s.name);
        sources.dedup_by_key(|s| &s.name);
        let owner = address::owner_of(root).map_err(|source| TargetError::Io {
            what: "read the owner of",
            path: root.to_owned(),
            source,
        })?;
        timed(&self.bus, Step::Build, async {
            let ledger = Ledger::open(self.state.path());
            let ran = build::build_all(root, &sources, owner, &ledger, &self.bus).await?;
            let detail = if ran.is_empty() {
                "nothing changed".to_owned()
            } else {
                ran.join(", ")
            };
            Ok::<_, UpError>(((), detail))
        })
        .await?;
        let built = |(name, source): (&str, &ImageSource)| BuiltImage {
            name: name.to_owned(),
            run: run_spec(root, self.state.path(), source),
        };
        Ok(used.into_iter().map(built).collect())
    }

    async fn database(&self, root: &Path, topology: &Topology) -> Result<(), UpError> {
        let Some(config) = topology.cloud_sql() else {
            return Ok(());
        };
        let database = timed(&self.bus, Step::Database, async {
            let database = self.target.database(topology).await?;
            let detail = database.as_ref().map(describe).unwrap_or_default();
            Ok::<_, UpError>((database, detail))
        })
        .await?;
        let (Some(database), Some(folder)) = (database, &config.migrations) else {
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

fn local_options(options: &UpOptions, topology: &Topology, state: &StateDir) -> LocalOptions {
    LocalOptions {
        root: options.root.clone(),
        state_dir: state.path().to_owned(),
        project: topology.project().name.clone(),
        namespace: topology.project().namespace.clone(),
        http_port: topology.ingress().http_port,
        cloud_run: topology.cloud_run().map(|o| o.name().to_owned()).collect(),
        database: topology.cloud_sql().map(|sql| DatabaseOptions {
            service: sql.service.clone(),
            also_at: sql.also_at.clone(),
        }),
    }
}

/// What runs pods waits for the database and the builds; everything else does not.
fn is_workload(o: &Object) -> bool {
    !o.images().is_empty()
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
