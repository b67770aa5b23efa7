//! The logs of many pods as one stream, through the Kubernetes API.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{AsyncBufReadExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::mpsc;

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
    /// The line, without its end.
    pub line: String,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only pods whose name, or whose workload's name, begins so.
    pub workload: Option<String>,
    /// Whether to go on with what comes, new pods included.
    pub follow: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<i64>,
    /// Only so many lines of each container at first.
    pub tail: Option<i64>,
}

impl LogQuery {
    fn wants(&self, pod: &str) -> bool {
        let Some(workload) = &self.workload else {
            return true;
        };
        pod.strip_prefix(workload.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// The lines of every wanted container of `namespace`.
///
/// Without `follow` the stream ends after what is there; with it, new pods and
/// restarted containers are followed as they come.
pub async fn lines(
    client: Client,
    namespace: &str,
    query: LogQuery,
) -> Result<impl Stream<Item = Line> + Unpin + use<>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    // Bounded: a slow terminal slows the readers down, not the memory up.
    let (line_tx, line_rx) = mpsc::channel(256);
    let query = Arc::new(query);
    if query.follow {
        tokio::spawn(follow(api, query, line_tx));
    } else {
        let pods = api.list(&ListParams::default()).await?;
        tokio::spawn(async move {
            for pod in pods.items.iter().filter(|p| query.wants(&p.name_any())) {
                for (container, _) in started(pod) {
                    read(&api, pod.name_any(), container, &query, &line_tx).await;
                }
            }
        });
    }
    Ok(Box::pin(futures_util::stream::unfold(
        line_rx,
        |mut rx| async { rx.recv().await.map(|line| (line, rx)) },
    )))
}

async fn follow(api: Api<Pod>, query: Arc<LogQuery>, line_tx: mpsc::Sender<Line>) {
    let mut known = BTreeSet::new();
    let mut events = std::pin::pin!(
        watcher(api.clone(), watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    loop {
        let pod = tokio::select! {
            () = line_tx.closed() => return,
            event = events.next() => match event {
                Some(Ok(pod)) => pod,
                Some(Err(_)) => continue,
                None => return,
            },
        };
        if !query.wants(&pod.name_any()) {
            continue;
        }
        for (container, start) in started(&pod) {
            let key = (pod.uid().unwrap_or_default(), container.clone(), start);
            if known.insert(key) {
                let (api, query, line_tx) = (api.clone(), query.clone(), line_tx.clone());
                let name = pod.name_any();
                tokio::spawn(async move { read(&api, name, container, &query, &line_tx).await });
            }
        }
    }
}

/// The containers of a pod that have run, each with its count of restarts.
fn started(pod: &Pod) -> Vec<(String, i32)> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    statuses
        .filter(|c| {
            let state = c.state.clone().unwrap_or_default();
            state.running.is_some() || state.terminated.is_some() || c.restart_count > 0
        })
        .map(|c| (c.name.clone(), c.restart_count))
        .collect()
}

async fn read(
    api: &Api<Pod>,
    pod: String,
    container: String,
    query: &LogQuery,
    line_tx: &mpsc::Sender<Line>,
) {
    let params = LogParams {
        container: Some(container.clone()),
        follow: query.follow,
        since_seconds: query.since_seconds,
        tail_lines: query.tail,
        ..LogParams::default()
    };
    let reader = match api.log_stream(&pod, &params).await {
        Ok(reader) => reader,
        Err(e) => {
            tracing::debug!(error = %e, pod, container, "no log");
            return;
        }
    };
    let mut lines = reader.lines();
    while let Ok(Some(line)) = lines.try_next().await {
        let line = Line {
            pod: pod.clone(),
            container: container.clone(),
            line,
        };
        if line_tx.send(line).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_names_its_pods() {
        let query = LogQuery {
            workload: Some("api1".into()),
            ..LogQuery::default()
        };
        assert!(query.wants("api1") && query.wants("api1-7d5-x"));
        assert!(!query.wants("api10-7d5-x") && !query.wants("x-api1"));
        assert!(LogQuery::default().wants("anything"));
    }
}
