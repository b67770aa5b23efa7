//! The variables that tell a container where the Services are.
//!
//! They are of the moment at which the container starts: a Service that is made later is found by
//! DNS alone. Source: kubelet `getServiceEnvVarMap` and its `envvars` package.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::kinds;
use crate::store::Store;

/// The Service of the API server: every container knows where it is.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and the variables of Docker's links for every Service
/// of `namespace` that has a ClusterIP; with `links` off (`enableServiceLinks: false`) only those
/// of the API server, which are always there.
pub fn service_variables(store: &Store, namespace: &str, links: bool) -> Vec<(String, String)> {
    let (own, _) = if links {
        store.list(&kinds::SERVICE, Some(namespace))
    } else {
        Default::default()
    };
    // One of the same name in the pod's own namespace comes before it.
    let hidden = own.iter().any(|s| s.name() == MASTER.1);
    let master = store
        .get(&kinds::SERVICE, MASTER.0, MASTER.1)
        .filter(|_| !hidden);
    let mut all = Vec::new();
    for object in own.iter().chain(&master) {
        let service: Service = match object.typed() {
            Ok(service) => service,
            Err(error) => {
                tracing::warn!(
                    service = object.name(),
                    error = &error as &dyn std::error::Error,
                    "a Service is not usable"
                );
                continue;
            }
        };
        all.extend(variables(object.name(), &service.spec.unwrap_or_default()));
    }
    all
}

/// The variables of one Service; none without a ClusterIP.
fn variables(service: &str, spec: &ServiceSpec) -> Vec<(String, String)> {
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return Vec::new();
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else {
        return Vec::new();
    };
    let prefix = variable(service);
    let mut all = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable(name));
            all.push((name, port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (upper, lower) = (protocol.to_uppercase(), protocol.to_lowercase());
        let url = format!("{lower}://{ip}:{}", port.port);
        if index == 0 {
            all.push((format!("{prefix}_PORT"), url.clone()));
        }
        let link = format!("{prefix}_PORT_{}_{upper}", port.port);
        all.push((format!("{link}_PROTO"), lower));
        all.push((format!("{link}_PORT"), port.port.to_string()));
        all.push((format!("{link}_ADDR"), ip.to_owned()));
        all.push((link, url));
    }
    all
}

fn variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn store(services: &[(&str, &str, Value)]) -> Store {
        let store = Store::in_memory();
        for (namespace, name, spec) in services {
            store
                .create(
                    &kinds::SERVICE,
                    json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}),
                )
                .expect("created");
        }
        store
    }

    fn master() -> (&'static str, &'static str, Value) {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]});
        ("default", "kubernetes", spec)
    }

    #[test]
    fn as_the_kubelet_names_them() {
        let redis = json!({"clusterIP": "10.96.1.1", "ports": [
            {"name": "client", "port": 6379, "protocol": "TCP"},
            {"name": "gossip-out", "port": 7000, "protocol": "UDP"},
        ]});
        let store = store(&[("shop", "redis-main", redis)]);
        let found: BTreeMap<String, String> = service_variables(&store, "shop", true)
            .into_iter()
            .collect();
        let expected = [
            ("REDIS_MAIN_SERVICE_HOST", "10.96.1.1"),
            ("REDIS_MAIN_SERVICE_PORT", "6379"),
            ("REDIS_MAIN_SERVICE_PORT_CLIENT", "6379"),
            ("REDIS_MAIN_SERVICE_PORT_GOSSIP_OUT", "7000"),
            ("REDIS_MAIN_PORT", "tcp://10.96.1.1:6379"),
            ("REDIS_MAIN_PORT_6379_TCP", "tcp://10.96.1.1:6379"),
            ("REDIS_MAIN_PORT_6379_TCP_PROTO", "tcp"),
            ("REDIS_MAIN_PORT_6379_TCP_PORT", "6379"),
            ("REDIS_MAIN_PORT_6379_TCP_ADDR", "10.96.1.1"),
            ("REDIS_MAIN_PORT_7000_UDP", "udp://10.96.1.1:7000"),
            ("REDIS_MAIN_PORT_7000_UDP_PROTO", "udp"),
            ("REDIS_MAIN_PORT_7000_UDP_PORT", "7000"),
            ("REDIS_MAIN_PORT_7000_UDP_ADDR", "10.96.1.1"),
        ];
        let expected: BTreeMap<String, String> = expected
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn which_services_are_told() {
        let plain = |ip: &str| json!({"clusterIP": ip, "ports": [{"port": 80}]});
        let store = store(&[
            master(),
            ("default", "elsewhere", plain("10.96.1.2")),
            ("shop", "web", plain("10.96.1.3")),
            ("shop", "headless", plain("None")),
            (
                "shop",
                "out",
                json!({"type": "ExternalName", "externalName": "x.test"}),
            ),
        ]);
        let hosts = |namespace: &str, links: bool| -> Vec<String> {
            service_variables(&store, namespace, links)
                .into_iter()
                .map(|(name, _)| name)
                .filter(|name| name.ends_with("_SERVICE_HOST"))
                .collect()
        };
        assert_eq!(
            hosts("shop", true),
            ["WEB_SERVICE_HOST", "KUBERNETES_SERVICE_HOST"]
        );
        assert_eq!(hosts("shop", false), ["KUBERNETES_SERVICE_HOST"]);
        assert_eq!(
            hosts("default", true),
            ["ELSEWHERE_SERVICE_HOST", "KUBERNETES_SERVICE_HOST"]
        );
    }

    #[test]
    fn a_service_of_that_name_nearby_comes_first() {
        let own = json!({"clusterIP": "10.96.9.9", "ports": [{"port": 1}]});
        let store = store(&[master(), ("shop", "kubernetes", own)]);
        let host = |links: bool| {
            service_variables(&store, "shop", links)
                .into_iter()
                .find(|(name, _)| name == "KUBERNETES_SERVICE_HOST")
        };
        assert_eq!(host(true).map(|(_, ip)| ip).as_deref(), Some("10.96.9.9"));
        assert_eq!(host(false).map(|(_, ip)| ip).as_deref(), Some("10.96.0.1"));
    }
}
