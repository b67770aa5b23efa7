//! What makes a workload roll: annotations of its pod template that change when its
//! sources do, or the configuration that its pods read only when they start.

use std::collections::{BTreeMap, BTreeSet};

use devenv_model::{Object, Topology};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// The annotation that says which file an object came from, and that devenv put it
/// there.
pub const ORIGIN: &str = "devenv.dev/origin";
/// On a pod template: the digest of the sources of its images.
pub const SOURCE: &str = "devenv.dev/source";
/// On a pod template: the digest of the ConfigMaps and Secrets that its pods see only
/// as they start, in variables or as files of a `subPath`. Those in volumes change in
/// a running pod, so they are left out.
pub const CONFIG: &str = "devenv.dev/config";

/// An object as it is applied: with its origin, and its pods' template stamped with
/// what `digests` (by image source) and the topology's own configuration say.
pub fn dressed(object: &Object, topology: &Topology, digests: &BTreeMap<String, String>) -> Value {
    let mut body = object.value().clone();
    annotate(
        &mut body,
        &["metadata"],
        ORIGIN,
        &object.origin().to_string(),
    );
    let Some((metadata, spec)) = object.pod_template() else {
        return body;
    };
    let sources: BTreeSet<(&str, &str)> = object
        .images()
        .into_iter()
        .filter_map(|image| topology.image_source(image))
        .filter_map(|source| Some((source.name.as_str(), digests.get(&source.name)?.as_str())))
        .collect();
    if !sources.is_empty() {
        annotate(&mut body, metadata, SOURCE, &hash(sources.into_iter()));
    }
    let spec = spec.iter().try_fold(object.value(), |v, key| v.get(*key));
    let read = read_at_start(spec.unwrap_or(&Value::Null));
    let configs: Vec<(String, String)> = topology
        .objects()
        .iter()
        .filter(|o| o.namespace() == object.namespace())
        .filter(|o| read.contains(&(o.kind(), o.name())))
        .map(|o| {
            let contents: Map<String, Value> = ["data", "binaryData", "stringData"]
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), o.value().get(key)?.clone())))
                .collect();
            (
                format!("{} {}", o.kind(), o.name()),
                Value::Object(contents).to_string(),
            )
        })
        .collect();
    if !configs.is_empty() {
        let pairs = configs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        annotate(&mut body, metadata, CONFIG, &hash(pairs));
    }
    body
}

/// Lets the containers of an object's pods run images by the names of `delivered` (by those
/// of manifests), which are on the nodes and nowhere else.
pub fn name_images(object: &Object, body: &mut Value, delivered: &BTreeMap<String, String>) {
    let Some((_, spec)) = object.pod_template() else {
        return;
    };
    let Some(spec) = spec.iter().try_fold(body, |v, key| v.get_mut(*key)) else {
        return;
    };
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let name = container["image"].as_str();
            if let Some(name) = name.and_then(|name| delivered.get(name)) {
                container["image"] = json!(name);
                // Kubernetes would ask a registry for a tag that it takes for the latest.
                container["imagePullPolicy"] = json!("IfNotPresent");
            }
        }
    }
}

fn hash<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut sha = Sha256::new();
    for (name, value) in pairs {
        for part in [name, value] {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
    }
    hex::encode(&sha.finalize()[..12])
}

pub(crate) fn annotate(body: &mut Value, metadata: &[&str], name: &str, value: &str) {
    let mut at = body;
    for key in metadata.iter().copied().chain(["annotations"]) {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(map) = at.as_object_mut() else {
            return;
        };
        at = map.entry(key).or_insert_with(|| json!({}));
    }
    if !at.is_object() {
        *at = json!({});
    }
    if let Some(map) = at.as_object_mut() {
        map.insert(name.to_owned(), json!(value));
    }
}

/// The kinds and names of what a pod reads only as it starts.
fn read_at_start(spec: &Value) -> BTreeSet<(&'static str, &str)> {
    let mut read = BTreeSet::new();
    let list = |v: &'_ Value, key: &str| v[key].as_array().cloned().unwrap_or_default();
    for containers in ["initContainers", "containers"] {
        for container in spec[containers].as_array().into_iter().flatten() {
            let from = container["envFrom"].as_array().into_iter().flatten();
            for source in from {
                note(&mut read, &source["configMapRef"]["name"], "ConfigMap");
                note(&mut read, &source["secretRef"]["name"], "Secret");
            }
            for variable in container["env"].as_array().into_iter().flatten() {
                let from = &variable["valueFrom"];
                note(&mut read, &from["configMapKeyRef"]["name"], "ConfigMap");
                note(&mut read, &from["secretKeyRef"]["name"], "Secret");
            }
            let sub_paths: Vec<Value> = list(container, "volumeMounts")
                .into_iter()
                .filter(|m| m.get("subPath").is_some() || m.get("subPathExpr").is_some())
                .map(|m| m["name"].clone())
                .collect();
            for volume in spec["volumes"].as_array().into_iter().flatten() {
                if !sub_paths.contains(&volume["name"]) {
                    continue;
                }
                note(&mut read, &volume["configMap"]["name"], "ConfigMap");
                note(&mut read, &volume["secret"]["secretName"], "Secret");
                for source in volume["projected"]["sources"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    note(&mut read, &source["configMap"]["name"], "ConfigMap");
                    note(&mut read, &source["secret"]["name"], "Secret");
                }
            }
        }
    }
    read
}

fn note<'v>(read: &mut BTreeSet<(&'static str, &'v str)>, name: &'v Value, kind: &'static str) {
    if let Some(name) = name.as_str() {
        read.insert((kind, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::project;

    const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: level}
data: {LEVEL: info}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes: [{name: page, configMap: {name: page}}]
      containers:
      - name: c
        image: web
        envFrom: [{configMapRef: {name: level}}]
        volumeMounts: [{name: page, mountPath: /page}]
";

    fn stamps(manifest: &str, digest: &str) -> (Option<String>, Option<String>) {
        let (_dir, topology) = project(manifest);
        let digests = BTreeMap::from([("web".to_owned(), digest.to_owned())]);
        let object = topology.of_kind("apps/v1", "Deployment").next().unwrap();
        let body = dressed(object, &topology, &digests);
        assert!(body["metadata"]["annotations"][ORIGIN].is_string());
        let annotations = &body["spec"]["template"]["metadata"]["annotations"];
        let text = |name: &str| annotations[name].as_str().map(str::to_owned);
        (text(SOURCE), text(CONFIG))
    }

    #[test]
    fn sources_and_what_is_read_at_the_start_count() {
        let (source, config) = stamps(MANIFEST, "1");
        assert!(source.is_some() && config.is_some());
        assert_eq!(stamps(MANIFEST, "1"), (source.clone(), config.clone()));
        let (other, same) = stamps(MANIFEST, "2");
        assert_ne!(other, source);
        assert_eq!(same, config);
        let (same, other) = stamps(&MANIFEST.replace("info", "debug"), "1");
        assert_eq!(same, source);
        assert_ne!(other, config);
        // A volume is refreshed in the running pod.
        assert_eq!(
            stamps(&MANIFEST.replace("hello", "hi"), "1"),
            (source.clone(), config.clone())
        );
        // But not through a subPath.
        let sub = MANIFEST.replace("mountPath: /page", "mountPath: /p, subPath: index.html");
        assert_ne!(
            stamps(&sub, "1").1,
            stamps(&sub.replace("hello", "hi"), "1").1
        );
    }

    #[test]
    fn only_what_has_pods_and_a_source_is_stamped() {
        let plain = MANIFEST.replace("envFrom: [{configMapRef: {name: level}}]", "env: []");
        assert_eq!(stamps(&plain, "1").1, None);
        let (_dir, topology) = project(MANIFEST);
        let map = topology.of_kind("v1", "ConfigMap").next().unwrap();
        let body = dressed(map, &topology, &BTreeMap::new());
        assert_eq!(
            body["metadata"]["annotations"].as_object().unwrap().len(),
            1
        );
    }
}
