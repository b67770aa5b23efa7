//! Disturbances: a pod deleted through the API, others by an annotation that the local
//! runtimes honour, the database stopped. All of them end with the test.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::{Pod, PodCondition},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, Selector},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde::{Deserialize as _, Serialize};
use serde_json::json;

use tokio::time::timeout;

mod leads;

use leads::Lead;

use super::{Context, Session, StepResult, http::chain};
use crate::{
    capture::Answer,
    environment::{DatabaseControl, DatabaseSwitch},
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

/// What a test has imposed and not lifted yet.
struct Faults {
    client: Client,
    namespace: String,
    named: BTreeMap<String, Imposed>,
}

enum Imposed {
    Pods(Vec<String>, PodFault),
    /// No longer, once the annotations of these pods say so.
    Lifting(Vec<String>),
    Database {
        namespace: String,
        deployment: String,
        replicas: i32,
        /// What of the application's namespace led to it.
        slices: Vec<Lead>,
    },
    Switched {
        switch: Arc<dyn DatabaseSwitch>,
        slices: Vec<Lead>,
    },
}

impl Faults {
    fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            named: BTreeMap::new(),
        }
    }

    /// Noted before it is done, so that whatever happens it is undone.
    /// What the runtime can't do is lifted again.
    async fn impose(
        &mut self,
        name: &str,
        pods: Vec<String>,
        fault: PodFault,
    ) -> Result<(), Failure> {
        self.lift(name).await?;
        self.named
            .insert(name.to_owned(), Imposed::Pods(pods.clone(), fault));
        self.annotate(&pods).await.map_err(api)?;
        for pod in &pods {
            if let Err(failure) = self.wait_for_outcome(pod).await {
                self.lift(name).await?;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What is imposed on this pod, as its annotation says it.
    fn text(&self, pod: &String) -> Option<String> {
        let faults: Vec<&PodFault> = self
            .named
            .values()
            .filter_map(|imposed| match imposed {
                Imposed::Pods(pods, fault) if pods.contains(pod) => Some(fault),
                _ => None,
            })
            .collect();
        (!faults.is_empty()).then(|| json!(faults).to_string())
    }

    /// Until the runtime says that the annotation is in force, or why it can't be.
    async fn wait_for_outcome(&self, pod: &String) -> Result<(), Failure> {
        let text = self.text(pod).unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let told = |pod: Option<&Pod>| outcome(pod, &text).is_some();
        let found = timeout(PATIENCE, await_condition(pods, pod, told)).await;
        let found = match found {
            Ok(found) => found.map_err(api)?,
            Err(_) => {
                return Err(Box::new(StepResult::failed(
                    pod,
                    format!("the runtime says within {PATIENCE:?} what became of {ANNOTATION}"),
                    "nothing",
                )));
            }
        };
        outcome(found.as_ref(), &text).unwrap_or(Ok(()))
    }

    /// Until the runtime speaks of nothing but what is left: what it said of the same
    /// fault before must not be taken for its answer to the next.
    async fn wait_for_lift(&self, pods: &[String]) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        for pod in pods {
            let text = self.text(pod);
            let settled = |found: Option<&Pod>| match &text {
                Some(text) => outcome(found, text).is_some(),
                None => found.and_then(condition).is_none(),
            };
            match timeout(PATIENCE, await_condition(api.clone(), pod, settled)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, %pod, "waiting for the lift"),
                Err(_) => tracing::debug!(%pod, "a fault is lifted, and the runtime is silent"),
            }
        }
    }

    /// Makes the annotations of these pods say what is imposed on them.
    async fn annotate(&self, pods: &[String]) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        for pod in pods {
            let patch = json!({"metadata": {"annotations": {ANNOTATION: self.text(pod)}}});
            match api
                .patch(pod, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                // It went meanwhile, and its faults with it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Stops a database that is no workload; returns when nothing leads to it any more.
    async fn switch_off(
        &mut self,
        name: &str,
        switch: Arc<dyn DatabaseSwitch>,
    ) -> Result<(), Failure> {
        self.lift(name).await?;
        let slices = Lead::ours(&self.client, &self.namespace).await;
        let slices = slices.map_err(api)?;
        let switched = Imposed::Switched {
            switch: switch.clone(),
            slices: slices.clone(),
        };
        self.named.insert(name.to_owned(), switched);
        switch.stop().await.map_err(database)?;
        self.wait(&slices, false).await;
        Ok(())
    }

    async fn stop_database(
        &mut self,
        name: &str,
        namespace: String,
        deployment: String,
    ) -> kube::Result<()> {
        self.lift_what_the_api_knows(name).await?;
        let pods_namespace = namespace.clone();
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
        let found = api.get(&deployment).await?;
        let replicas = found
            .spec
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
            .max(1);
        let running = self.pods_of(&namespace, &deployment).await?;
        let slices = self.slices_of(&running).await?;
        self.named.insert(
            name.to_owned(),
            Imposed::Database {
                namespace: namespace.clone(),
                deployment: deployment.clone(),
                replicas,
                slices: slices.clone(),
            },
        );
        scale(&api, &deployment, 0).await?;
        self.wait(&slices, false).await;
        // Connections that were open are served until it has ended.
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pods_namespace);
        for pod in running {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let name = pod.name_any();
            let ended = await_condition(pods.clone(), &name, is_deleted(&uid)).await;
            if let Err(error) = ended {
                tracing::debug!(%error, pod = %name, "waiting for the database's end");
            }
        }
        Ok(())
    }

    async fn pods_of(&self, namespace: &str, deployment: &str) -> kube::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let prefix = format!("{deployment}-");
        let mut list = pods.list(&ListParams::default()).await?.items;
        list.retain(|pod| pod.name_any().starts_with(&prefix));
        Ok(list)
    }

    /// The slices of the application's namespace that lead to these pods.
    async fn slices_of(&self, pods: &[Pod]) -> kube::Result<Vec<Lead>> {
        let addresses: Vec<&String> = pods
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_ref())
            .collect();
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let leads = |slice: &EndpointSlice| {
            let mut all = slice
                .endpoints
                .iter()
                .flat_map(|endpoint| &endpoint.addresses);
            all.any(|address| addresses.contains(&address))
        };
        let list = slices.list(&ListParams::default()).await?.items;
        Ok(list
            .into_iter()
            .filter(leads)
            .map(|slice| Lead::Slice(slice.name_any()))
            .collect())
    }

    /// Until these lead to somebody who is ready, or to nobody.
    async fn wait(&self, leads: &[Lead], filled: bool) {
        for lead in leads {
            lead.until(&self.client, &self.namespace, filled).await;
        }
    }

    async fn lift(&mut self, name: &str) -> Result<(), Failure> {
        if let Some(Imposed::Switched { switch, slices }) = self.named.get(name) {
            let (switch, slices) = (switch.clone(), slices.clone());
            switch.start().await.map_err(database)?;
            self.wait(&slices, true).await;
            self.named.remove(name);
            return Ok(());
        }
        self.lift_what_the_api_knows(name).await.map_err(api)
    }

    async fn lift_what_the_api_knows(&mut self, name: &str) -> kube::Result<()> {
        match self.named.remove(name) {
            None => Ok(()),
            Some(switched @ Imposed::Switched { .. }) => {
                // Not the API's affair: it stays imposed.
                self.named.insert(name.to_owned(), switched);
                Ok(())
            }
            Some(Imposed::Pods(pods, _) | Imposed::Lifting(pods)) => {
                // Dropped or failed on the way, the test's end must find it again.
                self.named
                    .insert(name.to_owned(), Imposed::Lifting(pods.clone()));
                self.annotate(&pods).await?;
                self.wait_for_lift(&pods).await;
                self.named.remove(name);
                Ok(())
            }
            Some(Imposed::Database {
                namespace,
                deployment,
                replicas,
                slices,
            }) => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
                self.named.insert(
                    name.to_owned(),
                    Imposed::Database {
                        namespace,
                        deployment: deployment.clone(),
                        replicas,
                        slices: slices.clone(),
                    },
                );
                scale(&api, &deployment, replicas).await?;
                self.wait(&slices, true).await;
                self.named.remove(name);
                Ok(())
            }
        }
    }
}

fn condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == CONDITION)
}

/// What the runtime says of a pod's annotation; `None` when it has not spoken of this
/// text yet. A pod that is gone suffers nothing any more.
fn outcome(pod: Option<&Pod>, text: &str) -> Option<Result<(), Failure>> {
    let Some(pod) = pod else { return Some(Ok(())) };
    let condition = condition(pod)?;
    let message = condition.message.as_deref()?.strip_prefix(text)?;
    if condition.status == "True" {
        return message.is_empty().then_some(Ok(()));
    }
    let why = message.strip_prefix(": ")?;
    let why = format!("{}: {why}", pod.name_any());
    Some(Err(Box::new(match condition.reason.as_deref() {
        Some("Unsupported") => StepResult::unsupported(why),
        _ => StepResult::failed("fault", "in force", why),
    })))
}

async fn scale(api: &Api<Deployment>, name: &str, replicas: i32) -> kube::Result<()> {
    let patch = json!({"spec": {"replicas": replicas}});
    let params = PatchParams::default();
    api.patch(name, &params, &Patch::Merge(&patch))
        .await
        .map(drop)
}

#[async_trait]
impl Session for Faults {
    async fn close(mut self: Box<Self>) {
        /// An API that can't be reached must not hold the other lifts up.
        const EACH: Duration = Duration::from_secs(25);
        let names: Vec<String> = self.named.keys().cloned().collect();
        for name in names {
            match timeout(EACH, self.lift(&name)).await {
                Ok(Ok(())) => {}
                Ok(Err(failed)) => {
                    tracing::warn!(?failed, fault = %name, "a fault could not be lifted")
                }
                Err(_) => tracing::warn!(fault = %name, "lifting a fault took too long"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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

    #[rstest]
    #[case::not_yet(None, None)]
    #[case::of_an_earlier_text(Some(("True", "Imposed", "[0]")), None)]
    #[case::of_a_longer_text(Some(("True", "Imposed", "[1][2]")), None)]
    #[case::in_force(Some(("True", "Imposed", "[1]")), Some("passed"))]
    #[case::earlier_refusal(Some(("False", "Unsupported", "[0]: no disk")), None)]
    #[case::refused(Some(("False", "Unsupported", "[1]: no disk")), Some("unsupported"))]
    #[case::unreadable(Some(("False", "InvalidAnnotation", "[1]: melt")), Some("failed"))]
    fn outcomes(#[case] condition: Option<(&str, &str, &str)>, #[case] expected: Option<&str>) {
        let conditions: Vec<_> = condition
            .iter()
            .map(|(status, reason, message)| {
                json!({"type": CONDITION, "status": status, "reason": reason, "message": message})
            })
            .collect();
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": conditions}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let got = outcome(Some(&pod), "[1]").map(|outcome| match outcome {
            Ok(()) => "passed",
            Err(failure) if failure.mismatches.is_empty() => "unsupported",
            Err(_) => "failed",
        });
        assert_eq!(got, expected);
        assert!(matches!(outcome(None, "[1]"), Some(Ok(()))));
    }
}
