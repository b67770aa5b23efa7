//! Projects and images for this crate's own tests.

use std::{fs, path::Path};

use devenv_model::{ImageSource, LoadOptions, Topology};
use tempfile::TempDir;

/// A project of one image `web`, whose source is the folder `web`.
pub fn project(manifest: &str) -> (TempDir, Topology) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("web")).unwrap();
    fs::write(dir.path().join("app.yaml"), manifest).unwrap();
    let config = "[project]\nname = 'p'\nmanifests = ['app.yaml']\n\
                  [image.web]\nsource = 'web'\nrun = ['true']\n";
    fs::write(dir.path().join("devenv.toml"), config).unwrap();
    let (topology, _) = Topology::load(dir.path(), &LoadOptions::default())
        .into_result()
        .unwrap();
    (dir, topology)
}

/// An image whose source is `root`.
pub fn image(name: &str, root: &Path) -> ImageSource {
    let (_dir, topology) = project("");
    let mut image = topology.images()["web"].clone();
    image.name = name.to_owned();
    image.source = root.to_owned();
    image.workdir = root.to_owned();
    image.watch = vec![root.to_owned()];
    image
}
