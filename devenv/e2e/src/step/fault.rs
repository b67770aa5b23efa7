//! Disturbances: a pod deleted through the API, others by an annotation that the local
//! runtimes honour, the database stopped. All of them end with the test.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
    core::{ApiResource, DynamicObject, Selector},
};
use serde::{Deserialize as _, Serialize};

mod imposed;
mod leads;

use imposed::Faults;

use super::{Context, StepResult, http::chain};
use crate::{
    capture::Answer,
    environment::DatabaseControl,
    suite::spec::{DelaySpec, FaultSpec},
};

/// The annotation of a pod: a JSON array of [`PodFault`]s.
pub const ANNOTATION: &str = "devenv.dev/fault";
/// The pod's condition that says what became of it.
const CONDITION: &str = "devenv.dev/Fault";
/// How long the runtime may take to say so.
const PATIENCE: Duration = Duration::from_secs(10);
const SESSION: &str = "faults";
/// What lasts only for the step.
const UNNAMED: &str = "";

/// What a pod suffers while its annotation says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PodFault {
    /// Its processes are stopped.
    Pause,
    /// Nothing gets through between it and a Service.
    Cut {
        /// Its name in the pod's namespace.
        service: String,
    },
    /// What it sends to a Service takes longer.
    Delay {
        /// Its name in the pod's namespace.
        service: String,
        /// By so many milliseconds.
        millis: u64,
    },
    /// Nothing more fits where it writes.
    FillDisk,
}

type Failure = Box<StepResult>;

/// Imposes or lifts a fault.
pub async fn run(spec: &FaultSpec, context: &mut Context) -> StepResult {
    match act(spec, context).await {
        Ok(seen) => StepResult {
            seen: Some(seen.clone()),
            answer: Answer {
                body: Some(seen),
                ..Answer::default()
            },
            ..StepResult::default()
        },
        Err(failure) => *failure,
    }
}

async fn act(spec: &FaultSpec, context: &mut Context) -> Result<String, Failure> {
    let environment = context.environment.clone();
    let (client, namespace) = (&environment.client, environment.namespace.as_str());
    if let Some(workload) = &spec.delete_pod {
        return delete_pod(client, namespace, workload.as_str()).await;
    }
    if context.sessions.get::<Faults>(SESSION).is_none() {
        let faults = Faults::new(client.clone(), namespace.to_owned());
        context.sessions.insert(SESSION, faults);
    }
    let Some(faults) = context.sessions.get::<Faults>(SESSION) else {
        return Err(Box::new(StepResult::failed(
            "faults",
            "a place to keep them",
            "none",
        )));
    };
    if let Some(name) = &spec.lift {
        if !faults.named.contains_key(name.as_str()) {
            let known: Vec<&str> = faults.named.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            return Err(Box::new(StepResult::failed(
                "lift",
                format!("a fault named {name} in this test"),
                known,
            )));
        }
        faults.lift(name.as_str()).await?;
        return Ok(format!("{name} is lifted"));
    }
    let name = spec
        .until
        .as_ref()
        .map_or(UNNAMED, |name| name.as_str())
        .to_owned();
    if spec.stop_database {
        match environment.database_control.clone() {
            None => return Err(unsupported("stop the database", &environment.target)),
            Some(DatabaseControl::Deployment(namespace, deployment)) => faults
                .stop_database(&name, namespace, deployment)
                .await
                .map_err(api)?,
            Some(DatabaseControl::Switch(switch)) => faults.switch_off(&name, switch).await?,
        }
    } else {
        if !environment.faults {
            return Err(unsupported(
                "pause pods, disturb their network or fill their disk",
                &environment.target,
            ));
        }
        let (workload, fault) = pod_fault(spec)?;
        let pods = pods_of(client, namespace, &workload).await?;
        if pods.is_empty() {
            return Err(no_pod(&workload));
        }
        let names = pods.iter().map(ResourceExt::name_any).collect();
        faults.impose(&name, names, fault).await?;
    }
    if let Some(time) = spec.for_ {
        tokio::time::sleep(time.0).await;
        faults.lift(UNNAMED).await?;
        return Ok(format!("lasted {time}"));
    }
    Ok(format!("stays until {name} is lifted"))
}

/// The workload whose pods suffer, and what.
fn pod_fault(spec: &FaultSpec) -> Result<(String, PodFault), Failure> {
    let service = |to: &str| {
        to.strip_prefix("service/")
            .map(str::to_owned)
            .ok_or_else(|| Box::new(StepResult::failed("to", "service/NAME", to)))
    };
    if let Some(workload) = &spec.pause {
        return Ok((workload.0.clone(), PodFault::Pause));
    }
    if let Some(workload) = &spec.fill_disk {
        return Ok((workload.0.clone(), PodFault::FillDisk));
    }
    if let Some(cut) = &spec.cut {
        let service = service(cut.to.as_str())?;
        return Ok((cut.from.0.clone(), PodFault::Cut { service }));
    }
    if let Some(DelaySpec { from, to, by }) = &spec.delay {
        let service = service(to.as_str())?;
        let millis = u64::try_from(by.0.as_millis()).unwrap_or(u64::MAX);
        return Ok((from.0.clone(), PodFault::Delay { service, millis }));
    }
    Err(Box::new(StepResult::failed("fault", "one", "none")))
}

fn unsupported(what: &str, target: &str) -> Failure {
    Box::new(StepResult::unsupported(format!(
        "the target {target} can't {what}; the local one can"
    )))
}

fn no_pod(workload: &str) -> Failure {
    Box::new(StepResult::failed(
        workload,
        "at least one running pod",
        "none",
    ))
}

fn api(error: impl std::error::Error) -> Failure {
    Box::new(StepResult::failed(
        "Kubernetes API",
        "an answer",
        chain(&error),
    ))
}

fn database(why: String) -> Failure {
    Box::new(StepResult::failed("database", "to stop and start", why))
}

async fn delete_pod(client: &Client, namespace: &str, workload: &str) -> Result<String, Failure> {
    let mut pods = pods_of(client, namespace, workload).await?;
    pods.sort_by_key(|pod| (!is_ready(pod), pod.name_any()));
    let Some(pod) = pods.first() else {
        return Err(no_pod(workload));
    };
    let name = pod.name_any();
    let all: Api<Pod> = Api::namespaced(client.clone(), namespace);
    all.delete(&name, &DeleteParams::default())
        .await
        .map_err(api)?;
    Ok(format!("deleted {name}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref());
    conditions
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A workload's pods that are not on their way out.
async fn pods_of(client: &Client, namespace: &str, workload: &str) -> Result<Vec<Pod>, Failure> {
    let unknown = || {
        Box::new(StepResult::failed(
            "workload",
            "deployment/NAME, statefulset/NAME or daemonset/NAME",
            workload,
        ))
    };
    let (kind, name) = workload.split_once('/').ok_or_else(unknown)?;
    let kind = match kind {
        "deployment" => ApiResource::erase::<Deployment>(&()),
        "statefulset" => ApiResource::erase::<StatefulSet>(&()),
        "daemonset" => ApiResource::erase::<DaemonSet>(&()),
        _ => return Err(unknown()),
    };
    let workloads: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let found = workloads.get(name).await.map_err(api)?;
    let selector = LabelSelector::deserialize(&found.data["spec"]["selector"]).map_err(api)?;
    let selector = Selector::try_from(selector).map_err(api)?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods
        .list(&ListParams::default().labels_from(&selector))
        .await
        .map_err(api)?;
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    Ok(list.items.into_iter().filter(stays).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn annotations_are_as_the_runtime_reads_them() {
        let faults = [
            PodFault::Pause,
            PodFault::Cut {
                service: "db".into(),
            },
            PodFault::Delay {
                service: "db".into(),
                millis: 5,
            },
            PodFault::FillDisk,
        ];
        assert_eq!(
            json!(faults),
            json!([
                { "kind": "pause" },
                { "kind": "cut", "service": "db" },
                { "kind": "delay", "service": "db", "millis": 5 },
                { "kind": "fill-disk" },
            ])
        );
    }
}
