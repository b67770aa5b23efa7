//! The immutable route table and the decisions it takes about one request.

mod path;
mod policy;
mod split;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

pub use path::normalize;
pub use policy::{CanaryPolicy, Decision, HeaderMatch, Share};
pub use split::Splitter;
pub(crate) use split::mix;

/// A service port as an Ingress wrote it: `80` and `http` of one service are
/// two upstreams, as in ingress-nginx.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UpstreamKey {
    /// Namespace of the Ingress, hence of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Number, name or targetPort, as written.
    pub port: String,
}

/// Position of an upstream in its [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub(crate) usize);

/// One service port and what stands behind it.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Which service port.
    pub key: UpstreamKey,
    /// Ready endpoints, sorted and without duplicates.
    pub endpoints: Vec<SocketAddr>,
    /// More endpoints are on the way: a request that finds none, or none that
    /// takes it, is held for them instead of being refused.
    pub coming: bool,
    /// Only the first canary merged into this upstream ever counts.
    pub alternative: Option<UpstreamId>,
    /// Set on the upstream of a canary.
    pub policy: Option<CanaryPolicy>,
}

/// Limits and times of a location, with ingress-nginx's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest request body in bytes (`proxy-body-size`); `None` is unlimited.
    pub body_limit: Option<u64>,
    /// `proxy-connect-timeout`.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`: longest silence of the upstream.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`: longest time the upstream takes no bytes.
    pub send_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: Some(1 << 20),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
        }
    }
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub struct Location {
    /// `None`: nothing configured, the default backend's 404.
    pub upstream: Option<UpstreamId>,
    /// From the Ingress that made the location; canaries inherit them.
    pub settings: Settings,
}

/// One host's locations. Paths are stored as bytes: they are compared with
/// decoded request paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    locations: Vec<Location>,
    /// Exact paths, and the ones a Prefix matches literally.
    exact: HashMap<Box<[u8]>, Target>,
    /// Prefixes without their final slash; the root is empty.
    subtree: HashMap<Box<[u8]>, usize>,
    /// Slashes in the deepest prefix: deeper ones need no looking up.
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Location(usize),
    AddSlash,
}

/// What the table says about a host and a path.
#[derive(Debug, Clone, Copy)]
pub enum Route<'a> {
    /// This location serves it.
    Location(&'a Location),
    /// Only `path/` is configured (Prefix `/foo/`): nginx redirects with 301.
    AddSlash,
    /// The host's server has nothing for it: the default backend's 404.
    NotFound,
}

impl Server {
    /// Adds a location; the first of equal path and type keeps it.
    pub(crate) fn add(&mut self, path: &str, exact: bool, location: Location) {
        let id = self.locations.len();
        self.locations.push(location);
        let path = path.as_bytes();
        if exact {
            // An Exact path outranks what a Prefix put there.
            let target = self.exact.entry(path.into()).or_insert(Target::AddSlash);
            let taken_by_exact = matches!(target, Target::Location(other)
                if self.subtree.get(path) != Some(other));
            if !taken_by_exact {
                *target = Target::Location(id);
            }
            return;
        }
        let stem: &[u8] = match path {
            [stem @ .., b'/'] => stem,
            stem => stem,
        };
        let slashed = stem.len() != path.len();
        if let std::collections::hash_map::Entry::Vacant(free) = self.subtree.entry(stem.into()) {
            free.insert(id);
            self.depth = self.depth.max(stem.iter().filter(|b| **b == b'/').count());
        }
        if !stem.is_empty() {
            let target = self.exact.entry(stem.into());
            if slashed {
                target.or_insert(Target::AddSlash);
            } else {
                let target = target.or_insert(Target::AddSlash);
                if matches!(target, Target::AddSlash) {
                    *target = Target::Location(id);
                }
            }
        }
    }

    fn find(&self, path: &[u8]) -> Route<'_> {
        let location = match self.exact.get(path) {
            Some(Target::Location(id)) => Some(*id),
            Some(Target::AddSlash) => return Route::AddSlash,
            None => self.longest_prefix(path),
        };
        match location.and_then(|id| self.locations.get(id)) {
            Some(location) if location.upstream.is_some() => Route::Location(location),
            _ => Route::NotFound,
        }
    }

    fn longest_prefix(&self, path: &[u8]) -> Option<usize> {
        // The end of every leading run of at most `depth` segments, longest
        // first; a path of thousands of slashes costs no more than the table's
        // own deepest prefix.
        let mut ends = [0usize; MAX_DEPTH];
        let mut count = 0;
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            if count > self.depth || count == MAX_DEPTH {
                break;
            }
            ends[count] = at;
            count += 1;
        }
        ends[..count]
            .iter()
            .rev()
            .find_map(|end| self.subtree.get(&path[..*end]).copied())
    }
}

/// Prefixes deeper than this many segments are refused at compile time.
pub(crate) const MAX_DEPTH: usize = 64;

/// All routes of a moment; immutable, swapped as a whole.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub(crate) exact: HashMap<Box<str>, Server>,
    /// By what follows the `*`: `.example.com`.
    pub(crate) wildcard: HashMap<Box<str>, Server>,
    pub(crate) default: Server,
    pub(crate) upstreams: Vec<Upstream>,
}

impl Table {
    /// A table that sends everything to one set of endpoints, as the listener
    /// of a Cloud Run service needs it: no limit but Cloud Run's 32 MiB for an
    /// HTTP/1 request and its default request timeout of 300 s.
    pub fn single(endpoints: &[SocketAddr]) -> Self {
        Self::single_named("", "", endpoints, false)
    }

    /// [`Table::single`], counted in the statistics under a service's name;
    /// `coming` as in [`Upstream::coming`].
    pub fn single_named(
        namespace: &str,
        service: &str,
        endpoints: &[SocketAddr],
        coming: bool,
    ) -> Self {
        let mut endpoints = endpoints.to_vec();
        endpoints.sort_unstable();
        endpoints.dedup();
        let mut default = Server::default();
        default.add(
            "/",
            false,
            Location {
                upstream: Some(UpstreamId(0)),
                settings: Settings {
                    body_limit: Some(32 << 20),
                    read_timeout: Duration::from_secs(300),
                    send_timeout: Duration::from_secs(300),
                    ..Settings::default()
                },
            },
        );
        Self {
            default,
            upstreams: vec![Upstream {
                key: UpstreamKey {
                    namespace: namespace.into(),
                    service: service.into(),
                    port: String::new(),
                },
                endpoints,
                coming,
                alternative: None,
                policy: None,
            }],
            ..Self::default()
        }
    }

    /// Host first, then path; a server once chosen is final. `host` may carry
    /// a port; `path` is a normalised path ([`normalize`]).
    pub fn route(&self, host: &str, path: &[u8]) -> Route<'_> {
        self.server(host).find(path)
    }

    /// The upstream at `id`.
    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id.0]
    }

    /// All upstreams, in the order of their ids.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    fn server(&self, host: &str) -> &Server {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return &self.default;
        }
        let host = without_port(host);
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        if let Some(server) = self.exact.get(host) {
            return server;
        }
        // `*` is exactly one label of word characters and dashes.
        if let Some(dot) = host.find('.')
            && dot > 0
            && host[..dot]
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            && let Some(server) = self.wildcard.get(&host[dot..])
        {
            return server;
        }
        &self.default
    }
}

/// Strips `:port`, leaving the colons of an IPv6 literal alone.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn location(upstream: usize) -> Location {
        Location {
            upstream: Some(UpstreamId(upstream)),
            settings: Settings::default(),
        }
    }

    fn found(route: Route<'_>) -> String {
        match route {
            Route::Location(l) => l.upstream.unwrap().0.to_string(),
            Route::AddSlash => "301".into(),
            Route::NotFound => "404".into(),
        }
    }

    #[rstest]
    #[case("/foo", "1")]
    #[case("/foo/", "1")]
    #[case("/foo/x", "1")]
    #[case("/foobar", "404")]
    #[case("/Foo", "404")]
    #[case("/foo/bar", "2")]
    #[case("/foo/bar/", "1")]
    #[case("/foo/baz", "3")]
    #[case("/foo/baz/q/w", "3")]
    #[case("/slash", "301")]
    #[case("/slash/", "4")]
    #[case("/slash/x", "4")]
    #[case("/both", "6")]
    #[case("/both/x", "5")]
    #[case("/", "404")]
    #[case("/none", "404")]
    fn exact_before_longest_prefix_by_segment(#[case] path: &str, #[case] expected: &str) {
        let mut server = Server::default();
        for (path, exact, upstream) in [
            ("/foo", false, 1),
            ("/foo/bar", true, 2),
            ("/foo/baz", false, 3),
            ("/slash/", false, 4),
            ("/both", false, 5),
            ("/both", true, 6),
        ] {
            server.add(path, exact, location(upstream));
        }
        assert_eq!(found(server.find(path.as_bytes())), expected);
    }

    #[test]
    fn the_first_of_equal_path_and_type_keeps_it_in_any_order_of_types() {
        let mut server = Server::default();
        for (path, exact, upstream) in [
            ("/a", true, 1),
            ("/a", false, 2),
            ("/a", true, 3),
            ("/a", false, 4),
            ("/", false, 5),
        ] {
            server.add(path, exact, location(upstream));
        }
        assert_eq!(found(server.find(b"/a")), "1");
        assert_eq!(found(server.find(b"/a/b")), "2");
        assert_eq!(found(server.find(b"/")), "5");
        assert_eq!(found(server.find(b"/x/y/z")), "5");
    }

    #[rstest]
    #[case("app.example.com", "1")]
    #[case("APP.Example.com:8080", "1")]
    #[case("x.example.com", "2")]
    #[case("a.b.example.com", "3")]
    #[case("example.com", "3")]
    #[case("a~b.example.com", "3")]
    #[case("[::1]:80", "3")]
    #[case("other", "3")]
    fn host_exact_then_one_label_then_default(#[case] host: &str, #[case] expected: &str) {
        let server = |upstream| {
            let mut server = Server::default();
            server.add("/", false, location(upstream));
            server
        };
        let table = Table {
            exact: HashMap::from([("app.example.com".into(), server(1))]),
            wildcard: HashMap::from([(".example.com".into(), server(2))]),
            default: server(3),
            upstreams: Vec::new(),
        };
        assert_eq!(found(table.route(host, b"/x")), expected);
    }

    #[test]
    fn ports_are_stripped_and_ipv6_is_left_alone() {
        assert_eq!(without_port("a:80"), "a");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("[::1]:80"), "[::1]");
    }
}
