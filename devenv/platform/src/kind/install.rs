//! An ingress controller as the objects of its manifest: applied, and waited for.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::DeleteParams;
use kube::runtime::wait::await_condition;
use kube::runtime::wait::conditions::is_deleted;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::error::KindError;
use crate::kubernetes::{Kinds, apply};
use crate::pods::{is_available, pods_say};

/// How long the controller may take to get ready.
const CONTROLLER: Duration = Duration::from_secs(180);

/// Applies the objects of a controller and waits until its Jobs are done and its Deployments
/// are available.
///
/// # Errors
/// [`KindError::Refused`] what the API refused, [`KindError::Ingress`] what did not get ready.
pub async fn install(client: &Client, mut objects: Vec<Value>) -> Result<(), KindError> {
    let kinds = Kinds::ask(client).await;
    let kinds = kinds.map_err(|e| refused(format!("asking for the API's kinds: {e}")))?;
    // Stable: Jobs change what else is there, and make what a controller's pod waits for.
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some("Deployment") => 2,
        Some("Job") => 1,
        _ => 0,
    });
    let deadline = Instant::now() + CONTROLLER;
    let (mut jobs, mut deployments) = (Vec::new(), Vec::new());
    for object in &mut objects {
        say_protocols(object);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let metadata = &object["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let api = kinds.api(client, (&version, &kind), &namespace);
        let api = api.ok_or_else(|| {
            refused(format!(
                "{kind} {name}: the cluster does not serve {version} {kind}"
            ))
        })?;
        if kind == "Job" {
            let api: Api<Job> = Api::namespaced(client.clone(), &namespace);
            let applied = timeout_at(deadline, apply_job(&api, &name, object)).await;
            let applied = applied.unwrap_or_else(|_| Err("its end is not to be had".to_owned()));
            applied.map_err(|e| refused(format!("{kind} {name}: {e}")))?;
            jobs.push((namespace, name));
            continue;
        }
        let applied = apply(&api, &name, object).await;
        let applied = applied.map_err(|e| refused(format!("{kind} {name}: {e}")))?;
        if kind == "Deployment" {
            deployments.push((namespace, name, applied.metadata.generation.unwrap_or(0)));
        }
    }
    for (namespace, name) in jobs {
        let api: Api<Job> = Api::namespaced(client.clone(), &namespace);
        let ended = timeout_at(deadline, await_condition(api, &name, has_ended)).await;
        match ended {
            Ok(Ok(job)) if !job.as_ref().is_some_and(has_failed) => {}
            Ok(Err(e)) => return Err(refused(format!("waiting for Job {name}: {e}"))),
            Ok(Ok(_)) => {
                let said = pods_say(client, &namespace).await;
                return Err(refused(format!("Job {name} failed: {said}")));
            }
            Err(_) => return Err(late(client, &namespace).await),
        }
    }
    for (namespace, name, generation) in deployments {
        let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        let is_ready = move |found: Option<&Deployment>| {
            found.is_some_and(|deployment| is_available(deployment, generation))
        };
        match timeout_at(deadline, await_condition(api, &name, is_ready)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(refused(format!("waiting for Deployment {name}: {e}"))),
            Err(_) => return Err(late(client, &namespace).await),
        }
    }
    Ok(())
}

fn refused(reason: String) -> KindError {
    KindError::Refused { reason }
}

async fn late(client: &Client, namespace: &str) -> KindError {
    KindError::Ingress {
        reason: pods_say(client, namespace).await,
        seconds: CONTROLLER.as_secs(),
    }
}

/// Says of every port that it is TCP's where it is said to be nobody's: the API would take it
/// for that, but in Kubernetes before 1.21 server-side apply refuses a port without it.
fn say_protocols(object: &mut Value) {
    let say = |ports: &mut Value| {
        for port in ports.as_array_mut().into_iter().flatten() {
            if port.is_object() && port["protocol"].is_null() {
                port["protocol"] = json!("TCP");
            }
        }
    };
    if object["kind"] == "Service"
        && let Some(ports) = object.pointer_mut("/spec/ports")
    {
        say(ports);
    }
    for list in ["initContainers", "containers"] {
        let containers = object.pointer_mut(&format!("/spec/template/spec/{list}"));
        let containers = containers.and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(ports) = container.get_mut("ports") {
                say(ports);
            }
        }
    }
}

/// Applies a Job: one that is done or under way stays if it is the same; what can't be changed
/// into this one, or has failed, is replaced.
async fn apply_job(api: &Api<Job>, name: &str, object: &Value) -> Result<(), String> {
    let text = |e: kube::Error| e.to_string();
    let known = api.get_opt(name).await.map_err(text)?;
    if let Some(job) = &known {
        let applied = match has_failed(job) {
            true => Err(None),
            false => apply(api, name, object).await.map(drop).map_err(Some),
        };
        match applied {
            Ok(()) => return Ok(()),
            // A Job's template is immutable.
            Err(None) => {}
            Err(Some(kube::Error::Api(status))) if status.code == 422 => {}
            Err(Some(e)) => return Err(text(e)),
        }
        let uid = job.uid().unwrap_or_default();
        let deleted = api.delete(name, &DeleteParams::background()).await;
        match deleted {
            Ok(_) => {}
            // It has just been removed.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(e) => return Err(text(e)),
        }
        let gone = await_condition(api.clone(), name, is_deleted(&uid)).await;
        gone.map_err(|e| e.to_string())?;
    }
    apply(api, name, object).await.map(drop).map_err(text)
}

fn has(job: &Job, condition: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c.type_ == condition && c.status == "True")
}

fn has_failed(job: &Job) -> bool {
    has(job, "Failed")
}

/// A Job that was applied and is gone was removed after its end
/// (`ttlSecondsAfterFinished`).
fn has_ended(job: Option<&Job>) -> bool {
    job.is_none_or(|job| has(job, "Complete") || has_failed(job))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_without_a_protocol_are_tcps() {
        let mut service = json!({"kind": "Service", "spec": {"ports": [
            {"port": 443}, {"port": 53, "protocol": "UDP"},
        ]}});
        say_protocols(&mut service);
        assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
        assert_eq!(service["spec"]["ports"][1]["protocol"], "UDP");
        let mut pods = json!({"kind": "Deployment", "spec": {"template": {"spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 80}]}, {"name": "d"}],
        }}}});
        let mut expected = pods.clone();
        expected["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] =
            json!("TCP");
        say_protocols(&mut pods);
        assert_eq!(pods, expected);
        let mut none = json!({"kind": "Service", "spec": {"externalName": "x"}});
        let same = none.clone();
        say_protocols(&mut none);
        assert_eq!(none, same);
    }

    #[test]
    fn a_job_has_ended_when_it_says_so_or_is_gone() {
        let job = |condition: &str| -> Job {
            serde_json::from_value(json!({
                "metadata": {"name": "j"},
                "status": {"conditions": [{"type": condition, "status": "True"}]},
            }))
            .unwrap()
        };
        assert!(has_ended(None));
        assert!(has_ended(Some(&job("Complete"))) && !has_failed(&job("Complete")));
        assert!(has_ended(Some(&job("Failed"))) && has_failed(&job("Failed")));
        assert!(!has_ended(Some(&job("Suspended"))));
    }
}
