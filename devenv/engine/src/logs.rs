//! The logs of many pods as one stream, through the Kubernetes API.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{AsyncBufReadExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
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
    /// When it was written (RFC 3339), where the API told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The line, without its end.
    pub line: String,
}

/// Why there are no logs to show.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The API.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// What was asked for is not there.
    #[error("there is no workload or pod `{name}` in namespace {namespace}; {}", there_are(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        namespace: String,
        /// What is there.
        known: Vec<String>,
    },
}

fn there_are(known: &[String]) -> String {
    match known {
        [] => "it has none at all".to_owned(),
        known => format!("it has {}", known.join(", ")),
    }
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
/// Without `follow` the stream ends after what is there, in the order of time; with
/// it, new pods and restarted containers are followed as they come.
///
/// # Errors
/// When the API does not answer, or no pod and no workload has the name.
pub async fn lines(
    client: Client,
    namespace: &str,
    query: LogQuery,
) -> Result<impl Stream<Item = Line> + Unpin + use<>, LogsError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = api.list(&ListParams::default()).await?.items;
    if let Some(name) = &query.workload
        && !pods.iter().any(|p| query.wants(&p.name_any()))
    {
        // It may have no pod at this moment.
        let all: Api<Deployment> = Api::namespaced(client, namespace);
        let deployments = all.list(&ListParams::default()).await?.items;
        let known: Vec<String> = deployments.iter().map(ResourceExt::name_any).collect();
        if !known.contains(name) {
            return Err(LogsError::Unknown {
                name: name.clone(),
                namespace: namespace.to_owned(),
                known,
            });
        }
    }
    // Bounded: a slow terminal slows the readers down, not the memory up.
    let (line_tx, line_rx) = mpsc::channel(256);
    let query = Arc::new(query);
    if query.follow {
        tokio::spawn(follow(api, query, line_tx));
    } else {
        let mut each = Vec::new();
        for pod in pods.iter().filter(|p| query.wants(&p.name_any())) {
            for (container, _) in started(pod) {
                let (api, query, name) = (api.clone(), query.clone(), pod.name_any());
                let (tx, rx) = mpsc::channel(256);
                tokio::spawn(async move { read(&api, name, container, &query, &tx).await });
                each.push(rx);
            }
        }
        tokio::spawn(merge(each, line_tx));
    }
    Ok(Box::pin(futures_util::stream::unfold(
        line_rx,
        |mut rx| async { rx.recv().await.map(|line| (line, rx)) },
    )))
}

/// Many logs, each in its own order, as one in the order of time.
async fn merge(mut logs: Vec<mpsc::Receiver<Line>>, line_tx: mpsc::Sender<Line>) {
    let mut heads: Vec<Option<Line>> = Vec::new();
    for log in &mut logs {
        heads.push(log.recv().await);
    }
    loop {
        let time = |line: &Line| line.time.as_ref()?.parse::<jiff::Timestamp>().ok();
        let first = heads
            .iter()
            .enumerate()
            .filter_map(|(n, head)| Some((n, time(head.as_ref()?))))
            .min_by_key(|(_, time)| *time)
            .map(|(n, _)| n);
        let Some(n) = first else { return };
        let next = logs[n].recv().await;
        if let Some(line) = std::mem::replace(&mut heads[n], next)
            && line_tx.send(line).await.is_err()
        {
            return;
        }
    }
}

/// `2026-01-01T00:00:00.5Z text` as time and text.
fn timed(line: String) -> (Option<String>, String) {
    match line.split_once(' ') {
        Some((time, text)) if time.parse::<jiff::Timestamp>().is_ok() => {
            (Some(time.to_owned()), text.to_owned())
        }
        _ => (None, line),
    }
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
        timestamps: true,
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
        let (time, line) = timed(line);
        let line = Line {
            pod: pod.clone(),
            container: container.clone(),
            time,
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

    fn line(pod: &str, text: &str) -> Line {
        let (time, line) = timed(text.to_owned());
        Line {
            pod: pod.to_owned(),
            container: "c".to_owned(),
            time,
            line,
        }
    }

    #[tokio::test]
    async fn many_logs_are_one_in_the_order_of_time() {
        let mut logs = Vec::new();
        for lines in [
            vec![
                line("a", "2026-01-01T00:00:01.000000Z one"),
                line("a", "2026-01-01T00:00:04.000000Z four"),
            ],
            vec![],
            vec![
                line("b", "2026-01-01T00:00:02.000000Z two"),
                line("b", "2026-01-01T00:00:03.000000Z three"),
            ],
        ] {
            let (tx, rx) = mpsc::channel(8);
            for line in lines {
                tx.send(line).await.unwrap();
            }
            logs.push(rx);
        }
        let (tx, mut rx) = mpsc::channel(8);
        merge(logs, tx).await;
        let mut words = Vec::new();
        while let Some(line) = rx.recv().await {
            words.push(line.line);
        }
        assert_eq!(words, ["one", "two", "three", "four"]);
    }

    #[test]
    fn a_line_without_a_time_stays_whole() {
        assert_eq!(timed("no time".to_owned()), (None, "no time".to_owned()));
        assert_eq!(timed(String::new()), (None, String::new()));
    }

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
