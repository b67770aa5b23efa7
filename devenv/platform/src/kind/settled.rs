//! When a cluster whose nodes were started again has noticed: until then its API tells of pods
//! as they were before, and requests go where nobody is.

use std::collections::BTreeMap;

use futures_util::stream::select_all;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;

use crate::pods::is_ready;

/// The lease of who fills in endpoints and counts replicas.
const CONTROLLERS: (&str, &str) = ("kube-system", "kube-controller-manager");

type Key = (String, String);

/// Everything that must agree.
#[derive(Debug, Default)]
struct Seen {
    pods: BTreeMap<Key, Pod>,
    endpoints: BTreeMap<Key, Endpoints>,
    deployments: BTreeMap<Key, Deployment>,
    leases: BTreeMap<Key, Lease>,
    /// How many of the lists are whole.
    lists: usize,
}

const LISTS: usize = 4;

enum Change {
    Pod(Key, Option<Box<Pod>>),
    Endpoints(Key, Option<Box<Endpoints>>),
    Deployment(Key, Option<Box<Deployment>>),
    Lease(Key, Option<Box<Lease>>),
    List,
}

/// Waits until what the API says is of the nodes' start at `first`.
pub async fn of(client: &Client, first: Timestamp) {
    let mut changes = select_all([
        changes(Api::all(client.clone()), Change::Pod).boxed(),
        changes(Api::all(client.clone()), Change::Endpoints).boxed(),
        changes(Api::all(client.clone()), Change::Deployment).boxed(),
        changes(
            Api::namespaced(client.clone(), CONTROLLERS.0),
            Change::Lease,
        )
        .boxed(),
    ]);
    let mut seen = Seen::default();
    while let Some(change) = changes.next().await {
        seen.take(change);
        if seen.lists >= LISTS && seen.agrees(first) {
            return;
        }
    }
}

fn changes<K>(
    api: Api<K>,
    change: fn(Key, Option<Box<K>>) -> Change,
) -> impl Stream<Item = Change> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default,
{
    let events = watcher(api, watcher::Config::default()).default_backoff();
    events.filter_map(move |event| {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        std::future::ready(match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                Some(change(key(&object), Some(Box::new(object))))
            }
            Ok(watcher::Event::Delete(object)) => Some(change(key(&object), None)),
            Ok(watcher::Event::InitDone) => Some(Change::List),
            // The watch goes on by itself.
            Ok(watcher::Event::Init) | Err(_) => None,
        })
    })
}

fn put<K>(all: &mut BTreeMap<Key, K>, key: Key, object: Option<Box<K>>) {
    match object {
        Some(object) => all.insert(key, *object),
        None => all.remove(&key),
    };
}

impl Seen {
    fn take(&mut self, change: Change) {
        match change {
            Change::Pod(key, pod) => put(&mut self.pods, key, pod),
            Change::Endpoints(key, endpoints) => put(&mut self.endpoints, key, endpoints),
            Change::Deployment(key, deployment) => put(&mut self.deployments, key, deployment),
            Change::Lease(key, lease) => put(&mut self.leases, key, lease),
            Change::List => self.lists += 1,
        }
    }

    fn agrees(&self, first: Timestamp) -> bool {
        let lease = self
            .leases
            .get(&(CONTROLLERS.0.to_owned(), CONTROLLERS.1.to_owned()));
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref());
        renewed.is_some_and(|at| at.0 >= first)
            && !self.pods.values().any(|pod| is_stale(pod, first))
            && self.endpoints.values().all(|e| self.leads_to_pods(e))
            && self.deployments.values().all(|d| self.is_counted(d))
    }

    /// Whether all that an Endpoints object says to be ready is a pod that is, where it says.
    fn leads_to_pods(&self, endpoints: &Endpoints) -> bool {
        let subsets = endpoints.subsets.iter().flatten();
        let mut addresses = subsets.flat_map(|s| s.addresses.iter().flatten());
        addresses.all(|address| {
            let Some(target) = &address.target_ref else {
                return true;
            };
            let namespace = target.namespace.clone().unwrap_or_default();
            let pod = self
                .pods
                .get(&(namespace, target.name.clone().unwrap_or_default()));
            pod.is_some_and(|pod| {
                let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
                ip == Some(&address.ip) && is_ready(pod)
            })
        })
    }

    /// Whether a Deployment says of how many ready pods it has as many as there are.
    fn is_counted(&self, deployment: &Deployment) -> bool {
        let selector = deployment
            .spec
            .as_ref()
            .and_then(|s| s.selector.match_labels.as_ref());
        let Some(selector) = selector else {
            return true;
        };
        let namespace = deployment.namespace().unwrap_or_default();
        let is_its = |(key, pod): &(&Key, &Pod)| {
            key.0 == namespace && selector.iter().all(|(k, v)| pod.labels().get(k) == Some(v))
        };
        let ready = self.pods.iter().filter(is_its);
        let ready = ready.filter(|(_, pod)| is_ready(pod)).count();
        let says = deployment
            .status
            .as_ref()
            .and_then(|s| s.ready_replicas)
            .unwrap_or(0);
        usize::try_from(says) == Ok(ready)
    }
}

/// Whether a pod is said to be ready by containers of before `first`.
fn is_stale(pod: &Pod, first: Timestamp) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    let before = statuses.into_iter().flatten().any(|c| {
        let running = c.state.as_ref().and_then(|s| s.running.as_ref());
        let started = running.and_then(|r| r.started_at.as_ref());
        // Kubernetes writes whole seconds.
        started.is_some_and(|at| at.0.as_second() < first.as_second())
    });
    is_ready(pod) && before
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BEFORE: &str = "2026-01-01T00:00:00Z";
    const AFTER: &str = "2026-01-01T00:01:00Z";

    fn first() -> Timestamp {
        "2026-01-01T00:00:30Z".parse().unwrap()
    }

    fn of<K: DeserializeOwned>(value: Value) -> Option<Box<K>> {
        Some(Box::new(serde_json::from_value(value).unwrap()))
    }

    fn key(name: &str) -> Key {
        ("n".to_owned(), name.to_owned())
    }

    fn seen(started: &str, ready: bool, ip: &str, counted: i32, renewed: &str) -> Seen {
        let mut seen = Seen::default();
        seen.take(Change::Pod(
            key("api1-1"),
            of(json!({
                "metadata": {"name": "api1-1", "namespace": "n", "labels": {"app": "api1"}},
                "status": {
                    "podIP": "10.244.0.9",
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                    "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": ready,
                        "restartCount": 0, "state": {"running": {"startedAt": started}}}],
                },
            })),
        ));
        seen.take(Change::Endpoints(
            key("api1"),
            of(json!({"metadata": {}, "subsets": [{"addresses": [
                {"ip": ip, "targetRef": {"kind": "Pod", "namespace": "n", "name": "api1-1"}},
            ]}]})),
        ));
        seen.take(Change::Deployment(
            key("api1"),
            of(json!({
                "metadata": {"name": "api1", "namespace": "n"},
                "spec": {"selector": {"matchLabels": {"app": "api1"}}, "template": {}},
                "status": {"readyReplicas": counted},
            })),
        ));
        let lease = (CONTROLLERS.0.to_owned(), CONTROLLERS.1.to_owned());
        let renewed = format!("{}.000000Z", renewed.trim_end_matches('Z'));
        let spec = json!({"metadata": {}, "spec": {"renewTime": renewed}});
        seen.take(Change::Lease(lease, of(spec)));
        seen
    }

    #[test]
    fn all_must_be_of_this_start() {
        let good = "10.244.0.9";
        assert!(seen(AFTER, true, good, 1, AFTER).agrees(first()));
        // The kubelet has not looked; nobody counts; requests go elsewhere; not counted yet.
        assert!(!seen(BEFORE, true, good, 1, AFTER).agrees(first()));
        assert!(!seen(AFTER, true, good, 1, BEFORE).agrees(first()));
        assert!(!seen(AFTER, true, "10.244.0.4", 1, AFTER).agrees(first()));
        assert!(!seen(AFTER, true, good, 0, AFTER).agrees(first()));
        // Not ready yet, and still said to take requests.
        assert!(!seen(AFTER, false, good, 0, AFTER).agrees(first()));
    }
}
