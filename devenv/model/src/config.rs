//! `devenv.toml`: what a manifest cannot say.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::de::check;
use crate::names::{did_you_mean, one_of};
use crate::node::{Node, Path};
use crate::problem::Draft;
use crate::source::{Sources, Span};

/// A program to run: given to `execve` as it is, or to a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The program and its arguments; no shell in between.
    Argv(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

impl Command {
    /// What to execute.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Command::Argv(argv) => argv.clone(),
            Command::Shell(line) => vec!["sh".into(), "-c".into(), line.clone()],
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Command::Argv(argv) => argv.first().is_none_or(|program| program.is_empty()),
            Command::Shell(line) => line.trim().is_empty(),
        }
    }
}

impl fmt::Display for Command {
    /// For people: the line as one would type it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Shell(line) => f.write_str(line),
            Command::Argv(argv) => {
                for (i, arg) in argv.iter().enumerate() {
                    let gap = if i == 0 { "" } else { " " };
                    let plain = !arg.is_empty()
                        && arg
                            .chars()
                            .all(|c| c.is_alphanumeric() || "-_./=:,@%+".contains(c));
                    if plain {
                        write!(f, "{gap}{arg}")?;
                    } else {
                        write!(f, "{gap}'{}'", arg.replace('\'', "'\\''"))?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;
        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of program and arguments, or a string for sh -c")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Command, E> {
                Ok(Command::Shell(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Command, A::Error> {
                let mut argv = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    argv.push(arg);
                }
                Ok(Command::Argv(argv))
            }
        }
        deserializer.deserialize_any(CommandVisitor)
    }
}

/// What stands in for Cloud SQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudSqlEngine {
    /// A private mysqld or mariadbd of this machine.
    #[default]
    Local,
    /// The official image in a container.
    Container,
}

impl fmt::Display for CloudSqlEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloudSqlEngine::Local => "local",
            CloudSqlEngine::Container => "container",
        })
    }
}

/// The file as written, before defaults and checks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub project: Project,
    pub cloudsql: Option<RawCloudSql>,
    pub image: BTreeMap<String, RawImage>,
    pub cloudrun: CloudRun,
    pub ingress: IngressConfig,
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
    pub engine: CloudSqlEngine,
    pub database: String,
    pub user: String,
    pub service: String,
    pub secret: String,
    pub migrations: Option<String>,
}

impl Default for RawCloudSql {
    fn default() -> Self {
        Self {
            version: "mysql:8.4".into(),
            engine: CloudSqlEngine::Local,
            database: "telemetry".into(),
            user: "telemetry".into(),
            service: "cloudsql".into(),
            secret: "cloudsql-credentials".into(),
            migrations: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawImage {
    pub source: Option<String>,
    pub watch: Vec<String>,
    pub install: Option<Command>,
    pub build: Option<Command>,
    pub run: Option<Command>,
    pub workdir: Option<String>,
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

/// A configuration and the tree it came from, which knows where everything stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub config: Config,
    pub tree: Node,
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
pub(crate) fn read(tree: Node, sources: &Sources, problems: &mut Vec<Draft>) -> Located {
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
    Located {
        config: checked.value.unwrap_or_default(),
        tree,
    }
}

/// A key in the wrong section: where it belongs.
fn misplaced(path: &Path) -> Option<String> {
    let (section, key) = match path.0.as_slice() {
        [crate::node::Step::Key(key)] => (None, key),
        [
            crate::node::Step::Key(section),
            ..,
            crate::node::Step::Key(key),
        ] => (Some(section.as_str()), key),
        _ => return None,
    };
    let belongs = match key.as_str() {
        "name" | "namespace" | "manifests" => "project",
        "version" | "engine" | "database" | "user" | "service" | "secret" | "migrations" => {
            "cloudsql"
        }
        "services" => "cloudrun",
        "http_port" => "ingress",
        "source" | "watch" | "install" | "build" | "run" | "workdir" | "env" => "image.NAME",
        "images" => return Some("each image has a section of its own: [image.NAME]".into()),
        _ => return None,
    };
    (section != Some(belongs)).then(|| format!("`{key}` belongs in the section [{belongs}]"))
}

/// Checks what needs no file system and no manifests.
pub(crate) fn check_values(located: &Located, problems: &mut Vec<Draft>) {
    let config = &located.config;
    if config.project.manifests.is_empty() && located.tree.at(&["project", "manifests"]).is_none() {
        problems.push(
            Draft::error(
                "config::missing-key",
                located.span(&["project"]),
                "`project.manifests` is missing: devenv does not know what to run",
            )
            .expected("a list of manifest files, folders or kustomize folders")
            .help("manifests = [\"kind/base\"]"),
        );
    }
    if config.ingress.http_port == 0 {
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.span(&["ingress", "http_port"]),
                "`ingress.http_port` is 0",
            )
            .expected("a port from 1 to 65535"),
        );
    }
    for (name, image) in &config.image {
        check_image(located, name, image, problems);
    }
    if let Some(sql) = &config.cloudsql {
        check_cloud_sql(located, sql, problems);
    }
}

fn check_image(located: &Located, name: &str, image: &RawImage, problems: &mut Vec<Draft>) {
    let written = |key: &str| located.tree.at(&["image", name, key]).is_some();
    for (key, given, example) in [
        (
            "source",
            image.source.is_some(),
            "source = \"services/NAME\"",
        ),
        ("run", image.run.is_some(), "run = [\"target/debug/NAME\"]"),
    ] {
        // A value of the wrong type has been reported already.
        if !given && !written(key) {
            problems.push(
                Draft::error(
                    "config::missing-key",
                    located.span(&["image", name]),
                    format!("`image.{name}` has no `{key}`"),
                )
                .help(example.replace("NAME", name)),
            );
        }
    }
    for (key, command) in [
        ("install", &image.install),
        ("build", &image.build),
        ("run", &image.run),
    ] {
        if command.as_ref().is_some_and(Command::is_empty) {
            problems.push(
                Draft::error(
                    "config::illegal-value",
                    located.span(&["image", name, key]),
                    format!("`image.{name}.{key}` names no program"),
                )
                .expected("a list of program and arguments, or a string for sh -c"),
            );
        }
    }
    for key in image.env.keys() {
        let legal = !key.is_empty() && !key.contains(['=', '\0']);
        if !legal {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["image", name, "env", key]),
                    format!("`{key}` can't be the name of an environment variable"),
                )
                .expected("at least one character, and no \"=\""),
            );
        }
    }
}

fn check_cloud_sql(located: &Located, sql: &RawCloudSql, problems: &mut Vec<Draft>) {
    let version_ok = sql.version.strip_prefix("mysql:").is_some_and(|v| {
        let parts: Vec<&str> = v.split('.').collect();
        parts.len() <= 3
            && parts
                .iter()
                .all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
    });
    if !version_ok {
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.span(&["cloudsql", "version"]),
                format!("`cloudsql.version` is {:?}", sql.version),
            )
            .expected("the MySQL version that production runs, such as \"mysql:8.4\"")
            .help("PostgreSQL and SQL Server are not emulated yet"),
        );
    }
    // These become SQL identifiers and account names: MySQL's own limits, without the
    // characters that would need quoting.
    for (key, value, max) in [("database", &sql.database, 64), ("user", &sql.user, 32)] {
        let legal = !value.is_empty()
            && value.len() <= max
            && value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
        if !legal {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["cloudsql", key]),
                    format!("`cloudsql.{key}` is {value:?}"),
                )
                .expected(format!("1 to {max} letters, digits, \"_\", \"-\" or \"$\"")),
            );
        }
    }
    for (key, value, rule) in [
        ("service", &sql.service, crate::names::NameRule::Label1035),
        ("secret", &sql.secret, crate::names::NameRule::Subdomain),
    ] {
        if !rule.accepts(value) {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["cloudsql", key]),
                    format!("`cloudsql.{key}` is {value:?}, which Kubernetes rejects"),
                )
                .expected(rule.text())
                .maybe_help(rule.nearest(value).map(|n| format!("write \"{n}\""))),
            );
        }
    }
}
