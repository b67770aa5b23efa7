//! Objects in the form that the client asked for.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    body::{self, ApiBody},
    route::{Form, RowObject},
    table,
};
use crate::{kinds::KindRef, store::Object};

/// One object.
pub(super) fn object(
    form: Form,
    code: StatusCode,
    kind: KindRef,
    value: &Value,
) -> Response<ApiBody> {
    match form {
        Form::Json => body::json(code, value),
        Form::Metadata => body::json(code, &metadata(value)),
        Form::Table(rows) => {
            let list = ListMeta {
                resource_version: text(&value["metadata"]["resourceVersion"]),
                ..ListMeta::default()
            };
            body::json(
                code,
                &table(kind, std::iter::once(value), &list, rows, true),
            )
        }
    }
}

/// The metadata of a list.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T> {
    kind: String,
    api_version: String,
    metadata: &'a ListMeta,
    items: Vec<T>,
}

/// Many objects.
pub(super) fn list(
    form: Form,
    kind: KindRef,
    objects: &[Arc<Object>],
    meta: &ListMeta,
) -> Response<ApiBody> {
    values(form, kind, objects.iter().map(|o| o.value()), meta)
}

/// The same of objects that are not stored.
pub(super) fn values<'a>(
    form: Form,
    kind: KindRef,
    values: impl Iterator<Item = &'a Value>,
    meta: &ListMeta,
) -> Response<ApiBody> {
    match form {
        Form::Json => body::json(
            StatusCode::OK,
            &List {
                kind: format!("{}List", kind.kind),
                api_version: kind.api_version(),
                metadata: meta,
                items: values.collect::<Vec<&Value>>(),
            },
        ),
        Form::Metadata => body::json(
            StatusCode::OK,
            &List {
                kind: "PartialObjectMetadataList".to_owned(),
                api_version: "meta.k8s.io/v1".to_owned(),
                metadata: meta,
                items: values.map(metadata).collect::<Vec<Value>>(),
            },
        ),
        Form::Table(rows) => body::json(StatusCode::OK, &table(kind, values, meta, rows, true)),
    }
}

/// An object's metadata alone.
pub(super) fn metadata(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value["metadata"],
    })
}

/// A table; `definitions` only in the first of a watch.
pub(super) fn table<'a>(
    kind: KindRef,
    values: impl Iterator<Item = &'a Value>,
    meta: &ListMeta,
    rows: RowObject,
    definitions: bool,
) -> Value {
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = values
        .map(|value| {
            let mut row = json!({"cells": table::cells(kind, value, now)});
            match rows {
                RowObject::Metadata => row["object"] = metadata(value),
                RowObject::Object => row["object"] = value.clone(),
                RowObject::None => {}
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": if definitions { table::definitions(kind) } else { Value::Null },
        "rows": rows,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A label selector as text: `app=web,tier in (a,b)`; `<none>` is left to the caller.
pub(super) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = text(&expression["key"]);
        let values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    parts.join(",")
}
