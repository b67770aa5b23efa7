//! What the workloads printed while a step ran.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

use crate::environment::Environment;

/// The end of what each workload printed is where the reason stands.
const LINES: usize = 50;

/// What each workload of the namespace printed since then, by its name. A pod whose log
/// can't be read is left out.
pub(super) async fn since(
    environment: &Environment,
    since: jiff::Timestamp,
) -> BTreeMap<String, Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(environment.client.clone(), &environment.namespace);
    let Ok(list) = pods.list(&ListParams::default()).await else {
        return BTreeMap::new();
    };
    let containers = list.items.iter().flat_map(|pod| {
        let names = pod.spec.iter().flat_map(|spec| &spec.containers);
        names.map(move |container| (pod, container.name.clone()))
    });
    let printed = join_all(containers.map(|(pod, container)| {
        let params = LogParams {
            container: Some(container),
            since_time: Some(since),
            tail_lines: Some(LINES as i64),
            ..LogParams::default()
        };
        let (pods, name, workload) = (&pods, pod.name_any(), workload(pod));
        async move { (workload, pods.logs(&name, &params).await.ok()) }
    }))
    .await;
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (workload, text) in printed {
        let lines = text.iter().flat_map(|text| text.lines()).map(str::to_owned);
        out.entry(workload).or_default().extend(lines);
    }
    out.retain(|_, lines| !lines.is_empty());
    for lines in out.values_mut() {
        let from = lines.len().saturating_sub(LINES);
        lines.drain(..from);
    }
    out
}

/// The name of the workload that a pod belongs to.
fn workload(pod: &Pod) -> String {
    let Some(owner) = pod.owner_references().first() else {
        return pod.name_any();
    };
    let hash = pod.labels().get("pod-template-hash");
    match hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())) {
        Some(deployment) if owner.kind == "ReplicaSet" => {
            deployment.trim_end_matches('-').to_owned()
        }
        _ => owner.name.clone(),
    }
}
