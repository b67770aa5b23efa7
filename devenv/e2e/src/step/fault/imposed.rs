//! The disturbances that a test has imposed, each undone at its end at the latest.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, PodCondition},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    super::{Session, StepResult},
    ANNOTATION, CONDITION, Failure, PATIENCE, PodFault, api, database,
    leads::Lead,
};
use crate::environment::DatabaseSwitch;

/// What a test has imposed and not lifted yet.
pub(super) struct Faults {
    client: Client,
    namespace: String,
    pub(super) named: BTreeMap<String, Imposed>,
}

pub(super) enum Imposed {
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
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            named: BTreeMap::new(),
        }
    }

    /// Noted before it is done, so that whatever happens it is undone.
    /// What the runtime can't do is lifted again.
    pub(super) async fn impose(
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
    pub(super) async fn switch_off(
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

    pub(super) async fn stop_database(
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

    pub(super) async fn lift(&mut self, name: &str) -> Result<(), Failure> {
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
    use rstest::rstest;

    use super::*;

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
