//! What a person calls a field.

use serde_json::Value;

use super::path::{Path, Segment};

/// The words for a field; where there are none, its path.
pub(super) fn of(kind: &str, path: &Path, wanted: &Value) -> String {
    let fields = path.fields();
    match fields.as_slice() {
        ["metadata", "annotations", name] => annotation(name),
        ["metadata", "labels", name] => format!("label {name}"),
        ["spec", "template", "metadata", "annotations", name] => {
            format!("pods' annotation {name}")
        }
        ["spec", "template", "metadata", "labels", name] => format!("pods' label {name}"),
        ["spec", "replicas"] => "replicas".to_owned(),
        ["data" | "binaryData", key] if kind == "Secret" || kind == "ConfigMap" => {
            format!("key {key}")
        }
        ["spec", "template", "spec", rest @ ..]
        | ["spec", "jobTemplate", "spec", "template", "spec", rest @ ..]
            if rest
                .first()
                .is_some_and(|first| first.ends_with("ontainers")) =>
        {
            container(path, rest, wanted)
        }
        ["spec", "template", "spec", "volumes"] => item("volume", path),
        ["spec", "ports", rest @ ..] => {
            let port = item("port", path);
            join(port, rest)
        }
        ["spec", "rules", "backendRefs", rest @ ..] => backend(path, rest, wanted),
        ["spec", "listeners", rest @ ..] => join(item("listener", path), rest),
        _ => path.to_string(),
    }
}

fn annotation(name: &str) -> String {
    match name {
        "nginx.ingress.kubernetes.io/canary-weight" => "canary weight".to_owned(),
        "nginx.ingress.kubernetes.io/canary-weight-total" => "canary weight's total".to_owned(),
        "nginx.ingress.kubernetes.io/canary-by-header" => "canary header".to_owned(),
        "nginx.ingress.kubernetes.io/canary-by-header-value" => "canary header's value".to_owned(),
        other => format!("annotation {other}"),
    }
}

/// `image`, `env DB_HOST`, `memory limit`; with the container's name where there are more.
fn container(path: &Path, rest: &[&str], wanted: &Value) -> String {
    let mut items = path.0.iter().filter_map(|segment| match segment {
        Segment::Item(pairs) => Some(pairs),
        _ => None,
    });
    let name = items
        .next()
        .and_then(|pairs| pairs.first())
        .map(|(_, value)| value.as_str())
        .unwrap_or_default();
    let inner = items.next().map(|pairs| {
        let values: Vec<&str> = pairs.iter().map(|(_, value)| value.as_str()).collect();
        values.join("/")
    });
    let inner = inner.unwrap_or_default();
    let what = match &rest[1..] {
        [] => return format!("container {name}"),
        ["env"] => format!("env {inner}"),
        ["env", "value"] => format!("env {inner}"),
        ["env", more @ ..] => format!("env {inner} {}", more.join(".")),
        ["ports"] => format!("port {inner}"),
        ["ports", more @ ..] => format!("port {inner} {}", more.join(".")),
        ["volumeMounts"] => format!("mount {inner}"),
        ["volumeMounts", more @ ..] => format!("mount {inner} {}", more.join(".")),
        ["resources", "limits", resource] => format!("{resource} limit"),
        ["resources", "requests", resource] => format!("{resource} request"),
        // The rest after the container itself, with its items.
        _ => {
            let at = path
                .0
                .iter()
                .position(|segment| matches!(segment, Segment::Item(_)))
                .map_or(0, |at| at + 1);
            Path(path.0[at..].to_vec()).to_string()
        }
    };
    let containers = wanted
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array)
        .map_or(1, Vec::len);
    if rest[0] == "containers" && containers <= 1 {
        what
    } else {
        format!("container {name}: {what}")
    }
}

/// `weight of api2-service at /api`.
fn backend(path: &Path, rest: &[&str], wanted: &Value) -> String {
    let mut name = String::new();
    let mut place = String::new();
    for segment in &path.0 {
        match segment {
            Segment::Item(pairs) => {
                let found = pairs.iter().find(|(key, _)| key == "name");
                name = found.map(|(_, value)| value.clone()).unwrap_or_default();
            }
            Segment::Index(index) => {
                let path = wanted
                    .pointer(&format!("/spec/rules/{index}/matches/0/path/value"))
                    .and_then(Value::as_str);
                place = path.map_or_else(
                    || format!(" of rule {}", index + 1),
                    |path| format!(" at {path}"),
                );
            }
            Segment::Field(_) => {}
        }
    }
    match rest {
        [] => format!("backend {name}{place}"),
        more => format!("{} of {name}{place}", more.join(".")),
    }
}

fn item(what: &str, path: &Path) -> String {
    let found = path.0.iter().find_map(|segment| match segment {
        Segment::Item(pairs) => {
            let values: Vec<&str> = pairs.iter().map(|(_, value)| value.as_str()).collect();
            Some(values.join("/"))
        }
        _ => None,
    });
    match found {
        Some(values) => format!("{what} {values}"),
        None => path.to_string(),
    }
}

fn join(label: String, rest: &[&str]) -> String {
    if rest.is_empty() {
        label
    } else {
        format!("{label}: {}", rest.join("."))
    }
}
