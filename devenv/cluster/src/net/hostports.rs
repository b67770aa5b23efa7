//! Services as this machine reaches them: node ports, and the ports of load balancers, on the
//! project's own loopback address.
//!
//! A front stays open for as long as its Service wants it, whether or not an endpoint is ready, so
//! that no other program takes its port meanwhile; without an endpoint connections are reset.
//! Connections that are under way when a Service goes are carried to their end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::json;

use super::clusterip::keeps_clients;
use super::endpoints;
use super::front::{Carrier, Front, Protocol};
use super::routed::Routed;
use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::controllers::events::{EventType, Recorder};
use crate::controllers::runtime::{Again, Controller, Key, ReconcileError};
use crate::kinds::{self, KindRef};
use crate::store::{Object, Store, WatchEvent};

/// Name under which this router publishes whom it sends traffic to.
const ROUTER: &str = "hostports";
/// How long until a port that another program has is tried again: no event tells that it is free.
const AGAIN: Duration = Duration::from_secs(5);
/// Pending connections of a listener.
const BACKLOG: i32 = 1024;

type Place = (u16, Protocol);

/// A port that is to be open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// Name of the Service's port.
    port: String,
    /// Whether it is the load balancer's, or else a node port.
    balanced: bool,
}

/// Keeps the ports of this machine as the Services want them.
#[derive(Debug)]
pub struct HostPorts {
    store: Store,
    recorder: Recorder,
    carrier: Carrier,
    routed: Routed,
    address: Ipv4Addr,
    /// Where the Ingress listens.
    ingress: Vec<SocketAddr>,
    fronts: HashMap<Key, BTreeMap<Place, Front>>,
    ready: HashMap<Key, HashSet<Ipv4Addr>>,
    /// Services that miss a port: they may get it when another Service changes.
    waiting: BTreeSet<Key>,
}

impl HostPorts {
    /// A controller that listens on `address`, of loopback, beside the Ingress' listeners.
    pub fn new(
        store: Store,
        recorder: Recorder,
        carrier: Carrier,
        routed: Routed,
        address: Ipv4Addr,
        ingress: Vec<SocketAddr>,
    ) -> HostPorts {
        HostPorts {
            store,
            recorder,
            carrier,
            routed,
            address,
            ingress,
            fronts: HashMap::new(),
            ready: HashMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    fn open(&self, (port, protocol): Place, service: &Key) -> io::Result<Front> {
        let at = SocketAddrV4::new(self.address, port);
        match protocol {
            Protocol::Tcp => self.carrier.tcp(listen(at)?, service),
            Protocol::Udp => {
                let socket = std::net::UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                self.carrier.udp(socket)
            }
        }
    }

    /// Why a port could not be had, and what helps.
    fn explain(&self, (port, protocol): Place, error: &io::Error) -> String {
        let at = SocketAddrV4::new(self.address, port);
        let other = self
            .fronts
            .iter()
            .find(|(_, fronts)| fronts.contains_key(&(port, protocol)));
        let why = match error.kind() {
            io::ErrorKind::AddrInUse if self.is_ingress(at, protocol) => {
                "the Ingress listens there: lead to this Service with an Ingress rule, or give it another port".to_owned()
            }
            io::ErrorKind::AddrInUse => match other {
                Some((key, _)) => format!("Service {key} has it: give one of them another port"),
                None => {
                    let flags = if protocol == Protocol::Tcp { "-ltnp" } else { "-lunp" };
                    format!(
                        "another program of this machine has it (`ss {flags} 'sport = :{port}'` shows which): stop it, or give the Service another port"
                    )
                }
            },
            io::ErrorKind::PermissionDenied => format!(
                "this user may not listen there; allow it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}"
            ),
            _ => error.to_string(),
        };
        format!("cannot listen at {at} ({protocol}): {why}")
    }

    fn is_ingress(&self, at: SocketAddrV4, protocol: Protocol) -> bool {
        protocol == Protocol::Tcp && self.ingress.contains(&SocketAddr::V4(at))
    }

    /// Opens and closes; returns what could not be opened and why.
    fn settle(
        &mut self,
        key: &Key,
        wanted: &BTreeMap<Place, Wanted>,
    ) -> BTreeMap<Place, io::Error> {
        let mut fronts = self.fronts.remove(key).unwrap_or_default();
        fronts.retain(|place, _| wanted.contains_key(place));
        let mut failed = BTreeMap::new();
        for place in wanted.keys() {
            if fronts.contains_key(place) {
                continue;
            }
            match self.open(*place, key) {
                Ok(front) => drop(fronts.insert(*place, front)),
                Err(error) => drop(failed.insert(*place, error)),
            }
        }
        if !fronts.is_empty() {
            self.fronts.insert(key.clone(), fronts);
        }
        failed
    }

    /// Tells the fronts where their traffic goes.
    fn lead(&mut self, key: &Key, wanted: &BTreeMap<Place, Wanted>, spec: &ServiceSpec) {
        let Some(fronts) = self.fronts.get(key) else {
            self.ready.remove(key);
            return self.publish();
        };
        let slices = endpoints::slices(&self.store, &key.namespace, &key.name);
        for (place, front) in fronts {
            let name = wanted.get(place).map(|w| w.port.as_str());
            let targets = endpoints::ready(&slices, name.unwrap_or_default(), place.1);
            front.balancer().set(targets, keeps_clients(spec));
        }
        self.ready
            .insert(key.clone(), endpoints::addresses(&slices));
        self.publish();
    }

    fn publish(&self) {
        let all = self.ready.values().flatten().copied().collect();
        self.routed.publish(ROUTER, all);
    }

    /// Writes the load balancer's address where all of its ports are open, and takes it back.
    fn show(&self, object: &Object, is_there: bool) -> Result<(), ReconcileError> {
        let shown = if is_there {
            json!({"ingress": [{"ip": self.address.to_string(), "ipMode": "VIP"}]})
        } else {
            json!({})
        };
        let mut status = object.value()["status"].clone();
        let before = &status["loadBalancer"];
        if *before == shown || (before.is_null() && !is_there) {
            return Ok(());
        }
        status["loadBalancer"] = shown;
        self.store
            .update_status(&kinds::SERVICE, object.namespace(), object.name(), status)?;
        if is_there {
            let message = format!("Ensured load balancer at {}", self.address);
            self.tell(object, EventType::Normal, "EnsuredLoadBalancer", &message);
        }
        Ok(())
    }

    fn tell(&self, object: &Object, kind: EventType, reason: &str, message: &str) {
        self.recorder
            .record(object, "service-controller", kind, reason, message);
    }
}

impl Controller for HostPorts {
    fn name(&self) -> &'static str {
        "hostports"
    }

    fn kinds(&self) -> Vec<KindRef> {
        vec![&kinds::SERVICE, &kinds::ENDPOINT_SLICE]
    }

    fn keys(&self, event: &WatchEvent) -> Vec<Key> {
        let object = &event.object;
        if *object.kind() == kinds::SERVICE {
            let waiting = self.waiting.iter().cloned();
            return std::iter::once(Key::of(object)).chain(waiting).collect();
        }
        let service = object.value()["metadata"]["labels"][SERVICE_LABEL].as_str();
        service
            .map(|name| Key::new(object.namespace(), name))
            .filter(|key| self.fronts.contains_key(key))
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
        let object = self.store.get(&kinds::SERVICE, &key.namespace, &key.name);
        let spec = match &object {
            Some(object) => object.typed::<Service>()?.spec.unwrap_or_default(),
            None => ServiceSpec::default(),
        };
        let wanted = plan(&spec);
        let failed = self.settle(key, &wanted);
        self.lead(key, &wanted, &spec);
        self.waiting.remove(key);
        let Some(object) = object else {
            return Ok(None);
        };
        let mut missing = false;
        for (place, error) in &failed {
            let balanced = wanted.get(place).is_some_and(|w| w.balanced);
            missing |= balanced;
            let reason = if balanced {
                "SyncLoadBalancerFailed"
            } else {
                "NodePortUnavailable"
            };
            let message = self.explain(*place, error);
            self.tell(&object, EventType::Warning, reason, &message);
        }
        let balanced = wanted.values().any(|w| w.balanced);
        self.show(&object, balanced && !missing)?;
        if failed.is_empty() {
            return Ok(None);
        }
        self.waiting.insert(key.clone());
        Ok(Some(AGAIN))
    }
}

/// The ports of this machine that a Service wants. Pure.
fn plan(spec: &ServiceSpec) -> BTreeMap<Place, Wanted> {
    let balanced = match spec.type_.as_deref() {
        Some("NodePort") => false,
        // One of another class is another controller's.
        Some("LoadBalancer") => spec.load_balancer_class.is_none(),
        _ => return BTreeMap::new(),
    };
    let mut wanted = BTreeMap::new();
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::of(port.protocol.as_deref()) else {
            continue;
        };
        let numbers = [
            (port.node_port, false),
            (balanced.then_some(port.port), true),
        ];
        for (number, balanced) in numbers {
            // 0 is a node port that is not allocated.
            let number = number.and_then(|n| u16::try_from(n).ok());
            if let Some(number) = number.filter(|n| *n > 0) {
                let port = port.name.clone().unwrap_or_default();
                wanted.insert((number, protocol), Wanted { port, balanced });
            }
        }
    }
    wanted
}

fn listen(at: SocketAddrV4) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // A port comes back while old connections linger.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    #[rstest]
    #[case(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), &[])]
    #[case(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}), &["30080 TCP node"])]
    #[case(json!({"type": "LoadBalancer", "ports": [
        {"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 53, "protocol": "UDP", "nodePort": 30053}]}),
        &["53 UDP balancer", "80 TCP balancer", "30053 UDP node", "30080 TCP node"])]
    #[case(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}), &["80 TCP balancer"])]
    #[case(json!({"type": "LoadBalancer", "loadBalancerClass": "x/y", "ports": [{"port": 80, "nodePort": 30080}]}), &["30080 TCP node"])]
    #[case(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "SCTP"}]}), &[])]
    fn places(#[case] spec: Value, #[case] expected: &[&str]) {
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a Service's spec");
        let found: Vec<String> = plan(&spec)
            .iter()
            .map(|((port, protocol), wanted)| {
                let whose = if wanted.balanced { "balancer" } else { "node" };
                format!("{port} {protocol} {whose}")
            })
            .collect();
        assert_eq!(found, expected);
    }
}
