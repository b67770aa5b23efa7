//! Pods and Deployments as any cluster's Kubernetes API tells of them, and a way to pods by it.

use std::io;
use std::net::SocketAddrV4;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kubernetes::Scope;
use crate::trouble::pod_trouble;

/// Whether its condition Ready says so.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether a Deployment is rolled out as of this `metadata.generation`, and nothing older is
/// left.
pub(crate) fn is_available(deployment: &Deployment, generation: i64) -> bool {
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
pub(crate) async fn pods_say(client: &Client, namespace: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default()).await;
    let say = |pod: Pod| {
        let why = pod_trouble(&pod).or_else(|| {
            let status = pod.status.as_ref()?;
            // Such as that no node has room for it.
            let conditions = status.conditions.iter().flatten();
            let message = conditions.filter_map(|c| c.message.clone()).next();
            message.or_else(|| status.phase.clone())
        });
        format!("pod {}: {}", pod.name_any(), why.unwrap_or_default())
    };
    let said: Vec<String> = list.into_iter().flatten().map(say).collect();
    match said.is_empty() {
        true => format!("there are no pods in {namespace}"),
        false => said.join("\n"),
    }
}

/// A connection to a port of a pod, by way of the API (`kubectl port-forward`).
pub(crate) async fn connect(
    client: &Client,
    scope: &Scope,
    address: SocketAddrV4,
) -> io::Result<TcpStream> {
    let ip = address.ip().to_string();
    let params = ListParams::default().fields(&format!("status.podIP={ip}"));
    let pods = scope.api::<Pod>(client).list(&params).await;
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
