//! A look at everything that a verdict covers, as it is now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use devenv_model::{Command, ImageSource, Object, Topology};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    CoverageError, Level,
    coverage::{Change, Coverage, Group, How, Inputs, differences, tree_hash},
    digests::{ImageDigests, Undigested},
    files::{self, Tracked},
    seal::{Seal, SealError},
    toolchain::{self, Installed, Programs},
};

/// Where the suites lie, relative to the project's folder.
pub const SUITES: &str = "tests/e2e";

/// What to look at. Every answer from outside of the tree is given or can be replaced.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The project, with its profile.
    pub topology: &'a Topology,
    /// `local`, `kind` or `kube:CONTEXT`.
    pub target: &'a str,
    /// What runs there. At [`Level::Source`] nobody is asked for digests.
    pub level: Level,
    /// The database engine and its version, such as `MariaDB 10.11.19`, where that is a
    /// server of the machine.
    pub database: Option<&'a str>,
    /// The database, where that is a container.
    pub beside: Option<Beside<'a>>,
    /// The digests of the container images that run.
    pub digests: &'a dyn ImageDigests,
    /// Whom to ask for the versions of compilers and interpreters.
    pub programs: &'a dyn Programs,
}

/// The database beside workloads that are containers: a service of a Compose file.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// The service's name.
    pub service: &'a str,
    /// Absolute path of the file.
    pub file: &'a Path,
    /// The image that it runs, as the file says; its digest counts like those of workloads.
    pub image: &'a str,
}

impl fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look")
            .field("target", &self.target)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl<'a> Look<'a> {
    /// At processes of this tree on `target`, with the programs of this machine.
    pub fn new(topology: &'a Topology, target: &'a str) -> Self {
        Self {
            topology,
            target,
            level: Level::Source,
            database: None,
            beside: None,
            digests: &Undigested,
            programs: &Installed,
        }
    }

    /// Lists and hashes everything; blocks for as long as reading all of it takes, and
    /// runs each compiler and interpreter once.
    ///
    /// # Errors
    /// When a file that is covered can't be read, or a digest is missing.
    pub fn take(&self) -> Result<Tree, CoverageError> {
        let root = &self.topology.project().root;
        let images = self.topology.workload_images().into_keys();
        let images = images.chain(self.beside.map(|b| b.image));
        let mut tree = Tree {
            inputs: self.environment()?,
            secrets: BTreeMap::new(),
            origins: BTreeMap::new(),
            not_covered: Vec::new(),
            project: self.topology.project().name.clone(),
            target: self.target.to_owned(),
            profile: self.topology.profile().map(str::to_owned),
            level: Level::Source,
            images: images.map(str::to_owned).collect(),
        };
        for image in self.topology.images().values() {
            tree.put(Group::Image, image.name.clone(), settings(root, image));
            tree.origins
                .insert(image.name.clone(), image.origin.to_string());
        }
        for object in self.topology.objects() {
            let key = object_key(object);
            let canonical = canonical(object.value());
            tree.origins
                .insert(key.clone(), object.origin().to_string());
            if is_secret(object) {
                tree.secrets.insert(key, Sha256::digest(canonical).into());
            } else {
                tree.put(Group::Manifest, key, json_hash(&canonical));
            }
        }
        let versions = toolchain::versions(self.topology, self.programs);
        tree.inputs.insert(Group::Toolchain, versions);
        let tracked = Tracked::of(root);
        self.files(&tracked, &mut tree)?;
        tree.not_covered.extend(self.gaps(&tracked));
        match self.level {
            Level::Source => Ok(tree),
            Level::Image => tree.of_images(self.digests),
        }
    }

    fn environment(&self) -> Result<Inputs, CoverageError> {
        let mut known = BTreeMap::from([
            ("target".to_owned(), self.target.to_owned()),
            (
                "profile".to_owned(),
                self.topology.profile().unwrap_or(NO_PROFILE).to_owned(),
            ),
        ]);
        if let Some(database) = self.database {
            known.insert(DATABASE.into(), database.into());
        }
        if let Some(Beside { service, file, .. }) = self.beside {
            let read = std::fs::read(file).map_err(|source| CoverageError::Read {
                path: file.to_owned(),
                source,
            });
            let hash = hex::encode(Sha256::digest(read?));
            let file = files::key(&self.topology.project().root, file);
            known.insert(
                DATABASE.into(),
                format!("{service} of {file} sha256:{hash}"),
            );
        }
        Ok(BTreeMap::from([(Group::Environment, known)]))
    }

    /// Every covered file once: what it is first here is what it is called.
    fn files(&self, tracked: &Tracked, tree: &mut Tree) -> Result<(), CoverageError> {
        let root = &self.topology.project().root;
        let mut covered: BTreeMap<PathBuf, Group> = BTreeMap::new();
        let secret: BTreeSet<PathBuf> = self
            .topology
            .objects()
            .iter()
            .filter(|o| is_secret(o))
            .map(|o| root.join(&*o.origin().file))
            .collect();
        covered.insert(self.topology.config_path().to_owned(), Group::Config);
        let mut places: Vec<(PathBuf, &[String], Group)> = Vec::new();
        let migrations = self.topology.cloud_sql().and_then(|c| c.migrations.clone());
        places.extend(migrations.map(|folder| (folder, &[][..], Group::Migration)));
        places.push((root.join(SUITES), &[], Group::Suite));
        for image in self.topology.images().values() {
            for place in context(image) {
                places.push((place, &image.ignore, Group::Source));
            }
        }
        // Images share folders: each is walked once.
        places.sort_by(|a, b| {
            (a.2 == Group::Source, &a.0, a.1).cmp(&(b.2 == Group::Source, &b.0, b.1))
        });
        places.dedup();
        for (place, ignore, group) in places {
            for file in files::list(&place, ignore, tracked)? {
                covered.entry(file).or_insert(group);
            }
        }
        for (file, group) in &mut covered {
            if secret.contains(file) {
                *group = Group::Secret;
            }
        }
        let (paths, groups): (Vec<PathBuf>, Vec<Group>) = covered.into_iter().unzip();
        let prints = files::prints(&paths)?;
        for ((path, group), print) in paths.iter().zip(groups).zip(prints) {
            let Some(print) = print else { continue };
            let key = files::key(root, path);
            if group == Group::Secret {
                tree.secrets.insert(key, print.material());
            } else {
                tree.put(group, key, print.to_string());
            }
            if let Some(folder) = linked_folder(path) {
                tree.not_covered.push(format!(
                    "what lies in {}, where the link {} leads",
                    folder.display(),
                    files::key(root, path)
                ));
            }
        }
        Ok(())
    }

    fn gaps(&self, tracked: &Tracked) -> Vec<String> {
        let mut gaps: Vec<String> = [
            "the machine: processor, memory, load, kernel, system libraries and clock",
            "the environment variables that builds inherit",
            "installed dependencies and build outputs (node_modules, .venv, target, what git ignores): the files that decide about them are covered, what is in them is not",
            "files outside of the images' contexts, the suites and the migrations",
            "programs, services and files outside of the suites' folder that steps of suites use",
            "the password of the database, which devenv makes",
        ]
        .map(str::to_owned)
        .to_vec();
        gaps.push(NO_IMAGES.into());
        match (self.database, self.beside) {
            (None, None) => {
                gaps.push("the database engine and its version: nobody said them".into());
            }
            (_, Some(beside)) => gaps.push(format!(
                "what {} takes from variables, from its `.env` and from other files, but for the image's name",
                files::key(&self.topology.project().root, beside.file)
            )),
            (Some(_), None) => {}
        }
        if self.target == "kind" {
            gaps.push(
                "which controller served the Ingresses, ingress-nginx or devenv's, and the version of Kubernetes"
                    .into(),
            );
        }
        for image in self.topology.images().values() {
            if !image.ignore.is_empty() {
                gaps.push(format!(
                    "what `image.{}.ignore` leaves out: {}",
                    image.name,
                    image.ignore.join(", ")
                ));
            }
        }
        if let Some(reason) = &tracked.unknown {
            gaps.push(format!(
                "files that git tracks although a .gitignore names them: git could not be asked ({reason})"
            ));
        }
        gaps
    }
}

/// The input that says what the database is.
pub(crate) const DATABASE: &str = "database";
/// What level `source` leaves open.
const NO_IMAGES: &str =
    "container images: processes of this tree ran, not the images that are deployed";

/// What a run without a profile is called.
pub const NO_PROFILE: &str = "default";

/// Where an image's inputs lie.
fn context(image: &ImageSource) -> BTreeSet<PathBuf> {
    let mut places: BTreeSet<PathBuf> = image.watch.iter().cloned().collect();
    places.insert(image.source.clone());
    if let Some(python) = &image.python {
        places.extend(python.files.iter().cloned());
        places.extend(python.requirements.iter().cloned());
    }
    places
}

/// The hash of all that is said, or was inferred, about how an image is built and run.
fn settings(root: &Path, image: &ImageSource) -> String {
    let path = |p: &Path| files::key(root, p);
    let text = |c: Option<&Command>| c.map(Command::argv);
    let settings = json!({
        "source": path(&image.source),
        "workdir": path(&image.workdir),
        "image_workdir": image.image_workdir.as_deref().map(path),
        "watch": image.watch.iter().map(|w| path(w)).collect::<Vec<_>>(),
        "ignore": image.ignore,
        "install": text(image.install.as_ref()),
        "build": text(image.build.as_ref()),
        "run": text(Some(&image.run)),
        "entrypoint": image.entrypoint,
        "env": image.env,
        "python": image.python.as_ref().map(|p| json!({
            "kind": format!("{:?}", p.kind),
            "dir": path(&p.dir),
            "requirements": p.requirements.iter().map(|r| path(r)).collect::<Vec<_>>(),
            "packages": p.packages,
            "project": p.project,
            "version": p.version,
        })),
    });
    json_hash(&canonical(&settings))
}

/// A Service of the cluster and one of Cloud Run may have the same name.
fn object_key(object: &Object) -> String {
    let kind = if object.is_cloud_run() {
        "Service.serving.knative.dev"
    } else {
        object.kind()
    };
    match object.namespace() {
        Some(namespace) => format!("{kind}/{namespace}/{}", object.name()),
        None => format!("{kind}/{}", object.name()),
    }
}

fn is_secret(object: &Object) -> bool {
    object.kind() == "Secret"
}

/// JSON without a choice: keys sorted, no spaces.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let by_key: BTreeMap<&String, &Value> = map.iter().collect();
                by_key
                    .into_iter()
                    .map(|(k, v)| (k.clone(), sorted(v)))
                    .collect()
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

fn json_hash(canonical: &str) -> String {
    format!("json sha256:{}", hex::encode(Sha256::digest(canonical)))
}

/// Where a link leads, if that is a folder.
fn linked_folder(path: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(path).ok()?;
    path.is_dir().then_some(target)
}

/// What is covered, as it was at one moment. It knows the secrets' hashes, and is never
/// written: that is for [`Coverage`].
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    pub(crate) inputs: Inputs,
    pub(crate) secrets: BTreeMap<String, [u8; 32]>,
    pub(crate) origins: BTreeMap<String, String>,
    not_covered: Vec<String>,
    pub(crate) project: String,
    pub(crate) target: String,
    pub(crate) profile: Option<String>,
    pub(crate) level: Level,
    /// The images that workloads use, and the database's where that is a container.
    images: BTreeSet<String>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secrets' hashes.
        f.debug_struct("Tree")
            .field("hash", &self.hash())
            .field("target", &self.target)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Tree {
    fn put(&mut self, group: Group, key: String, value: String) {
        self.inputs.entry(group).or_default().insert(key, value);
    }

    /// The same at level `image`: with the digest of each image that workloads use, and of
    /// the database's where that is a container. For a look that was taken before anybody
    /// could know them.
    ///
    /// # Errors
    /// When a digest is missing.
    pub fn of_images(mut self, digests: &dyn ImageDigests) -> Result<Self, CoverageError> {
        let known = self.images.iter().map(|image| {
            let image = image.clone();
            match digests.digest(&image) {
                Ok(Some(digest)) => Ok((image, digest)),
                Ok(None) => Err(CoverageError::Undigested { image }),
                Err(reason) => Err(CoverageError::Digest { image, reason }),
            }
        });
        let known = known.collect::<Result<BTreeMap<_, _>, _>>()?;
        self.inputs.insert(Group::Digest, known);
        self.level = Level::Image;
        self.not_covered.retain(|gap| gap != NO_IMAGES);
        Ok(self)
    }

    /// The images whose digests count at level `image`, as manifests and the Compose file
    /// write them.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(String::as_str)
    }

    /// The hash of all that is covered but secrets, in hexadecimal.
    pub fn hash(&self) -> String {
        tree_hash(&self.inputs)
    }

    /// How many inputs are covered.
    pub fn len(&self) -> usize {
        self.inputs.values().map(BTreeMap::len).sum::<usize>() + self.secrets.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is not covered, in words.
    pub fn not_covered(&self) -> &[String] {
        &self.not_covered
    }

    /// What differs from an earlier look at the same project.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let mut changes = differences(&earlier.inputs, &self.inputs, |_| false);
        let keys: BTreeSet<&String> = earlier.secrets.keys().chain(self.secrets.keys()).collect();
        for key in keys {
            let how = match (earlier.secrets.get(key), self.secrets.get(key)) {
                (Some(was), Some(is)) if was == is => continue,
                (Some(_), Some(_)) => How::Changed,
                (None, _) => How::Added,
                (_, None) => How::Removed,
            };
            changes.push(Change {
                group: Group::Secret,
                input: key.clone(),
                how,
                detail: None,
                origin: None,
            });
        }
        changes.sort_by(|a, b| (a.group, &a.input).cmp(&(b.group, &b.input)));
        self.place(&mut changes, &earlier.origins);
        changes
    }

    /// Says where the changed inputs are written: here, or else where they were.
    pub(crate) fn place(&self, changes: &mut [Change], before: &BTreeMap<String, String>) {
        for change in changes {
            if matches!(change.group, Group::Manifest | Group::Secret | Group::Image) {
                let origin = self.origins.get(&change.input);
                change.origin = origin.or_else(|| before.get(&change.input)).cloned();
            }
        }
    }

    /// The same for a verdict: secrets hashed with a salt of this verdict alone.
    pub(crate) fn covered(&self, seal: Seal) -> Result<Coverage, SealError> {
        let mut inputs = self.inputs.clone();
        let mut sealed = BTreeMap::new();
        for (key, material) in &self.secrets {
            sealed.insert(key.clone(), seal.hash(key, material)?);
        }
        if !sealed.is_empty() {
            inputs.insert(Group::Secret, sealed);
        }
        Ok(Coverage {
            tree: self.hash(),
            seal,
            inputs,
            origins: self.origins.clone(),
            not_covered: self.not_covered.clone(),
        })
    }
}
