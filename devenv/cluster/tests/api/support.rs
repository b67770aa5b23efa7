//! A running API server over an empty store, with logs and metrics made up on the spot.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use devenv_cluster::{
    api::{
        ApiOptions, ApiServer, ContainerMetrics, LogError, LogQuery, LogSource, Measured,
        MetricsSource,
    },
    store::Store,
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use hyper::body::Bytes;

/// One line per log, which tells what was asked; a followed log never ends by itself.
pub struct Logs;

#[async_trait]
impl LogSource for Logs {
    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Bytes>, LogError> {
        let container = query.container.unwrap_or_default();
        if query.previous {
            return Err(LogError::BadRequest(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            )));
        }
        let line = Bytes::from(format!(
            "{namespace}/{pod}/{container} tail={:?}\n",
            query.tail_lines
        ));
        let lines = stream::iter([line]);
        Ok(if query.follow {
            lines.chain(stream::pending()).boxed()
        } else {
            lines.boxed()
        })
    }
}

/// Every pod has a busy container and one that holds memory; every Node uses 1.5 CPUs.
pub struct Metrics;

fn used(nanocores: u64, mebibytes: u64) -> Measured {
    Measured {
        timestamp: "2026-01-01T00:00:10Z".parse().unwrap(),
        window: Duration::from_millis(10_062),
        nanocores,
        memory: mebibytes << 20,
    }
}

#[async_trait]
impl MetricsSource for Metrics {
    async fn pods(&self, uids: &[String]) -> HashMap<String, Vec<ContainerMetrics>> {
        let container = |name: &str, measured| ContainerMetrics {
            name: name.to_owned(),
            measured,
        };
        let containers = [
            container("busy", used(250_000_001, 3)),
            container("big", used(0, 50)),
        ];
        let of = |uid: &String| (uid.clone(), containers.to_vec());
        uids.iter().map(of).collect()
    }

    async fn node(&self, _: &str) -> Option<Measured> {
        Some(used(1_500_000_000, 512))
    }
}

/// The server and the folder with its files.
pub struct Running {
    pub server: ApiServer,
    pub store: Store,
    dir: tempfile::TempDir,
}

impl Running {
    pub async fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        let server = ApiServer::start(
            store.clone(),
            ApiOptions {
                listen: "127.0.0.1:0".parse().unwrap(),
                in_cluster: None,
                kubeconfig: dir.path().join("kubeconfig"),
                tls_dir: dir.path().join("tls"),
                project: "test".to_owned(),
                namespace: "default".to_owned(),
                logs: Arc::new(Logs),
                metrics: Arc::new(Metrics),
                server_version: None,
            },
        )
        .await
        .unwrap();
        Running { server, store, dir }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A kube client without a network.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.server.service(), "default")
    }
}
