//! Ingresses: from the objects to the proxy's table, and back to their status.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use devenv_ingress::{Inputs, Proxy, Table, compile};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::coming;
use super::events::{EventType, Recorder};
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::net::endpoints;
use crate::net::routed::Routed;
use crate::store::{Store, StoreError, WatchEvent};

/// Name under which this router publishes whom it sends traffic to.
const ROUTER: &str = "ingress";
const COMPONENT: &str = "nginx-ingress-controller";
/// Names of the keys.
const TABLE: &str = "table";
const COMING: &str = "coming";

/// The controller of Ingresses. It has two keys: one makes the table anew, the other only looks
/// whether it must be, since other Services have endpoints on the way than before.
pub struct Ingresses {
    store: Store,
    recorder: Recorder,
    proxy: Arc<Proxy>,
    routed: Routed,
    addresses: Vec<IpAddr>,
    /// Warnings that were told: namespace, name, message.
    told: BTreeSet<(String, String, String)>,
    /// Services that the table in force has endpoints on the way for.
    coming: Vec<(String, String)>,
}

impl std::fmt::Debug for Ingresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingresses")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// The routes of the objects in `store`, all without endpoints: what a proxy starts with, so
/// that a client who comes before the first pod is held for it, or told «not yet», but not
/// «no such page».
pub fn routes_without_endpoints(store: &Store) -> Table {
    fn typed<T: DeserializeOwned>(store: &Store, kind: KindRef) -> Vec<T> {
        let (objects, _) = store.list(kind, None);
        // What has not its form is told by the controller.
        objects.iter().filter_map(|o| o.typed().ok()).collect()
    }
    let inputs = Inputs {
        ingresses: &typed(store, &kinds::INGRESS),
        classes: &typed(store, &kinds::INGRESS_CLASS),
        services: &typed(store, &kinds::SERVICE),
        endpoint_slices: &[],
        coming: &coming::services(store),
    };
    compile(&inputs).table
}

impl Ingresses {
    /// A controller that feeds `proxy`, which is reached at `addresses`.
    pub fn new(
        store: Store,
        recorder: Recorder,
        proxy: Arc<Proxy>,
        routed: Routed,
        addresses: Vec<IpAddr>,
    ) -> Ingresses {
        Ingresses {
            store,
            recorder,
            proxy,
            routed,
            addresses,
            told: BTreeSet::new(),
            coming: Vec::new(),
        }
    }

    /// All objects of a kind that have its form; the others are added to `warnings`.
    fn typed<T: DeserializeOwned>(&self, kind: KindRef, warnings: &mut Warnings) -> Vec<T> {
        let (objects, _) = self.store.list(kind, None);
        objects
            .iter()
            .filter_map(|object| match object.typed() {
                Ok(typed) => Some(typed),
                Err(error) => {
                    let cause = std::error::Error::source(&error)
                        .map_or_else(String::new, |s| format!(": {s}"));
                    warnings.insert((
                        kind.plural,
                        object.namespace().to_owned(),
                        object.name().to_owned(),
                        format!("{error}{cause}"),
                    ));
                    None
                }
            })
            .collect()
    }

    fn tell(&mut self, warnings: Warnings) {
        let mut now = BTreeSet::new();
        for (plural, ns, name, message) in warnings {
            let said = (ns, name, message);
            if !self.told.contains(&said)
                && let Some(kind) = kinds::ALL.iter().find(|k| k.plural == plural)
                && let Some(object) = self.store.get(kind, &said.0, &said.1)
            {
                self.recorder
                    .record(&object, COMPONENT, EventType::Warning, "Ingress", &said.2);
            }
            now.insert(said);
        }
        self.told = now;
    }

    fn write_status(&self, ns: &str, name: &str) -> Result<(), StoreError> {
        let addresses: Vec<Value> = self
            .addresses
            .iter()
            .map(|ip| json!({"ip": ip.to_string()}))
            .collect();
        let status = json!({"loadBalancer": {"ingress": addresses}});
        match self.store.update_status(&kinds::INGRESS, ns, name, status) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

type Warnings = BTreeSet<(&'static str, String, String, String)>;

impl Controller for Ingresses {
    fn name(&self) -> &'static str {
        "ingress"
    }

    fn kinds(&self) -> Vec<KindRef> {
        let routes: [KindRef; 2] = [&kinds::INGRESS, &kinds::INGRESS_CLASS];
        routes.into_iter().chain(coming::KINDS).collect()
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let kind = event.object.kind();
        if [&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::POD].contains(&kind) {
            return vec![Key::new("", COMING)];
        }
        // Its own writes of the status need no new table.
        let own = *event.object.kind() == kinds::INGRESS
            && event.previous.as_ref().is_some_and(|before| {
                let (a, b) = (before.value(), event.object.value());
                a["spec"] == b["spec"]
                    && a["metadata"]["annotations"] == b["metadata"]["annotations"]
                    && a["status"] != b["status"]
            });
        if own { Vec::new() } else { self.all() }
    }

    fn all(&self) -> Vec<Key> {
        vec![Key::new("", TABLE)]
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let coming = coming::services(&self.store);
        if key.name == COMING && coming == self.coming {
            return Ok(None);
        }
        let mut warnings = Warnings::new();
        let ingresses = self.typed(&kinds::INGRESS, &mut warnings);
        let classes = self.typed(&kinds::INGRESS_CLASS, &mut warnings);
        let services = self.typed(&kinds::SERVICE, &mut warnings);
        let slices: Vec<EndpointSlice> = self.typed(&kinds::ENDPOINT_SLICE, &mut warnings);
        let inputs = Inputs {
            ingresses: &ingresses,
            classes: &classes,
            services: &services,
            endpoint_slices: &slices,
            coming: &coming,
        };
        let compiled = compile(&inputs);
        self.proxy.publish(compiled.table);
        self.coming = coming;
        // Only now: whoever waits for an address to go may end it when this is published.
        let routed = if ingresses.is_empty() {
            HashSet::new()
        } else {
            endpoints::addresses(&slices)
        };
        self.routed.publish(ROUTER, routed);
        for (ns, name) in &compiled.accepted {
            self.write_status(ns, name)?;
        }
        warnings.extend(
            compiled
                .warnings
                .into_iter()
                .map(|w| (kinds::INGRESS.plural, w.namespace, w.name, w.message)),
        );
        self.tell(warnings);
        Ok(None)
    }
}
