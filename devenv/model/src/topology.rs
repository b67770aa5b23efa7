//! The validated, immutable whole: what a project is, as every other part reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{CloudSqlEngine, Command, GateConfig, IngressConfig, Reload};
use crate::image;
use crate::kinds::{KINDS, Kind};
use crate::node::{Node, Path};
use crate::source::{Origin, Sources};

/// A project: its objects, how its images come from source, and what stands beside the
/// cluster. Made by [`Topology::load`](crate::Topology::load) and never changed.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(crate) project: Project,
    pub(crate) objects: Vec<Object>,
    pub(crate) images: BTreeMap<String, ImageSource>,
    pub(crate) cloud_sql: Option<CloudSql>,
    pub(crate) ingress: IngressConfig,
    pub(crate) nginx: Option<NginxSource>,
    pub(crate) gate: GateConfig,
    pub(crate) config_path: PathBuf,
    pub(crate) profile: Option<String>,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) sources: Arc<Sources>,
}

/// What the project is called and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// An RFC 1123 label; the folder's name made legal if `devenv.toml` gives none.
    pub name: String,
    /// Absolute path of the folder that holds `devenv.toml`, symbolic links resolved.
    pub root: PathBuf,
    /// The namespace of objects that name none.
    pub namespace: String,
}

/// `[kind.nginx]`: the manifest that ingress-nginx is installed by in a kind cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxSource {
    /// Where it is.
    pub manifest: NginxManifest,
    /// The SHA-256 of its text, in lower-case hexadecimal digits; always there with a URL.
    pub sha256: Option<String>,
    /// The section in `devenv.toml`.
    pub origin: Origin,
}

/// Where a manifest of ingress-nginx is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NginxManifest {
    /// A file of the project, by its absolute path.
    File(PathBuf),
    /// An https URL.
    Url(String),
}

/// A Kubernetes object of the topology.
#[derive(Clone)]
pub struct Object {
    pub(crate) value: Value,
    pub(crate) kind: &'static Kind,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) tree: Arc<Node>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: it may be a Secret.
        write!(f, "{self} at {}", self.origin)
    }
}

impl fmt::Display for Object {
    /// `Deployment so1-fase2/api1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.title();
        match &self.namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{}", self.name),
            None => write!(f, "{kind} {}", self.name),
        }
    }
}

impl Object {
    /// The object as JSON, with `metadata.namespace` filled in for namespaced kinds.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Such as `apps/v1`.
    pub fn api_version(&self) -> &'static str {
        self.kind.api_version
    }

    /// Such as `Deployment`.
    pub fn kind(&self) -> &'static str {
        self.kind.kind
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it goes into; nothing for cluster-scoped kinds.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Where the object begins in its source file.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The object as its Rust type.
    ///
    /// # Errors
    /// When `T` is not the type of this object's kind: the topology's objects have been
    /// read as their own types while loading.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.value)
    }

    /// A Cloud Run service (Knative).
    pub fn is_cloud_run(&self) -> bool {
        self.api_version() == "serving.knative.dev/v1"
    }

    /// Where the metadata and the spec of its pod template lie, for kinds that make pods
    /// from one.
    pub fn pod_template(&self) -> Option<(&'static [&'static str], &'static [&'static str])> {
        let template = self.kind.pod_metadata.zip(self.kind.pod_spec);
        template.filter(|(_, spec)| spec.len() > 1)
    }

    /// The images of the object's pods, those of init containers first; empty for kinds
    /// without pods.
    pub fn images(&self) -> Vec<&str> {
        let spec = self.kind.pod_spec.and_then(|path| {
            path.iter()
                .try_fold(&self.value, |value, key| value.get(*key))
        });
        ["initContainers", "containers"]
            .iter()
            .filter_map(|list| spec?.get(list)?.as_array())
            .flatten()
            .filter_map(|container| container.get("image")?.as_str())
            .collect()
    }
}

/// How an image is made and run from source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// The key in `devenv.toml`.
    pub name: String,
    /// Absolute path of the folder with the source.
    pub source: PathBuf,
    /// Absolute paths of the files and folders that `install` and `build` read: while
    /// none of them changes, neither is run again. `source` if `devenv.toml` gives none.
    pub watch: Vec<PathBuf>,
    /// Patterns in the form of `.gitignore`, relative to `source`: what matches is not
    /// watched and no input of `install` and `build`.
    pub ignore: Vec<String>,
    /// Fetches what the source depends on, before the build.
    pub install: Option<Command>,
    /// Builds it; nothing if there is nothing to build.
    pub build: Option<Command>,
    /// Runs it; relative programs are relative to `workdir`.
    pub run: Command,
    /// How many words of [`Command::argv`] of `run` are what Docker calls the ENTRYPOINT:
    /// a container's `args` replace those after them. All, unless the Dockerfile says
    /// otherwise.
    pub entrypoint: usize,
    /// Runs it under a debugger, instead of what is made of `run` for that.
    pub debug: Option<Command>,
    /// What a changed file leads to.
    pub reload: Reload,
    /// Absolute path of the folder where `install`, `build` and `run` run.
    pub workdir: PathBuf,
    /// The Dockerfile's WORKDIR, where `workdir` appears in the pod as well as at its own
    /// path. Absolute; nothing if there is none, or if something of the system or the
    /// project would be hidden by it.
    pub image_workdir: Option<PathBuf>,
    /// Environment of `run`, under what the manifest sets.
    pub env: BTreeMap<String, String>,
    /// The virtual environment that `build` and `run` find active.
    pub python: Option<PythonEnv>,
    /// How a container engine builds it; nothing without a Dockerfile.
    pub container: Option<ContainerBuild>,
    /// What `devenv.toml` does not say and was found out, for people to see.
    pub inferred: Vec<Inferred>,
    /// Where `devenv.toml` says so.
    pub origin: Origin,
}

/// What a container engine is asked to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerBuild {
    /// Absolute path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// Absolute path of the folder that it copies from.
    pub context: PathBuf,
    /// The stage that is wanted; the last if not given.
    pub target: Option<String>,
    /// Values of its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// What lies in the image as it lies here, so devenv.toml: what is saved of it is laid
    /// over the image that was built last instead of building it anew. Empty: each save is
    /// built.
    pub sync: Vec<SyncPath>,
    /// `sync` names what `build` makes: it runs here first.
    pub sync_builds: bool,
}

impl ContainerBuild {
    /// The files that say what is left out of the context, the one that counts first.
    pub fn ignore_files(&self) -> [PathBuf; 2] {
        let own = format!("{}.dockerignore", self.dockerfile.display());
        [own.into(), self.context.join(".dockerignore")]
    }

    /// Whether this file says how the image is built.
    pub fn decides(&self, file: &FsPath) -> bool {
        file == self.dockerfile || self.ignore_files().iter().any(|f| f == file)
    }
}

/// A file or folder of this machine, and where it is in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPath {
    /// Absolute path here; of what a build makes it may be yet to come.
    pub from: PathBuf,
    /// Absolute path in the image: of a folder, where its contents are.
    pub to: String,
}

/// A Python virtual environment: what goes into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonEnv {
    /// The tool whose files these are.
    pub kind: PythonKind,
    /// Absolute path of the folder with those files: where the tool is run.
    pub dir: PathBuf,
    /// Absolute paths of the files that decide its contents: while none of them changes,
    /// it need not be made again.
    pub files: Vec<PathBuf>,
    /// Those of the files that are installed from, with [`PythonKind::Requirements`]; the
    /// others are included by them.
    pub requirements: Vec<PathBuf>,
    /// Requirement specifiers (PEP 508) to install as well, such as `flask>=3`.
    pub packages: Vec<String>,
    /// Whether the project in `dir` is a package, to be installed editable.
    pub project: bool,
    /// The version that production runs, such as `3.12`, if that is known.
    pub version: Option<String>,
}

/// Where a Python program's dependencies are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PythonKind {
    /// `requirements.txt`, in the form of pip. Several are installed together.
    Requirements,
    /// `pyproject.toml` and `uv.lock`.
    Uv,
    /// `pyproject.toml` and `poetry.lock`.
    Poetry,
    /// `Pipfile`, and `Pipfile.lock` if there is one.
    Pipenv,
    /// `pyproject.toml` (or `setup.py`) without a lock file.
    Pyproject,
}

/// A value that `devenv.toml` does not give, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// The key that would give it, such as `run` or `env.PORT`.
    pub key: String,
    /// The value as one would write it.
    pub value: String,
    /// What it was inferred from, such as `services/api1/Dockerfile:12 CMD`.
    pub why: String,
}

/// The Cloud SQL instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudSql {
    /// What production runs, such as `mysql:8.4`.
    pub version: String,
    /// What stands in for it here. `None` leaves that to what runs pods: an engine of this
    /// machine beside processes, a container beside containers.
    pub engine: Option<CloudSqlEngine>,
    /// Absolute path of the Compose file that describes the container: the one that is
    /// named, or `compose/compose.yaml` where that is there.
    pub compose: Option<PathBuf>,
    /// Schema to create.
    pub database: String,
    /// Account to create, with all rights on `database`.
    pub user: String,
    /// Name of the selectorless Service whose endpoints devenv fills in.
    pub service: String,
    /// The port of that Service through which devenv itself reaches the database: 3306
    /// if it has that one, else its first for TCP.
    pub port: u16,
    /// Name of the Secret that devenv makes, with `DB_USER` and `DB_PASSWORD`.
    pub secret: String,
    /// Addresses at which the programs find it as well, such as production's private IP
    /// where it is written into the source.
    pub also_at: Vec<Ipv4Addr>,
    /// Absolute path of the folder with migrations, if there are any.
    pub migrations: Option<PathBuf>,
    /// Where `devenv.toml` says so.
    pub origin: Origin,
}

impl CloudSql {
    /// What stands in for it beside pods that are containers, or processes. Never anything
    /// else, whatever happens to be installed.
    pub fn engine_beside(&self, containers: bool) -> CloudSqlEngine {
        self.engine.unwrap_or(if containers {
            CloudSqlEngine::Container
        } else {
            CloudSqlEngine::Local
        })
    }
}

/// Keys of the Secret that devenv makes for the database's account.
pub const CLOUD_SQL_SECRET_KEYS: [&str; 2] = ["DB_USER", "DB_PASSWORD"];

impl Topology {
    /// Name, folder and namespace.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// All objects in the order of applying: Namespaces, ConfigMaps and Secrets,
    /// Services, workloads, Cloud Run services, Ingresses; within a kind as written.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The objects of a kind.
    pub fn of_kind<'t>(
        &'t self,
        api_version: &'t str,
        kind: &'t str,
    ) -> impl Iterator<Item = &'t Object> {
        self.objects
            .iter()
            .filter(move |o| o.kind() == kind && o.api_version() == api_version)
    }

    /// The Cloud Run services.
    pub fn cloud_run(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|o| o.is_cloud_run())
    }

    /// The same with other objects in place of some: of each that `made` answers for, what it
    /// answers. They are said to be where that one is.
    pub fn with_made(mut self, made: impl Fn(&Object) -> Option<Vec<Value>>) -> Self {
        let objects = std::mem::take(&mut self.objects);
        for object in objects {
            let Some(values) = made(&object) else {
                self.objects.push(object);
                continue;
            };
            self.objects.extend(values.into_iter().filter_map(|value| {
                let is = |kind: &&Kind| {
                    value["apiVersion"] == kind.api_version && value["kind"] == kind.kind
                };
                let text = |key: &str| value["metadata"][key].as_str().map(str::to_owned);
                Some(Object {
                    kind: KINDS.iter().find(is)?,
                    name: text("name")?,
                    namespace: text("namespace"),
                    origin: object.origin.clone(),
                    tree: object.tree.clone(),
                    value,
                })
            }));
        }
        self.objects.sort_by_key(|object| object.kind.order);
        self
    }

    /// The same in another namespace than the project's own: what is in that one is in
    /// `namespace` then, and the object that makes that one makes `namespace`.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        let before = std::mem::replace(&mut self.project.namespace, namespace.to_owned());
        for object in &mut self.objects {
            if object.kind.kind == "Namespace" && object.name == before {
                namespace.clone_into(&mut object.name);
                object.value["metadata"]["name"] = namespace.into();
            }
            if object.namespace.as_ref() == Some(&before) {
                object.namespace = Some(namespace.to_owned());
                object.value["metadata"]["namespace"] = namespace.into();
            }
        }
        self
    }

    /// Images and their sources, by the key in `devenv.toml`.
    pub fn images(&self) -> &BTreeMap<String, ImageSource> {
        &self.images
    }

    /// The source of an image as a manifest writes it: looked up as a whole, then without
    /// tag and digest, then without registry, then by its last part.
    pub fn image_source(&self, image: &str) -> Option<&ImageSource> {
        image::keys(image)
            .iter()
            .find_map(|key| self.images.get(*key))
    }

    /// Every image that some workload uses, as written, with those workloads.
    pub fn workload_images(&self) -> BTreeMap<&str, Vec<&Object>> {
        let mut used: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        for object in &self.objects {
            for image in object.images() {
                let users = used.entry(image).or_default();
                if !users.iter().any(|u| std::ptr::eq(*u, object)) {
                    users.push(object);
                }
            }
        }
        used
    }

    /// The Cloud SQL instance, if the project has one.
    pub fn cloud_sql(&self) -> Option<&CloudSql> {
        self.cloud_sql.as_ref()
    }

    /// The host side of the Ingress.
    pub fn ingress(&self) -> &IngressConfig {
        &self.ingress
    }

    /// Where ingress-nginx comes from, unless it is the release that devenv knows.
    pub fn nginx(&self) -> Option<&NginxSource> {
        self.nginx.as_ref()
    }

    /// What a verdict must be like to count.
    pub fn gate(&self) -> &GateConfig {
        &self.gate
    }

    /// Absolute path of `devenv.toml`.
    pub fn config_path(&self) -> &FsPath {
        &self.config_path
    }

    /// The profile of `devenv.toml` that was laid over it.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Every path whose change may change what is loaded; see
    /// [`Loaded::inputs`](crate::Loaded::inputs).
    pub fn inputs(&self) -> &[PathBuf] {
        &self.inputs
    }

    /// Where a value of an object is written, such as
    /// `spec.rules[0].http.paths[0].backend.service.name` or
    /// `metadata.annotations["nginx.ingress.kubernetes.io/canary"]`. For values that
    /// kustomize changed this is the patch or the kustomization. Nothing if the object
    /// has no such value.
    pub fn position(&self, object: &Object, path: &str) -> Option<Origin> {
        let node = Path::parse(path)?.find(&object.tree)?;
        Some(self.sources.origin(node.span))
    }
}
