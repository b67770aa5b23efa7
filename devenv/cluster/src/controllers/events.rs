//! Events: what happened to an object, told once and counted after that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tracing::debug;

use crate::kinds;
use crate::store::{Object, Store, StoreError};

/// How many Events are kept; the oldest go first (Kubernetes keeps them for an hour).
const KEPT: usize = 500;

/// Whether an Event tells of the ordinary course or of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The ordinary course.
    Normal,
    /// Something that somebody should look at.
    Warning,
}

/// Writes Events; cheap to clone, all clones share their counts.
#[derive(Debug, Clone)]
pub struct Recorder {
    store: Store,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Event name and namespace by what it says.
    names: HashMap<Said, (String, String)>,
    order: VecDeque<Said>,
    loaded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Said {
    uid: String,
    component: String,
    reason: String,
    message: String,
}

impl Recorder {
    /// A recorder for this store.
    pub fn new(store: Store) -> Recorder {
        Recorder {
            store,
            known: Arc::default(),
        }
    }

    /// Records that something happened to `object`. The same words again only raise the count.
    ///
    /// Never fails: an Event that cannot be written is logged.
    pub fn record(
        &self,
        object: &Object,
        component: &str,
        kind: EventType,
        reason: &str,
        message: &str,
    ) {
        match self.try_record(object, component, kind, reason, message) {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(error) => debug!(
                reason,
                error = &error as &dyn std::error::Error,
                "an Event could not be recorded"
            ),
        }
    }

    fn try_record(
        &self,
        object: &Object,
        component: &str,
        kind: EventType,
        reason: &str,
        message: &str,
    ) -> Result<(), StoreError> {
        let said = Said {
            uid: object.uid().to_owned(),
            component: component.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let now = crate::time::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.loaded {
            known.loaded = true;
            self.load(&mut known);
        }
        if let Some((ns, name)) = known.names.get(&said) {
            let counted = self.store.update(&kinds::EVENT, ns, name, |event| {
                let count = event["count"].as_i64().unwrap_or(1) + 1;
                event["count"] = json!(count);
                event["lastTimestamp"] = json!(now);
                Ok(())
            });
            match counted {
                Ok(_) => return Ok(()),
                // Somebody deleted it: it is told anew.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let ns = if object.namespace().is_empty() {
            "default"
        } else {
            object.namespace()
        };
        if self
            .store
            .get(&kinds::NAMESPACE, "", ns)
            .is_none_or(|n| n.is_deleting())
        {
            // It would outlive its namespace.
            return Ok(());
        }
        let event = event(object, ns, component, kind, reason, message, &now);
        let created = self.store.create(&kinds::EVENT, event)?;
        let place = (ns.to_owned(), created.name().to_owned());
        if known.names.insert(said.clone(), place).is_none() {
            known.order.push_back(said);
        }
        while known.order.len() > KEPT
            && let Some(oldest) = known.order.pop_front()
        {
            if let Some((ns, name)) = known.names.remove(&oldest) {
                match self.store.delete(&kinds::EVENT, &ns, &name) {
                    Ok(_) | Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Events of an earlier run count on and grow old like the others.
    fn load(&self, known: &mut Known) {
        let (mut events, _) = self.store.list(&kinds::EVENT, None);
        events.sort_by_key(|e| e.resource_version());
        for event in events {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let value = event.value();
            let said = Said {
                uid: text(&value["involvedObject"]["uid"]),
                component: text(&value["source"]["component"]),
                reason: text(&value["reason"]),
                message: text(&value["message"]),
            };
            let place = (event.namespace().to_owned(), event.name().to_owned());
            if known.names.insert(said.clone(), place).is_none() {
                known.order.push_back(said);
            }
        }
    }
}

fn event(
    object: &Object,
    ns: &str,
    component: &str,
    kind: EventType,
    reason: &str,
    message: &str,
    now: &str,
) -> Value {
    let mut involved = json!({
        "apiVersion": object.kind().api_version(),
        "kind": object.kind().kind,
        "name": object.name(),
        "uid": object.uid(),
        "resourceVersion": object.resource_version().to_string(),
    });
    if !object.namespace().is_empty() {
        involved["namespace"] = json!(object.namespace());
    }
    json!({
        "metadata": {"namespace": ns, "generateName": format!("{}.", object.name())},
        "involvedObject": involved,
        "type": match kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
        "reason": reason,
        "message": message,
        "source": {"component": component, "host": super::node::NAME},
        "reportingComponent": component,
        "reportingInstance": super::node::NAME,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "eventTime": null,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(store: &Store) -> Arc<Object> {
        let pod = json!({"metadata": {"name": "p", "namespace": "default"}});
        store.create(&kinds::POD, pod).expect("created")
    }

    fn events(store: &Store) -> Vec<Arc<Object>> {
        store.list(&kinds::EVENT, None).0
    }

    #[test]
    fn the_same_words_are_counted_across_restarts() {
        let store = Store::in_memory();
        let pod = pod(&store);
        for _ in 0..2 {
            Recorder::new(store.clone()).record(
                &pod,
                "kubelet",
                EventType::Warning,
                "BackOff",
                "again",
            );
        }
        Recorder::new(store.clone()).record(
            &pod,
            "kubelet",
            EventType::Warning,
            "BackOff",
            "other",
        );
        let mut counts: Vec<i64> = events(&store)
            .iter()
            .filter_map(|e| e.value()["count"].as_i64())
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn old_events_make_room() {
        let store = Store::in_memory();
        let pod = pod(&store);
        let recorder = Recorder::new(store.clone());
        for n in 0..KEPT + 20 {
            recorder.record(
                &pod,
                "kubelet",
                EventType::Normal,
                "Pulled",
                &format!("n{n}"),
            );
        }
        let left = events(&store);
        assert_eq!(left.len(), KEPT);
        assert!(left.iter().all(|e| e.value()["message"] != "n0"));
    }
}
