//! From a service port, as an Ingress writes it, to ready endpoints.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services and their slices by (namespace, name).
pub(super) struct Backends<'a> {
    services: HashMap<(&'a str, &'a str), &'a Service>,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    coming: HashSet<(&'a str, &'a str)>,
}

/// Why a service port has no endpoints that could ever be found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Service,
    Port { has: Vec<String> },
    ExternalName,
}

impl<'a> Backends<'a> {
    pub fn new(inputs: &Inputs<'a>) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for slice in inputs.endpoint_slices {
            let name = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(SERVICE_NAME));
            if let Some(name) = name {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                by_service
                    .entry((namespace, name.as_str()))
                    .or_default()
                    .push(slice);
            }
        }
        Self {
            services: inputs
                .services
                .iter()
                .filter_map(|service| {
                    let name = service.metadata.name.as_deref()?;
                    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
                    Some(((namespace, name), service))
                })
                .collect(),
            slices: by_service,
            coming: inputs
                .coming
                .iter()
                .map(|(namespace, name)| (namespace.as_str(), name.as_str()))
                .collect(),
        }
    }

    /// Whether more endpoints of a service are on the way.
    pub fn is_coming(&self, namespace: &str, service: &str) -> bool {
        self.coming.contains(&(namespace, service))
    }

    /// Ready endpoints; `port` is a port's number, name or targetPort.
    pub fn find(
        &self,
        namespace: &str,
        service: &str,
        port: &str,
    ) -> Result<Vec<SocketAddr>, Missing> {
        let key = (namespace, service);
        let spec = self
            .services
            .get(&key)
            .ok_or(Missing::Service)?
            .spec
            .as_ref()
            .ok_or(Missing::Service)?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err(Missing::ExternalName);
        }
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(found) = ports.iter().find(|candidate| answers_to(candidate, port)) else {
            return Err(Missing::Port {
                has: ports.iter().map(describe).collect(),
            });
        };
        let mut endpoints: Vec<SocketAddr> = self
            .slices
            .get(&key)
            .into_iter()
            .flatten()
            .flat_map(|slice| ready(slice, found))
            .collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        Ok(endpoints)
    }
}

fn answers_to(port: &ServicePort, written: &str) -> bool {
    port.port.to_string() == written
        || port.name.as_deref() == Some(written)
        || match &port.target_port {
            Some(IntOrString::Int(number)) => number.to_string() == written,
            Some(IntOrString::String(name)) => name == written,
            None => false,
        }
}

fn describe(port: &ServicePort) -> String {
    match &port.name {
        Some(name) => format!("{} ({name})", port.port),
        None => port.port.to_string(),
    }
}

fn ready(slice: &EndpointSlice, port: &ServicePort) -> Vec<SocketAddr> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let number = slice
        .ports
        .iter()
        .flatten()
        .filter(|candidate| candidate.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .find(|candidate| {
            // A service's only port may be unnamed; then any port is its port.
            wanted.is_empty() || candidate.name.as_deref().unwrap_or_default() == wanted
        })
        .and_then(|candidate| u16::try_from(candidate.port?).ok());
    let Some(number) = number else {
        return Vec::new();
    };
    slice
        .endpoints
        .iter()
        // The API's definition: unknown readiness counts as ready.
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        })
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, number))
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "s"},
            "spec": {"ports": [
                {"name": "metrics", "port": 9000, "targetPort": 9001},
                {"name": "http", "port": 80, "targetPort": "web"},
            ]},
        }))
        .unwrap()
    }

    fn slice() -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {"namespace": "n", "name": "s-1", "labels": {SERVICE_NAME: "s"}},
            "ports": [{"name": "http", "port": 5000}, {"name": "metrics", "port": 9001}],
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true}},
            ],
        }))
        .unwrap()
    }

    fn inputs<'a>(services: &'a [Service], slices: &'a [EndpointSlice]) -> Inputs<'a> {
        Inputs {
            services,
            endpoint_slices: slices,
            ..Inputs::default()
        }
    }

    #[rstest]
    #[case::number("80", &["10.0.0.1:5000", "10.0.0.2:5000"])]
    #[case::name("http", &["10.0.0.1:5000", "10.0.0.2:5000"])]
    #[case::target_name("web", &["10.0.0.1:5000", "10.0.0.2:5000"])]
    #[case::target_number("9001", &["10.0.0.1:9001", "10.0.0.2:9001"])]
    fn a_port_by_any_of_its_names(#[case] port: &str, #[case] expected: &[&str]) {
        let (services, slices) = ([service()], [slice()]);
        let found = Backends::new(&inputs(&services, &slices)).find("n", "s", port);
        let expected: Vec<SocketAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let (services, slices) = ([service()], [slice()]);
        let backends = Backends::new(&inputs(&services, &slices));
        assert_eq!(backends.find("n", "x", "80"), Err(Missing::Service));
        assert_eq!(backends.find("m", "s", "80"), Err(Missing::Service));
        assert_eq!(
            backends.find("n", "s", "81"),
            Err(Missing::Port {
                has: vec!["9000 (metrics)".into(), "80 (http)".into()]
            })
        );
    }
}
