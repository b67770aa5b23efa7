//! The part of kustomize that this version understands; anything beyond is an error
//! that names the field, never a silent difference from `kubectl kustomize`.
//!
//! Transformers run in kustomize's own order: patches, namespace, labels, annotations,
//! replicas, images.

mod patch;
mod transform;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::de::check;
use crate::manifests;
use crate::names::{did_you_mean, one_of};
use crate::node::{Data, Node, shortened};
use crate::problem::Draft;
use crate::reading::{Reading, normal};
use crate::source::Span;
use crate::yaml::{self, Reader, Text};

/// The names that kubectl looks for, in its order.
const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// How many kustomize folders one load builds, each inclusion counted.
const MAX_BUILDS: usize = 500;

/// Fields that kustomize has and this version does not apply.
const UNSUPPORTED: &[&str] = &[
    "bases",
    "buildMetadata",
    "components",
    "configMapGenerator",
    "configurations",
    "crds",
    "generatorOptions",
    "generators",
    "helmCharts",
    "helmChartInflationGenerator",
    "helmGlobals",
    "namePrefix",
    "nameSuffix",
    "openapi",
    "patchesJson6902",
    "patchesStrategicMerge",
    "replacements",
    "secretGenerator",
    "transformers",
    "validators",
    "vars",
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    kind: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<serde_json::Value>,
    // The order of the output: the topology has an order of its own.
    #[serde(rename = "sortOptions")]
    _sort_options: Option<serde_json::Value>,
    resources: Vec<String>,
    namespace: Option<String>,
    images: Vec<ImageRule>,
    patches: Vec<PatchRule>,
    labels: Vec<LabelRule>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    replicas: Vec<ReplicaRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ImageRule {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PatchRule {
    path: Option<String>,
    patch: Option<String>,
    target: Option<Target>,
    options: Option<BTreeMap<String, bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Target {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    label_selector: Option<String>,
    annotation_selector: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LabelRule {
    pairs: BTreeMap<String, String>,
    include_selectors: bool,
    include_templates: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReplicaRule {
    name: String,
    count: i32,
}

/// The kustomization file of a folder, if it has one.
pub(crate) fn find(reading: &mut Reading, folder: &Path) -> Option<PathBuf> {
    FILE_NAMES
        .iter()
        .map(|name| reading.asked(&folder.join(name)))
        .find(|path| path.is_file())
}

/// Builds a kustomize folder. `chain` holds the folders that led here.
pub(crate) fn build(
    reading: &mut Reading,
    folder: &Path,
    wanted: Span,
    chain: &mut Vec<PathBuf>,
) -> Vec<Node> {
    let Some(path) = find(reading, folder) else {
        return Vec::new();
    };
    let real = folder.canonicalize().unwrap_or_else(|_| normal(folder));
    if chain.contains(&real) {
        let name = reading.name(folder);
        reading.problems.push(
            Draft::error(
                "kustomize::cycle",
                wanted,
                format!("{name} includes itself through its resources"),
            )
            .help("remove this resource"),
        );
        return Vec::new();
    }
    reading.builds += 1;
    if reading.builds > MAX_BUILDS {
        if reading.builds == MAX_BUILDS + 1 {
            reading.problems.push(
                Draft::error(
                    "kustomize::too-many",
                    wanted,
                    format!("more than {MAX_BUILDS} kustomize folders are included"),
                )
                .help("a folder that is included twice by folders that are included twice multiplies: include each once"),
            );
        }
        return Vec::new();
    }
    let Some(tree) = read(reading, &path, wanted) else {
        return Vec::new();
    };
    let kustomization = interpret(reading, &tree);
    chain.push(real);
    let mut objects = resources(reading, folder, &tree, &kustomization, chain);
    chain.pop();
    patch::apply_all(reading, folder, &tree, &kustomization.patches, &mut objects);
    transform::apply_all(reading, &tree, &kustomization, &mut objects);
    objects
}

fn read(reading: &mut Reading, path: &Path, wanted: Span) -> Option<Node> {
    let id = reading.file(path, wanted)?;
    let source = reading.sources.file(id).clone();
    let mut documents = yaml::parse(
        &Text::whole(id, source.text(), Reader::Kubernetes),
        &mut reading.problems,
    );
    if documents.len() > 1 {
        reading.problems.push(Draft::error(
            "kustomize::many-documents",
            documents[1].span,
            "a kustomization is one document; this is a second one",
        ));
        return None;
    }
    let tree = documents.pop()?;
    if let Data::Map(_) = tree.data {
        return Some(tree);
    }
    reading.problems.push(Draft::error(
        "kustomize::wrong-type",
        tree.span,
        format!("a kustomization is a mapping; this is {}", tree.described()),
    ));
    None
}

/// Types and fields: wrong types are errors, and so is every field that isn't applied.
fn interpret(reading: &mut Reading, tree: &Node) -> Kustomization {
    let checked = check::<Kustomization>(tree);
    for m in &checked.mismatches {
        let draft = m.draft(
            "kustomize::wrong-type",
            "the kustomization",
            &reading.sources,
        );
        reading.problems.push(draft);
    }
    for u in &checked.unknown {
        let known = u.known.iter().copied();
        let draft = if UNSUPPORTED.contains(&u.key.as_str()) && u.path.0.len() == 1 {
            let help = match u.key.as_str() {
                "bases" => "list these folders under `resources`",
                "patchesStrategicMerge" | "patchesJson6902" => {
                    "write them under `patches`, which kustomize recommends too"
                }
                _ => {
                    "write its result into a manifest, or render with `kubectl kustomize` and name the file in `project.manifests`; handling of this field comes later"
                }
            };
            Draft::error(
                "kustomize::unsupported-field",
                u.span,
                format!("devenv does not apply kustomize's `{}` yet", u.key),
            )
            .help(help)
        } else {
            Draft::error(
                "kustomize::unknown-field",
                u.span,
                format!("a kustomization has no field `{}` here", u.path),
            )
            .maybe_help(did_you_mean(
                &u.key,
                known.clone().chain(UNSUPPORTED.iter().copied()),
            ))
        };
        reading.problems.push(draft.expected(one_of(known)));
    }
    let kustomization = checked.value.unwrap_or_default();
    if let Some(kind) = &kustomization.kind
        && kind != "Kustomization"
    {
        let span = tree.get("kind").map_or(tree.span, |n| n.span);
        reading.problems.push(
            Draft::error(
                "kustomize::unsupported-field",
                span,
                format!("{} is no Kustomization", shortened(kind)),
            )
            .expected("kind: Kustomization")
            .help("components are not applied yet"),
        );
    }
    kustomization
}

fn resources(
    reading: &mut Reading,
    folder: &Path,
    tree: &Node,
    kustomization: &Kustomization,
    chain: &mut Vec<PathBuf>,
) -> Vec<Node> {
    let spans: Vec<Span> = tree
        .get("resources")
        .map(|list| list.items().iter().map(|i| i.span).collect())
        .unwrap_or_default();
    let mut objects = Vec::new();
    for (i, resource) in kustomization.resources.iter().enumerate() {
        let span = spans.get(i).copied().unwrap_or(tree.span);
        if resource.contains("://") || resource.starts_with("git@") || resource.contains("?ref=") {
            reading.problems.push(
                Draft::error(
                    "kustomize::remote-resource",
                    span,
                    format!(
                        "{} is fetched from the network, which devenv does not do",
                        shortened(resource)
                    ),
                )
                .help("keep a copy in the project and name that"),
            );
            continue;
        }
        let path = normal(&folder.join(resource));
        if path.is_dir() {
            if find(reading, &path).is_some() {
                objects.extend(build(reading, &path, span, chain));
            } else {
                let name = reading.name(&path);
                reading.problems.push(
                    Draft::error(
                        "kustomize::no-kustomization",
                        span,
                        format!("the folder {name} has no kustomization.yaml"),
                    )
                    .expected("a folder with a kustomization of its own, or a file")
                    .help("name its files one by one"),
                );
            }
        } else if inside(reading, folder, &path, span) {
            objects.extend(manifests::file(reading, &path, span, Reader::Kustomize));
        }
    }
    objects
}

/// kubectl refuses files (not folders) outside the kustomization's own folder.
fn inside(reading: &mut Reading, folder: &Path, path: &Path, span: Span) -> bool {
    if path.starts_with(normal(folder)) {
        return true;
    }
    let name = reading.name(path);
    reading.problems.push(
        Draft::error(
            "kustomize::outside-folder",
            span,
            format!(
                "{name} lies outside the kustomization's folder, and kubectl refuses such files"
            ),
        )
        .help("move the file here, or give its folder a kustomization.yaml and name the folder"),
    );
    false
}
