//! What pods use, as the target's Kubernetes tells it: `metrics.k8s.io` where that is served
//! (by devenv itself on the local target, by metrics-server elsewhere), else the kubelets'
//! own summaries, through the API server.

use std::{collections::BTreeMap, time::Duration};

use devenv_cluster::pod::{bytes, nano_cpus};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// How long everything together may take. Pods whose usage is not known by then have none.
const LIMIT: Duration = Duration::from_secs(2);

/// What a pod, or several, use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// CPU usage in billionths of a CPU, over a window of the source's choice.
    pub nanocores: u64,
    /// The working set in bytes.
    pub memory: u64,
}

impl Usage {
    fn add(self, other: Usage) -> Usage {
        Usage {
            nanocores: self.nanocores.saturating_add(other.nanocores),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// CPU usage in thousandths of a CPU, rounded up as kubectl does.
    pub fn milli(self) -> u64 {
        self.nanocores.div_ceil(1_000_000)
    }
}

/// By the pod's name.
pub(crate) type ByPod = BTreeMap<String, Usage>;

/// The usage of the pods of a namespace; `None` where nobody tells it, or nobody does in time.
pub(crate) async fn of_pods(client: &Client, namespace: &str) -> Option<ByPod> {
    let deadline = Instant::now() + LIMIT;
    let measured = async {
        let served = client.list_api_groups().await.ok()?;
        let mut groups = served.groups.iter();
        groups.find(|group| group.name == "metrics.k8s.io")?;
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let list: PodMetricsList = get(client, &path).await?;
        Some(list.usage())
    };
    match timeout_at(deadline, measured).await.ok()? {
        Some(found) => Some(found),
        None => summaries(client, namespace, deadline).await,
    }
}

/// What the kubelet of each node says. Nodes that don't answer in time are left out.
async fn summaries(client: &Client, namespace: &str, deadline: Instant) -> Option<ByPod> {
    let nodes: Api<Node> = Api::all(client.clone());
    let list = ListParams::default();
    let nodes = timeout_at(deadline, nodes.list(&list)).await.ok()?.ok()?;
    let asked = nodes.items.iter().map(|node| async move {
        let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.name_any());
        let summary = timeout_at(deadline, get::<Summary>(client, &path)).await;
        summary.ok().flatten()
    });
    let known: Vec<Summary> = join_all(asked).await.into_iter().flatten().collect();
    let of_namespace = known.iter().flat_map(|summary| summary.usage(namespace));
    (!known.is_empty()).then(|| of_namespace.collect())
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Option<T> {
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    match client.request(request).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            debug!(path, error, "usage was not told");
            None
        }
    }
}

/// The usage of some pods together; `None` when one of them runs and its usage is not known: the
/// rest would be told as the whole.
pub(crate) fn together<'a>(pods: impl Iterator<Item = &'a Pod>, used: &ByPod) -> Option<Usage> {
    pods.filter(|pod| runs(pod))
        .map(|pod| used.get(&pod.name_any()).copied())
        .try_fold(Usage::default(), |sum, usage| Some(sum.add(usage?)))
}

/// Whether one of its containers runs.
fn runs(pod: &Pod) -> bool {
    let running = |c: &ContainerStatus| c.state.as_ref().is_some_and(|s| s.running.is_some());
    let Some(status) = &pod.status else {
        return false;
    };
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().any(running)
}

#[derive(Debug, Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Debug, Deserialize)]
struct PodMetrics {
    metadata: Named,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct ContainerMetrics {
    usage: Quantities,
}

#[derive(Debug, Deserialize)]
struct Quantities {
    cpu: String,
    memory: String,
}

impl PodMetricsList {
    /// Pods with a number that is none are left out.
    fn usage(&self) -> ByPod {
        let of = |pod: &PodMetrics| {
            let mut each = pod.containers.iter().map(|container| {
                Some(Usage {
                    nanocores: nano_cpus(&container.usage.cpu)?,
                    memory: bytes(&container.usage.memory)?,
                })
            });
            let sum = each.try_fold(Usage::default(), |sum, usage| Some(sum.add(usage?)));
            Some((pod.metadata.name.clone(), sum?))
        };
        self.items.iter().filter_map(of).collect()
    }
}

/// The kubelet's `stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), as far as it is
/// asked for here.
#[derive(Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodReference,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Deserialize)]
struct PodReference {
    name: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct ContainerStats {
    cpu: Option<CpuStats>,
    memory: Option<MemoryStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    usage_nano_cores: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    working_set_bytes: Option<u64>,
}

impl Summary {
    /// The pods of a namespace. One with a container that the kubelet has no rate of yet is left
    /// out, and so is one without containers.
    fn usage(&self, namespace: &str) -> impl Iterator<Item = (String, Usage)> {
        let ours = move |pod: &&PodStats| pod.pod_ref.namespace == namespace;
        self.pods.iter().filter(ours).filter_map(|pod| {
            let mut each = pod.containers.iter().map(|container| {
                Some(Usage {
                    nanocores: container.cpu.as_ref()?.usage_nano_cores?,
                    memory: container.memory.as_ref()?.working_set_bytes?,
                })
            });
            let first = each.next()??;
            let sum = each.try_fold(first, |sum, usage| Some(sum.add(usage?)));
            Some((pod.pod_ref.name.clone(), sum?))
        })
    }
}

#[cfg(test)]
mod tests;
