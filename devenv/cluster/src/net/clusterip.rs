//! ClusterIPs: a front in the cluster for each port of each Service, and for its
//! node port at the node's address.
//!
//! There is one exactly while there is a ready endpoint, so a connection to a
//! Service without one is refused, as with kube-proxy. SCTP is not carried; a
//! Service that wants it says so in an Event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use devenv_sandbox::GATEWAY;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::endpoints;
use super::front::{Carrier, Front, Protocol};
use super::routed::Routed;
use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::controllers::events::{EventType, Recorder};
use crate::controllers::runtime::{Again, Controller, Key, ReconcileError};
use crate::ground::Ground;
use crate::kinds::{self, KindRef};
use crate::store::{Store, WatchEvent};

/// Name under which this router publishes whom it sends traffic to.
const ROUTER: &str = "clusterip";

/// A front's address.
type Place = (SocketAddrV4, Protocol);

/// Keeps the fronts as the Services and their endpoints want them.
#[derive(Debug)]
pub struct ClusterIps {
    store: Store,
    recorder: Recorder,
    ground: Arc<Ground>,
    carrier: Carrier,
    routed: Routed,
    fronts: HashMap<Key, BTreeMap<Place, Front>>,
    ready: HashMap<Key, HashSet<Ipv4Addr>>,
}

impl ClusterIps {
    /// A controller whose fronts are the carrier's.
    pub(crate) fn new(
        store: Store,
        recorder: Recorder,
        ground: Arc<Ground>,
        carrier: Carrier,
        routed: Routed,
    ) -> ClusterIps {
        ClusterIps {
            store,
            recorder,
            ground,
            carrier,
            routed,
            fronts: HashMap::new(),
            ready: HashMap::new(),
        }
    }

    async fn open(&self, (addr, protocol): Place, service: &Key) -> Result<Front, ReconcileError> {
        let (ground, carrier) = (self.ground.clone(), self.carrier.clone());
        let service = service.clone();
        let failed = |why: String| {
            ReconcileError::Other(format!(
                "cannot listen at {addr} ({protocol}) in the cluster: {why}"
            ))
        };
        let opened = tokio::task::spawn_blocking(move || {
            let front = match protocol {
                Protocol::Tcp => ground.listen_tcp(addr).map(|l| carrier.tcp(l, &service)),
                Protocol::Udp => ground.bind_udp(addr).map(|s| carrier.udp(s)),
            };
            front.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        });
        opened
            .await
            .map_err(|e| e.to_string())
            .flatten()
            .map_err(failed)
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
        let mut affinity = None;
        if let Some(object) = self.store.get(&kinds::SERVICE, &key.namespace, &key.name) {
            let service: Service = object.typed()?;
            let slices = endpoints::slices(&self.store, &key.namespace, &key.name);
            let spec = service.spec.unwrap_or_default();
            affinity = keeps_clients(&spec);
            wanted = plan(&spec, |port, protocol| {
                endpoints::ready(&slices, port, protocol)
            });
            if !wanted.is_empty() {
                addresses = endpoints::addresses(&slices);
            }
            if has_sctp(&spec) {
                self.recorder.record(
                    &object,
                    "clusterip",
                    EventType::Warning,
                    "UnsupportedProtocol",
                    "SCTP ports are not carried here; TCP and UDP ports are",
                );
            }
        }
        let mut fronts = self.fronts.remove(key).unwrap_or_default();
        fronts.retain(|place, _| wanted.contains_key(place));
        let mut failed = None;
        for (place, targets) in wanted {
            let front = match fronts.remove(&place) {
                Some(front) => Ok(front),
                None => self.open(place, key).await,
            };
            match front {
                Ok(front) => {
                    front.balancer().set(targets, affinity);
                    fronts.insert(place, front);
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

/// `sessionAffinity: ClientIP` with its timeout.
pub(super) fn keeps_clients(spec: &ServiceSpec) -> Option<Duration> {
    let wanted = spec.session_affinity.as_deref() == Some("ClientIP");
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds)
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(10_800);
    wanted.then(|| Duration::from_secs(seconds))
}

fn cluster_ip(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    spec.cluster_ip.as_deref()?.parse().ok()
}

fn has_sctp(spec: &ServiceSpec) -> bool {
    let ports = spec.ports.iter().flatten();
    let protocols = ports.map(|p| Protocol::of(p.protocol.as_deref()));
    cluster_ip(spec).is_some() && protocols.into_iter().any(|p| p.is_none())
}

/// Where to listen, with where each leads; nowhere for what has no ready endpoint. Pure.
fn plan(
    spec: &ServiceSpec,
    ready: impl Fn(&str, Protocol) -> Vec<SocketAddrV4>,
) -> BTreeMap<Place, Vec<SocketAddrV4>> {
    let Some(ip) = cluster_ip(spec) else {
        return BTreeMap::new();
    };
    let mut wanted = BTreeMap::new();
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::of(port.protocol.as_deref()) else {
            continue;
        };
        let targets = ready(port.name.as_deref().unwrap_or_default(), protocol);
        if targets.is_empty() {
            continue;
        }
        let places = [(ip, Some(port.port)), (GATEWAY, port.node_port)];
        for (ip, number) in places {
            // 0 is a node port that is not allocated.
            let number = number
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0);
            if let Some(number) = number {
                wanted.insert((SocketAddrV4::new(ip, number), protocol), targets.clone());
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}), &["10.96.1.1:80 TCP"])]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"name": "a", "port": 80}, {"name": "none", "port": 81}]}), &["10.96.1.1:80 TCP"])]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]}),
        &["10.96.1.1:53 TCP", "10.96.1.1:53 UDP"])]
    #[case(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 53, "protocol": "SCTP"}]}), &[])]
    #[case(json!({"type": "NodePort", "clusterIP": "10.96.1.1", "ports": [{"port": 80, "nodePort": 30080}]}),
        &["10.96.1.1:80 TCP", "10.244.0.1:30080 TCP"])]
    #[case(json!({"clusterIP": "None", "ports": [{"port": 80}]}), &[])]
    #[case(json!({"type": "ExternalName", "externalName": "x", "ports": [{"port": 80}]}), &[])]
    fn places(#[case] spec: Value, #[case] expected: &[&str]) {
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a Service's spec");
        let ready = |port: &str, _| match port {
            "none" => vec![],
            _ => vec![SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, 2), 8080)],
        };
        let found: Vec<String> = plan(&spec, ready)
            .keys()
            .map(|(addr, protocol)| format!("{addr} {protocol}"))
            .collect();
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case(json!({}), None)]
    #[case(json!({"sessionAffinity": "None"}), None)]
    #[case(json!({"sessionAffinity": "ClientIP"}), Some(10_800))]
    #[case(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}), Some(5))]
    fn affinity(#[case] spec: Value, #[case] seconds: Option<u64>) {
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a Service's spec");
        assert_eq!(keeps_clients(&spec), seconds.map(Duration::from_secs));
    }
}
