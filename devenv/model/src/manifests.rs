//! Manifest files and folders into objects, each still a tree with positions.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kustomize;
use crate::node::{Data, Node};
use crate::problem::Draft;
use crate::reading::{Reading, io_draft};
use crate::source::Span;
use crate::yaml::{self, Reader, Text};

/// Loads what `path` names: a file, a kustomize folder, or a folder of manifests.
/// `wanted` is where it was named.
pub(crate) fn load(reading: &mut Reading, path: &Path, wanted: Span) -> Vec<Node> {
    match fs::metadata(path) {
        Err(error) => {
            reading.asked(path);
            let draft = io_draft(&reading.name(path), path, wanted, &error);
            reading.problems.push(draft);
            Vec::new()
        }
        Ok(meta) if meta.is_dir() => match kustomize::find(reading, path) {
            Some(_) => kustomize::build(reading, path, wanted, &mut Vec::new()),
            None => folder(reading, path, wanted),
        },
        Ok(_) => file(reading, path, wanted, Reader::Kubernetes),
    }
}

/// All objects of a file: documents, and the items of `List` kinds.
pub(crate) fn file(reading: &mut Reading, path: &Path, wanted: Span, reader: Reader) -> Vec<Node> {
    let Some(id) = reading.file(path, wanted) else {
        return Vec::new();
    };
    let source = reading.sources.file(id).clone();
    let documents = yaml::parse(
        &Text::whole(id, source.text(), reader),
        &mut reading.problems,
    );
    let mut objects = Vec::new();
    for document in documents {
        expand(reading, document, &mut objects);
    }
    objects
}

fn folder(reading: &mut Reading, path: &Path, wanted: Span) -> Vec<Node> {
    reading.asked(path);
    let mut files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) => {
            let draft = io_draft(&reading.name(path), path, wanted, &error);
            reading.problems.push(draft);
            return Vec::new();
        }
    };
    files.retain(|f| {
        let hidden = f
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let extension = f.extension().and_then(|e| e.to_str());
        !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && f.is_file()
    });
    files.sort();
    if files.is_empty() {
        let name = reading.name(path);
        reading.problems.push(
            Draft::error(
                "manifest::empty-folder",
                wanted,
                format!("{name} holds no manifests"),
            )
            .expected("*.yaml, *.yml or *.json files, or a kustomization.yaml")
            .help("folders inside it are not searched: name them one by one, or add a kustomization.yaml"),
        );
    }
    files
        .iter()
        .flat_map(|f| file(reading, f, wanted, Reader::Kubernetes))
        .collect()
}

/// kubectl accepts `kind: List` (and `ConfigMapList` …) as the objects in `items`.
fn expand(reading: &mut Reading, document: Node, objects: &mut Vec<Node>) {
    let Data::Map(_) = document.data else {
        reading.problems.push(
            Draft::error(
                "manifest::not-an-object",
                document.span,
                format!(
                    "a Kubernetes object is wanted here; this is {}",
                    document.described()
                ),
            )
            .expected("a mapping with apiVersion, kind and metadata"),
        );
        return;
    };
    let is_list = document
        .str_at(&["kind"])
        .is_some_and(|kind| kind.ends_with("List"));
    match document.get("items") {
        Some(Node {
            data: Data::Seq(items),
            ..
        }) if is_list => {
            for item in items.clone() {
                expand(reading, item, objects);
            }
        }
        _ => objects.push(document),
    }
}
