//! What makes the application's Service lead to the database's pod: an EndpointSlice,
//! which others write only for Services that have a selector.

use std::net::Ipv4Addr;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointPort};
use serde_json::{Value, json};

use super::server::PORT;

/// The slice's ports: one for each TCP port of the Service.
///
/// A Service's port and a slice's are the same one when they have the same name, of which
/// a Service's only port may have none. The slice's number is where the server listens,
/// whatever `targetPort` says: that is the port of another server, the one of production.
pub fn endpoint_ports(service: &Service) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(PORT.into()),
            protocol: Some("TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

/// The EndpointSlice that makes a selectorless Service lead to the database's pod, by
/// these ports.
///
/// `ready` follows the pod: while the server is away, clients are refused at once
/// instead of waiting.
pub fn endpoint_slice(
    namespace: &str,
    service: &str,
    ports: &[EndpointPort],
    pod: Option<(Ipv4Addr, bool)>,
) -> Value {
    let endpoints: Vec<Value> = pod
        .map(|(ip, ready)| {
            json!({"addresses": [ip.to_string()],
                   "conditions": {"ready": ready, "serving": ready, "terminating": false}})
        })
        .into_iter()
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-devenv"), "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "devenv",
            },
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// The same as core/v1 Endpoints, for clusters that have no slices of version 1.
pub fn endpoints(
    namespace: &str,
    service: &str,
    ports: &[EndpointPort],
    place: Option<(Ipv4Addr, bool)>,
) -> Value {
    let subsets: Vec<Value> = place
        .map(|(ip, ready)| {
            let list = match ready {
                true => "addresses",
                false => "notReadyAddresses",
            };
            let ports: Vec<Value> = ports.iter().map(of_endpoints).collect();
            json!({list: [{"ip": ip.to_string()}], "ports": ports})
        })
        .into_iter()
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": service, "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "devenv"},
        },
        "subsets": subsets,
    })
}

/// A port; an unnamed one has no name there.
fn of_endpoints(port: &EndpointPort) -> Value {
    let mut made = json!({"port": port.port, "protocol": port.protocol});
    if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
        made["name"] = json!(name);
    }
    made
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ports(spec: Value) -> Vec<EndpointPort> {
        let service = json!({"metadata": {"name": "db"}, "spec": spec});
        endpoint_ports(&serde_json::from_value(service).unwrap())
    }

    #[rstest]
    #[case::unnamed(json!([{"port": 3306}]), &[""])]
    #[case::named(json!([{"name": "mysql", "port": 3306, "protocol": "TCP"}]), &["mysql"])]
    #[case::another_name(json!([{"name": "db", "port": 3306}]), &["db"])]
    #[case::another_port(json!([{"port": 13306}]), &[""])]
    #[case::numeric_target(json!([{"port": 3306, "targetPort": 3306}]), &[""])]
    #[case::target_of_production(json!([{"name": "db", "port": 3306, "targetPort": 3307}]), &["db"])]
    #[case::named_target(json!([{"port": 3306, "targetPort": "sql"}]), &[""])]
    #[case::several(
        json!([{"name": "b", "port": 3306}, {"name": "a", "port": 13306, "targetPort": 3306}]),
        &["b", "a"]
    )]
    #[case::only_tcp(
        json!([{"name": "u", "port": 3306, "protocol": "UDP"}, {"name": "t", "port": 3306}]),
        &["t"]
    )]
    #[case::none(json!([]), &[])]
    #[case::null(json!(null), &[])]
    fn each_port_of_the_service_by_its_own_name(#[case] written: Value, #[case] want: &[&str]) {
        let found = ports(json!({"ports": written}));
        let want: Vec<Value> = want
            .iter()
            .map(|name| json!({"name": name, "port": 3306, "protocol": "TCP"}))
            .collect();
        assert_eq!(json!(found), json!(want));
    }

    #[test]
    fn a_port_says_what_is_spoken_there() {
        let found = ports(json!({"ports": [{"port": 1, "appProtocol": "mysql"}]}));
        assert_eq!(found[0].app_protocol.as_deref(), Some("mysql"));
    }

    /// The endpoint follows the pod; the ports stay when there is none.
    #[rstest]
    #[case(None, json!([]))]
    #[case(Some(false), json!([{"addresses": ["10.244.0.9"],
        "conditions": {"ready": false, "serving": false, "terminating": false}}]))]
    #[case(Some(true), json!([{"addresses": ["10.244.0.9"],
        "conditions": {"ready": true, "serving": true, "terminating": false}}]))]
    fn the_endpoint_is_the_pod(#[case] pod: Option<bool>, #[case] want: Value) {
        let ports = ports(json!({"ports": [{"port": 3306}]}));
        let pod = pod.map(|ready| (Ipv4Addr::new(10, 244, 0, 9), ready));
        let slice = endpoint_slice("n", "db", &ports, pod);
        assert_eq!(slice["endpoints"], want);
        assert_eq!(slice["ports"], json!(ports));
        assert_eq!(
            slice["metadata"]["labels"]["kubernetes.io/service-name"],
            "db"
        );
    }

    #[rstest]
    #[case(None, json!([]))]
    #[case(Some(false), json!([{"notReadyAddresses": [{"ip": "172.18.0.3"}],
        "ports": [{"port": 3306, "protocol": "TCP"}]}]))]
    #[case(Some(true), json!([{"addresses": [{"ip": "172.18.0.3"}],
        "ports": [{"port": 3306, "protocol": "TCP"}]}]))]
    fn older_clusters_have_endpoints(#[case] place: Option<bool>, #[case] want: Value) {
        let ports = ports(json!({"ports": [{"port": 3306}]}));
        let place = place.map(|ready| (Ipv4Addr::new(172, 18, 0, 3), ready));
        let made = endpoints("n", "db", &ports, place);
        assert_eq!(made["subsets"], want);
        assert_eq!(made["metadata"]["name"], "db");
    }
}
