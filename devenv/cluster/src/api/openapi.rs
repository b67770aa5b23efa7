//! The OpenAPI v3 documents that `kubectl apply` asks for before it sends anything.
//!
//! They say which kinds there are and that the server checks fields itself (`fieldValidation`);
//! the schemas leave the fields open. Strategic merge is not listed among the forms of patches, so
//! that kubectl takes the merge keys from its own types instead of from these schemas.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    body::{self, ApiBody},
    route::group_versions,
};
use crate::kinds::{self, Kind};

fn base(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `/openapi/v3`: where the documents are.
pub(super) fn index() -> Response<ApiBody> {
    let paths: Map<String, Value> = group_versions()
        .into_iter()
        .map(|(group, version)| {
            let base = base(group, version);
            // The hash lets clients keep what they have fetched: the documents change with devenv.
            let url = format!("/openapi/v3/{base}?hash={}", env!("CARGO_PKG_VERSION"));
            (base, json!({"serverRelativeURL": url}))
        })
        .collect();
    body::json(StatusCode::OK, &json!({"paths": paths}))
}

/// One group's document.
pub(super) fn document(group: &str, version: &str) -> Response<ApiBody> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds::ALL
        .into_iter()
        .filter(|k| k.group == group && k.version == version)
    {
        let scope = if kind.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let collection = format!("/{}/{scope}{}", base(group, version), kind.plural);
        paths.insert(format!("{collection}/{{name}}"), object_path(kind));
        paths.insert(
            collection,
            json!({"post": operation(kind, "post", "application/json")}),
        );
        schemas.insert(schema_name(kind), schema(kind));
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "devenv", "version": "v1.34.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    body::json(StatusCode::OK, &document)
}

fn schema_name(kind: &Kind) -> String {
    let group = if kind.group.is_empty() {
        "core"
    } else {
        kind.group
    };
    format!("{group}.{}.{}", kind.version, kind.kind)
}

fn group_version_kind(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn operation(kind: &Kind, action: &str, content_type: &str) -> Value {
    let reference =
        json!({"schema": {"$ref": format!("#/components/schemas/{}", schema_name(kind))}});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    json!({
        "operationId": format!("{action}{}{}", kind.version, kind.kind),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(kind),
        "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
        "requestBody": {"content": {content_type: reference}},
        "responses": {"200": {"description": "OK", "content": {"application/json": reference}}},
    })
}

fn object_path(kind: &Kind) -> Value {
    let reference =
        json!({"schema": {"$ref": format!("#/components/schemas/{}", schema_name(kind))}});
    json!({
        "get": {
            "operationId": format!("read{}{}", kind.version, kind.kind),
            "x-kubernetes-action": "get",
            "x-kubernetes-group-version-kind": group_version_kind(kind),
            "responses": {"200": {"description": "OK", "content": {"application/json": reference}}},
        },
        "put": operation(kind, "put", "application/json"),
        "patch": operation(kind, "patch", "application/apply-patch+yaml"),
    })
}

fn schema(kind: &Kind) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "type": "object",
        "description": format!("{} of {}; devenv checks its fields when it is written.", kind.kind, kind.api_version()),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": open,
            "spec": open,
        },
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [group_version_kind(kind)],
    })
}
