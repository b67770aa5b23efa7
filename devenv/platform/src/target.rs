//! Where the system runs: a Kubernetes API and the few things that differ around it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use devenv_cluster::RunSpec;
use devenv_model::Topology;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlConnectOptions;
use tokio::net::TcpStream;

use crate::{
    address::{self, AddressError},
    cloudsql::{ContainerServerError, EngineError, template::TemplateError},
    containers::{ContainerEngine, Layer},
    host::Host,
    kind::{IngressController, KindError},
    kubernetes::Scope,
    shared::KubeError,
};

/// What pods of the local target are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Processes of this machine, built and run from source.
    #[default]
    Process,
    /// Containers of a Docker Engine, from images that their Dockerfiles make.
    Docker,
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Docker => "docker",
        })
    }
}

/// Where a system runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// devenv's own cluster, on this machine.
    #[default]
    Local,
    /// Kubernetes in Docker.
    Kind,
    /// A cluster that others use as well, in a namespace of one's own.
    Kube,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Kind => "kind",
            Self::Kube => "kube",
        })
    }
}

/// What differs between the APIs of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// Cloud Run services (`serving.knative.dev/v1`).
    pub knative: bool,
    /// `discovery.k8s.io/v1`; else Endpoints are what tells where requests go.
    pub endpoint_slices: bool,
}

/// Makes a topology one for a target.
pub type Adapter = Arc<dyn Fn(Topology) -> Topology + Send + Sync>;

/// An image that was built from source, as a target takes it.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The name that manifests use.
    pub name: String,
    /// How many leading words of its program are the ENTRYPOINT, which a container's
    /// `args` come after.
    pub entrypoint: usize,
    /// How the process runtime starts it.
    pub run: RunSpec,
    /// Where the engine has no such image: what is laid over one that it has.
    pub layer: Option<Arc<Layer>>,
}

/// What happens to data when a target is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// The database stays for the next `up`.
    Keep,
    /// Everything goes (`down --volumes`).
    Delete,
}

/// The database that a target offers.
#[derive(Debug, Clone)]
pub struct Database {
    /// What is said of it in `status` and in every report.
    pub facts: DatabaseFacts,
    /// How this process reaches it, for migrations.
    pub connect: MySqlConnectOptions,
    /// What people should know, such as data that another engine left.
    pub note: Option<String>,
}

/// What `status` says of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// `MySQL` or `MariaDB`.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// What devenv.toml says that production runs.
    pub asked: String,
    /// Whether another engine stands in for the one asked for.
    pub stands_in: bool,
    /// Its address on this machine.
    pub host: String,
    /// Its port on this machine.
    pub port: u16,
    /// The application's user.
    pub user: String,
    /// The application's database (schema).
    pub database: String,
    /// The Secret of the project's namespace that holds the account.
    #[serde(default)]
    pub secret: String,
    /// The Compose project whose container it is; `None`: an engine of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose_project: Option<String>,
    /// The Deployment of the namespace that runs it; `None`: it is beside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

/// What is known of an image that containers run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFact {
    /// What the engine knows it by, the digest of its configuration: `sha256:…`.
    Digest(String),
    /// Its digest can't be told, and why not, for people.
    Unknown(String),
}

/// Images by the names that manifests and the Compose file use.
pub type Images = BTreeMap<String, ImageFact>;

/// Where people and tests find the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The project's name.
    #[serde(default)]
    pub project: String,
    /// The default namespace.
    #[serde(default)]
    pub namespace: String,
    /// The profile of devenv.toml, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whether saved files are reloaded.
    #[serde(default)]
    pub watching: bool,
    /// Where it runs.
    #[serde(default)]
    pub target: TargetKind,
    /// The context of the user's kubeconfig, on a cluster that others use as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What pods are.
    #[serde(default)]
    pub runtime: Runtime,
    /// Who serves the Ingresses, where that could be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_controller: Option<IngressController>,
    /// Whether pods have a network of their own, with Services between them.
    #[serde(default)]
    pub sandboxed: bool,
    /// The Ingress, as people type it.
    pub ingress: Option<String>,
    /// Every other address on which the Ingress answers.
    pub ingress_also: Vec<String>,
    /// The address that stands in the Ingress objects' status.
    pub address: Option<String>,
    /// Cloud Run services by name.
    pub cloud_run: BTreeMap<String, String>,
    /// The Kubernetes API.
    pub kubernetes: String,
    /// The kubeconfig that leads to it.
    pub kubeconfig: PathBuf,
    /// The database, without its password.
    pub database: Option<DatabaseFacts>,
    /// The images that workloads run, and the database's where that is a container; none
    /// where pods are processes.
    #[serde(default, skip_serializing_if = "Images::is_empty")]
    pub images: Images,
}

/// That a node of the target's cluster stopped to be ready, or is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// Why it is not ready; `None`: it is.
    pub trouble: Option<NodeTrouble>,
}

/// Why a node is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTrouble {
    /// What its Ready condition says.
    pub reason: String,
    /// What to do.
    pub help: String,
}

impl Endpoints {
    /// How much of the cluster is the system's.
    pub fn scope(&self) -> Scope {
        match self.target {
            TargetKind::Local | TargetKind::Kind => Scope::Cluster,
            TargetKind::Kube => Scope::Namespace(self.namespace.clone()),
        }
    }
}

/// Why a target could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// An address is not to be had.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No database engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The data directory can't be used.
    #[error(transparent)]
    Data(#[from] TemplateError),
    /// The Docker Engine.
    #[error(transparent)]
    Docker(#[from] devenv_compose::EngineError),
    /// The database's container.
    #[error(transparent)]
    Container(Box<ContainerServerError>),
    /// The kind cluster.
    #[error(transparent)]
    Kind(Box<KindError>),
    /// A cluster that others use as well.
    #[error(transparent)]
    Kube(Box<KubeError>),
    /// The embedded cluster.
    #[error("the local cluster failed")]
    Cluster(#[from] devenv_cluster::ClusterError),
    /// The Kubernetes API refused.
    #[error("the Kubernetes API refused {what}")]
    Api {
        /// What was asked.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Containers of an earlier system.
    #[error("the containers that an earlier devenv left can't be removed: {0}")]
    Leftovers(String),
    /// devenv.toml asks for what this version does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The database did not come up.
    #[error("the database did not get ready: {reason}")]
    Database {
        /// What its pod says.
        reason: String,
    },
    /// A file of the state folder.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl From<ContainerServerError> for TargetError {
    fn from(error: ContainerServerError) -> Self {
        Self::Container(Box::new(error))
    }
}

impl From<KubeError> for TargetError {
    fn from(error: KubeError) -> Self {
        Self::Kube(Box::new(error))
    }
}

impl From<KindError> for TargetError {
    fn from(error: KindError) -> Self {
        Self::Kind(Box::new(error))
    }
}

impl TargetError {
    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Docker(e) => e.help(),
            Self::Container(e) => e.help(),
            Self::Kind(e) => e.help(),
            Self::Kube(e) => e.help(),
            _ => None,
        }
    }

    /// Whether something has to be installed or allowed first (exit code 3).
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Engine(EngineError::NotInstalled) => true,
            Self::Docker(e) => e.is_missing(),
            Self::Container(e) => e.is_missing(),
            Self::Kind(e) => e.is_missing(),
            Self::Kube(e) => e.is_missing(),
            Self::Cluster(e) => e.is_missing(),
            _ => false,
        }
    }
}

/// User and group of a project's folder.
///
/// # Errors
/// When the folder can't be looked at.
pub fn owner_of(root: &Path) -> Result<(u32, u32), TargetError> {
    address::owner_of(root).map_err(|source| TargetError::Io {
        what: "read the owner of",
        path: root.to_owned(),
        source,
    })
}

/// A Kubernetes API and what differs around it.
#[async_trait]
pub trait Target: fmt::Debug + Send + Sync {
    /// A client for the target's API, which exists afterwards.
    fn client(&self) -> kube::Client;

    /// What its API serves.
    fn serves(&self) -> Serves;

    /// How much of the cluster is this system's.
    fn scope(&self) -> Scope {
        self.endpoints().scope()
    }

    /// What people should know about how it came up.
    fn notes(&self) -> Vec<String>;

    /// The engine that images are built on, where they are containers'.
    fn containers(&self) -> Option<&ContainerEngine>;

    /// What makes a project's topology one for this target.
    fn adapter(&self) -> Adapter;

    /// Whether a webhook of the target's own is asked about Ingresses, so that they can be
    /// applied only when it is there.
    fn asks_about_ingresses(&self) -> bool {
        false
    }

    /// Waits until everything of the target's own is there, such as an ingress controller
    /// that comes up beside the project.
    async fn settled(&self) -> Result<(), TargetError>;

    /// Starts what stands in for Cloud SQL, waits until it answers, and makes the
    /// Service that the application uses lead to it. `None` where the topology has
    /// no database.
    async fn database(&self, topology: &Topology) -> Result<Option<Database>, TargetError>;

    /// Runs builds.
    fn host(&self) -> Host;

    /// Connects to an address of the cluster's network, such as a pod's.
    ///
    /// # Errors
    /// What connect(2) says.
    async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream>;

    /// Waits until nothing sends new requests to this address of a pod: what sends them
    /// follows its EndpointSlices a moment later.
    async fn unrouted(&self, address: Ipv4Addr);

    /// The process of this machine that a pod's container is, by the pod's uid; `None`
    /// where it is none, or does not run.
    fn container_pid(&self, uid: &str, container: &str) -> Option<u32>;

    /// Brings built images near, which may take its time and changes nothing that runs.
    async fn prepare(&self, images: &[BuiltImage]) -> Result<(), TargetError>;

    /// Makes a prepared image what pods of its name run from now on. Returns the name that pods have
    /// to use for it, where that is not the manifests'.
    async fn deliver(&self, image: &BuiltImage) -> Result<Option<String>, TargetError>;

    /// Resolves when a part of it ended although nobody stopped it.
    async fn failed(&self) -> TargetError;

    /// Tells of each node that stops to be ready for more than a moment, and when it is again;
    /// nothing where there is none but this machine. Never ends.
    fn nodes(&self) -> BoxStream<'static, NodeState>;

    /// Ends everything in order, the workloads before the database, within `grace`.
    async fn shutdown(self: Box<Self>, grace: Duration);

    /// Where people and tests find the system.
    fn endpoints(&self) -> Endpoints;
}
