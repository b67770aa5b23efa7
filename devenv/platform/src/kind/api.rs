//! The cluster's Kubernetes API, while it comes up and for what is installed in it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::cluster;
use super::error::KindError;
use super::settled;
use crate::FIELD_MANAGER;
use crate::target::Serves;

/// How long an API may take to answer, and a node to get ready.
const READY: Duration = Duration::from_secs(180);
/// How often an API that does not answer yet is asked.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the controller may take to get ready.
const CONTROLLER: Duration = Duration::from_secs(180);

/// A client from the cluster's kubeconfig.
pub async fn client(
    cluster: &str,
    kubeconfig: &Path,
    namespace: &str,
) -> Result<Client, KindError> {
    let failed = |reason: String| KindError::Api {
        name: cluster.to_owned(),
        reason,
    };
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| failed(e.to_string()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| failed(e.to_string()))?;
    namespace.clone_into(&mut config.default_namespace);
    Client::try_from(config).map_err(|e| failed(e.to_string()))
}

/// The API's address, as the kubeconfig says it.
pub fn server(kubeconfig: &Path) -> String {
    let file = Kubeconfig::read_from(kubeconfig).ok();
    let server = file.and_then(|f| f.clusters.into_iter().next()?.cluster?.server);
    server.unwrap_or_default()
}

/// Waits until the API answers, its nodes are ready, and, where it was there `before`, what it
/// says of pods is of this start of the nodes.
pub async fn ready(
    client: &Client,
    cluster: &str,
    containers: &[cluster::Node],
    before: bool,
) -> Result<(), KindError> {
    let deadline = Instant::now() + READY;
    let mut last = String::new();
    loop {
        // Nothing tells when a server will listen.
        match client.apiserver_version().await {
            Ok(_) => break,
            Err(e) if Instant::now() < deadline => last = e.to_string(),
            Err(_) => {
                return Err(KindError::Api {
                    name: cluster.to_owned(),
                    reason: last,
                });
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    let since: BTreeMap<&str, jiff::Timestamp> = containers
        .iter()
        .filter_map(|c| Some((c.name.as_str(), c.started_at.parse().ok()?)))
        .collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let mut waiting = None;
    let nodes = async {
        let all = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
        let mut events = std::pin::pin!(all.default_backoff());
        let mut ready = BTreeMap::new();
        while let Some(event) = events.next().await {
            let Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) = event else {
                continue;
            };
            let name = node.name_any();
            let state = state(&node, since.get(name.as_str()).copied());
            waiting = state.clone().err().map(|reason| (name.clone(), reason));
            ready.insert(name, state.is_ok());
            if since.keys().all(|name| ready.get(*name) == Some(&true)) {
                return;
            }
        }
    };
    if tokio::time::timeout(left, nodes).await.is_err() {
        let (node, reason) = waiting.unwrap_or_else(|| {
            let node = containers.first().map(|c| c.name.clone());
            (node.unwrap_or_default(), "it did not register".to_owned())
        });
        return Err(KindError::NotReady {
            node,
            reason,
            seconds: READY.as_secs(),
        });
    }
    let Some(first) = since.values().min().copied().filter(|_| before) else {
        return Ok(());
    };
    // What is said of pods is of the start before, until those who say it have looked: the
    // kubelet, and controllers once they have their lease again.
    let left = deadline.saturating_duration_since(Instant::now());
    // Whoever waits for a workload afterwards has a limit of their own.
    let _ = tokio::time::timeout(left, settled::of(client, first)).await;
    Ok(())
}

/// Whether a node is ready, by a heartbeat of this start of its container.
fn state(node: &Node, since: Option<jiff::Timestamp>) -> Result<(), String> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Ready"));
    let Some(ready) = ready else {
        return Err("it has said nothing of itself yet".to_owned());
    };
    if ready.status != "True" {
        let (reason, message) = (&ready.reason, &ready.message);
        return Err(message
            .clone()
            .or_else(|| reason.clone())
            .unwrap_or_default());
    }
    match (ready.last_heartbeat_time.as_ref(), since) {
        (Some(beat), Some(since)) if beat.0.as_second() < since.as_second() => {
            Err("its kubelet has not been heard of since it was started".to_owned())
        }
        _ => Ok(()),
    }
}

/// What this cluster's API serves.
pub async fn serves(client: &Client, cluster: &str) -> Result<Serves, KindError> {
    let groups = client.list_api_groups().await.map_err(|e| KindError::Api {
        name: cluster.to_owned(),
        reason: e.to_string(),
    })?;
    let has = |group: &str, version: &str| {
        let mut found = groups.groups.iter().filter(|g| g.name == group);
        found.any(|g| g.versions.iter().any(|v| v.version == version))
    };
    Ok(Serves {
        knative: has("serving.knative.dev", "v1"),
        endpoint_slices: has("discovery.k8s.io", "v1"),
    })
}

/// Applies the objects of a controller and waits until its Deployments are available.
pub async fn install(client: &Client, objects: &[Value]) -> Result<(), KindError> {
    let refused = |what: String, e: &kube::Error| KindError::Ingress {
        reason: format!("{what}: {e}"),
        seconds: 0,
    };
    let discovery = Discovery::new(client.clone()).run().await;
    let discovery = discovery.map_err(|e| refused("asking for the API's kinds".to_owned(), &e))?;
    let mut kinds: BTreeMap<(String, String), (ApiResource, bool)> = BTreeMap::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.versions().flat_map(|v| group.versioned_resources(v))
        {
            let key = (resource.api_version.clone(), resource.kind.clone());
            kinds.insert(key, (resource, capabilities.scope == Scope::Namespaced));
        }
    }
    let mut deployments = Vec::new();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let what = format!("{kind} {name}");
        let key = (text(&object["apiVersion"]), kind.clone());
        let Some((resource, namespaced)) = kinds.get(&key) else {
            return Err(KindError::Ingress {
                reason: format!("{what}: the cluster does not serve {} {kind}", key.0),
                seconds: 0,
            });
        };
        let namespace = text(&object["metadata"]["namespace"]);
        let api: Api<DynamicObject> = match namespaced {
            true => Api::namespaced_with(client.clone(), &namespace, resource),
            false => Api::all_with(client.clone(), resource),
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
        let applied = applied.map_err(|e| refused(what, &e))?;
        if kind == "Deployment" {
            let generation = applied.metadata.generation.unwrap_or(0);
            deployments.push((namespace, name, generation));
        }
    }
    for (namespace, name, generation) in deployments {
        let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let ready = async {
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(d) | watcher::Event::InitApply(d)) = event
                    && is_available(&d, generation)
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(CONTROLLER, ready).await.is_err() {
            return Err(KindError::Ingress {
                reason: pods_say(client, &namespace).await,
                seconds: CONTROLLER.as_secs(),
            });
        }
    }
    Ok(())
}

fn is_available(deployment: &Deployment, generation: i64) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or(1);
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation.unwrap_or(-1) >= generation
        && status.updated_replicas.unwrap_or(0) >= wanted
        && status.available_replicas.unwrap_or(0) >= wanted
        && status.replicas.unwrap_or(0) <= wanted
}

/// What keeps the pods of a namespace from being ready.
async fn pods_say(client: &Client, namespace: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default()).await;
    let mut reasons = Vec::new();
    for pod in list.into_iter().flat_map(|l| l.items) {
        let name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        let waiting = status.container_statuses.iter().flatten().filter_map(|c| {
            let waiting = c.state.as_ref()?.waiting.as_ref()?;
            let (reason, message) = (waiting.reason.clone(), waiting.message.clone());
            Some(
                [reason, message]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(": "),
            )
        });
        let waiting: Vec<String> = waiting.collect();
        let phase = status.phase.unwrap_or_default();
        let message = status
            .conditions
            .into_iter()
            .flatten()
            .find_map(|c| c.message);
        let why = match waiting.is_empty() {
            true => [Some(phase), message]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": "),
            false => waiting.join("; "),
        };
        reasons.push(format!("pod {name}: {why}"));
    }
    match reasons.is_empty() {
        true => format!("there are no pods in {namespace}"),
        false => reasons.join("\n"),
    }
}

/// A connection to a port of a pod, by way of the API (`kubectl port-forward`).
pub async fn connect(client: &Client, address: SocketAddrV4) -> io::Result<TcpStream> {
    let ip = address.ip().to_string();
    let params = ListParams::default().fields(&format!("status.podIP={ip}"));
    let pods = Api::<Pod>::all(client.clone()).list(&params).await;
    let pods = pods.map_err(io::Error::other)?;
    let lives = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
    };
    let pod = pods.items.iter().find(lives).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::HostUnreachable,
            format!("no pod has the address {ip}"),
        )
    })?;
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let name = pod.name_any();
    let forward = api.portforward(&name, &[address.port()]).await;
    let mut forward = forward.map_err(io::Error::other)?;
    let stream = forward.take_stream(address.port());
    let mut stream = stream.ok_or_else(|| io::Error::other("the API gave no stream"))?;
    // Who asked wants a socket.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (ours, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    );
    let (mut theirs, _) = accepted?;
    tokio::spawn(async move {
        // Either side ends it.
        let _ = tokio::io::copy_bidirectional(&mut theirs, &mut stream).await;
        drop(forward);
    });
    ours
}
