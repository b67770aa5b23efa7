//! Owners, selectors and names: what several controllers need of `metadata`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use crate::store::Object;

/// The `ownerReferences` entry that makes `owner` the controller of an object.
pub fn controller_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.kind().api_version(),
        "kind": owner.kind().kind,
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Kind, name and uid of the controller that owns `object`, if one does.
pub fn controller_of(object: &Object) -> Option<(&str, &str, &str)> {
    let owners = object.value()["metadata"]["ownerReferences"].as_array()?;
    let owner = owners
        .iter()
        .find(|o| o["controller"].as_bool() == Some(true))?;
    Some((
        owner["kind"].as_str()?,
        owner["name"].as_str()?,
        owner["uid"].as_str()?,
    ))
}

/// Whether labels satisfy a selector; an absent or empty selector matches nothing here.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let wanted = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    if wanted.clone().next().is_none() && expressions.clone().next().is_none() {
        return false;
    }
    wanted.into_iter().all(|(k, v)| value(k) == Some(v))
        && expressions.into_iter().all(|e| {
            let found = value(&e.key);
            let listed = || found.is_some_and(|f| e.values.iter().flatten().any(|v| v == f));
            match e.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// Whether labels contain every pair of a Service's selector; an empty selector matches nothing.
pub fn contains(selector: &BTreeMap<String, String>, meta: &ObjectMeta) -> bool {
    !selector.is_empty()
        && meta
            .labels
            .as_ref()
            .is_some_and(|labels| selector.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// A short name-safe hash of a JSON value that does not depend on the order of its members.
pub fn hash_of(value: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hasher = Sha256::new();
    feed(value, &mut hasher);
    hasher
        .finalize()
        .iter()
        .take(10)
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            hasher.update(b"{");
            for key in keys {
                // `null` and absent mean the same to Kubernetes.
                if !map[key].is_null() {
                    hasher.update(key.as_bytes());
                    hasher.update(b"\0:");
                    feed(&map[key], hasher);
                }
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        scalar => hasher.update(scalar.to_string().as_bytes()),
    }
}

/// An owned object's name: `base` cut so that `-suffix` fits into 63 characters.
pub fn derived_name(base: &str, suffix: &str) -> String {
    let room = 63usize.saturating_sub(suffix.len() + 1);
    let base: String = base.chars().take(room).collect();
    format!("{base}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_hash_ignores_order_and_nulls_and_nothing_else() {
        let a = json!({"x": 1, "y": [1, 2], "z": null});
        let b: Value = serde_json::from_str(r#"{"y":[1,2],"x":1}"#).expect("JSON");
        assert_eq!(hash_of(&a), hash_of(&b));
        assert_ne!(hash_of(&a), hash_of(&json!({"x": 1, "y": [2, 1]})));
        assert_ne!(hash_of(&json!({"ab": "c"})), hash_of(&json!({"a": "bc"})));
        assert_eq!(hash_of(&a).len(), 10);
    }

    #[rstest]
    #[case(json!({"matchLabels": {"a": "1"}}), true)]
    #[case(json!({"matchLabels": {"a": "2"}}), false)]
    #[case(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "b", "operator": "Exists"}]}), false)]
    #[case(json!({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}), true)]
    #[case(json!({}), false)]
    fn selectors(#[case] selector: Value, #[case] expected: bool) {
        let selector: LabelSelector = serde_json::from_value(selector).expect("a selector");
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(selects(&selector, Some(&labels)), expected);
    }

    #[test]
    fn long_names_are_cut() {
        let name = derived_name(&"x".repeat(80), "abc");
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("x-abc"));
    }
}
