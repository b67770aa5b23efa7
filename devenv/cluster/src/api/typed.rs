//! Checks objects against the types of Kubernetes, and drops what is not in them. Pure.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::kinds::{self, KindRef};

/// Brings an object into the form in which it is stored: nulls and fields that the type does not
/// have are dropped (their paths are returned), quantities written as numbers become strings.
///
/// # Errors
/// A field has a value of another type than the kind wants.
pub(super) fn normalize(
    kind: KindRef,
    value: &mut Value,
) -> Result<Vec<String>, serde_json::Error> {
    drop_nulls(value);
    quantities(value);
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    let encoded = match kinds::index(kind) {
        i if i == kinds::index(&kinds::CONFIG_MAP) => round_trip::<ConfigMap>(value)?,
        i if i == kinds::index(&kinds::ENDPOINTS) => round_trip::<Endpoints>(value)?,
        i if i == kinds::index(&kinds::EVENT) => round_trip::<Event>(value)?,
        i if i == kinds::index(&kinds::NAMESPACE) => round_trip::<Namespace>(value)?,
        i if i == kinds::index(&kinds::NODE) => round_trip::<Node>(value)?,
        i if i == kinds::index(&kinds::POD) => round_trip::<Pod>(value)?,
        i if i == kinds::index(&kinds::SECRET) => round_trip::<Secret>(value)?,
        i if i == kinds::index(&kinds::SERVICE) => round_trip::<Service>(value)?,
        i if i == kinds::index(&kinds::DEPLOYMENT) => round_trip::<Deployment>(value)?,
        i if i == kinds::index(&kinds::REPLICA_SET) => round_trip::<ReplicaSet>(value)?,
        i if i == kinds::index(&kinds::ENDPOINT_SLICE) => round_trip::<EndpointSlice>(value)?,
        i if i == kinds::index(&kinds::INGRESS) => round_trip::<Ingress>(value)?,
        i if i == kinds::index(&kinds::INGRESS_CLASS) => round_trip::<IngressClass>(value)?,
        // Custom resources (Knative) have no type here: they are kept as they are.
        _ => return Ok(Vec::new()),
    };
    let mut unknown = Vec::new();
    prune(value, &encoded, "", &mut unknown);
    Ok(unknown)
}

fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(value)?)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// `cpu: 1` is allowed in manifests and means `cpu: "1"`.
fn quantities(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let ("limits" | "requests" | "capacity" | "allocatable", Value::Object(map)) =
                    (key.as_str(), &mut *value)
                {
                    for quantity in map.values_mut() {
                        if let Value::Number(n) = quantity {
                            *quantity = Value::String(n.to_string());
                        }
                    }
                }
                quantities(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities),
        _ => {}
    }
}

/// Keeps in `value` what also came through the type. What the type added (empty required fields) is
/// not taken over: whether it was given matters to patches and to validation.
fn prune(value: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (value, known) {
        (Value::Object(map), Value::Object(known)) => {
            map.retain(|key, value| {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match known.get(key) {
                    Some(known) => {
                        prune(value, known, &path, unknown);
                        true
                    }
                    None => {
                        unknown.push(path);
                        false
                    }
                }
            });
        }
        (Value::Array(items), Value::Array(known)) => {
            for (i, (value, known)) in items.iter_mut().zip(known).enumerate() {
                prune(value, known, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{DEPLOYMENT, KNATIVE_SERVICE, POD};

    #[test]
    fn what_the_type_lacks_is_dropped_and_named() {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i", "imagee": "j",
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}], "foo": 1}});
        assert_eq!(
            normalize(&POD, &mut pod).unwrap(),
            ["spec.containers[0].imagee", "spec.foo"]
        );
        assert_eq!(
            pod,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "image": "i",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}})
        );
    }

    #[test]
    fn nothing_is_added_and_wrong_types_are_errors() {
        let mut deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2}});
        assert!(normalize(&DEPLOYMENT, &mut deployment).unwrap().is_empty());
        assert_eq!(deployment["spec"], json!({"replicas": 2}));
        let mut wrong = json!({"metadata": {"name": "d"}, "spec": {"replicas": "two"}});
        assert!(normalize(&DEPLOYMENT, &mut wrong).is_err());
        let mut knative = json!({"metadata": {"name": "k"}, "spec": {"anything": [1]}});
        assert!(
            normalize(&KNATIVE_SERVICE, &mut knative)
                .unwrap()
                .is_empty()
        );
        assert_eq!(knative["spec"]["anything"], json!([1]));
    }
}
