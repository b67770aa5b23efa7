//! What is known of one kind: a reflector that tells which changes matter.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;

/// A kind whose objects routing depends on.
pub(crate) trait Routed:
    kube::Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static
{
    /// Whether both route the same. A status, and who wrote which field when, do
    /// not matter: among others our own writes would lead to a new table.
    fn routes_as(&self, other: &Self) -> bool;
}

fn same_meta(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.uid == b.uid && a.annotations == b.annotations && a.labels == b.labels
}

impl Routed for Ingress {
    fn routes_as(&self, other: &Self) -> bool {
        self.spec == other.spec && same_meta(&self.metadata, &other.metadata)
    }
}

impl Routed for IngressClass {
    fn routes_as(&self, other: &Self) -> bool {
        self.spec == other.spec && same_meta(&self.metadata, &other.metadata)
    }
}

impl Routed for Service {
    fn routes_as(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Routed for EndpointSlice {
    fn routes_as(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.ports == other.ports
            && self.address_type == other.address_type
            && self.metadata.labels == other.metadata.labels
    }
}

impl Routed for Endpoints {
    fn routes_as(&self, other: &Self) -> bool {
        // Not the annotations: old control planes elect leaders in them every two seconds.
        self.subsets == other.subsets
    }
}

/// All objects of a kind as last seen.
#[derive(Debug)]
pub(crate) struct Cache<K: Routed> {
    writer: Writer<K>,
    store: Store<K>,
    synced: bool,
}

impl<K: Routed> Cache<K> {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let writer = Writer::new(());
        Self {
            store: writer.as_reader(),
            writer,
            synced: false,
        }
    }

    /// Whether all objects have been listed once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Takes an event of a watch over; returns whether routing may have changed.
    pub fn apply(&mut self, event: Event<K>) -> bool {
        let event = event.modify(|object| object.meta_mut().managed_fields = None);
        let matters = match &event {
            Event::Apply(object) => self
                .store
                .get(&ObjectRef::from_obj(object))
                .is_none_or(|before| !before.routes_as(object)),
            Event::Delete(_) => true,
            // They are buffered until the list is whole.
            Event::Init | Event::InitApply(_) => false,
            Event::InitDone => {
                self.synced = true;
                true
            }
        };
        self.writer.apply_watcher_event(&event);
        matters
    }

    /// The objects, in no order.
    pub fn objects(&self) -> Vec<K> {
        let objects = self.store.state();
        objects.iter().map(|object| K::clone(object)).collect()
    }

    /// For others to read.
    pub fn reader(&self) -> Store<K> {
        self.store.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ingress(value: Value) -> Ingress {
        serde_json::from_value(value).unwrap()
    }

    fn plain() -> Value {
        json!({"metadata": {"namespace": "n", "name": "i", "uid": "1", "resourceVersion": "1"},
               "spec": {"ingressClassName": "nginx"}})
    }

    #[test]
    fn a_list_counts_when_it_is_whole() {
        let mut cache = Cache::new();
        assert!(!cache.apply(Event::Init));
        assert!(!cache.apply(Event::InitApply(ingress(plain()))));
        assert!(!cache.is_synced() && cache.objects().is_empty());
        assert!(cache.apply(Event::InitDone));
        assert!(cache.is_synced() && cache.objects().len() == 1);
    }

    #[test]
    fn a_list_anew_keeps_what_was_known_until_it_is_whole() {
        let mut cache = Cache::new();
        for event in [Event::Init, Event::InitDone, Event::Apply(ingress(plain()))] {
            cache.apply(event);
        }
        cache.apply(Event::Init);
        assert!(cache.is_synced() && cache.objects().len() == 1);
        cache.apply(Event::InitDone);
        assert!(cache.objects().is_empty());
    }

    #[test]
    fn a_status_changes_no_route() {
        let mut cache = Cache::new();
        assert!(cache.apply(Event::Apply(ingress(plain()))));
        let mut status = plain();
        status["metadata"]["resourceVersion"] = json!("2");
        status["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}});
        assert!(!cache.apply(Event::Apply(ingress(status.clone()))));
        // It is kept all the same.
        assert_eq!(cache.objects(), [ingress(status.clone())]);
        status["metadata"]["annotations"] = json!({"a": "b"});
        assert!(cache.apply(Event::Apply(ingress(status.clone()))));
        // Deleted and made anew between two looks.
        status["metadata"]["uid"] = json!("2");
        assert!(cache.apply(Event::Apply(ingress(status.clone()))));
        assert!(cache.apply(Event::Delete(ingress(status))));
        assert!(cache.objects().is_empty());
    }
}
