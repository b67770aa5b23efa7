//! What decides whether a workload is ready, and what its pods say when it isn't.

use devenv_model::Object;
use devenv_platform::trouble::pod_trouble;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, LogParams},
};

/// A workload that did not get ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// `Deployment api1`.
    pub workload: String,
    /// Where it is written.
    pub origin: String,
    /// What its pods say.
    pub reason: String,
    /// The last lines of its log.
    pub log: Vec<String>,
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.workload, self.origin, self.reason)?;
        for line in &self.log {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// The state of a workload, as its own status tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Of the object, and the one that its controller has acted on.
    pub generation: i64,
    pub observed: i64,
    pub wanted: i32,
    pub available: i32,
    pub complete: bool,
    /// Why it isn't ready, where its status says so.
    pub reason: Option<String>,
}

impl Facts {
    /// Ready when `kubectl rollout status` would say so.
    pub fn of_deployment(d: &Deployment) -> Self {
        let status = d.status.clone().unwrap_or_default();
        let wanted = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let total = status.replicas.unwrap_or(0);
        let available = status.available_replicas.unwrap_or(0);
        Self {
            generation: d.metadata.generation.unwrap_or(0),
            observed: status.observed_generation.unwrap_or(-1),
            wanted,
            available: available.min(updated),
            complete: updated >= wanted && total <= updated && available >= updated,
            reason: None,
        }
    }

    /// Ready when the newest revision is, and takes the requests.
    pub fn of_knative(s: &DynamicObject) -> Self {
        let status = &s.data["status"];
        let condition = status["conditions"]
            .as_array()
            .and_then(|c| c.iter().find(|c| c["type"] == "Ready"));
        let ready = condition.is_some_and(|c| c["status"] == "True")
            && status["latestCreatedRevisionName"] == status["latestReadyRevisionName"];
        Self {
            generation: s.metadata.generation.unwrap_or(0),
            observed: status["observedGeneration"].as_i64().unwrap_or(-1),
            wanted: 1,
            available: i32::from(ready),
            complete: ready,
            reason: condition
                .and_then(|c| c["message"].as_str())
                .map(str::to_owned),
        }
    }

    pub fn ready(&self) -> bool {
        self.observed >= self.generation && self.complete
    }
}

/// The name under which a workload is kept: a Cloud Run service is a `Service`.
pub(crate) fn key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

/// The key of an object of the project.
pub(crate) fn key_of(object: &Object, default_namespace: &str) -> String {
    let namespace = object.namespace().unwrap_or(default_namespace);
    key(object.kind(), namespace, object.name())
}

/// Whether its readiness is waited for.
pub(crate) fn is_followed(object: &Object) -> bool {
    object.kind() == "Deployment" || object.is_cloud_run()
}

/// The pods of a workload: by the Deployment's selector, or by the label that Knative
/// gives the pods of a Service.
pub(crate) fn belongs(object: &Object, pod: &Pod) -> bool {
    let labels = pod.labels();
    if object.is_cloud_run() {
        return labels
            .get("serving.knative.dev/service")
            .map(String::as_str)
            == Some(object.name());
    }
    let selector = object.value()["spec"]["selector"]["matchLabels"].as_object();
    selector.is_some_and(|s| {
        !s.is_empty()
            && s.iter()
                .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
    })
}

/// What keeps a workload's pods from being ready, as the pods tell it.
pub(crate) fn reason_of<'a>(
    object: &Object,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<String> {
    pods.filter(|p| belongs(object, p) && p.metadata.deletion_timestamp.is_none())
        .find_map(pod_trouble)
}

/// All that can be said of a workload that isn't ready: `pods` are those that count.
pub(crate) async fn explain(
    client: &Client,
    object: &Object,
    facts: Option<&Facts>,
    pods: &[Pod],
) -> NotReady {
    let mine = pods.iter().find(|p| belongs(object, p));
    let of_status = facts.and_then(|f| f.reason.clone());
    let reason = match (reason_of(object, pods.iter()), mine) {
        (Some(reason), _) => reason,
        (None, None) => of_status.unwrap_or_else(|| "it has no pod".to_owned()),
        (None, Some(pod)) => match last_warning(client, pod).await {
            Some(warning) => format!("its pod is not ready: {warning}"),
            None => "its pod is not ready".to_owned(),
        },
    };
    let log = match mine {
        Some(pod) => last_lines(client, pod).await,
        None => Vec::new(),
    };
    NotReady {
        workload: format!("{} {}", object.kind(), object.name()),
        origin: object.origin().to_string(),
        reason,
        log,
    }
}

/// What was last said against a pod: a probe's answer, a volume that is not there.
async fn last_warning(client: &Client, pod: &Pod) -> Option<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let list = events.list(&ListParams::default()).await.ok()?;
    list.items
        .into_iter()
        .filter(|e| e.type_.as_deref() == Some("Warning") && e.involved_object.uid == pod.uid())
        // A liveness probe that fails as well says the same with less weight.
        .max_by_key(|e| {
            let readiness = e
                .message
                .as_deref()
                .is_some_and(|m| m.contains("Readiness"));
            (readiness, e.last_timestamp.as_ref().map(|t| t.0))
        })
        .and_then(|e| e.message)
}

async fn last_lines(client: &Client, pod: &Pod) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    for previous in [false, true] {
        let params = LogParams {
            tail_lines: Some(10),
            previous,
            ..LogParams::default()
        };
        if let Ok(text) = api.logs(&pod.name_any(), &params).await
            && !text.trim().is_empty()
        {
            return text.lines().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    // generation, observed, wanted, updated, total, available
    #[case([2, 2, 2, 2, 2, 2], true)]
    #[case([2, 1, 2, 2, 2, 2], false)]
    #[case([2, 2, 2, 1, 2, 2], false)]
    #[case([2, 2, 2, 2, 3, 2], false)]
    #[case([2, 2, 2, 2, 2, 1], false)]
    #[case([1, 1, 0, 0, 0, 0], true)]
    fn rollout(#[case] n: [i32; 6], #[case] ready: bool) {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"generation": n[0]},
            "spec": {"replicas": n[2], "selector": {}, "template": {}},
            "status": {"observedGeneration": n[1], "updatedReplicas": n[3],
                "replicas": n[4], "availableReplicas": n[5]},
        }))
        .unwrap();
        assert_eq!(Facts::of_deployment(&deployment).ready(), ready);
    }

    #[rstest]
    #[case::ready(json!({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}],
        "latestCreatedRevisionName": "a-2", "latestReadyRevisionName": "a-2"}), true)]
    #[case::an_older_one_serves(json!({"observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True"}],
        "latestCreatedRevisionName": "a-2", "latestReadyRevisionName": "a-1"}), false)]
    #[case::not_seen_yet(json!({"observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True"}]}), false)]
    #[case::nothing(json!({}), false)]
    fn revisions(#[case] status: Value, #[case] ready: bool) {
        let service: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "a", "generation": 2}, "status": status,
        }))
        .unwrap();
        assert_eq!(Facts::of_knative(&service).ready(), ready);
    }
}
