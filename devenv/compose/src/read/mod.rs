//! Reading a Compose file: every problem at once, each with its place.

mod at;
mod check;
mod dotenv;
mod interpolate;
mod keys;
mod service;
mod short;
pub(crate) mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use devenv_model::Problem;
use devenv_model::tree::{Data, Files, Node};

use self::at::{At, Reader};
use self::interpolate::{TemplateError, Variables};
use crate::project::{Network, Pool, Project, Volume};

/// What a file is read with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables of the environment; they win over those of `.env` beside the file.
    pub environment: BTreeMap<String, String>,
    /// Profiles to enable beside those of `COMPOSE_PROFILES`; `*` enables all.
    pub profiles: Vec<String>,
    /// The project's name in place of `COMPOSE_PROJECT_NAME` and the file's `name`.
    pub project_name: Option<String>,
    /// The folder that paths in messages are shown relative to.
    pub shown_from: Option<PathBuf>,
}

/// A project that was read, and what is probably a mistake in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Variables without a value, and the like.
    pub warnings: Vec<Problem>,
}

/// Why a file can't be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that devenv can't run.
    #[error("{}", said(.0))]
    Invalid(Vec<Problem>),
}

fn said(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Reads the Compose file at `path`, with the `.env` beside it.
///
/// # Errors
/// When the file can't be read, or with everything in it that is wrong.
pub fn load(path: &Path, options: &Options) -> Result<Loaded, LoadError> {
    let unreadable = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::path::absolute(path).map_err(unreadable)?;
    let text = std::fs::read_to_string(&file).map_err(unreadable)?;
    let working_dir = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut files = Files::default();
    let environment = with_dotenv(&mut files, &working_dir, options);
    let project = read(&mut files, &file, &text, environment, options);
    let failed = files.has_errors();
    let problems = files.problems();
    match project {
        Some(project) if !failed => Ok(Loaded {
            project,
            warnings: problems,
        }),
        _ => Err(LoadError::Invalid(problems)),
    }
}

/// The path as messages show it.
fn shown(path: &Path, options: &Options) -> String {
    let from = options.shown_from.as_deref();
    let short = from.and_then(|from| path.strip_prefix(from).ok());
    short.unwrap_or(path).display().to_string()
}

/// The environment, and below it the variables of `.env`.
fn with_dotenv(
    files: &mut Files,
    working_dir: &Path,
    options: &Options,
) -> BTreeMap<String, String> {
    let mut environment = options.environment.clone();
    let path = working_dir.join(".env");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return environment;
    };
    let lookup = |name: &str| options.environment.get(name).cloned();
    match dotenv::parse(&text, &lookup) {
        Ok(pairs) => {
            for (key, value) in pairs {
                environment.entry(key).or_insert(value);
            }
        }
        Err(broken) => {
            if let Some(file) = files.other(&shown(&path, options), &text) {
                let span = files.place(file, broken.at);
                files.error("compose::env-file", span, broken.message);
            }
        }
    }
    environment
}

fn read(
    files: &mut Files,
    file: &Path,
    text: &str,
    mut environment: BTreeMap<String, String>,
    options: &Options,
) -> Option<Project> {
    let working_dir = file.parent().unwrap_or(Path::new("/"));
    let mut tree = files.compose(&shown(file, options), text)?;
    let name = project_name(files, &mut tree, working_dir, &environment, options);
    environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    fill(files, &mut tree, &environment);

    let mut reader = Reader { files };
    let r = &mut reader;
    let top = At::root(&tree);
    if !r.keys(&top, &keys::TOP) {
        return None;
    }
    let around = service::Around {
        working_dir,
        environment: &environment,
        options,
    };
    let mut services = BTreeMap::new();
    match top.get("services") {
        Some(at) if r.mapping(&at) => {
            for (key, at) in at.all() {
                legal_key(r, key, &at, "a service");
                if r.mapping(&at) {
                    services.insert(key.to_owned(), service::read(r, key, &at, &around));
                }
            }
        }
        Some(_) => {}
        None => {
            r.error(&top, "there are no `services`");
        }
    }
    let mut project = Project {
        networks: networks(r, &top, &name),
        volumes: volumes(r, &top, &name),
        file: file.to_owned(),
        working_dir: working_dir.to_owned(),
        disabled: BTreeSet::new(),
        services,
        name,
    };
    implicit_network(&mut project);
    disable(&mut project, &environment, options);
    check::check(r.files, &project, &top);
    Some(project)
}

/// From the options, the environment, the file or the folder, in this order.
fn project_name(
    files: &mut Files,
    tree: &mut Node,
    working_dir: &Path,
    environment: &BTreeMap<String, String>,
    options: &Options,
) -> String {
    let given = options
        .project_name
        .clone()
        .or_else(|| environment.get("COMPOSE_PROJECT_NAME").cloned())
        .filter(|name| !name.is_empty());
    let span = tree.get("name").map_or(tree.span, |n| n.span);
    if let Data::Map(entries) = &mut tree.data
        && let Some(entry) = entries.iter_mut().find(|e| e.key == "name")
    {
        fill(files, &mut entry.value, environment);
    }
    let written = tree.get("name").and_then(Node::as_str).map(str::to_owned);
    let name = given.or(written).unwrap_or_else(|| {
        let folder = working_dir.file_name().unwrap_or_default();
        let plain: String = folder
            .to_string_lossy()
            .to_lowercase()
            .chars()
            .filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
            .collect();
        plain.trim_start_matches(['_', '-']).to_owned()
    });
    let legal = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'));
    if !legal {
        files
            .error(
                "compose::project-name",
                span,
                format!("the project's name is {name:?}"),
            )
            .expected("a-z, 0-9, \"-\" and \"_\", beginning with a letter or digit")
            .help("write `name: …` at the top of the file");
    }
    name
}

/// Fills in the variables of all values; what begins with `x-` is nobody's.
fn fill(files: &mut Files, node: &mut Node, environment: &BTreeMap<String, String>) {
    match &mut node.data {
        Data::String(text) if text.contains('$') => {
            let lookup = |name: &str| environment.get(name).cloned();
            let mut variables = Variables {
                lookup: &lookup,
                unset: Vec::new(),
            };
            match variables.fill(text) {
                Ok(filled) => *text = filled,
                Err(e @ TemplateError::Required { .. }) => {
                    files.error("compose::variable", node.span, e.to_string());
                }
                Err(e @ TemplateError::Invalid(_)) => {
                    files
                        .error("compose::variable", node.span, e.to_string())
                        .expected(
                            "$NAME, ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+value}",
                        )
                        .help("write $$ for a dollar");
                }
            }
            for name in variables.unset {
                files
                    .warning(
                        "compose::variable",
                        node.span,
                        format!("the variable {name} has no value and is read as nothing"),
                    )
                    .help(format!(
                        "set it, or say what to take: ${{{name}:-default}}; write $${name} for a dollar"
                    ));
            }
        }
        Data::Seq(items) => {
            for item in items {
                fill(files, item, environment);
            }
        }
        Data::Map(entries) => {
            for entry in entries.iter_mut().filter(|e| !e.key.starts_with("x-")) {
                fill(files, &mut entry.value, environment);
            }
        }
        _ => {}
    }
}

fn legal_key(r: &mut Reader<'_>, key: &str, at: &At<'_>, of: &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.is_empty() || !key.chars().all(legal) {
        r.files
            .error(
                "compose::value",
                at.key,
                format!("{key:?} can't be the name of {of}"),
            )
            .expected("letters, digits, \".\", \"_\" and \"-\"");
    }
}

/// What networks and volumes have in common.
fn resource(r: &mut Reader<'_>, at: &At<'_>, key: &str, project: &str) -> (String, bool) {
    let external = r.boolean_at(at, "external").unwrap_or(false);
    if external {
        for (key, inner) in at.all() {
            if !matches!(key, "name" | "external") && !key.starts_with("x-") {
                r.files.error(
                    "compose::value",
                    inner.key,
                    format!("`{}` means nothing beside `external: true`", inner.path),
                );
            }
        }
    }
    let name = r.text_at(at, "name").unwrap_or_else(|| match external {
        true => key.to_owned(),
        false => format!("{project}_{key}"),
    });
    (name, external)
}

fn networks(r: &mut Reader<'_>, top: &At<'_>, project: &str) -> BTreeMap<String, Network> {
    let mut out = BTreeMap::new();
    let Some(at) = top.get("networks").filter(|n| r.mapping(n)) else {
        return out;
    };
    for (key, at) in at.all() {
        legal_key(r, key, &at, "a network");
        if !at.node.is_null() {
            r.keys(&at, &keys::NETWORK);
        }
        let (name, external) = resource(r, &at, key, project);
        let network = Network {
            name,
            external,
            driver: r.text_at(&at, "driver"),
            driver_opts: r.labels_at(&at, "driver_opts"),
            internal: r.boolean_at(&at, "internal").unwrap_or(false),
            attachable: r.boolean_at(&at, "attachable").unwrap_or(false),
            enable_ipv6: r.boolean_at(&at, "enable_ipv6").unwrap_or(false),
            pools: pools(r, &at),
            labels: r.labels_at(&at, "labels"),
            origin: r.files.origin(at.key),
        };
        out.insert(key.to_owned(), network);
    }
    out
}

fn pools(r: &mut Reader<'_>, network: &At<'_>) -> Vec<Pool> {
    let Some(ipam) = network.get("ipam").filter(|i| r.keys(i, &keys::IPAM)) else {
        return Vec::new();
    };
    let Some(config) = ipam.get("config") else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for at in r.list(&config) {
        if r.keys(&at, &keys::POOL) {
            out.push(Pool {
                subnet: r.text_at(&at, "subnet"),
                gateway: r.text_at(&at, "gateway"),
                ip_range: r.text_at(&at, "ip_range"),
            });
        }
    }
    out
}

fn volumes(r: &mut Reader<'_>, top: &At<'_>, project: &str) -> BTreeMap<String, Volume> {
    let mut out = BTreeMap::new();
    let Some(at) = top.get("volumes").filter(|v| r.mapping(v)) else {
        return out;
    };
    for (key, at) in at.all() {
        legal_key(r, key, &at, "a volume");
        if !at.node.is_null() {
            r.keys(&at, &keys::VOLUME);
        }
        let (name, external) = resource(r, &at, key, project);
        let volume = Volume {
            name,
            external,
            driver: r.text_at(&at, "driver"),
            driver_opts: r.labels_at(&at, "driver_opts"),
            labels: r.labels_at(&at, "labels"),
            origin: r.files.origin(at.key),
        };
        out.insert(key.to_owned(), volume);
    }
    out
}

/// The network `default` is there when a service is on it.
fn implicit_network(project: &mut Project) {
    let Some(service) = project
        .services
        .values()
        .find(|s| s.networks.contains_key("default"))
    else {
        return;
    };
    let origin = service.origin.clone();
    project
        .networks
        .entry("default".into())
        .or_insert_with(|| Network {
            name: format!("{}_default", project.name),
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            internal: false,
            attachable: false,
            enable_ipv6: false,
            pools: Vec::new(),
            labels: BTreeMap::new(),
            origin,
        });
}

/// Takes out the services that no enabled profile asks for.
fn disable(project: &mut Project, environment: &BTreeMap<String, String>, options: &Options) {
    let from_environment = environment.get("COMPOSE_PROFILES");
    let enabled: BTreeSet<&str> = from_environment
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .chain(options.profiles.iter().map(String::as_str))
        .collect();
    let all = std::mem::take(&mut project.services);
    for (name, service) in all {
        let runs = service.profiles.is_empty()
            || enabled.contains("*")
            || service
                .profiles
                .iter()
                .any(|p| enabled.contains(p.as_str()));
        if runs {
            project.services.insert(name, service);
        } else {
            project.disabled.insert(name);
        }
    }
}

#[cfg(test)]
mod tests;
