//! Knative Services: what Cloud Run services are on this machine.
//!
//! Each becomes a Deployment and a Service of its own name, and one of the
//! host's listeners leads to its ready endpoints. Revisions are counted, but
//! only the newest one runs: traffic goes to it as soon as it is ready, by a
//! rolling update.

pub mod plan;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use devenv_ingress::{Proxy, Table};

use super::coming;
use super::events::{EventType, Recorder};
use super::owner::controller_reference;
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::api;
use crate::kinds::{self, KindRef};
use crate::net::endpoints;
use crate::net::front::Protocol;
use crate::net::routed::Routed;
use crate::store::{Object, Store, WatchEvent};
use plan::{Made, SERVICE_LABEL, Seen, TEMPLATE};

/// Name under which this router publishes whom it sends traffic to.
const ROUTER: &str = "knative";
const COMPONENT: &str = "service-controller";

/// A listener of the host for Cloud Run services.
pub struct Front {
    /// Serves it.
    pub proxy: Proxy,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// The controller of Knative Services.
#[derive(Debug)]
pub struct KnativeServices {
    store: Store,
    recorder: Recorder,
    routed: Routed,
    fronts: Arc<Vec<Front>>,
    around: Vec<(String, String)>,
    /// Which front a service has.
    places: HashMap<Key, usize>,
    ready: HashMap<Key, HashSet<Ipv4Addr>>,
}

impl KnativeServices {
    /// A controller that gives the n-th service (by age) the n-th front; `around` are variables that
    /// every container gets.
    pub fn new(
        store: Store,
        recorder: Recorder,
        routed: Routed,
        fronts: Arc<Vec<Front>>,
        around: Vec<(String, String)>,
    ) -> KnativeServices {
        KnativeServices {
            store,
            recorder,
            routed,
            fronts,
            around,
            places: HashMap::new(),
            ready: HashMap::new(),
        }
    }

    fn place(&mut self, key: &Key) -> Option<usize> {
        if let Some(place) = self.places.get(key) {
            return Some(*place);
        }
        let free =
            (0..self.fronts.len()).find(|n| !self.places.values().any(|taken| taken == n))?;
        self.places.insert(key.clone(), free);
        Some(free)
    }

    /// Makes or changes the Deployment and the Service; returns the Deployment.
    fn act(
        &self,
        made: &Made,
        existing: Option<Arc<Object>>,
        key: &Key,
    ) -> Result<Arc<Object>, ReconcileError> {
        let refused = |failure: api::Failure| ReconcileError::Other(failure.message);
        if self
            .store
            .get(&kinds::SERVICE, &key.namespace, &key.name)
            .is_none()
        {
            api::create(&self.store, &kinds::SERVICE, made.service.clone()).map_err(refused)?;
        } else {
            self.store
                .update(&kinds::SERVICE, &key.namespace, &key.name, |service| {
                    service["spec"]["ports"][0]["targetPort"] =
                        made.service["spec"]["ports"][0]["targetPort"].clone();
                    Ok(())
                })?;
        }
        let Some(existing) = existing else {
            return api::create(&self.store, &kinds::DEPLOYMENT, made.deployment.clone())
                .map_err(refused);
        };
        if existing.value()["metadata"]["annotations"][TEMPLATE] == made.template.as_str() {
            return Ok(existing);
        }
        Ok(self.store.update(
            &kinds::DEPLOYMENT,
            &key.namespace,
            &key.name,
            |deployment| {
                deployment["spec"] = made.deployment["spec"].clone();
                deployment["metadata"]["labels"] = made.deployment["metadata"]["labels"].clone();
                deployment["metadata"]["annotations"][TEMPLATE] = made.template.clone().into();
                api::defaults::apply(&kinds::DEPLOYMENT, deployment);
                Ok(())
            },
        )?)
    }

    /// Sends the host's requests to what is ready now; returns whether that is pods of
    /// `revision` alone.
    fn route(&mut self, key: &Key, place: Option<usize>, revision: &str) -> bool {
        // As Cloud Run holds requests while an instance starts.
        let (slices, coming) = coming::with_slices(&self.store, &key.namespace, &key.name);
        if let Some(front) = place.and_then(|n| self.fronts.get(n)) {
            let ready: Vec<SocketAddr> = endpoints::ready(&slices, "http", Protocol::Tcp)
                .into_iter()
                .map(SocketAddr::V4)
                .collect();
            let table = Table::single_named(&key.namespace, &key.name, &ready, coming);
            front.proxy.publish(table);
            self.ready
                .insert(key.clone(), endpoints::addresses(&slices));
        }
        self.routed
            .publish(ROUTER, self.ready.values().flatten().copied().collect());
        let mut serving = slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter(|e| endpoints::is_ready(e))
            .peekable();
        serving.peek().is_some()
            && serving.all(|e| {
                let pod = e.target_ref.as_ref().and_then(|r| r.name.as_deref());
                let pod = pod.and_then(|name| self.store.get(&kinds::POD, &key.namespace, name));
                pod.is_some_and(|p| {
                    p.value()["metadata"]["labels"][plan::REVISION_LABEL] == revision
                })
            })
    }

    fn forget(&mut self, key: &Key) {
        if let Some(front) = self.places.remove(key).and_then(|n| self.fronts.get(n)) {
            front.proxy.publish(Table::single(&[]));
        }
        self.ready.remove(key);
        self.routed
            .publish(ROUTER, self.ready.values().flatten().copied().collect());
    }
}

impl Controller for KnativeServices {
    fn name(&self) -> &'static str {
        "knative"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![
            &kinds::KNATIVE_SERVICE,
            &kinds::DEPLOYMENT,
            &kinds::SERVICE,
            &kinds::ENDPOINT_SLICE,
            &kinds::POD,
        ]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        let labels = &object.value()["metadata"]["labels"];
        let name = if *object.kind() == kinds::KNATIVE_SERVICE {
            Some(object.name())
        } else if *object.kind() == kinds::ENDPOINT_SLICE {
            let service = labels[super::endpointslice::SERVICE_LABEL].as_str();
            service.filter(|s| {
                self.store
                    .get(&kinds::KNATIVE_SERVICE, object.namespace(), s)
                    .is_some()
            })
        } else {
            labels[SERVICE_LABEL].as_str()
        };
        name.map(|name| Key::new(object.namespace(), name))
            .into_iter()
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        let (mut services, _) = self.store.list(&kinds::KNATIVE_SERVICE, None);
        services.sort_by_key(|s| {
            s.value()["metadata"]["creationTimestamp"]
                .as_str()
                .map(str::to_owned)
        });
        services
            .iter()
            .map(|s| Key::of(s))
            .chain(self.places.keys().cloned())
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let object = self
            .store
            .get(&kinds::KNATIVE_SERVICE, &key.namespace, &key.name);
        let Some(object) = object.filter(|o| !o.is_deleting()) else {
            self.forget(key);
            return Ok(None);
        };
        let place = self.place(key);
        let existing = self
            .store
            .get(&kinds::DEPLOYMENT, &key.namespace, &key.name);
        let foreign = existing.as_ref().is_some_and(|d| {
            super::owner::controller_of(d).is_none_or(|(_, _, uid)| uid != object.uid())
        });
        if foreign {
            let message = format!(
                "a Deployment {key} that is not this service's is in the way: rename one of them"
            );
            self.recorder.record(
                &object,
                COMPONENT,
                EventType::Warning,
                "NameTaken",
                &message,
            );
            return Ok(None);
        }
        let made = match plan::plan(
            object.value(),
            Some(&controller_reference(&object)),
            existing.as_ref().map(|d| d.value()),
            &self.around,
        ) {
            Ok(made) => made,
            Err(why) => {
                self.recorder.record(
                    &object,
                    COMPONENT,
                    EventType::Warning,
                    "InvalidTemplate",
                    &why,
                );
                return Ok(None);
            }
        };
        let deployment = self.act(&made, existing, key)?;
        let moved = self.route(key, place, &made.revision);
        let seen = Seen {
            revision: &made.revision,
            moved,
            deployment: deployment.value(),
            url: place
                .and_then(|n| self.fronts.get(n))
                .map(|front| format!("http://{}", front.addr)),
            address: format!("http://{}.{}.svc.cluster.local", key.name, key.namespace),
            generation: object.value()["metadata"]["generation"]
                .as_i64()
                .unwrap_or(1),
        };
        let status = plan::status(&seen, &object.value()["status"], &crate::time::now());
        self.store
            .update_status(&kinds::KNATIVE_SERVICE, &key.namespace, &key.name, status)?;
        Ok(None)
    }
}
