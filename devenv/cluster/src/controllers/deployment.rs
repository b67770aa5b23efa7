//! Deployments: one ReplicaSet for each template, scaled against each other.

pub mod plan;
pub mod status;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::events::{EventType, Recorder};
use super::owner::{controller_of, controller_reference, hash_of};
use super::runtime::{Again, Controller, Key, ReconcileError};
use crate::api;
use crate::kinds::{self, KindRef};
use crate::net::loopback::Loopback;
use crate::store::{Object, Store, StoreError, WatchEvent};
use plan::{Action, Desired, Set, Strategy};

/// Label that tells the ReplicaSets (and their pods) of one Deployment apart.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotation that counts the templates of a Deployment.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

/// The controller of Deployments.
#[derive(Debug)]
pub struct Deployments {
    store: Store,
    recorder: Recorder,
    /// Set where pods share this machine's ports.
    loopback: Option<Arc<Loopback>>,
}

impl Deployments {
    /// A controller on this store.
    pub fn new(store: Store, recorder: Recorder) -> Deployments {
        Deployments {
            store,
            recorder,
            loopback: None,
        }
    }

    /// The same where pods share this machine's ports: those that cannot run twice take turns.
    pub fn on_loopback(self, loopback: Option<Arc<Loopback>>) -> Deployments {
        Deployments { loopback, ..self }
    }

    fn owned(&self, deployment: &Object) -> Vec<Arc<Object>> {
        let (sets, _) = self
            .store
            .list(&kinds::REPLICA_SET, Some(deployment.namespace()));
        sets.into_iter()
            .filter(|set| {
                controller_of(set).is_some_and(|(_, _, uid)| uid == deployment.uid())
                    && !set.is_deleting()
            })
            .collect()
    }

    fn act(
        &self,
        deployment: &Object,
        desired: &Desired,
        action: &Action,
    ) -> Result<(), ReconcileError> {
        let ns = deployment.namespace();
        let tell = |message: &str| {
            self.recorder.record(
                deployment,
                "deployment-controller",
                EventType::Normal,
                "ScalingReplicaSet",
                message,
            );
        };
        match action {
            Action::Create {
                name,
                replicas,
                revision,
            } => {
                let set = replica_set(deployment, desired, name, *replicas, *revision);
                api::create(&self.store, &kinds::REPLICA_SET, set)?;
                self.set_revision(deployment, *revision)?;
                if *replicas > 0 {
                    tell(&format!(
                        "Scaled up replica set {name} from 0 to {replicas}"
                    ));
                }
            }
            Action::Revise { name, revision } => {
                self.store.update(&kinds::REPLICA_SET, ns, name, |set| {
                    annotate(set, REVISION, &revision.to_string());
                    Ok(())
                })?;
                self.set_revision(deployment, *revision)?;
            }
            Action::Scale { name, from, to } => {
                self.store.update(&kinds::REPLICA_SET, ns, name, |set| {
                    set["spec"]["replicas"] = json!(to);
                    annotate(
                        set,
                        "deployment.kubernetes.io/desired-replicas",
                        &desired.replicas.to_string(),
                    );
                    Ok(())
                })?;
                let direction = if to > from { "up" } else { "down" };
                tell(&format!(
                    "Scaled {direction} replica set {name} from {from} to {to}"
                ));
            }
            Action::SetMinReady { name, seconds } => {
                self.store.update(&kinds::REPLICA_SET, ns, name, |set| {
                    set["spec"]["minReadySeconds"] = json!(seconds);
                    Ok(())
                })?;
            }
            Action::Delete { name } => match self.store.delete(&kinds::REPLICA_SET, ns, name) {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }

    fn set_revision(&self, deployment: &Object, revision: i64) -> Result<(), StoreError> {
        let (ns, name) = (deployment.namespace(), deployment.name());
        self.store.update(&kinds::DEPLOYMENT, ns, name, |value| {
            annotate(value, REVISION, &revision.to_string());
            Ok(())
        })?;
        Ok(())
    }

    fn observe(&self, deployment: &Object) -> Vec<Set> {
        let (pods, _) = self.store.list(&kinds::POD, Some(deployment.namespace()));
        self.owned(deployment)
            .iter()
            .map(|set| {
                let pods = pods
                    .iter()
                    .filter(|pod| controller_of(pod).is_some_and(|(_, _, uid)| uid == set.uid()))
                    .filter(|pod| {
                        !matches!(
                            pod.value()["status"]["phase"].as_str(),
                            Some("Succeeded" | "Failed")
                        )
                    })
                    .count();
                observe_set(set, pods)
            })
            .collect()
    }
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::POD]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        let owner = |object: &Object, kind: &str| {
            controller_of(object)
                .filter(|(k, _, _)| *k == kind)
                .map(|(_, name, _)| Key::new(object.namespace(), name))
        };
        if *object.kind() == kinds::DEPLOYMENT {
            vec![Key::of(object)]
        } else if *object.kind() == kinds::REPLICA_SET {
            owner(object, "Deployment").into_iter().collect()
        } else if event.change == crate::store::Change::Deleted {
            // Only the end of a pod matters here: a Recreate waits for it.
            owner(object, "ReplicaSet")
                .and_then(|set| {
                    self.store
                        .get(&kinds::REPLICA_SET, &set.namespace, &set.name)
                })
                .and_then(|set| owner(&set, "Deployment"))
                .into_iter()
                .collect()
        } else {
            Vec::new()
        }
    }

    fn all(&self) -> Vec<Key> {
        self.store
            .list(&kinds::DEPLOYMENT, None)
            .0
            .iter()
            .map(|d| Key::of(d))
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let Some(object) = self
            .store
            .get(&kinds::DEPLOYMENT, &key.namespace, &key.name)
        else {
            return Ok(None);
        };
        if object.is_deleting() {
            return Ok(None);
        }
        let typed: Deployment = object.typed()?;
        let spec = typed.spec.unwrap_or_default();
        let mut desired = desired(&object, &spec)?;
        let sets = self.observe(&object);
        let turn = self.take_turns(&object, &mut desired, &sets).await;
        for action in plan::plan(&desired, &sets) {
            self.act(&object, &desired, &action)?;
        }
        let sets = self.observe(&object);
        let deadline = spec.progress_deadline_seconds.unwrap_or(600);
        let context = status::Context {
            generation: typed.metadata.generation.unwrap_or_default(),
            previous: object.value()["status"].clone(),
            // Kubernetes takes the largest 32-bit number for "no deadline".
            deadline: (deadline != i32::MAX)
                .then(|| Duration::from_secs(u64::try_from(deadline).unwrap_or(600))),
            now: Timestamp::now(),
        };
        let (status, again) = status::status(&desired, &sets, &context);
        self.store
            .update_status(&kinds::DEPLOYMENT, &key.namespace, &key.name, status)?;
        Ok(turn.into_iter().chain(again).min())
    }
}

fn desired(object: &Object, spec: &DeploymentSpec) -> Result<Desired, ReconcileError> {
    let replicas = spec.replicas.unwrap_or(1).max(0);
    let rolling = spec
        .strategy
        .as_ref()
        .and_then(|s| s.rolling_update.as_ref());
    let strategy = match spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) {
        Some("Recreate") => Strategy::Recreate,
        _ => {
            let text = |value: Option<&IntOrString>| match value {
                None => "25%".to_owned(),
                Some(IntOrString::Int(n)) => n.to_string(),
                Some(IntOrString::String(s)) => s.clone(),
            };
            let surge = text(rolling.and_then(|r| r.max_surge.as_ref()));
            let down = text(rolling.and_then(|r| r.max_unavailable.as_ref()));
            let (max_surge, max_unavailable) = plan::bounds(replicas, &surge, &down).ok_or_else(|| {
                ReconcileError::Other(format!(
                    "maxSurge {surge:?} and maxUnavailable {down:?}: each must be a count or a percentage such as 25%"
                ))
            })?;
            Strategy::Rolling {
                max_surge,
                max_unavailable,
            }
        }
    };
    Ok(Desired {
        name: object.name().to_owned(),
        replicas,
        strategy,
        paused: spec.paused.unwrap_or(false),
        history_limit: spec.revision_history_limit.unwrap_or(10),
        min_ready: spec.min_ready_seconds.unwrap_or(0).into(),
        hash: template_hash(&object.value()["spec"]["template"]),
    })
}

/// The hash of a pod template, without the label that carries it and with its defaults: a
/// template that was stored by an older devenv may lack one.
fn template_hash(template: &Value) -> String {
    let mut owner = json!({"spec": {"template": template}});
    api::defaults::apply(&kinds::REPLICA_SET, &mut owner);
    let mut template = owner["spec"]["template"].take();
    if let Some(meta) = template["metadata"].as_object_mut() {
        meta.remove("creationTimestamp");
        if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
    }
    hash_of(&template)
}

fn observe_set(set: &Object, pods: usize) -> Set {
    let value = set.value();
    let count = |v: &Value| v.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let status = &value["status"];
    Set {
        name: set.name().to_owned(),
        hash: template_hash(&value["spec"]["template"]),
        revision: value["metadata"]["annotations"][REVISION]
            .as_str()
            .and_then(|r| r.parse().ok())
            .unwrap_or(0),
        wanted: count(&value["spec"]["replicas"]),
        min_ready: value["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
        replicas: count(&status["replicas"]),
        ready: count(&status["readyReplicas"]),
        available: count(&status["availableReplicas"]),
        observed: status["observedGeneration"].as_i64() == value["metadata"]["generation"].as_i64(),
        created: value["metadata"]["creationTimestamp"]
            .as_str()
            .and_then(|t| t.parse().ok())
            .unwrap_or_default(),
        pods,
    }
}

fn replica_set(
    deployment: &Object,
    desired: &Desired,
    name: &str,
    replicas: i32,
    revision: i64,
) -> Value {
    let value = deployment.value();
    let mut template = value["spec"]["template"].clone();
    template["metadata"]["labels"][HASH_LABEL] = json!(desired.hash);
    let mut selector = value["spec"]["selector"].clone();
    selector["matchLabels"][HASH_LABEL] = json!(desired.hash);
    let mut annotations = value["metadata"]["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    annotations.insert(
        "deployment.kubernetes.io/desired-replicas".to_owned(),
        json!(desired.replicas.to_string()),
    );
    json!({
        "metadata": {
            "name": name,
            "namespace": deployment.namespace(),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": value["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    })
}

fn annotate(object: &mut Value, key: &str, text: &str) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = json!(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_ignores_defaults_and_its_own_label_and_nothing_else() {
        let template = |labels: Value, more: Value| {
            let mut container = json!({"name": "c", "image": "web"});
            for (key, value) in more.as_object().into_iter().flatten() {
                container[key] = value.clone();
            }
            json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}})
        };
        let hash = template_hash(&template(json!({"app": "web"}), json!({})));
        let labelled = template(json!({"app": "web", HASH_LABEL: "x"}), json!({}));
        assert_eq!(template_hash(&labelled), hash);
        let mut whole = json!({"spec": {"template": labelled}});
        api::defaults::apply(&kinds::DEPLOYMENT, &mut whole);
        assert_eq!(template_hash(&whole["spec"]["template"]), hash);
        let other = template(json!({"app": "web"}), json!({"tty": true}));
        assert_ne!(template_hash(&other), hash);
    }
}
