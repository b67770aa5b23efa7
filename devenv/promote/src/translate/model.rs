//! Hosts, locations and upstreams, put together as ingress-nginx does.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::Service,
        networking::v1::{Ingress, IngressBackend, IngressTLS},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Findings, Inputs, Options, PREFIX,
    annotations::{self, Settings},
    canary::{self, Policy},
};

/// Everything that routes are made of.
#[derive(Debug)]
pub(super) struct Model {
    pub hosts: Vec<Host>,
    pub tls: Vec<Tls>,
    /// By upstream of main.
    pub canaries: BTreeMap<Upstream, Canary>,
    pub labels: BTreeMap<String, String>,
}

/// A Service and a port of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Upstream {
    pub service: String,
    pub port: u16,
    /// As the Ingress writes it: ingress-nginx takes a port by its name and by its number
    /// for two.
    pub written: String,
}

#[derive(Debug, Clone)]
pub(super) struct Canary {
    pub upstream: Upstream,
    pub policy: Policy,
}

#[derive(Debug)]
pub(super) struct Host {
    /// Empty: all that no other one is for.
    pub name: String,
    /// The Ingress that mentioned it first.
    pub owner: String,
    pub aliases: Vec<String>,
    pub locations: Vec<Location>,
}

#[derive(Debug)]
pub(super) struct Location {
    pub path: String,
    pub exact: bool,
    /// As the message names it.
    pub object: String,
    pub settings: Settings,
    pub upstream: Upstream,
}

#[derive(Debug)]
pub(super) struct Tls {
    pub hosts: Vec<String>,
    pub secret: String,
}

/// An Ingress with its annotations read.
pub(super) struct Object<'a> {
    pub shown: String,
    pub name: &'a str,
    pub ingress: &'a Ingress,
    pub settings: Settings,
    pub canary: Option<Policy>,
}

impl Model {
    pub(super) fn new(inputs: &Inputs<'_>, options: &Options, findings: &mut Findings) -> Self {
        let objects = objects(inputs.ingresses, options, findings);
        let mut model = Self {
            hosts: Vec::new(),
            tls: Vec::new(),
            canaries: BTreeMap::new(),
            labels: objects
                .iter()
                .find(|object| object.canary.is_none())
                .and_then(|object| object.ingress.metadata.labels.clone())
                .unwrap_or_default(),
        };
        for object in objects.iter().filter(|object| object.canary.is_none()) {
            model.add_main(object, inputs.services, findings);
        }
        for object in &objects {
            if let Some(policy) = &object.canary {
                model.add_canary(object, policy, inputs.services, findings);
            }
        }
        model.check_affinity(findings);
        model
    }

    fn host(&mut self, name: &str, owner: &str) -> &mut Host {
        if let Some(at) = self.hosts.iter().position(|host| host.name == name) {
            return &mut self.hosts[at];
        }
        self.hosts.push(Host {
            name: name.to_owned(),
            owner: owner.to_owned(),
            aliases: Vec::new(),
            locations: Vec::new(),
        });
        let last = self.hosts.len() - 1;
        &mut self.hosts[last]
    }

    fn add_main(&mut self, object: &Object<'_>, services: &[Service], findings: &mut Findings) {
        let Some(spec) = &object.ingress.spec else {
            return;
        };
        let rules = spec.rules.as_deref().unwrap_or_default();
        for rule in rules {
            let name = rule.host.as_deref().unwrap_or_default();
            if name.starts_with("*.") {
                findings.note(
                    &object.shown,
                    None,
                    format!(
                        "the host {name} stands for exactly one label in ingress-nginx, and for \
                         one or more in a Gateway"
                    ),
                );
            }
            if rule.http.as_ref().is_none_or(|http| http.paths.is_empty()) {
                findings.note(
                    &object.shown,
                    None,
                    format!(
                        "its rule for {} has no paths, so no route comes of it",
                        shown(name)
                    ),
                );
            }
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let Some(upstream) = upstream(&object.shown, &path.backend, services, findings)
                else {
                    continue;
                };
                let written = path.path.as_deref().filter(|path| !path.is_empty());
                self.add_location(
                    object,
                    name,
                    written.unwrap_or("/"),
                    path.path_type == "Exact",
                    upstream,
                    findings,
                );
            }
            let aliases = object.settings.aliases.clone();
            let host = self.host(name, object.name);
            for alias in aliases {
                if !host.aliases.contains(&alias) {
                    host.aliases.push(alias);
                }
            }
        }
        if let Some(backend) = &spec.default_backend
            && let Some(upstream) = upstream(&object.shown, backend, services, findings)
        {
            // Of an Ingress with rules it is for its own hosts, and only those that it
            // named first; without rules for the hosts that nobody names.
            let names: Vec<String> = if rules.is_empty() {
                vec![String::new()]
            } else {
                let own = |rule: &k8s_openapi::api::networking::v1::IngressRule| {
                    let name = rule.host.clone().unwrap_or_default();
                    let first = self
                        .hosts
                        .iter()
                        .any(|host| host.name == name && host.owner == object.name);
                    first.then_some(name)
                };
                rules.iter().filter_map(own).collect()
            };
            for name in names {
                self.host(&name, object.name);
                let taken = self.hosts.iter().any(|host| {
                    host.name == name && host.locations.iter().any(|l| l.path == "/" && !l.exact)
                });
                if !taken {
                    self.add_location(object, &name, "/", false, upstream.clone(), findings);
                }
            }
        }
        for tls in spec.tls.as_deref().unwrap_or_default() {
            self.add_tls(&object.shown, tls, rules.len(), findings);
        }
    }

    fn add_location(
        &mut self,
        object: &Object<'_>,
        name: &str,
        path: &str,
        exact: bool,
        upstream: Upstream,
        findings: &mut Findings,
    ) {
        let host = self.host(name, object.name);
        let same = |other: &Location| other.path == path && other.exact == exact;
        if let Some(older) = host.locations.iter().find(|other| same(other)) {
            findings.note(
                &object.shown,
                None,
                format!(
                    "its path {path} on {} is already {}'s, which is older and keeps it",
                    shown(name),
                    older.object
                ),
            );
            return;
        }
        if !exact && path.len() > 1 && path.ends_with('/') {
            findings.note(
                &object.shown,
                None,
                format!(
                    "nginx redirects {} to {path}; a Gateway takes the prefix with and without \
                     the slash",
                    path.trim_end_matches('/')
                ),
            );
        }
        host.locations.push(Location {
            path: path.to_owned(),
            exact,
            object: object.shown.clone(),
            settings: object.settings.clone(),
            upstream,
        });
    }

    fn add_tls(&mut self, object: &str, tls: &IngressTLS, rules: usize, findings: &mut Findings) {
        let Some(secret) = tls.secret_name.clone().filter(|name| !name.is_empty()) else {
            findings.problem(
                object,
                None,
                "has a tls section without a secretName, where ingress-nginx shows its own \
                 self-signed certificate; a Gateway has none",
                "name a Secret of type kubernetes.io/tls",
            );
            return;
        };
        let hosts = tls.hosts.clone().unwrap_or_default();
        if hosts.is_empty() && rules > 0 {
            findings.note(
                object,
                None,
                format!("its tls section names no hosts: the Secret {secret} is for all of them"),
            );
        }
        self.tls.push(Tls { hosts, secret });
    }
}

fn objects<'a>(
    ingresses: &'a [Ingress],
    options: &Options,
    findings: &mut Findings,
) -> Vec<Object<'a>> {
    let mut found = Vec::new();
    for ingress in ingresses {
        let name = ingress.metadata.name.as_deref().unwrap_or_default();
        let namespace = ingress
            .metadata
            .namespace
            .as_deref()
            .unwrap_or(&options.namespace);
        let shown = format!("Ingress {namespace}/{name}");
        let all = ingress.metadata.annotations.clone().unwrap_or_default();
        let class = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.clone())
            .or_else(|| all.get("kubernetes.io/ingress.class").cloned());
        if class
            .as_deref()
            .is_some_and(|class| class != options.ingress_class)
        {
            findings.note(
                &shown,
                None,
                format!(
                    "is of class {}, not {}: left as it is",
                    class.unwrap_or_default(),
                    options.ingress_class
                ),
            );
            continue;
        }
        if namespace != options.namespace {
            findings.problem(
                &shown,
                None,
                format!("is not in the namespace {}", options.namespace),
                "translate each namespace for itself; a route elsewhere needs a ReferenceGrant",
            );
            continue;
        }
        let ours: BTreeMap<&str, &str> = all
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        for name in all.keys() {
            let known = [
                "kubectl.kubernetes.io/last-applied-configuration",
                "kubernetes.io/ingress.class",
            ];
            if !name.starts_with(PREFIX) && !known.contains(&name.as_str()) {
                findings.note(
                    &shown,
                    None,
                    format!("the annotation {name} is not ingress-nginx's and is not taken over"),
                );
            }
        }
        let canary = canary::policy(&shown, &ours, findings);
        let settings = if canary.is_some() {
            annotations::of_canary(&shown, &ours, findings);
            Settings::default()
        } else {
            annotations::settings(&shown, &ours, options.dialect, findings)
        };
        found.push(Object {
            shown,
            name,
            ingress,
            settings,
            canary,
        });
    }
    // Age first, in whole seconds, then from the end of the alphabet: the order in which
    // ingress-nginx lets objects take effect. What isn't stored yet is the youngest.
    found.sort_by(|a, b| {
        let age = |object: &Object<'_>| {
            let created = object.ingress.metadata.creation_timestamp.as_ref();
            created.map_or(i64::MAX, |time| time.0.as_second())
        };
        age(a).cmp(&age(b)).then_with(|| b.name.cmp(a.name))
    });
    found
}

/// A backend's Service and port, where there is such a thing.
pub(super) fn upstream(
    object: &str,
    backend: &IngressBackend,
    services: &[Service],
    findings: &mut Findings,
) -> Option<Upstream> {
    let Some(wanted) = &backend.service else {
        findings.problem(
            object,
            None,
            "has a backend that is no Service",
            "name a Service; GKE's own kinds of backends are named in the route",
        );
        return None;
    };
    let port = wanted.port.as_ref();
    let named = port
        .and_then(|port| port.name.clone())
        .filter(|n| !n.is_empty());
    let number = port.and_then(|port| port.number);
    let written = named
        .clone()
        .or_else(|| number.map(|number| number.to_string()))
        .unwrap_or_default();
    let service = services
        .iter()
        .find(|service| service.metadata.name.as_deref() == Some(&wanted.name));
    let Some(spec) = service.and_then(|service| service.spec.as_ref()) else {
        findings.problem(
            object,
            None,
            format!("there is no Service {}", wanted.name),
            "add it, or correct the name",
        );
        return None;
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        findings.problem(
            object,
            None,
            format!(
                "the Service {} is an ExternalName, which is no backend of a route",
                wanted.name
            ),
            "use an internet NEG, or a Service with endpoints",
        );
        return None;
    }
    let found = spec.ports.iter().flatten().find(|candidate| {
        // ingress-nginx takes a target port as well.
        match (&named, number) {
            (Some(name), _) => {
                candidate.name.as_deref() == Some(name)
                    || candidate.target_port == Some(IntOrString::String(name.clone()))
            }
            (None, Some(number)) => {
                candidate.port == number || candidate.target_port == Some(IntOrString::Int(number))
            }
            (None, None) => false,
        }
    });
    match found.and_then(|port| u16::try_from(port.port).ok()) {
        Some(port) => Some(Upstream {
            service: wanted.name.clone(),
            port,
            written,
        }),
        None => {
            findings.problem(
                object,
                None,
                format!("the Service {} has no port {written:?}", wanted.name),
                "name one of its ports",
            );
            None
        }
    }
}

/// A host for people.
pub(super) fn shown(host: &str) -> &str {
    if host.is_empty() { "any host" } else { host }
}
