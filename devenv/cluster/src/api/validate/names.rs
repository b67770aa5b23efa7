//! Names, labels and keys.

use serde_json::Value;

use super::text;
use crate::{api::status::Cause, kinds::KindRef};

fn alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    s.starts_with(alphanumeric)
        && s.ends_with(alphanumeric)
        && s.chars().all(|c| alphanumeric(c) || c == '-')
}

fn too_long(name: &str, limit: usize) -> Option<String> {
    (name.len() > limit).then(|| format!("must be no more than {limit} bytes"))
}

/// What keeps a name from being an RFC 1123 label.
pub fn dns_label(name: &str) -> Option<String> {
    if is_label(name) {
        return too_long(name, 63);
    }
    Some("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".to_owned())
}

/// What keeps a name from being an RFC 1123 subdomain.
pub fn dns_subdomain(name: &str) -> Option<String> {
    if name.split('.').all(is_label) {
        return too_long(name, 253);
    }
    Some("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned())
}

/// What keeps a name from being an RFC 1035 label, which Services must be.
pub fn dns_1035(name: &str) -> Option<String> {
    if is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return too_long(name, 63);
    }
    Some("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".to_owned())
}

/// What keeps a name from being that of a port.
pub fn port_name(name: &str) -> Option<String> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters".to_owned());
    }
    if !is_label(name) || name.contains("--") {
        return Some(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    (!name.contains(|c: char| c.is_ascii_lowercase()))
        .then(|| "must contain at least one letter (a-z)".to_owned())
}

/// What keeps a key of a ConfigMap or a Secret from being one.
pub fn data_key(key: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if key.is_empty() || !key.chars().all(good) {
        return Some("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".to_owned());
    }
    if key == "." || key.starts_with("..") {
        return Some(format!("must not be '{key}' or start with '..'"));
    }
    too_long(key, 253)
}

fn is_qualified(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.ends_with(|c: char| c.is_ascii_alphanumeric())
        && part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn label_key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix
        && let Some(wrong) = dns_subdomain(prefix)
    {
        return Some(format!("prefix part {wrong}"));
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!is_qualified(name)).then(|| "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".to_owned())
}

fn label_value(value: &str) -> Option<String> {
    if value.is_empty() || is_qualified(value) {
        return too_long(value, 63);
    }
    Some("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".to_owned())
}

/// Name, labels and annotations.
pub fn metadata(kind: KindRef, metadata: &Value, causes: &mut Vec<Cause>) {
    let check = match (kind.group, kind.kind) {
        ("", "Namespace") => dns_label,
        ("" | "serving.knative.dev", "Service") => dns_1035,
        _ => dns_subdomain,
    };
    let name = text(&metadata["name"]);
    let base = text(&metadata["generateName"]);
    if name.is_empty() && base.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if !name.is_empty() {
        if let Some(wrong) = check(name) {
            causes.push(Cause::invalid(
                "metadata.name",
                &format!("{name:?}"),
                &wrong,
            ));
        }
    } else if let Some(wrong) = check(base.trim_end_matches(['-', '.'])) {
        causes.push(Cause::invalid(
            "metadata.generateName",
            &format!("{base:?}"),
            &wrong,
        ));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Some(wrong) = label_key(key) {
            causes.push(Cause::invalid(
                "metadata.labels",
                &format!("{key:?}"),
                &wrong,
            ));
        }
        let value = text(value);
        if let Some(wrong) = label_value(value) {
            causes.push(Cause::invalid(
                "metadata.labels",
                &format!("{value:?}"),
                &wrong,
            ));
        }
    }
    for key in metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
    {
        if let Some(wrong) = label_key(&key.to_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &format!("{key:?}"),
                &wrong,
            ));
        }
    }
}
