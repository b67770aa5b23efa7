//! What is served: the lists of groups, versions and resources, in both of their forms.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    body::{self, ApiBody},
    route::group_versions,
};
use crate::kinds::{self, Kind, KindRef};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Of what is measured.
const READ_VERBS: [&str; 2] = ["get", "list"];
const SUB_VERBS: [&str; 3] = ["get", "patch", "update"];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn of_group(group: &str) -> impl Iterator<Item = KindRef> {
    let all = kinds::ALL.into_iter().chain(kinds::MEASURED);
    all.filter(move |k| k.group == group)
}

fn verbs(kind: KindRef) -> &'static [&'static str] {
    if kinds::MEASURED.contains(&kind) {
        &READ_VERBS
    } else {
        &VERBS
    }
}

/// Name, group and version of what a subresource speaks, and its verbs.
fn subresources(kind: &Kind) -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let mut all = Vec::new();
    if kind.kind == "Pod" {
        all.push(("log", own.clone(), vec!["get"]));
    }
    if kind.has_scale {
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        all.push(("scale", scale, SUB_VERBS.to_vec()));
    }
    if kind.has_status {
        all.push(("status", own, SUB_VERBS.to_vec()));
    }
    all
}

/// Whether a kind has a part of this name.
pub(super) fn has_subresource(kind: &Kind, name: &str) -> bool {
    subresources(kind).iter().any(|(n, _, _)| *n == name)
}

/// The aggregated form (v2): everything of `/api` or `/apis` at once.
pub(super) fn aggregated(core: bool) -> Response<ApiBody> {
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let resources: Vec<Value> = of_group(group).map(aggregated_resource).collect();
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({
                "metadata": metadata,
                "versions": [{"version": version, "freshness": "Current", "resources": resources}],
            })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    body::json_as(StatusCode::OK, AGGREGATED, &list)
}

fn aggregated_resource(kind: KindRef) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short.is_empty() {
        resource["shortNames"] = json!(kind.short);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|(name, kind, verbs)| json!({"subresource": name, "responseKind": kind, "verbs": verbs}))
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}

/// `/api`.
pub(super) fn core_versions() -> Response<ApiBody> {
    body::json(
        StatusCode::OK,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
    )
}

fn group_value(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// `/apis`.
pub(super) fn groups() -> Response<ApiBody> {
    let groups: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| group_value(group, version))
        .collect();
    body::json(
        StatusCode::OK,
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    )
}

/// `/apis/GROUP`.
pub(super) fn group(name: &str) -> Response<ApiBody> {
    let version = group_versions()
        .into_iter()
        .find(|(g, _)| *g == name)
        .map_or("v1", |(_, v)| v);
    let mut group = group_value(name, version);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    body::json(StatusCode::OK, &group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn resources(group: &str, version: &str) -> Response<ApiBody> {
    let mut resources = Vec::new();
    for kind in of_group(group) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs(kind),
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        resources.push(resource);
        for (name, response, verbs) in subresources(kind) {
            let mut resource = json!({
                "name": format!("{}/{name}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": response["kind"],
                "verbs": verbs,
            });
            if response["group"] != kind.group {
                resource["group"] = response["group"].clone();
                resource["version"] = response["version"].clone();
            }
            resources.push(resource);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    body::json(
        StatusCode::OK,
        &json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": resources,
        }),
    )
}

/// `/`.
pub(super) fn paths() -> Response<ApiBody> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, version) in group_versions().into_iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.push(format!("/apis/{group}/{version}"));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    body::json(StatusCode::OK, &json!({"paths": paths}))
}
