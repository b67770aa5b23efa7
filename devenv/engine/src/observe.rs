//! What the target runs at this moment: one set of watches that everything reads which
//! waits for workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use devenv_platform::{Scope, Serves};
use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, select_all},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Client, Resource, ResourceExt,
    api::{ApiResource, GroupVersionKind},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};

use crate::workload::{Facts, key};

/// A pod and when it got where it is, as this process saw it.
#[derive(Debug, Clone)]
pub(crate) struct SeenPod {
    pub pod: Arc<Pod>,
    pub started: Option<Instant>,
    pub ready: Option<Instant>,
}

/// The last state of everything that is watched.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub workloads: BTreeMap<String, Facts>,
    /// By uid.
    pub pods: BTreeMap<String, SeenPod>,
    /// Of each EndpointSlice, the addresses that take requests.
    serving: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

impl Observed {
    pub fn all_pods(&self) -> Vec<Pod> {
        self.pods.values().map(|p| (*p.pod).clone()).collect()
    }

    /// Whether some Service sends requests to this address.
    pub fn serves(&self, address: Ipv4Addr) -> bool {
        self.serving.values().any(|s| s.contains(&address))
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Workload(key, Some(facts)) => {
                self.workloads.insert(key, facts);
            }
            Change::Workload(key, None) => {
                self.workloads.remove(&key);
            }
            Change::Pod(uid, Some(pod)) => {
                let known = self.pods.get(&uid);
                let now = Instant::now();
                let since = |is: bool, before: Option<Instant>| is.then(|| before.unwrap_or(now));
                let seen = SeenPod {
                    started: since(has_started(&pod), known.and_then(|k| k.started)),
                    ready: since(is_ready(&pod), known.and_then(|k| k.ready)),
                    pod: Arc::new(*pod),
                };
                self.pods.insert(uid, seen);
            }
            Change::Pod(uid, None) => {
                self.pods.remove(&uid);
            }
            Change::Slice(name, addresses) => {
                self.serving.insert(name, addresses);
            }
        }
    }
}

enum Change {
    Workload(String, Option<Facts>),
    Pod(String, Option<Box<Pod>>),
    Slice(String, BTreeSet<Ipv4Addr>),
}

/// Follows the watches until it is dropped.
#[derive(Debug)]
pub(crate) struct Observer {
    observed: Arc<Mutex<Observed>>,
    changed_rx: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// Of everything that the target serves.
    pub fn start(client: &Client, serves: Serves, scope: &Scope) -> Self {
        let observed = Arc::<Mutex<Observed>>::default();
        let (changed_tx, changed_rx) = watch::channel(0);
        let mut changes = changes(client, serves, scope);
        let shared = observed.clone();
        let task = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                lock(&shared).take(change);
                changed_tx.send_modify(|n| *n += 1);
            }
        });
        Self {
            observed,
            changed_rx,
            task,
        }
    }

    /// What is known now. Held only for a moment, never across an await.
    pub fn look(&self) -> MutexGuard<'_, Observed> {
        lock(&self.observed)
    }

    /// Wakes at every change after this call.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let mut rx = self.changed_rx.clone();
        rx.mark_unchanged();
        rx
    }
}

fn lock(observed: &Mutex<Observed>) -> MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn changes(
    client: &Client,
    serves: Serves,
    scope: &Scope,
) -> impl Stream<Item = Change> + Unpin + use<> {
    let config = watcher::Config::default;
    let namespace = |m: Option<String>| m.unwrap_or_default();
    let deployments = watcher(scope.api::<Deployment>(client), config())
        .default_backoff()
        .filter_map(move |e| async move {
            use watcher::Event::{Apply, Delete, InitApply};
            let key = |d: &Deployment| key("Deployment", &namespace(d.namespace()), &d.name_any());
            match e.ok()? {
                Apply(d) | InitApply(d) => {
                    Some(Change::Workload(key(&d), Some(Facts::of_deployment(&d))))
                }
                Delete(d) => Some(Change::Workload(key(&d), None)),
                _ => None,
            }
        });
    let pods = watcher(scope.api::<Pod>(client), config())
        .default_backoff()
        .filter_map(|e| async {
            use watcher::Event::{Apply, Delete, InitApply};
            match e.ok()? {
                Apply(mut p) | InitApply(mut p) => {
                    p.metadata.managed_fields = None;
                    Some(Change::Pod(p.uid()?, Some(Box::new(p))))
                }
                Delete(p) => Some(Change::Pod(p.uid()?, None)),
                _ => None,
            }
        });
    let slices = match serves.endpoint_slices {
        true => served(client, scope, serving),
        false => served(client, scope, addresses),
    };
    let mut all = vec![deployments.boxed(), pods.boxed(), slices];
    if serves.knative {
        let gvk = GroupVersionKind::gvk("serving.knative.dev", "v1", "Service");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "services");
        let api = scope.api_of(client, &resource);
        let services = watcher(api, config())
            .default_backoff()
            .filter_map(move |e| async move {
                use watcher::Event::{Apply, Delete, InitApply};
                let key = |s: &kube::api::DynamicObject| {
                    key("Service", &namespace(s.namespace()), &s.name_any())
                };
                match e.ok()? {
                    Apply(s) | InitApply(s) => {
                        Some(Change::Workload(key(&s), Some(Facts::of_knative(&s))))
                    }
                    Delete(s) => Some(Change::Workload(key(&s), None)),
                    _ => None,
                }
            });
        all.push(services.boxed());
    }
    select_all(all)
}

/// Which addresses take requests, by the objects that tell: EndpointSlices, or where there are
/// none yet the Endpoints of the same name.
fn served<K>(
    client: &Client,
    scope: &Scope,
    addresses: fn(&K) -> BTreeSet<Ipv4Addr>,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let events = watcher(scope.api::<K>(client), watcher::Config::default());
    let changes = events.default_backoff().filter_map(move |e| async move {
        use watcher::Event::{Apply, Delete, InitApply};
        let name = |o: &K| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any());
        match e.ok()? {
            Apply(o) | InitApply(o) => Some(Change::Slice(name(&o), addresses(&o))),
            Delete(o) => Some(Change::Slice(name(&o), BTreeSet::new())),
            _ => None,
        }
    });
    changes.boxed()
}

fn addresses(endpoints: &Endpoints) -> BTreeSet<Ipv4Addr> {
    let subsets = endpoints.subsets.iter().flatten();
    let ready = subsets.flat_map(|s| s.addresses.iter().flatten());
    ready.filter_map(|a| a.ip.parse().ok()).collect()
}

fn serving(slice: &EndpointSlice) -> BTreeSet<Ipv4Addr> {
    slice
        .endpoints
        .iter()
        .filter(|e| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready);
            ready.unwrap_or(true)
        })
        .flat_map(|e| e.addresses.iter().filter_map(|a| a.parse().ok()))
        .collect()
}

fn has_started(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    statuses.is_some_and(|all| {
        !all.is_empty()
            && all
                .iter()
                .all(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
    })
}

/// A pod's Ready condition.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
