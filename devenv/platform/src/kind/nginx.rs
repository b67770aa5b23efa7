//! ingress-nginx in the cluster: by the manifest of its last release for kind, or the one that
//! `[kind.nginx]` names, with the images that the manifest names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptions;
use devenv_model::{NginxManifest, NginxSource};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::cluster::Node;
use super::error::KindError;
use super::load;
use crate::home;

/// The last release: ingress-nginx was retired in March 2026.
const TAG: &str = "controller-v1.15.1";
const URL: &str = "https://raw.githubusercontent.com/kubernetes/ingress-nginx/controller-v1.15.1/deploy/static/provider/kind/deploy.yaml";
/// SHA-256 of its manifest, which names its images by digest.
const SHA256: &str = "2a3ae008c8786431115502644e77ab398fdebfb721a5d1195ed3089cde3299df";

/// Where ingress-nginx comes from.
#[derive(Debug, Clone)]
pub struct Nginx {
    /// The release, the file or the URL, for people.
    name: String,
    at: At,
    /// SHA-256 of the manifest.
    sha256: Option<String>,
}

#[derive(Debug, Clone)]
enum At {
    File(PathBuf),
    /// Fetched once, and kept there for all projects of this user.
    Url {
        url: String,
        kept: PathBuf,
    },
}

/// A manifest that can be installed: the engine has its images.
#[derive(Debug)]
pub struct Manifest {
    objects: Vec<Value>,
    images: BTreeSet<String>,
}

impl Nginx {
    /// What `[kind.nginx]` says for the project in `root`, or the last release.
    pub fn of(root: &Path, said: Option<&NginxSource>) -> Self {
        let Some(said) = said else {
            return Self {
                name: TAG.to_owned(),
                at: At::Url {
                    url: URL.to_owned(),
                    kept: kept(TAG),
                },
                sha256: Some(SHA256.to_owned()),
            };
        };
        let (name, at) = match &said.manifest {
            NginxManifest::File(path) => {
                let short = path.strip_prefix(root).unwrap_or(path);
                (short.display().to_string(), At::File(path.clone()))
            }
            NginxManifest::Url(url) => {
                let kept = kept(said.sha256.as_deref().unwrap_or_default());
                let at = At::Url {
                    url: url.clone(),
                    kept,
                };
                (url.clone(), at)
            }
        };
        Self {
            name: format!("{name} ({}: [kind.nginx])", said.origin),
            at,
            sha256: said.sha256.clone(),
        }
    }

    /// Whether all of it is here or can be had; what has to come is fetched, once.
    ///
    /// # Errors
    /// [`KindError::NoNginx`].
    pub async fn look(&self, docker: &Docker) -> Result<Manifest, KindError> {
        let manifest = self.parse(&self.text().await?)?;
        for image in &manifest.images {
            fetch(docker, image).await?;
        }
        Ok(manifest)
    }

    async fn text(&self) -> Result<String, KindError> {
        let (url, kept) = match &self.at {
            At::File(path) => {
                let text = fs::read_to_string(path);
                let text = text.map_err(|e| none(format!("{}: {e}", self.name)))?;
                self.check(&text).map_err(none)?;
                return Ok(text);
            }
            At::Url { url, kept } => (url, kept),
        };
        if let Ok(text) = fs::read_to_string(kept) {
            self.check(&text)
                .map_err(|e| none(format!("{e}; it was kept as {}: remove it", kept.display())))?;
            return Ok(text);
        }
        let text = download(url).await?;
        self.check(&text).map_err(none)?;
        keep(kept, &text)?;
        Ok(text)
    }

    fn check(&self, text: &str) -> Result<(), Mismatch> {
        let found = hex::encode(Sha256::digest(text));
        match &self.sha256 {
            Some(expected) if *expected != found => Err(Mismatch {
                name: self.name.clone(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }

    fn parse(&self, text: &str) -> Result<Manifest, KindError> {
        let wrong = |reason: String| none(format!("{}: {reason}", self.name));
        let all: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|e| wrong(e.to_string()))?;
        let mut objects: Vec<Value> = all.into_iter().flat_map(items).collect();
        if !objects.iter().any(|object| object["kind"] == "Deployment") {
            return Err(wrong(
                "it has no Deployment: expected the manifest of an ingress-nginx for kind"
                    .to_owned(),
            ));
        }
        let mut images = BTreeSet::new();
        for container in objects.iter_mut().flat_map(containers) {
            images.extend(container["image"].as_str().map(str::to_owned));
        }
        // A file of the project is the project's own business.
        let may_change = |image: &&String| !is_pinned(image);
        if let (At::Url { .. }, Some(image)) = (&self.at, images.iter().find(may_change)) {
            return Err(wrong(format!(
                "it names the image {image} without its digest; expected NAME@sha256:…"
            )));
        }
        Ok(Manifest { objects, images })
    }
}

/// A manifest that is not the one that was said.
#[derive(Debug, thiserror::Error)]
#[error("{name} has the SHA-256 {found}, and {expected} is expected")]
struct Mismatch {
    name: String,
    expected: String,
    found: String,
}

impl Manifest {
    /// Brings its images into the nodes; returns the objects that run them.
    ///
    /// # Errors
    /// [`KindError::NoNginx`], [`KindError::Load`].
    pub async fn deliver(self, docker: &Docker, nodes: &[Node]) -> Result<Vec<Value>, KindError> {
        let mut names = BTreeMap::new();
        let mut wanted = Vec::new();
        for image in &self.images {
            let found = docker.inspect_image(image).await;
            let found = found.map_err(|e| none(format!("{image}: {e}")))?;
            let id = found.id.unwrap_or_else(|| image.clone());
            let name = on_nodes(image, &id);
            names.insert(image.clone(), name.clone());
            wanted.push(load::Wanted { id, name });
        }
        load::from_engine(docker, nodes, &wanted).await?;
        Ok(self.named(&names))
    }

    /// Its objects, with images by the names that the nodes have them under.
    fn named(mut self, names: &BTreeMap<String, String>) -> Vec<Value> {
        for container in self.objects.iter_mut().flat_map(containers) {
            let name = container["image"].as_str().and_then(|i| names.get(i));
            if let Some(name) = name {
                container["image"] = json!(name);
                // The nodes have it, and nobody else does.
                container["imagePullPolicy"] = json!("IfNotPresent");
            }
        }
        self.objects
    }
}

fn none(reason: impl ToString) -> KindError {
    KindError::NoNginx {
        reason: reason.to_string(),
    }
}

/// The objects of a document: those of a List, or itself.
fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut list) if list.get("kind") == Some(&json!("List")) => {
            let items = list.remove("items").unwrap_or_default();
            items.as_array().cloned().unwrap_or_default()
        }
        Value::Object(_) => vec![document],
        _ => Vec::new(),
    }
}

/// The containers of an object's pods.
fn containers(object: &mut Value) -> Vec<&mut Value> {
    let spec = object.pointer_mut("/spec/template/spec");
    let lists = spec.and_then(Value::as_object_mut).into_iter().flatten();
    let lists = lists.filter(|(key, _)| matches!(key.as_str(), "initContainers" | "containers"));
    let lists = lists.filter_map(|(_, list)| list.as_array_mut());
    lists.flatten().collect()
}

fn is_pinned(image: &str) -> bool {
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    digest.is_some_and(|d| d.len() == 64 && d.chars().all(|c| c.is_ascii_hexdigit()))
}

/// What an image of the engine is called on the nodes: another name whenever it is another
/// image, so that nobody has to pull to find out.
fn on_nodes(image: &str, id: &str) -> String {
    let digest = id.trim_start_matches("sha256:");
    let short = digest.get(..12).unwrap_or(digest);
    let base = image.split('@').next().unwrap_or_default();
    let base = base.rsplit('/').next().unwrap_or_default();
    let base = base.split(':').next().unwrap_or_default();
    format!("devenv.local/ingress-nginx-{base}:{short}")
}

/// The engine has the image of this name afterwards.
async fn fetch(docker: &Docker, image: &str) -> Result<(), KindError> {
    if docker.inspect_image(image).await.is_ok() {
        return Ok(());
    }
    let mut options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        ..CreateImageOptions::default()
    };
    let tail = image.rsplit('/').next().unwrap_or_default();
    if !tail.contains([':', '@']) {
        // Else the engine would pull all tags.
        options.tag = Some("latest".to_owned());
    }
    let pulled = docker.create_image(Some(options), None, None);
    let pulled = pulled.try_for_each(|_| std::future::ready(Ok(()))).await;
    pulled.map_err(|e| {
        let said = e.to_string();
        let needs_login = ["auth", "denied"].iter().any(|word| said.contains(word));
        let hint = match needs_login {
            true => format!("; `docker pull {image}` uses your login"),
            false => String::new(),
        };
        none(format!("pulling {image}: {said}{hint}"))
    })
}

async fn download(url: &str) -> Result<String, KindError> {
    let output = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location"])
        .args(["--proto", "=https", "--max-time", "60", url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| {
            none(format!(
                "curl, which fetches its manifest, can't be run: {e}"
            ))
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(none(format!("{url}: {}", text(&output.stderr)))),
    }
}

/// Whole or not at all.
fn keep(path: &PathBuf, text: &str) -> Result<(), KindError> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let written = fs::create_dir_all(&folder).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map(drop).map_err(|e| e.error)
    });
    written.map_err(|source| KindError::Io {
        what: "write",
        path: path.clone(),
        source,
    })
}

/// Where a manifest is kept for all projects of this user.
fn kept(name: &str) -> PathBuf {
    let base = home::cache().unwrap_or_else(std::env::temp_dir);
    base.join("ingress-nginx").join(format!("{name}.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROLLER: &str =
        "r/n/controller:1@sha256:594ceea76b01c592858f803f9ff4d2cb40542cae2060410b2c95f75907d659e1";

    fn text(controller: &str) -> String {
        format!(
            "
kind: Namespace
---
kind: Deployment
spec: {{template: {{spec: {{containers: [{{image: '{controller}', imagePullPolicy: Always}}]}}}}}}
---
---
kind: List
items:
  - kind: Job
    spec: {{template: {{spec: {{initContainers: [{{image: '{CONTROLLER}'}}], containers: []}}}}}}
"
        )
    }

    fn nginx(at: At, sha256: Option<&str>) -> Nginx {
        Nginx {
            name: "n.yaml".to_owned(),
            at,
            sha256: sha256.map(str::to_owned),
        }
    }

    fn url() -> At {
        At::Url {
            url: "https://mirror.example/n.yaml".to_owned(),
            kept: PathBuf::new(),
        }
    }

    #[test]
    fn images_are_those_of_the_manifest_by_the_names_on_the_nodes() {
        let manifest = nginx(url(), None).parse(&text(CONTROLLER)).unwrap();
        assert_eq!(manifest.images, BTreeSet::from([CONTROLLER.to_owned()]));
        let name = on_nodes(CONTROLLER, "sha256:0123456789abcdef");
        assert_eq!(name, "devenv.local/ingress-nginx-controller:0123456789ab");
        let names = BTreeMap::from([(CONTROLLER.to_owned(), name.clone())]);
        let mut objects = manifest.named(&names);
        assert_eq!(objects.len(), 3);
        for object in &mut objects[1..] {
            let container = containers(object).remove(0);
            let expected = json!({"image": name, "imagePullPolicy": "IfNotPresent"});
            assert_eq!(container, &expected);
        }
    }

    #[test]
    fn of_a_url_every_image_has_its_digest() {
        let loose = text("r/n/controller:1");
        let error = nginx(url(), None).parse(&loose).unwrap_err().to_string();
        assert!(error.contains("r/n/controller:1 without"), "{error}");
        let file = nginx(At::File(PathBuf::new()), None);
        assert_eq!(file.parse(&loose).unwrap().images.len(), 2);
    }

    #[test]
    fn what_is_no_controllers_manifest_is_told() {
        for text in ["kind: Namespace", "", "a: [", "- 1"] {
            let error = nginx(url(), None).parse(text).unwrap_err();
            assert!(error.to_string().contains("n.yaml: "), "{error}");
            assert!(error.help().unwrap().contains("--ingress devenv"));
        }
    }

    #[tokio::test]
    async fn what_was_not_said_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.yaml");
        fs::write(&path, "text").unwrap();
        let at = || At::File(path.clone());
        let error = nginx(at(), Some("00")).text().await.unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        let digest = hex::encode(Sha256::digest("text"));
        let text = nginx(at(), Some(&digest)).text().await.unwrap();
        assert_eq!(text, "text");
        // What was fetched once is looked at each time.
        let at = At::Url {
            url: "https://mirror.example/n.yaml".to_owned(),
            kept: path.clone(),
        };
        let error = nginx(at, Some("00")).text().await.unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }

    #[test]
    fn the_release_is_pinned() {
        let release = Nginx::of(Path::new("/p"), None);
        assert_eq!(release.sha256.as_deref(), Some(SHA256));
        let At::Url { url, kept } = release.at else {
            panic!("{release:?}");
        };
        assert!(url.contains(&format!("/{TAG}/")), "{url}");
        assert!(kept.ends_with(format!("ingress-nginx/{TAG}.yaml")));
    }
}
