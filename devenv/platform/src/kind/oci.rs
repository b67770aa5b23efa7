//! Images as archives: what a Docker Engine saves is read, and an OCI image layout with only
//! the blobs that a node lacks is written.
//!
//! Source: the OCI image layout specification 1.0, and the format of `docker save`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The media type of a layer that is a plain tar archive.
pub const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// containerd's annotation that names an image in a layout.
const NAME: &str = "io.containerd.image.name";

/// An image whose layers lie in a file.
#[derive(Debug, Clone)]
pub struct Image {
    config: Vec<u8>,
    layers: Vec<Layer>,
}

/// A layer and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:…` of the bytes.
    pub digest: String,
    media_type: String,
    offset: u64,
    size: u64,
}

impl Image {
    /// One with a single layer that is the whole of a file of this size.
    pub fn of_one_layer(config: &Value, digest: String, size: u64) -> Self {
        let layer = Layer {
            digest,
            media_type: PLAIN_LAYER.to_owned(),
            offset: 0,
            size,
        };
        Self {
            config: config.to_string().into_bytes(),
            layers: vec![layer],
        }
    }

    /// What `docker save` wrote to `archive`: of each of these ids its image.
    ///
    /// # Errors
    /// When it can't be read, or has not all of them.
    pub fn saved(archive: &mut File, ids: &[String]) -> io::Result<Vec<Self>> {
        let mut places = BTreeMap::new();
        let mut small = BTreeMap::new();
        let mut links = BTreeMap::new();
        archive.seek(SeekFrom::Start(0))?;
        {
            let mut tar = tar::Archive::new(&mut *archive);
            for entry in tar.entries_with_seek()? {
                let mut entry = entry?;
                let path = entry.path()?.to_string_lossy().into_owned();
                let (offset, size) = (entry.raw_file_position(), entry.header().size()?);
                // Older engines write a layer that several images have once.
                if let Some(target) = entry.link_name()? {
                    links.insert(path, target.to_string_lossy().into_owned());
                    continue;
                }
                // Manifests and configurations; layers are larger or have another name.
                if size < 1 << 20 && (path.ends_with(".json") || path.contains("blobs/")) {
                    let mut text = Vec::new();
                    entry.read_to_end(&mut text)?;
                    small.insert(path.clone(), text);
                }
                places.insert(path, (offset, size));
            }
        }
        let json = |path: &str| -> io::Result<Value> {
            let text = small.get(path).ok_or_else(|| wrong(path))?;
            serde_json::from_slice(text).map_err(io::Error::other)
        };
        let manifest = json("manifest.json")?;
        let entries = manifest.as_array().map_or(&[][..], Vec::as_slice);
        let image = |id: &String| {
            let hex = id.trim_start_matches("sha256:");
            // An image's id is the digest of its configuration.
            let is_its = |entry: &&Value| entry["Config"].as_str().is_some_and(|c| c.contains(hex));
            let entry = entries.iter().find(is_its).ok_or_else(|| wrong(id))?;
            let config = entry["Config"].as_str().unwrap_or_default();
            let config = small.get(config).ok_or_else(|| wrong(config))?.clone();
            let parsed: Value = serde_json::from_slice(&config).map_err(io::Error::other)?;
            let ids = parsed["rootfs"]["diff_ids"].as_array();
            let ids = ids.into_iter().flatten().filter_map(Value::as_str);
            let files = entry["Layers"].as_array().into_iter().flatten();
            let mut layers = Vec::new();
            for (id, file) in ids.zip(files.filter_map(Value::as_str)) {
                let real = links
                    .get(file)
                    .map_or(file.to_owned(), |to| followed(file, to));
                let (offset, size) = *places.get(&real).ok_or_else(|| wrong(&real))?;
                // A blob is called by its own digest; a compressed one has another than the
                // layer.
                let (digest, media_type) = match real.strip_prefix("blobs/sha256/") {
                    Some(hex) if !id.ends_with(hex) => {
                        (format!("sha256:{hex}"), format!("{PLAIN_LAYER}+gzip"))
                    }
                    _ => (id.to_owned(), PLAIN_LAYER.to_owned()),
                };
                layers.push(Layer {
                    digest,
                    media_type,
                    offset,
                    size,
                });
            }
            Ok(Self { config, layers })
        };
        ids.iter().map(image).collect()
    }

    /// Its layers, the lowest first.
    #[cfg(test)]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Writes a layout in which the image is called `name`, without the blobs of `there`.
    /// Returns how many bytes of layers are in it.
    ///
    /// # Errors
    /// What reading and writing say.
    pub fn write(
        &self,
        name: &str,
        there: &BTreeSet<String>,
        layers: &mut File,
        out: &mut impl Write,
    ) -> io::Result<u64> {
        let described = self.layers.iter().map(|layer| {
            json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size})
        });
        let described: Value = described.collect();
        let mut travelled = 0;
        Self::write_layout(out, name, &self.config, &described, |out| {
            let lacking = self.layers.iter().filter(|l| !there.contains(&l.digest));
            for layer in lacking {
                layers.seek(SeekFrom::Start(layer.offset))?;
                let part = Read::by_ref(layers).take(layer.size);
                out.append_data(&mut header(layer.size), blob(&layer.digest), part)?;
                travelled += layer.size;
            }
            Ok(())
        })?;
        Ok(travelled)
    }

    /// Writes a layout of an image called `name`; `add_layers` adds those of its layers that
    /// have to travel.
    ///
    /// # Errors
    /// What writing says.
    pub fn write_layout<W: Write>(
        out: W,
        name: &str,
        config: &[u8],
        layers: &Value,
        add_layers: impl FnOnce(&mut tar::Builder<W>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = tar::Builder::new(out);
        add(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add_layers(&mut out)?;
        let digest = add_blob(&mut out, config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": CONFIG, "digest": digest, "size": config.len()},
        });
        let manifest = manifest.to_string();
        let digest = add_blob(&mut out, manifest.as_bytes())?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": digest, "size": manifest.len(),
            "annotations": {NAME: name},
        }]});
        add(&mut out, "index.json", index.to_string().as_bytes())?;
        out.into_inner()?.flush()
    }
}

fn wrong(path: &str) -> io::Error {
    io::Error::other(format!("the engine's archive of the image has no {path:?}"))
}

/// Where a relative link leads.
fn followed(from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `sha256:…` of what is read, and its length.
///
/// # Errors
/// What reading says.
pub fn digest_of(mut from: impl Read) -> io::Result<(String, u64)> {
    let mut sha = Sha256::new();
    let size = io::copy(&mut from, &mut sha)?;
    Ok((format!("sha256:{}", hex::encode(sha.finalize())), size))
}

/// Where a layout has a blob.
pub fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// Adds one file.
///
/// # Errors
/// What writing says.
pub fn add(out: &mut tar::Builder<impl Write>, path: &str, data: &[u8]) -> io::Result<()> {
    out.append_data(&mut header(data.len() as u64), path, data)
}

fn add_blob(out: &mut tar::Builder<impl Write>, data: &[u8]) -> io::Result<String> {
    let (digest, _) = digest_of(data)?;
    add(out, &blob(&digest), data)?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn saved(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, data) in entries {
            add(&mut tar, path, data).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn contents(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.path().unwrap().display().to_string(), data)
        });
        entries.collect()
    }

    fn ids(layers: &[&[u8]]) -> Vec<String> {
        layers.iter().map(|l| digest_of(*l).unwrap().0).collect()
    }

    #[test]
    fn only_what_the_node_lacks_travels() {
        let ids = ids(&[b"lower", b"upper"]);
        let config = json!({"rootfs": {"diff_ids": ids}}).to_string();
        let other = json!({"rootfs": {"diff_ids": [ids[0]]}}).to_string();
        let manifest = json!([
            {"Config": "0d.json", "Layers": ["a/layer.tar"]},
            {"Config": "0c.json", "Layers": ["a/layer.tar", "b/layer.tar"]},
        ]);
        let archive = saved(&[
            ("a/layer.tar", b"lower"),
            ("b/layer.tar", b"upper"),
            ("0c.json", config.as_bytes()),
            ("0d.json", other.as_bytes()),
            ("manifest.json", manifest.to_string().as_bytes()),
        ]);
        let mut file = file_of(&archive);
        let wanted = ["sha256:0c", "sha256:0d"].map(str::to_owned);
        let images = Image::saved(&mut file, &wanted).unwrap();
        assert_eq!(
            images.iter().map(|i| i.layers().len()).collect::<Vec<_>>(),
            [2, 1]
        );
        let image = &images[0];
        let there = BTreeSet::from([ids[0].clone()]);
        let mut out = Vec::new();
        let travelled = image
            .write("r.local/x:1", &there, &mut file, &mut out)
            .unwrap();
        assert_eq!(travelled, 5);
        let out = contents(&out);
        assert_eq!(out.get(&blob(&ids[0])), None);
        assert_eq!(out[&blob(&ids[1])], b"upper");
        let index: Value = serde_json::from_slice(&out["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"][NAME], "r.local/x:1");
        let manifest = index["manifests"][0]["digest"].as_str().unwrap();
        let manifest: Value = serde_json::from_slice(&out[&blob(manifest)]).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0]["digest"], ids[0].as_str());
        let config_digest = manifest["config"]["digest"].as_str().unwrap();
        assert_eq!(out[&blob(config_digest)], config.as_bytes());
    }

    #[test]
    fn newer_engines_save_a_layout() {
        let ids = ids(&[b"lower"]);
        let config = json!({"rootfs": {"diff_ids": ids}}).to_string();
        let (config_digest, _) = digest_of(config.as_bytes()).unwrap();
        let manifest = json!([{"Config": blob(&config_digest), "Layers": [blob(&ids[0])]}]);
        let archive = saved(&[
            (&blob(&config_digest), config.as_bytes()),
            (&blob(&ids[0]), b"lower"),
            ("manifest.json", manifest.to_string().as_bytes()),
        ]);
        let images = Image::saved(&mut file_of(&archive), &[config_digest]).unwrap();
        assert_eq!(images[0].layers()[0].digest, ids[0]);
        assert_eq!(images[0].layers()[0].media_type, PLAIN_LAYER);
    }

    #[test]
    fn what_is_no_image_is_told() {
        let archive = saved(&[("x", b"y")]);
        let error = Image::saved(&mut file_of(&archive), &[]).unwrap_err();
        assert!(error.to_string().contains("manifest.json"), "{error}");
    }

    #[test]
    fn links_lead_to_the_layer() {
        assert_eq!(followed("b/layer.tar", "../a/layer.tar"), "a/layer.tar");
        assert_eq!(followed("b/layer.tar", "x"), "b/x");
    }
}
