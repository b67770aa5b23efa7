//! Pods and pod templates.

use serde_json::{Value, json};

use super::{list, names, port_number, text};
use crate::api::status::Cause;

/// A pod's spec at `field`.
pub fn spec(spec: &Value, field: &str, causes: &mut Vec<Cause>) {
    let mut volumes = Vec::new();
    for (i, volume) in list(&spec["volumes"]).iter().enumerate() {
        let name = text(&volume["name"]);
        let field = format!("{field}.volumes[{i}].name");
        if name.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if let Some(wrong) = names::dns_label(name) {
            causes.push(Cause::invalid(field, &format!("{name:?}"), &wrong));
        } else if volumes.contains(&name) {
            causes.push(Cause::duplicate(field, &format!("{name:?}")));
        }
        volumes.push(name);
    }
    if list(&spec["containers"]).is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut seen = Vec::new();
    for which in ["containers", "initContainers"] {
        for (i, container) in list(&spec[which]).iter().enumerate() {
            let field = format!("{field}.{which}[{i}]");
            let name = text(&container["name"]);
            if seen.contains(&name) && !name.is_empty() {
                causes.push(Cause::duplicate(
                    format!("{field}.name"),
                    &format!("{name:?}"),
                ));
            }
            seen.push(name);
            self::container(container, &field, &volumes, causes);
        }
    }
    let policy = text(&spec["restartPolicy"]);
    if !matches!(policy, "" | "Always" | "OnFailure" | "Never") {
        causes.push(Cause::not_supported(
            format!("{field}.restartPolicy"),
            policy,
            &["Always", "Never", "OnFailure"],
        ));
    }
    if let Some(grace) = spec["terminationGracePeriodSeconds"].as_i64()
        && grace < 0
    {
        let detail = "must be greater than or equal to 0";
        let field = format!("{field}.terminationGracePeriodSeconds");
        causes.push(Cause::invalid(field, &grace.to_string(), detail));
    }
}

fn container(container: &Value, field: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
    let name = text(&container["name"]);
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if let Some(wrong) = names::dns_label(name) {
        causes.push(Cause::invalid(
            format!("{field}.name"),
            &format!("{name:?}"),
            &wrong,
        ));
    }
    if text(&container["image"]).trim().is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    }
    let mut port_names = Vec::new();
    for (i, port) in list(&container["ports"]).iter().enumerate() {
        let field = format!("{field}.ports[{i}]");
        if port["containerPort"].as_i64().is_none() {
            causes.push(Cause::required(format!("{field}.containerPort"), ""));
        }
        port_number(
            &port["containerPort"],
            &format!("{field}.containerPort"),
            causes,
        );
        let name = text(&port["name"]);
        if !name.is_empty() {
            if let Some(wrong) = names::port_name(name) {
                causes.push(Cause::invalid(
                    format!("{field}.name"),
                    &format!("{name:?}"),
                    &wrong,
                ));
            } else if port_names.contains(&name) {
                causes.push(Cause::duplicate(
                    format!("{field}.name"),
                    &format!("{name:?}"),
                ));
            }
            port_names.push(name);
        }
    }
    for (i, env) in list(&container["env"]).iter().enumerate() {
        let field = format!("{field}.env[{i}]");
        let name = text(&env["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if name.contains('=') || !name.chars().all(|c| (' '..='~').contains(&c)) {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            causes.push(Cause::invalid(
                format!("{field}.name"),
                &format!("{name:?}"),
                detail,
            ));
        }
        let both = !text(&env["value"]).is_empty() && !env["valueFrom"].is_null();
        if both {
            let detail = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{field}.valueFrom"), "\"\"", detail));
        }
    }
    let mut paths = Vec::new();
    for (i, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let field = format!("{field}.volumeMounts[{i}]");
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if !volumes.contains(&name) {
            causes.push(Cause::not_found(format!("{field}.name"), name));
        }
        if path.is_empty() {
            causes.push(Cause::required(format!("{field}.mountPath"), ""));
        } else if paths.contains(&path) {
            let field = format!("{field}.mountPath");
            causes.push(Cause::invalid(
                field,
                &format!("{path:?}"),
                "must be unique",
            ));
        }
        paths.push(path);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let value = &container[probe];
        if value.is_null() {
            continue;
        }
        let field = format!("{field}.{probe}");
        let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
        match handlers.iter().filter(|h| !value[**h].is_null()).count() {
            0 => causes.push(Cause::required(&field, "must specify a handler type")),
            1 => {}
            _ => causes.push(Cause::forbidden(
                &field,
                "may not specify more than 1 handler type",
            )),
        }
        for action in ["httpGet", "tcpSocket"] {
            port_number(
                &value[action]["port"],
                &format!("{field}.{action}.port"),
                causes,
            );
        }
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "failureThreshold",
            "successThreshold",
        ] {
            if let Some(n) = value[number].as_i64()
                && n < 0
            {
                let detail = "must be greater than or equal to 0";
                causes.push(Cause::invalid(
                    format!("{field}.{number}"),
                    &n.to_string(),
                    detail,
                ));
            }
        }
        if probe != "readinessProbe" && value["successThreshold"].as_i64().is_some_and(|n| n != 1) {
            let shown = value["successThreshold"].to_string();
            causes.push(Cause::invalid(
                format!("{field}.successThreshold"),
                &shown,
                "must be 1",
            ));
        }
    }
}

/// A pod that exists may get other images, and little else.
pub fn unchanged(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let core = |spec: &Value| {
        let mut spec = spec.clone();
        for which in ["containers", "initContainers"] {
            for container in spec
                .get_mut(which)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                container["image"] = json!("");
            }
        }
        for free in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "nodeName",
        ] {
            if let Some(spec) = spec.as_object_mut() {
                spec.remove(free);
            }
        }
        spec
    };
    if core(old) != core(new) {
        causes.push(Cause::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
}
