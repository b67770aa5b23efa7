//! ConfigMaps and Secrets that pods refer to.

use super::{Found, World, choices};
use crate::names::{did_you_mean, one_of};
use crate::node::At;
use crate::problem::Draft;
use crate::topology::CLOUD_SQL_SECRET_KEYS;

pub(super) fn check(world: &World<'_>, object: &Found, out: &mut Vec<Draft>) {
    let Some(spec) = object.pod_spec() else {
        return;
    };
    for list in ["initContainers", "containers"] {
        for container in spec.items_at(list) {
            for variable in container.items_at("env") {
                for (kind, field) in [("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")]
                {
                    if let Some(at) = variable.at(&["valueFrom", field]) {
                        reference(world, object, kind, &at, "name", out);
                    }
                }
            }
            for from in container.items_at("envFrom") {
                for (kind, field) in [("ConfigMap", "configMapRef"), ("Secret", "secretRef")] {
                    if let Some(at) = from.get(field) {
                        reference(world, object, kind, &at, "name", out);
                    }
                }
            }
        }
    }
    for volume in spec.items_at("volumes") {
        if let Some(at) = volume.get("configMap") {
            reference(world, object, "ConfigMap", &at, "name", out);
        }
        if let Some(at) = volume.get("secret") {
            reference(world, object, "Secret", &at, "secretName", out);
        }
        for source in volume
            .get("projected")
            .map(|p| p.items_at("sources"))
            .unwrap_or_default()
        {
            for (kind, field) in [("ConfigMap", "configMap"), ("Secret", "secret")] {
                if let Some(at) = source.get(field) {
                    reference(world, object, kind, &at, "name", out);
                }
            }
        }
    }
}

fn reference(
    world: &World<'_>,
    object: &Found,
    kind: &'static str,
    at: &At<'_>,
    name_field: &str,
    out: &mut Vec<Draft>,
) {
    if at.get("optional").and_then(|o| o.node.as_bool()) == Some(true) {
        return;
    }
    let Some(name_at) = at.get(name_field) else {
        out.push(
            Draft::error(
                "manifest::missing-field",
                at.span(),
                format!("`{}` is missing", at.path.key(name_field)),
            )
            .expected(format!("the name of a {kind}")),
        );
        return;
    };
    let Some(name) = name_at.node.as_str() else {
        return;
    };
    let namespace = object.namespace.as_deref();
    let made = world
        .located
        .config
        .cloudsql
        .as_ref()
        .filter(|sql| kind == "Secret" && sql.secret == name);
    let found = world.named("v1", kind, namespace, name);
    let keys: Vec<&str> = match (found, made) {
        (Some(found), _) => ["data", "stringData", "binaryData"]
            .iter()
            .filter_map(|field| found.node.get(field))
            .flat_map(|map| map.entries().iter().map(|e| e.key.as_str()))
            .collect(),
        (None, Some(_)) => CLOUD_SQL_SECRET_KEYS.to_vec(),
        (None, None) => {
            out.push(absent(world, object, kind, name, &name_at));
            return;
        }
    };
    if let Some(key_at) = at.get("key")
        && let Some(key) = key_at.node.as_str()
        && !keys.contains(&key)
    {
        let mut draft = Draft::error(
            "manifest::missing-key",
            key_at.span(),
            format!(
                "the {kind} {name} has no key {key:?}, which {} needs",
                object.title()
            ),
        )
        .expected(choices("key in it", keys.iter().copied()))
        .maybe_help(did_you_mean(key, keys.iter().copied()));
        if let Some(found) = found {
            let place = found.node.get("data").unwrap_or(&found.node);
            draft = draft.related(place.span, format!("the {kind}"));
        }
        out.push(draft);
    }
}

fn absent(world: &World<'_>, object: &Found, kind: &'static str, name: &str, at: &At<'_>) -> Draft {
    let code = if kind == "Secret" {
        "manifest::missing-secret"
    } else {
        "manifest::missing-configmap"
    };
    let namespace = object.namespace.as_deref();
    let mut known: Vec<&str> = world
        .of("v1", kind, namespace)
        .map(|o| o.name.as_str())
        .collect();
    if kind == "Secret"
        && let Some(sql) = &world.located.config.cloudsql
    {
        known.push(&sql.secret);
    }
    known.sort_unstable();
    let elsewhere = world.named("v1", kind, None, name);
    let help = match elsewhere.and_then(|o| o.namespace.as_deref()) {
        Some(other) => format!(
            "there is one in the namespace {other}, but pods reach only those of their own"
        ),
        None => did_you_mean(name, known.iter().copied()).unwrap_or_else(|| {
            let database = kind == "Secret"
                && world.located.config.cloudsql.is_none()
                && name.contains("sql");
            if database {
                "a section [cloudsql] in devenv.toml makes the database and the Secret with its account".into()
            } else {
                format!("add a {kind} of this name to the manifests, or set `optional: true`")
            }
        }),
    };
    Draft::error(
        code,
        at.span(),
        format!(
            "{} needs the {kind} {name:?}, which nothing in the project makes",
            object.title()
        ),
    )
    .expected(if known.is_empty() {
        format!("a {kind} in the manifests; there is none in this namespace")
    } else {
        one_of(known)
    })
    .help(help)
}
