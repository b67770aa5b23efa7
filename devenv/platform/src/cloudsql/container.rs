//! Cloud SQL as a container of a Compose file, beside the cluster, as the file describes it
//! for `docker compose` too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::InspectContainerOptions;
use devenv_compose::{
    Engine, EngineError, LoadError, Options, Progress, Project, Service, Share, load,
};
use devenv_model::CloudSql;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::Credentials;
use super::server::PORT;
use crate::target::ImageFact;
use crate::trace;

/// In a system's state folder: which Compose project is its own.
const TRACE: &str = "compose.json";
/// How far from MySQL's own a port is looked for.
const LAST_PORT: u16 = PORT + 1000;
/// How many ports a run offers to the engine.
const RANGE: u16 = 200;
/// How long an engine that went away is left alone before it is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// The database's container.
#[derive(Debug, Clone)]
pub struct ContainerServer {
    engine: Engine,
    project: String,
    service: String,
    /// The network on which it is reached, beside its own; it is made a part of that.
    network: Option<String>,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum ContainerServerError {
    /// The engine, or something on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The Compose file.
    #[error(transparent)]
    File(#[from] LoadError),
    /// There is none.
    #[error(
        "{0}: the database is to run in a container, and no Compose file describes it; write compose/compose.yaml with a service of the same name as the Service, or name one: [cloudsql] compose = …; or let an engine of this machine stand in: engine = \"local\""
    )]
    NoFile(devenv_model::Origin),
    /// It does not have it.
    #[error("{} has no service {service:?}, as the Kubernetes Service of the database is called; it has {}", file.display(), known.join(", "))]
    NoService {
        /// The Compose file.
        file: PathBuf,
        /// The name that was looked for.
        service: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Somebody else's project has the name.
    #[error(
        "the Compose project {project:?} is run by another checkout, {other}; stop that one, or set COMPOSE_PROJECT_NAME to another name"
    )]
    Taken {
        /// The project.
        project: String,
        /// The other's folder.
        other: String,
    },
    /// What keeps track of it can't be written.
    #[error("can't write {}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ContainerServerError {
    /// Whether an engine is what is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_missing())
    }

    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.help(),
            _ => None,
        }
    }
}

/// What a system has on an engine, as its state folder remembers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trace {
    host: String,
    /// The database's service.
    service: String,
    project: String,
    working_dir: String,
    services: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
    /// Its container is removed, and its volume is what is left.
    #[serde(default)]
    down: bool,
}

impl ContainerServer {
    /// Brings the database's service of the Compose file up, and waits until it is healthy.
    /// `run` makes a project of its own of that name. `state_dir` remembers what was made;
    /// messages name files from `root`.
    ///
    /// # Errors
    /// [`ContainerServerError`].
    pub async fn up(
        engine: Engine,
        config: &CloudSql,
        account: &Credentials,
        run: Option<&str>,
        (root, state_dir): (&Path, &Path),
        told: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Self, ContainerServerError> {
        let file = file_of(config)?;
        let mut options = options(root, account);
        let port = "DB_PORT".to_owned();
        let fixed = options.environment.contains_key(&port);
        if !fixed {
            options.environment.insert(port.clone(), PORT.to_string());
        }
        if let Some(run) = run {
            let own = load(file, &options)?.project.name;
            options.project_name = Some(format!("{own}-{run}"));
        }
        let mut project = load(file, &options)?.project;
        let known = published(&engine, &project.name, &config.service).await?;
        let mut wanted = known.unwrap_or_else(|| free_port(PORT));
        loop {
            if !fixed {
                options.environment.insert(port.clone(), ports(wanted, run));
                project = load(file, &options)?.project;
            }
            service_of(&project, config, file)?;
            project.only(&[&config.service]);
            let share = Share::of(&project);
            if let Some(other) = engine.other_owner(&share).await? {
                return Err(ContainerServerError::Taken {
                    project: project.name,
                    other,
                });
            }
            Trace::new(&engine, &config.service, share).write(state_dir)?;
            match engine.up(&project, told).await {
                // Somebody took it in between.
                Err(EngineError::PortTaken { .. }) if !fixed && wanted < LAST_PORT => {
                    wanted = free_port(wanted + 1);
                }
                up => {
                    up?;
                    return Ok(Self {
                        engine,
                        project: project.name,
                        service: config.service.clone(),
                        network: None,
                    });
                }
            }
        }
    }

    /// That of the running system with this state folder; `None` where its database is
    /// no container.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn of(state_dir: &Path) -> Result<Option<Self>, EngineError> {
        let Some(trace) = Trace::read(state_dir) else {
            return Ok(None);
        };
        Ok(Some(Self {
            engine: Engine::connect(Some(&trace.host)).await?,
            project: trace.project,
            service: trace.service,
            network: None,
        }))
    }

    /// Reached on this network of the engine, which it joins whenever it is not on it.
    #[must_use]
    pub fn on_network(mut self, network: &str) -> Self {
        self.network = Some(network.to_owned());
        self
    }

    /// Stops it, as an outage does.
    ///
    /// # Errors
    /// When the engine refuses or does not answer.
    pub async fn stop(&self) -> Result<(), EngineError> {
        self.engine.stop(&self.project, &self.service).await
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When the engine refuses or does not answer.
    pub async fn start(&self) -> Result<(), EngineError> {
        self.engine.start(&self.project, &self.service).await
    }

    /// The image that it runs: its name as the Compose file has it, and what is known of it.
    /// `None` while there is no container.
    pub async fn image(&self) -> Option<(String, ImageFact)> {
        let containers = self.engine.ps(&self.project).await.ok()?;
        let container = containers.into_iter().find(|c| c.service == self.service)?;
        let none = None::<InspectContainerOptions>;
        let found = self.engine.docker().inspect_container(&container.id, none);
        let found = found.await.ok()?;
        let name = found.config?.image?;
        let unknown = || ImageFact::Unknown("the engine does not tell its id".to_owned());
        Some((name, found.image.map_or_else(unknown, ImageFact::Digest)))
    }

    /// The Compose project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The container's address on its network, and whether it works; `None` while there is
    /// none.
    async fn place(&self) -> Option<(Ipv4Addr, bool)> {
        let containers = self.engine.ps(&self.project).await.ok()?;
        let container = containers.into_iter().find(|c| c.service == self.service)?;
        let docker = self.engine.docker();
        let look = async || {
            let none = None::<InspectContainerOptions>;
            let found = docker.inspect_container(&container.id, none).await.ok()?;
            let networks = found.network_settings?.networks?;
            let wanted = |name: &str| self.network.as_deref().is_none_or(|wanted| wanted == name);
            let mut addresses = networks
                .into_iter()
                .filter(|(name, _)| wanted(name))
                .filter_map(|(_, network)| network.ip_address);
            addresses.find_map(|address| address.parse().ok())
        };
        let mut address = look().await;
        if let (None, Some(network)) = (address, &self.network) {
            let request = NetworkConnectRequest {
                container: container.id.clone(),
                ..NetworkConnectRequest::default()
            };
            if let Err(error) = docker.connect_network(network, request).await {
                // It may have been joined, and have ended, meanwhile.
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    network,
                    "the database's container did not join the network"
                );
            }
            address = look().await;
        }
        let address = address?;
        let works = match container.health.as_deref() {
            Some(health) => health == "healthy",
            None => container.state == "running",
        };
        Some((address, works && container.state == "running"))
    }

    /// Whether it works now.
    pub async fn works(&self) -> bool {
        matches!(self.place().await, Some((_, true)))
    }

    /// The container's place now, and whenever it may have changed; also while the engine
    /// comes and goes.
    pub fn places(&self) -> impl Stream<Item = Option<(Ipv4Addr, bool)>> + Send + use<> {
        let server = self.clone();
        let unwatched = None::<BoxStream<'static, Result<(), EngineError>>>;
        stream::unfold((server, unwatched), async |(server, changes)| {
            let mut changes = match changes {
                Some(changes) => changes,
                None => match server.engine.changes(&server.project).await {
                    Ok(changes) => {
                        // Looked at after the watch began: nothing is missed.
                        let place = server.place().await;
                        return Some((place, (server, Some(changes.boxed()))));
                    }
                    Err(_) => {
                        tokio::time::sleep(RETRY).await;
                        return Some((None, (server, None)));
                    }
                },
            };
            match changes.next().await {
                Some(Ok(())) => {
                    let place = server.place().await;
                    Some((place, (server, Some(changes))))
                }
                Some(Err(_)) | None => Some((None, (server, None))),
            }
        })
    }
}

/// The service of a Compose file that is the database beside containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeDatabase {
    /// The service's name.
    pub service: String,
    /// Absolute path of the file.
    pub file: PathBuf,
    /// The image that it runs, with its variables filled in.
    pub image: String,
}

impl ComposeDatabase {
    /// What the Compose file says now; messages name files from `root`.
    ///
    /// # Errors
    /// When there is no file, when it can't be read, or when it has no such service.
    pub fn read(config: &CloudSql, root: &Path) -> Result<Self, ContainerServerError> {
        let file = file_of(config)?;
        // An image is not called after an account: any will do.
        let anybody = Credentials {
            user: "user".to_owned(),
            password: "password".to_owned(),
            database: "database".to_owned(),
        };
        let mut options = options(root, &anybody);
        let port = options.environment.entry("DB_PORT".to_owned());
        port.or_insert_with(|| PORT.to_string());
        let project = load(file, &options)?.project;
        let service = service_of(&project, config, file)?;
        Ok(Self {
            service: service.name.clone(),
            file: file.clone(),
            image: service.image.clone(),
        })
    }
}

/// The database's service as the Compose file describes it for this account.
///
/// # Errors
/// When there is no file, when it can't be read, or when it has no such service.
pub(crate) fn described(
    config: &CloudSql,
    account: &Credentials,
    root: &Path,
) -> Result<Service, ContainerServerError> {
    let file = file_of(config)?;
    let mut options = options(root, account);
    let port = options.environment.entry("DB_PORT".to_owned());
    port.or_insert_with(|| PORT.to_string());
    let project = load(file, &options)?.project;
    service_of(&project, config, file).cloned()
}

fn file_of(config: &CloudSql) -> Result<&PathBuf, ContainerServerError> {
    let file = config.compose.as_ref();
    file.ok_or_else(|| ContainerServerError::NoFile(config.origin.clone()))
}

/// What the Compose file is read with.
fn options(root: &Path, account: &Credentials) -> Options {
    let mut environment = environment();
    let given = [
        ("DB_USER", &account.user),
        ("DB_PASSWORD", &account.password),
        ("DB_NAME", &account.database),
    ];
    for (name, value) in given {
        environment.insert(name.to_owned(), value.clone());
    }
    Options {
        environment,
        shown_from: Some(root.to_owned()),
        ..Options::default()
    }
}

fn service_of<'p>(
    project: &'p Project,
    config: &CloudSql,
    file: &Path,
) -> Result<&'p Service, ContainerServerError> {
    let found = project.services.get(&config.service);
    found.ok_or_else(|| ContainerServerError::NoService {
        file: file.to_owned(),
        service: config.service.clone(),
        known: project.services.keys().cloned().collect(),
    })
}

/// Whether the system with this state folder has or had a database in a container.
pub fn has_container(state_dir: &Path) -> bool {
    Trace::read(state_dir).is_some()
}

/// Removes what the system with this state folder has on an engine, if it has anything;
/// nobody may run it. With `volumes` the data, too.
///
/// # Errors
/// When the engine refuses or does not answer.
pub async fn remove_container(state_dir: &Path, volumes: bool) -> Result<(), EngineError> {
    let Some(trace) = Trace::read(state_dir) else {
        return Ok(());
    };
    if trace.down && !volumes {
        return Ok(());
    }
    let engine = Engine::connect(Some(&trace.host)).await?;
    engine.take_down(&trace.share(), volumes, &|_| ()).await?;
    let noted = match volumes {
        true => fs::remove_file(state_dir.join(TRACE)).map_err(|e| e.to_string()),
        false => {
            let trace = Trace {
                down: true,
                ..trace
            };
            trace.write(state_dir).map_err(|e| e.to_string())
        }
    };
    if let Err(error) = noted {
        // The next time there is nothing to remove, then.
        tracing::debug!(error, "that the database's container is gone is not noted");
    }
    Ok(())
}

impl Trace {
    fn new(engine: &Engine, service: &str, share: Share) -> Self {
        Self {
            host: engine.host().to_owned(),
            service: service.to_owned(),
            project: share.project,
            working_dir: share.working_dir,
            services: share.services,
            networks: share.networks,
            volumes: share.volumes,
            down: false,
        }
    }

    fn share(&self) -> Share {
        Share {
            project: self.project.clone(),
            working_dir: self.working_dir.clone(),
            services: self.services.clone(),
            networks: self.networks.clone(),
            volumes: self.volumes.clone(),
        }
    }

    fn read(state_dir: &Path) -> Option<Self> {
        trace::read(&state_dir.join(TRACE))
    }

    fn write(&self, state_dir: &Path) -> Result<(), ContainerServerError> {
        let path = state_dir.join(TRACE);
        let written = trace::write(&path, self);
        written.map_err(|source| ContainerServerError::Trace { path, source })
    }
}

/// This process's variables, as far as they are text.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The port of this machine that leads to a container of before.
async fn published(
    engine: &Engine,
    project: &str,
    service: &str,
) -> Result<Option<u16>, EngineError> {
    let containers = engine.ps(project).await?;
    let mine = containers.into_iter().find(|c| c.service == service);
    let target = format!("{PORT}/tcp");
    let ports = mine.into_iter().flat_map(|c| c.ports);
    Ok(ports
        .into_iter()
        .find(|p| p.target == target)
        .map(|p| p.host_port))
}

/// This port, or the next one up that is free on loopback.
fn free_port(from: u16) -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (from..=LAST_PORT).find(is_free).unwrap_or(from)
}

/// The port that the database is published at. A run's may be any: the engine chooses one
/// that is free each time it starts the container, which devenv reaches by its address.
fn ports(wanted: u16, run: Option<&str>) -> String {
    match run {
        Some(_) => format!("{wanted}-{}", wanted.saturating_add(RANGE)),
        None => wanted.to_string(),
    }
}
