//! The ready endpoints of a Service's port, from its EndpointSlices.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::dial::ServicePort;
use super::front::Protocol;
use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::kinds;
use crate::store::{Object, Store};

/// The slices of one Service, whoever wrote them.
pub fn slices(store: &Store, ns: &str, service: &str) -> Vec<EndpointSlice> {
    let (objects, _) = store.list(&kinds::ENDPOINT_SLICE, Some(ns));
    objects
        .iter()
        .filter(|o| o.value()["metadata"]["labels"][SERVICE_LABEL] == service)
        .filter_map(parse)
        .collect()
}

fn parse(object: &Arc<Object>) -> Option<EndpointSlice> {
    match object.typed() {
        Ok(slice) => Some(slice),
        Err(error) => {
            tracing::warn!(
                slice = object.name(),
                error = &error as &dyn std::error::Error,
                "an EndpointSlice is not usable"
            );
            None
        }
    }
}

/// Whether traffic may go there: an endpoint that does not say is ready.
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|c| c.ready)
        .unwrap_or(true)
}

/// Ready addresses of the port with this name (empty for an unnamed one), in a stable order.
pub fn ready(slices: &[EndpointSlice], port_name: &str, protocol: Protocol) -> Vec<SocketAddrV4> {
    let mut found: Vec<SocketAddrV4> = Vec::new();
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let ports = slice
            .ports
            .iter()
            .flatten()
            .filter(|p| Protocol::of(p.protocol.as_deref()) == Some(protocol))
            .filter(|p| p.name.as_deref().unwrap_or_default() == port_name)
            .filter_map(|p| p.port.and_then(|n| u16::try_from(n).ok()));
        for port in ports {
            for endpoint in slice.endpoints.iter().filter(|e| is_ready(e)) {
                // Only the first address counts, as for kube-proxy.
                let ip = endpoint
                    .addresses
                    .first()
                    .and_then(|a| a.parse::<Ipv4Addr>().ok());
                found.extend(ip.map(|ip| SocketAddrV4::new(ip, port)));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Ready addresses of a Service's TCP port; none when there is no such Service or port.
pub fn of_port(store: &Store, at: &ServicePort) -> Vec<SocketAddrV4> {
    let found = store
        .get(&kinds::SERVICE, &at.namespace, &at.service)
        .and_then(|object| object.typed::<Service>().ok());
    let ports = found.and_then(|s| s.spec).and_then(|s| s.ports);
    let port = ports
        .into_iter()
        .flatten()
        .find(|p| p.port == i32::from(at.port));
    port.map_or_else(Vec::new, |port| {
        let slices = slices(store, &at.namespace, &at.service);
        let name = port.name.as_deref().unwrap_or_default();
        ready(&slices, name, Protocol::Tcp)
    })
}

/// Every ready address in these slices.
pub fn addresses(slices: &[EndpointSlice]) -> HashSet<Ipv4Addr> {
    slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter(|e| is_ready(e))
        .flat_map(|e| &e.addresses)
        .filter_map(|a| a.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_port() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.1"]},
            ],
            "ports": [{"name": "a", "port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}, {"port": 81}],
        }))
        .expect("a slice");
        let slices = [slice];
        let at = |ip: [u8; 4], port| SocketAddrV4::new(ip.into(), port);
        assert_eq!(
            ready(&slices, "a", Protocol::Tcp),
            [at([10, 0, 0, 1], 80), at([10, 0, 0, 2], 80)]
        );
        assert_eq!(
            ready(&slices, "", Protocol::Tcp),
            [at([10, 0, 0, 1], 81), at([10, 0, 0, 2], 81)]
        );
        assert_eq!(ready(&slices, "u", Protocol::Tcp), []);
        assert_eq!(ready(&slices, "u", Protocol::Udp).len(), 2);
        assert_eq!(addresses(&slices).len(), 2);
    }
}
