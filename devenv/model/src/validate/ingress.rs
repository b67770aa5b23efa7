//! Ingresses: backends that exist, path types, canaries with something to be canary of.

use super::{Found, World, choices};
use crate::names::did_you_mean;
use crate::node::{At, shortened};
use crate::problem::Draft;

const CANARY: &str = "nginx.ingress.kubernetes.io/canary";

pub(super) fn check(world: &World<'_>, out: &mut Vec<Draft>) {
    for ingress in world.of("networking.k8s.io/v1", "Ingress", None) {
        let Some(spec) = ingress.root().get("spec") else {
            continue;
        };
        class(world, ingress, &spec, out);
        let rules = spec.items_at("rules");
        if rules.is_empty() && spec.get("defaultBackend").is_none() {
            out.push(
                Draft::error(
                    "manifest::missing-field",
                    spec.span(),
                    format!(
                        "{} has neither rules nor a default backend",
                        ingress.title()
                    ),
                )
                .expected("spec.rules, or spec.defaultBackend"),
            );
        }
        if let Some(default) = spec.get("defaultBackend") {
            backend(world, ingress, &default, out);
        }
        for path in paths(&rules) {
            if let Some(at) = path.get("backend") {
                backend(world, ingress, &at, out);
            }
            path_type(&path, out);
        }
        if is_canary(ingress) {
            main_of(world, ingress, &rules, out);
        }
    }
}

/// devenv's proxy stands in for ingress-nginx. An Ingress of a class that nobody here
/// serves would simply never answer.
fn class(world: &World<'_>, ingress: &Found, spec: &At<'_>, out: &mut Vec<Draft>) {
    let Some(at) = spec.get("ingressClassName") else {
        return;
    };
    let Some(name) = at.node.as_str().filter(|n| *n != "nginx") else {
        return;
    };
    let declared = || {
        world
            .of("networking.k8s.io/v1", "IngressClass", None)
            .map(|c| c.name.as_str())
    };
    if declared().any(|c| c == name) {
        return;
    }
    let known = || declared().chain(["nginx"]);
    out.push(
        Draft::warning(
            "ingress::unknown-class",
            at.span(),
            format!(
                "{} is of the class {}, and nothing here serves that class",
                ingress.title(),
                shortened(name)
            ),
        )
        .expected(choices("ingress class", known()))
        .help(did_you_mean(name, known()).unwrap_or_else(|| {
            "devenv's proxy serves the class nginx; an IngressClass object can name others".into()
        })),
    );
}

fn paths<'n>(rules: &[At<'n>]) -> Vec<At<'n>> {
    rules
        .iter()
        .filter_map(|r| r.get("http"))
        .flat_map(|http| http.items_at("paths"))
        .collect()
}

fn path_type(path: &At<'_>, out: &mut Vec<Draft>) {
    const TYPES: [&str; 3] = ["Exact", "Prefix", "ImplementationSpecific"];
    if let Some(at) = path.get("pathType")
        && let Some(kind) = at.node.as_str()
        && !TYPES.contains(&kind)
    {
        out.push(
            Draft::error(
                "manifest::illegal-value",
                at.span(),
                format!("`{}` is {}", at.path, shortened(kind)),
            )
            .expected("Exact, Prefix or ImplementationSpecific")
            .maybe_help(did_you_mean(kind, TYPES)),
        );
    }
    if let Some(at) = path.get("path")
        && let Some(text) = at.node.as_str()
        && !text.starts_with('/')
        && path.str_at("pathType") != Some("ImplementationSpecific")
    {
        out.push(
            Draft::error(
                "manifest::illegal-value",
                at.span(),
                format!("`{}` is {}", at.path, shortened(text)),
            )
            .expected("an absolute path")
            .help(format!("write /{text}")),
        );
    }
}

fn backend(world: &World<'_>, ingress: &Found, at: &At<'_>, out: &mut Vec<Draft>) {
    let namespace = ingress.namespace.as_deref();
    if let Some(resource) = at.get("resource") {
        out.push(Draft::error(
            "manifest::not-emulated",
            resource.span(),
            format!(
                "`{}`: backends other than Services are not emulated",
                resource.path
            ),
        ));
        return;
    }
    let Some(service_at) = at.get("service") else {
        out.push(
            Draft::error(
                "manifest::missing-field",
                at.span(),
                format!("`{}` is missing", at.path.key("service")),
            )
            .help("service:\n  name: NAME\n  port:\n    number: 80"),
        );
        return;
    };
    let Some(name_at) = service_at.get("name") else {
        out.push(Draft::error(
            "manifest::missing-field",
            service_at.span(),
            format!("`{}` is missing", service_at.path.key("name")),
        ));
        return;
    };
    let Some(name) = name_at.node.as_str() else {
        return;
    };
    let Some(service) = world.named("v1", "Service", namespace, name) else {
        let known = || {
            world
                .of("v1", "Service", namespace)
                .map(|s| s.name.as_str())
        };
        let elsewhere = world
            .of("v1", "Service", None)
            .find(|s| s.name == name)
            .and_then(|s| s.namespace.as_deref());
        let help = match elsewhere {
            Some(other) => Some(format!(
                "there is one in the namespace {other}, but an Ingress reaches only Services of its own"
            )),
            None => did_you_mean(name, known()),
        };
        out.push(
            Draft::error(
                "ingress::missing-service",
                name_at.span(),
                format!(
                    "{} sends to the Service {name:?}, which the manifests don't have",
                    ingress.title()
                ),
            )
            .expected(choices("Service in this namespace", known()))
            .maybe_help(help),
        );
        return;
    };
    port(ingress, service, &service_at, out);
}

fn port(ingress: &Found, service: &Found, at: &At<'_>, out: &mut Vec<Draft>) {
    let ports = service
        .root()
        .get("spec")
        .map(|s| s.items_at("ports"))
        .unwrap_or_default();
    let numbers: Vec<i64> = ports
        .iter()
        .filter_map(|p| p.node.get("port")?.as_i64())
        .collect();
    let names: Vec<&str> = ports.iter().filter_map(|p| p.str_at("name")).collect();
    let number = at.at(&["port", "number"]);
    let name = at.at(&["port", "name"]);
    let has: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let has = choices(
        "port in this Service",
        has.iter().map(String::as_str).chain(names.iter().copied()),
    );
    let missing = |at: &At<'_>, what: String| {
        Draft::error(
            "ingress::missing-port",
            at.span(),
            format!(
                "{} sends to {what} of {}, which has no such port",
                ingress.title(),
                service.title()
            ),
        )
        .expected(has.clone())
        .related(
            service
                .root()
                .at(&["spec", "ports"])
                .map_or(service.node.span, |p| p.span()),
            "the Service's ports",
        )
    };
    match (number, name) {
        (Some(at), None) => {
            if let Some(n) = at.node.as_i64()
                && !numbers.contains(&n)
            {
                let target = ports
                    .iter()
                    .find(|p| p.node.get("targetPort").and_then(|t| t.as_i64()) == Some(n));
                let help = target
                    .and_then(|p| p.node.get("port")?.as_i64())
                    .map(|p| format!("{n} is the container's port; the Service's is {p}"));
                out.push(missing(&at, format!("the port {n}")).maybe_help(help));
            }
        }
        (None, Some(at)) => {
            if let Some(n) = at.node.as_str()
                && !names.contains(&n)
            {
                out.push(
                    missing(&at, format!("the port {n:?}"))
                        .maybe_help(did_you_mean(n, names.iter().copied())),
                );
            }
        }
        _ => out.push(
            Draft::error(
                "manifest::missing-field",
                at.span(),
                format!(
                    "`{}` must give a number or a name, and only one of them",
                    at.path.key("port")
                ),
            )
            .expected(has),
        ),
    }
}

fn is_canary(ingress: &Found) -> bool {
    ingress.node.str_at(&["metadata", "annotations", CANARY]) == Some("true")
}

/// ingress-nginx ignores a canary without a main Ingress for the same host and path.
fn main_of(world: &World<'_>, canary: &Found, rules: &[At<'_>], out: &mut Vec<Draft>) {
    let routes = |rules: &[At<'_>]| -> Vec<(String, String)> {
        rules
            .iter()
            .flat_map(|rule| {
                let host = rule.str_at("host").unwrap_or("").to_owned();
                rule.get("http")
                    .map(|h| h.items_at("paths"))
                    .unwrap_or_default()
                    .into_iter()
                    .map(move |p| (host.clone(), p.str_at("path").unwrap_or("/").to_owned()))
            })
            .collect()
    };
    let mains: Vec<(String, String)> = world
        .of(
            "networking.k8s.io/v1",
            "Ingress",
            canary.namespace.as_deref(),
        )
        .filter(|i| !is_canary(i))
        .flat_map(|i| {
            let rules = i.root().get("spec").map(|s| s.items_at("rules"));
            routes(&rules.unwrap_or_default())
        })
        .collect();
    for route in routes(rules) {
        if mains.contains(&route) {
            continue;
        }
        let (host, path) = &route;
        let span = canary
            .node
            .at(&["metadata", "annotations", CANARY])
            .map_or(canary.node.span, |n| n.span);
        let near = mains.iter().find(|(_, p)| p == path).map(|(h, _)| {
            let named = |h: &str| {
                if h.is_empty() {
                    "no host".to_owned()
                } else {
                    format!("the host {h}")
                }
            };
            format!(
                "there is one with {} where the canary has {}",
                named(h),
                named(host)
            )
        });
        out.push(
            Draft::warning(
                "ingress::canary-without-main",
                span,
                format!("{} is a canary for {host}{path}, and no other Ingress serves that: it gets no requests", canary.title()),
            )
            .expected("an Ingress without the canary annotation for the same host and path")
            .maybe_help(near),
        );
    }
}
