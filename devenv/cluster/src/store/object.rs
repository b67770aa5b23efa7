//! A stored object, and what the store itself does to objects.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::StoreError;
use crate::kinds::KindRef;

/// One state of one object; never changes.
#[derive(Debug)]
pub struct Object {
    kind: KindRef,
    resource_version: u64,
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    value: Value,
}

impl Object {
    pub(super) fn new(kind: KindRef, resource_version: u64, value: Value) -> Object {
        let of = |field: &str| value["metadata"][field].as_str().unwrap_or_default().into();
        Object {
            kind,
            resource_version,
            namespace: of("namespace"),
            name: of("name"),
            uid: of("uid"),
            value,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> KindRef {
        self.kind
    }

    /// Its namespace; empty for a cluster-scoped kind.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its uid: another one when an object of the same name is made anew.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Number of the write that made this state.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The whole object as JSON, with apiVersion and kind.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Whether it is marked for deletion.
    pub fn is_deleting(&self) -> bool {
        self.value["metadata"]["deletionTimestamp"].is_string()
    }

    /// The object as a Rust type, such as those of `k8s_openapi`.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when a field has another form than the type wants.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(&self.value).map_err(|source| StoreError::Shape {
            kind: self.kind,
            name: self.name.to_string(),
            source,
        })
    }
}

/// How a new object gets its name.
pub(super) enum Name {
    Given(String),
    Generate(String),
}

/// The time now as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Fills in what the store gives to a new object; returns its namespace and the way to its name.
pub(super) fn prepare_new(kind: KindRef, value: &mut Value) -> Result<(String, Name), StoreError> {
    let invalid = |name: &str, reason: &str| StoreError::Invalid {
        kind,
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    let Some(object) = value.as_object_mut() else {
        return Err(invalid("", "it is not a JSON object"));
    };
    object.insert("apiVersion".to_owned(), Value::String(kind.api_version()));
    object.insert("kind".to_owned(), Value::String(kind.kind.to_owned()));
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(invalid("", "metadata is not a JSON object"));
    };
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (ns, name, base) = (
        text("namespace").to_owned(),
        text("name").to_owned(),
        text("generateName").to_owned(),
    );
    match (kind.namespaced, ns.is_empty()) {
        (true, true) => {
            return Err(invalid(
                &name,
                "metadata.namespace is empty, but its kind lives in namespaces",
            ));
        }
        (false, false) => {
            return Err(invalid(
                &name,
                "metadata.namespace is set, but its kind is cluster-scoped",
            ));
        }
        _ => {}
    }
    if name.is_empty() && base.is_empty() {
        return Err(invalid(
            "",
            "it has neither metadata.name nor metadata.generateName",
        ));
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert(
        "creationTimestamp".to_owned(),
        json!(timestamp(jiff::Timestamp::now())),
    );
    for server_owned in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        metadata.remove(server_owned);
    }
    if !kind.namespaced {
        metadata.remove("namespace");
    }
    if kind.has_generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    Ok((
        ns,
        if name.is_empty() {
            Name::Generate(base)
        } else {
            Name::Given(name)
        },
    ))
}

/// Puts back what an update may not change.
pub(super) fn keep_identity(current: &Value, new: &mut Value) {
    const IDENTITY: [&str; 8] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for field in ["apiVersion", "kind"] {
        new[field] = current[field].clone();
    }
    for field in IDENTITY {
        restore(&current["metadata"], &mut new["metadata"], field);
    }
}

fn restore(from: &Value, to: &mut Value, field: &str) {
    if let Some(to) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => to.insert(field.to_owned(), value.clone()),
            None => to.remove(field),
        };
    }
}

/// Whether anything outside metadata and status differs.
pub(super) fn spec_differs(a: &Value, b: &Value) -> bool {
    let wanted = |v: &Value| -> Vec<(String, Value)> {
        v.as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    wanted(a) != wanted(b)
}

pub(super) fn bump_generation(value: &mut Value) {
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    value["metadata"]["generation"] = json!(generation);
}

fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty())
}

/// Whether this update is the one that lets a waiting deletion happen.
pub(super) fn lost_last_finalizer(old: &Value, new: &Value) -> bool {
    let metadata = &new["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && has_finalizers(old)
        && !has_finalizers(new)
}

/// Marks for deletion; false when it was marked already, with no longer a grace period.
pub(super) fn mark_deleted(kind: KindRef, value: &mut Value, grace_seconds: i64) -> bool {
    let metadata = &value["metadata"];
    if metadata["deletionTimestamp"].is_string() {
        let before = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace_seconds >= before {
            return false;
        }
    }
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace_seconds);
    value["metadata"]["deletionTimestamp"] = json!(timestamp(at));
    value["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
    if kind.has_generation {
        bump_generation(value);
    }
    true
}
