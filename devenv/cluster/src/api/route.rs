//! What a path, its query and its headers ask for. Pure.

use http::{HeaderMap, header::ACCEPT};

use super::status::Failure;
use crate::kinds::{self, KindRef};

/// The part of the API that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`: the list of paths.
    Root,
    /// `/healthz`, `/readyz`, `/livez` and what may follow.
    Health,
    /// `/version`.
    Version,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(&'static str),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources(&'static str, &'static str),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApi,
    /// `/openapi/v3/…`, the group and version.
    OpenApiDocument(&'static str, &'static str),
    /// Objects of a kind.
    Objects(Target),
    /// A resource that is not served, in a group that is.
    NoSuchResource,
    /// Nothing.
    NotFound,
}

/// A resource, one object or part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub kind: KindRef,
    /// Empty for all namespaces and for cluster-scoped kinds.
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

/// The served versions, one per group: `(group, version)`.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for kind in kinds::ALL.into_iter().chain(kinds::MEASURED) {
        if !found.contains(&(kind.group, kind.version)) {
            found.push((kind.group, kind.version));
        }
    }
    found
}

fn served(group: &str, version: &str) -> Option<(&'static str, &'static str)> {
    group_versions()
        .into_iter()
        .find(|gv| *gv == (group, version))
}

pub(super) fn route(path: &str) -> Route {
    let parts: Vec<String> = path
        .split('/')
        .filter(|p| !p.is_empty())
        .map(percent_decode)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let group_version = |group, version| match served(group, version) {
        Some((g, v)) => Route::Resources(g, v),
        None => Route::NotFound,
    };
    match parts.as_slice() {
        [] => Route::Root,
        ["healthz" | "readyz" | "livez", ..] => Route::Health,
        ["version"] => Route::Version,
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => match group_versions().into_iter().find(|(g, _)| g == group) {
            Some((g, _)) if !g.is_empty() => Route::Group(g),
            _ => Route::NotFound,
        },
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApi,
        ["openapi", "v3", "api", version] => match served("", version) {
            Some((g, v)) => Route::OpenApiDocument(g, v),
            None => Route::NotFound,
        },
        ["openapi", "v3", "apis", group, version] => match served(group, version) {
            Some((g, v)) => Route::OpenApiDocument(g, v),
            None => Route::NotFound,
        },
        ["api", version] => group_version("", version),
        ["apis", "", _] => Route::NotFound,
        ["apis", group, version] => group_version(group, version),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] if !group.is_empty() => objects(group, version, rest),
        _ => Route::NotFound,
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Route {
    if served(group, version).is_none() {
        return Route::NotFound;
    }
    // `namespaces/NAME/RESOURCE` is a resource inside a namespace, unless what follows the name is
    // a subresource of the namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", ns, resource, more @ ..]
            if !(group.is_empty() && matches!(*resource, "status" | "finalize")) =>
        {
            let mut rest = vec![*resource];
            rest.extend_from_slice(more);
            (Some(*ns), rest)
        }
        rest => (None, rest.to_vec()),
    };
    let (resource, name, subresource) = match rest.as_slice() {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some(*name), None),
        [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
        _ => return Route::NoSuchResource,
    };
    let Some(kind) = kinds::by_path(group, version, resource) else {
        return Route::NoSuchResource;
    };
    // A namespaced object cannot be named without its namespace, nor a cluster-scoped one with one.
    if kind.namespaced && name.is_some() && namespace.is_none()
        || !kind.namespaced && namespace.is_some()
    {
        return Route::NoSuchResource;
    }
    Route::Objects(Target {
        kind,
        namespace: namespace.unwrap_or_default().to_owned(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
    })
}

fn percent_decode(part: &str) -> String {
    // A path has no form encoding: a plus is a plus.
    let escaped = part.replace('+', "%2B");
    form_urlencoded::parse(format!("={escaped}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part after the question mark; kube-rs' leading `&` and empty parts are no matter.
    pub fn parse(query: &str) -> Query {
        Query(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The value of a parameter; `None` when it is not there or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// A parameter that is on when it is there: `watch`, `watch=1`, `watch=true`.
    pub fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .is_some_and(|(_, v)| {
                !matches!(v.as_str(), "false" | "0" | "f" | "F" | "FALSE" | "False")
            })
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.get(name)
            .map(|v| {
                v.parse().map_err(|_| {
                    Failure::bad_request(format!("invalid {name} {v:?}: a number is expected"))
                })
            })
            .transpose()
    }

    /// Whether nothing may be stored.
    pub fn dry_run(&self) -> Result<bool, Failure> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Failure::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }
}

/// The form in which objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Json,
    /// Rows for people.
    Table(RowObject),
    /// Metadata only.
    Metadata,
}

/// What a row of a table carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowObject {
    Metadata,
    Object,
    None,
}

/// Chooses the first form of `Accept` that this server has.
pub(super) fn form(headers: &HeaderMap, query: &Query) -> Result<Form, Failure> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(Form::Json);
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(
            parts.next(),
            Some("application/json" | "application/*" | "*/*")
        ) {
            continue;
        }
        let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let of = |name| parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
        match (of("as"), of("g"), of("v")) {
            (None, ..) => return Ok(Form::Json),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => {
                return Ok(Form::Table(match query.get("includeObject") {
                    Some("Object") => RowObject::Object,
                    Some("None") => RowObject::None,
                    _ => RowObject::Metadata,
                }));
            }
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) => {
                return Ok(Form::Metadata);
            }
            _ => {}
        }
    }
    Err(Failure::not_acceptable())
}

/// Whether discovery is wanted in one piece (the aggregated form, v2).
pub(super) fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    accept.split(',').any(|range| {
        let parts: Vec<&str> = range.split(';').map(str::trim).collect();
        ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|p| parts.contains(p))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kinds::{DEPLOYMENT, NAMESPACE, NODE_METRICS, POD, POD_METRICS};

    fn target(kind: KindRef, ns: &str, name: Option<&str>, sub: Option<&str>) -> Route {
        Route::Objects(Target {
            kind,
            namespace: ns.to_owned(),
            name: name.map(str::to_owned),
            subresource: sub.map(str::to_owned),
        })
    }

    #[rstest]
    #[case("/api/v1/pods", target(&POD, "", None, None))]
    #[case("/api/v1/namespaces/x/pods", target(&POD, "x", None, None))]
    #[case("/api/v1/namespaces/x/pods/p/log", target(&POD, "x", Some("p"), Some("log")))]
    #[case("/api/v1/namespaces", target(&NAMESPACE, "", None, None))]
    #[case("/api/v1/namespaces/x", target(&NAMESPACE, "", Some("x"), None))]
    #[case("/api/v1/namespaces/x/status", target(&NAMESPACE, "", Some("x"), Some("status")))]
    #[case("/apis/apps/v1/namespaces/x/deployments/d/scale", target(&DEPLOYMENT, "x", Some("d"), Some("scale")))]
    #[case("/apis/metrics.k8s.io", Route::Group("metrics.k8s.io"))]
    #[case("/apis/metrics.k8s.io/v1beta1/nodes", target(&NODE_METRICS, "", None, None))]
    #[case("/apis/metrics.k8s.io/v1beta1/pods", target(&POD_METRICS, "", None, None))]
    #[case("/apis/metrics.k8s.io/v1beta1/namespaces/x/pods/p", target(&POD_METRICS, "x", Some("p"), None))]
    #[case("/apis/metrics.k8s.io/v1/pods", Route::NotFound)]
    #[case("/api/v1/pods/p", Route::NoSuchResource)]
    #[case("/api/v1/namespaces/x/nodes", Route::NoSuchResource)]
    #[case("/api/v1/namespaces/x/foos", Route::NoSuchResource)]
    #[case("/apis/nope.io/v1/foos", Route::NotFound)]
    #[case("/apis/apps/v1", Route::Resources("apps", "v1"))]
    #[case("/apis/apps", Route::Group("apps"))]
    #[case("/openapi/v3/apis/apps/v1", Route::OpenApiDocument("apps", "v1"))]
    #[case("/openapi/v2", Route::OpenApiV2)]
    #[case("/openapi/v1", Route::NotFound)]
    #[case("/readyz/ping", Route::Health)]
    fn paths(#[case] path: &str, #[case] wanted: Route) {
        assert_eq!(route(path), wanted);
    }

    #[rstest]
    #[case("", Some(Form::Json))]
    #[case("application/json, */*", Some(Form::Json))]
    #[case(
        "application/vnd.kubernetes.protobuf,application/json",
        Some(Form::Json)
    )]
    #[case(
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        Some(Form::Table(RowObject::Metadata))
    )]
    #[case(
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        Some(Form::Json)
    )]
    #[case(
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        Some(Form::Metadata)
    )]
    #[case("application/vnd.kubernetes.protobuf", None)]
    fn accept(#[case] header: &str, #[case] wanted: Option<Form>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header.parse().unwrap());
        assert_eq!(form(&headers, &Query::default()).ok(), wanted);
    }

    #[test]
    fn queries() {
        let query = Query::parse("&labelSelector=a%3Db&watch=1&limit=&dryRun=All");
        assert_eq!(query.get("labelSelector"), Some("a=b"));
        assert!(query.flag("watch") && !query.flag("follow"));
        assert_eq!(query.number::<u32>("limit").unwrap(), None);
        assert!(query.dry_run().unwrap());
    }
}
