//! What was saved, laid over the image that was built last: where a Dockerfile only copies
//! it, that is what building it anew would come to. Whether it only copies is said in
//! devenv.toml: of a base image's WORKDIR, of variables and of what later instructions make
//! of a file a Dockerfile alone does not tell enough.
//!
//! Nothing is changed in a container that runs: the result is an image, so that a restarted
//! pod runs what the one before ran, and a bad save is rolled out as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devenv_model::{ContainerBuild, MADE, SyncPath};
use serde_json::json;

use super::context::Context;

/// Files to be laid over an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// By their places in the image.
    files: BTreeMap<String, Place>,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Where it lies here.
    from: PathBuf,
    /// The folder of the image that it is below: what is between is made like it.
    top: String,
}

/// Layers that no build made, and the image that they lie on.
#[derive(Debug, PartialEq, Eq)]
pub struct Layer {
    /// The id of that image.
    pub base: String,
    /// `sha256:…` of `tar`.
    pub digest: String,
    /// An archive as OCI layers are.
    pub tar: Vec<u8>,
}

impl Files {
    /// Where `changed` files are in the image that `build` makes. `None`: it has to be built.
    /// `is_input` says whether this file, or any below this folder, is one that a save is told
    /// of; all else is what commands have made.
    ///
    /// # Errors
    /// When a folder can't be read, or what a command should have made is not there.
    pub fn of<'a>(
        build: &ContainerBuild,
        changed: impl Iterator<Item = &'a Path>,
        is_input: impl Fn(&Path) -> bool,
    ) -> io::Result<Option<Self>> {
        let mut found = Self::default();
        if build.sync.is_empty() {
            return Ok(None);
        }
        let is_made = |sync: &SyncPath| build.sync_builds && !is_input(&sync.from);
        let made: Vec<&SyncPath> = build.sync.iter().filter(|s| is_made(s)).collect();
        let whole_folders = made.iter().any(|sync| sync.from.is_dir());
        let context = Context::of(build)?;
        for file in changed {
            if build.decides(file) {
                return Ok(None);
            }
            let gone = !file.exists();
            let of = |sync: &&SyncPath| file.starts_with(&sync.from);
            let nearest = build.sync.iter().filter(of);
            match nearest.max_by_key(|sync| sync.from.as_os_str().len()) {
                Some(_) if context.leaves_out(file) => {}
                Some(sync) if is_made(sync) => {}
                // A layer can say that one is gone; who knows what else went with it.
                Some(sync) if !is_plain(file, &sync.from) => return Ok(None),
                Some(sync) if !found.add(sync, file) => return Ok(None),
                Some(_) => {}
                // A command has read it, and may have left out what it made of one before.
                None if !made.is_empty() && (!gone || !whole_folders) => {}
                None => return Ok(None),
            }
        }
        for sync in build.sync.iter().filter(|_| build.sync_builds) {
            let skip = |path: &Path| !is_made(sync) && (is_input(path) || is_tools(path));
            if !found.add_all(sync, &sync.from, &skip)? {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// False: it has a name that images don't have.
    fn add(&mut self, sync: &SyncPath, file: &Path) -> bool {
        let rest = file.strip_prefix(&sync.from).ok().and_then(Path::to_str);
        let Some(rest) = rest else { return false };
        let to = match rest {
            "" => sync.to.clone(),
            rest => format!("{}/{rest}", sync.to.trim_end_matches('/')),
        };
        let place = Place {
            from: file.to_owned(),
            top: sync.to.clone(),
        };
        self.files.insert(to, place);
        true
    }

    /// False: there is what a layer would change into something else.
    fn add_all(
        &mut self,
        sync: &SyncPath,
        path: &Path,
        skip: &dyn Fn(&Path) -> bool,
    ) -> io::Result<bool> {
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let stat = if path == sync.from {
            fs::metadata(path)
        } else {
            fs::symlink_metadata(path)
        };
        let stat = stat.map_err(at)?;
        if !stat.is_dir() {
            return Ok(skip(path) || (stat.is_file() && self.add(sync, path)));
        }
        for entry in fs::read_dir(path).map_err(at)? {
            let entry = entry.map_err(at)?;
            // A folder that holds inputs may hold what was made as well.
            let is_dir = entry.file_type().map_err(at)?.is_dir();
            let skipped = skip(&entry.path()) && (!is_dir || is_tools(&entry.path()));
            if !skipped && !self.add_all(sync, &entry.path(), skip)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The layer for nodes: files alone, so that folders stay as they are.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn layer(&self, base: &str) -> io::Result<Layer> {
        let mut tar = tar::Builder::new(Vec::new());
        for (to, place) in &self.files {
            append(&mut tar, to.trim_start_matches('/'), &place.from)?;
        }
        let tar = tar.into_inner()?;
        let (digest, _) = crate::kind::digest_of(tar.as_slice())?;
        Ok(Layer {
            base: base.to_owned(),
            digest,
            tar,
        })
    }

    /// The context of a build that lays them over `base`.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn context(&self, base: &str) -> io::Result<Vec<u8>> {
        let tops: BTreeSet<&str> = self.files.values().map(|p| p.top.as_str()).collect();
        let mut tar = tar::Builder::new(Vec::new());
        let mut dockerfile = format!("FROM {base}\n");
        for (n, top) in tops.into_iter().enumerate() {
            for (to, place) in self.files.iter().filter(|(_, p)| p.top == top) {
                let rest = &to[top.trim_end_matches('/').len()..];
                append(&mut tar, &format!("{n}{rest}"), &place.from)?;
            }
            // Only the contents of a folder are copied: the folder stays as it is.
            let file = self.files.contains_key(top);
            let copy = if file {
                json!([n.to_string(), top])
            } else {
                json!([format!("{n}/"), format!("{}/", top.trim_end_matches('/'))])
            };
            dockerfile.push_str(&format!("COPY {copy}\n"));
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(dockerfile.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes())?;
        tar.into_inner()
    }
}

/// Whether this is a file that no link leads to, from `top` on.
fn is_plain(file: &Path, top: &Path) -> bool {
    let mut below = file.ancestors().take_while(|path| *path != top);
    let no_link = below.all(|path| !path.is_symlink());
    no_link && file.is_file()
}

/// Whether tools keep things of their own in this folder, such as packages.
fn is_tools(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| MADE.iter().any(|made| made.trim_end_matches('/') == name))
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, from: &Path) -> io::Result<()> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
    let stat = fs::metadata(from).map_err(at)?;
    let data = fs::read(from).map_err(at)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    let executable = stat.mode() & 0o100 != 0;
    header.set_mode(if executable { 0o755 } else { 0o644 });
    // Its own: what was compiled of the one below is older or newer than this.
    header.set_mtime(u64::try_from(stat.mtime()).unwrap_or(0));
    tar.append_data(&mut header, path, data.as_slice())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rstest::rstest;

    use super::*;

    fn entries(archive: &[u8]) -> BTreeMap<String, (String, u32)> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let mode = entry.header().mode().unwrap();
            (entry.path().unwrap().display().to_string(), (text, mode))
        });
        entries.collect()
    }

    fn project(sync: &[(&str, &str)], builds: bool) -> (tempfile::TempDir, ContainerBuild) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("Dockerfile", "FROM x"),
            (".dockerignore", "src/notes\n"),
            ("src/main.py", "main"),
            ("src/deep/a.py", "a"),
            ("src/notes", "notes"),
            ("src/generated", "made"),
            ("src/node_modules/x", "a tool's"),
            ("target/program", "made"),
            ("target-linked/program", "made"),
            ("other", "other"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for (to, link) in [("deep", "src/linked"), ("program", "target-linked/link")] {
            std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
        }
        let path = |(from, to): &(&str, &str)| SyncPath {
            from: dir.path().join(from).components().collect(),
            to: (*to).to_owned(),
        };
        let build = ContainerBuild {
            dockerfile: dir.path().join("Dockerfile"),
            context: dir.path().to_owned(),
            target: None,
            args: BTreeMap::new(),
            sync: sync.iter().map(path).collect(),
            sync_builds: builds,
        };
        (dir, build)
    }

    const SRC: &[(&str, &str)] = &[("src", "/app/src")];
    const PROGRAM: &[(&str, &str)] = &[("target/program", "/app/program")];

    #[rstest]
    #[case::below(SRC, false, &["src/main.py", "src/deep/a.py"], Some(&["/app/src/deep/a.py", "/app/src/main.py"][..]))]
    #[case::a_file(&[("src/main.py", "/run.py")], false, &["src/main.py"], Some(&["/run.py"][..]))]
    #[case::the_nearest(&[("", "/srv"), ("src", "/app")], false, &["src/main.py", "other"], Some(&["/app/main.py", "/srv/other"][..]))]
    #[case::at_the_root(&[("src", "/")], false, &["src/deep/a.py"], Some(&["/deep/a.py"][..]))]
    #[case::left_out_of_the_context(SRC, false, &["src/notes"], Some(&[][..]))]
    #[case::elsewhere(SRC, false, &["src/main.py", "other"], None)]
    #[case::gone(SRC, false, &["src/gone.py"], None)]
    #[case::a_folder_now(SRC, false, &["src/deep"], None)]
    #[case::through_a_link(SRC, false, &["src/linked/a.py"], None)]
    #[case::the_dockerfile(SRC, false, &["Dockerfile"], None)]
    #[case::what_is_left_out(SRC, false, &[".dockerignore"], None)]
    #[case::nothing_is_said(&[], false, &["src/main.py"], None)]
    #[case::made(PROGRAM, true, &["src/main.py", "src/gone.py"], Some(&["/app/program"][..]))]
    #[case::made_by_another_dockerfile(PROGRAM, true, &["Dockerfile"], None)]
    #[case::nothing_is_made_of_it(SRC, true, &["other"], None)]
    #[case::a_folder_is_made(&[("target", "/app")], true, &["src/main.py"], Some(&["/app/program"][..]))]
    #[case::less_is_made(&[("target", "/app")], true, &["src/gone.py"], None)]
    #[case::made_among_sources(SRC, true, &["src/main.py"], Some(&["/app/src/generated", "/app/src/main.py"][..]))]
    #[case::made_with_links(&[("target-linked", "/app")], true, &["src/main.py"], None)]
    fn where_saved_files_are_in_an_image(
        #[case] sync: &[(&str, &str)],
        #[case] builds: bool,
        #[case] changed: &[&str],
        #[case] expected: Option<&[&str]>,
    ) {
        let (dir, build) = project(sync, builds);
        let inputs = [
            "src/main.py",
            "src/deep/a.py",
            "src/notes",
            "other",
            "src/linked/a.py",
        ];
        let inputs: Vec<PathBuf> = inputs.iter().map(|i| dir.path().join(i)).collect();
        let changed: Vec<PathBuf> = changed.iter().map(|c| dir.path().join(c)).collect();
        let is_input = |path: &Path| inputs.iter().any(|input| input.starts_with(path));
        let files = Files::of(&build, changed.iter().map(PathBuf::as_path), is_input).unwrap();
        let found = files
            .as_ref()
            .map(|f| f.files.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn what_was_not_made_is_told() {
        let (_dir, build) = project(&[("target/none", "/none")], true);
        let error = Files::of(&build, std::iter::empty(), |_| false).unwrap_err();
        assert!(error.to_string().contains("target/none"), "{error}");
    }

    #[test]
    fn a_layer_has_files_and_a_build_their_folders() {
        let (dir, build) = project(&[("src", "/app/src"), ("other", "/etc/other")], false);
        let changed = ["src/main.py", "src/deep/a.py", "other"].map(|c| dir.path().join(c));
        let files = Files::of(&build, changed.iter().map(PathBuf::as_path), |_| true);
        let files = files.unwrap().unwrap();
        let layer = files.layer("sha256:base").unwrap();
        assert_eq!(layer.base, "sha256:base");
        let paths: Vec<String> = entries(&layer.tar).into_keys().collect();
        assert_eq!(paths, ["app/src/deep/a.py", "app/src/main.py", "etc/other"]);
        assert_eq!(
            entries(&layer.tar)["etc/other"],
            ("other".to_owned(), 0o644)
        );

        let context = entries(&files.context("sha256:base").unwrap());
        assert_eq!(
            context["Dockerfile"].0,
            "FROM sha256:base\nCOPY [\"0/\",\"/app/src/\"]\nCOPY [\"1\",\"/etc/other\"]\n"
        );
        assert_eq!(context["0/deep/a.py"].0, "a");
        assert_eq!(context["1"].0, "other");
    }
}
