//! What only the whole file shows: names that lead nowhere, circles, contradictions.

use std::collections::{BTreeMap, HashMap};

use devenv_model::tree::{Files, Span};

use super::at::At;
use crate::project::{MountKind, Project, Service};

/// Notes what doesn't fit together.
pub(super) fn check(files: &mut Files, project: &Project, top: &At<'_>) {
    let mut names: HashMap<String, &str> = HashMap::new();
    for service in project.services.values() {
        let at = Places { top, service };
        references(files, project, service, &at);
        contradictions(files, service, &at);
        let name = service.container(&project.name);
        if let Some(first) = names.insert(name.clone(), &service.name) {
            files.error(
                "compose::container-name",
                at.of("container_name"),
                format!(
                    "the services {first} and {} both name their container {name}",
                    service.name
                ),
            );
        }
    }
    circles(files, project, top);
}

/// Where the keys of a service stand.
struct Places<'t, 'n> {
    top: &'t At<'n>,
    service: &'t Service,
}

impl Places<'_, '_> {
    /// The key, or the service's where it isn't written.
    fn of(&self, key: &str) -> Span {
        let services = self.top.get("services");
        let service = services.and_then(|s| s.get(&self.service.name));
        let Some(service) = service else {
            return self.top.key;
        };
        let found = service.all().find(|(k, _)| *k == key);
        found.map_or(service.key, |(_, at)| at.key)
    }
}

fn references(files: &mut Files, project: &Project, service: &Service, at: &Places<'_, '_>) {
    let name = &service.name;
    let unknown = |files: &mut Files, key: &str, what: &str, word: &str, known: Vec<&str>| {
        let message = format!("service {name} names the {what} {word:?}, which is not there");
        files
            .error("compose::reference", at.of(key), message)
            .did_you_mean(word, known);
    };
    for network in service.networks.keys() {
        if !project.networks.contains_key(network) {
            let known = project.networks.keys().map(String::as_str).collect();
            unknown(files, "networks", "network", network, known);
        }
    }
    for mount in &service.mounts {
        let named = matches!(mount.kind, MountKind::Volume { .. }) && !mount.source.is_empty();
        if named && !project.volumes.contains_key(&mount.source) {
            let known = project.volumes.keys().map(String::as_str).collect();
            unknown(files, "volumes", "volume", &mount.source, known);
        }
    }
    for (other, dependency) in &service.depends_on {
        if project.services.contains_key(other) || !dependency.required {
            continue;
        }
        if project.disabled.contains(other) {
            files
                .error(
                    "compose::reference",
                    at.of("depends_on"),
                    format!("service {name} depends on {other}, which no enabled profile runs"),
                )
                .help(format!(
                    "enable a profile of {other}, or write `required: false`"
                ));
            continue;
        }
        let known = project.services.keys().map(String::as_str).collect();
        unknown(files, "depends_on", "service", other, known);
    }
}

fn contradictions(files: &mut Files, service: &Service, at: &Places<'_, '_>) {
    let limit = service.limits.as_ref().and_then(|l| l.memory);
    if let (Some(one), Some(other)) = (service.mem_limit, limit)
        && one != other
    {
        files.error(
            "compose::value",
            at.of("mem_limit"),
            "`mem_limit` and `deploy.resources.limits.memory` say different things",
        );
    }
}

/// Says the first circle of dependencies.
fn circles(files: &mut Files, project: &Project, top: &At<'_>) {
    // Take away what depends on nothing that is left, until only circles are.
    let mut left: BTreeMap<&str, Vec<&str>> = project
        .services
        .values()
        .map(|s| {
            let on = s.depends_on.keys().map(String::as_str);
            let on = on.filter(|d| project.services.contains_key(*d)).collect();
            (s.name.as_str(), on)
        })
        .collect();
    loop {
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, on)| on.iter().all(|d| !left.contains_key(d)))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    let Some((&start, _)) = left.first_key_value() else {
        return;
    };
    let mut way = vec![start];
    let circle = loop {
        let last = way[way.len() - 1];
        let next = left[last].iter().copied().find(|d| left.contains_key(d));
        let Some(next) = next else { return };
        if let Some(begin) = way.iter().position(|name| *name == next) {
            let mut circle = way.split_off(begin);
            circle.push(next);
            break circle;
        }
        way.push(next);
    };
    let at = Places {
        top,
        service: &project.services[circle[0]],
    };
    files.error(
        "compose::circle",
        at.of("depends_on"),
        format!(
            "the services depend on each other in a circle: {}",
            circle.join(" → ")
        ),
    );
}
