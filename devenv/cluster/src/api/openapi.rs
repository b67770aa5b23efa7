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
        // What nobody writes needs no schema.
        .filter(|(group, _)| kinds::ALL.iter().any(|kind| kind.group == *group))
        .map(|(group, version)| {
            let base = base(group, version);
            // The hash lets clients keep what they have fetched: the documents change with devenv.
            let url = format!("/openapi/v3/{base}?hash={}", env!("CARGO_PKG_VERSION"));
            (base, json!({"serverRelativeURL": url}))
        })
        .collect();
    body::json(StatusCode::OK, &json!({"paths": paths}))
}

/// As Kubernetes answers: clients ask with an `@` before the `v1.0`, which is no legal media type.
const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`, which kubectl up to 1.28 reads before every apply: a document without
/// definitions, so that it too takes the merge keys from its own types. Protobuf is the one form
/// that it understands.
pub(super) fn document_v2() -> Response<ApiBody> {
    /// A length-delimited field; everything in here is shorter than 128 bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }
    let info = [field(1, b"devenv"), field(2, b"v1.34.0")].concat();
    let document = [field(1, b"2.0"), field(2, &info), field(8, b"")].concat();
    body::bytes(StatusCode::OK, V2, document)
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
