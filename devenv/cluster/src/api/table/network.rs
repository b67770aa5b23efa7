//! Services, EndpointSlices, Ingresses and their classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME,
    text::{NONE, age, first_few, labels, list, name, or, str_of},
};

pub const SERVICE: &[Column] = &[
    NAME,
    ("Type", "string", "", 0),
    ("Cluster-IP", "string", "", 0),
    ("External-IP", "string", "", 0),
    ("Port(s)", "string", "", 0),
    AGE,
    ("Selector", "string", "", 1),
];

pub fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|port| {
            let protocol = or(str_of(&port["protocol"]), "TCP");
            match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    vec![
        name(service),
        json!(str_of(&spec["type"])),
        json!(or(str_of(&spec["clusterIP"]), NONE)),
        json!(external_ip(service)),
        json!(or(&ports.join(","), NONE)),
        age(service, now),
        json!(labels(&spec["selector"])),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let given: Vec<&str> = list(&spec["externalIPs"]).iter().map(str_of).collect();
    match str_of(&spec["type"]) {
        "ExternalName" => str_of(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let mut all = balancer(&service["status"]["loadBalancer"]);
            all.extend(given);
            or(&all.join(","), "<pending>").to_owned()
        }
        _ => or(&given.join(","), NONE).to_owned(),
    }
}

fn balancer(status: &Value) -> Vec<&str> {
    list(&status["ingress"])
        .iter()
        .map(|i| or(str_of(&i["ip"]), str_of(&i["hostname"])))
        .filter(|a| !a.is_empty())
        .collect()
}

pub const ENDPOINTS: &[Column] = &[NAME, ("Endpoints", "string", "", 0), AGE];

pub fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let addresses = list(&subset["addresses"]);
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| str_of(&a["ip"]).to_owned()));
        }
        for port in ports {
            let with = |a: &Value| format!("{}:{}", str_of(&a["ip"]), port["port"]);
            all.extend(addresses.iter().map(with));
        }
    }
    vec![
        name(endpoints),
        json!(or(&first_few(&all, 3, "..."), NONE)),
        age(endpoints, now),
    ]
}

pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    ("AddressType", "string", "", 0),
    ("Ports", "string", "", 0),
    ("Endpoints", "string", "", 0),
    AGE,
];

pub fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(&slice["ports"])
        .iter()
        .map(|p| match p["port"].as_i64() {
            Some(port) => port.to_string(),
            None => str_of(&p["name"]).to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(&slice["endpoints"])
        .iter()
        .flat_map(|e| list(&e["addresses"]))
        .map(|a| str_of(a).to_owned())
        .collect();
    let shown = |all: &[String]| or(&first_few(all, 3, "..."), "<unset>").to_owned();
    vec![
        name(slice),
        json!(str_of(&slice["addressType"])),
        json!(shown(&ports)),
        json!(shown(&addresses)),
        age(slice, now),
    ]
}

pub const INGRESS: &[Column] = &[
    NAME,
    ("Class", "string", "", 0),
    ("Hosts", "string", "", 0),
    ("Address", "string", "", 0),
    ("Ports", "string", "", 0),
    AGE,
];

pub fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &ingress["spec"];
    let hosts: Vec<String> = list(&spec["rules"])
        .iter()
        .map(|rule| str_of(&rule["host"]).to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let legacy = &ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"];
    let class = or(str_of(&spec["ingressClassName"]), str_of(legacy));
    let tls = !list(&spec["tls"]).is_empty();
    vec![
        name(ingress),
        json!(or(class, NONE)),
        json!(or(&first_few(&hosts, 3, "..."), "*")),
        json!(balancer(&ingress["status"]["loadBalancer"]).join(",")),
        json!(if tls { "80, 443" } else { "80" }),
        age(ingress, now),
    ]
}

pub const INGRESS_CLASS: &[Column] = &[
    NAME,
    ("Controller", "string", "", 0),
    ("Parameters", "string", "", 0),
    AGE,
];

pub fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = &class["spec"]["parameters"];
    let shown = match (str_of(&parameters["apiGroup"]), parameters.is_object()) {
        (_, false) => NONE.to_owned(),
        ("", _) => format!(
            "{}/{}",
            str_of(&parameters["kind"]),
            str_of(&parameters["name"])
        ),
        (group, _) => {
            format!(
                "{}.{group}/{}",
                str_of(&parameters["kind"]),
                str_of(&parameters["name"])
            )
        }
    };
    vec![
        name(class),
        json!(str_of(&class["spec"]["controller"])),
        json!(shown),
        age(class, now),
    ]
}
