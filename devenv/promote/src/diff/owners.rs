//! Whose fields are whose: `metadata.managedFields`.
//!
//! Each entry has a set of fields as a tree, in which `f:NAME` is a field, `k:{…}` an item
//! of a list by its keys, `v:…` one by its value and `.` the thing itself (Kubernetes,
//! structured-merge-diff, `FieldsV1`).

use serde_json::Value;

use super::path::{Path, Segment, text_of};

/// All managers of an object.
#[derive(Debug)]
pub(super) struct Owners {
    pub managers: Vec<Manager>,
}

/// One manager's fields.
#[derive(Debug)]
pub(super) struct Manager {
    pub name: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// When it last changed one, as the API server writes it.
    pub time: Option<String>,
    /// The fields that it owns, no others within them.
    pub fields: Vec<Path>,
}

impl Owners {
    /// Nothing, where the object has no such entries.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let entries = object.pointer("/metadata/managedFields")?.as_array()?;
        let managers: Vec<Manager> = entries
            .iter()
            // What is in status is observed, not wanted.
            .filter(|entry| entry.get("subresource").is_none())
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                let mut fields = Vec::new();
                leaves(&entry["fieldsV1"], &Path::default(), &mut fields, 0);
                Manager {
                    name: text("manager"),
                    operation: text("operation"),
                    time: entry["time"].as_str().map(str::to_owned),
                    fields,
                }
            })
            .collect();
        (!managers.is_empty()).then_some(Self { managers })
    }

    /// Whether the manager owns the field, something in it, or a list or map as a whole
    /// that it is in.
    pub(super) fn owns(&self, manager: &str, path: &Path) -> bool {
        self.managers
            .iter()
            .filter(|candidate| candidate.name == manager)
            .any(|manager| manager.owns(path))
    }
}

impl Manager {
    pub(super) fn owns(&self, path: &Path) -> bool {
        self.fields
            .iter()
            .any(|own| own.starts_with(path) || path.starts_with(own))
    }
}

/// Deeper trees are no objects of Kubernetes.
const DEPTH: usize = 64;

fn leaves(tree: &Value, path: &Path, out: &mut Vec<Path>, depth: usize) {
    let Some(fields) = tree.as_object() else {
        return;
    };
    let inner: Vec<(&String, &Value)> = fields.iter().filter(|(name, _)| *name != ".").collect();
    if inner.is_empty() || depth > DEPTH {
        if !path.0.is_empty() {
            out.push(path.clone());
        }
        return;
    }
    for (name, value) in inner {
        let segment = if let Some(field) = name.strip_prefix("f:") {
            Segment::Field(field.to_owned())
        } else if let Some(key) = name.strip_prefix("k:") {
            let Ok(Value::Object(key)) = serde_json::from_str(key) else {
                continue;
            };
            let pairs = key
                .iter()
                .map(|(name, value)| (name.clone(), text_of(value)));
            Segment::item(pairs.collect())
        } else if let Some(index) = name.strip_prefix("i:") {
            match index.parse() {
                Ok(index) => Segment::Index(index),
                Err(_) => continue,
            }
        } else {
            // An item by its value: the list's.
            if !out.contains(path) {
                out.push(path.clone());
            }
            continue;
        };
        leaves(value, &path.with(segment), out, depth + 1);
    }
}
