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
    let block = format!("[image.{section}]\nsource = \"services/{name}\"\nrun = [\"PROGRAM\"]");
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
