//! The rules that API servers would check, transcribed in our own words.
//!
//! Sources: Gateway API's Go types and CRDs of the standard channel, `apis/v1` at 1.5
//! (`Gateway`, `HTTPRoute`: limits of lists, enums, patterns and the CEL rules that can
//! concern what we write); GKE's `networking.gke.io/v1` in GoogleCloudPlatform/
//! gke-gateway-api, `apis/networking/v1` (`HealthCheckPolicy`, `GCPBackendPolicy`: ranges
//! and enums). Fields that we never write are not listed, so they are errors here.

use serde_json::Value;

/// Everything that an API server would refuse in an object.
pub(crate) fn violations(object: &Value) -> Vec<String> {
    let mut check = Check::default();
    check.fields(
        object,
        "",
        &["apiVersion", "kind", "metadata", "spec"],
        &["spec"],
    );
    let metadata = &object["metadata"];
    check.fields(
        metadata,
        "metadata",
        &["name", "namespace", "labels"],
        &["name", "namespace"],
    );
    check.subdomain(&metadata["name"], "metadata.name");
    let spec = &object["spec"];
    match (object["apiVersion"].as_str(), object["kind"].as_str()) {
        (Some("gateway.networking.k8s.io/v1"), Some("Gateway")) => gateway(&mut check, spec),
        (Some("gateway.networking.k8s.io/v1"), Some("HTTPRoute")) => route(&mut check, spec),
        (Some("networking.gke.io/v1"), Some("HealthCheckPolicy")) => health(&mut check, spec),
        (Some("networking.gke.io/v1"), Some("GCPBackendPolicy")) => backend(&mut check, spec),
        (version, kind) => check.error("", format!("{version:?} {kind:?} is not known")),
    }
    check.errors
}

#[derive(Default)]
struct Check {
    errors: Vec<String>,
}

impl Check {
    fn error(&mut self, path: &str, message: impl std::fmt::Display) {
        self.errors.push(format!("{path}: {message}"));
    }

    fn fields(&mut self, value: &Value, path: &str, allowed: &[&str], required: &[&str]) {
        let Some(object) = value.as_object() else {
            self.error(path, format!("{value} is no object"));
            return;
        };
        for key in object.keys() {
            if !allowed.contains(&key.as_str()) {
                self.error(path, format!("unknown field {key}"));
            }
        }
        for key in required {
            if !object.contains_key(*key) {
                self.error(path, format!("{key} is missing"));
            }
        }
    }

    fn list<'a>(&mut self, value: &'a Value, path: &str, least: usize, most: usize) -> &'a [Value] {
        let Some(list) = value.as_array() else {
            self.error(path, format!("{value} is no list"));
            return &[];
        };
        if list.len() < least || list.len() > most {
            self.error(path, format!("{} items, not {least} to {most}", list.len()));
        }
        list
    }

    fn range(&mut self, value: &Value, path: &str, least: i64, most: i64) {
        if !value.as_i64().is_some_and(|n| (least..=most).contains(&n)) {
            self.error(path, format!("{value} is not from {least} to {most}"));
        }
    }

    fn one_of(&mut self, value: &Value, path: &str, allowed: &[&str]) {
        if !value.as_str().is_some_and(|text| allowed.contains(&text)) {
            self.error(path, format!("{value} is none of {allowed:?}"));
        }
    }

    fn text(&mut self, value: &Value, path: &str, most: usize, fits: impl Fn(char) -> bool) {
        let fitting = value
            .as_str()
            .is_some_and(|text| !text.is_empty() && text.len() <= most && text.chars().all(fits));
        if !fitting {
            self.error(path, format!("{value} does not fit"));
        }
    }

    fn subdomain(&mut self, value: &Value, path: &str) {
        let fits = value.as_str().is_some_and(super::annotations::is_host);
        if !fits {
            self.error(path, format!("{value} is no name of RFC 1123"));
        }
    }

    fn hostname(&mut self, value: &Value, path: &str) {
        let fits = value.as_str().is_some_and(|text| {
            super::annotations::is_host(text.strip_prefix("*.").unwrap_or(text))
                // An address is no host name.
                && !text.chars().all(|c| c.is_ascii_digit() || c == '.')
        });
        if !fits {
            self.error(path, format!("{value} is no host name"));
        }
    }

    fn path(&mut self, value: &Value, path: &str) {
        self.text(value, path, 1024, |c| {
            c.is_ascii_alphanumeric() || "-/._~!$&'()*+,;=:@%".contains(c)
        });
        let text = value.as_str().unwrap_or_default();
        let wrong = ["//", "/./", "/../", "%2f", "%2F", "#"];
        if !text.starts_with('/')
            || wrong.iter().any(|wrong| text.contains(wrong))
            || text.ends_with("/.")
            || text.ends_with("/..")
        {
            self.error(path, format!("{text} is no path"));
        }
    }
}

fn gateway(check: &mut Check, spec: &Value) {
    check.fields(
        spec,
        "spec",
        &["gatewayClassName", "listeners"],
        &["gatewayClassName", "listeners"],
    );
    check.subdomain(&spec["gatewayClassName"], "spec.gatewayClassName");
    let mut names = Vec::new();
    let mut places = Vec::new();
    for listener in check.list(&spec["listeners"], "spec.listeners", 1, 64) {
        let path = "spec.listeners[]";
        check.fields(
            listener,
            path,
            &[
                "name",
                "port",
                "protocol",
                "hostname",
                "tls",
                "allowedRoutes",
            ],
            &["name", "port", "protocol"],
        );
        check.subdomain(&listener["name"], path);
        check.range(&listener["port"], path, 1, 65_535);
        check.one_of(&listener["protocol"], path, &["HTTP", "HTTPS"]);
        if let Some(host) = listener.get("hostname") {
            check.hostname(host, path);
        }
        names.push(listener["name"].clone());
        places.push((
            listener["port"].clone(),
            listener["protocol"].clone(),
            listener["hostname"].clone(),
        ));
        match (listener["protocol"].as_str(), listener.get("tls")) {
            (Some("HTTP"), Some(_)) => check.error(path, "tls with protocol HTTP"),
            (Some("HTTPS"), None) => check.error(path, "no tls with protocol HTTPS"),
            (_, Some(tls)) => {
                check.fields(
                    tls,
                    path,
                    &["mode", "certificateRefs"],
                    &["certificateRefs"],
                );
                check.one_of(&tls["mode"], path, &["Terminate"]);
                for reference in check.list(&tls["certificateRefs"], path, 1, 64) {
                    check.fields(reference, path, &["group", "kind", "name"], &["name"]);
                    check.subdomain(&reference["name"], path);
                }
            }
            _ => {}
        }
        if let Some(routes) = listener.get("allowedRoutes") {
            let from = &routes["namespaces"]["from"];
            check.one_of(from, path, &["All", "Selector", "Same"]);
        }
    }
    for list in [names.iter().map(Value::to_string).collect::<Vec<_>>(), {
        places.iter().map(|place| format!("{place:?}")).collect()
    }] {
        let mut unique = list.clone();
        unique.sort();
        unique.dedup();
        if unique.len() != list.len() {
            check.error("spec.listeners", format!("not unique: {list:?}"));
        }
    }
}

fn route(check: &mut Check, spec: &Value) {
    check.fields(
        spec,
        "spec",
        &["parentRefs", "hostnames", "rules"],
        &["parentRefs"],
    );
    for parent in check.list(&spec["parentRefs"], "spec.parentRefs", 1, 32) {
        check.fields(
            parent,
            "spec.parentRefs[]",
            &["name", "sectionName"],
            &["name"],
        );
    }
    if let Some(hosts) = spec.get("hostnames") {
        for host in check.list(hosts, "spec.hostnames", 1, 16) {
            check.hostname(host, "spec.hostnames[]");
        }
    }
    let mut all = 0;
    for rule in check.list(&spec["rules"], "spec.rules", 1, 16) {
        let path = "spec.rules[]";
        check.fields(
            rule,
            path,
            &["matches", "filters", "backendRefs", "timeouts"],
            &[],
        );
        let matches = rule.get("matches").map_or(&[][..], |list| {
            check.list(list, "spec.rules[].matches", 1, 64)
        });
        all += matches.len();
        for one in matches {
            route_match(check, one);
        }
        if let Some(filters) = rule.get("filters") {
            route_filters(check, filters, matches, rule.get("backendRefs").is_some());
        }
        if let Some(refs) = rule.get("backendRefs") {
            for reference in check.list(refs, "spec.rules[].backendRefs", 1, 16) {
                let path = "spec.rules[].backendRefs[]";
                check.fields(
                    reference,
                    path,
                    &["group", "kind", "name", "port", "weight"],
                    &["name", "port"],
                );
                check.one_of(&reference["group"], path, &[""]);
                check.one_of(&reference["kind"], path, &["Service"]);
                check.subdomain(&reference["name"], path);
                check.range(&reference["port"], path, 1, 65_535);
                check.range(&reference["weight"], path, 0, 1_000_000);
            }
        } else if rule.get("filters").is_none() {
            check.error(path, "neither backends nor filters: every request is a 500");
        }
        if let Some(timeouts) = rule.get("timeouts") {
            check.fields(timeouts, path, &["backendRequest", "request"], &[]);
            for value in timeouts.as_object().into_iter().flat_map(|o| o.values()) {
                // GEP-2257: up to five digits with a unit, up to four times.
                let fits = value.as_str().is_some_and(|text| {
                    let digits = text.trim_end_matches('s');
                    text.len() == digits.len() + 1
                        && (1..=5).contains(&digits.len())
                        && digits.bytes().all(|b| b.is_ascii_digit())
                });
                if !fits {
                    check.error(path, format!("{value} is no duration"));
                }
            }
        }
    }
    if all > 128 {
        check.error("spec.rules", format!("{all} matches, more than 128"));
    }
}

fn route_match(check: &mut Check, one: &Value) {
    let path = "spec.rules[].matches[]";
    check.fields(one, path, &["path", "headers"], &[]);
    check.fields(&one["path"], path, &["type", "value"], &[]);
    check.one_of(&one["path"]["type"], path, &["Exact", "PathPrefix"]);
    check.path(&one["path"]["value"], path);
    if let Some(headers) = one.get("headers") {
        for header in check.list(headers, path, 1, 16) {
            check.fields(header, path, &["type", "name", "value"], &["name", "value"]);
            check.one_of(&header["type"], path, &["Exact"]);
            check.text(&header["name"], path, 256, |c| {
                c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
            });
            check.text(&header["value"], path, 4096, |_| true);
        }
    }
}

fn route_filters(check: &mut Check, filters: &Value, matches: &[Value], has_backends: bool) {
    let path = "spec.rules[].filters[]";
    let mut kinds = Vec::new();
    for filter in check.list(filters, path, 1, 16) {
        let kind = filter["type"].as_str().unwrap_or_default();
        kinds.push(kind);
        let field = match kind {
            "RequestRedirect" => "requestRedirect",
            "URLRewrite" => "urlRewrite",
            "RequestHeaderModifier" => "requestHeaderModifier",
            "CORS" => "cors",
            other => {
                check.error(path, format!("unknown type {other}"));
                continue;
            }
        };
        check.fields(filter, path, &["type", field], &["type", field]);
        let config = &filter[field];
        match kind {
            "RequestRedirect" => {
                let allowed = ["scheme", "hostname", "path", "port", "statusCode"];
                check.fields(config, path, &allowed, &[]);
                if let Some(scheme) = config.get("scheme") {
                    check.one_of(scheme, path, &["http", "https"]);
                }
                if let Some(host) = config.get("hostname") {
                    check.hostname(host, path);
                }
                if let Some(port) = config.get("port") {
                    check.range(port, path, 1, 65_535);
                }
                let code = config["statusCode"].as_u64();
                if !matches!(code, Some(301 | 302 | 303 | 307 | 308)) {
                    check.error(path, format!("statusCode {code:?}"));
                }
                if has_backends {
                    check.error(path, "RequestRedirect beside backendRefs");
                }
            }
            "URLRewrite" => {
                check.fields(config, path, &["hostname", "path"], &[]);
                if let Some(host) = config.get("hostname") {
                    check.hostname(host, path);
                }
            }
            "RequestHeaderModifier" => {
                check.fields(config, path, &["set", "add", "remove"], &[]);
                for header in check.list(&config["set"], path, 0, 16) {
                    check.fields(header, path, &["name", "value"], &["name", "value"]);
                    check.text(&header["value"], path, 4096, |_| true);
                }
            }
            _ => {
                let allowed = [
                    "allowOrigins",
                    "allowMethods",
                    "allowHeaders",
                    "exposeHeaders",
                    "allowCredentials",
                    "maxAge",
                ];
                check.fields(config, path, &allowed, &[]);
                check.list(&config["allowOrigins"], path, 0, 64);
                check.list(&config["allowMethods"], path, 0, 9);
                check.list(&config["allowHeaders"], path, 0, 64);
                check.range(&config["maxAge"], path, 1, i32::MAX.into());
            }
        }
        if let Some(modifier) = config.get("path") {
            let kind = modifier["type"].as_str().unwrap_or_default();
            let field = match kind {
                "ReplaceFullPath" => "replaceFullPath",
                "ReplacePrefixMatch" => "replacePrefixMatch",
                other => {
                    check.error(path, format!("unknown type {other}"));
                    continue;
                }
            };
            check.fields(modifier, path, &["type", field], &["type", field]);
            check.text(&modifier[field], path, 1024, |_| true);
            if kind == "ReplacePrefixMatch"
                && !matches!(matches, [one] if one["path"]["type"] == "PathPrefix")
            {
                check.error(
                    path,
                    "ReplacePrefixMatch needs exactly one PathPrefix match",
                );
            }
        }
    }
    for kind in &kinds {
        if kinds.iter().filter(|other| *other == kind).count() > 1 {
            check.error(path, format!("{kind} is repeated"));
        }
    }
    if kinds.contains(&"RequestRedirect") && kinds.contains(&"URLRewrite") {
        check.error(path, "RequestRedirect beside URLRewrite");
    }
}

fn target(check: &mut Check, spec: &Value) {
    check.fields(spec, "spec", &["default", "targetRef"], &["targetRef"]);
    let reference = &spec["targetRef"];
    let all = ["group", "kind", "name"];
    check.fields(reference, "spec.targetRef", &all, &all);
    check.one_of(&reference["group"], "spec.targetRef.group", &[""]);
    check.one_of(&reference["kind"], "spec.targetRef.kind", &["Service"]);
    check.subdomain(&reference["name"], "spec.targetRef.name");
}

fn health(check: &mut Check, spec: &Value) {
    target(check, spec);
    let default = &spec["default"];
    let path = "spec.default";
    check.fields(
        default,
        path,
        &[
            "checkIntervalSec",
            "timeoutSec",
            "healthyThreshold",
            "unhealthyThreshold",
            "config",
        ],
        &[],
    );
    check.range(&default["checkIntervalSec"], path, 1, 300);
    // Not longer than the interval.
    let interval = default["checkIntervalSec"].as_i64().unwrap_or(5);
    check.range(&default["timeoutSec"], path, 1, interval);
    check.range(&default["healthyThreshold"], path, 1, 10);
    check.range(&default["unhealthyThreshold"], path, 1, 10);
    let config = &default["config"];
    let (kind, field) = match config["type"].as_str() {
        Some("TCP") => ("TCP", "tcpHealthCheck"),
        Some("HTTP") => ("HTTP", "httpHealthCheck"),
        Some("HTTPS") => ("HTTPS", "httpsHealthCheck"),
        Some("GRPC") => ("GRPC", "grpcHealthCheck"),
        other => return check.error(path, format!("type {other:?}")),
    };
    // A union: the type, and exactly the field that fits it.
    check.fields(config, path, &["type", field], &["type", field]);
    let settings = &config[field];
    let mut allowed = vec!["portSpecification", "port"];
    match kind {
        "HTTP" | "HTTPS" => allowed.extend(["requestPath", "host"]),
        "GRPC" => allowed.push("grpcServiceName"),
        _ => {}
    }
    check.fields(settings, path, &allowed, &["portSpecification"]);
    let ports = ["USE_FIXED_PORT", "USE_SERVING_PORT"];
    check.one_of(&settings["portSpecification"], path, &ports);
    if settings["portSpecification"] == "USE_FIXED_PORT" {
        check.range(&settings["port"], path, 1, 65_535);
    }
    if let Some(request) = settings.get("requestPath") {
        check.text(request, path, 2048, |c| {
            c.is_ascii_alphanumeric() || "/-._~%!?$&'()*+,;=:".contains(c)
        });
    }
    if let Some(host) = settings.get("host") {
        check.subdomain(host, path);
    }
}

fn backend(check: &mut Check, spec: &Value) {
    target(check, spec);
    let default = &spec["default"];
    let path = "spec.default";
    check.fields(
        default,
        path,
        &["timeoutSec", "connectionDraining", "sessionAffinity"],
        &[],
    );
    check.range(&default["timeoutSec"], path, 1, 2_147_483_647);
    let draining = &default["connectionDraining"];
    check.fields(draining, path, &["drainingTimeoutSec"], &[]);
    check.range(&draining["drainingTimeoutSec"], path, 0, 3_600);
    if let Some(affinity) = default.get("sessionAffinity") {
        check.fields(affinity, path, &["type", "cookieTtlSec"], &[]);
        check.one_of(
            &affinity["type"],
            path,
            &["GENERATED_COOKIE", "CLIENT_IP", "NONE"],
        );
        check.range(&affinity["cookieTtlSec"], path, 0, 1_209_600);
    }
}
