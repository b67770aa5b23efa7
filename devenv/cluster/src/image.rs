//! What stands for an image: how its program is run on this machine.
//!
//! The process runtime never pulls. Whoever builds the sources puts a
//! [`RunSpec`] under the image's name; pods that wait for it start then.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use devenv_sandbox::Bind;
use tokio::sync::watch;

/// How the program of an image runs without a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSpec {
    /// The image's ENTRYPOINT and CMD in one; a container's `command` or `args` replace it.
    pub argv: Vec<String>,
    /// Working directory: a path of the host. It appears at its own path as one of `binds` shows
    /// it, or else bound read-write.
    pub cwd: PathBuf,
    /// The image's WORKDIR, where `cwd` appears as well and in the same way; the program starts
    /// there when given.
    pub workdir: Option<PathBuf>,
    /// The image's ENV; the container's own variables win.
    pub env: Vec<(String, String)>,
    /// Host paths that the container sees, in this order. One that lies in a folder which
    /// containers otherwise find empty (devenv's state) is shown.
    pub binds: Vec<Bind>,
    /// The image of a container engine that it runs from. `cwd` is a path in that image then
    /// (its WORKDIR), and nothing of the host is shown but what the pod's volumes name.
    pub container: Option<Arc<ContainerImage>>,
}

/// An image of a container engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerImage {
    /// What the engine knows it by; its digest, so that what runs is what was built.
    pub id: String,
    /// Its USER, where it has one.
    pub user: Option<String>,
    /// Its STOPSIGNAL, where it has one.
    pub stop_signal: Option<String>,
}

/// One image: how it runs, and what of `argv` is its ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) run: Arc<RunSpec>,
    /// How many leading words of `argv` are the ENTRYPOINT, which `args` keep.
    pub(crate) entrypoint: usize,
}

/// Images by name, as pods write them. Cheap to clone; all clones are one table.
#[derive(Debug, Clone)]
pub struct ImageTable {
    images: Arc<Mutex<HashMap<String, Image>>>,
    changed_tx: watch::Sender<u64>,
}

impl Default for ImageTable {
    fn default() -> Self {
        ImageTable::new()
    }
}

impl ImageTable {
    /// A table without images.
    pub fn new() -> ImageTable {
        ImageTable {
            images: Arc::default(),
            changed_tx: watch::channel(0).0,
        }
    }

    /// Says how image `name` runs. Containers started from now on use it; those that waited for it start.
    ///
    /// The whole `argv` counts as CMD, so a container's `args` replace it, as with images
    /// that have no ENTRYPOINT. [`ImageTable::set_with_entrypoint`] says otherwise.
    pub fn set(&self, name: &str, run: RunSpec) {
        self.set_with_entrypoint(name, run, 0);
    }

    /// Like [`ImageTable::set`] for an image whose first `entrypoint` words of `argv` are its ENTRYPOINT.
    pub fn set_with_entrypoint(&self, name: &str, run: RunSpec, entrypoint: usize) {
        let entrypoint = entrypoint.min(run.argv.len());
        let image = Image {
            run: Arc::new(run),
            entrypoint,
        };
        self.lock().insert(canonical(name), image);
        self.changed_tx.send_modify(|version| *version += 1);
    }

    /// How image `name` runs, if that is known.
    pub fn get(&self, name: &str) -> Option<Arc<RunSpec>> {
        self.image(name).map(|image| image.run)
    }

    pub(crate) fn image(&self, name: &str) -> Option<Image> {
        self.lock().get(&canonical(name)).cloned()
    }

    /// Wakes at every change of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed_tx.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Image>> {
        // A map is whole after a panic elsewhere: inserting is its only mutation.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `api1` and `api1:latest` are one image, as for every container runtime; a digest is kept.
fn canonical(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("api1", "api1:latest")]
    #[case("api1:latest", "api1:latest")]
    #[case("localhost:5000/api1", "localhost:5000/api1:latest")]
    #[case("r/api1:v2", "r/api1:v2")]
    #[case("r/api1@sha256:ab", "r/api1@sha256:ab")]
    fn names(#[case] name: &str, #[case] full: &str) {
        assert_eq!(canonical(name), full);
    }

    #[tokio::test]
    async fn a_new_image_wakes_who_waits() {
        let table = ImageTable::new();
        let mut changes = table.changes();
        assert!(table.get("a").is_none());
        table.set(
            "a:latest",
            RunSpec {
                argv: vec!["x".into()],
                ..RunSpec::default()
            },
        );
        changes.changed().await.expect("the table lives");
        assert_eq!(table.get("a").expect("just set").argv, ["x"]);
    }
}
