//! What makes objects a system that can run: structure first, then how they refer to
//! each other. Every check notes its problem and goes on.

mod ignored;
mod images;
mod ingress;
mod names;
mod pods;
mod refs;
mod services;
mod shape;

use std::collections::HashMap;

use crate::config::Located;
use crate::image;
use crate::kinds::{self, Kind};
use crate::load::{Exposed, Named};
use crate::names::{did_you_mean, one_of};
use crate::node::{At, Node, shortened};
use crate::problem::Draft;
use crate::reading::Reading;

pub(crate) use services::{MYSQL_PORT, cloud_sql_port};

/// An object whose kind, name and namespace are known.
#[derive(Debug)]
pub(crate) struct Found {
    pub node: Node,
    pub kind: &'static Kind,
    pub name: String,
    pub namespace: Option<String>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version, self.kind)
    }
}

impl Found {
    pub(crate) fn root(&self) -> At<'_> {
        At::root(&self.node)
    }

    /// `Deployment api1`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind.title(), self.name)
    }

    pub(crate) fn is(&self, api_version: &str, kind: &str) -> bool {
        self.kind.api_version == api_version && self.kind.kind == kind
    }

    /// The spec of the object's pods.
    pub(crate) fn pod_spec(&self) -> Option<At<'_>> {
        self.root().at(self.kind.pod_spec?)
    }

    /// The containers of the object's pods that run the image of a section of `devenv.toml`.
    pub(crate) fn containers_of(&self, located: &Located, section: &str) -> Vec<At<'_>> {
        let mapped = &located.config.image;
        let Some(spec) = self.pod_spec() else {
            return Vec::new();
        };
        let mut containers = spec.items_at("containers");
        containers.retain(|container| {
            container.str_at("image").is_some_and(|image| {
                let mut keys = image::keys(image).into_iter();
                keys.find(|key| mapped.contains_key(*key)) == Some(section)
            })
        });
        containers
    }

    /// The labels of the object's pods.
    pub(crate) fn pod_labels(&self) -> Vec<(&str, &str)> {
        self.kind
            .pod_metadata
            .and_then(|path| self.node.at(path))
            .and_then(|metadata| metadata.get("labels"))
            .map(pairs)
            .unwrap_or_default()
    }
}

/// A mapping of strings as pairs; values of other types are left out.
pub(crate) fn pairs(node: &Node) -> Vec<(&str, &str)> {
    node.entries()
        .iter()
        .filter_map(|e| Some((e.key.as_str(), e.value.as_str()?)))
        .collect()
}

/// All objects, and the questions that checks ask of them.
pub(crate) struct World<'w> {
    pub objects: &'w [Found],
    pub located: &'w Located,
    pub exposed: &'w Exposed,
}

impl<'w> World<'w> {
    /// The objects of a kind in a namespace.
    pub(crate) fn of(
        &self,
        api_version: &'w str,
        kind: &'w str,
        namespace: Option<&'w str>,
    ) -> impl Iterator<Item = &'w Found> + use<'w> {
        self.objects.iter().filter(move |o| {
            o.is(api_version, kind) && (namespace.is_none() || o.namespace.as_deref() == namespace)
        })
    }

    pub(crate) fn named(
        &self,
        api_version: &'w str,
        kind: &'w str,
        namespace: Option<&'w str>,
        name: &str,
    ) -> Option<&'w Found> {
        self.of(api_version, kind, namespace)
            .find(|o| o.name == name)
    }

    /// Objects with pods in a namespace, Cloud Run services left out: no Service of the
    /// cluster selects those.
    pub(crate) fn workloads(
        &self,
        namespace: Option<&'w str>,
    ) -> impl Iterator<Item = &'w Found> + use<'w> {
        self.objects.iter().filter(move |o| {
            o.kind.pod_spec.is_some()
                && !o.is("serving.knative.dev/v1", "Service")
                && o.namespace.as_deref() == namespace
        })
    }
}

/// Finds out what each tree is. Trees that are no object, or of a kind that isn't run,
/// are reported and left out.
pub(crate) fn identify(
    reading: &mut Reading,
    project: &Named,
    nodes: Vec<Node>,
    cloud_run: Vec<Node>,
) -> Vec<Found> {
    let mut found = Vec::new();
    for node in nodes.into_iter().chain(cloud_run) {
        match identity(&node) {
            Ok((kind, name)) => {
                let namespace = kind.namespaced.then(|| {
                    node.str_at(&["metadata", "namespace"])
                        .filter(|n| !n.is_empty())
                        .unwrap_or(&project.project.namespace)
                        .to_owned()
                });
                found.push(Found {
                    kind,
                    name,
                    namespace,
                    node,
                });
            }
            Err(drafts) => reading.problems.extend(drafts),
        }
    }
    found
}

fn identity(node: &Node) -> Result<(&'static Kind, String), Vec<Draft>> {
    let mut drafts = Vec::new();
    let mut field = |path: &[&str], example: &str| match node.at(path) {
        Some(n) if n.as_str().is_some_and(|s| !s.is_empty()) => n.as_str(),
        Some(n) if !n.is_null() => {
            drafts.push(
                Draft::error(
                    "manifest::wrong-type",
                    n.span,
                    format!("`{}` is {}", path.join("."), n.described()),
                )
                .expected("a string that is not empty"),
            );
            None
        }
        _ => {
            let span = node.get(path[0]).map_or(node.span, |n| n.span);
            drafts.push(
                Draft::error(
                    "manifest::missing-field",
                    span,
                    format!("the object has no `{}`", path.join(".")),
                )
                .expected(example.to_owned()),
            );
            None
        }
    };
    let api_version = field(
        &["apiVersion"],
        "apiVersion: apps/v1, or the version of the kind",
    );
    let kind = field(&["kind"], "kind: Deployment, or another kind");
    let name = match node.str_at(&["metadata", "generateName"]) {
        Some(_) if node.at(&["metadata", "name"]).is_none() => {
            let span = node
                .at(&["metadata", "generateName"])
                .map_or(node.span, |n| n.span);
            drafts.push(
                Draft::error(
                    "manifest::missing-field",
                    span,
                    "an object that is applied needs a name of its own, not `generateName`",
                )
                .expected("metadata.name"),
            );
            None
        }
        _ => field(&["metadata", "name"], "metadata.name"),
    };
    let known = match (api_version, kind) {
        (Some(v), Some(k)) => match kinds::find(v, k) {
            Some(known) => Some(known),
            None => {
                drafts.push(unknown_kind(node, v, k));
                None
            }
        },
        _ => None,
    };
    match (known, name) {
        (Some(kind), Some(name)) if drafts.is_empty() => Ok((kind, name.to_owned())),
        _ => Err(drafts),
    }
}

fn unknown_kind(node: &Node, api_version: &str, kind: &str) -> Draft {
    let span = |key: &str| node.get(key).map_or(node.span, |n| n.span);
    let versions: Vec<&str> = kinds::named(kind).map(|k| k.api_version).collect();
    if !versions.is_empty() {
        return Draft::error(
            "manifest::unknown-version",
            span("apiVersion"),
            format!("{} is not served as {}", kind, shortened(api_version)),
        )
        .expected(versions.join(" or "))
        .help(format!("apiVersion: {}", versions[0]));
    }
    let mut names: Vec<&str> = kinds::KINDS.iter().map(|k| k.kind).collect();
    let mut seen = Vec::new();
    names.retain(|n| {
        !seen.contains(n) && {
            seen.push(n);
            true
        }
    });
    if kinds::NOT_EMULATED.contains(&kind) {
        return Draft::error(
            "manifest::kind-not-emulated",
            span("kind"),
            format!("{kind} ({api_version}) is not emulated yet"),
        )
        .expected(format!("one of {}", names.join(", ")))
        .help("keep it in a file or overlay that `project.manifests` does not name");
    }
    let all = names
        .iter()
        .copied()
        .chain(kinds::NOT_EMULATED.iter().copied());
    Draft::error(
        "manifest::unknown-kind",
        span("kind"),
        format!(
            "devenv does not know the kind {} ({api_version})",
            shortened(kind)
        ),
    )
    .expected(format!("one of {}", names.join(", ")))
    .help(did_you_mean(kind, all).unwrap_or_else(|| {
        "keep it in a file or overlay that `project.manifests` does not name".into()
    }))
}

/// All checks.
pub(crate) fn check(
    reading: &mut Reading,
    located: &Located,
    project: &Named,
    objects: &[Found],
    exposed: &Exposed,
) {
    let world = World {
        objects,
        located,
        exposed,
    };
    let mut out = Vec::new();
    for object in objects {
        shape::check(reading, object, &mut out);
        names::object(object, &mut out);
    }
    duplicates(objects, &mut out);
    names::namespaces(reading, &world, project, &mut out);
    for object in objects {
        pods::check(object, &mut out);
        refs::check(&world, object, &mut out);
        ignored::check(&project.project.root, object, &mut out);
    }
    services::check(&world, &mut out);
    ingress::check(&world, &mut out);
    images::check(&world, &mut out);
    images::ports(&world, &mut out);
    services::cloud_sql(&world, project, &mut out);
    if !complete(&reading.problems) {
        out.retain(|d| !ABSENCE.contains(&d.code));
    } else if out.iter().any(is_error) || reading.problems.iter().any(is_error) {
        out.retain(|d| d.code != "image::unused");
    }
    reading.problems.extend(out);
}

fn is_error(draft: &Draft) -> bool {
    draft.severity == crate::problem::Severity::Error
}

/// What is said when something isn't there.
const ABSENCE: &[&str] = &[
    "cloudsql::no-service",
    "image::unused",
    "ingress::canary-without-main",
    "ingress::missing-service",
    "manifest::missing-configmap",
    "manifest::missing-secret",
    "manifest::selects-nothing",
    "manifest::unknown-namespace",
];

/// Whether all objects could be read. What seems absent otherwise may stand in the part
/// that couldn't, and a message about it would mislead.
fn complete(problems: &[Draft]) -> bool {
    !problems.iter().any(|d| {
        is_error(d) && !d.code.starts_with("config::") && d.code != "manifest::kind-not-emulated"
    })
}

fn duplicates(objects: &[Found], out: &mut Vec<Draft>) {
    let mut first: HashMap<(&str, &str, Option<&str>, &str), &Found> = HashMap::new();
    for object in objects {
        let key = (
            kinds::group(object.kind.api_version),
            object.kind.kind,
            object.namespace.as_deref(),
            object.name.as_str(),
        );
        match first.get(&key) {
            None => {
                first.insert(key, object);
            }
            Some(earlier) => {
                let place = match &object.namespace {
                    Some(namespace) => format!(" in the namespace {namespace}"),
                    None => String::new(),
                };
                let name = |o: &Found| {
                    o.node
                        .at(&["metadata", "name"])
                        .map_or(o.node.span, |n| n.span)
                };
                let same = earlier.node.span == object.node.span;
                let help = if same {
                    "the same file is named twice: by `project.manifests`, or by two kustomizations"
                } else {
                    "rename or remove one of the two: the second would overwrite the first"
                };
                out.push(
                    Draft::error(
                        "manifest::duplicate-object",
                        name(object),
                        format!("{}{place} is given twice", object.title()),
                    )
                    .related(name(earlier), "first given at")
                    .help(help),
                );
            }
        }
    }
}

/// The names to choose from, or that there are none.
pub(crate) fn choices<'a>(what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        format!("a {what}; there is none")
    } else {
        one_of(names)
    }
}
