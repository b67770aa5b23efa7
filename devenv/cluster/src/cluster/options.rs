//! What a cluster needs, and what can go wrong with it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use devenv_ingress::ProxyError;
use devenv_sandbox::SandboxError;

use super::TaskFailed;
use crate::api::ApiError;
use crate::ground::Isolation;
use crate::net::dial::ServicePort;
use crate::pod::runtime::RuntimeError;
use crate::store::StoreError;

/// What a cluster is started with.
#[derive(Debug)]
pub struct ClusterOptions {
    /// Name of the project; the kubeconfig's context is `devenv-PROJECT`.
    pub project: String,
    /// Where this system keeps its state; it exists and is private.
    pub state_dir: PathBuf,
    /// The project's folder: pods may mount folders of it, and of the state.
    pub project_dir: PathBuf,
    /// What pods never see although the project's folder is shown to them: the state
    /// folder, with those of other systems of the same project.
    pub hidden: Vec<PathBuf>,
    /// How pods are kept apart.
    pub isolation: Isolation,
    /// The engine that runs pods as containers, except for those that the annotation
    /// `devenv.dev/runtime` makes processes. `None`: all pods are processes.
    pub containers: Option<Containers>,
    /// The project's own loopback address: node ports and load balancers listen there.
    pub address: Ipv4Addr,
    /// Where the API listens.
    pub api_listen: SocketAddr,
    /// The kubeconfig's default namespace.
    pub namespace: String,
    /// Who owns the checkout: pods run as them.
    pub owner: (u32, u32),
    /// The Ingress' listeners, bound by the caller.
    pub ingress: Vec<std::net::TcpListener>,
    /// Addresses that Ingress objects show.
    pub ingress_addresses: Vec<IpAddr>,
    /// Addresses outside the cluster at which pods reach a Service instead: those of production
    /// that programs have built in. Other ports of the same addresses are refused to pods.
    pub also_at: BTreeMap<SocketAddrV4, ServicePort>,
    /// Listeners for Cloud Run services: the n-th (by age) is served at the n-th.
    pub knative: Vec<std::net::TcpListener>,
    /// Variables of every Cloud Run container, usable as `$(NAME)` in its own.
    pub env_for_knative: Vec<(String, String)>,
}

/// A Docker Engine for pods.
#[derive(Debug, Clone)]
pub struct Containers {
    /// Its client.
    pub docker: bollard::Docker,
    /// Where it listens, as `DOCKER_HOST` has it.
    pub host: String,
}

/// Why a cluster did not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The sandbox's processes could not be started or used.
    #[error("the cluster's network and processes could not be set up")]
    Sandbox(#[from] SandboxError),
    /// The objects cannot be read or written.
    #[error("the cluster's objects cannot be used")]
    Store(#[from] StoreError),
    /// The API did not start.
    #[error("the Kubernetes API could not be started")]
    Api(#[from] ApiError),
    /// The proxy did not start.
    #[error("the ingress could not be started")]
    Ingress(#[from] ProxyError),
    /// The Docker Engine cannot run pods.
    #[error("pods cannot run in containers")]
    Containers(#[from] RuntimeError),
    /// Containers were asked for where pods can have no network of their own.
    #[error("the docker runtime needs namespaces, for the cluster's network: {0}")]
    ContainersNeedSandbox(String),
    /// A folder or a socket cannot be used.
    #[error("cannot {what}")]
    Io {
        /// What was to be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A part ended although nobody stopped it.
    #[error(transparent)]
    Task(#[from] TaskFailed),
}

impl ClusterError {
    /// Whether the machine has to allow something first, as the message says.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            ClusterError::Sandbox(SandboxError::NamespacesForbidden { .. })
                | ClusterError::ContainersNeedSandbox(_)
        )
    }

    /// [`ClusterError::Io`] for what was to be done.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
        let what = what.into();
        move |source| ClusterError::Io { what, source }
    }
}
