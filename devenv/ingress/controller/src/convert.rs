//! Older forms of endpoints → EndpointSlices of `discovery.k8s.io/v1`. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::v1beta1;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// As the API server itself converts v1beta1: of the topology, host name and
/// zone have become fields, and the rest is kept as deprecated.
///
/// Source: `pkg/apis/discovery/v1beta1/conversion.go` of Kubernetes 1.21.
impl From<v1beta1::EndpointSlice> for EndpointSlice {
    fn from(slice: v1beta1::EndpointSlice) -> Self {
        EndpointSlice {
            metadata: slice.metadata,
            address_type: slice.address_type,
            endpoints: slice
                .endpoints
                .into_iter()
                .flatten()
                .map(Endpoint::from)
                .collect(),
            ports: slice.ports,
        }
    }
}

impl From<v1beta1::Endpoint> for Endpoint {
    fn from(endpoint: v1beta1::Endpoint) -> Self {
        let mut topology = endpoint.topology.unwrap_or_default();
        let hostname = topology.remove(HOSTNAME);
        let zone = topology.remove(ZONE);
        Endpoint {
            addresses: endpoint.addresses.unwrap_or_default(),
            conditions: endpoint.conditions,
            deprecated_topology: (!topology.is_empty()).then_some(topology),
            hints: None,
            hostname: endpoint.hostname,
            node_name: endpoint.node_name.or(hostname),
            target_ref: endpoint.target_ref,
            zone,
        }
    }
}

/// A slice for each subset and family of addresses, as the control plane mirrors
/// Endpoints that people write.
pub(crate) fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let subsets = endpoints.subsets.iter().flatten().enumerate();
    subsets
        .flat_map(|(index, subset)| of_subset(&endpoints.metadata, index, subset))
        .collect()
}

fn of_subset(meta: &ObjectMeta, index: usize, subset: &EndpointSubset) -> Vec<EndpointSlice> {
    let service = meta.name.clone().unwrap_or_default();
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        })
        .collect();
    let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    let unready = subset
        .not_ready_addresses
        .iter()
        .flatten()
        .map(|a| (a, false));
    for (address, ready) in ready.chain(unready) {
        let family = match address.ip.parse() {
            Ok(IpAddr::V6(_)) => "IPv6",
            _ => "IPv4",
        };
        families
            .entry(family)
            .or_default()
            .push(endpoint(address, ready));
    }
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.clone());
    families
        .into_iter()
        .map(|(family, endpoints)| EndpointSlice {
            metadata: ObjectMeta {
                name: Some(format!("{service}-{index}-{}", family.to_lowercase())),
                namespace: meta.namespace.clone(),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            endpoints,
            ports: Some(ports.clone()),
        })
        .collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::as_1_20_writes_it(
        json!({
            "addresses": ["10.244.0.7"],
            "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "n", "name": "s-1"},
            "topology": {"kubernetes.io/hostname": "node-1",
                         "topology.kubernetes.io/region": "us-east1",
                         "topology.kubernetes.io/zone": "us-east1-b"},
        }),
        json!({
            "addresses": ["10.244.0.7"],
            "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "n", "name": "s-1"},
            "nodeName": "node-1",
            "zone": "us-east1-b",
            "deprecatedTopology": {"topology.kubernetes.io/region": "us-east1"},
        })
    )]
    #[case::with_the_gate_of_1_20(
        json!({"addresses": ["10.244.0.7"], "nodeName": "node-1", "hostname": "a",
               "conditions": {"ready": false, "serving": true, "terminating": true}}),
        json!({"addresses": ["10.244.0.7"], "nodeName": "node-1", "hostname": "a",
               "conditions": {"ready": false, "serving": true, "terminating": true}})
    )]
    #[case::nothing_said(
        json!({"addresses": ["10.244.0.7"], "topology": null}),
        json!({"addresses": ["10.244.0.7"]})
    )]
    #[case::go_nil(json!({"addresses": null}), json!({"addresses": []}))]
    fn an_endpoint_of_v1beta1(#[case] old: Value, #[case] new: Value) {
        let old: v1beta1::Endpoint = serde_json::from_value(old).unwrap();
        assert_eq!(serde_json::to_value(Endpoint::from(old)).unwrap(), new);
    }

    #[rstest]
    #[case::empty(json!(null), 0)]
    #[case::absent(json!([]), 0)]
    #[case::one(json!([{"addresses": ["10.0.0.1"]}]), 1)]
    fn a_slice_of_v1beta1(#[case] endpoints: Value, #[case] count: usize) {
        let old: v1beta1::EndpointSlice = serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1beta1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "n", "name": "s-1", "labels": {SERVICE_NAME: "s"},
                         "managedFields": []},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        }))
        .unwrap();
        let new = EndpointSlice::from(old);
        assert_eq!(new.endpoints.len(), count);
        assert_eq!(new.address_type, "IPv4");
        assert_eq!(new.metadata.labels.unwrap()[SERVICE_NAME], "s");
        assert_eq!(new.ports.unwrap()[0].port, Some(8080));
    }

    fn converted(subsets: &Value) -> Value {
        let endpoints: Endpoints = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "s", "labels": {"app": "x"}},
            "subsets": subsets,
        }))
        .unwrap();
        serde_json::to_value(slices(&endpoints)).unwrap()
    }

    fn slice(name: &str, family: &str, endpoints: Value, ports: Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "n", "name": name,
                         "labels": {"app": "x", SERVICE_NAME: "s"}},
            "addressType": family,
            "endpoints": endpoints,
            "ports": ports,
        })
    }

    #[rstest]
    #[case::nobody(json!(null), json!([]))]
    #[case::ready_and_not(
        json!([{
            "addresses": [{"ip": "10.0.0.1", "nodeName": "node-1",
                           "targetRef": {"kind": "Pod", "name": "p"}}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"port": 8080}],
        }]),
        json!([slice(
            "s-0-ipv4",
            "IPv4",
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "node-1",
                 "targetRef": {"kind": "Pod", "name": "p"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            ]),
            json!([{"name": "", "port": 8080, "protocol": "TCP"}]),
        )])
    )]
    #[case::each_subset_has_its_ports(
        json!([
            {"addresses": [{"ip": "10.0.0.1"}],
             "ports": [{"name": "a", "port": 1, "protocol": "TCP"},
                       {"name": "b", "port": 2, "protocol": "UDP"}]},
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "a", "port": 3}]},
        ]),
        json!([
            slice(
                "s-0-ipv4",
                "IPv4",
                json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]),
                json!([{"name": "a", "port": 1, "protocol": "TCP"},
                       {"name": "b", "port": 2, "protocol": "UDP"}]),
            ),
            slice(
                "s-1-ipv4",
                "IPv4",
                json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": true}}]),
                json!([{"name": "a", "port": 3, "protocol": "TCP"}]),
            ),
        ])
    )]
    #[case::each_family_has_its_slice(
        json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 1}]}]),
        json!([
            slice(
                "s-0-ipv4",
                "IPv4",
                json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]),
                json!([{"name": "", "port": 1, "protocol": "TCP"}]),
            ),
            slice(
                "s-0-ipv6",
                "IPv6",
                json!([{"addresses": ["fd00::1"], "conditions": {"ready": true}}]),
                json!([{"name": "", "port": 1, "protocol": "TCP"}]),
            ),
        ])
    )]
    fn endpoints_of_the_core_group(#[case] subsets: Value, #[case] expected: Value) {
        assert_eq!(converted(&subsets), expected);
    }
}
