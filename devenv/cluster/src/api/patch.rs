//! Merge patches, JSON patches and strategic merge patches. Pure.

use serde_json::{Map, Value, json};

use super::{
    schema::{self, Field, Type},
    status::Failure,
};

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

/// RFC 6902.
///
/// # Errors
/// 400 when it is no JSON patch, 422 when it does not fit the object.
pub(super) fn json_patch(target: &mut Value, patch: Value) -> Result<(), Failure> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")))?;
    json_patch::patch(target, &patch).map_err(|e| {
        tracing::debug!(error = %e, "a JSON patch does not fit");
        Failure::patch_does_not_fit()
    })
}

/// Kubernetes' strategic merge patch.
///
/// # Errors
/// 400 for a directive that is none.
pub(super) fn strategic(target: &mut Value, patch: &Value, of: &Type) -> Result<(), Failure> {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(Failure::bad_request(
            "error decoding patch: an object is expected",
        ));
    };
    strategic_map(target, patch, of)
}

const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

fn strategic_map(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    of: &Type,
) -> Result<(), Failure> {
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => {
            return Err(Failure::bad_request(format!("Unknown patch type: {other}")));
        }
    }
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Some(gone)) =
                (target.get_mut(list), value.as_array())
            {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if let Some(list) = key.strip_prefix(ORDER) {
            // An order without changes to the list itself.
            if !patch.contains_key(list)
                && let (Some(Value::Array(items)), Some(wanted)) =
                    (target.get_mut(list), value.as_array())
            {
                let field = of.field(list);
                let old = std::mem::take(items);
                *items = reorder(old, Vec::new(), wanted, strategic_keys(field));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let field = of.field(key);
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(value) => {
                let below = schema::below(field);
                match target.get_mut(key) {
                    Some(Value::Object(old)) => {
                        strategic_map(old, value, below)?;
                        if value.get("$patch").and_then(Value::as_str) == Some("delete") {
                            target.remove(key);
                        }
                    }
                    _ => {
                        let mut new = Map::new();
                        strategic_map(&mut new, value, below)?;
                        target.insert(key.clone(), Value::Object(new));
                    }
                }
            }
            Value::Array(patch_items) => {
                let order = patch
                    .get(&format!("{ORDER}{key}"))
                    .and_then(Value::as_array);
                let old = match target.remove(key) {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                let new = strategic_list(old, patch_items, order, field)?;
                target.insert(key.clone(), Value::Array(new));
            }
            scalar => {
                target.insert(key.clone(), scalar.clone());
            }
        }
    }
    Ok(())
}

/// The key by which a strategic merge patch tells a list's items apart.
fn strategic_keys(field: Option<Field>) -> Option<&'static str> {
    match field {
        Some(Field::Map { keys, .. }) => keys.first().map(|k| k.0),
        Some(Field::StrategicOnly { key }) => Some(key),
        _ => None,
    }
}

fn strategic_list(
    mut old: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
    field: Option<Field>,
) -> Result<Vec<Value>, Failure> {
    if let Some(Field::Set { strategic: true }) = field {
        let new: Vec<Value> = patch
            .iter()
            .filter(|item| !old.contains(item))
            .cloned()
            .collect();
        return Ok(match order {
            Some(order) => reorder(old, new, order, None),
            None => [old, new].concat(),
        });
    }
    let Some(key) = strategic_keys(field) else {
        return Ok(patch.iter().map(bare).collect());
    };
    let directive = |item: &Value| {
        item.get("$patch")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let replace =
        |item: &Value| directive(item).as_deref() == Some("replace") && item.get(key).is_none();
    if patch.iter().any(replace) {
        return Ok(patch
            .iter()
            .filter(|item| !replace(item))
            .map(bare)
            .collect());
    }
    let below = schema::below(field);
    // Without an order of its own, the patch's items are the order.
    let mut mentioned = Vec::new();
    let mut added: Vec<Value> = Vec::new();
    for item in patch {
        let Some(id) = item.get(key) else {
            return Err(Failure::bad_request(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        if directive(item).as_deref() == Some("delete") {
            old.retain(|o| o.get(key) != Some(id));
            continue;
        }
        mentioned.push(id.clone());
        match old
            .iter_mut()
            .chain(&mut added)
            .find(|o| o.get(key) == Some(id))
        {
            Some(existing) => strategic(existing, item, below)?,
            None => {
                let mut new = json!({});
                strategic(&mut new, item, below)?;
                added.push(new);
            }
        }
    }
    let order: Vec<Value> = match order {
        Some(order) => order.clone(),
        None => mentioned.into_iter().map(|id| json!({key: id})).collect(),
    };
    Ok(reorder(old, added, &order, Some(key)))
}

/// Orders a list, of old and added items, as `wanted` names them (by key, or themselves).
fn reorder(
    old: Vec<Value>,
    mut added: Vec<Value>,
    wanted: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let id = |v: &Value| match key {
        Some(key) => v.get(key).cloned().unwrap_or(Value::Null),
        None => v.clone(),
    };
    let ids: Vec<Value> = old.iter().map(id).collect();
    let mut ordered = Vec::new();
    for wanted in wanted {
        let wanted = id(wanted);
        if let Some(at) = ids.iter().position(|i| *i == wanted) {
            ordered.push((Some(at), old[at].clone()));
        } else if let Some(at) = added.iter().position(|a| id(a) == wanted) {
            ordered.push((None, added.remove(at)));
        }
    }
    let mut all = schema::order(old, ordered);
    all.extend(added);
    all
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(k, _)| !k.starts_with('$'))
        .map(|(k, v)| (k.clone(), bare(v)))
        .collect()
}

fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kinds::{DEPLOYMENT, POD};

    #[test]
    fn merge_patch() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut value,
            &json!({"a": {"b": null, "e": {"f": null}}, "d": [2]}),
        );
        assert_eq!(value, json!({"a": {"c": 2, "e": {}}, "d": [2]}));
    }

    #[test]
    fn json_patches_fit_or_fail() {
        let mut value = json!({"metadata": {"labels": {"p": "1"}}});
        let patch = json!([{"op": "replace", "path": "/metadata/labels/p", "value": "3"}]);
        json_patch(&mut value, patch).unwrap();
        assert_eq!(value["metadata"]["labels"]["p"], "3");
        let patch = json!([{"op": "replace", "path": "/metadata/labels/zzz/y", "value": "1"}]);
        assert_eq!(json_patch(&mut value, patch).unwrap_err().code, 422);
        assert_eq!(
            json_patch(&mut value, json!({"op": "add"}))
                .unwrap_err()
                .code,
            400
        );
    }

    #[rstest]
    // A container by name, an env entry beside the others.
    #[case(
        json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}),
        json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}]})
    )]
    // kubectl's three-way patch: an entry gone, one changed, the order said.
    #[case(
        json!({"containers": [{"name": "a", "env": [{"name": "X"}, {"name": "Y"}, {"name": "Z"}]}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a",
            "$setElementOrder/env": [{"name": "Z"}, {"name": "X"}],
            "env": [{"name": "Y", "$patch": "delete"}, {"name": "X", "value": "2"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Z"}, {"name": "X", "value": "2"}]}]})
    )]
    // A volume that changes its source.
    #[case(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]})
    )]
    // Lists that are one value.
    #[case(
        json!({"tolerations": [{"key": "a"}], "restartPolicy": "Always"}),
        json!({"tolerations": [{"key": "b"}], "restartPolicy": null}),
        json!({"tolerations": [{"key": "b"}]})
    )]
    #[case(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}]})
    )]
    #[case(
        json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        json!({"securityContext": {"$patch": "replace", "fsGroup": 3}}),
        json!({"securityContext": {"fsGroup": 3}})
    )]
    #[case(json!({"securityContext": {"fsGroup": 2}}), json!({"securityContext": {"$patch": "delete"}}), json!({}))]
    fn strategic_pods(#[case] spec: Value, #[case] patch: Value, #[case] wanted: Value) {
        let mut pod = json!({"spec": spec});
        strategic(&mut pod, &json!({"spec": patch}), schema::of(&POD)).unwrap();
        assert_eq!(pod["spec"], wanted);
    }

    #[test]
    fn finalizers_and_strategies() {
        let mut value = json!({"metadata": {"finalizers": ["a", "b"]},
            "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
            "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        strategic(&mut value, &patch, schema::of(&DEPLOYMENT)).unwrap();
        assert_eq!(value["metadata"]["finalizers"], json!(["b", "c"]));
        assert_eq!(value["spec"]["strategy"], json!({"type": "Recreate"}));
        let keyless = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
        assert_eq!(
            strategic(&mut value, &keyless, schema::of(&DEPLOYMENT))
                .unwrap_err()
                .code,
            400
        );
    }
}
