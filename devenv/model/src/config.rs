//! `devenv.toml`: what a manifest cannot say.

mod checks;
mod values;

use std::collections::BTreeMap;

use serde::Deserialize;

pub(crate) use checks::check_values;
pub use values::{CloudSqlEngine, Command, Reload};
pub(crate) use values::{Requirements, Step, Sync};

use crate::de::check;
use crate::names::{did_you_mean, one_of};
use crate::node::{Node, Path};
use crate::problem::Draft;
use crate::profile;
use crate::source::{Sources, Span};

/// The file as written, before defaults and checks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub project: Project,
    pub cloudsql: Option<RawCloudSql>,
    pub image: BTreeMap<String, RawImage>,
    pub cloudrun: CloudRun,
    pub ingress: IngressConfig,
    pub kind: RawKind,
    pub gate: GateConfig,
    #[serde(rename = "e2e")]
    _e2e: E2eConfig,
    #[serde(rename = "profile")]
    _profile: BTreeMap<String, Overlay>,
}

/// A profile: sections that are laid over those of the same name. It is read for its
/// mistakes; what counts is the tree that [`profile::select`] makes of both.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Overlay {
    #[serde(rename = "project")]
    _project: Project,
    #[serde(rename = "cloudsql")]
    _cloudsql: Option<RawCloudSql>,
    #[serde(rename = "image")]
    _image: BTreeMap<String, RawImage>,
    #[serde(rename = "cloudrun")]
    _cloudrun: CloudRun,
    #[serde(rename = "ingress")]
    _ingress: IngressConfig,
    #[serde(rename = "kind")]
    _kind: RawKind,
    #[serde(rename = "gate")]
    _gate: GateConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Project {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub manifests: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct RawCloudSql {
    pub version: String,
    pub engine: Option<CloudSqlEngine>,
    pub compose: Option<String>,
    pub database: String,
    pub user: String,
    pub service: String,
    pub secret: String,
    pub also_at: Vec<String>,
    pub migrations: Option<String>,
}

impl Default for RawCloudSql {
    fn default() -> Self {
        Self {
            version: "mysql:8.4".into(),
            engine: None,
            compose: None,
            database: "telemetry".into(),
            user: "telemetry".into(),
            service: "cloudsql".into(),
            secret: "cloudsql-credentials".into(),
            also_at: Vec::new(),
            migrations: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawImage {
    pub source: Option<String>,
    pub dockerfile: Option<String>,
    pub context: Option<String>,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    pub sync: Option<Sync>,
    pub watch: Vec<String>,
    pub ignore: Vec<String>,
    pub install: Option<Step>,
    pub python: Option<Requirements>,
    pub build: Option<Step>,
    pub run: Option<Command>,
    pub debug: Option<Command>,
    pub reload: Option<Reload>,
    pub workdir: Option<String>,
    pub image_workdir: Option<String>,
    pub env: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CloudRun {
    pub services: Vec<String>,
}

/// `[ingress]`: the host side of the Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressConfig {
    /// TCP port wished for on 127.0.0.1; the next free one is taken if it is in use.
    pub http_port: u16,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self { http_port: 8080 }
    }
}

/// `[kind]`: what a cluster of `--target kind` has that no manifest of the project says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawKind {
    pub nginx: Option<RawNginx>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawNginx {
    pub manifest: Option<String>,
    pub sha256: Option<String>,
}

/// `[gate]`: what a verdict must be like to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GateConfig {
    /// Public keys in the form `devenv-ed25519:BASE64`: only what one of them signed
    /// counts. Nothing: any valid signature does.
    pub trusted_keys: Option<Vec<String>>,
}

/// `[e2e]`: end-to-end suites. What a suite says is read by whoever runs it, from the same
/// file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct E2eConfig {
    #[serde(rename = "suite")]
    _suite: Vec<BTreeMap<String, serde_json::Value>>,
}

/// A configuration and the tree it came from, which knows where everything stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub config: Config,
    pub tree: Node,
    /// Whether a profile was laid over it.
    pub overlaid: bool,
}

impl Located {
    /// The position of a key's value; of the nearest enclosing section if it isn't written.
    pub(crate) fn span(&self, keys: &[&str]) -> Span {
        let mut node = &self.tree;
        let mut span = node.span;
        for key in keys {
            match node.entry(key) {
                Some(entry) => {
                    node = &entry.value;
                    span = match node.data {
                        // A section is best shown by its name.
                        crate::node::Data::Map(_) => entry.key_span,
                        _ => node.span,
                    };
                }
                None => break,
            }
        }
        span
    }

    /// The position of an element of a list.
    pub(crate) fn item_span(&self, keys: &[&str], index: usize) -> Span {
        self.tree
            .at(keys)
            .and_then(|list| list.items().get(index))
            .map_or_else(|| self.span(keys), |item| item.span)
    }
}

/// Reads the configuration out of the tree: unknown keys warn, wrong types are errors.
/// A profile's sections are laid over those of the same name.
pub(crate) fn read(
    tree: Node,
    profile: Option<&str>,
    sources: &Sources,
    problems: &mut Vec<Draft>,
) -> Located {
    let checked = check::<Config>(&tree);
    for m in &checked.mismatches {
        problems.push(m.draft("config::wrong-type", "devenv.toml", sources));
    }
    for u in &checked.unknown {
        let draft = Draft::warning(
            "config::unknown-key",
            u.span,
            format!("devenv.toml has no key `{}`; it is ignored", u.path),
        )
        .expected(one_of(u.known.iter().copied()));
        let help = did_you_mean(&u.key, u.known.iter().copied()).or_else(|| misplaced(&u.path));
        problems.push(draft.maybe_help(help));
    }
    let Some(profile) = profile else {
        return Located {
            config: checked.value.unwrap_or_default(),
            tree,
            overlaid: false,
        };
    };
    let tree = profile::select(tree, profile, problems);
    // What doesn't fit stands in one of the two, and has been reported from there.
    let config = check::<Config>(&tree).value.unwrap_or_default();
    Located {
        config,
        tree,
        overlaid: true,
    }
}

/// A key in the wrong section: where it belongs.
fn misplaced(path: &Path) -> Option<String> {
    use crate::node::Step::Key;
    let (profile, path) = match path.0.as_slice() {
        [Key(profile), Key(name), rest @ ..] if profile == "profile" && !rest.is_empty() => {
            (Some(name.as_str()), rest)
        }
        path => (None, path),
    };
    let (section, key) = match path {
        [Key(key)] => (None, key),
        [Key(section), .., Key(key)] => (Some(section.as_str()), key),
        _ => return None,
    };
    let belongs = match key.as_str() {
        "name" | "namespace" | "manifests" => "project",
        "version" | "engine" | "compose" | "database" | "user" | "service" | "secret"
        | "also_at" | "migrations" => "cloudsql",
        "services" => "cloudrun",
        "http_port" => "ingress",
        "nginx" => "kind",
        "sha256" => "kind.nginx",
        "trusted_keys" => "gate",
        "suite" | "suites" => {
            return Some("each suite is a section of its own: [[e2e.suite]]".into());
        }
        "source" | "dockerfile" | "context" | "target" | "args" | "sync" | "watch" | "ignore"
        | "install" | "python" | "build" | "run" | "debug" | "reload" | "workdir"
        | "image_workdir" | "env" => "image.NAME",
        "images" => return Some("each image has a section of its own: [image.NAME]".into()),
        "profiles" | "profile" => {
            return Some(
                "each profile has sections of its own, such as [profile.NAME.image.IMAGE]".into(),
            );
        }
        _ => return None,
    };
    let within = profile.map_or(String::new(), |name| format!("profile.{name}."));
    (section != Some(belongs))
        .then(|| format!("`{key}` belongs in the section [{within}{belongs}]"))
}
