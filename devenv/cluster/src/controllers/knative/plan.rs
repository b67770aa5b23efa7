//! What a Knative Service (a Cloud Run service) becomes. Pure.
//!
//! Source: the Cloud Run container contract and Knative's `serving.knative.dev/v1`.

use serde_json::{Value, json};

use crate::controllers::owner::hash_of;

/// Label that names the Knative Service of a pod, a Deployment or a Service.
pub const SERVICE_LABEL: &str = "serving.knative.dev/service";
/// Label that names the revision.
pub const REVISION_LABEL: &str = "serving.knative.dev/revision";
/// Annotation that remembers which template a Deployment was made from.
pub const TEMPLATE: &str = "devenv.dev/knative-template";
/// The port that Cloud Run takes when the container names none.
const PORT: i64 = 8080;

/// What is made for a Knative Service.
#[derive(Debug, PartialEq)]
pub struct Made {
    /// Name of the revision.
    pub revision: String,
    /// Hash of the template.
    pub template: String,
    /// The Deployment.
    pub deployment: Value,
    /// The Service.
    pub service: Value,
}

/// Makes the Deployment and the Service, which belong to `owner` where there is one. `existing`
/// is the Deployment as it is: its template's hash decides whether there is a new revision.
///
/// # Errors
/// A sentence that says what the template lacks.
pub fn plan(
    ksvc: &Value,
    owner: Option<&Value>,
    existing: Option<&Value>,
    around: &[(String, String)],
) -> Result<Made, String> {
    let name = ksvc["metadata"]["name"].as_str().unwrap_or_default();
    let template = &ksvc["spec"]["template"];
    let spec = &template["spec"];
    let Some(containers) = spec["containers"].as_array().filter(|c| !c.is_empty()) else {
        return Err("spec.template.spec.containers must have a container".to_owned());
    };
    let hash = hash_of(&json!([template, around]));
    let before = existing.map(|d| &d["metadata"]);
    let number = before
        .and_then(|m| m["labels"][REVISION_LABEL].as_str())
        .map_or(0, revision_number);
    let same = before.is_some_and(|m| m["annotations"][TEMPLATE] == hash.as_str());
    let revision = template["metadata"]["name"].as_str().map_or_else(
        || format!("{name}-{:05}", if same { number } else { number + 1 }),
        str::to_owned,
    );

    // The one container that takes requests is the one with a port, or the only one.
    let ingress = containers
        .iter()
        .position(|c| c["ports"].as_array().is_some_and(|p| !p.is_empty()))
        .unwrap_or(0);
    let port = containers[ingress]["ports"][0]["containerPort"]
        .as_i64()
        .unwrap_or(PORT);
    let mut pod = spec.clone();
    for field in [
        "containerConcurrency",
        "timeoutSeconds",
        "responseStartTimeoutSeconds",
        "idleTimeoutSeconds",
    ] {
        if let Some(pod) = pod.as_object_mut() {
            pod.remove(field);
        }
    }
    for (index, container) in pod["containers"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let taken = index == ingress;
        complete(container, name, &revision, taken.then_some(port), around);
    }
    let labels = json!({SERVICE_LABEL: name, REVISION_LABEL: revision, "serving.knative.dev/configuration": name, "app": name});
    let mut pod_labels = template["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    pod_labels.extend(labels.as_object().cloned().unwrap_or_default());
    let annotations = template["metadata"]["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let least = [
        "autoscaling.knative.dev/min-scale",
        "autoscaling.knative.dev/minScale",
    ]
    .iter()
    .find_map(|key| annotations.get(*key)?.as_str()?.parse::<i64>().ok())
    .unwrap_or(1)
    .max(1);
    let metadata = |extra: Value| {
        let mut metadata = json!({
            "name": name,
            "namespace": ksvc["metadata"]["namespace"],
            "labels": labels,
        });
        if let Some(owner) = owner {
            metadata["ownerReferences"] = json!([owner]);
        }
        if extra.is_object() {
            metadata["annotations"] = extra;
        }
        metadata
    };
    Ok(Made {
        deployment: json!({
            "metadata": metadata(json!({TEMPLATE: hash})),
            "spec": {
                // One at least: nothing here wakes a service that was scaled to zero.
                "replicas": least,
                "selector": {"matchLabels": {SERVICE_LABEL: name}},
                // Every request of the old revision is answered while the new one starts.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": pod},
            },
        }),
        service: json!({
            "metadata": metadata(Value::Null),
            "spec": {
                "selector": {SERVICE_LABEL: name},
                "ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}],
            },
        }),
        revision,
        template: hash,
    })
}

fn revision_number(revision: &str) -> u32 {
    revision
        .rsplit('-')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Gives a container what Cloud Run gives it.
fn complete(
    container: &mut Value,
    name: &str,
    revision: &str,
    port: Option<i64>,
    around: &[(String, String)],
) {
    if container["name"].as_str().unwrap_or_default().is_empty() {
        container["name"] = json!("user-container");
    }
    let own = container["env"].as_array().cloned().unwrap_or_default();
    let mut env: Vec<Value> = Vec::new();
    let mut add = |name: &str, value: &str| {
        // What the manifest sets wins, except for what Cloud Run reserves.
        env.push(json!({"name": name, "value": value}));
    };
    for (key, value) in around {
        add(key, value);
    }
    if let Some(port) = port {
        add("PORT", &port.to_string());
    }
    for (key, value) in [
        ("K_SERVICE", name),
        ("K_REVISION", revision),
        ("K_CONFIGURATION", name),
    ] {
        add(key, value);
    }
    let reserved = ["PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"];
    env.extend(
        own.into_iter()
            .filter(|e| !e["name"].as_str().is_some_and(|n| reserved.contains(&n))),
    );
    container["env"] = Value::Array(env);
    if let Some(port) = port {
        let named = container["ports"][0]["name"]
            .as_str()
            .unwrap_or("http1")
            .to_owned();
        container["ports"] = json!([{"name": named, "containerPort": port, "protocol": "TCP"}]);
        if container["readinessProbe"].is_null() {
            container["readinessProbe"] = json!({"tcpSocket": {"port": port}});
        }
    }
}

/// What the status is made from.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The revision that is asked for.
    pub revision: &'a str,
    /// The Deployment's object.
    pub deployment: &'a Value,
    /// Whether requests go to pods of that revision and to no others.
    pub moved: bool,
    /// Where the service is reached from the host, if it is.
    pub url: Option<String>,
    /// Its address in the cluster.
    pub address: String,
    /// `metadata.generation` of the Knative Service.
    pub generation: i64,
}

/// The whole `.status`.
pub fn status(seen: &Seen<'_>, previous: &Value, now: &str) -> Value {
    let status = &seen.deployment["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = seen.deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let current = status["observedGeneration"] == seen.deployment["metadata"]["generation"];
    let rolled = seen.moved
        && current
        && count("updatedReplicas") >= wanted
        && count("availableReplicas") >= wanted
        && count("replicas") <= wanted;
    let failed = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["reason"] == "ProgressDeadlineExceeded");
    let latest_ready = if rolled {
        Some(seen.revision)
    } else {
        previous["latestReadyRevisionName"].as_str()
    };
    let configured = match (rolled, failed) {
        (true, _) => ("True", None),
        (false, Some(why)) => (
            "False",
            Some((
                "RevisionFailed",
                why["message"].as_str().unwrap_or_default().to_owned(),
            )),
        ),
        (false, None) => (
            "Unknown",
            Some((
                "Deploying",
                format!("Revision {:?} is not ready yet.", seen.revision),
            )),
        ),
    };
    let routed = match (&seen.url, latest_ready) {
        (None, _) => {
            let why = "no host listener is left for this service: devenv was given fewer than there are Knative Services";
            ("False", Some(("NoListener", why.to_owned())))
        }
        (_, None) => (
            "Unknown",
            Some(("RevisionMissing", "no revision is ready yet".to_owned())),
        ),
        (Some(_), Some(_)) => ("True", None),
    };
    let ready = match (configured.0, routed.0) {
        ("True", "True") => ("True", None),
        ("False", _) | ("True", _) => {
            if configured.0 == "False" {
                configured.clone()
            } else {
                routed.clone()
            }
        }
        _ => {
            if routed.0 == "False" {
                routed.clone()
            } else {
                configured.clone()
            }
        }
    };
    let condition = |kind: &str, (status, why): (&str, Option<(&str, String)>)| {
        let mut condition = json!({"type": kind, "status": status});
        if let Some((reason, message)) = why {
            condition["reason"] = json!(reason);
            condition["message"] = json!(message);
        }
        let before = previous["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|c| c["type"] == kind));
        let same = before.filter(|b| b["status"] == condition["status"]);
        condition["lastTransitionTime"] =
            same.map_or_else(|| json!(now), |b| b["lastTransitionTime"].clone());
        condition
    };
    let mut out = json!({
        "observedGeneration": seen.generation,
        "latestCreatedRevisionName": seen.revision,
        "address": {"url": seen.address},
        "conditions": [condition("ConfigurationsReady", configured), condition("Ready", ready), condition("RoutesReady", routed)],
    });
    if let Some(url) = &seen.url {
        out["url"] = json!(url);
    }
    if let Some(revision) = latest_ready {
        out["latestReadyRevisionName"] = json!(revision);
        out["traffic"] =
            json!([{"latestRevision": true, "percent": 100, "revisionName": revision}]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ksvc(container: Value) -> Value {
        json!({
            "metadata": {"name": "frontend", "namespace": "default"},
            "spec": {"template": {"spec": {"containerConcurrency": 80, "containers": [container]}}},
        })
    }

    fn env(made: &Made) -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let container = &made.deployment["spec"]["template"]["spec"]["containers"][0];
        container["env"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|e| (text(&e["name"]), text(&e["value"])))
            .collect()
    }

    #[test]
    fn the_contract_of_cloud_run() {
        let object = ksvc(
            json!({"image": "frontend", "env": [{"name": "API", "value": "$(INGRESS_URL)/api3"}, {"name": "PORT", "value": "1"}]}),
        );
        let made = plan(
            &object,
            None,
            None,
            &[("INGRESS_URL".into(), "http://i".into())],
        )
        .expect("made");
        assert_eq!(made.revision, "frontend-00001");
        let pairs: Vec<(String, String)> = env(&made);
        let expected = [
            ("INGRESS_URL", "http://i"),
            ("PORT", "8080"),
            ("K_SERVICE", "frontend"),
            ("K_REVISION", "frontend-00001"),
            ("K_CONFIGURATION", "frontend"),
            ("API", "$(INGRESS_URL)/api3"),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let pod = &made.deployment["spec"]["template"]["spec"];
        assert_eq!(pod["containerConcurrency"], Value::Null);
        assert_eq!(pod["containers"][0]["ports"][0]["containerPort"], 8080);
        assert_eq!(made.service["spec"]["ports"][0]["targetPort"], 8080);
    }

    #[test]
    fn a_changed_template_is_a_new_revision_and_nothing_else_is() {
        let first = plan(&ksvc(json!({"image": "a"})), None, None, &[]).expect("made");
        let again = plan(
            &ksvc(json!({"image": "a"})),
            None,
            Some(&first.deployment),
            &[],
        )
        .expect("made");
        assert_eq!(again.revision, "frontend-00001");
        let second = plan(
            &ksvc(json!({"image": "b"})),
            None,
            Some(&first.deployment),
            &[],
        )
        .expect("made");
        assert_eq!(second.revision, "frontend-00002");
    }

    #[test]
    fn ready_when_the_new_revision_serves() {
        let mut deployment = json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"observedGeneration": 1}});
        let run_when = |moved: bool, deployment: &Value, url: Option<&str>, previous: &Value| {
            let seen = Seen {
                revision: "f-00001",
                moved,
                deployment,
                url: url.map(str::to_owned),
                address: "http://f".into(),
                generation: 1,
            };
            status(&seen, previous, "now")
        };
        let run = |deployment: &Value, url: Option<&str>, previous: &Value| {
            run_when(true, deployment, url, previous)
        };
        let ready = |status: &Value| {
            status["conditions"][1]["status"]
                .as_str()
                .expect("text")
                .to_owned()
        };
        let first = run(&deployment, Some("http://h"), &Value::Null);
        assert_eq!(
            (ready(&first).as_str(), &first["latestReadyRevisionName"]),
            ("Unknown", &Value::Null)
        );
        deployment["status"] = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        // Rolled out, but the old revision may still be asked.
        let early = run_when(false, &deployment, Some("http://h"), &first);
        assert_eq!(ready(&early), "Unknown");
        let second = run(&deployment, Some("http://h"), &first);
        assert_eq!(
            (
                ready(&second).as_str(),
                second["latestReadyRevisionName"].as_str(),
                second["url"].as_str()
            ),
            ("True", Some("f-00001"), Some("http://h"))
        );
        assert_eq!(ready(&run(&deployment, None, &second)), "False");
        deployment["status"]["updatedReplicas"] = json!(0);
        deployment["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "late"}]);
        assert_eq!(ready(&run(&deployment, Some("http://h"), &second)), "False");
    }
}
