//! What applying objects would change in a cluster, and what others have changed there.
//!
//! Two sets of objects are compared by what they mean: containers by their names, ports by
//! their numbers, `1000m` and `1` as one quantity. What the API server adds (status,
//! defaults, bookkeeping) is no change. Values of Secrets never come into a result, nor does
//! what looks like one elsewhere; only that it changed.
//!
//! A field that is in the cluster and not in what is wanted goes away only if it is *ours*:
//! that is how server-side apply removes fields, and `metadata.managedFields` says whose
//! they are. Where an object has none, a field that has the API server's default is taken
//! to be one, and any other to be removed.

mod defaults;
mod drift;
mod label;
mod owners;
mod path;
mod quantity;
mod secrets;
mod tree;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

pub use drift::{Drift, Field, drift};
pub use path::{Path, Segment};

use owners::Owners;

/// Everything that would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// By kind, namespace and name; what would not change is left out.
    pub objects: Vec<ObjectDiff>,
}

/// An object that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectDiff {
    /// Which.
    #[serde(flatten)]
    pub object: ObjectName,
    /// How.
    #[serde(flatten)]
    pub what: What,
}

/// Which object it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectName {
    /// `Deployment`.
    pub kind: String,
    /// `apps`; empty for the core group.
    pub group: String,
    /// Empty: of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How an object would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", content = "fields", rename_all = "kebab-case")]
pub enum What {
    /// It is not there yet.
    Added,
    /// It is there, and not wanted.
    Removed,
    /// These fields change.
    Changed(Vec<Change>),
}

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where: `spec.template.spec.containers[api2].image`.
    pub path: Path,
    /// What a person calls it: `image`.
    pub label: String,
    /// What is there; nothing where there is nothing, or where it is secret.
    pub from: Option<Value>,
    /// What is wanted.
    pub to: Option<Value>,
    /// How, where values are not shown.
    pub kind: ChangeKind,
    /// Whether values are left out because they are secret.
    pub secret: bool,
}

/// In which way a field changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is not there yet.
    Added,
    /// It goes away.
    Removed,
    /// It becomes another.
    Changed,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for object in &self.objects {
            writeln!(f, "{object}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ObjectDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Added => write!(f, "{}: new", self.object),
            What::Removed => write!(f, "{}: removed", self.object),
            What::Changed(changes) => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                write!(f, "{}: {}", self.object, changes.join("; "))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match (&self.from, &self.to, self.kind) {
            (Some(from), Some(to), _) => write!(f, "{label} {} → {}", shown(from), shown(to)),
            (_, Some(to), ChangeKind::Added) if !to.is_object() && !to.is_array() => {
                write!(f, "{label} {} added", shown(to))
            }
            (_, _, ChangeKind::Added) => write!(f, "{label} added"),
            (_, _, ChangeKind::Removed) => write!(f, "{label} removed"),
            (_, _, ChangeKind::Changed) => write!(f, "{label} changed"),
        }
    }
}

/// A value in a sentence. Long ones are cut: the whole is in the JSON.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
            text.clone()
        }
        other => other.to_string(),
    };
    if text.chars().count() > LONGEST {
        let cut: String = text.chars().take(LONGEST).collect();
        return format!("{cut}…");
    }
    text
}

impl ObjectName {
    /// The name of an object as it is written.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&object["apiVersion"]);
        Self {
            kind: text(&object["kind"]),
            group: version
                .split_once('/')
                .map(|(group, _)| group.to_owned())
                .unwrap_or_default(),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }
}

/// What would change if `wanted` were applied by the field manager `ours`, and `live`
/// objects that are not wanted were deleted.
pub fn diff(live: &[Value], wanted: &[Value], ours: &str) -> Diff {
    let by_name = |objects: &[Value]| -> BTreeMap<ObjectName, Value> {
        objects
            .iter()
            .map(|object| (ObjectName::of(object), object.clone()))
            .collect()
    };
    let (live, wanted) = (by_name(live), by_name(wanted));
    let mut names: Vec<&ObjectName> = live.keys().chain(wanted.keys()).collect();
    names.sort();
    names.dedup();
    let mut objects = Vec::new();
    for name in names {
        let what = match (live.get(name), wanted.get(name)) {
            (None, Some(_)) => What::Added,
            (Some(_), None) => What::Removed,
            (Some(live), Some(wanted)) => {
                let owners = Owners::of(live);
                let changes = tree::changes(&name.kind, live, wanted, |path, value| {
                    goes_away(path, value, owners.as_ref(), ours)
                });
                if changes.is_empty() {
                    continue;
                }
                What::Changed(changes)
            }
            (None, None) => continue,
        };
        objects.push(ObjectDiff {
            object: name.clone(),
            what,
        });
    }
    Diff { objects }
}

/// Whether a field that is not wanted goes away.
fn goes_away(path: &Path, value: &Value, owners: Option<&Owners>, ours: &str) -> bool {
    match owners {
        Some(owners) => owners.owns(ours, path),
        None => !defaults::is_default(path, value),
    }
}

#[cfg(test)]
mod tests;
