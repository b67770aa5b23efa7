//! The images of `devenv.toml`: what is written, and what is inferred about the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{existing, folder, within};
use crate::config::{Located, RawImage, Reload, Requirements, Step, Sync};
use crate::dockerfile::Said;
use crate::infer::{self, Guess, Known};
use crate::problem::Draft;
use crate::reading::Reading;
use crate::topology::{ContainerBuild, ImageSource, SyncPath};
use crate::validate::Found;

/// The TCP ports that Dockerfiles expose, by image.
pub(crate) type Exposed = BTreeMap<String, Vec<Said<u16>>>;

/// All images that have a source, and what their Dockerfiles expose.
pub(super) fn load(
    reading: &mut Reading,
    located: &Located,
    objects: &[Found],
) -> (BTreeMap<String, ImageSource>, Exposed) {
    let (mut images, mut exposed) = (BTreeMap::new(), BTreeMap::new());
    for (name, raw) in &located.config.image {
        let port = only_port(located, name, objects);
        if let Some((image, ports)) = load_one(reading, located, name, raw, port) {
            exposed.insert(name.clone(), ports);
            images.extend(image.map(|image| (name.clone(), image)));
        }
    }
    (images, exposed)
}

fn load_one(
    reading: &mut Reading,
    located: &Located,
    name: &str,
    raw: &RawImage,
    port: Option<u16>,
) -> Option<(Option<ImageSource>, Vec<Said<u16>>)> {
    let span = |key: &str| located.span(&["image", name, key]);
    let mut path = |key: &str, written: &Option<String>| {
        written.as_ref().and_then(|w| folder(reading, w, span(key)))
    };
    let source = path("source", &raw.source);
    let workdir = path("workdir", &raw.workdir);
    let context = path("context", &raw.context);
    let mut paths = |key: &str, written: &[String]| -> Vec<PathBuf> {
        let found = written.iter().enumerate().filter_map(|(i, w)| {
            let span = located.item_span(&["image", name, key], i);
            existing(reading, w, span)
        });
        found.collect()
    };
    let mut watch = paths("watch", &raw.watch);
    let python = match &raw.python {
        Some(Requirements::Files(files)) => paths("python", files),
        _ => Vec::new(),
    };
    let dockerfile = raw
        .dockerfile
        .as_ref()
        .and_then(|d| existing(reading, d, span("dockerfile")));
    let image_workdir = image_workdir(reading, located, name, raw);
    let sync = sync_paths(reading, located, name, raw);
    let source = source?;
    let known = Known {
        name,
        raw,
        source: &source,
        workdir: workdir.as_deref(),
        dockerfile: dockerfile.as_deref(),
        python: &python,
        span: span("source"),
        port,
    };
    let mut guess = infer::infer(reading, known);
    if raw.watch.is_empty() {
        watch.push(source.clone());
        watch.append(&mut guess.watch);
    }
    let exposed = std::mem::take(&mut guess.exposed);
    let given = |step: &Option<Step>| step.as_ref().and_then(Step::command).cloned();
    let build = given(&raw.build).or(guess.build.take());
    let Some(run) = raw.run.clone().or(guess.run.take()) else {
        no_run(reading, located, name, &guess);
        return Some((None, exposed));
    };
    let sync_builds = build.is_some() && sync.is_some();
    let mut env = guess.env;
    env.extend(raw.env.clone());
    let image = ImageSource {
        name: name.to_owned(),
        workdir: workdir.or(guess.workdir).unwrap_or_else(|| source.clone()),
        source,
        watch,
        ignore: raw.ignore.iter().cloned().chain(guess.ignore).collect(),
        install: given(&raw.install).or(guess.install),
        reload: raw.reload.unwrap_or(match build {
            Some(_) => Reload::Build,
            None => Reload::Restart,
        }),
        build,
        entrypoint: guess.entrypoint.unwrap_or_else(|| run.argv().len()),
        run,
        debug: raw.debug.clone(),
        image_workdir: image_workdir.or(guess.image_workdir),
        env,
        python: guess.python,
        container: guess.dockerfile.map(|(dockerfile, dir)| ContainerBuild {
            dockerfile,
            context: context.unwrap_or(dir),
            target: raw.target.clone(),
            args: raw.args.clone(),
            sync: sync.unwrap_or_default(),
            sync_builds,
        }),
        inferred: guess.inferred,
        origin: reading.sources.origin(located.span(&["image", name])),
    };
    Some((Some(image), exposed))
}

fn no_run(reading: &mut Reading, located: &Located, name: &str, guess: &Guess) {
    // A value of the wrong type has been reported already.
    if located.tree.at(&["image", name, "run"]).is_some() {
        return;
    }
    reading.problems.push(
        Draft::error(
            "config::missing-key",
            located.span(&["image", name]),
            format!(
                "`image.{name}` has no `run`, and none can be inferred: {}",
                guess.reasons.join("; ")
            ),
        )
        .help("run = [\"PROGRAM\", \"ARGUMENT\"]"),
    );
}

fn image_workdir(
    reading: &mut Reading,
    located: &Located,
    name: &str,
    raw: &RawImage,
) -> Option<PathBuf> {
    let written = raw.image_workdir.as_ref()?;
    let path = PathBuf::from(written);
    let reason = if !path.is_absolute() {
        "is no absolute path"
    } else if !infer::may_appear(&path, &reading.root) {
        "would hide what is there"
    } else {
        return Some(path);
    };
    reading.problems.push(
        Draft::error(
            "config::illegal-value",
            located.span(&["image", name, "image_workdir"]),
            format!("`image.{name}.image_workdir`: {written:?} {reason}"),
        )
        .expected("the Dockerfile's WORKDIR, a folder that is the program's own, such as \"/app\""),
    );
    None
}

/// What `sync` says; nothing if it is left out.
fn sync_paths(
    reading: &mut Reading,
    located: &Located,
    name: &str,
    raw: &RawImage,
) -> Option<Vec<SyncPath>> {
    let paths = match raw.sync.as_ref()? {
        Sync::None => return Some(Vec::new()),
        Sync::Paths(paths) => paths,
    };
    let mut found = Vec::new();
    for (from, to) in paths {
        let span = located.span(&["image", name, "sync", from]);
        if !to.starts_with('/') {
            reading.problems.push(
                Draft::error(
                    "config::illegal-value",
                    span,
                    format!("`image.{name}.sync`: {to:?} is no absolute path"),
                )
                .expected("where it is in the image, such as \"/app/src\""),
            );
        } else if let Some(from) = within(reading, from, span) {
            let name = from
                .file_name()
                .filter(|_| to.ends_with('/') && !from.is_dir());
            let to = match name.and_then(|name| name.to_str()) {
                // As COPY has it.
                Some(name) => format!("{to}{name}"),
                None => to.clone(),
            };
            let to = crate::dockerfile::clean(&to);
            found.push(SyncPath { from, to });
        }
    }
    Some(found)
}

/// The port of an image's containers, if all of them together have one only.
fn only_port(located: &Located, name: &str, objects: &[Found]) -> Option<u16> {
    let containers = objects.iter().flat_map(|o| o.containers_of(located, name));
    let ports: BTreeSet<u16> = containers
        .flat_map(|container| container.items_at("ports"))
        .filter_map(|port| port.get("containerPort")?.node.as_i64())
        .filter_map(|number| u16::try_from(number).ok())
        .collect();
    match ports.iter().collect::<Vec<_>>().as_slice() {
        [one] => Some(**one),
        _ => None,
    }
}
