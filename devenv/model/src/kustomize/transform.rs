//! Kustomize's transformers: namespace, labels, annotations, replicas, images.

use std::collections::BTreeMap;

use super::{ImageRule, Kustomization};
use crate::kinds;
use crate::node::{Data, Node};
use crate::problem::Draft;
use crate::reading::Reading;
use crate::source::Span;

pub(super) fn apply_all(
    reading: &mut Reading,
    tree: &Node,
    kustomization: &Kustomization,
    objects: &mut [Node],
) {
    if let (Some(namespace), Some(node)) = (&kustomization.namespace, tree.get("namespace")) {
        for object in &mut *objects {
            set_namespace(object, namespace, node.span);
        }
    }
    for (i, rule) in kustomization.labels.iter().enumerate() {
        let pairs = tree
            .get("labels")
            .and_then(|l| l.items().get(i))
            .and_then(|l| l.get("pairs"));
        for object in &mut *objects {
            let spread = Spread {
                selectors: rule.include_selectors,
                templates: rule.include_templates || rule.include_selectors,
            };
            labels(object, &positioned(&rule.pairs, pairs, tree.span), spread);
        }
    }
    let common = positioned(
        &kustomization.common_labels,
        tree.get("commonLabels"),
        tree.span,
    );
    let annotations = positioned(
        &kustomization.common_annotations,
        tree.get("commonAnnotations"),
        tree.span,
    );
    for object in &mut *objects {
        labels(
            object,
            &common,
            Spread {
                selectors: true,
                templates: true,
            },
        );
        annotate(object, &annotations);
    }
    replicas(reading, tree, kustomization, objects);
    for (i, rule) in kustomization.images.iter().enumerate() {
        if let Some(node) = tree.get("images").and_then(|l| l.items().get(i)) {
            for object in &mut *objects {
                images(object, rule, node);
            }
        }
    }
}

fn identity(object: &Node) -> (&str, &str) {
    (
        object.str_at(&["apiVersion"]).unwrap_or(""),
        object.str_at(&["kind"]).unwrap_or(""),
    )
}

fn set_namespace(object: &mut Node, namespace: &str, span: Span) {
    let (api_version, kind) = identity(object);
    let is_namespace = (api_version, kind) == ("v1", "Namespace");
    if !is_namespace && kinds::is_cluster_scoped(api_version, kind) {
        return;
    }
    // A Namespace object is renamed along, as kustomize does.
    let field = if is_namespace { "name" } else { "namespace" };
    if let Some(metadata) = object.map_at("metadata", span) {
        metadata.set(field, Node::string(namespace, span));
    }
}

type Pairs = Vec<(String, Node)>;

/// The pairs with the positions at which the kustomization gives them.
fn positioned(pairs: &BTreeMap<String, String>, tree: Option<&Node>, otherwise: Span) -> Pairs {
    pairs
        .iter()
        .map(|(key, value)| {
            let span = tree
                .and_then(|t| t.get(key))
                .map_or(otherwise, |node| node.span);
            (key.clone(), Node::string(value, span))
        })
        .collect()
}

#[derive(Clone, Copy)]
struct Spread {
    selectors: bool,
    templates: bool,
}

fn labels(object: &mut Node, pairs: &Pairs, spread: Spread) {
    if pairs.is_empty() {
        return;
    }
    put(object, &["metadata", "labels"], pairs);
    let (api_version, kind) = identity(object);
    let workload = matches!(
        (kinds::group(api_version), kind),
        (
            "apps",
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet"
        )
    );
    // kustomize goes by kind and version alone, so that a Knative Service gets a selector
    // too; the check for unknown fields then says so.
    let service = kind == "Service" && api_version.rsplit('/').next() == Some("v1");
    if workload && spread.templates {
        put(object, &["spec", "template", "metadata", "labels"], pairs);
    }
    if spread.selectors {
        if workload {
            put(object, &["spec", "selector", "matchLabels"], pairs);
        } else if service {
            put(object, &["spec", "selector"], pairs);
        }
    }
}

fn annotate(object: &mut Node, pairs: &Pairs) {
    if pairs.is_empty() {
        return;
    }
    put(object, &["metadata", "annotations"], pairs);
    if kinds::group(identity(object).0) == "apps" {
        put(
            object,
            &["spec", "template", "metadata", "annotations"],
            pairs,
        );
    }
}

fn put(object: &mut Node, path: &[&str], pairs: &Pairs) {
    let mut node = object;
    for key in path {
        let span = pairs[0].1.span;
        match node.map_at(key, span) {
            Some(next) => node = next,
            None => return,
        }
    }
    for (key, value) in pairs {
        node.set(key, value.clone());
    }
}

fn replicas(
    reading: &mut Reading,
    tree: &Node,
    kustomization: &Kustomization,
    objects: &mut [Node],
) {
    for (i, rule) in kustomization.replicas.iter().enumerate() {
        let Some(node) = tree.get("replicas").and_then(|l| l.items().get(i)) else {
            continue;
        };
        let span = node.get("count").map_or(node.span, |n| n.span);
        let mut found = false;
        for object in &mut *objects {
            let scalable = matches!(
                identity(object).1,
                "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController"
            );
            if scalable && object.str_at(&["metadata", "name"]) == Some(&rule.name) {
                found = true;
                if let Some(spec) = object.map_at("spec", span) {
                    spec.set("replicas", Node::new(Data::Number(rule.count.into()), span));
                }
            }
        }
        if !found {
            reading.problems.push(Draft::error(
                "kustomize::no-target",
                node.span,
                format!(
                    "`replicas` names {:?}, and no resource of this name can be scaled",
                    rule.name
                ),
            ));
        }
    }
}

/// Rewrites `image` in every list of containers, wherever it lies.
fn images(node: &mut Node, rule: &ImageRule, origin: &Node) {
    match &mut node.data {
        Data::Seq(items) => {
            for item in items {
                images(item, rule, origin);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                if matches!(entry.key.as_str(), "containers" | "initContainers") {
                    for container in entry.value.items_mut() {
                        if let Some(image) = container.get_mut("image") {
                            rewrite(image, rule, origin);
                        }
                    }
                }
                images(&mut entry.value, rule, origin);
            }
        }
        _ => {}
    }
}

fn rewrite(image: &mut Node, rule: &ImageRule, origin: &Node) {
    let Some(written) = image.as_str() else {
        return;
    };
    let parts = crate::image::Reference::parse(written);
    if parts.name != rule.name {
        return;
    }
    let name = rule.new_name.as_deref().unwrap_or(parts.name);
    let (tag, digest) = match (&rule.new_tag, &rule.digest) {
        (None, None) => (parts.tag, parts.digest),
        (tag, digest) => (tag.as_deref(), digest.as_deref()),
    };
    let mut new = name.to_owned();
    if let Some(tag) = tag {
        new.push(':');
        new.push_str(tag);
    }
    if let Some(digest) = digest {
        new.push('@');
        new.push_str(digest);
    }
    let span = ["newTag", "newName", "digest"]
        .iter()
        .find_map(|key| origin.get(key))
        .map_or(origin.span, |n| n.span);
    *image = Node::string(new, span);
}
