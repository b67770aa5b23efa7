//! Images: each must have a source, because the process runtime never pulls.

use std::collections::BTreeMap;

use super::World;
use crate::image;
use crate::names::{closest, listed};
use crate::node::{At, shortened};
use crate::problem::Draft;

pub(super) fn check(world: &World<'_>, out: &mut Vec<Draft>) {
    let mapped = &world.located.config.image;
    let mut missing: BTreeMap<&str, Vec<(At<'_>, String)>> = BTreeMap::new();
    let mut used: Vec<&str> = Vec::new();
    for object in world.objects {
        let Some(spec) = object.pod_spec() else {
            continue;
        };
        for list in ["initContainers", "containers"] {
            for container in spec.items_at(list) {
                let Some(at) = container.get("image") else {
                    continue;
                };
                let Some(image) = at.node.as_str().filter(|i| !i.is_empty()) else {
                    continue;
                };
                let keys = image::keys(image);
                match keys.into_iter().find(|key| mapped.contains_key(*key)) {
                    Some(key) => used.push(key),
                    None => missing.entry(image).or_default().push((at, object.title())),
                }
            }
        }
    }
    for (image, places) in missing {
        out.push(unmapped(world, image, &places));
    }
    for name in mapped.keys() {
        // A profile may leave out what the sections below it are for.
        let meant = !world.located.overlaid;
        if meant && !used.contains(&name.as_str()) {
            out.push(
                Draft::warning(
                    "image::unused",
                    world.located.span(&["image", name]),
                    format!("no workload uses the image {}", shortened(name)),
                )
                .help("remove the section, or correct its name"),
            );
        }
    }
}

/// A port that the Dockerfile exposes and no container of the image has: one of the two is
/// mistaken, unless the port can be chosen.
pub(super) fn ports(world: &World<'_>, out: &mut Vec<Draft>) {
    for (name, exposed) in world.exposed {
        // Cloud Run tells its containers the port.
        let objects = world.objects.iter();
        let of_cluster = objects.filter(|o| !o.is("serving.knative.dev/v1", "Service"));
        let containers: Vec<At<'_>> = of_cluster
            .flat_map(|o| o.containers_of(world.located, name))
            .collect();
        let chosen = containers.iter().any(|c| {
            let vars = c.items_at("env");
            vars.iter().any(|v| v.str_at("name") == Some("PORT"))
        });
        let ports: Vec<(i64, At<'_>)> = containers
            .iter()
            .flat_map(|c| c.items_at("ports"))
            .filter_map(|p| p.get("containerPort"))
            .filter_map(|p| Some((p.node.as_i64()?, p)))
            .collect();
        let has = |port: u16| ports.iter().any(|(p, _)| *p == i64::from(port));
        // One that fits is enough: others may be for people, or for a debugger.
        if chosen || ports.is_empty() || exposed.iter().any(|e| has(e.value)) {
            continue;
        }
        let Some(first) = exposed.first() else {
            continue;
        };
        let (number, port) = &ports[0];
        out.push(
            Draft::warning(
                "image::port",
                first.span,
                format!(
                    "the image {} exposes the port {}, and none of its containers has it",
                    shortened(name),
                    first.value
                ),
            )
            .expected(format!("the containers' port, such as {number}"))
            .related(port.span(), "the container's port"),
        );
    }
}

fn unmapped(world: &World<'_>, image: &str, places: &[(At<'_>, String)]) -> Draft {
    let mapped = &world.located.config.image;
    let name = image::Reference::parse(image).base().to_owned();
    let known = mapped.keys().map(String::as_str);
    let section = if name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    {
        name.clone()
    } else {
        format!("\"{name}\"")
    };
    let block = format!("[image.{section}]\nsource = \"services/{name}\"");
    let database =
        ["mysql", "mariadb", "cloud-sql-proxy", "cloudsql-proxy"].contains(&name.as_str());
    let help = if database {
        "devenv runs the database itself: describe it in a section [cloudsql], and leave this workload out of `project.manifests`".to_owned()
    } else {
        match closest(&name, known.clone()) {
            Some(near) => format!("did you mean {near:?}? Otherwise add to devenv.toml:\n{block}"),
            None => format!("add to devenv.toml:\n{block}"),
        }
    };
    let (first, user) = &places[0];
    let mut draft = Draft::error(
        "image::unmapped",
        first.span(),
        format!(
            "{user} runs the image {}, and devenv.toml does not say from which source",
            shortened(image)
        ),
    )
    .help(help);
    draft = draft.expected(if mapped.is_empty() {
        "a section [image.NAME] in devenv.toml; there is none".to_owned()
    } else {
        format!("a section [image.NAME] for it, beside {}", listed(known))
    });
    for (place, user) in &places[1..] {
        if place.span() != first.span() {
            draft = draft.related(place.span(), format!("also run by {user}"));
        }
    }
    draft
}
