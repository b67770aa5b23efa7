//! What the controller is told, and why it may refuse to start.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use devenv_ingress::{HoldLimits, ProxyError};
use tokio_util::sync::CancellationToken;

/// What [`run`](crate::run) needs; [`ControllerOptions::default`] is right for
/// the Deployment of [`manifest`](crate::manifest()), but for the addresses of
/// the status.
#[derive(Clone)]
pub struct ControllerOptions {
    /// The API. `None`: that of the pod's service account, or of the kubeconfig
    /// when there is one (`KUBECONFIG`, `~/.kube/config`).
    pub client: Option<kube::Client>,
    /// Where HTTP requests come in; 0.0.0.0:8080. A port of 0 is any free one:
    /// [`Controller::addresses`](crate::Controller::addresses) tells.
    pub listen: Vec<SocketAddr>,
    /// Where `/healthz` and `/readyz` are answered; 0.0.0.0:10254, as
    /// ingress-nginx does.
    pub health: SocketAddr,
    /// Written to `.status.loadBalancer.ingress` of the Ingresses of our class,
    /// in this order; with none, statuses are left alone.
    pub publish_status_addresses: Vec<IpAddr>,
    /// How long requests in flight may take after the order to stop; 25 s, which
    /// together with its own end is below the 30 s that a pod is given.
    pub grace: Duration,
    /// Threads of the data plane; `None`: as many as there are cores, at most 2.
    pub threads: Option<usize>,
    /// Bounds of holding requests.
    pub hold: HoldLimits,
    /// The order to stop. [`run`](crate::run) gives it itself on SIGTERM and
    /// SIGINT.
    pub shutdown: CancellationToken,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            client: None,
            listen: vec![SocketAddr::new(any, 8080)],
            health: SocketAddr::new(any, 10254),
            publish_status_addresses: Vec::new(),
            grace: Duration::from_secs(25),
            threads: None,
            hold: HoldLimits::default(),
            shutdown: CancellationToken::new(),
        }
    }
}

impl fmt::Debug for ControllerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerOptions")
            .field("client", &self.client.as_ref().map(|_| "given"))
            .field("listen", &self.listen)
            .field("health", &self.health)
            .field("publish_status_addresses", &self.publish_status_addresses)
            .field("grace", &self.grace)
            .field("threads", &self.threads)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

/// Why the controller could not start. Once it runs nothing of the API ends it:
/// it serves its last table and asks again.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Neither a service account nor a kubeconfig tells where the API is.
    #[error(
        "the Kubernetes API is not known: run inside a pod with a service account, or set KUBECONFIG"
    )]
    Api {
        /// What was tried.
        #[source]
        source: Box<kube::Error>,
    },
    /// No address was given to listen on.
    #[error("no address to listen on: give at least one, such as 0.0.0.0:8080")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: the port may be taken, or need a privilege")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data plane could not start.
    #[error("the data plane could not start")]
    Proxy(#[from] ProxyError),
    /// SIGTERM or SIGINT cannot be waited for.
    #[error("cannot wait for signals")]
    Signals {
        /// What the system said.
        source: io::Error,
    },
}
