//! ClusterIPs: a listener in the cluster for each TCP port of each Service.
//!
//! There is a listener exactly while there is a ready endpoint, so a connection
//! to a Service without one is refused, as with kube-proxy. UDP is not carried
//! (cluster DNS is answered by [`super::dns`]); a Service that wants it says so
//! in an Event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use devenv_sandbox::Netd;
use k8s_openapi::api::core::v1::Service;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dial::Dialer;
use super::endpoints;
use super::forward;
use super::routed::Routed;
use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::controllers::events::{EventType, Recorder};
use crate::controllers::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::store::{Store, WatchEvent};

/// Name under which this router publishes whom it sends traffic to.
const ROUTER: &str = "clusterip";

/// Where the connections to one address go.
type Targets = Arc<Mutex<Arc<[SocketAddrV4]>>>;

struct Front {
    targets: Targets,
    stop: CancellationToken,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the listeners as the Services and their endpoints want them.
pub struct ClusterIps {
    store: Store,
    recorder: Recorder,
    netd: Arc<Netd>,
    dialer: Dialer,
    routed: Routed,
    cut: CancellationToken,
    connections: TaskTracker,
    fronts: HashMap<Key, BTreeMap<SocketAddrV4, Front>>,
    ready: HashMap<Key, HashSet<Ipv4Addr>>,
}

impl std::fmt::Debug for ClusterIps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterIps")
            .field("services", &self.fronts.len())
            .finish_non_exhaustive()
    }
}

impl ClusterIps {
    /// A controller whose connections live until `cut`.
    pub fn new(
        store: Store,
        recorder: Recorder,
        netd: Arc<Netd>,
        dialer: Dialer,
        routed: Routed,
        cut: CancellationToken,
        connections: TaskTracker,
    ) -> ClusterIps {
        ClusterIps {
            store,
            recorder,
            netd,
            dialer,
            routed,
            cut,
            connections,
            fronts: HashMap::new(),
            ready: HashMap::new(),
        }
    }

    async fn listen(&self, addr: SocketAddrV4, targets: Targets) -> Result<Front, ReconcileError> {
        let netd = self.netd.clone();
        let failed = |why: String| {
            ReconcileError::Other(format!("cannot listen at {addr} in the cluster: {why}"))
        };
        let listener = tokio::task::spawn_blocking(move || netd.listen_tcp(addr))
            .await
            .map_err(|e| failed(e.to_string()))?
            .map_err(|e| failed(e.to_string()))?;
        let listener = TcpListener::from_std(listener).map_err(|e| failed(e.to_string()))?;
        let stop = CancellationToken::new();
        let serving = {
            let targets = targets.clone();
            let current = move || {
                let now = targets
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                now.to_vec()
            };
            forward::serve(
                listener,
                self.dialer.clone(),
                current,
                stop.clone(),
                self.cut.clone(),
                self.connections.clone(),
            )
        };
        let ends = self.cut.clone();
        self.connections.spawn(async move {
            tokio::select! {
                () = serving => {}
                () = ends.cancelled() => {}
            }
        });
        Ok(Front { targets, stop })
    }

    fn publish(&self) {
        let all = self.ready.values().flatten().copied().collect();
        self.routed.publish(ROUTER, all);
    }
}

impl Controller for ClusterIps {
    fn name(&self) -> &'static str {
        "clusterip"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::SERVICE, &kinds::ENDPOINT_SLICE]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        if *object.kind() == kinds::SERVICE {
            return vec![Key::of(object)];
        }
        let service = object.value()["metadata"]["labels"][SERVICE_LABEL].as_str();
        service
            .map(|name| Key::new(object.namespace(), name))
            .into_iter()
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        let (services, _) = self.store.list(&kinds::SERVICE, None);
        // Those that went while changes were missed, too.
        services
            .iter()
            .map(|s| Key::of(s))
            .chain(self.fronts.keys().cloned())
            .collect()
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
        let mut wanted = BTreeMap::new();
        let mut addresses = HashSet::new();
        if let Some(object) = self.store.get(&kinds::SERVICE, &key.namespace, &key.name) {
            let service: Service = object.typed()?;
            let slices = endpoints::slices(&self.store, &key.namespace, &key.name);
            wanted = plan(&service, |port| endpoints::ready(&slices, port));
            if !wanted.is_empty() {
                addresses = endpoints::addresses(&slices);
            }
            if has_udp(&service) {
                let message = "UDP ports are not carried by ClusterIPs here; TCP ports are";
                self.recorder.record(
                    &object,
                    "clusterip",
                    EventType::Warning,
                    "UnsupportedProtocol",
                    message,
                );
            }
        }
        let mut fronts = self.fronts.remove(key).unwrap_or_default();
        fronts.retain(|addr, _| wanted.contains_key(addr));
        let mut failed = None;
        for (addr, targets) in wanted {
            if let Some(front) = fronts.get(&addr) {
                *front.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.into();
                continue;
            }
            match self
                .listen(addr, Arc::new(Mutex::new(targets.into())))
                .await
            {
                Ok(front) => {
                    fronts.insert(addr, front);
                }
                Err(error) => failed = Some(error),
            }
        }
        if !fronts.is_empty() {
            self.fronts.insert(key.clone(), fronts);
        }
        if addresses.is_empty() {
            self.ready.remove(key);
        } else {
            self.ready.insert(key.clone(), addresses);
        }
        self.publish();
        match failed {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}

fn has_udp(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let headless = spec
        .and_then(|s| s.cluster_ip.as_deref())
        .is_none_or(|ip| ip == "None");
    !headless
        && spec
            .iter()
            .flat_map(|s| s.ports.iter().flatten())
            .any(|p| p.protocol.as_deref() == Some("UDP"))
}

/// The addresses to listen at, with where each leads; none for what has no ready endpoint. Pure.
fn plan(
    service: &Service,
    ready: impl Fn(&str) -> Vec<SocketAddrV4>,
) -> BTreeMap<SocketAddrV4, Vec<SocketAddrV4>> {
    let spec = service.spec.clone().unwrap_or_default();
    let Some(ip) = spec.cluster_ip.and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
        return BTreeMap::new();
    };
    spec.ports
        .iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| {
            let targets = ready(port.name.as_deref().unwrap_or_default());
            let number = u16::try_from(port.port).ok()?;
            (!targets.is_empty()).then(|| (SocketAddrV4::new(ip, number), targets))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}), &["10.96.1.1:80"])]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"name": "a", "port": 80}, {"name": "none", "port": 81}]}), &["10.96.1.1:80"])]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 53, "protocol": "UDP"}]}), &[])]
    #[case(json!({"clusterIP": "None", "ports": [{"port": 80}]}), &[])]
    #[case(json!({"type": "ExternalName", "externalName": "x", "ports": [{"port": 80}]}), &[])]
    fn listeners(#[case] spec: Value, #[case] expected: &[&str]) {
        let service: Service =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a Service");
        let ready = |port: &str| match port {
            "none" => vec![],
            _ => vec![SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, 2), 8080)],
        };
        let found: Vec<String> = plan(&service, ready)
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected);
    }
}
