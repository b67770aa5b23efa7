//! A running API server over an empty store, with logs made up on the spot.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use devenv_cluster::{
    api::{ApiOptions, ApiServer, LogError, LogQuery, LogSource},
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
