//! What must not be told.
//!
//! Values of Secrets are never told. Elsewhere it is a matter of looks: variables and keys
//! that are named like a secret, URLs with a password, arguments with one. That is no
//! promise about what people write where it does not belong.

use serde_json::{Map, Value};

use super::path::{Path, Segment};

/// What stands for a part that is left out of a larger value.
const HIDDEN: &str = "(secret)";

/// What may be told of a value, and whether anything is left out. Nothing: all of it is.
pub(super) fn told(kind: &str, path: &Path, value: &Value) -> (Option<Value>, bool) {
    if is_secrets(kind, path) || is_named_secret(kind, path) {
        return (None, true);
    }
    match value {
        Value::String(text) if holds_secret(text) => (None, true),
        value => {
            let redacted = redact(kind, path, value);
            let hidden = redacted != *value;
            (Some(redacted), hidden)
        }
    }
}

/// Everything of a Secret but its name and type.
fn is_secrets(kind: &str, path: &Path) -> bool {
    kind == "Secret" && !matches!(path.fields().first(), Some(&"metadata" | &"type"))
}

/// The literal of a variable, or the key of a ConfigMap, that is named like a secret.
fn is_named_secret(kind: &str, path: &Path) -> bool {
    match path.0.as_slice() {
        [.., Segment::Item(pairs), Segment::Field(value)] if value == "value" => {
            pairs.iter().any(|(_, name)| looks_secret(name))
        }
        [.., Segment::Field(data), Segment::Field(key)] if kind == "ConfigMap" => {
            data == "data" && looks_secret(key)
        }
        _ => false,
    }
}

fn redact(kind: &str, path: &Path, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let named = fields
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(looks_secret);
            let redacted: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| {
                    let path = path.field(name);
                    let hide = (named && name == "value") || is_named_secret(kind, &path);
                    let value = if hide {
                        Value::String(HIDDEN.to_owned())
                    } else {
                        redact(kind, &path, value)
                    };
                    (name.clone(), value)
                })
                .collect();
            Value::Object(redacted)
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| redact(kind, &path.with(Segment::Index(index)), item))
            .collect(),
        Value::String(text) if holds_secret(text) => Value::String(HIDDEN.to_owned()),
        other => other.clone(),
    }
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    [
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "TOKEN",
        "CREDENTIAL",
        "PRIVATE",
        "API_KEY",
        "APIKEY",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// `mysql://user:password@host`, `--password=…`.
fn holds_secret(text: &str) -> bool {
    let in_url = text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'))
    });
    in_url
        || text.split_whitespace().any(|word| {
            word.split_once('=')
                .is_some_and(|(name, value)| looks_secret(name) && !value.is_empty())
        })
}
