//! Upstreams, servers and locations while they are being put together.

use std::collections::HashMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressServiceBackend,
};

use super::Warning;
use super::annotations::{self, Annotations};
use super::endpoints::{Backends, Missing};
use crate::table::{
    CanaryPolicy, Location, MAX_DEPTH, Server, Settings, Table, Upstream, UpstreamId, UpstreamKey,
};

/// One Ingress of our class with its annotations read.
pub(super) struct Object<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Whole seconds, the resolution of `creationTimestamp`.
    pub created: i64,
    pub ingress: &'a Ingress,
    pub annotations: Annotations,
}

/// A path of a rule with what ingress-nginx fills in.
pub(super) struct PathOf<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub exact: bool,
    pub backend: &'a IngressServiceBackend,
}

impl<'a> Object<'a> {
    pub fn new(ingress: &'a Ingress) -> Self {
        let metadata = &ingress.metadata;
        Self {
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            name: metadata.name.as_deref().unwrap_or_default(),
            // An object without one has not been stored yet: the youngest.
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(i64::MAX, |time| time.0.as_second()),
            ingress,
            annotations: annotations::parse(&metadata.annotations.clone().unwrap_or_default()),
        }
    }

    pub fn is_canary(&self) -> bool {
        self.annotations.canary.is_some()
    }

    pub fn hosts(&self) -> impl Iterator<Item = &'a str> {
        let spec = self.ingress.spec.as_ref();
        spec.and_then(|spec| spec.rules.as_deref())
            .unwrap_or_default()
            .iter()
            .map(|rule| rule.host.as_deref().unwrap_or_default())
    }

    /// Rules without `http` hold no paths: a no-op, as for a canary's.
    pub fn paths(&self) -> impl Iterator<Item = PathOf<'a>> {
        let spec = self.ingress.spec.as_ref();
        spec.and_then(|spec| spec.rules.as_deref())
            .unwrap_or_default()
            .iter()
            .flat_map(|rule| {
                let host = rule.host.as_deref().unwrap_or_default();
                rule.http
                    .iter()
                    .flat_map(|http| &http.paths)
                    .filter_map(move |path| normalized(host, path))
            })
    }

    pub fn default_backend(&self) -> Option<&'a IngressServiceBackend> {
        service_of(self.ingress.spec.as_ref()?.default_backend.as_ref()?)
    }

    pub fn key(&self, backend: &IngressServiceBackend) -> UpstreamKey {
        let port = backend.port.as_ref();
        UpstreamKey {
            namespace: self.namespace.to_owned(),
            service: backend.name.clone(),
            port: port
                .and_then(|port| {
                    port.name
                        .clone()
                        .filter(|name| !name.is_empty())
                        .or_else(|| port.number.map(|number| number.to_string()))
                })
                .unwrap_or_default(),
        }
    }
}

fn service_of(backend: &IngressBackend) -> Option<&IngressServiceBackend> {
    backend.service.as_ref()
}

/// An empty path is `/`; everything but Exact is Prefix.
fn normalized<'a>(host: &'a str, path: &'a HTTPIngressPath) -> Option<PathOf<'a>> {
    Some(PathOf {
        host,
        path: path
            .path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or("/"),
        exact: path.path_type == "Exact",
        backend: service_of(&path.backend)?,
    })
}

pub(super) struct UpstreamDraft {
    pub key: UpstreamKey,
    pub endpoints: Vec<std::net::SocketAddr>,
    pub coming: bool,
    /// Created by a canary: no location may point to it.
    pub server_less: bool,
    pub policy: Option<CanaryPolicy>,
    /// Index of the object that created it.
    pub creator: usize,
    /// In the order merged; only the first counts.
    pub alternatives: Vec<usize>,
    /// Deleted by a canary path that matched nothing.
    pub deleted: bool,
}

pub(super) struct LocationDraft {
    pub path: String,
    pub exact: bool,
    /// Index into the drafts of upstreams; `None` is the default backend.
    pub upstream: Option<usize>,
    /// The implicit `/`: the first real rule for it takes it over.
    pub implicit: bool,
    pub settings: Settings,
    /// Index of the object it comes from.
    pub source: Option<usize>,
}

pub(super) struct ServerDraft {
    /// Empty: no host.
    pub host: String,
    pub locations: Vec<LocationDraft>,
}

impl ServerDraft {
    fn new(host: &str, upstream: Option<usize>, settings: Settings, source: Option<usize>) -> Self {
        Self {
            host: host.to_owned(),
            locations: vec![LocationDraft {
                path: "/".into(),
                exact: false,
                upstream,
                implicit: true,
                settings,
                source,
            }],
        }
    }
}

pub(super) struct Model<'a> {
    pub objects: &'a [Object<'a>],
    pub upstreams: Vec<UpstreamDraft>,
    by_key: HashMap<UpstreamKey, usize>,
    pub servers: Vec<ServerDraft>,
    by_host: HashMap<String, usize>,
    pub warnings: Vec<Warning>,
}

impl<'a> Model<'a> {
    pub fn new(objects: &'a [Object<'a>], warnings: Vec<Warning>) -> Self {
        let mut model = Self {
            objects,
            upstreams: Vec::new(),
            by_key: HashMap::new(),
            servers: Vec::new(),
            by_host: HashMap::new(),
            warnings,
        };
        for (index, object) in objects.iter().enumerate() {
            for complaint in &object.annotations.complaints {
                model.warn(index, complaint.clone());
            }
            let tls = object
                .ingress
                .spec
                .as_ref()
                .and_then(|spec| spec.tls.as_ref());
            if tls.is_some_and(|tls| !tls.is_empty()) {
                model.warn(
                    index,
                    "spec.tls is not supported by devenv's ingress: its hosts are served over \
                     plain HTTP and are not redirected to HTTPS"
                        .into(),
                );
            }
        }
        model
    }

    pub fn warn(&mut self, object: usize, message: String) {
        let object = &self.objects[object];
        let warning = Warning {
            namespace: object.namespace.to_owned(),
            name: object.name.to_owned(),
            message,
        };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub fn server(&self, host: &str) -> Option<usize> {
        self.by_host.get(host).copied()
    }

    /// Only an upstream that no canary has deleted.
    pub fn upstream(&self, key: &UpstreamKey) -> Option<usize> {
        self.by_key
            .get(key)
            .copied()
            .filter(|id| !self.upstreams[*id].deleted)
    }

    pub fn object_name(&self, object: usize) -> String {
        let object = &self.objects[object];
        format!("{}/{}", object.namespace, object.name)
    }

    /// The first object that mentions a service port makes its upstream;
    /// `spec.defaultBackend` always makes it anew.
    pub fn create_upstreams(&mut self, backends: &Backends<'_>) {
        for (index, object) in self.objects.iter().enumerate() {
            if let Some(backend) = object.default_backend() {
                self.create_upstream(index, object.key(backend), backends, true);
            }
            for path in object.paths() {
                self.create_upstream(index, object.key(path.backend), backends, false);
            }
            let spec = object.ingress.spec.as_ref();
            let uses_resource = spec
                .and_then(|spec| spec.rules.as_deref())
                .unwrap_or_default()
                .iter()
                .flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths))
                .any(|path| path.backend.service.is_none());
            if uses_resource {
                self.warn(
                    index,
                    "a backend that is not a Service is skipped, as in ingress-nginx".into(),
                );
            }
        }
    }

    fn create_upstream(
        &mut self,
        index: usize,
        key: UpstreamKey,
        backends: &Backends<'_>,
        anew: bool,
    ) {
        let existing = self.by_key.get(&key).copied();
        if existing.is_some() && !anew {
            return;
        }
        let endpoints = match backends.find(&key.namespace, &key.service, &key.port) {
            Ok(endpoints) => endpoints,
            Err(missing) => {
                self.warn(index, describe(&key, &missing));
                Vec::new()
            }
        };
        let policy = self.objects[index].annotations.canary.clone();
        let draft = UpstreamDraft {
            coming: backends.is_coming(&key.namespace, &key.service),
            key: key.clone(),
            endpoints,
            server_less: policy.is_some(),
            policy,
            creator: index,
            alternatives: Vec::new(),
            deleted: false,
        };
        match existing {
            Some(id) => self.upstreams[id] = draft,
            None => {
                self.by_key.insert(key, self.upstreams.len());
                self.upstreams.push(draft);
            }
        }
    }

    /// A server per host of every ordinary Ingress, each with an implicit `/`.
    pub fn create_servers(&mut self) {
        self.add_server(ServerDraft::new("", None, Settings::default(), None));
        for (index, object) in self.objects.iter().enumerate() {
            if object.is_canary() {
                continue;
            }
            let default = object
                .default_backend()
                .and_then(|backend| self.upstream(&object.key(backend)));
            let has_rules = object.hosts().next().is_some();
            if let Some(upstream) = default
                && !has_rules
            {
                // A rule-less Ingress is the catch-all: it serves unknown
                // hosts, not the unmatched paths of known ones.
                let root = &mut self.servers[0].locations[0];
                if root.implicit {
                    root.upstream = Some(upstream);
                    root.implicit = false;
                    root.settings = object.annotations.settings.clone();
                    root.source = Some(index);
                } else {
                    self.warn(
                        index,
                        "its default backend is not used: an older Ingress is the catch-all".into(),
                    );
                }
            }
            for host in object.hosts() {
                if self.by_host.contains_key(host) {
                    continue;
                }
                self.add_server(ServerDraft::new(
                    host,
                    default,
                    object.annotations.settings.clone(),
                    Some(index),
                ));
            }
        }
    }

    fn add_server(&mut self, server: ServerDraft) {
        self.by_host.insert(server.host.clone(), self.servers.len());
        self.servers.push(server);
    }

    /// A location per path whose upstream is not a canary's.
    pub fn create_locations(&mut self) {
        for (index, object) in self.objects.iter().enumerate() {
            for path in object.paths() {
                let key = object.key(path.backend);
                let Some(upstream) = self.upstream(&key) else {
                    continue;
                };
                let draft = &self.upstreams[upstream];
                if draft.server_less {
                    if !object.is_canary() {
                        let owner = self.object_name(draft.creator);
                        self.warn(
                            index,
                            format!(
                                "path {} of host {} is not served: service {}:{} was first named \
                                 by the canary {owner}, and then it is nobody's ordinary backend; \
                                 give the canary a service of its own",
                                path.path,
                                shown(path.host),
                                key.service,
                                key.port,
                            ),
                        );
                    }
                    continue;
                }
                if !path.path.starts_with('/')
                    || path.path.bytes().filter(|b| *b == b'/').count() > MAX_DEPTH
                {
                    self.warn(
                        index,
                        format!(
                            "path {:?} is skipped: it must start with / and have at most \
                             {MAX_DEPTH} segments",
                            path.path
                        ),
                    );
                    continue;
                }
                self.add_location(index, object, &path, upstream);
            }
        }
    }

    fn add_location(
        &mut self,
        index: usize,
        object: &Object<'_>,
        path: &PathOf<'_>,
        upstream: usize,
    ) {
        // A canary that acts as an ordinary Ingress creates no server of its
        // own; upstream then puts its paths into the host-less one.
        let server = self.server(path.host).unwrap_or(0);
        let draft = LocationDraft {
            path: path.path.to_owned(),
            exact: path.exact,
            upstream: Some(upstream),
            implicit: false,
            settings: object.annotations.settings.clone(),
            source: Some(index),
        };
        let locations = &mut self.servers[server].locations;
        let same = locations
            .iter_mut()
            .find(|other| other.path == draft.path && other.exact == draft.exact);
        match same {
            None => locations.push(draft),
            Some(other) if other.implicit => *other = draft,
            Some(other) => {
                let source = other.source;
                if let Some(source) = source
                    && !object.is_canary()
                    && other.upstream != Some(upstream)
                {
                    let owner = self.object_name(source);
                    self.warn(
                        index,
                        format!(
                            "path {} of host {} is already served by {owner}, which is older and \
                             keeps it",
                            path.path,
                            shown(path.host),
                        ),
                    );
                }
            }
        }
    }

    /// Freezes the drafts.
    pub fn finish(self) -> (Table, Vec<Warning>) {
        let upstreams = self
            .upstreams
            .iter()
            .map(|draft| Upstream {
                key: draft.key.clone(),
                endpoints: if draft.deleted {
                    Vec::new()
                } else {
                    draft.endpoints.clone()
                },
                coming: draft.coming && !draft.deleted,
                // A dangling name in first place means main only: the second
                // canary is never considered.
                alternative: draft
                    .alternatives
                    .first()
                    .filter(|id| !self.upstreams[**id].deleted)
                    .map(|id| UpstreamId(*id)),
                policy: draft.policy.clone(),
            })
            .collect();
        let mut table = Table {
            upstreams,
            ..Table::default()
        };
        for draft in self.servers {
            let mut server = Server::default();
            for location in draft.locations {
                server.add(
                    &location.path,
                    location.exact,
                    Location {
                        upstream: location.upstream.map(UpstreamId),
                        settings: location.settings,
                    },
                );
            }
            let host = draft.host.to_ascii_lowercase();
            if host.is_empty() {
                table.default = server;
            } else if let Some(suffix) = host.strip_prefix('*') {
                table.wildcard.insert(suffix.into(), server);
            } else {
                table.exact.insert(host.into(), server);
            }
        }
        (table, self.warnings)
    }
}

pub(super) fn shown(host: &str) -> &str {
    if host.is_empty() { "*" } else { host }
}

fn describe(key: &UpstreamKey, missing: &Missing) -> String {
    let UpstreamKey {
        namespace,
        service,
        port,
    } = key;
    match missing {
        Missing::Service => format!(
            "service {service} does not exist in namespace {namespace}: its paths answer 503"
        ),
        Missing::Port { has } => format!(
            "service {service} has no port {port} (it has {}): its paths answer 503",
            if has.is_empty() {
                "none".to_owned()
            } else {
                has.join(", ")
            }
        ),
        Missing::ExternalName => format!(
            "service {service} is of type ExternalName, which devenv's ingress does not support: \
             its paths answer 503"
        ),
    }
}
