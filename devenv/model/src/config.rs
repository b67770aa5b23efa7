//! `devenv.toml`: what a manifest cannot say.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::de::check;
use crate::names::{did_you_mean, one_of};
use crate::node::{Node, Path, shortened};
use crate::problem::Draft;
use crate::profile;
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

/// A command that an image may well do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `false`: none, and none is inferred.
    None,
    Command(Command),
}

impl Step {
    pub(crate) fn command(&self) -> Option<&Command> {
        match self {
            Step::None => None,
            Step::Command(command) => Some(command),
        }
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepVisitor;
        impl<'de> Visitor<'de> for StepVisitor {
            type Value = Step;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of program and arguments, a string for sh -c, or false for none",
                )
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Step, E> {
                if wanted {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(Step::None)
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Step, E> {
                Ok(Step::Command(Command::Shell(line.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Step, A::Error> {
                let mut argv = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    argv.push(arg);
                }
                Ok(Step::Command(Command::Argv(argv)))
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

/// What `python` in an image's section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requirements {
    /// No virtual environment.
    None,
    /// One made from these files, relative to the project.
    Files(Vec<String>),
}

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequirementsVisitor;
        impl<'de> Visitor<'de> for RequirementsVisitor {
            type Value = Requirements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a file such as \"requirements.txt\", a list of such files, or false for no virtual environment",
                )
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Requirements, E> {
                if wanted {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(Requirements::None)
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<Requirements, E> {
                Ok(Requirements::Files(vec![file.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Requirements, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = seq.next_element()? {
                    files.push(file);
                }
                Ok(Requirements::Files(files))
            }
        }
        deserializer.deserialize_any(RequirementsVisitor)
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

/// What a changed source file leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// New pods, without a build. The default where there is no build command.
    Restart,
    /// The build command, then new pods. The default where there is one.
    Build,
    /// Nothing: the program sees the changed file and reloads itself.
    Sync,
    /// Nothing, until `devenv` is told to.
    Manual,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reload::Restart => "restart",
            Reload::Build => "build",
            Reload::Sync => "sync",
            Reload::Manual => "manual",
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
    pub also_at: Vec<String>,
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
        "version" | "engine" | "database" | "user" | "service" | "secret" | "also_at"
        | "migrations" => "cloudsql",
        "services" => "cloudrun",
        "http_port" => "ingress",
        "source" | "dockerfile" | "watch" | "ignore" | "install" | "python" | "build" | "run"
        | "debug" | "reload" | "workdir" | "image_workdir" | "env" => "image.NAME",
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
    // A value of the wrong type has been reported already.
    if image.source.is_none() && located.tree.at(&["image", name, "source"]).is_none() {
        problems.push(
            Draft::error(
                "config::missing-key",
                located.span(&["image", name]),
                format!("`image.{name}` has no `source`"),
            )
            .help(format!("source = \"services/{name}\"")),
        );
    }
    for (key, command) in [
        ("install", image.install.as_ref().and_then(Step::command)),
        ("build", image.build.as_ref().and_then(Step::command)),
        ("run", image.run.as_ref()),
        ("debug", image.debug.as_ref()),
    ] {
        if command.is_some_and(Command::is_empty) {
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
    for (i, pattern) in image.ignore.iter().enumerate() {
        if let Err(error) = ignore::gitignore::GitignoreBuilder::new("").add_line(None, pattern) {
            problems.push(
                Draft::error(
                    "config::illegal-value",
                    located.item_span(&["image", name, "ignore"], i),
                    format!("`image.{name}.ignore[{i}]` is no pattern: {error}"),
                )
                .expected("a pattern as in .gitignore, such as \"*.log\" or \"/data/\""),
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
    for (i, written) in sql.also_at.iter().enumerate() {
        let refused = match written.parse::<Ipv4Addr>() {
            Ok(address) => match unreachable(address) {
                Some(why) => format!("{address} is {why}"),
                None => continue,
            },
            Err(_) => format!("{} is no IPv4 address", shortened(written)),
        };
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.item_span(&["cloudsql", "also_at"], i),
                format!("`cloudsql.also_at[{i}]`: {refused}"),
            )
            .expected("the address of the database as the programs have it, such as \"34.66.1.2\""),
        );
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

/// Why connections to an address can't be led to the database, if they can't: they never
/// leave the pod, or the cluster has its own use for it.
fn unreachable(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("no address to connect to"),
        [127, ..] => Some("the pod itself: connections to it never leave the pod"),
        [10, 244, ..] => Some("in the range of the pods (10.244.0.0/16)"),
        [10, 96, ..] => Some("in the range of the Services (10.96.0.0/16)"),
        [169, 254, ..] => Some("a link-local address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("reserved or the broadcast address"),
        _ => None,
    }
}
