//! Which lists are maps by key and which objects are one value, as far as the served kinds differ
//! from the rule: objects merge field by field, lists are replaced as a whole.
//!
//! The facts are Kubernetes' own (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type` and
//! `-patch-merge-key` of its OpenAPI definitions).

use crate::kinds::KindRef;

/// A type, as far as it has fields that are not by the rule.
pub(super) struct Type(&'static [(&'static str, Field)]);

/// How a field is merged.
#[derive(Clone, Copy)]
pub(super) enum Field {
    /// Field by field.
    Object(&'static Type),
    /// As one value, though it is an object.
    Atomic,
    /// A list of unique scalars; `strategic` when a strategic merge patch adds to it.
    Set { strategic: bool },
    /// A list of objects that are told apart by these fields (with their defaults); the first is
    /// the key of strategic merge patches.
    Map {
        keys: &'static [(&'static str, &'static str)],
        item: &'static Type,
    },
    /// A list of objects that is one value for apply, but merged by key in strategic merge patches.
    StrategicOnly { key: &'static str },
    /// A list of objects that is one value, whose items have a type for what lies deeper.
    Plain,
}

impl Type {
    /// How `field` is merged; `None` for the rule.
    pub fn field(&self, field: &str) -> Option<Field> {
        self.0
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, f)| *f)
    }
}

/// A type whose fields all follow the rule.
pub(super) static BY_RULE: Type = Type(&[]);

const BY_NAME: &[(&str, &str)] = &[("name", "")];
const BY_TYPE: &[(&str, &str)] = &[("type", "")];
const CONDITIONS: (&str, Field) = (
    "conditions",
    Field::Map {
        keys: BY_TYPE,
        item: &BY_RULE,
    },
);

static METADATA: Type = Type(&[
    ("finalizers", Field::Set { strategic: true }),
    (
        "ownerReferences",
        Field::Map {
            keys: &[("uid", "")],
            item: &BY_RULE,
        },
    ),
]);

static ENV_SOURCE: Type = Type(&[
    ("configMapKeyRef", Field::Atomic),
    ("secretKeyRef", Field::Atomic),
    ("fieldRef", Field::Atomic),
    ("resourceFieldRef", Field::Atomic),
]);

static ENV: Type = Type(&[("valueFrom", Field::Object(&ENV_SOURCE))]);

static RESOURCES: Type = Type(&[(
    "claims",
    Field::Map {
        keys: BY_NAME,
        item: &BY_RULE,
    },
)]);

static CONTAINER: Type = Type(&[
    (
        "env",
        Field::Map {
            keys: BY_NAME,
            item: &ENV,
        },
    ),
    (
        "ports",
        Field::Map {
            keys: &[("containerPort", ""), ("protocol", "TCP")],
            item: &BY_RULE,
        },
    ),
    (
        "volumeMounts",
        Field::Map {
            keys: &[("mountPath", "")],
            item: &BY_RULE,
        },
    ),
    (
        "volumeDevices",
        Field::Map {
            keys: &[("devicePath", "")],
            item: &BY_RULE,
        },
    ),
    ("resources", Field::Object(&RESOURCES)),
]);

static NODE_AFFINITY: Type = Type(&[(
    "requiredDuringSchedulingIgnoredDuringExecution",
    Field::Atomic,
)]);

static AFFINITY: Type = Type(&[("nodeAffinity", Field::Object(&NODE_AFFINITY))]);

static POD_SPEC: Type = Type(&[
    (
        "containers",
        Field::Map {
            keys: BY_NAME,
            item: &CONTAINER,
        },
    ),
    (
        "initContainers",
        Field::Map {
            keys: BY_NAME,
            item: &CONTAINER,
        },
    ),
    (
        "ephemeralContainers",
        Field::Map {
            keys: BY_NAME,
            item: &CONTAINER,
        },
    ),
    (
        "volumes",
        Field::Map {
            keys: BY_NAME,
            item: &BY_RULE,
        },
    ),
    (
        "imagePullSecrets",
        Field::Map {
            keys: BY_NAME,
            item: &BY_RULE,
        },
    ),
    (
        "hostAliases",
        Field::Map {
            keys: &[("ip", "")],
            item: &BY_RULE,
        },
    ),
    (
        "resourceClaims",
        Field::Map {
            keys: BY_NAME,
            item: &BY_RULE,
        },
    ),
    (
        "schedulingGates",
        Field::Map {
            keys: BY_NAME,
            item: &BY_RULE,
        },
    ),
    (
        "topologySpreadConstraints",
        Field::Map {
            keys: &[("topologyKey", ""), ("whenUnsatisfiable", "")],
            item: &BY_RULE,
        },
    ),
    ("nodeSelector", Field::Atomic),
    ("affinity", Field::Object(&AFFINITY)),
]);

static POD_STATUS: Type = Type(&[
    CONDITIONS,
    (
        "podIPs",
        Field::Map {
            keys: &[("ip", "")],
            item: &BY_RULE,
        },
    ),
    ("hostIPs", Field::StrategicOnly { key: "ip" }),
]);

static POD: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("spec", Field::Object(&POD_SPEC)),
    ("status", Field::Object(&POD_STATUS)),
]);

static TEMPLATE: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("spec", Field::Object(&POD_SPEC)),
]);

static WORKLOAD_SPEC: Type = Type(&[
    ("selector", Field::Atomic),
    ("template", Field::Object(&TEMPLATE)),
]);

static CONDITIONED: Type = Type(&[CONDITIONS]);

static WORKLOAD: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("spec", Field::Object(&WORKLOAD_SPEC)),
    ("status", Field::Object(&CONDITIONED)),
]);

static SERVICE_SPEC: Type = Type(&[
    ("selector", Field::Atomic),
    (
        "ports",
        Field::Map {
            keys: &[("port", ""), ("protocol", "TCP")],
            item: &BY_RULE,
        },
    ),
]);

static SERVICE: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("spec", Field::Object(&SERVICE_SPEC)),
    ("status", Field::Object(&CONDITIONED)),
]);

static NODE_STATUS: Type = Type(&[
    CONDITIONS,
    (
        "addresses",
        Field::Map {
            keys: BY_TYPE,
            item: &BY_RULE,
        },
    ),
]);

static NODE: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("status", Field::Object(&NODE_STATUS)),
]);

static INGRESS_SPEC: Type = Type(&[
    ("rules", Field::Plain),
    ("tls", Field::Plain),
    ("defaultBackend", Field::Object(&BY_RULE)),
]);

static INGRESS: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("spec", Field::Object(&INGRESS_SPEC)),
]);

static NAMESPACE: Type = Type(&[
    ("metadata", Field::Object(&METADATA)),
    ("status", Field::Object(&CONDITIONED)),
]);

static OTHER: Type = Type(&[("metadata", Field::Object(&METADATA))]);

/// The type of a kind's objects.
pub(super) fn of(kind: KindRef) -> &'static Type {
    match (kind.group, kind.kind) {
        ("", "Pod") => &POD,
        ("apps", _) => &WORKLOAD,
        ("", "Service") => &SERVICE,
        ("", "Node") => &NODE,
        ("", "Namespace") => &NAMESPACE,
        ("networking.k8s.io", "Ingress") => &INGRESS,
        _ => &OTHER,
    }
}

/// The type that lies behind a field, for whoever walks down.
pub(super) fn below(field: Option<Field>) -> &'static Type {
    match field {
        Some(Field::Object(t) | Field::Map { item: t, .. }) => t,
        _ => &BY_RULE,
    }
}

/// The value of a list item's key field, its default where it is left out.
pub(super) fn key_value(item: &serde_json::Value, key: (&str, &str)) -> serde_json::Value {
    match item.get(key.0) {
        Some(value) => value.clone(),
        None if key.1.is_empty() => serde_json::Value::Null,
        None => key.1.into(),
    }
}

/// Whether two items of a keyed list are the same one.
pub(super) fn same_item(
    a: &serde_json::Value,
    b: &serde_json::Value,
    keys: &[(&str, &str)],
) -> bool {
    keys.iter()
        .all(|key| key_value(a, *key) == key_value(b, *key))
}

/// Puts a merged list into order: items named in `wanted` in its order, the others where they stood
/// before their neighbours. `position(i)` is where wanted item `i` stood in the old list.
pub(super) fn order<T>(old: Vec<T>, wanted: Vec<(Option<usize>, T)>) -> Vec<T> {
    let taken: Vec<bool> = {
        let mut taken = vec![false; old.len()];
        for (at, _) in &wanted {
            if let Some(at) = at
                && let Some(slot) = taken.get_mut(*at)
            {
                *slot = true;
            }
        }
        taken
    };
    let mut rest = old
        .into_iter()
        .enumerate()
        .filter(|(i, _)| !taken[*i])
        .peekable();
    let mut out = Vec::new();
    for (at, item) in wanted {
        if let Some(at) = at {
            while let Some((_, item)) = rest.next_if(|(i, _)| *i < at) {
                out.push(item);
            }
        }
        out.push(item);
    }
    out.extend(rest.map(|(_, item)| item));
    out
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn items_keep_their_neighbours() {
        assert_eq!(
            order(vec!["a", "b", "c"], vec![(Some(2), "C"), (None, "n")]),
            ["a", "b", "C", "n"]
        );
        assert_eq!(order(vec!["a", "b"], vec![(None, "n")]), ["n", "a", "b"]);
        assert_eq!(
            order(vec!["a", "b", "c"], vec![(Some(2), "C"), (Some(0), "A")]),
            ["b", "C", "A"]
        );
    }
}
