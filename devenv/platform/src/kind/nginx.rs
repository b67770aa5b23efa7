//! ingress-nginx in the cluster: the manifest of its release for kind, with its images, each
//! checked against what was published.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptions;
use futures_util::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::cluster::Node;
use super::error::KindError;
use super::load;
use crate::cache;

/// A release: its manifest and its images.
#[derive(Debug, Clone, Copy)]
struct Release {
    tag: &'static str,
    manifest: &'static str,
    /// SHA-256 of the manifest.
    sha256: &'static str,
    /// Each image as the manifest names it, and its name on the node.
    images: [(&'static str, &'static str); 2],
}

/// The last one: ingress-nginx was retired in March 2026.
const RELEASE: Release = Release {
    tag: "controller-v1.15.1",
    manifest: "https://raw.githubusercontent.com/kubernetes/ingress-nginx/controller-v1.15.1/deploy/static/provider/kind/deploy.yaml",
    sha256: "2a3ae008c8786431115502644e77ab398fdebfb721a5d1195ed3089cde3299df",
    images: [
        (
            "registry.k8s.io/ingress-nginx/controller:v1.15.1@sha256:594ceea76b01c592858f803f9ff4d2cb40542cae2060410b2c95f75907d659e1",
            "devenv.local/ingress-nginx-controller:v1.15.1",
        ),
        (
            "registry.k8s.io/ingress-nginx/kube-webhook-certgen:v1.6.9@sha256:01038e7de14b78d702d2849c3aad72fd25903c4765af63cf16aa3398f5d5f2dd",
            "devenv.local/ingress-nginx-certgen:v1.6.9",
        ),
    ],
};

/// Whether all of it is here or can be had; what has to come is fetched, once.
///
/// # Errors
/// [`KindError::NoNginx`].
pub async fn look(docker: &Docker) -> Result<(), KindError> {
    objects(&RELEASE).await?;
    for (image, _) in RELEASE.images {
        fetch(docker, image).await?;
    }
    Ok(())
}

/// Brings its images into the nodes; returns the objects that run it.
///
/// # Errors
/// [`KindError::NoNginx`], [`KindError::Load`].
pub async fn deliver(docker: &Docker, nodes: &[Node]) -> Result<Vec<Value>, KindError> {
    let objects = objects(&RELEASE).await?;
    let mut images = Vec::new();
    for (image, name) in RELEASE.images {
        let found = docker.inspect_image(image).await;
        let id = found.map_err(|e| none(e.to_string()))?.id;
        images.push(load::Wanted {
            id: id.unwrap_or_else(|| image.to_owned()),
            name: name.to_owned(),
        });
    }
    load::from_engine(docker, nodes, &images).await?;
    Ok(objects)
}

fn none(reason: impl Into<String>) -> KindError {
    KindError::NoNginx {
        reason: reason.into(),
    }
}

/// The engine has the image of this name and digest afterwards.
async fn fetch(docker: &Docker, image: &str) -> Result<(), KindError> {
    if docker.inspect_image(image).await.is_ok() {
        return Ok(());
    }
    let options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        ..CreateImageOptions::default()
    };
    let pulled = docker.create_image(Some(options), None, None);
    let pulled = pulled.try_for_each(|_| std::future::ready(Ok(()))).await;
    pulled.map_err(|e| none(format!("pulling {image}: {e}")))
}

/// The objects of the release, with the images' names on the nodes.
async fn objects(release: &Release) -> Result<Vec<Value>, KindError> {
    let path = kept(release);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) => {
            let text = download(release.manifest).await?;
            check(release, &text)?;
            keep(&path, &text)?;
            text
        }
    };
    check(release, &text).map_err(|_| {
        let reason = format!(
            "{} is not what was published as {}; remove it",
            path.display(),
            release.tag
        );
        none(reason)
    })?;
    parse(release, &text)
}

fn check(release: &Release, text: &str) -> Result<(), KindError> {
    let found = hex::encode(Sha256::digest(text));
    if found == release.sha256 {
        return Ok(());
    }
    Err(none(format!(
        "{} has the SHA-256 {found}, and {} was published with {}",
        release.manifest, release.tag, release.sha256
    )))
}

fn parse(release: &Release, text: &str) -> Result<Vec<Value>, KindError> {
    let mut text = text.to_owned();
    for (image, name) in release.images {
        text = text.replace(image, name);
    }
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|e| none(e.to_string()))?;
    Ok(objects.into_iter().filter(Value::is_object).collect())
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

/// Where the manifest is kept for all projects of this user.
fn kept(release: &Release) -> PathBuf {
    let base = cache::dir().unwrap_or_else(std::env::temp_dir);
    let name = format!("{}.yaml", release.tag);
    base.join("ingress-nginx").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
kind: Namespace
---
kind: Deployment
spec: {containers: [{image: 'r/controller:1@sha256:00'}]}
---
";

    fn release(sha256: &'static str) -> Release {
        Release {
            sha256,
            images: [
                ("r/controller:1@sha256:00", "devenv.local/c:1"),
                ("r/certgen:1@sha256:01", "devenv.local/g:1"),
            ],
            ..RELEASE
        }
    }

    #[test]
    fn images_are_those_that_are_on_the_node() {
        let objects = parse(&release(""), TEXT).unwrap();
        assert_eq!(objects.len(), 2);
        let image = &objects[1]["spec"]["containers"][0]["image"];
        assert_eq!(image, "devenv.local/c:1");
    }

    #[test]
    fn what_was_not_published_is_refused() {
        let error = check(&release("00"), TEXT).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert!(error.help().unwrap().contains("--ingress devenv"));
        let digest: &'static str = Box::leak(hex::encode(Sha256::digest(TEXT)).into_boxed_str());
        check(&release(digest), TEXT).unwrap();
    }
}
