//! The cluster's Kubernetes API while it comes up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, timeout_at};

use super::cluster;
use super::error::KindError;
use super::settled;

/// How often an API that does not answer yet is asked.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits, until `deadline` at most, until its nodes are ready, and, where it was there `before`,
/// what the API says of pods is of this start of the nodes.
///
/// # Errors
/// [`KindError::NotReady`].
pub async fn ready(
    client: &Client,
    (containers, before): (&[cluster::Node], bool),
    limit: Duration,
    deadline: Instant,
) -> Result<(), KindError> {
    let since: BTreeMap<&str, jiff::Timestamp> = containers
        .iter()
        .filter_map(|c| Some((c.name.as_str(), c.started_at.parse().ok()?)))
        .collect();
    let mut waiting = None;
    let nodes = nodes_ready(client, &since, &mut waiting);
    if timeout_at(deadline, nodes).await.is_err() {
        let (node, reason) = waiting.unwrap_or_else(|| {
            let node = containers.first().map(|c| c.name.clone());
            (node.unwrap_or_default(), "it did not register".to_owned())
        });
        return Err(KindError::NotReady {
            node,
            reason,
            seconds: limit.as_secs(),
        });
    }
    if let Some(first) = since.values().min().copied().filter(|_| before) {
        // What is said of pods is of the start before, until those who say it have looked: the
        // kubelet, and controllers once they have their lease again. Whoever waits for a
        // workload afterwards has a limit of their own.
        let _ = timeout_at(deadline, settled::of(client, first)).await;
    }
    Ok(())
}

/// Until the API answers. Nothing tells when a server will listen.
pub async fn answers(client: &Client, cluster: &str, deadline: Instant) -> Result<(), KindError> {
    while let Err(error) = client.apiserver_version().await {
        if Instant::now() >= deadline {
            return Err(KindError::Api {
                name: cluster.to_owned(),
                reason: error.to_string(),
            });
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// Until all of these nodes, which were started then, are ready; `waiting` is the last that was
/// not, and why.
async fn nodes_ready(
    client: &Client,
    since: &BTreeMap<&str, jiff::Timestamp>,
    waiting: &mut Option<(String, String)>,
) {
    let all = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
    let mut events = std::pin::pin!(all.default_backoff());
    let mut ready = BTreeSet::new();
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) = event else {
            continue;
        };
        let name = node.name_any();
        match state(&node, since.get(name.as_str()).copied()) {
            Ok(()) => {
                ready.insert(name);
            }
            Err(reason) => {
                ready.remove(&name);
                *waiting = Some((name, reason));
            }
        }
        if since.keys().all(|name| ready.contains(*name)) {
            return;
        }
    }
}

/// Whether a node is ready, by a heartbeat of after `since`, the start of its container.
pub fn state(node: &Node, since: Option<jiff::Timestamp>) -> Result<(), String> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    let Some(ready) = ready else {
        return Err("it has said nothing of itself yet".to_owned());
    };
    if ready.status != "True" {
        let (reason, message) = (&ready.reason, &ready.message);
        return Err(message
            .clone()
            .or_else(|| reason.clone())
            .unwrap_or_default());
    }
    match (ready.last_heartbeat_time.as_ref(), since) {
        (Some(beat), Some(since)) if beat.0.as_second() < since.as_second() => {
            Err("its kubelet has not been heard of since it was started".to_owned())
        }
        _ => Ok(()),
    }
}
