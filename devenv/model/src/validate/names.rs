//! Names, labels and namespaces.

use std::collections::BTreeMap;

use super::{Found, World};
use crate::load::Named;
use crate::names::{
    LABEL_KEY_RULE, LABEL_VALUE_RULE, NameRule, closest, is_label_key, is_label_value, one_of,
};
use crate::node::{At, shortened};
use crate::problem::Draft;
use crate::reading::Reading;
use crate::source::Span;

/// The object's own name, its labels and annotations.
pub(super) fn object(object: &Found, out: &mut Vec<Draft>) {
    // Namespaces have a check of their own, with all the places that name them.
    if !object.is("v1", "Namespace") && !object.kind.names.accepts(&object.name) {
        let rule = object.kind.names;
        let span = object
            .node
            .at(&["metadata", "name"])
            .map_or(object.node.span, |n| n.span);
        out.push(
            Draft::error(
                "manifest::illegal-name",
                span,
                format!(
                    "Kubernetes rejects {} as the name of a {}",
                    shortened(&object.name),
                    object.kind.title()
                ),
            )
            .expected(rule.text())
            .maybe_help(rule.nearest(&object.name).map(|n| format!("write {n}"))),
        );
    }
    let root = object.root();
    let mut maps: Vec<(At<'_>, bool)> = Vec::new();
    let mut look = |path: &[&str], values: bool| maps.extend(root.at(path).map(|m| (m, values)));
    look(&["metadata", "labels"], true);
    look(&["metadata", "annotations"], false);
    if object.kind.pod_metadata.is_some_and(|p| p.len() > 1) {
        look(&["spec", "template", "metadata", "labels"], true);
        look(&["spec", "template", "metadata", "annotations"], false);
        look(&["spec", "selector", "matchLabels"], true);
    }
    if object.is("v1", "Service") {
        look(&["spec", "selector"], true);
    }
    for (map, values) in maps {
        labels(&map, values, out);
    }
}

fn labels(map: &At<'_>, values: bool, out: &mut Vec<Draft>) {
    for entry in map.node.entries() {
        let path = map.path.key(&entry.key);
        if !is_label_key(&entry.key) {
            out.push(
                Draft::error(
                    "manifest::illegal-label",
                    entry.key_span,
                    format!("Kubernetes rejects the key of `{path}`"),
                )
                .expected(LABEL_KEY_RULE),
            );
        }
        if values
            && let Some(value) = entry.value.as_str()
            && !is_label_value(value)
        {
            out.push(
                Draft::error(
                    "manifest::illegal-label",
                    entry.value.span,
                    format!(
                        "Kubernetes rejects {} as the value of `{path}`",
                        shortened(value)
                    ),
                )
                .expected(LABEL_VALUE_RULE)
                .help("values that are no names belong into annotations"),
            );
        }
    }
}

/// Namespaces that Kubernetes makes itself.
const BUILT_IN: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Every namespace must be a legal name, and one that exists.
pub(super) fn namespaces(
    reading: &Reading,
    world: &World<'_>,
    project: &Named,
    out: &mut Vec<Draft>,
) {
    let mut uses: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    uses.entry(&project.project.namespace)
        .or_default()
        .push(project.namespace_span);
    for object in world.objects {
        let path: &[&str] = if object.is("v1", "Namespace") {
            &["metadata", "name"]
        } else {
            &["metadata", "namespace"]
        };
        if let Some(node) = object.node.at(path)
            && let Some(name) = node.as_str()
            && (object.kind.namespaced || object.is("v1", "Namespace"))
        {
            uses.entry(name).or_default().push(node.span);
        }
    }
    let mut declared: Vec<&str> = world
        .of("v1", "Namespace", None)
        .map(|n| n.name.as_str())
        .collect();
    declared.push(&project.project.namespace);
    for (name, spans) in uses {
        if !NameRule::Label.accepts(name) {
            out.push(illegal(reading, name, spans));
        } else if !declared.contains(&name) && !BUILT_IN.contains(&name) {
            out.push(undeclared(reading, name, spans, &declared));
        }
    }
}

fn illegal(reading: &Reading, name: &str, mut spans: Vec<Span>) -> Draft {
    let nearest = NameRule::Label.nearest(name);
    let places = places(reading, &mut spans);
    let help = match (nearest, places) {
        (Some(n), None) => Some(format!("write {n}")),
        (Some(n), Some(p)) => Some(format!("write {n}, here and at {p}")),
        (None, _) => None,
    };
    Draft::error(
        "manifest::illegal-namespace",
        spans[0],
        format!(
            "Kubernetes rejects {} as the name of a namespace",
            shortened(name)
        ),
    )
    .expected(NameRule::Label.text())
    .maybe_help(help)
}

fn undeclared(reading: &Reading, name: &str, mut spans: Vec<Span>, declared: &[&str]) -> Draft {
    let others = places(reading, &mut spans);
    let meant = closest(name, declared.iter().copied());
    let mut help = match meant {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!(
            "add it to the manifests:\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}"
        ),
    };
    if let Some(others) = others {
        help.push_str(&format!("\nalso named at {others}"));
    }
    let mut declared = declared.to_vec();
    declared.sort_unstable();
    declared.dedup();
    Draft::error(
        "manifest::unknown-namespace",
        spans[0],
        format!("nothing makes the namespace {name:?}"),
    )
    .expected(one_of(declared))
    .help(help)
}

/// Sorts the places as people read, and tells all but the first.
fn places(reading: &Reading, spans: &mut Vec<Span>) -> Option<String> {
    const SHOWN: usize = 10;
    spans.sort_by_key(|s| reading.sources.origin(*s));
    spans.dedup();
    let others: Vec<String> = spans
        .iter()
        .skip(1)
        .map(|s| reading.sources.origin(*s).to_string())
        .collect();
    if others.is_empty() {
        return None;
    }
    let mut text = others
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if others.len() > SHOWN {
        text.push_str(&format!(" and {} more places", others.len() - SHOWN));
    }
    Some(text)
}
