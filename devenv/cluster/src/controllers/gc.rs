//! The garbage collector: what its owners left behind, and what ends with its namespace.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::replicaset::end_pod;
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::store::{Change, Object, Store, StoreError, WatchEvent};

/// The collector. Its keys are namespaces ("" for what is cluster-scoped).
#[derive(Debug)]
pub struct GarbageCollector {
    store: Store,
}

impl GarbageCollector {
    /// A collector on this store.
    pub fn new(store: Store) -> GarbageCollector {
        GarbageCollector { store }
    }

    fn contents(&self, ns: &str) -> Vec<Arc<Object>> {
        kinds::ALL
            .iter()
            .filter(|kind| kind.namespaced)
            .flat_map(|kind| self.store.list(kind, Some(ns)).0)
            .collect()
    }

    fn remove(&self, object: &Object) -> Result<(), StoreError> {
        let (kind, ns, name) = (object.kind(), object.namespace(), object.name());
        if *kind == kinds::POD {
            return end_pod(&self.store, ns, name);
        }
        let has_finalizers = object.value()["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        let removed = if has_finalizers {
            self.store.mark_deleted(kind, ns, name, 0)
        } else {
            self.store.delete(kind, ns, name)
        };
        match removed {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends what is in a namespace that is going, then the namespace.
    fn terminate(&self, namespace: &Object) -> Result<(), StoreError> {
        let name = namespace.name();
        if namespace.value()["status"]["phase"] != "Terminating" {
            self.store.update_status(
                &kinds::NAMESPACE,
                "",
                name,
                json!({"phase": "Terminating"}),
            )?;
        }
        for object in self.contents(name) {
            self.remove(&object)?;
        }
        if self.contents(name).is_empty() {
            match self.store.delete(&kinds::NAMESPACE, "", name) {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn kinds(&self) -> Vec<KindRef> {
        kinds::ALL.to_vec()
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        if *object.kind() == kinds::NAMESPACE {
            let going = event.change != Change::Deleted && object.is_deleting();
            return if going {
                vec![Key::new(object.name(), "")]
            } else {
                Vec::new()
            };
        }
        // Owners matter when they go; a new dependent may come after its owner went.
        let orphan = event.change == Change::Added && !owners(object.value()).is_empty();
        let going = || {
            self.store
                .get(&kinds::NAMESPACE, "", object.namespace())
                .is_some_and(|n| n.is_deleting())
        };
        if event.change == Change::Deleted || orphan || (event.change == Change::Added && going()) {
            vec![Key::new(object.namespace(), "")]
        } else {
            Vec::new()
        }
    }

    fn all(&self) -> Vec<Key> {
        self.store
            .list(&kinds::NAMESPACE, None)
            .0
            .iter()
            .map(|n| Key::new(n.name(), ""))
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let ns = key.namespace.as_str();
        if let Some(namespace) = self.store.get(&kinds::NAMESPACE, "", ns)
            && namespace.is_deleting()
        {
            self.terminate(&namespace)?;
            return Ok(None);
        }
        let contents = self.contents(ns);
        for object in orphans(&contents, &cluster_scoped(&self.store)) {
            self.remove(object)?;
        }
        Ok(None)
    }
}

fn cluster_scoped(store: &Store) -> Vec<Arc<Object>> {
    kinds::ALL
        .iter()
        .filter(|k| !k.namespaced)
        .flat_map(|k| store.list(k, None).0)
        .collect()
}

fn owners(object: &Value) -> Vec<&str> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .filter_map(|o| o["uid"].as_str())
        .collect()
}

/// Objects all of whose owners are gone. Pure.
fn orphans<'a>(contents: &'a [Arc<Object>], others: &[Arc<Object>]) -> Vec<&'a Arc<Object>> {
    let living: HashSet<&str> = contents.iter().chain(others).map(|o| o.uid()).collect();
    contents
        .iter()
        .filter(|object| !object.is_deleting())
        .filter(|object| {
            let owners = owners(object.value());
            !owners.is_empty() && owners.iter().all(|uid| !living.contains(uid))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(store: &Store, kind: KindRef, ns: &str, name: &str, owners: &[&Object]) -> Arc<Object> {
        let references: Vec<Value> = owners
            .iter()
            .map(|o| super::super::owner::controller_reference(o))
            .collect();
        let object =
            json!({"metadata": {"name": name, "namespace": ns, "ownerReferences": references}});
        store.create(kind, object).expect("created")
    }

    async fn settle(store: &Store, ns: &str) {
        let mut gc = GarbageCollector::new(store.clone());
        for _ in 0..4 {
            gc.reconcile(&Key::new(ns, "")).await.expect("done");
        }
    }

    #[tokio::test]
    async fn dependents_go_when_the_last_owner_went() {
        let store = Store::in_memory();
        let a = make(&store, &kinds::DEPLOYMENT, "default", "a", &[]);
        let b = make(&store, &kinds::DEPLOYMENT, "default", "b", &[]);
        make(&store, &kinds::REPLICA_SET, "default", "both", &[&a, &b]);
        let set = make(&store, &kinds::REPLICA_SET, "default", "only-a", &[&a]);
        make(&store, &kinds::POD, "default", "pod", &[&set]);
        settle(&store, "default").await;
        assert_eq!(
            store.list(&kinds::REPLICA_SET, None).0.len(),
            2,
            "nothing is orphaned yet"
        );
        store
            .delete(&kinds::DEPLOYMENT, "default", "a")
            .expect("deleted");
        settle(&store, "default").await;
        let left: Vec<String> = store
            .list(&kinds::REPLICA_SET, None)
            .0
            .iter()
            .map(|o| o.name().to_owned())
            .collect();
        assert_eq!(left, ["both"]);
        let pod = store
            .get(&kinds::POD, "default", "pod")
            .expect("pods end gracefully");
        assert!(pod.is_deleting());
    }

    #[tokio::test]
    async fn a_namespace_goes_after_its_contents() {
        let store = Store::in_memory();
        let ns = json!({"metadata": {"name": "x"}});
        store.create(&kinds::NAMESPACE, ns).expect("created");
        make(&store, &kinds::CONFIG_MAP, "x", "c", &[]);
        make(&store, &kinds::POD, "x", "p", &[]);
        store
            .mark_deleted(&kinds::NAMESPACE, "", "x", 0)
            .expect("marked");
        settle(&store, "x").await;
        let namespace = store
            .get(&kinds::NAMESPACE, "", "x")
            .expect("waits for the pod");
        assert_eq!(namespace.value()["status"]["phase"], "Terminating");
        assert!(store.get(&kinds::CONFIG_MAP, "x", "c").is_none());
        store
            .delete(&kinds::POD, "x", "p")
            .expect("the kubelet is done");
        settle(&store, "x").await;
        assert!(store.get(&kinds::NAMESPACE, "", "x").is_none());
    }
}
