//! Canaries: their upstream is appended to the alternatives of the *upstream*
//! that the matching location points to, not to the location.

use std::collections::HashSet;

use super::model::{Model, shown};

/// Merges every canary, oldest first, if there is any ordinary Ingress at all.
pub(super) fn merge_canaries(model: &mut Model<'_>) {
    let objects = model.objects;
    let canaries: Vec<usize> = (0..objects.len())
        .filter(|index| objects[*index].is_canary())
        .collect();
    if canaries.len() == objects.len() {
        for canary in canaries {
            model.warn(
                canary,
                "is a canary without any ordinary Ingress beside it: nothing is served; add the \
                 main Ingress"
                    .into(),
            );
        }
        return;
    }
    for canary in canaries {
        warn_of_borrowed_policy(model, canary);
        merge_default_backend(model, canary);
        merge_paths(model, canary);
    }
    warn_of_wider_effect(model);
}

/// `spec.defaultBackend` of a canary goes into every location of the host-less
/// server that has a real backend.
fn merge_default_backend(model: &mut Model<'_>, canary: usize) {
    let object = &model.objects[canary];
    let Some(backend) = object.default_backend() else {
        return;
    };
    let Some(alternative) = model.upstream(&object.key(backend)) else {
        return;
    };
    let (mut merged, mut same) = (false, false);
    for at in 0..model.servers[0].locations.len() {
        let primary = model.servers[0].locations[at].upstream;
        same = primary == Some(alternative);
        if same {
            break;
        }
        if let Some(primary) = mergeable(model, primary, alternative) {
            append(model, primary, alternative, canary);
            merged = true;
        }
    }
    if !same && !merged {
        delete(
            model,
            canary,
            alternative,
            "its default backend finds no ordinary backend without host to be the canary of",
        );
    }
}

fn merge_paths(model: &mut Model<'_>, canary: usize) {
    let object = &model.objects[canary];
    for path in object.paths() {
        let Some(server) = model.server(path.host) else {
            model.warn(
                canary,
                format!(
                    "no ordinary Ingress has host {}, written exactly like this: the canary has \
                     no effect there",
                    shown(path.host)
                ),
            );
            continue;
        };
        // Deleted by an earlier path: nothing left to merge.
        let Some(alternative) = model.upstream(&object.key(path.backend)) else {
            continue;
        };
        let (mut merged, mut same) = (false, false);
        for at in 0..model.servers[server].locations.len() {
            let location = &model.servers[server].locations[at];
            same = location.upstream == Some(alternative);
            if same {
                break;
            }
            if location.path == path.path
                && location.exact == path.exact
                && let Some(primary) = mergeable(model, location.upstream, alternative)
            {
                append(model, primary, alternative, canary);
                merged = true;
            }
        }
        if !same && !merged {
            let reason = format!(
                "no ordinary Ingress has path {} ({}) on host {}, written exactly like this",
                path.path,
                if path.exact { "Exact" } else { "Prefix" },
                shown(path.host)
            );
            delete(model, canary, alternative, &reason);
        }
    }
}

fn mergeable(model: &Model<'_>, primary: Option<usize>, alternative: usize) -> Option<usize> {
    primary.filter(|primary| {
        let draft = &model.upstreams[*primary];
        *primary != alternative && !draft.server_less && !draft.deleted
    })
}

fn append(model: &mut Model<'_>, primary: usize, alternative: usize, canary: usize) {
    let alternatives = &model.upstreams[primary].alternatives;
    if alternatives.contains(&alternative) {
        return;
    }
    if let Some(first) = alternatives.first().copied() {
        let service = &model.upstreams[primary].key.service;
        let message = format!(
            "is not the first canary of service {service}: only {} is ever considered, weights do \
             not add up",
            model.object_name(model.upstreams[first].creator)
        );
        model.warn(canary, message);
    }
    if model.upstreams[alternative].policy.is_none() {
        let draft = &model.upstreams[alternative];
        let message = format!(
            "never gets a request: its service {}:{} is already an ordinary backend of {}, whose \
             upstream has no canary policy; give the canary a service of its own",
            draft.key.service,
            draft.key.port,
            model.object_name(draft.creator)
        );
        model.warn(canary, message);
    }
    model.upstreams[primary].alternatives.push(alternative);
}

/// One stray path disables the canary's service for all its paths: that is
/// what ingress-nginx does, and it had better be known before production.
fn delete(model: &mut Model<'_>, canary: usize, alternative: usize, reason: &str) {
    let service = &model.upstreams[alternative].key.service;
    let message = format!(
        "{reason}: this disables the canary service {service} for all its paths, everything goes \
         to the main service"
    );
    model.warn(canary, message);
    model.upstreams[alternative].deleted = true;
}

/// Two canaries with one service port share the older one's policy.
fn warn_of_borrowed_policy(model: &mut Model<'_>, canary: usize) {
    let object = &model.objects[canary];
    for path in object.paths() {
        let Some(upstream) = model.upstream(&object.key(path.backend)) else {
            continue;
        };
        let draft = &model.upstreams[upstream];
        if draft.creator != canary && draft.policy.is_some() {
            let message = format!(
                "its canary-* annotations are not used: service {}:{} is already the canary of {}, \
                 whose annotations count",
                draft.key.service,
                draft.key.port,
                model.object_name(draft.creator)
            );
            model.warn(canary, message);
        }
    }
}

/// The alternative hangs on main's service port, so other paths of that
/// service are split as well, whether the canary names them or not.
fn warn_of_wider_effect(model: &mut Model<'_>) {
    let mut found = Vec::new();
    let named: HashSet<(&str, &str, bool)> = model
        .objects
        .iter()
        .filter(|object| object.is_canary())
        .flat_map(|object| object.paths())
        .map(|path| (path.host, path.path, path.exact))
        .collect();
    for primary in &model.upstreams {
        let Some(alternative) = primary.alternatives.first().copied() else {
            continue;
        };
        let draft = &model.upstreams[alternative];
        if draft.deleted || draft.policy.is_none() {
            continue;
        }
        for server in &model.servers {
            for location in &server.locations {
                let points_here = location
                    .upstream
                    .is_some_and(|id| model.upstreams[id].key == primary.key);
                let is_named =
                    named.contains(&(server.host.as_str(), location.path.as_str(), location.exact));
                let by_default_backend = server.host.is_empty()
                    && model.objects[draft.creator].default_backend().is_some();
                if points_here && !is_named && !by_default_backend {
                    found.push((
                        draft.creator,
                        format!(
                            "also takes its share of path {} on host {}: in ingress-nginx a canary \
                             splits the main service {}:{}, wherever that is used",
                            location.path,
                            shown(&server.host),
                            primary.key.service,
                            primary.key.port
                        ),
                    ));
                }
            }
        }
    }
    for (object, message) in found {
        model.warn(object, message);
    }
}
