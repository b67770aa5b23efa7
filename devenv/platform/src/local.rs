//! The local target: the embedded cluster on this project's loopback address, with
//! a database server of this machine beside it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use devenv_cluster::{Cluster, ClusterOptions, Isolation, ServicePort};
use devenv_model::Topology;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::Client;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{
    address::{self, Bound},
    cloudsql::{self, Engine, EngineError},
    containers::ContainerEngine,
    host::Host,
    target::{
        Adapter, BuiltImage, Database, Endpoints, Images, NodeState, Runtime, Serves, Target,
        TargetError, TargetKind, Volumes, owner_of,
    },
};

mod database;

/// What the local target is made from.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The project's folder.
    pub root: PathBuf,
    /// Where this system keeps its state: `.devenv` in it, or a folder below that.
    pub state_dir: PathBuf,
    /// What pods must not see of the project's folder.
    pub hidden: PathBuf,
    /// Its own loopback address.
    pub address: Ipv4Addr,
    /// Whether it also listens on 127.0.0.1, at the ports that people type by hand. A
    /// system beside another one leaves them to it.
    pub by_hand: bool,
    /// Its name.
    pub project: String,
    /// The default namespace.
    pub namespace: String,
    /// The wanted port on 127.0.0.1 (devenv.toml: `ingress.http_port`).
    pub http_port: u16,
    /// Names of the Cloud Run services.
    pub cloud_run: Vec<String>,
    /// The database that will be asked for, if any.
    pub database: Option<DatabaseOptions>,
    /// How pods are kept apart.
    pub isolation: Isolation,
    /// What becomes of data that a container engine keeps, when the system ends.
    pub volumes: Volumes,
    /// The engine whose containers pods are; `None`: they are processes.
    pub containers: Option<ContainerEngine>,
}

/// What has to be known of the database before the cluster starts.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The Service of the default namespace that leads to it.
    pub service: String,
    /// The port of that Service that leads there.
    pub port: u16,
    /// Addresses at which pods reach it as well.
    pub also_at: Vec<Ipv4Addr>,
}

impl DatabaseOptions {
    fn also_at(&self, namespace: &str) -> BTreeMap<SocketAddrV4, ServicePort> {
        let at = |ip: &Ipv4Addr| {
            let to = ServicePort {
                namespace: namespace.to_owned(),
                service: self.service.clone(),
                port: self.port,
            };
            (SocketAddrV4::new(*ip, MYSQL), to)
        };
        self.also_at.iter().map(at).collect()
    }
}

/// The local target, running.
pub struct LocalTarget {
    options: LocalOptions,
    cluster: Cluster,
    client: Client,
    address: Ipv4Addr,
    owner: (u32, u32),
    endpoints: Mutex<Endpoints>,
    notes: Vec<String>,
    /// Where the database will be reached, until it is there.
    database_port: Mutex<Option<Bound>>,
    /// The search for the engine, begun early: asking a server for its version takes
    /// as long as starting the cluster.
    engine: Mutex<Option<JoinHandle<Result<Engine, EngineError>>>>,
}

impl std::fmt::Debug for LocalTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTarget")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The ports of the project's own address: what production uses.
const HTTP: u16 = 80;
/// Where the Ingress listens on that address when port 80 is not to be had.
const HTTP_OTHER: u16 = 8080;
const KUBERNETES: u16 = 6443;
const MYSQL: u16 = 3306;
const CLOUD_RUN: u16 = 8081;
/// What helps when not one of many ports is free.
const HTTP_HINT: &str = ", or set another one in devenv.toml: [ingress] http_port";

impl LocalTarget {
    /// Starts the cluster: when this returns, the API answers and pods can run.
    pub async fn start(options: LocalOptions) -> Result<Self, TargetError> {
        let database = options.database.as_ref();
        let engine = database.map(|_| tokio::task::spawn_blocking(Engine::find));
        let also_at = database
            .map(|d| d.also_at(&options.namespace))
            .unwrap_or_default();
        let own = options.address;
        let owner = owner_of(&options.root)?;
        let by_hand = if options.by_hand {
            Ipv4Addr::LOCALHOST
        } else {
            own
        };
        let mut notes = Vec::new();
        let http = if options.by_hand {
            let wanted = at(by_hand, options.http_port);
            Some(address::bind_or_next(wanted, HTTP_HINT)?)
        } else {
            None
        };
        // A server of this machine that listens on every address (a MySQL, an nginx)
        // has this project's as well: that keeps nobody from working.
        let own_http = address::bind_or_from(at(own, HTTP), HTTP_OTHER, "")?;
        let mysql = if database.is_some() {
            Some(address::bind_or_next(at(own, MYSQL), "")?)
        } else {
            None
        };
        let mut cloud_run = BTreeMap::new();
        let mut knative: Vec<TcpListener> = Vec::new();
        notes.extend(http.as_ref().and_then(|b| b.note.clone()));
        if let Some(name) = options.cloud_run.first() {
            let bound = address::bind_or_next(at(by_hand, CLOUD_RUN), HTTP_HINT)?;
            notes.extend(bound.note);
            knative.push(bound.listener);
            cloud_run.insert(name.clone(), format!("http://{}", bound.address));
        }
        if let [first, others @ ..] = options.cloud_run.as_slice()
            && !others.is_empty()
        {
            notes.push(format!(
                "only the Cloud Run service {first} gets an address on this machine in this version; \
                 inside the cluster all are reached by name: {}",
                others.join(", ")
            ));
        }
        notes.extend(own_http.note);
        notes.extend(mysql.as_ref().and_then(|b| b.note.clone()));
        let also = match own_http.address.port() {
            HTTP => format!("http://{own}"),
            port => format!("http://{own}:{port}"),
        };
        let ingress = match &http {
            Some(http) => format!("http://{}", http.address),
            None => also.clone(),
        };
        let listeners = http.map(|b| b.listener);
        let listeners = listeners.into_iter().chain([own_http.listener]).collect();
        // The cluster binds for itself; this only finds where it can.
        let api = address::bind_or_next(at(own, KUBERNETES), "")?;
        notes.extend(api.note);
        let api_listen = api.address;
        drop(api.listener);
        let cluster = Cluster::start(ClusterOptions {
            project: options.project.clone(),
            state_dir: options.state_dir.clone(),
            project_dir: options.root.clone(),
            hidden: vec![options.hidden.clone()],
            isolation: options.isolation,
            containers: options.containers.as_ref().map(ContainerEngine::for_pods),
            address: own,
            api_listen,
            namespace: options.namespace.clone(),
            owner,
            ingress: listeners,
            ingress_addresses: vec![IpAddr::V4(own)],
            also_at,
            knative,
            env_for_knative: vec![("INGRESS_URL".to_owned(), ingress.clone())],
        })
        .await?;
        notes.extend(cluster.notes());
        let client = Client::new(cluster.api_service(), options.namespace.clone());
        let endpoints = Mutex::new(Endpoints {
            project: options.project.clone(),
            namespace: options.namespace.clone(),
            profile: None,
            watching: false,
            target: TargetKind::Local,
            context: None,
            ingress_controller: None,
            runtime: match options.containers {
                Some(_) => Runtime::Docker,
                None => Runtime::Process,
            },
            sandboxed: cluster.is_sandboxed(),
            ingress: Some(ingress),
            ingress_also: vec![also],
            address: Some(own.to_string()),
            cloud_run,
            kubernetes: format!("https://{}", cluster.api_addr()),
            kubeconfig: options.state_dir.join("kubeconfig"),
            database: None,
            images: Images::new(),
        });
        Ok(Self {
            options,
            cluster,
            client,
            address: own,
            owner,
            endpoints,
            notes,
            database_port: Mutex::new(mysql),
            engine: Mutex::new(engine),
        })
    }
}

#[async_trait]
impl Target for LocalTarget {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn serves(&self) -> Serves {
        Serves {
            knative: true,
            endpoint_slices: true,
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn containers(&self) -> Option<&ContainerEngine> {
        self.options.containers.as_ref()
    }

    fn adapter(&self) -> Adapter {
        Arc::new(|topology| topology)
    }

    async fn settled(&self) -> Result<(), TargetError> {
        Ok(())
    }

    async fn database(&self, topology: &Topology) -> Result<Option<Database>, TargetError> {
        let Some(config) = topology.cloud_sql() else {
            return Ok(None);
        };
        self.cloud_sql(topology, config).await.map(Some)
    }

    fn host(&self) -> Host {
        Host::Sandbox(self.cluster.host_programs())
    }

    async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream> {
        self.cluster.connect(address).await
    }

    async fn unrouted(&self, address: Ipv4Addr) {
        self.cluster.unrouted(address).await;
    }

    fn container_pid(&self, uid: &str, container: &str) -> Option<u32> {
        self.cluster.container_pid(uid, container)
    }

    async fn prepare(&self, _: &[BuiltImage]) -> Result<(), TargetError> {
        Ok(())
    }

    async fn deliver(&self, image: &BuiltImage) -> Result<Option<String>, TargetError> {
        self.cluster
            .images()
            .set_with_entrypoint(&image.name, image.run.clone(), image.entrypoint);
        Ok(None)
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn failed(&self) -> TargetError {
        self.cluster.failed().await.into()
    }

    fn nodes(&self) -> BoxStream<'static, NodeState> {
        stream::pending().boxed()
    }

    async fn shutdown(self: Box<Self>, grace: Duration) {
        self.cluster.shutdown(grace).await;
        let volumes = self.options.volumes == Volumes::Delete;
        let removed = cloudsql::remove_container(&self.options.state_dir, volumes).await;
        if let Err(error) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database's container was left"
            );
        }
        if let Some(engine) = &self.options.containers {
            engine.prune(&self.options.project).await;
        }
    }
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(ip, port))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> TargetError {
    TargetError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
