//! Every annotation of ingress-nginx 1.15: what it becomes, why it has no meaning, or what
//! to do instead.

use std::collections::BTreeMap;

use super::{
    Dialect, Findings, PREFIX,
    known::{HARMLESS, MEANINGLESS, UNSAYABLE},
};

/// What an ordinary Ingress asks for all its locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `rewrite-target`.
    pub rewrite: Option<String>,
    /// `use-regex`.
    pub regex: bool,
    /// The host that the service is told.
    pub upstream_host: Option<String>,
    /// Instead of a service.
    pub redirect: Option<Redirect>,
    /// Where `/` leads.
    pub app_root: Option<String>,
    /// `X-Forwarded-Prefix`.
    pub forwarded_prefix: Option<String>,
    /// In seconds. nginx's own default, where none is asked for.
    pub read_timeout: u32,
    /// Whether that was asked for.
    pub read_timeout_is_set: bool,
    /// Whether requests without TLS are sent to HTTPS where there is TLS.
    pub ssl_redirect: bool,
    /// Also where there is none.
    pub force_ssl_redirect: bool,
    /// More hosts with the same locations.
    pub aliases: Vec<String>,
    /// A sticky session's lifetime in seconds, 0 for the browser's session.
    pub affinity: Option<u32>,
    /// For the route, where that can say it.
    pub cors: Option<Cors>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect {
    pub annotation: &'static str,
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Nothing: the request's own.
    pub path: Option<String>,
    pub code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cors {
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rewrite: None,
            regex: false,
            upstream_host: None,
            redirect: None,
            app_root: None,
            forwarded_prefix: None,
            read_timeout: 60,
            read_timeout_is_set: false,
            ssl_redirect: true,
            force_ssl_redirect: false,
            aliases: Vec::new(),
            affinity: None,
            cors: None,
        }
    }
}

/// Reads what is not about canaries. Complains about every annotation that can't be said.
pub(super) fn settings(
    object: &str,
    ours: &BTreeMap<&str, &str>,
    dialect: Dialect,
    findings: &mut Findings,
) -> Settings {
    let mut out = Settings::default();
    for (&name, &value) in ours {
        if name == "canary" || name.starts_with("canary-") {
            continue;
        }
        let mut reader = Reader {
            object,
            name,
            value,
            dialect,
            findings,
        };
        match name {
            "rewrite-target" => out.rewrite = Some(value.to_owned()),
            "use-regex" => out.regex = reader.boolean(),
            "upstream-vhost" => out.upstream_host = reader.host(),
            "x-forwarded-prefix" => out.forwarded_prefix = Some(value.to_owned()),
            "app-root" => out.app_root = reader.path(),
            "ssl-redirect" => out.ssl_redirect = reader.boolean(),
            "force-ssl-redirect" => out.force_ssl_redirect = reader.boolean(),
            "proxy-read-timeout" => {
                if let Some(seconds) = reader.seconds() {
                    out.read_timeout = seconds;
                    out.read_timeout_is_set = true;
                }
            }
            "server-alias" => {
                out.aliases = value
                    .split(',')
                    .map(|host| host.trim().to_owned())
                    .filter(|host| !host.is_empty())
                    .collect();
            }
            "permanent-redirect" | "temporal-redirect" => {
                let redirect = reader.redirect(ours);
                // nginx looks at the temporal one first.
                if name == "temporal-redirect" || out.redirect.is_none() {
                    out.redirect = redirect;
                }
            }
            "permanent-redirect-code" | "temporal-redirect-code" => {
                let of = name.trim_end_matches("-code");
                if !ours.contains_key(of) {
                    findings.note(
                        object,
                        Some(name),
                        format!("does nothing without {PREFIX}{of}"),
                    );
                }
            }
            "affinity" => out.affinity = reader.affinity(ours),
            "affinity-mode" | "affinity-canary-behavior" => {
                if !HARMLESS.contains(&(name, value)) && !ours.contains_key("affinity") {
                    findings.note(object, Some(name), "does nothing without affinity");
                } else {
                    reader.general();
                }
            }
            _ if name.starts_with("session-cookie-") => reader.session_cookie(ours),
            "enable-cors" if reader.boolean() => out.cors = reader.cors(ours),
            _ if name.starts_with("cors-") => {
                if ours.get("enable-cors").copied() != Some("true") {
                    findings.note(
                        object,
                        Some(name),
                        format!("does nothing without {PREFIX}enable-cors"),
                    );
                }
            }
            _ => reader.general(),
        }
    }
    out
}

/// Of a canary: everything else is main's.
pub(super) fn of_canary(object: &str, ours: &BTreeMap<&str, &str>, findings: &mut Findings) {
    for name in ours.keys() {
        let known = [
            "canary",
            "canary-weight",
            "canary-weight-total",
            "canary-by-header",
            "canary-by-header-value",
            "canary-by-header-pattern",
            "canary-by-cookie",
        ];
        if known.contains(name) {
            continue;
        }
        match *name {
            "affinity-canary-behavior" | "load-balance" | "service-upstream" => {
                findings.note(
                    object,
                    Some(name),
                    "has no meaning without affinity and nginx",
                );
            }
            _ if name.starts_with("upstream-hash-by") => findings.problem(
                object,
                Some(name),
                "requests are spread by the load balancer",
                "remove it",
            ),
            _ => findings.note(
                object,
                Some(name),
                "has no meaning on a canary, which inherits it from its main Ingress",
            ),
        }
    }
}

struct Reader<'a> {
    object: &'a str,
    name: &'a str,
    value: &'a str,
    dialect: Dialect,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    /// One that is not read but known.
    fn general(&mut self) {
        let has = |names: &&[&str]| names.contains(&self.name);
        if HARMLESS.contains(&(self.name, self.value)) {
            self.note("says what is so anyway");
        } else if let Some((_, why)) = MEANINGLESS.iter().find(|(names, _)| has(names)) {
            self.note(format!("has no meaning there: {why}"));
        } else if let Some((_, why, instead)) = UNSAYABLE.iter().find(|(names, _, _)| {
            // A prefix where it ends in a dash, so that no name of another kind fits.
            names.iter().any(|name| {
                self.name == *name || (name.ends_with('-') && self.name.starts_with(name))
            }) || (names == &["upstream-hash-by"] && self.name.starts_with("upstream-hash-by"))
                || (names == &["proxy-next-upstream"]
                    && self.name.starts_with("proxy-next-upstream"))
        }) {
            self.problem(*why, *instead);
        } else {
            self.problem(
                "is not known, so nobody can tell what it would mean",
                "check its spelling, or remove it",
            );
        }
    }

    fn boolean(&mut self) -> bool {
        match self.value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            other => {
                self.problem(format!("is {other:?}"), "write \"true\" or \"false\"");
                false
            }
        }
    }

    fn seconds(&mut self) -> Option<u32> {
        match self.value.parse::<u32>() {
            Ok(seconds) if (1..=2_147_483_647).contains(&seconds) => {
                self.note(
                    "nginx counts the time between two reads, the load balancer that of the whole \
                     answer, and of a WebSocket: give long answers and sockets the time they need",
                );
                Some(seconds)
            }
            _ => {
                self.problem(
                    format!("is {:?}, which ingress-nginx can't read", self.value),
                    "write whole seconds above 0",
                );
                None
            }
        }
    }

    fn host(&mut self) -> Option<String> {
        if is_host(self.value) {
            return Some(self.value.to_owned());
        }
        self.problem(
            format!(
                "is {:?}, and an HTTPRoute sets a fixed host name only",
                self.value
            ),
            "write a host name without a port and without nginx's variables",
        );
        None
    }

    fn path(&mut self) -> Option<String> {
        if self.value.starts_with('/') && !self.value.contains('$') {
            return Some(self.value.to_owned());
        }
        self.problem(format!("is {:?}", self.value), "write a path from / on");
        None
    }

    fn redirect(&mut self, ours: &BTreeMap<&str, &str>) -> Option<Redirect> {
        let (annotation, code_name, default) = if self.name == "permanent-redirect" {
            ("permanent-redirect", "permanent-redirect-code", 301)
        } else {
            ("temporal-redirect", "temporal-redirect-code", 302)
        };
        let code = match ours.get(code_name) {
            None => default,
            Some(text) => text.parse::<u16>().unwrap_or(0),
        };
        let possible: &[u16] = match self.dialect {
            Dialect::Gke => &[301, 302],
            Dialect::Standard => &[301, 302, 303, 307, 308],
        };
        if !possible.contains(&code) {
            self.findings.problem(
                self.object,
                Some(code_name),
                format!(
                    "is {:?}, and the Gateway redirects with {possible:?} only",
                    ours.get(code_name).copied().unwrap_or_default()
                ),
                "use one of those, or let the service redirect",
            );
            return None;
        }
        let Some((scheme, rest)) = self.value.split_once("://") else {
            self.problem(
                format!("is {:?}, no URL", self.value),
                "write scheme, host and path",
            );
            return None;
        };
        let at = rest.find(['/', '$']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok()),
            None => (authority, None),
        };
        if !matches!(scheme, "http" | "https")
            || !is_host(host)
            || (authority.contains(':') && port.is_none())
        {
            self.problem(
                format!(
                    "is {:?}, and a route redirects to http or https and a fixed host",
                    self.value
                ),
                "write such a URL, or let the service redirect",
            );
            return None;
        }
        if port.is_some() && self.dialect == Dialect::Gke {
            self.problem(
                "GKE's Gateways do not redirect to a port",
                "leave the port out",
            );
            return None;
        }
        let path = match path {
            // The request's own path and query.
            "$request_uri" => None,
            "" => Some("/".to_owned()),
            path if path.contains(['$', '?', '#']) => {
                self.problem(
                    format!("is {:?}, with more than a path", self.value),
                    "end it in $request_uri, or in a path without variables and query",
                );
                return None;
            }
            path => Some(path.to_owned()),
        };
        if path.is_some() {
            self.note("nginx drops the query of a request that it redirects; a Gateway keeps it");
        }
        Some(Redirect {
            annotation,
            scheme: Some(scheme.to_owned()),
            host: Some(host.to_owned()),
            port,
            path,
            code,
        })
    }

    fn affinity(&mut self, ours: &BTreeMap<&str, &str>) -> Option<u32> {
        if self.value != "cookie" {
            self.problem(
                format!("is {:?}", self.value),
                "write \"cookie\", or remove it",
            );
            return None;
        }
        if self.dialect == Dialect::Standard {
            self.problem(
                "session persistence is not in the standard channel of Gateway API",
                "keep sessions in the database, or use what the implementation has for it",
            );
            return None;
        }
        self.note(
            "becomes GENERATED_COOKIE in GCPBackendPolicy: the cookie has the load balancer's name",
        );
        let age = ours.get("session-cookie-max-age").copied().unwrap_or("0");
        match age.parse::<u32>() {
            Ok(age) if age <= 1_209_600 => Some(age),
            _ => {
                self.findings.problem(
                    self.object,
                    Some("session-cookie-max-age"),
                    format!("is {age:?}"),
                    "the load balancer's cookie lives for 0 to 1209600 seconds",
                );
                None
            }
        }
    }

    fn session_cookie(&mut self, ours: &BTreeMap<&str, &str>) {
        if !ours.contains_key("affinity") {
            self.note(format!("does nothing without {PREFIX}affinity"));
        } else if self.name != "session-cookie-max-age" {
            self.note("the load balancer chooses its cookie's name and attributes");
        }
    }

    fn cors(&mut self, ours: &BTreeMap<&str, &str>) -> Option<Cors> {
        if self.dialect == Dialect::Gke {
            self.problem(
                "GKE's Gateways have no CORS filter (HTTPRouteCORS is not among their features)",
                "let the service answer preflight requests and set the headers",
            );
            return None;
        }
        let list = |name: &str, default: &str| -> Vec<String> {
            ours.get(name)
                .copied()
                .unwrap_or(default)
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()
        };
        let max_age = ours.get("cors-max-age").copied().unwrap_or("1728000");
        let Ok(max_age @ 1..) = max_age.parse::<i32>() else {
            self.findings.problem(
                self.object,
                Some("cors-max-age"),
                format!("is {max_age:?}"),
                "write whole seconds above 0",
            );
            return None;
        };
        // ingress-nginx's own defaults.
        Some(Cors {
            origins: list("cors-allow-origin", "*"),
            methods: list(
                "cors-allow-methods",
                "GET, PUT, POST, DELETE, PATCH, OPTIONS",
            ),
            headers: list(
                "cors-allow-headers",
                "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,\
                 Content-Type,Range,Authorization",
            ),
            expose: list("cors-expose-headers", ""),
            credentials: ours
                .get("cors-allow-credentials")
                .copied()
                .unwrap_or("true")
                == "true",
            max_age,
        })
    }

    fn note(&mut self, message: impl Into<String>) {
        self.findings.note(self.object, Some(self.name), message);
    }

    fn problem(&mut self, problem: impl Into<String>, instead: impl Into<String>) {
        self.findings
            .problem(self.object, Some(self.name), problem, instead);
    }
}

/// A host name of RFC 1123, without a wildcard.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}
