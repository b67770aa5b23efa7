//! Strategic merge: mappings merge, lists of Kubernetes' own kinds merge by their key
//! field, `null` and `$patch: delete` remove, `$patch: replace` replaces.

use crate::kinds;
use crate::node::{Data, Entry, Node, shortened};
use crate::problem::Draft;

/// Whether the patched object still exists.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Merged,
    Deleted,
}

/// Boxed: an error is rare and large.
type Merge<T> = Result<T, Box<Draft>>;

/// Applies a patch to an object. Kind, name and namespace stay the object's own.
pub(super) fn apply(patch: &Node, object: &mut Node) -> Merge<Outcome> {
    match directive(patch)? {
        Some(Directive::Delete) => return Ok(Outcome::Deleted),
        Some(Directive::Replace) => {
            return Err(Box::new(Draft::error(
                "kustomize::patch",
                patch.span,
                "`$patch: replace` for a whole object is not applied",
            )));
        }
        Some(Directive::Merge) | None => {}
    }
    let keyed = has_keyed_lists(object.str_at(&["apiVersion"]).unwrap_or(""));
    let mut patch = patch.clone();
    for key in ["apiVersion", "kind"] {
        patch.remove(key);
    }
    if let Some(metadata) = patch.get_mut("metadata") {
        metadata.remove("name");
        metadata.remove("namespace");
    }
    merge_map(object, &patch, keyed, "")?;
    Ok(Outcome::Merged)
}

/// The lists of other kinds (Knative's, custom resources) have no known keys, and
/// kustomize replaces them.
fn has_keyed_lists(api_version: &str) -> bool {
    let group = kinds::group(api_version);
    !group.contains('.') || group.ends_with(".k8s.io")
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(node: &Node) -> Merge<Option<Directive>> {
    for entry in node.entries() {
        if entry.key.starts_with('$') && entry.key != "$patch" {
            return Err(Box::new(Draft::error(
                "kustomize::patch",
                entry.key_span,
                format!("the directive {} is not applied yet", shortened(&entry.key)),
            )));
        }
    }
    let Some(node) = node.get("$patch") else {
        return Ok(None);
    };
    match node.as_str() {
        Some("merge") => Ok(Some(Directive::Merge)),
        Some("replace") => Ok(Some(Directive::Replace)),
        Some("delete") => Ok(Some(Directive::Delete)),
        _ => Err(Box::new(
            Draft::error(
                "kustomize::patch",
                node.span,
                format!("`$patch` is {}", node.described()),
            )
            .expected("merge, replace or delete"),
        )),
    }
}

/// Merges `patch` into `target`; `list` is the name of the list they are elements of.
fn merge_map(target: &mut Node, patch: &Node, keyed: bool, list: &str) -> Merge<()> {
    for entry in patch.entries() {
        if entry.key == "$patch" {
            continue;
        }
        if entry.value.is_null() {
            target.remove(&entry.key);
            continue;
        }
        merge_entry(target, entry, keyed, list)?;
    }
    Ok(())
}

fn merge_entry(target: &mut Node, entry: &Entry, keyed: bool, list: &str) -> Merge<()> {
    let patch = &entry.value;
    match &patch.data {
        Data::Map(_) => match directive(patch)? {
            Some(Directive::Delete) => {
                target.remove(&entry.key);
            }
            Some(Directive::Replace) => {
                let mut new = patch.clone();
                new.remove("$patch");
                put(target, entry, new);
            }
            _ => {
                let existing = target
                    .get(&entry.key)
                    .is_some_and(|n| matches!(n.data, Data::Map(_)));
                if !existing {
                    // Merged into nothing, so that nulls and directives inside vanish.
                    put(target, entry, Node::new(Data::Map(Vec::new()), patch.span));
                }
                if let Some(child) = target.get_mut(&entry.key) {
                    merge_map(child, patch, keyed, "")?;
                }
            }
        },
        Data::Seq(items) => {
            let keys = if keyed {
                merge_keys(list, &entry.key)
            } else {
                None
            };
            let old = target.get(&entry.key).map(|n| n.items().to_vec());
            let merged = match keys {
                Some(keys) => merge_list(old.unwrap_or_default(), items, keys, keyed, &entry.key)?,
                None => items.clone(),
            };
            put(target, entry, Node::new(Data::Seq(merged), patch.span));
        }
        _ => put(target, entry, patch.clone()),
    }
    Ok(())
}

fn put(target: &mut Node, entry: &Entry, value: Node) {
    if let Some(old) = target.get_mut(&entry.key) {
        *old = value;
    } else if let Data::Map(entries) = &mut target.data {
        entries.push(Entry {
            key: entry.key.clone(),
            key_span: entry.key_span,
            value,
        });
    }
}

/// Ports have two keys. kustomize loses a patch whose port names the protocol where the
/// resource leaves it to the default (or the reverse); here TCP is TCP, written or not.
///
/// `patchMergeKey` of Kubernetes' API, by the list's name (and, for ports, by where it
/// lies). Nothing for lists that are replaced as a whole.
fn merge_keys(parent_list: &str, list: &str) -> Option<&'static [&'static str]> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => &["name"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "hostAliases" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "conditions" => &["type"],
        "ownerReferences" => &["uid"],
        "ports" if parent_list.ends_with("ontainers") => &["containerPort", "protocol"],
        "ports" => &["port", "protocol"],
        "finalizers" => &[],
        _ => return None,
    })
}

/// Elements of the patch come first, as kustomize puts them, then those it doesn't name.
fn merge_list(
    mut old: Vec<Node>,
    patch: &[Node],
    keys: &[&str],
    keyed: bool,
    name: &str,
) -> Merge<Vec<Node>> {
    let mut out: Vec<Node> = Vec::new();
    for item in patch {
        if keys.is_empty() {
            old.retain(|o| !o.same_value(item));
            out.push(item.clone());
            continue;
        }
        let directive = directive(item)?;
        if matches!(directive, Some(Directive::Replace)) {
            // `- $patch: replace` among the elements replaces the whole list.
            old.clear();
            if item.entries().len() == 1 {
                continue;
            }
        }
        let key = key_of(item, keys);
        let Some(key) = key else {
            return Err(Box::new(
                Draft::error(
                    "kustomize::patch",
                    item.span,
                    format!(
                        "an element of `{name}` has no `{}`, by which it is merged",
                        keys[0]
                    ),
                )
                .expected(format!("`{}` in every element", keys[0])),
            ));
        };
        let position = old
            .iter()
            .position(|o| key_of(o, keys).as_ref() == Some(&key));
        let existing = position.map(|i| old.remove(i));
        if matches!(directive, Some(Directive::Delete)) {
            continue;
        }
        let mut merged = existing.unwrap_or_else(|| Node::new(Data::Map(Vec::new()), item.span));
        merge_map(&mut merged, item, keyed, name)?;
        out.push(merged);
    }
    out.extend(old);
    Ok(out)
}

/// The element's identity: the first key must be there, the others have defaults.
fn key_of(item: &Node, keys: &[&str]) -> Option<Vec<String>> {
    item.get(keys.first()?)?;
    let values = keys.iter().map(|key| match item.get(key) {
        Some(node) => node.to_json().to_string(),
        None if *key == "protocol" => "\"TCP\"".into(),
        None => String::new(),
    });
    Some(values.collect())
}
