//! Waits until every workload is ready, and says why one isn't.

use std::{collections::BTreeMap, time::Duration};

use devenv_model::Object;
use futures_util::{StreamExt, stream::select_all};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;

use crate::{
    event::{Bus, Event},
    trouble::pod_trouble,
};

/// A workload that did not get ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// `Deployment api1`.
    pub workload: String,
    /// Where it is written.
    pub origin: String,
    /// What its pods say.
    pub reason: String,
    /// The last lines of its log.
    pub log: Vec<String>,
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.workload, self.origin, self.reason)?;
        for line in &self.log {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Deployment(Box<DeploymentFacts>),
    Knative { ready: bool, reason: Option<String> },
}

/// What decides whether a Deployment is ready, as `kubectl rollout status` does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeploymentFacts {
    generation: i64,
    observed: i64,
    wanted: i32,
    updated: i32,
    total: i32,
    available: i32,
}

impl DeploymentFacts {
    fn of(d: &Deployment) -> Self {
        let status = d.status.clone().unwrap_or_default();
        Self {
            generation: d.metadata.generation.unwrap_or(0),
            observed: status.observed_generation.unwrap_or(-1),
            wanted: d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
            updated: status.updated_replicas.unwrap_or(0),
            total: status.replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
        }
    }

    fn ready(&self) -> bool {
        self.observed >= self.generation
            && self.updated >= self.wanted
            && self.total <= self.updated
            && self.available >= self.updated
    }
}

enum Change {
    Workload(String, Option<Seen>),
    Pod(String, Option<Box<Pod>>),
    Listed,
}

/// Waits for the Deployments and Cloud Run services among `objects`.
///
/// Follows watches, so it returns as soon as the last one is ready. After `timeout`
/// it returns what is not.
pub async fn until_ready(
    client: Client,
    namespace: &str,
    objects: &[Object],
    timeout: Duration,
    bus: &Bus,
) -> Result<(), Vec<NotReady>> {
    let mut wanted: BTreeMap<String, (&Object, Option<Seen>)> = objects
        .iter()
        .filter(|o| o.kind() == "Deployment" || o.is_cloud_run())
        .map(|o| {
            (
                key(o.kind(), o.namespace().unwrap_or(namespace), o.name()),
                (o, None),
            )
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
    let mut changes = watch(&client, wanted.values().any(|(o, _)| o.is_cloud_run()));
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    loop {
        let change = tokio::select! {
            () = &mut deadline => break,
            change = changes.next() => match change { Some(c) => c, None => break },
        };
        match change {
            Change::Workload(k, seen) => {
                if let Some((object, known)) = wanted.get_mut(&k)
                    && *known != seen
                {
                    *known = seen;
                    let reason = reason_of(object, pods.values());
                    tell(bus, object, known.as_ref(), reason);
                }
            }
            Change::Pod(k, Some(pod)) => {
                pods.insert(k, *pod);
                for (object, known) in wanted.values() {
                    if !known.as_ref().is_some_and(is_ready)
                        && let Some(reason) = reason_of(object, pods.values())
                        // Pods of an earlier run wait for their image until now.
                        && !reason.starts_with("ErrImageNeverPull")
                    {
                        tell(bus, object, known.as_ref(), Some(reason));
                    }
                }
            }
            Change::Pod(k, None) => {
                pods.remove(&k);
            }
            Change::Listed => {}
        }
        if wanted
            .values()
            .all(|(_, seen)| seen.as_ref().is_some_and(is_ready))
        {
            return Ok(());
        }
    }
    let mut late = Vec::new();
    for (object, seen) in wanted.values() {
        if !seen.as_ref().is_some_and(is_ready) {
            late.push(explain(&client, object, seen.as_ref(), &pods).await);
        }
    }
    Err(late)
}

fn key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

fn is_ready(seen: &Seen) -> bool {
    match seen {
        Seen::Deployment(d) => d.ready(),
        Seen::Knative { ready, .. } => *ready,
    }
}

fn tell(bus: &Bus, object: &Object, seen: Option<&Seen>, reason: Option<String>) {
    let (ready, wanted) = match seen {
        Some(Seen::Deployment(d)) => (d.available.min(d.updated), d.wanted),
        Some(Seen::Knative { ready, .. }) => (i32::from(*ready), 1),
        None => (0, 1),
    };
    let reason = if seen.is_some_and(is_ready) {
        None
    } else {
        reason
    };
    bus.emit(Event::Workload {
        kind: object.kind().to_owned(),
        name: object.name().to_owned(),
        ready,
        wanted,
        reason,
    });
}

fn watch(
    client: &Client,
    knative: bool,
) -> impl futures_util::Stream<Item = Change> + Unpin + use<> {
    let config = watcher::Config::default;
    let deployments = watcher(Api::<Deployment>::all(client.clone()), config())
        .default_backoff()
        .filter_map(|e| async {
            Some(match e.ok()? {
                watcher::Event::Apply(d) | watcher::Event::InitApply(d) => Change::Workload(
                    key(
                        "Deployment",
                        &d.namespace().unwrap_or_default(),
                        &d.name_any(),
                    ),
                    Some(Seen::Deployment(Box::new(DeploymentFacts::of(&d)))),
                ),
                watcher::Event::Delete(d) => Change::Workload(
                    key(
                        "Deployment",
                        &d.namespace().unwrap_or_default(),
                        &d.name_any(),
                    ),
                    None,
                ),
                _ => Change::Listed,
            })
        });
    let pods = watcher(Api::<Pod>::all(client.clone()), config())
        .default_backoff()
        .filter_map(|e| async {
            let name = |p: &Pod| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any());
            Some(match e.ok()? {
                watcher::Event::Apply(p) | watcher::Event::InitApply(p) => {
                    Change::Pod(name(&p), Some(Box::new(p)))
                }
                watcher::Event::Delete(p) => Change::Pod(name(&p), None),
                _ => Change::Listed,
            })
        });
    let mut all = vec![deployments.boxed(), pods.boxed()];
    if knative {
        let gvk = GroupVersionKind::gvk("serving.knative.dev", "v1", "Service");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "services");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let services = watcher(api, config())
            .default_backoff()
            .filter_map(|e| async {
                Some(match e.ok()? {
                    watcher::Event::Apply(s) | watcher::Event::InitApply(s) => Change::Workload(
                        key("Service", &s.namespace().unwrap_or_default(), &s.name_any()),
                        Some(knative_seen(&s.data)),
                    ),
                    watcher::Event::Delete(s) => Change::Workload(
                        key("Service", &s.namespace().unwrap_or_default(), &s.name_any()),
                        None,
                    ),
                    _ => Change::Listed,
                })
            });
        all.push(services.boxed());
    }
    select_all(all)
}

fn knative_seen(data: &Value) -> Seen {
    let condition = data["status"]["conditions"]
        .as_array()
        .and_then(|c| c.iter().find(|c| c["type"] == "Ready"));
    Seen::Knative {
        ready: condition.is_some_and(|c| c["status"] == "True"),
        reason: condition
            .and_then(|c| c["message"].as_str())
            .map(str::to_owned),
    }
}

/// The pods of a workload: by the Deployment's selector, or by the label that Knative
/// gives the pods of a Service.
fn belongs(object: &Object, pod: &Pod) -> bool {
    let labels = pod.labels();
    if object.is_cloud_run() {
        return labels
            .get("serving.knative.dev/service")
            .map(String::as_str)
            == Some(object.name());
    }
    let selector = object.value()["spec"]["selector"]["matchLabels"].as_object();
    selector.is_some_and(|s| {
        !s.is_empty()
            && s.iter()
                .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
    })
}

/// What keeps a workload's pods from being ready, as the pods tell it.
fn reason_of<'a>(object: &Object, pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    pods.filter(|p| belongs(object, p) && p.metadata.deletion_timestamp.is_none())
        .find_map(pod_trouble)
}

async fn explain(
    client: &Client,
    object: &Object,
    seen: Option<&Seen>,
    pods: &BTreeMap<String, Pod>,
) -> NotReady {
    let mine = pods.values().find(|p| belongs(object, p));
    let reason = match (reason_of(object, pods.values()), seen, mine) {
        (Some(reason), _, _) => reason,
        (
            None,
            Some(Seen::Knative {
                reason: Some(r), ..
            }),
            None,
        ) => r.clone(),
        (None, _, None) => "it has no pod".to_owned(),
        (None, _, Some(pod)) => match last_warning(client, pod).await {
            Some(warning) => format!("its pod is not ready: {warning}"),
            None => "its pod is not ready".to_owned(),
        },
    };
    let log = match mine {
        Some(pod) => last_lines(client, pod).await,
        None => Vec::new(),
    };
    NotReady {
        workload: format!("{} {}", object.kind(), object.name()),
        origin: object.origin().to_string(),
        reason,
        log,
    }
}

/// What was last said against a pod: a probe's answer, a volume that is not there.
async fn last_warning(client: &Client, pod: &Pod) -> Option<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let events: Api<k8s_openapi::api::core::v1::Event> =
        Api::namespaced(client.clone(), &namespace);
    let list = events.list(&ListParams::default()).await.ok()?;
    list.items
        .into_iter()
        .filter(|e| e.type_.as_deref() == Some("Warning") && e.involved_object.uid == pod.uid())
        // A liveness probe that fails as well says the same with less weight.
        .max_by_key(|e| {
            let readiness = e
                .message
                .as_deref()
                .is_some_and(|m| m.contains("Readiness"));
            (readiness, e.last_timestamp.as_ref().map(|t| t.0))
        })
        .and_then(|e| e.message)
}

async fn last_lines(client: &Client, pod: &Pod) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    for previous in [false, true] {
        let params = LogParams {
            tail_lines: Some(10),
            previous,
            ..LogParams::default()
        };
        if let Ok(text) = api.logs(&pod.name_any(), &params).await
            && !text.trim().is_empty()
        {
            return text.lines().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    // generation, observed, wanted, updated, total, available
    #[case([2, 2, 2, 2, 2, 2], true)]
    #[case([2, 1, 2, 2, 2, 2], false)]
    #[case([2, 2, 2, 1, 2, 2], false)]
    #[case([2, 2, 2, 2, 3, 2], false)]
    #[case([2, 2, 2, 2, 2, 1], false)]
    #[case([1, 1, 0, 0, 0, 0], true)]
    fn rollout(#[case] n: [i32; 6], #[case] ready: bool) {
        let facts = DeploymentFacts {
            generation: n[0].into(),
            observed: n[1].into(),
            wanted: n[2],
            updated: n[3],
            total: n[4],
            available: n[5],
        };
        assert_eq!(facts.ready(), ready);
    }
}
