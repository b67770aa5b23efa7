//! EndpointSlices: the addresses behind a Service's selector.
//!
//! A Service without a selector is nobody's business here: its slices are
//! written by whoever knows its endpoints (devenv does for `cloudsql`).
//! Source: `k8s.io/endpointslice` (reconciler.go, utils.go).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::owner::{contains, controller_reference, derived_name, hash_of};
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::store::{Object, Store, StoreError, WatchEvent};

/// Label that says whose endpoints a slice holds.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The controller of EndpointSlices.
#[derive(Debug)]
pub struct EndpointSlices {
    store: Store,
}

impl EndpointSlices {
    /// A controller on this store.
    pub fn new(store: Store) -> EndpointSlices {
        EndpointSlices { store }
    }

    fn ours(&self, ns: &str, service: &str) -> Vec<Arc<Object>> {
        let (slices, _) = self.store.list(&kinds::ENDPOINT_SLICE, Some(ns));
        slices
            .into_iter()
            .filter(|s| {
                let labels = &s.value()["metadata"]["labels"];
                labels[SERVICE_LABEL] == service && labels[MANAGED_BY] == MANAGER
            })
            .collect()
    }
}

/// Whether a slice is one that this controller writes.
pub(crate) fn is_ours(slice: &Object) -> bool {
    slice.value()["metadata"]["labels"][MANAGED_BY] == MANAGER
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::SERVICE, &kinds::POD, &kinds::ENDPOINT_SLICE]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        let ns = object.namespace();
        if *object.kind() == kinds::SERVICE {
            return vec![Key::of(object)];
        }
        if *object.kind() == kinds::ENDPOINT_SLICE {
            let service = object.value()["metadata"]["labels"][SERVICE_LABEL].as_str();
            return service
                .filter(|_| is_ours(object))
                .map(|s| Key::new(ns, s))
                .into_iter()
                .collect();
        }
        // A pod: every Service that selects it now or did before.
        let (services, _) = self.store.list(&kinds::SERVICE, Some(ns));
        services
            .iter()
            .filter(|service| {
                selected(service, object)
                    || event
                        .previous
                        .as_ref()
                        .is_some_and(|before| selected(service, before))
            })
            .map(|service| Key::of(service))
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        self.store
            .list(&kinds::SERVICE, None)
            .0
            .iter()
            .map(|s| Key::of(s))
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let existing = self.ours(&key.namespace, &key.name);
        let service = self.store.get(&kinds::SERVICE, &key.namespace, &key.name);
        let mut wanted = BTreeMap::new();
        if let Some(object) = &service {
            let typed: Service = object.typed()?;
            let selector = typed
                .spec
                .as_ref()
                .and_then(|s| s.selector.clone())
                .unwrap_or_default();
            let external = typed
                .spec
                .as_ref()
                .is_some_and(|s| s.type_.as_deref() == Some("ExternalName"));
            if !selector.is_empty() && !external {
                let (pods, _) = self.store.list(&kinds::POD, Some(&key.namespace));
                let pods: Vec<Pod> = pods
                    .iter()
                    .filter(|p| selected(object, p))
                    .filter_map(|p| p.typed().ok())
                    .collect();
                for slice in plan(object, &typed, &pods) {
                    let name = slice["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    wanted.insert(name, slice);
                }
            }
        }
        for slice in existing {
            match wanted.remove(slice.name()) {
                Some(new) => {
                    self.store.update(
                        &kinds::ENDPOINT_SLICE,
                        &key.namespace,
                        slice.name(),
                        |value| {
                            value["endpoints"] = new["endpoints"].clone();
                            value["ports"] = new["ports"].clone();
                            Ok(())
                        },
                    )?;
                }
                None => {
                    match self
                        .store
                        .delete(&kinds::ENDPOINT_SLICE, &key.namespace, slice.name())
                    {
                        Ok(_) | Err(StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        for slice in wanted.into_values() {
            self.store.create(&kinds::ENDPOINT_SLICE, slice)?;
        }
        Ok(None)
    }
}

fn selected(service: &Object, pod: &Object) -> bool {
    let Some(selector) = service.value()["spec"]["selector"].as_object() else {
        return false;
    };
    let labels = &pod.value()["metadata"]["labels"];
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// The slices that a Service with a selector should have: one for each way in which its named
/// target ports resolve among its pods, and one when there is no pod at all. Pure.
pub fn plan(owner: &Object, service: &Service, pods: &[Pod]) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let selector = spec.selector.clone().unwrap_or_default();
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let service_ports = spec.ports.clone().unwrap_or_default();
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in pods {
        if !contains(&selector, &pod.metadata) {
            continue;
        }
        let status = pod.status.clone().unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let Some(ip) = status.pod_ip.filter(|ip| !ip.is_empty() && !ended) else {
            continue;
        };
        let serving = status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let mut endpoint = json!({
            "addresses": [ip],
            "conditions": {
                "ready": publish_all || (serving && !terminating),
                "serving": serving,
                "terminating": terminating,
            },
            "nodeName": super::node::NAME,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod.metadata.namespace,
                "name": pod.metadata.name,
                "uid": pod.metadata.uid,
            },
        });
        let pod_spec = pod.spec.clone().unwrap_or_default();
        if pod_spec.hostname.is_some() && pod_spec.subdomain == service.metadata.name {
            endpoint["hostname"] = json!(pod_spec.hostname);
        }
        let ports: Vec<Value> = service_ports.iter().filter_map(|p| port(p, pod)).collect();
        let ports = Value::Array(ports);
        groups
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new()))
            .1
            .push(endpoint);
    }
    if groups.is_empty() {
        groups.insert(String::new(), (Value::Array(Vec::new()), Vec::new()));
    }
    let many = groups.len() > 1;
    groups
        .into_values()
        .map(|(ports, mut endpoints)| {
            endpoints.sort_by_key(|e| e["addresses"][0].to_string());
            let suffix = if many {
                hash_of(&ports)
            } else {
                "devenv".to_owned()
            };
            json!({
                "metadata": {
                    "name": derived_name(owner.name(), &suffix),
                    "namespace": owner.namespace(),
                    "labels": {SERVICE_LABEL: owner.name(), MANAGED_BY: MANAGER},
                    "ownerReferences": [controller_reference(owner)],
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports,
            })
        })
        .collect()
}

/// One port of a slice: a named target port is looked up in the pod, which may not have it.
fn port(port: &ServicePort, pod: &Pod) -> Option<Value> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Of the init containers those that go on running have ports.
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| {
                    p.name.as_deref() == Some(name)
                        && p.protocol.as_deref().unwrap_or("TCP") == protocol
                })?
                .container_port
        }
    };
    let mut value = json!({
        "name": port.name.clone().unwrap_or_default(),
        "port": number,
        "protocol": protocol,
    });
    if let Some(app) = &port.app_protocol {
        value["appProtocol"] = json!(app);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: bool, deleting: bool, http: i32) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": http}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn slices(extra: Value, pods: &[Pod]) -> Vec<Value> {
        let store = Store::in_memory();
        let mut spec = json!({"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]});
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let service = json!({"metadata": {"name": "svc", "namespace": "default"}, "spec": spec});
        let object = store.create(&kinds::SERVICE, service).expect("created");
        plan(&object, &object.typed().expect("a Service"), pods)
    }

    fn conditions(slice: &Value) -> Vec<(String, bool, bool, bool)> {
        let of = |e: &Value, f: &str| e["conditions"][f].as_bool().expect("a bool");
        slice["endpoints"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|e| {
                (
                    e["addresses"][0].as_str().expect("text").to_owned(),
                    of(e, "ready"),
                    of(e, "serving"),
                    of(e, "terminating"),
                )
            })
            .collect()
    }

    #[test]
    fn ready_serving_and_terminating() {
        let pods = [
            pod("a", "10.244.0.2", true, false, 80),
            pod("b", "10.244.0.3", false, false, 80),
            pod("c", "10.244.0.4", true, true, 80),
            pod("no-address", "", true, false, 80),
        ];
        let slices = slices(json!({}), &pods);
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["metadata"]["labels"][SERVICE_LABEL], "svc");
        assert_eq!(
            slices[0]["ports"],
            json!([{"name": "web", "port": 80, "protocol": "TCP"}])
        );
        assert_eq!(
            conditions(&slices[0]),
            [
                ("10.244.0.2".to_owned(), true, true, false),
                ("10.244.0.3".to_owned(), false, false, false),
                ("10.244.0.4".to_owned(), false, true, true),
            ]
        );
    }

    #[test]
    fn not_ready_addresses_can_be_published() {
        let slices = slices(
            json!({"publishNotReadyAddresses": true}),
            &[pod("b", "10.244.0.3", false, false, 80)],
        );
        assert_eq!(
            conditions(&slices[0]),
            [("10.244.0.3".to_owned(), true, false, false)]
        );
    }

    #[test]
    fn a_named_port_that_differs_makes_two_slices() {
        let slices = slices(
            json!({}),
            &[
                pod("a", "10.244.0.2", true, false, 80),
                pod("b", "10.244.0.3", true, false, 81),
            ],
        );
        let mut ports: Vec<&Value> = slices.iter().map(|s| &s["ports"][0]["port"]).collect();
        ports.sort_by_key(|p| p.as_i64());
        assert_eq!(ports, [80, 81]);
        assert_ne!(slices[0]["metadata"]["name"], slices[1]["metadata"]["name"]);
    }

    #[test]
    fn a_sidecar_may_have_the_named_port() {
        let mut with = pod("a", "10.244.0.2", true, false, 80);
        let init = |name: &str, policy: Value, port: i32| json!({"name": name, "restartPolicy": policy, "ports": [{"name": "http", "containerPort": port}]});
        let spec = json!({"containers": [{"name": "c"}],
            "initContainers": [init("once", Value::Null, 1), init("sidecar", json!("Always"), 15)]});
        with.spec = serde_json::from_value(spec).expect("a spec");
        assert_eq!(slices(json!({}), &[with])[0]["ports"][0]["port"], 15);
    }

    #[test]
    fn no_pods_leave_an_empty_slice() {
        let slices = slices(json!({}), &[]);
        assert_eq!(
            (
                slices.len(),
                slices[0]["endpoints"].clone(),
                slices[0]["ports"].clone()
            ),
            (1, json!([]), json!([]))
        );
    }

    #[tokio::test]
    async fn the_store_follows_and_strangers_slices_stay() {
        let store = Store::in_memory();
        let mut controller = EndpointSlices::new(store.clone());
        let foreign = json!({"metadata": {"name": "mine", "namespace": "default", "labels": {SERVICE_LABEL: "svc"}},
            "addressType": "IPv4", "endpoints": []});
        store
            .create(&kinds::ENDPOINT_SLICE, foreign)
            .expect("created");
        let service = json!({"metadata": {"name": "svc", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        store.create(&kinds::SERVICE, service).expect("created");
        let key = Key::new("default", "svc");
        controller.reconcile(&key).await.expect("done");
        let names = || -> Vec<String> {
            store
                .list(&kinds::ENDPOINT_SLICE, None)
                .0
                .iter()
                .map(|s| s.name().to_owned())
                .collect()
        };
        assert_eq!(names(), ["mine", "svc-devenv"]);
        let before = store.resource_version();
        controller.reconcile(&key).await.expect("done");
        assert_eq!(
            store.resource_version(),
            before,
            "nothing to do writes nothing"
        );
        store
            .delete(&kinds::SERVICE, "default", "svc")
            .expect("deleted");
        controller.reconcile(&key).await.expect("done");
        assert_eq!(names(), ["mine"]);
    }
}
