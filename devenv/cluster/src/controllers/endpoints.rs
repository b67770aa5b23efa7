//! Endpoints, the older form of EndpointSlices, kept in step with them.
//!
//! A Service with a selector has an Endpoints object that says what its slices
//! say. Endpoints that a person wrote for a Service without a selector (a
//! database on another machine) become a slice, which is what carries traffic.
//! Sources: `pkg/controller/endpoint`, `pkg/controller/endpointslicemirroring`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Map, Value, json};

use super::endpointslice::{MANAGED_BY, SERVICE_LABEL, is_ours};
use super::owner::{controller_reference, derived_name, hash_of};
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::store::{Object, Store, StoreError, WatchEvent};

/// Label of Endpoints whose slice somebody else writes.
pub(crate) const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const MIRRORER: &str = "endpointslicemirroring-controller.k8s.io";
const MADE_HERE: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// The controller of Endpoints.
#[derive(Debug)]
pub struct EndpointsMirror {
    store: Store,
}

impl EndpointsMirror {
    /// A controller on this store.
    pub fn new(store: Store) -> EndpointsMirror {
        EndpointsMirror { store }
    }

    fn slices(&self, key: &Key, wanted: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        let (slices, _) = self
            .store
            .list(&kinds::ENDPOINT_SLICE, Some(&key.namespace));
        slices
            .into_iter()
            .filter(|s| s.value()["metadata"]["labels"][SERVICE_LABEL] == key.name.as_str())
            .filter(|s| wanted(s))
            .collect()
    }

    /// What the slices of a Service with a selector say.
    fn gather(&self, key: &Key, service: &Object) -> Result<(), ReconcileError> {
        let mut subsets = Vec::new();
        for slice in self.slices(key, is_ours) {
            subsets.extend(subset(&slice.typed()?));
        }
        let mut labels = service.value()["metadata"]["labels"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        labels.insert(MADE_HERE.0.to_owned(), json!(MADE_HERE.1));
        if service.value()["spec"]["clusterIP"] == "None" {
            labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
        }
        let set = |object: &mut Value| {
            object["metadata"]["labels"] = Value::Object(labels.clone());
            match subsets.is_empty() {
                true => drop(object.as_object_mut().and_then(|o| o.remove("subsets"))),
                false => object["subsets"] = json!(subsets),
            }
        };
        let (ns, name) = (&key.namespace, &key.name);
        if self.store.get(&kinds::ENDPOINTS, ns, name).is_some() {
            self.store.update(&kinds::ENDPOINTS, ns, name, |object| {
                set(object);
                Ok(())
            })?;
        } else {
            let mut object = json!({"metadata": {"name": name, "namespace": ns}});
            set(&mut object);
            self.store.create(&kinds::ENDPOINTS, object)?;
        }
        Ok(())
    }

    /// Makes the slices that mirror an Endpoints object exactly these.
    fn mirror(&self, key: &Key, mut wanted: Map<String, Value>) -> Result<(), ReconcileError> {
        let ns = &key.namespace;
        for slice in self.slices(key, is_mirror) {
            match wanted.remove(slice.name()) {
                Some(new) => {
                    self.store
                        .update(&kinds::ENDPOINT_SLICE, ns, slice.name(), |value| {
                            value["endpoints"] = new["endpoints"].clone();
                            value["ports"] = new["ports"].clone();
                            Ok(())
                        })?;
                }
                None => self.delete(&kinds::ENDPOINT_SLICE, ns, slice.name())?,
            }
        }
        for slice in wanted.into_iter().map(|(_, slice)| slice) {
            self.store.create(&kinds::ENDPOINT_SLICE, slice)?;
        }
        Ok(())
    }

    fn delete(&self, kind: KindRef, ns: &str, name: &str) -> Result<(), ReconcileError> {
        match self.store.delete(kind, ns, name) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Controller for EndpointsMirror {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::SERVICE, &kinds::ENDPOINT_SLICE, &kinds::ENDPOINTS]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        if *object.kind() != kinds::ENDPOINT_SLICE {
            return vec![Key::of(object)];
        }
        let service = object.value()["metadata"]["labels"][SERVICE_LABEL].as_str();
        service
            .map(|name| Key::new(object.namespace(), name))
            .into_iter()
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        let of = |kind| self.store.list(kind, None).0;
        let both = [of(&kinds::SERVICE), of(&kinds::ENDPOINTS)];
        both.iter().flatten().map(|o| Key::of(o)).collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let (ns, name) = (&key.namespace, &key.name);
        let Some(service) = self.store.get(&kinds::SERVICE, ns, name) else {
            self.delete(&kinds::ENDPOINTS, ns, name)?;
            self.mirror(key, Map::new())?;
            return Ok(None);
        };
        let spec = &service.value()["spec"];
        if spec["type"] == "ExternalName" {
            self.mirror(key, Map::new())?;
            return Ok(None);
        }
        if spec["selector"].as_object().is_some_and(|s| !s.is_empty()) {
            self.gather(key, &service)?;
            self.mirror(key, Map::new())?;
            return Ok(None);
        }
        let endpoints = self.store.get(&kinds::ENDPOINTS, ns, name);
        let wanted = match endpoints.filter(|e| is_for_mirroring(e)) {
            Some(object) => mirrors(&object, &object.typed()?),
            None => Map::new(),
        };
        self.mirror(key, wanted)?;
        Ok(None)
    }
}

fn is_mirror(slice: &Object) -> bool {
    slice.value()["metadata"]["labels"][MANAGED_BY] == MIRRORER
}

/// Those of leader elections and those that have slices already are left alone.
fn is_for_mirroring(endpoints: &Object) -> bool {
    let metadata = &endpoints.value()["metadata"];
    let elects = &metadata["annotations"]["control-plane.alpha.kubernetes.io/leader"];
    metadata["labels"][SKIP_MIRROR] != "true" && elects.is_null()
}

/// One slice as a subset; none when it has no address. Pods that end are left out.
fn subset(slice: &EndpointSlice) -> Option<Value> {
    let (mut ready, mut waiting) = (Vec::new(), Vec::new());
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let is_ready = conditions.ready.unwrap_or(true);
        if conditions.terminating.unwrap_or(false) && !is_ready {
            continue;
        }
        let mut address = json!({
            "ip": endpoint.addresses.first()?,
            "nodeName": endpoint.node_name,
            "hostname": endpoint.hostname,
            "targetRef": endpoint.target_ref,
        });
        drop_nulls(&mut address);
        if is_ready {
            ready.push(address);
        } else {
            waiting.push(address);
        }
    }
    let ports = slice.ports.iter().flatten().map(|p| {
        let named = p.name.as_ref().filter(|name| !name.is_empty());
        let mut port = json!({
            "name": named, "port": p.port, "protocol": p.protocol, "appProtocol": p.app_protocol,
        });
        drop_nulls(&mut port);
        port
    });
    let parts = [
        ("addresses", ready),
        ("notReadyAddresses", waiting),
        ("ports", ports.collect()),
    ];
    let subset: Map<String, Value> = parts
        .into_iter()
        .filter(|(_, all)| !all.is_empty())
        .map(|(name, all)| (name.to_owned(), Value::Array(all)))
        .collect();
    let has_address = ["addresses", "notReadyAddresses"]
        .iter()
        .any(|name| subset.contains_key(*name));
    has_address.then_some(Value::Object(subset))
}

/// The slices of an Endpoints object by name, one for each of its subsets.
fn mirrors(owner: &Object, endpoints: &Endpoints) -> Map<String, Value> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .map(|subset| {
            let with = |ready: bool, addresses: &Option<Vec<_>>| -> Vec<Value> {
                let endpoint = |a: &k8s_openapi::api::core::v1::EndpointAddress| {
                    let mut endpoint = json!({
                        "addresses": [a.ip], "conditions": {"ready": ready}, "hostname": a.hostname,
                        "nodeName": a.node_name, "targetRef": a.target_ref,
                    });
                    drop_nulls(&mut endpoint);
                    endpoint
                };
                addresses.iter().flatten().map(endpoint).collect()
            };
            let mut all = with(true, &subset.addresses);
            all.extend(with(false, &subset.not_ready_addresses));
            let ports: Vec<Value> = subset
                .ports
                .iter()
                .flatten()
                .map(|p| {
                    let protocol = p.protocol.as_deref().unwrap_or("TCP");
                    let mut port = json!({
                        "name": p.name.clone().unwrap_or_default(), "port": p.port,
                        "protocol": protocol, "appProtocol": p.app_protocol,
                    });
                    drop_nulls(&mut port);
                    port
                })
                .collect();
            let name = derived_name(owner.name(), &hash_of(&json!(ports)));
            let slice = json!({
                "metadata": {
                    "name": name,
                    "namespace": owner.namespace(),
                    "labels": {SERVICE_LABEL: owner.name(), MANAGED_BY: MIRRORER},
                    "ownerReferences": [controller_reference(owner)],
                },
                "addressType": "IPv4",
                "endpoints": all,
                "ports": ports,
            });
            (name, slice)
        })
        .collect()
}

fn drop_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(store: &Store, selector: Value) {
        let service = json!({"metadata": {"name": "db", "namespace": "default", "labels": {"tier": "x"}},
            "spec": {"clusterIP": "10.96.1.1", "selector": selector, "ports": [{"port": 80}]}});
        store.create(&kinds::SERVICE, service).expect("created");
    }

    async fn reconcile(store: &Store) {
        let mut controller = EndpointsMirror::new(store.clone());
        let key = Key::new("default", "db");
        controller.reconcile(&key).await.expect("done");
        let before = store.resource_version();
        controller.reconcile(&key).await.expect("done");
        assert_eq!(store.resource_version(), before, "twice writes nothing");
    }

    #[tokio::test]
    async fn a_services_slices_are_its_endpoints() {
        let store = Store::in_memory();
        service(&store, json!({"app": "x"}));
        let endpoint = |ip: &str, ready: bool, terminating: bool| json!({"addresses": [ip], "conditions": {"ready": ready, "terminating": terminating}, "nodeName": "devenv"});
        let labels = json!({SERVICE_LABEL: "db", MANAGED_BY: "endpointslice-controller.k8s.io"});
        let slice = json!({"metadata": {"name": "db-1", "namespace": "default", "labels": labels}, "addressType": "IPv4",
            "endpoints": [endpoint("10.244.0.2", true, false), endpoint("10.244.0.3", false, false), endpoint("10.244.0.4", false, true)],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]});
        store
            .create(&kinds::ENDPOINT_SLICE, slice)
            .expect("created");
        reconcile(&store).await;
        let found = store.get(&kinds::ENDPOINTS, "default", "db").expect("made");
        assert_eq!(
            found.value()["subsets"],
            json!([{
                "addresses": [{"ip": "10.244.0.2", "nodeName": "devenv"}],
                "notReadyAddresses": [{"ip": "10.244.0.3", "nodeName": "devenv"}],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }])
        );
        assert_eq!(found.value()["metadata"]["labels"]["tier"], "x");
        let _ = store.delete(&kinds::ENDPOINT_SLICE, "default", "db-1");
        reconcile(&store).await;
        let found = store
            .get(&kinds::ENDPOINTS, "default", "db")
            .expect("stays");
        assert!(found.value().get("subsets").is_none());
        store
            .delete(&kinds::SERVICE, "default", "db")
            .expect("deleted");
        reconcile(&store).await;
        assert!(store.get(&kinds::ENDPOINTS, "default", "db").is_none());
    }

    #[tokio::test]
    async fn what_a_person_wrote_becomes_a_slice() {
        let store = Store::in_memory();
        service(&store, json!(null));
        let written = json!({"metadata": {"name": "db", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "notReadyAddresses": [{"ip": "192.0.2.8"}],
                "ports": [{"port": 3306}]}]});
        store.create(&kinds::ENDPOINTS, written).expect("created");
        reconcile(&store).await;
        let (slices, _) = store.list(&kinds::ENDPOINT_SLICE, None);
        assert_eq!(slices.len(), 1);
        let slice = slices[0].value();
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
        assert_eq!(slice["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(
            slice["ports"],
            json!([{"name": "", "port": 3306, "protocol": "TCP"}])
        );
        store
            .update(&kinds::ENDPOINTS, "default", "db", |e| {
                e["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.9");
                Ok(())
            })
            .expect("updated");
        reconcile(&store).await;
        let (slices, _) = store.list(&kinds::ENDPOINT_SLICE, None);
        assert_eq!(
            slices[0].value()["endpoints"][0]["addresses"],
            json!(["192.0.2.9"])
        );
        store
            .delete(&kinds::ENDPOINTS, "default", "db")
            .expect("deleted");
        reconcile(&store).await;
        assert_eq!(store.list(&kinds::ENDPOINT_SLICE, None).0.len(), 0);
    }

    #[tokio::test]
    async fn who_has_slices_is_not_mirrored() {
        let store = Store::in_memory();
        service(&store, json!(null));
        let written = json!({"metadata": {"name": "db", "namespace": "default", "labels": {SKIP_MIRROR: "true"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 3306}]}]});
        store.create(&kinds::ENDPOINTS, written).expect("created");
        reconcile(&store).await;
        assert_eq!(store.list(&kinds::ENDPOINT_SLICE, None).0.len(), 0);
        assert!(store.get(&kinds::ENDPOINTS, "default", "db").is_some());
    }
}
