//! Two objects, compared by what they mean.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{
    Change, ChangeKind, label,
    path::{Path, Segment, text_of},
    quantity, secrets,
};

/// The API server's bookkeeping in metadata.
const BOOKKEEPING: [&str; 8] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Annotations that tools write for themselves.
const BOOKKEEPING_ANNOTATIONS: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
];

/// An object without what nobody wants to hear about, and with Secrets in one form.
pub(super) fn cleaned(object: &Value) -> Value {
    let mut out = object.clone();
    let Some(fields) = out.as_object_mut() else {
        return out;
    };
    fields.remove("status");
    // Compared by the objects' names; `v1` and `v1beta1` of one kind are one object.
    fields.remove("apiVersion");
    fields.remove("kind");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in BOOKKEEPING {
            metadata.remove(name);
        }
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            for name in BOOKKEEPING_ANNOTATIONS {
                annotations.remove(name);
            }
        }
    }
    if object["kind"] == "Secret"
        && let Some(Value::Object(plain)) = fields.remove("stringData")
    {
        let data = fields
            .entry("data")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(data) = data.as_object_mut() {
            for (key, value) in plain {
                let encoded = BASE64_STANDARD.encode(text_of(&value));
                data.insert(key, Value::String(encoded));
            }
        }
    }
    out
}

/// What becomes of `live` if it is to be as `wanted`; `goes_away` says it of fields that
/// are not wanted.
pub(super) fn changes(
    kind: &str,
    live: &Value,
    wanted: &Value,
    goes_away: impl Fn(&Path, &Value) -> bool,
) -> Vec<Change> {
    let mut walk = Walk {
        kind,
        goes_away: &goes_away,
        wanted,
        out: Vec::new(),
    };
    walk.compare(&Path::default(), &cleaned(live), &cleaned(wanted));
    walk.out
}

struct Walk<'a> {
    kind: &'a str,
    goes_away: &'a dyn Fn(&Path, &Value) -> bool,
    wanted: &'a Value,
    out: Vec<Change>,
}

impl Walk<'_> {
    fn compare(&mut self, path: &Path, live: &Value, wanted: &Value) {
        if same(path, live, wanted) {
            return;
        }
        match (live, wanted) {
            (Value::Object(old), Value::Object(new)) => {
                let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in names {
                    let path = path.field(name);
                    self.pair(&path, old.get(name), new.get(name));
                }
            }
            (Value::Array(old), Value::Array(new)) => self.lists(path, old, new),
            _ => self.push(path, Some(live), Some(wanted), ChangeKind::Changed),
        }
    }

    fn pair(&mut self, path: &Path, live: Option<&Value>, wanted: Option<&Value>) {
        match (live, wanted) {
            (Some(live), Some(wanted)) => self.compare(path, live, wanted),
            // Nothing, and nothing said of it.
            (None, Some(Value::Null)) | (Some(Value::Null), None) | (None, None) => {}
            (None, Some(wanted)) => self.appeared(path, wanted),
            (Some(live), None) => self.vanished(path, live),
        }
    }

    /// A map of many new keys is told key by key.
    fn appeared(&mut self, path: &Path, wanted: &Value) {
        match wanted {
            Value::Object(fields) if !fields.is_empty() && is_map(path) => {
                for (name, value) in fields {
                    self.appeared(&path.field(name), value);
                }
            }
            Value::Array(items) if !items.is_empty() && keys(path, items).is_some() => {
                self.lists(path, &[], items);
            }
            Value::Object(fields) if fields.is_empty() => {}
            Value::Array(items) if items.is_empty() => {}
            _ => self.push(path, None, Some(wanted), ChangeKind::Added),
        }
    }

    /// Only what is to go is told: where a part of a field stays, the rest is named.
    fn vanished(&mut self, path: &Path, live: &Value) {
        if !(self.goes_away)(path, live) {
            return;
        }
        match live {
            Value::Object(fields) if !fields.is_empty() && is_map(path) => {
                for (name, value) in fields {
                    self.vanished(&path.field(name), value);
                }
            }
            Value::Array(items) if !items.is_empty() && keys(path, items).is_some() => {
                self.lists(path, items, &[]);
            }
            _ => self.push(path, Some(live), None, ChangeKind::Removed),
        }
    }

    fn lists(&mut self, path: &Path, old: &[Value], new: &[Value]) {
        let both: Vec<Value> = old.iter().chain(new).cloned().collect();
        if let Some(names) = keys(path, &both) {
            let segments = |items: &[Value]| -> Vec<Segment> {
                items.iter().map(|item| segment(names, item)).collect()
            };
            let (old_at, new_at) = (segments(old), segments(new));
            // An item twice can't be told from itself.
            let unique = |all: &[Segment]| all.iter().collect::<BTreeSet<_>>().len() == all.len();
            if unique(&old_at) && unique(&new_at) {
                for (at, item) in new_at.iter().zip(new) {
                    let was = old_at.iter().position(|other| other == at);
                    self.item(&path.with(at.clone()), was.map(|n| &old[n]), Some(item));
                }
                for (at, item) in old_at.iter().zip(old) {
                    if !new_at.contains(at) {
                        self.item(&path.with(at.clone()), Some(item), None);
                    }
                }
                return;
            }
        }
        let scalars = both
            .iter()
            .all(|item| !item.is_object() && !item.is_array());
        if scalars || old.len() != new.len() {
            let (old, new) = (Value::Array(old.to_vec()), Value::Array(new.to_vec()));
            self.push(path, Some(&old), Some(&new), ChangeKind::Changed);
            return;
        }
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            self.compare(&path.with(Segment::Index(index)), old, new);
        }
    }

    fn item(&mut self, path: &Path, live: Option<&Value>, wanted: Option<&Value>) {
        match (live, wanted) {
            (Some(live), Some(wanted)) => self.compare(path, live, wanted),
            (None, Some(wanted)) => self.push(path, None, Some(wanted), ChangeKind::Added),
            (Some(live), None) if (self.goes_away)(path, live) => {
                self.push(path, Some(live), None, ChangeKind::Removed);
            }
            _ => {}
        }
    }

    fn push(&mut self, path: &Path, from: Option<&Value>, to: Option<&Value>, kind: ChangeKind) {
        let tell = |value: Option<&Value>| match value {
            Some(value) => secrets::told(self.kind, path, value),
            None => (None, false),
        };
        let ((from, hides), (to, hides_too)) = (tell(from), tell(to));
        self.out.push(Change {
            path: path.clone(),
            label: label::of(self.kind, path, self.wanted),
            from,
            to,
            kind,
            secret: hides || hides_too,
        });
    }
}

/// A map of keys that people choose, rather than an object of known fields.
fn is_map(path: &Path) -> bool {
    matches!(
        path.last(),
        "annotations"
            | "labels"
            | "data"
            | "binaryData"
            | "limits"
            | "requests"
            | "matchLabels"
            | "nodeSelector"
            | "selector"
    ) && matches!(path.0.last(), Some(Segment::Field(_)))
}

/// What tells the items of a list apart, as far as all of them have it.
fn keys(path: &Path, items: &[Value]) -> Option<&'static [&'static str]> {
    let fields = path.fields();
    let possible: &[&'static [&'static str]] = match path.last() {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "listeners" => &[&["name"]],
        "backendRefs" => &[&["name", "port"], &["name"]],
        "parentRefs" => &[&["name", "sectionName"], &["name"]],
        "ports" if fields.contains(&"containers") || fields.contains(&"initContainers") => {
            &[&["containerPort", "protocol"]]
        }
        "ports" => &[&["port", "protocol"]],
        "volumeMounts" => &[&["mountPath"]],
        "volumeDevices" => &[&["devicePath"]],
        "hostAliases" => &[&["ip"]],
        "topologySpreadConstraints" => &[&["topologyKey", "whenUnsatisfiable"]],
        "rules" if items.iter().any(|item| item.get("http").is_some()) => &[&["host"]],
        "paths" => &[&["path", "pathType"]],
        "tls" => &[&["secretName"]],
        "subjects" => &[&["kind", "name"]],
        _ => &[],
    };
    possible.iter().copied().find(|names| {
        items.iter().all(|item| {
            item.is_object()
                && names
                    .iter()
                    .all(|name| item.get(name).is_some() || absent_key(name).is_some())
        })
    })
}

/// What a key is where it is left out.
fn absent_key(name: &str) -> Option<&'static str> {
    match name {
        "protocol" => Some("TCP"),
        "host" | "sectionName" => Some(""),
        _ => None,
    }
}

fn segment(names: &[&str], item: &Value) -> Segment {
    let pairs = names
        .iter()
        .map(|name| {
            let value = item
                .get(name)
                .map(text_of)
                .or_else(|| absent_key(name).map(str::to_owned))
                .unwrap_or_default();
            ((*name).to_owned(), value)
        })
        .collect();
    Segment::item(pairs)
}

fn same(path: &Path, live: &Value, wanted: &Value) -> bool {
    if live == wanted {
        return true;
    }
    let scalar = |value: &Value| value.is_string() || value.is_number();
    if scalar(live) && scalar(wanted) && is_quantity(path) {
        let nanos = |value: &Value| quantity::nanos(&text_of(value));
        return nanos(live).is_some() && nanos(live) == nanos(wanted);
    }
    false
}

fn is_quantity(path: &Path) -> bool {
    let fields = path.fields();
    let parent = fields.len().checked_sub(2).map(|at| fields[at]);
    matches!(parent, Some("limits" | "requests" | "hard" | "capacity"))
        || matches!(path.last(), "sizeLimit" | "divisor" | "storage")
}
