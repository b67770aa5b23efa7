//! `kubectl get`: the columns of each kind and what stands in them. Pure.

mod network;
mod other;
mod pod;
mod text;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::KindRef;

/// A column: name, type, format, priority (1 is shown with `-o wide` only).
type Column = (&'static str, &'static str, &'static str, u8);

const NAME: Column = ("Name", "string", "name", 0);
const AGE: Column = ("Age", "string", "", 0);

/// A kind's columns and the function that fills a row of them.
type Layout = (&'static [Column], fn(&Value, Timestamp) -> Vec<Value>);

fn layout(kind: KindRef) -> Layout {
    match (kind.group, kind.kind) {
        ("", "Pod") => (pod::COLUMNS, pod::cells),
        ("", "Service") => (network::SERVICE, network::service),
        ("", "Endpoints") => (network::ENDPOINTS, network::endpoints),
        ("", "ConfigMap") => (other::CONFIG_MAP, other::config_map),
        ("", "Secret") => (other::SECRET, other::secret),
        ("", "Namespace") => (other::NAMESPACE, other::namespace),
        ("", "Node") => (other::NODE, other::node),
        ("", "Event") => (other::EVENT, other::event),
        ("apps", "Deployment") => (workload::DEPLOYMENT, workload::deployment),
        ("apps", "ReplicaSet") => (workload::REPLICA_SET, workload::replica_set),
        ("discovery.k8s.io", _) => (network::ENDPOINT_SLICE, network::endpoint_slice),
        ("networking.k8s.io", "Ingress") => (network::INGRESS, network::ingress),
        ("networking.k8s.io", _) => (network::INGRESS_CLASS, network::ingress_class),
        ("metrics.k8s.io", _) => (other::METRICS, other::metrics),
        ("serving.knative.dev", _) => (workload::KNATIVE, workload::knative),
        _ => (&[NAME, AGE], other::plain),
    }
}

/// The cells of one object.
pub(super) fn cells(kind: KindRef, object: &Value, now: Timestamp) -> Vec<Value> {
    layout(kind).1(object, now)
}

/// `columnDefinitions`.
pub(super) fn definitions(kind: KindRef) -> Value {
    let columns = layout(kind).0.iter().map(|(name, kind, format, priority)| {
        json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
    });
    Value::Array(columns.collect())
}

#[cfg(test)]
mod tests;
