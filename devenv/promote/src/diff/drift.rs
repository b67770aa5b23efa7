//! What others have changed in a cluster, by the managers of fields.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

use super::{
    ObjectName, label,
    owners::Owners,
    path::{Path, Segment, text_of},
    secrets, shown, tree,
};

/// An object with fields that another manager has changed, or set beside ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Which.
    #[serde(flatten)]
    pub object: ObjectName,
    /// Who: `kubectl-edit`.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// When it last changed anything, as the API server writes it.
    pub time: Option<String>,
    /// What, by path.
    pub fields: Vec<Field>,
}

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Where.
    pub path: Path,
    /// What a person calls it.
    pub label: String,
    /// What is there; nothing where it is secret.
    pub live: Option<Value>,
    /// What is wanted. Nothing: nothing is said of it, so it stays unless somebody removes
    /// it; or it is secret.
    pub wanted: Option<Value>,
    /// Whether applying what is wanted would overwrite it.
    pub conflicts: bool,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.fields.iter().map(ToString::to_string).collect();
        write!(f, "{}: {}", self.object, fields.join("; "))?;
        write!(f, " (by {}", self.manager)?;
        if let Some(time) = &self.time {
            write!(f, ", {time}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match (&self.live, &self.wanted) {
            (Some(live), Some(wanted)) => {
                write!(f, "{label} is {}, {} is wanted", shown(live), shown(wanted))
            }
            (Some(live), None) if !live.is_object() && !live.is_array() => {
                write!(f, "{label} {} is set beside", shown(live))
            }
            _ if self.conflicts => write!(f, "{label} is another"),
            _ => write!(f, "{label} is set beside"),
        }
    }
}

/// What managers other than `ours` own in live objects that are wanted: what they have
/// changed (`conflicts`), and what they have set that nothing is said of.
///
/// Controllers write what they are there for; `ignored` names those managers whose fields
/// are no drift, such as `kube-controller-manager`. Fields that have the wanted value are
/// none either, whoever owns them.
pub fn drift(live: &[Value], wanted: &[Value], ours: &str, ignored: &[&str]) -> Vec<Drift> {
    let wanted: BTreeMap<ObjectName, Value> = wanted
        .iter()
        .map(|object| (ObjectName::of(object), tree::cleaned(object)))
        .collect();
    let mut out = Vec::new();
    for object in live {
        let name = ObjectName::of(object);
        let (Some(wanted), Some(owners)) = (wanted.get(&name), Owners::of(object)) else {
            continue;
        };
        let cleaned = tree::cleaned(object);
        for manager in &owners.managers {
            if manager.name == ours || ignored.contains(&manager.name.as_str()) {
                continue;
            }
            let mut fields = Vec::new();
            for path in &manager.fields {
                // What is cleaned away is nobody's concern.
                let Some(found) = value_at(&cleaned, path) else {
                    continue;
                };
                let asked = value_at(wanted, path);
                // What is ours as well, and nothing else is said: a shared field.
                let equal = asked.is_some_and(|asked| {
                    tree::changes(
                        &name.kind,
                        &nested(path, found),
                        &nested(path, asked),
                        |_, _| true,
                    )
                    .is_empty()
                });
                if equal || (asked.is_none() && owners.owns(ours, path)) {
                    continue;
                }
                let told = |value: Option<&Value>| {
                    value.and_then(|value| secrets::told(&name.kind, path, value).0)
                };
                fields.push(Field {
                    path: path.clone(),
                    label: label::of(&name.kind, path, wanted),
                    live: told(Some(found)),
                    wanted: told(asked),
                    conflicts: asked.is_some(),
                });
            }
            if !fields.is_empty() {
                fields.sort_by(|a, b| a.path.cmp(&b.path));
                out.push(Drift {
                    object: name.clone(),
                    manager: manager.name.clone(),
                    operation: manager.operation.clone(),
                    time: manager.time.clone(),
                    fields,
                });
            }
        }
    }
    out.sort_by(|a, b| (&a.object, &a.manager).cmp(&(&b.object, &b.manager)));
    out
}

fn value_at<'a>(object: &'a Value, path: &Path) -> Option<&'a Value> {
    let mut at = object;
    for segment in &path.0 {
        at = match segment {
            Segment::Field(name) => at.get(name)?,
            Segment::Index(index) => at.get(index)?,
            Segment::Item(pairs) => at.as_array()?.iter().find(|item| {
                pairs.iter().all(|(name, value)| match item.get(name) {
                    Some(found) => text_of(found) == *value,
                    // The API server writes the default into keys.
                    None => name == "protocol" && value == "TCP",
                })
            })?,
        };
    }
    Some(at)
}

/// A value below the same fields again, so that it is compared as it would be there.
fn nested(path: &Path, value: &Value) -> Value {
    let mut out = value.clone();
    for segment in path.0.iter().rev() {
        out = match segment {
            Segment::Field(name) => serde_json::json!({ name: out }),
            Segment::Index(_) => Value::Array(vec![out]),
            Segment::Item(pairs) => {
                if let Some(fields) = out.as_object_mut() {
                    for (name, value) in pairs {
                        fields
                            .entry(name.clone())
                            .or_insert_with(|| Value::String(value.clone()));
                    }
                }
                Value::Array(vec![out])
            }
        };
    }
    out
}
