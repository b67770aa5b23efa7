//! Hosts and locations as HTTPRoutes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    Dialect, Findings, Options, PREFIX,
    annotations::{self, Cors, Redirect},
    canary::HeaderIs,
    gateway::{self, Secure},
    model::{Canary, Host, Location, Model, Upstream, shown},
    paths::{Place, is_regex, place},
};
use crate::shares::gcd;

/// What one HTTPRoute may hold (Gateway API v1: spec.hostnames, spec.rules,
/// rules.matches, and all matches of a route together).
const MOST_HOSTNAMES: usize = 16;
const MOST_RULES: usize = 16;
const MOST_MATCHES: usize = 64;
const MOST_MATCHES_OF_ALL: usize = 128;

/// What happens with a request, whatever it is matched by.
#[derive(Debug, Clone, Default, PartialEq)]
struct Body {
    filters: Vec<Value>,
    backends: Vec<Value>,
    timeouts: Option<Value>,
    /// A prefix can be replaced where there is one match only.
    alone: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    matches: Vec<Value>,
    body: Body,
}

pub(super) fn routes(model: &Model, options: &Options, findings: &mut Findings) -> Vec<Value> {
    let secure = gateway::secure(model);
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    for host in &model.hosts {
        let rules = rules(host, model, options, findings);
        let name = unique(&mut names, &name_of(host));
        let redirected = to_https(host, &secure, options, findings);
        let mut hostnames: Vec<&str> = Vec::new();
        if !host.name.is_empty() {
            hostnames.push(&host.name);
        }
        hostnames.extend(host.aliases.iter().map(String::as_str));
        for hostname in &hostnames {
            if !annotations::is_host(hostname.strip_prefix("*.").unwrap_or(hostname)) {
                findings.problem(
                    &format!("Ingress {}/{}", options.namespace, host.owner),
                    None,
                    format!("{hostname:?} is no host name that a route can have"),
                    "write a name of RFC 1123 in lower case, or *.NAME",
                );
            }
        }
        if hostnames.len() > MOST_HOSTNAMES {
            findings.problem(
                &format!("Ingress {}/{}", options.namespace, host.owner),
                Some("server-alias"),
                format!(
                    "{} hosts, and a route has {MOST_HOSTNAMES}",
                    hostnames.len()
                ),
                "use a wildcard, or an Ingress for each",
            );
        }
        let parent = parent(&secure, host, redirected.is_some(), options);
        for (index, part) in chunks(rules).into_iter().enumerate() {
            let name = match index {
                0 => name.clone(),
                _ => unique(&mut names, &format!("{name}-{}", index + 1)),
            };
            out.push(route(&name, &parent, &hostnames, part, model, options));
        }
        if let Some(code) = redirected {
            let rule = Rule {
                matches: Vec::new(),
                body: Body {
                    filters: vec![json!({
                        "type": "RequestRedirect",
                        "requestRedirect": { "scheme": "https", "statusCode": code },
                    })],
                    ..Body::default()
                },
            };
            let name = unique(&mut names, &format!("{name}-to-https"));
            let parent = json!({ "name": options.gateway, "sectionName": "http" });
            out.push(route(
                &name,
                &parent,
                &hostnames,
                vec![rule],
                model,
                options,
            ));
        }
    }
    out.sort_by(|a, b| {
        let name = |value: &Value| value["metadata"]["name"].as_str().map(str::to_owned);
        name(a).cmp(&name(b))
    });
    out
}

fn route(
    name: &str,
    parent: &Value,
    hostnames: &[&str],
    rules: Vec<Rule>,
    model: &Model,
    options: &Options,
) -> Value {
    let mut metadata = json!({ "name": name, "namespace": options.namespace });
    if !model.labels.is_empty() {
        metadata["labels"] = json!(model.labels);
    }
    let mut spec = json!({ "parentRefs": [parent] });
    if !hostnames.is_empty() {
        spec["hostnames"] = json!(hostnames);
    }
    let rules: Vec<Value> = rules.into_iter().map(Rule::into_value).collect();
    spec["rules"] = Value::Array(rules);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": spec,
    })
}

impl Rule {
    fn into_value(self) -> Value {
        let mut out = Map::new();
        if !self.matches.is_empty() {
            out.insert("matches".into(), Value::Array(self.matches));
        }
        if !self.body.filters.is_empty() {
            out.insert("filters".into(), Value::Array(self.body.filters));
        }
        if !self.body.backends.is_empty() {
            out.insert("backendRefs".into(), Value::Array(self.body.backends));
        }
        if let Some(timeouts) = self.body.timeouts {
            out.insert("timeouts".into(), timeouts);
        }
        Value::Object(out)
    }
}

fn name_of(host: &Host) -> String {
    if host.name.is_empty() {
        return host.owner.clone();
    }
    let slug = host.name.replace('*', "any").replace('.', "-");
    format!("{}-{slug}", host.owner)
}

fn unique(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    let mut next = 2;
    while !taken.insert(name.clone()) {
        name = format!("{wanted}-{next}");
        next += 1;
    }
    name
}

fn parent(secure: &[Secure], host: &Host, redirected: bool, options: &Options) -> Value {
    let mut parent = json!({ "name": options.gateway });
    let listener = gateway::listener_of(secure, &host.name);
    match listener {
        Some(listener) if redirected => parent["sectionName"] = json!(listener.name),
        None if !secure.is_empty() => parent["sectionName"] = json!("http"),
        _ => {}
    }
    parent
}

/// The code by which requests of a host are sent to HTTPS, if they are.
fn to_https(
    host: &Host,
    secure: &[Secure],
    options: &Options,
    findings: &mut Findings,
) -> Option<u16> {
    let has_tls = gateway::listener_of(secure, &host.name).is_some();
    let wanted = |location: &Location| {
        location.settings.force_ssl_redirect || (has_tls && location.settings.ssl_redirect)
    };
    let first = host.locations.first()?;
    if let Some(other) = host.locations.iter().find(|l| wanted(l) != wanted(first)) {
        findings.problem(
            &other.object,
            Some("ssl-redirect"),
            format!(
                "{} wants it otherwise for another path of {}",
                first.object,
                shown(&host.name)
            ),
            "say the same for all paths of a host",
        );
        return None;
    }
    if !wanted(first) {
        return None;
    }
    if !has_tls {
        findings.problem(
            &first.object,
            Some("force-ssl-redirect"),
            format!("there is no certificate for {}", shown(&host.name)),
            "add a tls section, or redirect where TLS ends",
        );
        return None;
    }
    let code = match options.dialect {
        Dialect::Gke => 301,
        Dialect::Standard => 308,
    };
    if code != 308 {
        findings.note(
            &first.object,
            Some("ssl-redirect"),
            format!(
                "redirects of {} to HTTPS have the code 301, as GKE's Gateways have no 308: some \
                 clients make a GET of a POST",
                shown(&host.name)
            ),
        );
    }
    Some(code)
}

fn rules(host: &Host, model: &Model, options: &Options, findings: &mut Findings) -> Vec<Rule> {
    let regex_mode = host.locations.iter().any(is_regex);
    let mut out: Vec<Rule> = Vec::new();
    let app_root = host
        .locations
        .iter()
        .find_map(|l| Some((l, l.settings.app_root.clone()?)));
    if let Some((location, target)) = &app_root {
        if host.locations.iter().any(|l| l.exact && l.path == "/") {
            findings.problem(
                &location.object,
                Some("app-root"),
                "the host has a path / of type Exact as well",
                "remove one of them",
            );
        }
        let redirect = Redirect {
            annotation: "app-root",
            scheme: None,
            host: None,
            port: None,
            path: Some(target.clone()),
            code: 302,
        };
        let body = Body {
            filters: vec![redirect_filter(&redirect)],
            ..Body::default()
        };
        add(&mut out, path_match("/", true), body);
    }
    for location in &host.locations {
        let Some(place) = place(location, regex_mode, options, findings) else {
            continue;
        };
        for (headers, body) in bodies(location, &place, model, options, findings) {
            let mut matched = path_match(&place.path, place.exact);
            if let Some((name, value)) = headers {
                matched["headers"] = json!([{ "type": "Exact", "name": name, "value": value }]);
            }
            add(&mut out, matched, body);
        }
    }
    out
}

/// Rules of equal bodies become one: a route has few rules, and many matches. Which one
/// applies is decided by how specific a match is, not by the order of rules.
fn add(rules: &mut Vec<Rule>, matched: Value, body: Body) {
    let room =
        |rule: &&mut Rule| !body.alone && rule.body == body && rule.matches.len() < MOST_MATCHES;
    match rules.iter_mut().find(room) {
        Some(rule) => rule.matches.push(matched),
        None => rules.push(Rule {
            matches: vec![matched],
            body,
        }),
    }
}

/// Routes for one host are taken together, so that rules may be in several.
fn chunks(rules: Vec<Rule>) -> Vec<Vec<Rule>> {
    let mut out: Vec<Vec<Rule>> = Vec::new();
    for rule in rules {
        let fits = out.last().is_some_and(|part: &Vec<Rule>| {
            let matches: usize = part.iter().map(|rule| rule.matches.len()).sum();
            part.len() < MOST_RULES && matches + rule.matches.len() <= MOST_MATCHES_OF_ALL
        });
        match out.last_mut() {
            Some(part) if fits => part.push(rule),
            _ => out.push(vec![rule]),
        }
    }
    out
}

fn path_match(path: &str, exact: bool) -> Value {
    let kind = if exact { "Exact" } else { "PathPrefix" };
    json!({ "path": { "type": kind, "value": path } })
}

/// What happens with the requests of a location, with and without a header.
fn bodies(
    location: &Location,
    place: &Place,
    model: &Model,
    options: &Options,
    findings: &mut Findings,
) -> Vec<(Option<(String, String)>, Body)> {
    let settings = &location.settings;
    if let Some(redirect) = &settings.redirect {
        let body = Body {
            filters: vec![redirect_filter(redirect)],
            ..Body::default()
        };
        return vec![(None, body)];
    }
    let mut filters = Vec::new();
    if let Some(prefix) = &settings.forwarded_prefix {
        filters.push(json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "set": [{ "name": "X-Forwarded-Prefix", "value": prefix }] },
        }));
    }
    if let Some(cors) = &settings.cors {
        filters.push(cors_filter(cors));
    }
    if settings.upstream_host.is_some() || place.rewrite.is_some() {
        let mut rewrite = Map::new();
        if let Some(host) = &settings.upstream_host {
            rewrite.insert("hostname".into(), json!(host));
        }
        if let Some(path) = &place.rewrite {
            rewrite.insert("path".into(), path.clone());
        }
        filters.push(json!({ "type": "URLRewrite", "urlRewrite": rewrite }));
    }
    let timeouts = (options.dialect == Dialect::Standard && settings.read_timeout_is_set)
        .then(|| json!({ "backendRequest": format!("{}s", settings.read_timeout) }));
    let to = |backends: Vec<Value>| Body {
        filters: filters.clone(),
        backends,
        timeouts: timeouts.clone(),
        alone: place.alone,
    };
    let main = &location.upstream;
    let Some(canary) = model.canaries.get(main) else {
        return vec![(None, to(vec![backend(main, 1)]))];
    };
    let mut out = Vec::new();
    if let Some((name, is)) = &canary.policy.header {
        let header = |value: &str| Some((name.clone(), value.to_owned()));
        match is {
            HeaderIs::Value(value) => {
                out.push((header(value), to(vec![backend(&canary.upstream, 1)])));
            }
            HeaderIs::AlwaysOrNever => {
                out.push((header("always"), to(vec![backend(&canary.upstream, 1)])));
                out.push((header("never"), to(vec![backend(main, 1)])));
            }
        }
    }
    out.push((None, to(split(main, canary, location, options, findings))));
    out
}

fn split(
    main: &Upstream,
    canary: &Canary,
    location: &Location,
    options: &Options,
    findings: &mut Findings,
) -> Vec<Value> {
    let (weight, total) = canary.policy.share;
    let (mut left, mut right) = (total - weight, weight);
    if right == 0 {
        return vec![backend(main, 1)];
    }
    if left == 0 {
        return vec![backend(&canary.upstream, 1)];
    }
    let largest = options.largest_weight();
    if left.max(right) > largest {
        let shared = gcd(u64::from(left), u64::from(right)) as u32;
        (left, right) = (left / shared, right / shared);
    }
    if left.max(right) > largest {
        findings.problem(
            &location.object,
            None,
            format!(
                "its canary's weight {weight} of {total} is finer than the Gateway's weights, which \
                 go up to {largest}"
            ),
            format!("choose {PREFIX}canary-weight-total up to {largest}"),
        );
    }
    vec![backend(main, left), backend(&canary.upstream, right)]
}

fn backend(upstream: &Upstream, weight: u32) -> Value {
    json!({
        "group": "",
        "kind": "Service",
        "name": upstream.service,
        "port": upstream.port,
        "weight": weight,
    })
}

fn redirect_filter(redirect: &Redirect) -> Value {
    let mut out = Map::new();
    if let Some(scheme) = &redirect.scheme {
        out.insert("scheme".into(), json!(scheme));
    }
    if let Some(host) = &redirect.host {
        out.insert("hostname".into(), json!(host));
    }
    if let Some(port) = redirect.port {
        out.insert("port".into(), json!(port));
    }
    if let Some(path) = &redirect.path {
        let path = json!({ "type": "ReplaceFullPath", "replaceFullPath": path });
        out.insert("path".into(), path);
    }
    out.insert("statusCode".into(), json!(redirect.code));
    json!({ "type": "RequestRedirect", "requestRedirect": out })
}

fn cors_filter(cors: &Cors) -> Value {
    let mut out = json!({
        "allowOrigins": cors.origins,
        "allowMethods": cors.methods,
        "allowHeaders": cors.headers,
        "allowCredentials": cors.credentials,
        "maxAge": cors.max_age,
    });
    if !cors.expose.is_empty() {
        out["exposeHeaders"] = json!(cors.expose);
    }
    json!({ "type": "CORS", "cors": out })
}
