//! Which Services have endpoints on the way, so that requests are held for
//! them instead of being refused.
//!
//! On the way are pods that are starting and pods that a workload is about to
//! make: while a Recreate waits for the old pods to end, after a restart, right
//! after the start. Not so what was scaled to 0, what missed its
//! `progressDeadlineSeconds`, a crash loop, and a program that runs but says
//! that it is not ready.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::endpointslice::SERVICE_LABEL;
use super::owner::{controller_of, selects};
use crate::kinds::{self, KindRef};
use crate::net::endpoints;
use crate::store::{Object, Store};
use crate::time::between;

/// Two times of a status that are this close may be one.
const SAME_TIME: Duration = Duration::from_secs(1);

type Labels = BTreeMap<String, String>;

/// Kinds whose changes may change the answer.
pub const KINDS: [KindRef; 5] = [
    &kinds::SERVICE,
    &kinds::ENDPOINT_SLICE,
    &kinds::DEPLOYMENT,
    &kinds::REPLICA_SET,
    &kinds::POD,
];

/// Namespace and name of all Services that have endpoints on the way, in order.
pub fn services(store: &Store) -> Vec<(String, String)> {
    let services = store.list(&kinds::SERVICE, None).0;
    let mut there: BTreeMap<&str, There> = BTreeMap::new();
    let coming = services.iter().filter(|service| {
        there
            .entry(service.namespace())
            .or_insert_with(|| There::look(store, service.namespace()))
            .is_coming(service)
    });
    let mut coming: Vec<(String, String)> = coming
        .map(|s| (s.namespace().to_owned(), s.name().to_owned()))
        .collect();
    coming.sort();
    coming
}

/// The slices of one Service, and whether more endpoints are on the way. An endpoint that comes
/// meanwhile is told by one of both: else requests that are held for it would be refused.
pub fn with_slices(store: &Store, ns: &str, service: &str) -> (Vec<EndpointSlice>, bool) {
    // In this order: what is no longer on the way has come.
    let coming = is_coming(store, ns, service);
    (endpoints::slices(store, ns, service), coming)
}

/// Whether one Service has endpoints on the way.
fn is_coming(store: &Store, ns: &str, service: &str) -> bool {
    store
        .get(&kinds::SERVICE, ns, service)
        .is_some_and(|service| There::look(store, ns).is_coming(&service))
}

/// What a pod may become without anybody's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Ready,
    Starting,
    /// It waits for its next crash, or says itself that it is not ready.
    NotReady,
}

#[derive(Debug)]
struct Pod {
    name: String,
    labels: Labels,
    outlook: Outlook,
    owned: bool,
}

/// A Deployment, or a ReplicaSet that is nobody's.
#[derive(Debug)]
struct Workload {
    selector: LabelSelector,
    template: Labels,
    replicas: usize,
    /// It makes pods until there are `replicas`.
    makes: bool,
}

/// A namespace's workloads that want pods, and its pods that are not ending.
#[derive(Debug)]
struct There {
    workloads: Vec<Workload>,
    pods: Vec<Pod>,
    slices: Vec<Arc<Object>>,
}

impl There {
    fn look(store: &Store, ns: &str) -> There {
        let list = |kind| store.list(kind, Some(ns)).0;
        let deployments = list(&kinds::DEPLOYMENT);
        let sets = list(&kinds::REPLICA_SET);
        let orphans = sets.iter().filter(|set| controller_of(set).is_none());
        There {
            workloads: deployments
                .iter()
                .chain(orphans)
                .filter_map(workload)
                .collect(),
            pods: list(&kinds::POD).iter().filter_map(pod).collect(),
            slices: list(&kinds::ENDPOINT_SLICE),
        }
    }

    fn is_coming(&self, service: &Object) -> bool {
        let selector = labels(&service.value()["spec"]["selector"]);
        let selected = |labels: &Labels| {
            !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        };
        let serving: HashSet<&str> = self
            .slices
            .iter()
            .filter(|s| s.value()["metadata"]["labels"][SERVICE_LABEL] == service.name())
            .flat_map(|s| s.value()["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"] != false)
            .filter_map(|endpoint| endpoint["targetRef"]["name"].as_str())
            .collect();
        let comes = |pod: &Pod| match pod.outlook {
            Outlook::Starting => true,
            // The endpoints follow the pods by a moment.
            Outlook::Ready => !serving.contains(pod.name.as_str()),
            Outlook::NotReady => false,
        };
        let by_workload = self
            .workloads
            .iter()
            .filter(|w| selected(&w.template))
            .any(|workload| {
                let mut pods = self
                    .pods
                    .iter()
                    .filter(|pod| selects(&workload.selector, Some(&pod.labels)));
                workload.makes && pods.clone().count() < workload.replicas || pods.any(comes)
            });
        by_workload
            || self
                .pods
                .iter()
                .any(|pod| !pod.owned && selected(&pod.labels) && comes(pod))
    }
}

fn workload(object: &Arc<Object>) -> Option<Workload> {
    let value = object.value();
    let spec = &value["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    if object.is_deleting() || replicas <= 0 || has_failed(value) {
        return None;
    }
    Some(Workload {
        selector: LabelSelector::deserialize(&spec["selector"]).ok()?,
        template: labels(&spec["template"]["metadata"]["labels"]),
        replicas: usize::try_from(replicas).unwrap_or(0),
        makes: spec["paused"] != true,
    })
}

/// Whether a Deployment made no progress for longer than it may; a newer
/// template is given its own chance.
fn has_failed(value: &Value) -> bool {
    let status = &value["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    status["observedGeneration"] == value["metadata"]["generation"]
        && conditions
            .into_iter()
            .any(|c| c["type"] == "Progressing" && c["status"] == "False")
}

fn pod(object: &Arc<Object>) -> Option<Pod> {
    let value = object.value();
    let phase = value["status"]["phase"].as_str();
    if object.is_deleting() || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    Some(Pod {
        name: object.name().to_owned(),
        labels: labels(&value["metadata"]["labels"]),
        outlook: outlook(&value["status"]),
        owned: controller_of(object).is_some(),
    })
}

fn outlook(status: &Value) -> Outlook {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|c| c["type"] == "Ready");
    if ready.is_some_and(|c| c["status"] == "True") {
        return Outlook::Ready;
    }
    let containers = || {
        ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .flat_map(|list| status[list].as_array().into_iter().flatten())
    };
    if containers().any(|c| c["state"]["waiting"]["reason"] == "CrashLoopBackOff") {
        return Outlook::NotReady;
    }
    let main = || status["containerStatuses"].as_array().into_iter().flatten();
    if main().any(|c| c["state"]["running"].is_null()) {
        return Outlook::Starting;
    }
    let time = |value: &Value| value.as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let since = ready.and_then(|c| time(&c["lastTransitionTime"]));
    let started = main()
        .filter_map(|c| time(&c["state"]["running"]["startedAt"]))
        .max();
    // Who has never been ready is so since before its start, or, after a restart that nobody
    // saw happen, since the moment after it; times have whole seconds.
    match (since, started) {
        (Some(since), Some(started)) if between(started, since) > SAME_TIME => Outlook::NotReady,
        _ => Outlook::Starting,
    }
}

fn labels(value: &Value) -> Labels {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
