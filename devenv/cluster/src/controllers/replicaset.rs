//! ReplicaSets: so many pods of one template.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::events::{EventType, Recorder};
use super::owner::{controller_of, controller_reference, selects};
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::api;
use crate::kinds::{self, KindRef};
use crate::store::{Object, Store, StoreError, WatchEvent};
use plan::{Desired, Owner, PodView};

/// The controller of ReplicaSets.
#[derive(Debug)]
pub struct ReplicaSets {
    store: Store,
    recorder: Recorder,
}

impl ReplicaSets {
    /// A controller on this store.
    pub fn new(store: Store, recorder: Recorder) -> ReplicaSets {
        ReplicaSets { store, recorder }
    }

    fn act(&self, set: &Object, plan: &plan::Plan) -> Result<(), ReconcileError> {
        let ns = set.namespace();
        for name in &plan.adopt {
            let owner = controller_reference(set);
            self.store.update(&kinds::POD, ns, name, |pod| {
                match pod["metadata"]["ownerReferences"].as_array_mut() {
                    Some(owners) => owners.push(owner),
                    None => pod["metadata"]["ownerReferences"] = json!([owner]),
                }
                Ok(())
            })?;
        }
        for name in &plan.release {
            self.store.update(&kinds::POD, ns, name, |pod| {
                if let Some(owners) = pod["metadata"]["ownerReferences"].as_array_mut() {
                    owners.retain(|o| o["uid"] != set.uid());
                }
                Ok(())
            })?;
        }
        for _ in 0..plan.create {
            let pod = match api::create(&self.store, &kinds::POD, new_pod(set)) {
                Ok(pod) => pod,
                Err(failure) => {
                    let message = format!("Error creating: {failure}");
                    self.recorder.record(
                        set,
                        "replicaset-controller",
                        EventType::Warning,
                        "FailedCreate",
                        &message,
                    );
                    return Err(failure.into());
                }
            };
            let message = format!("Created pod: {}", pod.name());
            self.recorder.record(
                set,
                "replicaset-controller",
                EventType::Normal,
                "SuccessfulCreate",
                &message,
            );
        }
        for name in &plan.delete {
            end_pod(&self.store, ns, name)?;
            let message = format!("Deleted pod: {name}");
            self.recorder.record(
                set,
                "replicaset-controller",
                EventType::Normal,
                "SuccessfulDelete",
                &message,
            );
        }
        Ok(())
    }
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::REPLICA_SET, &kinds::POD]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        if *object.kind() == kinds::REPLICA_SET {
            return vec![Key::of(object)];
        }
        if let Some((kind, name, _)) = controller_of(object) {
            return if kind == "ReplicaSet" {
                vec![Key::new(object.namespace(), name)]
            } else {
                Vec::new()
            };
        }
        // An orphan: whoever's selector matches looks at it. Its former owner must notice a release too.
        let former = event
            .previous
            .as_ref()
            .and_then(|p| controller_of(p))
            .map(|(_, name, _)| Key::new(object.namespace(), name));
        let (sets, _) = self
            .store
            .list(&kinds::REPLICA_SET, Some(object.namespace()));
        let labels = labels(object.value());
        sets.iter()
            .filter(|set| {
                set.typed::<ReplicaSet>()
                    .is_ok_and(|s| s.spec.is_some_and(|s| selects(&s.selector, Some(&labels))))
            })
            .map(|set| Key::of(set))
            .chain(former)
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        self.store
            .list(&kinds::REPLICA_SET, None)
            .0
            .iter()
            .map(|s| Key::of(s))
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let Some(set) = self
            .store
            .get(&kinds::REPLICA_SET, &key.namespace, &key.name)
        else {
            return Ok(None);
        };
        let typed: ReplicaSet = set.typed()?;
        let spec = typed.spec.unwrap_or_default();
        let template_labels = labels(&set.value()["spec"]["template"]);
        let (pods, _) = self.store.list(&kinds::POD, Some(&key.namespace));
        let views: Vec<PodView> = pods
            .iter()
            .map(|pod| view(pod, &set, &spec.selector, &template_labels))
            .collect();
        let desired = Desired {
            replicas: usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
            min_ready: Duration::from_secs(
                u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0),
            ),
            generation: typed.metadata.generation.unwrap_or_default(),
            deleting: set.is_deleting(),
        };
        let plan = plan::plan(desired, &views, Timestamp::now());
        self.act(&set, &plan)?;
        self.store
            .update_status(&kinds::REPLICA_SET, &key.namespace, &key.name, plan.status)?;
        Ok(plan.again)
    }
}

/// Ends a pod as a client's DELETE does: with its own grace period.
pub(super) fn end_pod(store: &Store, ns: &str, name: &str) -> Result<(), StoreError> {
    let Some(pod) = store.get(&kinds::POD, ns, name) else {
        return Ok(());
    };
    let grace = pod.value()["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    match store.mark_deleted(&kinds::POD, ns, name, grace) {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn labels(value: &Value) -> std::collections::BTreeMap<String, String> {
    value["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

fn view(
    pod: &Arc<Object>,
    set: &Object,
    selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    template: &std::collections::BTreeMap<String, String>,
) -> PodView {
    let value = pod.value();
    let labels = labels(value);
    let phase = value["status"]["phase"].as_str().unwrap_or("Pending");
    PodView {
        name: pod.name().to_owned(),
        owner: match controller_of(pod) {
            Some((_, _, uid)) if uid == set.uid() => Owner::Me,
            Some(_) => Owner::Other,
            None => Owner::Nobody,
        },
        matches: selects(selector, Some(&labels)),
        fully_labelled: template.iter().all(|(k, v)| labels.get(k) == Some(v)),
        deleting: pod.is_deleting(),
        ended: matches!(phase, "Succeeded" | "Failed"),
        running: phase == "Running",
        ready_since: ready_since(value),
        restarts: value["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["restartCount"].as_i64())
            .sum(),
        created: time_of(&value["metadata"]["creationTimestamp"]),
    }
}

/// Since when a pod is ready, if it is.
pub(super) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let ready = pod["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == "Ready")?;
    (ready["status"] == "True").then(|| time_of(&ready["lastTransitionTime"]))
}

fn time_of(value: &Value) -> Timestamp {
    value
        .as_str()
        .and_then(|t| t.parse().ok())
        .unwrap_or_default()
}

fn new_pod(set: &Object) -> Value {
    let template = &set.value()["spec"]["template"];
    let mut spec = template["spec"].clone();
    // There is one node: the pod needs no scheduler, and one write less.
    spec["nodeName"] = json!(super::node::NAME);
    let mut metadata = json!({
        "generateName": format!("{}-", set.name()),
        "namespace": set.namespace(),
        "ownerReferences": [controller_reference(set)],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    json!({"metadata": metadata, "spec": spec})
}
