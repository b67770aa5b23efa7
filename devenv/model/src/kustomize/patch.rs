//! Kustomize's `patches`: which objects a patch is for, and applying it.

mod json6902;
mod strategic;

use std::path::Path;

use regex::Regex;

use super::{PatchRule, Target, inside};
use crate::kinds;
use crate::node::{Data, Node, shortened};
use crate::problem::Draft;
use crate::reading::{Reading, normal};
use crate::source::Span;
use crate::yaml::{self, Reader, Text};

pub(super) fn apply_all(
    reading: &mut Reading,
    folder: &Path,
    tree: &Node,
    rules: &[PatchRule],
    objects: &mut Vec<Node>,
) {
    for (i, rule) in rules.iter().enumerate() {
        let node = tree.get("patches").and_then(|l| l.items().get(i));
        let Some(node) = node else { continue };
        if rule
            .options
            .as_ref()
            .is_some_and(|o| o.values().any(|v| *v))
        {
            let span = node.get("options").map_or(node.span, |n| n.span);
            reading.problems.push(
                Draft::error(
                    "kustomize::unsupported-field",
                    span,
                    "devenv does not let a patch change names or kinds",
                )
                .help("write the name into the resource itself"),
            );
            continue;
        }
        for patch in documents(reading, folder, node, rule) {
            one(reading, node, rule, &patch, objects);
        }
    }
}

/// The patch's text: a file beside the kustomization, or inline.
fn documents(reading: &mut Reading, folder: &Path, node: &Node, rule: &PatchRule) -> Vec<Node> {
    match (&rule.path, &rule.patch) {
        (Some(path), None) => {
            let span = node.get("path").map_or(node.span, |n| n.span);
            let path = normal(&folder.join(path));
            if !inside(reading, folder, &path, span) {
                return Vec::new();
            }
            let Some(id) = reading.file(&path, span) else {
                return Vec::new();
            };
            let source = reading.sources.file(id).clone();
            parse(reading, |reader| Text::whole(id, source.text(), reader))
        }
        (None, Some(text)) => {
            let span = node.get("patch").map_or(node.span, |n| n.span);
            let source = reading.sources.file(span.file).clone();
            parse(reading, |reader| {
                Text::embedded(&source, span, text, reader)
            })
        }
        _ => {
            reading.problems.push(
                Draft::error(
                    "kustomize::patch",
                    node.span,
                    "a patch needs either `path` or `patch`",
                )
                .expected("`path: FILE`, or `patch: |-` with the patch below it"),
            );
            Vec::new()
        }
    }
}

/// kustomize reads strategic merges as it reads resources, and JSON 6902 as Kubernetes does.
fn parse<'t>(reading: &mut Reading, text: impl Fn(Reader) -> Text<'t>) -> Vec<Node> {
    let patches = yaml::parse(&text(Reader::Kustomize), &mut reading.problems);
    if patches.iter().any(|p| matches!(p.data, Data::Seq(_))) {
        // What is wrong with the text has been said by the first reading.
        return yaml::parse(&text(Reader::Kubernetes), &mut Vec::new());
    }
    patches
}

fn one(
    reading: &mut Reading,
    rule_node: &Node,
    rule: &PatchRule,
    patch: &Node,
    objects: &mut Vec<Node>,
) {
    let is_json = matches!(patch.data, Data::Seq(_));
    if !is_json && !matches!(patch.data, Data::Map(_)) {
        reading.problems.push(
            Draft::error(
                "kustomize::patch",
                patch.span,
                format!("a patch can't be {}", patch.described()),
            )
            .expected("a part of an object (strategic merge), or a list of operations (JSON 6902)"),
        );
        return;
    }
    let chosen: Vec<usize> = match &rule.target {
        Some(target) => {
            let node = rule_node.get("target").unwrap_or(rule_node);
            let Some(selector) = Selector::new(reading, target, node) else {
                return;
            };
            let chosen = pick(objects, |o| selector.matches(o));
            if chosen.is_empty() {
                reading.problems.push(
                    Draft::warning(
                        "kustomize::no-target",
                        node.span,
                        "the patch's target matches no resource, so the patch does nothing",
                    )
                    .maybe_help(nearest(target.name.as_deref(), objects)),
                );
            }
            chosen
        }
        None if is_json => {
            reading.problems.push(
                Draft::error(
                    "kustomize::patch",
                    rule_node.span,
                    "a JSON 6902 patch names no object itself, and has no target here",
                )
                .help("target:\n  kind: Deployment\n  name: NAME"),
            );
            return;
        }
        None => {
            let chosen = pick(objects, |o| same_object(patch, o));
            if chosen.len() != 1 {
                let name = patch.str_at(&["metadata", "name"]);
                let kind = patch.str_at(&["kind"]).unwrap_or("object");
                let what = format!(
                    "the patch for {kind} {} matches {} resources",
                    shortened(name.unwrap_or("")),
                    chosen.len()
                );
                reading.problems.push(
                    Draft::error("kustomize::no-target", patch.span, what)
                        .expected("apiVersion, kind, name and namespace of one resource")
                        .maybe_help(nearest(name, objects)),
                );
                return;
            }
            chosen
        }
    };
    let mut deleted = Vec::new();
    for index in chosen {
        let outcome = if is_json {
            json6902::apply(patch, &mut objects[index])
        } else {
            strategic::apply(patch, &mut objects[index]).map(|outcome| {
                if outcome == strategic::Outcome::Deleted {
                    deleted.push(index);
                }
            })
        };
        if let Err(draft) = outcome {
            reading.problems.push(*draft);
            return;
        }
    }
    for index in deleted.into_iter().rev() {
        objects.remove(index);
    }
}

fn pick(objects: &[Node], matches: impl Fn(&Node) -> bool) -> Vec<usize> {
    (0..objects.len())
        .filter(|&i| matches(&objects[i]))
        .collect()
}

fn nearest(name: Option<&str>, objects: &[Node]) -> Option<String> {
    let names = objects
        .iter()
        .filter_map(|o| o.str_at(&["metadata", "name"]));
    crate::names::did_you_mean(name?, names)
}

/// Whether a strategic merge patch is for this object: same group, kind, name, and
/// namespace where the patch gives one.
fn same_object(patch: &Node, object: &Node) -> bool {
    let field = |node: &Node, path: &[&str]| node.str_at(path).unwrap_or("").to_owned();
    let namespace = field(patch, &["metadata", "namespace"]);
    let group = |node: &Node| kinds::group(&field(node, &["apiVersion"])).to_owned();
    group(patch) == group(object)
        && field(patch, &["kind"]) == field(object, &["kind"])
        && field(patch, &["metadata", "name"]) == field(object, &["metadata", "name"])
        && (namespace.is_empty() || namespace == field(object, &["metadata", "namespace"]))
}

/// `target`: names are regular expressions that must match the whole.
struct Selector<'t> {
    target: &'t Target,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
}

impl<'t> Selector<'t> {
    fn new(reading: &mut Reading, target: &'t Target, node: &Node) -> Option<Self> {
        let span_of = |key: &str| node.get(key).map_or(node.span, |n| n.span);
        let mut ok = true;
        let mut regex = |reading: &mut Reading, key: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            match Regex::new(&format!("^(?:{text})$")) {
                Ok(regex) => Some(regex),
                Err(_) => {
                    ok = false;
                    reading.problems.push(Draft::error(
                        "kustomize::patch",
                        span_of(key),
                        format!("{} is no regular expression", shortened(text)),
                    ));
                    None
                }
            }
        };
        let kind = regex(reading, "kind", &target.kind);
        let name = regex(reading, "name", &target.name);
        let namespace = regex(reading, "namespace", &target.namespace);
        let mut requirements = |reading: &mut Reading, key: &str, text: &Option<String>| match text
        {
            None => Vec::new(),
            Some(text) => requirements(text).unwrap_or_else(|| {
                ok = false;
                reading
                    .problems
                    .push(unreadable_selector(span_of(key), text));
                Vec::new()
            }),
        };
        let labels = requirements(reading, "labelSelector", &target.label_selector);
        let annotations = requirements(reading, "annotationSelector", &target.annotation_selector);
        ok.then_some(Self {
            target,
            kind,
            name,
            namespace,
            labels,
            annotations,
        })
    }

    fn matches(&self, object: &Node) -> bool {
        let api_version = object.str_at(&["apiVersion"]).unwrap_or("");
        let version = api_version.rsplit('/').next().unwrap_or("");
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let like = |wanted: &Option<Regex>, path: &[&str]| {
            wanted
                .as_ref()
                .is_none_or(|r| r.is_match(object.str_at(path).unwrap_or("")))
        };
        fits(&self.target.group, kinds::group(api_version))
            && fits(&self.target.version, version)
            && like(&self.kind, &["kind"])
            && like(&self.name, &["metadata", "name"])
            && like(&self.namespace, &["metadata", "namespace"])
            && self
                .labels
                .iter()
                .all(|r| r.holds(object, &["metadata", "labels"]))
            && self
                .annotations
                .iter()
                .all(|r| r.holds(object, &["metadata", "annotations"]))
    }
}

fn unreadable_selector(span: Span, text: &str) -> Draft {
    Draft::error(
        "kustomize::patch",
        span,
        format!("devenv can't read the selector {}", shortened(text)),
    )
    .expected("key=value, key!=value, key or !key, separated by commas")
}

/// One condition of a label selector.
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Missing(String),
}

impl Requirement {
    fn holds(&self, object: &Node, path: &[&str]) -> bool {
        let value = |key: &str| {
            object
                .at(path)
                .and_then(|m| m.get(key))
                .and_then(Node::as_str)
        };
        match self {
            Requirement::Equals(k, v) => value(k) == Some(v),
            Requirement::Differs(k, v) => value(k) != Some(v),
            Requirement::Exists(k) => value(k).is_some(),
            Requirement::Missing(k) => value(k).is_none(),
        }
    }
}

fn requirements(text: &str) -> Option<Vec<Requirement>> {
    text.split(',')
        .map(str::trim)
        .map(|part| {
            let pair = |sep: &str| {
                part.split_once(sep)
                    .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
            };
            // Set-based requirements (`in (…)`) hold blanks, which no key does.
            let word = |s: &str| !s.is_empty() && !s.contains([' ', '(', ')', '=', '!']);
            if let Some((k, v)) = pair("!=") {
                (word(&k)).then_some(Requirement::Differs(k, v))
            } else if let Some((k, v)) = pair("==").or_else(|| pair("=")) {
                (word(&k)).then_some(Requirement::Equals(k, v))
            } else if let Some(k) = part.strip_prefix('!') {
                word(k).then(|| Requirement::Missing(k.to_owned()))
            } else {
                word(part).then(|| Requirement::Exists(part.to_owned()))
            }
        })
        .collect()
}
