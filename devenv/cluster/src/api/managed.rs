//! Server-side apply: who owns which field, what an apply changes, and what it takes away. Pure.
//!
//! An object is flattened to paths; a set of paths is what `metadata.managedFields` holds for each
//! manager, in Kubernetes' own notation (`f:` fields, `k:` items of keyed lists, `v:` members of
//! sets).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    schema::{self, Field, Type},
    status::Failure,
};
use crate::kinds::KindRef;

/// Steps from the object down to a field, each in the notation of FieldsV1.
type Path = Vec<String>;
type Fields = BTreeSet<Path>;

/// Who writes, and how.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    pub name: String,
    /// `status`, `scale` or empty.
    pub subresource: String,
    /// Now, as Kubernetes writes it.
    pub time: String,
}

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: String,
    apply: bool,
    subresource: String,
    api_version: String,
    time: String,
    fields: Fields,
}

impl Entry {
    fn is(&self, manager: &Manager, apply: bool) -> bool {
        self.name == manager.name && self.apply == apply && self.subresource == manager.subresource
    }

    /// The manager as Kubernetes' conflict messages show it.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.apply {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

fn read(object: &Value) -> Vec<Entry> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    entries
        .filter(|e| e["fieldsV1"].is_object())
        .map(|e| Entry {
            name: text(e, "manager"),
            apply: e["operation"] == "Apply",
            subresource: text(e, "subresource"),
            api_version: text(e, "apiVersion"),
            time: text(e, "time"),
            fields: from_fields_v1(&e["fieldsV1"]),
        })
        .collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|e| {
            let mut value = json!({
                "manager": e.name,
                "operation": if e.apply { "Apply" } else { "Update" },
                "apiVersion": e.api_version,
                "time": e.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": to_fields_v1(&e.fields),
            });
            if !e.subresource.is_empty() {
                value["subresource"] = json!(e.subresource);
            }
            value
        })
        .collect();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

fn to_fields_v1(fields: &Fields) -> Value {
    fn insert(at: &mut Map<String, Value>, path: &[String]) {
        let Some((step, rest)) = path.split_first() else {
            return;
        };
        let next = at.entry(step.clone()).or_insert_with(|| json!({}));
        let Value::Object(next) = next else { return };
        if !rest.is_empty() {
            insert(next, rest);
        } else if step.starts_with("k:") {
            // An item that is owned itself, besides the fields below it.
            next.insert(".".to_owned(), json!({}));
        }
    }
    let mut root = Map::new();
    for path in fields {
        insert(&mut root, path);
    }
    Value::Object(root)
}

fn from_fields_v1(value: &Value) -> Fields {
    fn walk(value: &Value, path: &mut Path, out: &mut Fields) {
        let Value::Object(map) = value else { return };
        if (map.is_empty() || map.contains_key(".")) && !path.is_empty() {
            out.insert(path.clone());
        }
        for (step, below) in map {
            if step != "." {
                path.push(step.clone());
                walk(below, path, out);
                path.pop();
            }
        }
    }
    let mut out = Fields::new();
    walk(value, &mut Path::new(), &mut out);
    out
}

/// Fields that belong to the server or name the object: nobody owns them.
fn unowned(path: &[String]) -> bool {
    let step = |i: usize| path.get(i).map(String::as_str);
    match step(0) {
        Some("f:apiVersion" | "f:kind") => true,
        Some("f:metadata") => matches!(
            step(1),
            None | Some(
                "f:name"
                    | "f:namespace"
                    | "f:uid"
                    | "f:resourceVersion"
                    | "f:creationTimestamp"
                    | "f:generation"
                    | "f:managedFields"
                    | "f:selfLink"
                    | "f:deletionTimestamp"
                    | "f:deletionGracePeriodSeconds"
            )
        ),
        _ => false,
    }
}

/// Every owned path of an object with its value; items of keyed lists stand for themselves too.
fn flatten<'a>(object: &'a Value, of: &'static Type) -> BTreeMap<Path, &'a Value> {
    let mut out = BTreeMap::new();
    flatten_into(object, None, of, &mut Path::new(), &mut out);
    out.retain(|path, _| !path.is_empty() && !unowned(path));
    out
}

fn item_step(item: &Value, keys: &[(&str, &str)]) -> String {
    let key: Map<String, Value> = keys
        .iter()
        .map(|key| (key.0.to_owned(), schema::key_value(item, *key)))
        .collect();
    format!("k:{}", Value::Object(key))
}

fn flatten_into<'a>(
    value: &'a Value,
    field: Option<Field>,
    of: &'static Type,
    path: &mut Path,
    out: &mut BTreeMap<Path, &'a Value>,
) {
    match (value, field) {
        (Value::Object(map), field) if !map.is_empty() && !matches!(field, Some(Field::Atomic)) => {
            for (name, below) in map {
                let field = of.field(name);
                path.push(format!("f:{name}"));
                flatten_into(below, field, schema::below(field), path, out);
                path.pop();
            }
        }
        (Value::Array(items), Some(Field::Set { .. })) if !items.is_empty() => {
            for item in items {
                path.push(format!("v:{item}"));
                out.insert(path.clone(), item);
                path.pop();
            }
        }
        (Value::Array(items), Some(Field::Map { keys, item: of })) if !items.is_empty() => {
            for item in items {
                path.push(item_step(item, keys));
                // The item itself has no value: it is there or not.
                out.insert(path.clone(), &Value::Null);
                flatten_into(item, None, of, path, out);
                path.pop();
            }
        }
        _ => {
            out.insert(path.clone(), value);
        }
    }
}

/// Paths of `new` that `old` lacks or has with another value; and paths that only `old` has.
fn compare(old: &Value, new: &Value, of: &'static Type) -> (Fields, Fields) {
    let (old, new) = (flatten(old, of), flatten(new, of));
    let changed = new
        .iter()
        .filter(|(path, value)| old.get(*path) != Some(value))
        .map(|(p, _)| p.clone());
    let removed = old.keys().filter(|path| !new.contains_key(*path)).cloned();
    (changed.collect(), removed.collect())
}

/// Records an ordinary write: what it changed belongs to its manager from now on.
pub(super) fn track(kind: KindRef, old: Option<&Value>, new: &mut Value, manager: &Manager) {
    // Someone who writes managedFields itself (kubectl's migration to server-side apply does) is
    // believed; someone who leaves them out changes nothing about them.
    let written = new["metadata"]["managedFields"].as_array().cloned();
    let nothing = Value::Null;
    let before = old.unwrap_or(&nothing);
    match &written {
        Some(written)
            if written.len() == 1 && written[0].as_object().is_some_and(Map::is_empty) =>
        {
            write(new, Vec::new());
            return;
        }
        Some(written)
            if !written.is_empty()
                && old.is_some()
                && before["metadata"]["managedFields"].as_array() != Some(written) =>
        {
            let entries = read(new);
            write(new, entries);
            return;
        }
        _ => {}
    }
    let mut entries = read(before);
    let (changed, removed) = compare(before, new, schema::of(kind));
    if !changed.is_empty() || !removed.is_empty() {
        for entry in &mut entries {
            let own = entry.is(manager, false);
            entry
                .fields
                .retain(|f| !removed.contains(f) && (own || !changed.contains(f)));
        }
        if !changed.is_empty() {
            match entries.iter_mut().find(|e| e.is(manager, false)) {
                Some(entry) => {
                    entry.fields.extend(changed);
                    entry.time = manager.time.clone();
                }
                None => entries.push(entry(kind, manager, false, changed)),
            }
        }
    }
    write(new, entries);
}

fn entry(kind: KindRef, manager: &Manager, apply: bool, fields: Fields) -> Entry {
    Entry {
        name: manager.name.clone(),
        apply,
        subresource: manager.subresource.clone(),
        api_version: kind.api_version(),
        time: manager.time.clone(),
        fields,
    }
}

/// The object after `manager` applied `applied` to it, with `managedFields` brought up to date.
///
/// # Errors
/// 409 when a field that changes belongs to another manager, unless `force`.
pub(super) fn apply(
    kind: KindRef,
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager,
    force: bool,
) -> Result<Value, Failure> {
    let of = schema::of(kind);
    let nothing = json!({"metadata": {}});
    let live = live.unwrap_or(&nothing);
    let mut entries = read(live);
    let wanted: Fields = flatten(applied, of).into_keys().collect();

    let mut merged = live.clone();
    merge(&mut merged, applied, of);

    let (changed, _) = compare(live, &merged, of);
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for other in entries.iter_mut().filter(|e| !e.is(manager, true)) {
        let taken: Vec<Path> = other
            .fields
            .iter()
            .filter(|f| wanted.contains(*f) && changed.contains(*f))
            .cloned()
            .collect();
        if force {
            for field in &taken {
                other.fields.remove(field);
            }
        } else {
            let shown = other.shown();
            conflicts.extend(taken.iter().map(|f| (shown.clone(), shown_path(f))));
        }
    }
    if !conflicts.is_empty() {
        conflicts.sort();
        return Err(Failure::apply_conflict(&conflicts));
    }

    let before: Fields = entries
        .iter()
        .find(|e| e.is(manager, true))
        .map(|e| e.fields.clone())
        .unwrap_or_default();
    let kept = |path: &Path| {
        wanted.iter().any(|f| f.starts_with(path))
            || entries
                .iter()
                .filter(|e| !e.is(manager, true))
                .any(|e| e.fields.iter().any(|f| f.starts_with(path)))
    };
    let before = with_parents(before);
    // Longest first, so that an item's fields go before the item is looked at.
    let mut dropped: Vec<&Path> = before.difference(&wanted).filter(|p| !kept(p)).collect();
    dropped.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for path in dropped {
        remove(&mut merged, path, of);
    }

    match entries.iter_mut().find(|e| e.is(manager, true)) {
        Some(entry) if entry.fields == wanted => {}
        Some(entry) => {
            entry.fields = wanted;
            entry.time = manager.time.clone();
        }
        None => entries.push(entry(kind, manager, true, wanted)),
    }
    write(&mut merged, entries);
    Ok(merged)
}

/// The fields and the objects that they lie in. An object of which nobody wants anything any
/// more goes with what the server's defaults put into it: half a probe is none.
/// (`EnsureNamedFieldsAreMembers` of structured-merge-diff.)
fn with_parents(fields: Fields) -> Fields {
    let parents = |path: &Path| -> Vec<Path> {
        let ends = (1..path.len()).filter(|end| path[end - 1].starts_with("f:"));
        ends.map(|end| path[..end].to_vec()).collect()
    };
    let mut all: Fields = fields.iter().flat_map(parents).collect();
    all.retain(|path| !unowned(path));
    all.extend(fields);
    all
}

/// `.spec.containers[name="c"].image`, as conflict messages write paths.
fn shown_path(path: &[String]) -> String {
    let mut shown = String::new();
    for step in path {
        if let Some(field) = step.strip_prefix("f:") {
            shown.push_str(&format!(".{field}"));
        } else if let Some(key) = step.strip_prefix("k:") {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let keys: Vec<String> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
            shown.push_str(&format!("[{}]", keys.join(",")));
        } else if let Some(value) = step.strip_prefix("v:") {
            shown.push_str(&format!("[={value}]"));
        }
    }
    shown
}

/// Lays `applied` over `target`.
fn merge(target: &mut Value, applied: &Value, of: &'static Type) {
    let (Value::Object(target), Value::Object(applied)) = (target, applied) else {
        return;
    };
    for (name, new) in applied {
        let field = of.field(name);
        let old = target.entry(name.clone()).or_insert(Value::Null);
        match (&mut *old, new, field) {
            (_, _, Some(Field::Atomic)) => *old = new.clone(),
            (Value::Object(_), Value::Object(_), _) => merge(old, new, schema::below(field)),
            (Value::Array(old), Value::Array(new), Some(Field::Set { .. })) => {
                old.extend(
                    new.iter()
                        .filter(|v| !old.contains(v))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
            (Value::Array(old), Value::Array(new), Some(Field::Map { keys, item })) => {
                let items = std::mem::take(old);
                let wanted = new
                    .iter()
                    .map(
                        |new| match items.iter().position(|o| schema::same_item(o, new, keys)) {
                            Some(at) => {
                                let mut both = items[at].clone();
                                merge(&mut both, new, item);
                                (Some(at), both)
                            }
                            None => (None, new.clone()),
                        },
                    )
                    .collect();
                *old = schema::order(items, wanted);
            }
            (old, new, _) => *old = new.clone(),
        }
    }
}

/// Takes a path away, and the objects and lists that become empty by it. True when `value` itself
/// became empty.
fn remove(value: &mut Value, path: &[String], of: &'static Type) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return false;
    };
    let Some(name) = step.strip_prefix("f:") else {
        return false;
    };
    let Value::Object(map) = value else {
        return false;
    };
    let field = of.field(name);
    let gone = match map.get_mut(name) {
        None => return false,
        Some(_) if rest.is_empty() => true,
        Some(Value::Array(items)) => {
            let step = &rest[0];
            match field {
                Some(Field::Set { .. }) => items.retain(|item| format!("v:{item}") != *step),
                Some(Field::Map { keys, item: of }) => {
                    if rest.len() == 1 {
                        items.retain(|item| item_step(item, keys) != *step);
                    } else if let Some(item) =
                        items.iter_mut().find(|i| item_step(i, keys) == *step)
                    {
                        // The keys of an item stay as long as the item does.
                        let key = rest[1].strip_prefix("f:").unwrap_or_default();
                        if rest.len() > 2 || !keys.iter().any(|k| k.0 == key) {
                            remove(item, &rest[1..], of);
                        }
                    }
                }
                _ => {}
            }
            items.is_empty()
        }
        Some(below) => remove(below, rest, schema::below(field)),
    };
    if gone {
        map.remove(name);
    }
    map.is_empty()
}

#[cfg(test)]
mod tests;
