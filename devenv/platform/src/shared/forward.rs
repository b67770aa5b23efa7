//! Ports of this machine that lead to pods, by way of the Kubernetes API.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::address::AddressError;
use crate::pods::is_ready;

/// How long a listener rests after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// What Cloud Run takes where a container names no port.
const PORT: u16 = 8080;

/// Where connections go: to any pod that is ready.
#[derive(Clone)]
pub struct Pods {
    pub client: Client,
    pub namespace: String,
    /// A label selector.
    pub labels: String,
    /// `None`: the first port that the pod names.
    pub port: Option<u16>,
}

/// A listener that carries connections until this is dropped.
#[derive(Debug)]
pub struct Forward(AbortHandle);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Carries what connects to `listener` to `pods`.
///
/// # Errors
/// When the socket can't be used.
pub fn listen(
    listener: std::net::TcpListener,
    address: SocketAddr,
    pods: Pods,
) -> Result<Forward, AddressError> {
    let listener = TcpListener::from_std(listener);
    let listener = listener.map_err(|source| AddressError::Io { address, source })?;
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Too many open files: the listener itself stays good.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let pods = pods.clone();
            tokio::spawn(async move {
                // Closed, as a server that is away would refuse.
                if let Err(reason) = carry(&pods, stream).await {
                    tracing::debug!(reason, labels = pods.labels, "a connection went nowhere");
                }
            });
        }
    });
    Ok(Forward(task.abort_handle()))
}

async fn carry(pods: &Pods, mut stream: TcpStream) -> Result<(), String> {
    let api: Api<Pod> = Api::namespaced(pods.client.clone(), &pods.namespace);
    let list = api.list(&ListParams::default().labels(&pods.labels)).await;
    let list = list.map_err(|e| e.to_string())?;
    let pod = list.items.iter().find(|pod| takes_requests(pod));
    let pod = pod.ok_or("no pod is ready")?;
    let port = pods.port.or_else(|| first_port(pod)).unwrap_or(PORT);
    let forward = api.portforward(&pod.name_any(), &[port]).await;
    let mut forward = forward.map_err(|e| e.to_string())?;
    let mut server = forward.take_stream(port).ok_or("the API gave no stream")?;
    // Either side ends it.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    Ok(())
}

fn takes_requests(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && is_ready(pod)
}

fn first_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
    u16::try_from(ports.next()?.container_port).ok()
}
