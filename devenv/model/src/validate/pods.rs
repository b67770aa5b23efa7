//! Pods and the workloads that make them: what must fit together within one object.

use super::{Found, choices, pairs};
use crate::names::did_you_mean;
use crate::node::{At, Node, shortened};
use crate::problem::Draft;

pub(super) fn check(object: &Found, out: &mut Vec<Draft>) {
    selector(object, out);
    let Some(spec) = object.pod_spec() else {
        return;
    };
    let volumes: Vec<&str> = spec
        .items_at("volumes")
        .iter()
        .filter_map(|v| v.str_at("name"))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        for container in spec.items_at(list) {
            if let Some(name) = container.str_at("name") {
                if names.contains(&name) {
                    out.push(
                        Draft::error(
                            "manifest::duplicate-name",
                            container.node.get("name").map_or(container.span(), |n| n.span),
                            format!("two containers of {} are named {name:?}", object.title()),
                        )
                        .expected("a name of its own for every container"),
                    );
                }
                names.push(name);
            }
            mounts(&container, &volumes, out);
            probes(&container, out);
        }
    }
}

/// The API server rejects a workload whose selector doesn't select its own pods.
fn selector(object: &Found, out: &mut Vec<Draft>) {
    if !matches!(object.kind.kind, "Deployment" | "ReplicaSet") {
        return;
    }
    let Some(selector) = object.root().at(&["spec", "selector", "matchLabels"]) else {
        return;
    };
    let labels = object.pod_labels();
    for entry in selector.node.entries() {
        let Some(wanted) = entry.value.as_str() else {
            continue;
        };
        let has = labels.iter().find(|(k, _)| *k == entry.key).map(|(_, v)| *v);
        if has == Some(wanted) {
            continue;
        }
        let is = match has {
            Some(value) => format!("there it is {}", shortened(value)),
            None => "there it is missing".into(),
        };
        let template = object.root().at(&["spec", "template", "metadata", "labels"]);
        let mut draft = Draft::error(
            "manifest::selector-mismatch",
            entry.value.span,
            format!(
                "{} selects pods with {}={wanted}, but its own template doesn't have this label: {is}",
                object.title(),
                entry.key
            ),
        )
        .expected("the same labels in spec.selector.matchLabels and spec.template.metadata.labels");
        if let Some(template) = template {
            let span = template.node.get(&entry.key).map_or(template.span(), |n| n.span);
            draft = draft.related(span, "the template's labels");
        }
        out.push(draft);
    }
}

fn mounts(container: &At<'_>, volumes: &[&str], out: &mut Vec<Draft>) {
    for mount in container.items_at("volumeMounts") {
        if let Some(name) = mount.get("name")
            && let Some(volume) = name.node.as_str()
            && !volumes.contains(&volume)
        {
            out.push(
                Draft::error(
                    "manifest::unknown-volume",
                    name.span(),
                    format!("`{}` mounts {volume:?}, and the pod has no such volume", mount.path),
                )
                .expected(choices("volume in this pod", volumes.iter().copied()))
                .maybe_help(did_you_mean(volume, volumes.iter().copied())),
            );
        }
    }
}

/// The names of a container's ports.
pub(super) fn port_names<'n>(container: &At<'n>) -> Vec<&'n str> {
    container
        .items_at("ports")
        .iter()
        .filter_map(|p| p.str_at("name"))
        .collect()
}

fn probes(container: &At<'_>, out: &mut Vec<Draft>) {
    let names = port_names(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        for handler in ["httpGet", "tcpSocket"] {
            let Some(port) = container.at(&[probe, handler, "port"]) else {
                continue;
            };
            if let Some(name) = port.node.as_str()
                && !names.contains(&name)
            {
                out.push(
                    Draft::error(
                        "manifest::unknown-port",
                        port.span(),
                        format!("`{}` is {}, and the container has no port of this name", port.path, shortened(name)),
                    )
                    .expected(choices("named port in this container", names.iter().copied()))
                    .maybe_help(did_you_mean(name, names.iter().copied())),
                );
            }
        }
    }
}

/// Whether labels satisfy an equality selector. An empty selector selects nothing.
pub(super) fn selected(selector: &Node, labels: &[(&str, &str)]) -> bool {
    let wanted = pairs(selector);
    !wanted.is_empty() && wanted.iter().all(|pair| labels.contains(pair))
}
