//! A layer over an image that a node has: nothing else of it travels.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::Docker;
use serde_json::{Value, json};

use super::cluster::Node;
use super::error::KindError;
use super::load::{self, Wanted};
use super::oci::{self, Image};
use crate::containers::Layer;

/// The images that layers were laid over, by their names on the nodes.
#[derive(Debug, Default)]
pub struct Layers(Mutex<BTreeMap<String, Described>>);

/// A layer, the image that it lies on, and the one that it makes of that.
#[derive(Debug)]
pub struct Laid {
    /// What the nodes have, or are given first.
    pub base: Wanted,
    /// What travels.
    pub layer: Arc<Layer>,
    /// What comes of it.
    pub wanted: Wanted,
}

/// The manifest and the configuration of an image, as a node has them.
#[derive(Debug, Clone)]
struct Described {
    manifest: Value,
    config: Value,
}

impl Layers {
    /// The same where it is known what the nodes have of `base`; false: they may have to be
    /// given that first.
    pub async fn try_known(&self, docker: &Docker, nodes: &[Node], laid: &Laid) -> bool {
        if !self.known().contains_key(&laid.base.name) {
            return false;
        }
        let brought = self.bring(docker, nodes, laid).await;
        if let Err(error) = &brought {
            // Its garbage collector may have taken it.
            tracing::debug!(error = error as &dyn std::error::Error, "not laid over");
            self.known().remove(&laid.base.name);
        }
        brought.is_ok()
    }

    /// Brings a layer into the nodes that lack what it makes of its base, which all have.
    ///
    /// # Errors
    /// [`KindError::Load`].
    pub async fn bring(
        &self,
        docker: &Docker,
        nodes: &[Node],
        laid: &Laid,
    ) -> Result<(), KindError> {
        let (base, wanted) = (&laid.base.name, &laid.wanted);
        for node in nodes {
            let failed = |reason| KindError::Load {
                image: wanted.name.clone(),
                node: node.name.clone(),
                reason,
            };
            let has = load::has(docker, node, &wanted.name).await;
            if has.map_err(|e| failed(e.to_string()))? {
                continue;
            }
            let known = self.known().get(base).cloned();
            let described = match known {
                Some(described) => described,
                None => describe(docker, node, base).await.map_err(failed)?,
            };
            self.known().insert(base.clone(), described.clone());
            let (layer, name) = (laid.layer.clone(), wanted.name.clone());
            let archive = tokio::task::spawn_blocking(move || described.with(&layer, &name)).await;
            let archive = archive.map_err(io::Error::other).flatten();
            let archive = archive.map_err(|e| failed(e.to_string()))?;
            let bytes = archive.len();
            let taken = load::import_archive(docker, node, archive).await;
            taken.map_err(failed)?;
            tracing::debug!(image = wanted.name, bytes, "a layer was brought");
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Described>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node has of an image of this name.
async fn describe(docker: &Docker, node: &Node, name: &str) -> Result<Described, String> {
    let filter = format!("name=={name}");
    let listed = ctr(docker, node, &["images", "ls", &filter]).await?;
    // A table: REF, TYPE, DIGEST …
    let mut lines = listed.lines().map(str::split_whitespace);
    let row = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words));
    let digest = row.and_then(|mut words| words.find(|w| w.starts_with("sha256:")));
    let digest = digest.ok_or_else(|| format!("the node has no image {name}"))?;
    let manifest = blob(docker, node, digest).await?;
    let config = manifest["config"]["digest"].as_str();
    let config = config.ok_or_else(|| format!("{digest} is no manifest of an image"))?;
    let config = blob(docker, node, config).await?;
    Ok(Described { manifest, config })
}

impl Described {
    /// An OCI image layout of it with one more layer, and no blob of the others.
    fn with(&self, layer: &Layer, name: &str) -> io::Result<Vec<u8>> {
        let mut config = self.config.clone();
        push(&mut config["rootfs"]["diff_ids"], json!(layer.digest));
        push(
            &mut config["history"],
            json!({"created_by": "devenv: what was saved since the image was built"}),
        );
        let mut layers = self.manifest["layers"].clone();
        push(
            &mut layers,
            json!({"mediaType": oci::PLAIN_LAYER, "digest": layer.digest, "size": layer.tar.len()}),
        );
        let mut out = Vec::with_capacity(layer.tar.len() + (64 << 10));
        Image::write_layout(
            &mut out,
            name,
            config.to_string().as_bytes(),
            &layers,
            |tar| oci::add(tar, &oci::blob(&layer.digest), &layer.tar),
        )?;
        Ok(out)
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(list) => list.push(item),
        other => *other = json!([item]),
    }
}

async fn blob(docker: &Docker, node: &Node, digest: &str) -> Result<Value, String> {
    let text = ctr(docker, node, &["content", "get", digest]).await?;
    serde_json::from_str(&text).map_err(|e| format!("{digest}: {e}"))
}

async fn ctr(docker: &Docker, node: &Node, words: &[&str]) -> Result<String, String> {
    let argv: Vec<&str> = load::CTR.iter().chain(words).copied().collect();
    let ran = load::exec(docker, &node.id, &argv, None).await;
    let ran = ran.map_err(|e| e.to_string())?;
    if ran.ok {
        Ok(ran.out)
    } else {
        Err(ran.err.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn one_layer_travels() {
        let base = Described {
            manifest: json!({"layers": [{"digest": "sha256:lower", "size": 5}]}),
            config: json!({
                "config": {"Cmd": ["x"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:lower"]},
            }),
        };
        let layer = Layer {
            base: "sha256:b".to_owned(),
            digest: oci::digest_of(&b"upper"[..]).unwrap().0,
            tar: b"upper".to_vec(),
        };
        let archive = base.with(&layer, "r.local/x:2").unwrap();
        let mut tar = tar::Archive::new(archive.as_slice());
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.path().unwrap().display().to_string(), data)
        });
        let entries: BTreeMap<String, Vec<u8>> = entries.collect();
        assert_eq!(entries[&oci::blob(&layer.digest)], b"upper");
        // The layout, its index, and the blobs of layer, configuration and manifest.
        assert_eq!(entries.len(), 5);
        let json = |name: &str| -> Value { serde_json::from_slice(&entries[name]).unwrap() };
        let index = json("index.json");
        let manifest = json(&oci::blob(
            index["manifests"][0]["digest"].as_str().unwrap(),
        ));
        assert_eq!(manifest["layers"][0], base.manifest["layers"][0]);
        assert_eq!(manifest["layers"][1]["digest"], layer.digest);
        let config = json(&oci::blob(manifest["config"]["digest"].as_str().unwrap()));
        assert_eq!(config["config"], base.config["config"]);
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!(["sha256:lower", layer.digest])
        );
    }
}
