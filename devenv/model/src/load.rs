//! From a folder to a [`Topology`]: read all, default, validate all, freeze.

mod images;
mod nginx;

pub(crate) use images::Exposed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::{self, Located};
use crate::manifests;
use crate::names::NameRule;
use crate::node::{Data, Node};
use crate::problem::{Draft, Problem, finish};
use crate::reading::{Reading, normal};
use crate::source::Span;
use crate::toml_tree;
use crate::topology::{CloudSql, Object, Project, Topology};
use crate::validate::{self, Found};

/// What may differ from the project's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The configuration to read instead of `devenv.toml`, relative to the root.
    pub config: Option<PathBuf>,
    /// The default namespace instead of `project.namespace`.
    pub namespace: Option<String>,
    /// The profile whose sections (`[profile.NAME.…]`) are laid over the others:
    /// mappings key by key, except for an image's section with a `source` of its own,
    /// which takes the whole section's place. A name that no profile has is an error.
    pub profile: Option<String>,
}

/// What loading gave: a topology unless there are errors, and every problem found,
/// sorted by file and position.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project; nothing if any problem is an error.
    pub topology: Option<Topology>,
    /// Errors and warnings.
    pub problems: Vec<Problem>,
    /// Absolute paths of everything that was read, or would have been if it were there:
    /// a change of any of them may change what is loaded, or mend what is wrong. A folder
    /// stands for the names of what lies directly in it. Symbolic links are not resolved.
    /// Source code is not among them, even where something was inferred from it.
    pub inputs: Vec<PathBuf>,
}

/// A project that can't be run as it stands.
#[derive(Clone, Debug, Error)]
#[error("{}", summary(.problems))]
pub struct Invalid {
    /// Errors and warnings, sorted by file and position.
    pub problems: Vec<Problem>,
}

fn summary(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let noun = if errors == 1 { "error" } else { "errors" };
    format!("the project has {errors} {noun}")
}

impl Loaded {
    /// The topology and the warnings.
    ///
    /// # Errors
    /// All problems, if any of them is an error.
    pub fn into_result(self) -> Result<(Topology, Vec<Problem>), Invalid> {
        match self.topology {
            Some(topology) => Ok((topology, self.problems)),
            None => Err(Invalid {
                problems: self.problems,
            }),
        }
    }
}

impl Topology {
    /// Loads the project in `root`. Reads files, and changes nothing.
    pub fn load(root: &Path, options: &LoadOptions) -> Loaded {
        let root = root
            .canonicalize()
            .or_else(|_| std::path::absolute(root))
            .unwrap_or_else(|_| root.to_owned());
        let mut reading = Reading::new(root);
        let topology = load(&mut reading, options);
        let Reading {
            sources,
            problems,
            inputs,
            ..
        } = reading;
        let inputs: Vec<PathBuf> = inputs.into_iter().collect();
        let problems = finish(problems, &sources);
        let valid = !problems.iter().any(Problem::is_error);
        Loaded {
            topology: topology.filter(|_| valid).map(|mut t| {
                t.sources = Arc::new(sources);
                t.inputs.clone_from(&inputs);
                t
            }),
            problems,
            inputs,
        }
    }
}

fn load(reading: &mut Reading, options: &LoadOptions) -> Option<Topology> {
    let wanted = options
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from("devenv.toml"));
    let config_path = normal(&reading.root.join(wanted));
    let profile = options.profile.as_deref();
    let located = read_config(reading, &config_path, profile)?;
    config::check_values(&located, &mut reading.problems);
    let project = project(reading, &located, options);
    let nodes = read_manifests(reading, &located);
    let cloud_run = read_cloud_run(reading, &located);
    let found = validate::identify(reading, &project, nodes, cloud_run);
    let cloud_sql = cloud_sql(reading, &located, &project.project, &found);
    let nginx = nginx::load(reading, &located);
    let (images, exposed) = images::load(reading, &located, &found);
    validate::check(reading, &located, &project, &found, &exposed);
    let mut objects: Vec<Object> = found.into_iter().map(|f| freeze(reading, f)).collect();
    // Stable: within a rank the order is the one they were written in.
    objects.sort_by_key(|o| o.kind.order);
    Some(Topology {
        project: project.project,
        objects,
        images,
        cloud_sql,
        ingress: located.config.ingress.clone(),
        nginx,
        gate: located.config.gate.clone(),
        config_path,
        profile: options.profile.clone(),
        inputs: Vec::new(),
        sources: Arc::default(),
    })
}

fn read_config(reading: &mut Reading, path: &Path, profile: Option<&str>) -> Option<Located> {
    reading.asked(path);
    let name = reading.name(path);
    if !path.exists() {
        let id = reading.add(path, String::new());
        let help = if reading.root.is_dir() {
            "write one beside the manifests, for example:\n[project]\nmanifests = [\"kind/base\"]"
        } else {
            "this folder does not exist"
        };
        reading.problems.push(
            Draft::error(
                "config::missing",
                Span::new(id, 0..0),
                format!("{name} does not exist in {}", reading.root.display()),
            )
            .help(help),
        );
        return None;
    }
    // Problems of this file itself stand at its own beginning.
    let here = Span::new(reading.add(path, String::new()), 0..0);
    let id = reading.file(path, here)?;
    let source = reading.sources.file(id).clone();
    // After a syntax error half of the file may have been misunderstood.
    let tree = toml_tree::parse(id, source.text(), &mut reading.problems)?;
    Some(config::read(
        tree,
        profile,
        &reading.sources,
        &mut reading.problems,
    ))
}

/// The project, and where its namespace was said.
pub(crate) struct Named {
    pub project: Project,
    pub namespace_span: Span,
}

fn project(reading: &mut Reading, located: &Located, options: &LoadOptions) -> Named {
    let config = &located.config.project;
    let folder = reading
        .root
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let rule = NameRule::Label;
    let name = match &config.name {
        Some(name) => {
            if !rule.accepts(name) {
                reading.problems.push(
                    Draft::error(
                        "config::illegal-name",
                        located.span(&["project", "name"]),
                        format!("`project.name` is {name:?}"),
                    )
                    .expected(rule.text())
                    .maybe_help(rule.nearest(name).map(|n| format!("write \"{n}\""))),
                );
            }
            name.clone()
        }
        None => rule.nearest(&folder).unwrap_or_else(|| "project".into()),
    };
    let namespace_span = located.span(&["project", "namespace"]);
    let namespace = options
        .namespace
        .clone()
        .or_else(|| config.namespace.clone())
        .unwrap_or_else(|| rule.nearest(&name).unwrap_or_else(|| "default".into()));
    Named {
        project: Project {
            name,
            root: reading.root.clone(),
            namespace,
        },
        namespace_span,
    }
}

fn read_manifests(reading: &mut Reading, located: &Located) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (i, manifest) in located.config.project.manifests.iter().enumerate() {
        let span = located.item_span(&["project", "manifests"], i);
        if let Some(path) = within(reading, manifest, span) {
            nodes.extend(manifests::load(reading, &path, span));
        }
    }
    nodes
}

fn read_cloud_run(reading: &mut Reading, located: &Located) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (i, service) in located.config.cloudrun.services.iter().enumerate() {
        let span = located.item_span(&["cloudrun", "services"], i);
        let Some(path) = within(reading, service, span) else {
            continue;
        };
        for node in manifests::load(reading, &path, span) {
            let kind = node.str_at(&["kind"]).unwrap_or("");
            let version = node.str_at(&["apiVersion"]).unwrap_or("");
            if (version, kind) == ("serving.knative.dev/v1", "Service") {
                nodes.push(node);
                continue;
            }
            reading.problems.push(
                Draft::error(
                    "cloudrun::not-a-service",
                    node.get("apiVersion").map_or(node.span, |n| n.span),
                    format!("{version} {kind} is no Cloud Run service"),
                )
                .expected("apiVersion: serving.knative.dev/v1, kind: Service")
                .related(span, "listed as one at")
                .help("list the cluster's own manifests under `project.manifests`"),
            );
        }
    }
    nodes
}

/// A path of devenv.toml, made absolute. Only what lies in the project is part of it:
/// that is what is hashed, watched and bound into pods.
fn within(reading: &mut Reading, written: &str, span: Span) -> Option<PathBuf> {
    let path = normal(&reading.root.join(written));
    if !written.is_empty() && path.starts_with(&reading.root) {
        return Some(path);
    }
    let what = if written.is_empty() {
        "an empty path names nothing".to_owned()
    } else {
        format!("{written:?} lies outside the project")
    };
    reading.problems.push(
        Draft::error("config::outside-project", span, what)
            .expected("a path relative to the folder of devenv.toml, and inside it"),
    );
    None
}

/// A file or folder of the project that is there.
fn existing(reading: &mut Reading, written: &str, span: Span) -> Option<PathBuf> {
    let path = within(reading, written, span)?;
    match std::fs::metadata(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            reading.asked(&path);
            let draft = crate::reading::io_draft(&reading.name(&path), &path, span, &error);
            reading.problems.push(draft);
            None
        }
    }
}

/// As [`within`], and it must be a folder.
fn folder(reading: &mut Reading, written: &str, span: Span) -> Option<PathBuf> {
    let path = within(reading, written, span)?;
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => return Some(path),
        Ok(_) => reading.problems.push(
            Draft::error(
                "file::not-a-folder",
                span,
                format!("{written} is no folder"),
            )
            .expected("a folder"),
        ),
        Err(error) => {
            reading.asked(&path);
            let draft = crate::reading::io_draft(&reading.name(&path), &path, span, &error);
            reading.problems.push(draft);
        }
    }
    None
}

fn cloud_sql(
    reading: &mut Reading,
    located: &Located,
    project: &Project,
    found: &[Found],
) -> Option<CloudSql> {
    let raw = located.config.cloudsql.as_ref()?;
    let span = located.span(&["cloudsql", "migrations"]);
    let migrations = raw
        .migrations
        .as_ref()
        .and_then(|m| folder(reading, m, span));
    let compose = compose_file(reading, located, raw.compose.as_deref());
    let service = found.iter().find(|o| {
        o.is("v1", "Service")
            && o.name == raw.service
            && o.namespace.as_deref() == Some(&project.namespace)
    });
    Some(CloudSql {
        version: raw.version.clone(),
        engine: raw.engine,
        compose,
        database: raw.database.clone(),
        user: raw.user.clone(),
        service: raw.service.clone(),
        // A Service that is missing, or has no such port, is reported with the others.
        port: service
            .and_then(validate::cloud_sql_port)
            .unwrap_or(validate::MYSQL_PORT),
        secret: raw.secret.clone(),
        // What is no address has been reported.
        also_at: raw.also_at.iter().filter_map(|a| a.parse().ok()).collect(),
        migrations,
        origin: reading.sources.origin(located.span(&["cloudsql"])),
    })
}

/// Where a project describes what stands beside its cluster, unless it says otherwise.
const COMPOSE_FILE: &str = "compose/compose.yaml";

/// The Compose file that is named, or the one at the usual place.
fn compose_file(
    reading: &mut Reading,
    located: &Located,
    written: Option<&str>,
) -> Option<PathBuf> {
    let Some(written) = written else {
        let usual = reading.root.join(COMPOSE_FILE);
        return usual.is_file().then_some(usual);
    };
    let span = located.span(&["cloudsql", "compose"]);
    let path = existing(reading, written, span)?;
    if path.is_dir() {
        let what = format!("{written} is a folder");
        reading.problems.push(
            Draft::error("file::not-a-file", span, what)
                .expected(format!("a Compose file, such as {COMPOSE_FILE}")),
        );
        return None;
    }
    Some(path)
}

fn freeze(reading: &Reading, found: Found) -> Object {
    let mut value = found.node.to_json();
    if let Some(namespace) = &found.namespace
        && let Some(metadata) = value.get_mut("metadata").and_then(|m| m.as_object_mut())
    {
        metadata.insert("namespace".into(), namespace.clone().into());
    }
    debug_assert!(matches!(found.node.data, Data::Map(_)));
    Object {
        value,
        kind: found.kind,
        name: found.name,
        namespace: found.namespace,
        origin: reading.sources.origin(found.node.span),
        tree: Arc::new(found.node),
    }
}
