//! The Kubernetes API over HTTPS: discovery, verbs, patches, tables, logs.
//!
//! What kubectl and kube-rs ask of an API server, answered as a real one answers it, down to the
//! words of its errors. A request goes through [`dispatch`](self) to one of the verbs; what is
//! written is checked against the types of Kubernetes, gets its defaults and is validated by pure
//! functions ([`defaults`], [`validate`](validate())), and is answered when it is on disk.

mod admit;
mod body;
mod call;
mod clusterip;
pub mod defaults;
mod delete;
mod discovery;
mod dispatch;
mod kubeconfig;
mod list;
mod logs;
mod managed;
mod metrics;
mod nodeport;
mod openapi;
mod patch;
mod protobuf;
mod render;
mod route;
mod schema;
mod selectors;
mod server;
mod status;
mod table;
mod tls;
mod typed;
mod validate;
mod watch;
mod write;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use admit::create;
pub use body::ApiBody;
pub use logs::{LogError, LogQuery, LogSource};
pub use metrics::{ContainerMetrics, Measured, MetricsSource};
pub use selectors::{FieldSelector, LabelSelector};
pub use server::{ApiOptions, ApiServer, ApiService};
pub use status::{Cause, Failure};
pub use validate::validate;

use crate::store::Store;

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be listened on.
    #[error(
        "the API server cannot listen on {address}: choose another address or stop who listens there"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the API server cannot be read or written.
    #[error("cannot use {}: check that its folder exists and is yours", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("the API server's certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The certificate cannot be used.
    #[error("the API server's certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

/// What every request works with.
struct Context {
    store: Store,
    logs: Arc<dyn LogSource>,
    metrics: Arc<dyn MetricsSource>,
    version: String,
    chunks: list::Chunks,
    /// Ends what would go on for ever: watches and followed logs.
    closing: CancellationToken,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
