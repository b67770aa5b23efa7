//! What Kubernetes refuses, in its own words. Pure.
//!
//! Only what a client or a controller relies on: names, selectors, required fields, ports,
//! references inside an object and fields that may not change.

mod names;
mod pod;

use serde_json::{Map, Value};

use super::{selectors::LabelSelector, status::Cause};
use crate::kinds::KindRef;
pub(super) use names::{dns_label, dns_subdomain};

/// Everything that is wrong with an object that has its defaults; `old` is its present state when
/// it is an update.
pub fn validate(kind: KindRef, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    names::metadata(kind, &new["metadata"], &mut causes);
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            pod::spec(&new["spec"], "spec", &mut causes);
            if let Some(old) = old {
                pod::unchanged(&old["spec"], &new["spec"], &mut causes);
            }
        }
        ("", "Service") => service(new, old, &mut causes),
        ("", "Endpoints") => endpoints(new, &mut causes),
        ("", "ConfigMap" | "Secret") => data(kind, new, old, &mut causes),
        ("apps", "Deployment") => {
            strategy(&new["spec"]["strategy"], &mut causes);
            workload(new, old, &mut causes);
        }
        ("apps", "ReplicaSet") => workload(new, old, &mut causes),
        ("networking.k8s.io", "Ingress") => ingress(&new["spec"], &mut causes),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(new, old, &mut causes),
        ("serving.knative.dev", _) => knative(&new["spec"], &mut causes),
        _ => {}
    }
    causes
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn port_number(value: &Value, field: &str, causes: &mut Vec<Cause>) {
    if let Some(number) = value.as_i64()
        && !(1..=65535).contains(&number)
    {
        causes.push(Cause::invalid(
            field,
            &number.to_string(),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// A map of strings as Go prints it, which is what the messages of Kubernetes carry.
fn go_map(value: &Value) -> String {
    match value.as_object() {
        None => "map[string]string(nil)".to_owned(),
        Some(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k:?}:{:?}", text(v)))
                .collect();
            format!("map[string]string{{{}}}", pairs.join(", "))
        }
    }
}

fn go_selector(value: &Value) -> String {
    format!(
        "v1.LabelSelector{{MatchLabels:{}, MatchExpressions:[]v1.LabelSelectorRequirement({})}}",
        go_map(&value["matchLabels"]),
        if value["matchExpressions"].is_array() {
            "{…}"
        } else {
            "nil"
        }
    )
}

fn strategy(strategy: &Value, causes: &mut Vec<Cause>) {
    let kind = text(&strategy["type"]);
    if !matches!(kind, "RollingUpdate" | "Recreate") {
        causes.push(Cause::not_supported(
            "spec.strategy.type",
            kind,
            &["Recreate", "RollingUpdate"],
        ));
    }
    let rolling = &strategy["rollingUpdate"];
    let zero = |v: &Value| v == 0 || v == "0" || v == "0%";
    if zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
        causes.push(Cause::invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            "0",
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    for name in ["maxSurge", "maxUnavailable"] {
        let value = &rolling[name];
        let good = match value {
            Value::Null => true,
            Value::Number(n) => n.as_i64().is_some_and(|n| n >= 0),
            Value::String(s) => s
                .strip_suffix('%')
                .is_some_and(|n| n.parse::<u32>().is_ok()),
            _ => false,
        };
        if !good {
            causes.push(Cause::invalid(
                format!("spec.strategy.rollingUpdate.{name}"),
                &value.to_string(),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ));
        }
    }
}

/// Deployments and ReplicaSets.
fn workload(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    if let Some(replicas) = spec["replicas"].as_i64()
        && replicas < 0
    {
        let shown = replicas.to_string();
        causes.push(Cause::invalid(
            "spec.replicas",
            &shown,
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let given = selector.as_object().is_some_and(|s| !s.is_empty());
    if !given {
        causes.push(Cause::required("spec.selector", ""));
    }
    match LabelSelector::from_object(selector, false) {
        Ok(parsed) if given && parsed.matches(labels) => {}
        Ok(_) => causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &go_map(labels),
            "`selector` does not match template `labels`",
        )),
        Err(message) => causes.push(Cause::invalid(
            "spec.selector",
            &go_selector(selector),
            &message,
        )),
    }
    let template = &spec["template"]["spec"];
    pod::spec(template, "spec.template.spec", causes);
    let policy = text(&template["restartPolicy"]);
    if !matches!(policy, "" | "Always") {
        causes.push(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid(
            "spec.selector",
            &go_selector(selector),
            "field is immutable",
        ));
    }
}

fn service(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let kind = text(&spec["type"]);
    const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !TYPES.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", kind, &TYPES));
    }
    let affinity = text(&spec["sessionAffinity"]);
    if !matches!(affinity, "" | "ClientIP" | "None") {
        let field = "spec.sessionAffinity";
        causes.push(Cause::not_supported(field, affinity, &["ClientIP", "None"]));
    }
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if let Some(seconds) = timeout.as_i64()
        && !(1..=86_400).contains(&seconds)
    {
        let detail = "must be greater than 0 and less than 86400";
        causes.push(Cause::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            &seconds.to_string(),
            detail,
        ));
    }
    let ports = list(&spec["ports"]);
    let headless = text(&spec["clusterIP"]) == "None";
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", "\"None\"", &detail));
    }
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && text(&spec["externalName"]).is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: Vec<(&Value, &Value)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{field}.name"), ""));
            }
        } else if let Some(wrong) = dns_label(name) {
            causes.push(Cause::invalid(
                format!("{field}.name"),
                &format!("{name:?}"),
                &wrong,
            ));
        } else if names.contains(&name) {
            causes.push(Cause::duplicate(
                format!("{field}.name"),
                &format!("{name:?}"),
            ));
        }
        names.push(name);
        if port["port"].as_i64().is_none() {
            causes.push(Cause::invalid(
                format!("{field}.port"),
                "0",
                "must be between 1 and 65535, inclusive",
            ));
        }
        port_number(&port["port"], &format!("{field}.port"), causes);
        let protocol = text(&port["protocol"]);
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::not_supported(
                format!("{field}.protocol"),
                protocol,
                &["SCTP", "TCP", "UDP"],
            ));
        }
        port_number(&port["targetPort"], &format!("{field}.targetPort"), causes);
        if let Some(name) = port["targetPort"].as_str()
            && let Some(wrong) = names::port_name(name)
        {
            causes.push(Cause::invalid(
                format!("{field}.targetPort"),
                &format!("{name:?}"),
                &wrong,
            ));
        }
        if port["nodePort"].as_i64().is_some_and(|n| n != 0)
            && !matches!(kind, "NodePort" | "LoadBalancer")
        {
            causes.push(Cause::forbidden(
                format!("{field}.nodePort"),
                &format!("may not be used when `type` is '{kind}'"),
            ));
        }
        let key = (&port["port"], &port["protocol"]);
        if numbers.contains(&key) {
            let shown = format!(
                "core.ServicePort{{Protocol:{protocol:?}, Port:{}}}",
                port["port"]
            );
            causes.push(Cause::duplicate(field, &shown));
        }
        numbers.push(key);
    }
    if let Some(old) = old {
        let (was, is) = (text(&old["spec"]["clusterIP"]), text(&spec["clusterIP"]));
        let has_ip = |s: &Value| text(&s["spec"]["type"]) != "ExternalName";
        if has_ip(old) && has_ip(new) && !was.is_empty() && was != is {
            let shown = format!("[]string{{{is:?}}}");
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &shown,
                "may not change once set",
            ));
        }
    }
}

fn data(kind: KindRef, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for map in ["data", "binaryData"] {
        for (key, value) in new[map].as_object().into_iter().flatten() {
            bytes += text(value).len();
            if let Some(wrong) = names::data_key(key) {
                causes.push(Cause::invalid(
                    format!("{map}[{key}]"),
                    &format!("{key:?}"),
                    &wrong,
                ));
            }
        }
    }
    if bytes > 1 << 20 {
        let cause = Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {} bytes", 1 << 20),
            field: if kind.kind == "Secret" { "data" } else { "" }.to_owned(),
        };
        causes.push(cause);
    }
    let Some(old) = old else { return };
    let immutable = "field is immutable when `immutable` is set";
    if old["immutable"] == true {
        if new["immutable"] != true {
            causes.push(Cause::forbidden("immutable", immutable));
        }
        for map in ["data", "binaryData"] {
            if old[map] != new[map] {
                causes.push(Cause::forbidden(map, immutable));
            }
        }
    }
    if kind.kind == "Secret" && old["type"] != new["type"] {
        let shown = format!("{:?}", text(&new["type"]));
        causes.push(Cause::invalid("type", &shown, "field is immutable"));
    }
}

fn ingress(spec: &Value, causes: &mut Vec<Cause>) {
    let rules = list(&spec["rules"]);
    let default_backend = &spec["defaultBackend"];
    if rules.is_empty() && default_backend.is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", "[]", detail));
    }
    if !default_backend.is_null() {
        backend(default_backend, "spec.defaultBackend", causes);
    }
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{i}]");
        let host = text(&rule["host"]);
        if !host.is_empty() {
            let checked = host.strip_prefix("*.").unwrap_or(host);
            if host.parse::<std::net::IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                causes.push(Cause::invalid(
                    format!("{field}.host"),
                    &format!("{host:?}"),
                    detail,
                ));
            } else if let Some(wrong) = dns_subdomain(checked) {
                causes.push(Cause::invalid(
                    format!("{field}.host"),
                    &format!("{host:?}"),
                    &wrong,
                ));
            }
        }
        let Some(http) = rule.get("http") else {
            continue;
        };
        let paths = list(&http["paths"]);
        if paths.is_empty() {
            causes.push(Cause::required(format!("{field}.http.paths"), ""));
        }
        for (j, path) in paths.iter().enumerate() {
            let field = format!("{field}.http.paths[{j}]");
            const TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
            let value = text(&path["path"]);
            match text(&path["pathType"]) {
                "" => causes.push(Cause::required(
                    format!("{field}.pathType"),
                    "pathType must be specified",
                )),
                "Exact" | "Prefix" if !value.starts_with('/') => {
                    let detail = "must be an absolute path";
                    causes.push(Cause::invalid(
                        format!("{field}.path"),
                        &format!("{value:?}"),
                        detail,
                    ));
                }
                "ImplementationSpecific" if !value.is_empty() && !value.starts_with('/') => {
                    let detail = "must be an absolute path";
                    causes.push(Cause::invalid(
                        format!("{field}.path"),
                        &format!("{value:?}"),
                        detail,
                    ));
                }
                known if TYPES.contains(&known) => {}
                other => causes.push(Cause::not_supported(
                    format!("{field}.pathType"),
                    other,
                    &TYPES,
                )),
            }
            backend(&path["backend"], &format!("{field}.backend"), causes);
        }
    }
}

fn backend(backend: &Value, field: &str, causes: &mut Vec<Cause>) {
    let service = &backend["service"];
    if service.is_null() {
        if backend["resource"].is_null() {
            causes.push(Cause::required(field, "port name or number is required"));
        }
        return;
    }
    let name = text(&service["name"]);
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.service.name"), ""));
    } else if let Some(wrong) = names::dns_1035(name) {
        causes.push(Cause::invalid(
            format!("{field}.service.name"),
            &format!("{name:?}"),
            &wrong,
        ));
    }
    let port = &service["port"];
    match (
        port["name"].as_str().unwrap_or_default(),
        port["number"].as_i64().unwrap_or(0),
    ) {
        ("", 0) => causes.push(Cause::required(
            format!("{field}.service.port"),
            "port name or number is required",
        )),
        ("", _) => port_number(
            &port["number"],
            &format!("{field}.service.port.number"),
            causes,
        ),
        (_, 0) => {}
        _ => {
            let detail = "cannot set both port name & port number";
            causes.push(Cause::invalid(
                format!("{field}.service.port"),
                &port.to_string(),
                detail,
            ));
        }
    }
}

fn endpoints(new: &Value, causes: &mut Vec<Cause>) {
    for (i, subset) in list(&new["subsets"]).iter().enumerate() {
        let field = format!("subsets[{i}]");
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|name| list(&subset[*name]).is_empty()) {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            causes.push(Cause::required(&field, detail));
        }
        for name in lists {
            for (j, address) in list(&subset[name]).iter().enumerate() {
                let ip = text(&address["ip"]);
                let field = format!("{field}.{name}[{j}].ip");
                let why = match ip.parse::<std::net::IpAddr>() {
                    Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    Ok(ip) if ip.is_loopback() => "may not be in the loopback range",
                    Ok(ip) if ip.is_unspecified() => "may not be unspecified",
                    Ok(_) => continue,
                };
                causes.push(Cause::invalid(field, &format!("{ip:?}"), why));
            }
        }
        let ports = list(&subset["ports"]);
        for (j, port) in ports.iter().enumerate() {
            let field = format!("{field}.ports[{j}]");
            if text(&port["name"]).is_empty() && ports.len() > 1 {
                causes.push(Cause::required(format!("{field}.name"), ""));
            }
            port_number(&port["port"], &format!("{field}.port"), causes);
        }
    }
}

fn endpoint_slice(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kind = text(&new["addressType"]);
    const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !TYPES.contains(&kind) {
        causes.push(Cause::not_supported("addressType", kind, &TYPES));
    }
    for (i, endpoint) in list(&new["endpoints"]).iter().enumerate() {
        let addresses = list(&endpoint["addresses"]);
        if addresses.is_empty() {
            causes.push(Cause::required(
                format!("endpoints[{i}].addresses"),
                "must contain at least 1 address",
            ));
        }
        for (j, address) in addresses.iter().enumerate() {
            let address = text(address);
            let good = match kind {
                "IPv4" => address.parse::<std::net::Ipv4Addr>().is_ok(),
                "IPv6" => address.parse::<std::net::Ipv6Addr>().is_ok(),
                _ => true,
            };
            if !good {
                let field = format!("endpoints[{i}].addresses[{j}]");
                let detail = format!("must be a valid {kind} address");
                causes.push(Cause::invalid(field, &format!("{address:?}"), &detail));
            }
        }
    }
    for (i, port) in list(&new["ports"]).iter().enumerate() {
        port_number(&port["port"], &format!("ports[{i}].port"), causes);
    }
    if let Some(old) = old
        && old["addressType"] != new["addressType"]
    {
        causes.push(Cause::invalid(
            "addressType",
            &format!("{kind:?}"),
            "field is immutable",
        ));
    }
}

/// Knative Services: what Cloud Run wants of them.
fn knative(spec: &Value, causes: &mut Vec<Cause>) {
    let containers = list(&spec["template"]["spec"]["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required("spec.template.spec.containers", ""));
    }
    for (i, container) in containers.iter().enumerate() {
        if text(&container["image"]).is_empty() {
            causes.push(Cause::required(
                format!("spec.template.spec.containers[{i}].image"),
                "",
            ));
        }
    }
    let empty = Map::new();
    let known = ["template", "traffic"];
    for key in spec
        .as_object()
        .unwrap_or(&empty)
        .keys()
        .filter(|k| !known.contains(&k.as_str()))
    {
        causes.push(Cause::forbidden(
            format!("spec.{key}"),
            "must not set the field(s)",
        ));
    }
}

#[cfg(test)]
mod tests;
