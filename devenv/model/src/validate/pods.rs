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
                            container
                                .node
                                .get("name")
                                .map_or(container.span(), |n| n.span),
                            format!("two containers of {} are named {name:?}", object.title()),
                        )
                        .expected("a name of its own for every container"),
                    );
                }
                names.push(name);
            }
            mounts(&container, &volumes, out);
            quantities(&container, out);
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
        let has = labels
            .iter()
            .find(|(k, _)| *k == entry.key)
            .map(|(_, v)| *v);
        if has == Some(wanted) {
            continue;
        }
        let is = match has {
            Some(value) => format!("there it is {}", shortened(value)),
            None => "there it is missing".into(),
        };
        let template = object
            .root()
            .at(&["spec", "template", "metadata", "labels"]);
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
            let span = template
                .node
                .get(&entry.key)
                .map_or(template.span(), |n| n.span);
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
                    format!(
                        "`{}` mounts {volume:?}, and the pod has no such volume",
                        mount.path
                    ),
                )
                .expected(choices("volume in this pod", volumes.iter().copied()))
                .maybe_help(did_you_mean(volume, volumes.iter().copied())),
            );
        }
    }
}

/// Amounts of CPU and memory.
fn quantities(container: &At<'_>, out: &mut Vec<Draft>) {
    for list in ["limits", "requests"] {
        let Some(amounts) = container.at(&["resources", list]) else {
            continue;
        };
        for entry in amounts.node.entries() {
            if let Some(text) = entry.value.as_str()
                && !is_quantity(text)
            {
                out.push(
                    Draft::error(
                        "manifest::illegal-value",
                        entry.value.span,
                        format!("`{}` is {}", amounts.path.key(&entry.key), shortened(text)),
                    )
                    .expected("a quantity such as \"500m\" (CPU) or \"128Mi\" (memory)"),
                );
            }
        }
    }
}

/// The form of Kubernetes' `resource.Quantity`: a decimal number and a suffix.
fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 16] = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && e.chars().all(|c| c.is_ascii_digit())
    });
    number.contains(|c: char| c.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (exponent || SUFFIXES.contains(&suffix))
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
                        format!(
                            "`{}` is {}, and the container has no port of this name",
                            port.path,
                            shortened(name)
                        ),
                    )
                    .expected(choices(
                        "named port in this container",
                        names.iter().copied(),
                    ))
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

#[cfg(test)]
mod tests {
    use super::is_quantity;
    use rstest::rstest;

    #[rstest]
    #[case("1", true)]
    #[case("500m", true)]
    #[case("0.5", true)]
    #[case("128Mi", true)]
    #[case("1e3", true)]
    #[case("2E", true)]
    #[case(".5Gi", true)]
    #[case("", false)]
    #[case("128MB", false)]
    #[case("1.2.3", false)]
    #[case("half", false)]
    #[case("1 Gi", false)]
    fn quantities(#[case] text: &str, #[case] want: bool) {
        assert_eq!(is_quantity(text), want);
    }
}
