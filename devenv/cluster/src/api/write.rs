//! Creating, replacing, patching and scaling objects.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header::WARNING};
use serde_json::{Value, json};

use super::{
    Context,
    admit::{self, Scope},
    body::{self, ApiBody},
    call::Call,
    managed, patch, render, schema,
    status::{Cause, Failure},
};
use crate::{
    kinds::{self, KindRef},
    store::Object,
};

/// What a write led to: stored, or, in a dry run, only thought through.
enum Outcome {
    Stored(Arc<Object>),
    Dry(Value),
}

impl Outcome {
    fn value(&self) -> &Value {
        match self {
            Outcome::Stored(object) => object.value(),
            Outcome::Dry(value) => value,
        }
    }
}

/// Waits for the disk, then answers.
async fn answer(
    ctx: &Context,
    call: &Call,
    code: StatusCode,
    outcome: Outcome,
    warnings: &[String],
) -> Result<Response<ApiBody>, Failure> {
    if let Outcome::Stored(object) = &outcome {
        ctx.store.durable(object.resource_version()).await?;
    }
    let mut response = render::object(call.form, code, call.kind(), outcome.value());
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}

fn scope(call: &Call) -> Scope {
    if call.target.subresource.as_deref() == Some("status") {
        Scope::Status
    } else {
        Scope::Main
    }
}

/// POST to a collection.
pub(super) async fn create(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    let mut value = call.object()?;
    let unknown = admit::typed(kind, &mut value)?;
    let warnings = call.unknown_fields(unknown)?;
    if kind.namespaced {
        if call.namespace().is_empty() {
            // A namespaced object is created in its namespace, not across all of them.
            return Err(Failure::method_not_allowed());
        }
        value["metadata"]["namespace"] = json!(call.namespace());
    }
    if !value["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let outcome = store_new(ctx, call, value, |value| {
        managed::track(kind, None, value, &call.manager());
        Ok(())
    })?;
    answer(ctx, call, StatusCode::CREATED, outcome, &warnings).await
}

/// Completes, checks and stores a new object. `last` sees it before it is stored.
fn store_new(
    ctx: &Context,
    call: &Call,
    mut value: Value,
    last: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let kind = call.kind();
    admit::check_namespace(&ctx.store, kind, &value)?;
    admit::prepare_new(kind, &mut value)?;
    last(&mut value)?;
    if call.query.dry_run()? {
        let (ns, name) = (
            call.namespace(),
            value["metadata"]["name"].as_str().unwrap_or_default(),
        );
        if ctx.store.get(kind, ns, name).is_some() {
            return Err(Failure::already_exists(kind, name));
        }
        value["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        value["metadata"]["creationTimestamp"] =
            json!(crate::store::timestamp(jiff::Timestamp::now()));
        return Ok(Outcome::Dry(value));
    }
    admit::store_new(&ctx.store, kind, value).map(Outcome::Stored)
}

/// Reads, changes and writes one object, or only pretends to.
fn change(
    ctx: &Context,
    call: &Call,
    f: impl FnOnce(&Value, &[Arc<Object>]) -> Result<Value, Failure>,
) -> Result<Outcome, Failure> {
    let (kind, ns, name) = (call.kind(), call.namespace(), call.name());
    // A Service may need an address: nobody else is given one meanwhile.
    let allocation = (kind == &kinds::SERVICE).then(|| ctx.store.allocation());
    let services = if allocation.is_some() {
        ctx.store.list(kind, None).0
    } else {
        Vec::new()
    };
    if call.query.dry_run()? {
        let current = ctx
            .store
            .get(kind, ns, name)
            .ok_or_else(|| Failure::not_found(kind, name))?;
        return f(current.value(), &services).map(Outcome::Dry);
    }
    ctx.store
        .update_with(kind, ns, name, |value| {
            *value = f(value, &services)?;
            Ok(())
        })
        .map(Outcome::Stored)
}

/// PUT of an object or its status.
pub(super) async fn replace(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    let mut new = call.object()?;
    let unknown = admit::typed(kind, &mut new)?;
    let warnings = call.unknown_fields(unknown)?;
    let scope = scope(call);
    let outcome = change(ctx, call, |old, services| {
        call.check_version(old, &new)?;
        admit::prepare_update(kind, old, &mut new, scope, services)?;
        managed::track(kind, Some(old), &mut new, &call.manager());
        Ok(new)
    })?;
    answer(ctx, call, StatusCode::OK, outcome, &warnings).await
}

/// PATCH of an object or its status, in any of the four forms.
pub(super) async fn patch(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    if call.content_type == APPLY {
        return apply(ctx, call).await;
    }
    let patch = Patch::parse(call)?;
    let scope = scope(call);
    let mut warnings = Vec::new();
    let outcome = change(ctx, call, |old, services| {
        let mut new = old.clone();
        patch.apply(kind, &mut new)?;
        call.check_version(old, &new)?;
        let unknown = admit::typed(kind, &mut new).map_err(|e| patch.wrong_type(e))?;
        warnings = call.unknown_fields(unknown)?;
        admit::prepare_update(kind, old, &mut new, scope, services)?;
        managed::track(kind, Some(old), &mut new, &call.manager());
        Ok(new)
    })?;
    answer(ctx, call, StatusCode::OK, outcome, &warnings).await
}

const APPLY: &str = "application/apply-patch+yaml";

/// A patch that is no apply.
enum Patch {
    Merge(Value),
    Json(Value),
    Strategic(Value),
}

impl Patch {
    fn parse(call: &Call) -> Result<Patch, Failure> {
        let form = match call.content_type.as_str() {
            "application/merge-patch+json" => Patch::Merge,
            "application/json-patch+json" => Patch::Json,
            // Only Kubernetes' own types have merge keys.
            "application/strategic-merge-patch+json"
                if !call.kind().group.ends_with("knative.dev") =>
            {
                Patch::Strategic
            }
            _ => {
                return Err(Failure::unsupported_media_type(
                    "415: Unsupported Media Type",
                ));
            }
        };
        let value = serde_json::from_slice(&call.body)
            .map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")))?;
        Ok(form(value))
    }

    fn apply(&self, kind: KindRef, target: &mut Value) -> Result<(), Failure> {
        match self {
            Patch::Merge(patch) if patch.is_object() => {
                patch::merge(target, patch);
                Ok(())
            }
            Patch::Merge(_) => Err(Failure::bad_request(
                "error decoding patch: an object is expected",
            )),
            Patch::Json(patch) => patch::json_patch(target, patch.clone()),
            Patch::Strategic(patch) => patch::strategic(target, patch, schema::of(kind)),
        }
    }

    /// A value of a wrong type is the patch's fault, which Kubernetes says so for this form.
    fn wrong_type(&self, failure: Failure) -> Failure {
        match self {
            Patch::Strategic(patch) => {
                let cause = Cause::invalid(
                    "patch",
                    &format!("{:?}", patch.to_string()),
                    &failure.message,
                );
                Failure::invalid_as("", "", "", "", &[cause])
            }
            _ => failure,
        }
    }
}

/// Server-side apply.
async fn apply(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    let manager = call.apply_manager()?;
    let force = call.query.flag("force");
    let mut applied = call.yaml()?;
    call.check_identity(&applied)?;
    if applied["apiVersion"].is_null() || applied["kind"].is_null() {
        return Err(Failure::bad_request(
            "invalid object type: apiVersion and kind must be set in an apply patch",
        ));
    }
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let unknown = admit::typed(kind, &mut applied)?;
    let warnings = call.unknown_fields(unknown)?;
    let scope = scope(call);
    match (scope, applied.as_object_mut()) {
        (Scope::Status, Some(applied)) => {
            applied
                .retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
                metadata.retain(|k, _| {
                    matches!(k.as_str(), "name" | "namespace" | "uid" | "resourceVersion")
                });
            }
        }
        (Scope::Main, Some(applied)) if kind.has_status => {
            applied.remove("status");
        }
        _ => {}
    }
    applied["metadata"]["name"] = json!(call.name());
    if kind.namespaced {
        applied["metadata"]["namespace"] = json!(call.namespace());
    }

    loop {
        if ctx.store.get(kind, call.namespace(), call.name()).is_none() {
            if scope == Scope::Status {
                return Err(Failure::not_found(kind, call.name()));
            }
            let mut new = managed::apply(kind, None, &applied, &manager, force)?;
            if let Some(metadata) = new["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            match store_new(ctx, call, new, |_| Ok(())) {
                // Someone else was faster: then it is an update.
                Err(e) if e.reason == "AlreadyExists" => continue,
                other => return answer(ctx, call, StatusCode::CREATED, other?, &warnings).await,
            }
        }
        let outcome = change(ctx, call, |old, services| {
            call.check_version(old, &applied)?;
            let mut new = managed::apply(kind, Some(old), &applied, &manager, force)?;
            admit::prepare_update(kind, old, &mut new, scope, services)?;
            Ok(new)
        });
        match outcome {
            // It was deleted meanwhile: then it is new.
            Err(e) if e.reason == "NotFound" && scope == Scope::Main => {}
            other => return answer(ctx, call, StatusCode::OK, other?, &warnings).await,
        }
    }
}

/// The `Scale` of a Deployment or a ReplicaSet.
fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": render::selector_text(&object["spec"]["selector"]),
        },
    });
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        scale["metadata"][field] = metadata[field].clone();
    }
    scale
}

/// GET, PUT and PATCH of `/scale`.
pub(super) async fn scale(
    ctx: &Context,
    call: &Call,
    method: &http::Method,
) -> Result<Response<ApiBody>, Failure> {
    let (kind, name) = (call.kind(), call.name());
    let current = ctx
        .store
        .get(kind, call.namespace(), name)
        .ok_or_else(|| Failure::not_found(kind, name))?;
    if *method == http::Method::GET {
        return Ok(body::json(StatusCode::OK, &scale_of(current.value())));
    }
    let outcome = change(ctx, call, |old, services| {
        let scale = if *method == http::Method::PUT {
            call.json()?
        } else {
            let mut scale = scale_of(old);
            match call.content_type.as_str() {
                "application/json-patch+json" => patch::json_patch(&mut scale, call.json()?)?,
                // A Scale has neither lists nor foreign owners: the three other forms are one.
                "application/merge-patch+json"
                | "application/strategic-merge-patch+json"
                | APPLY => {
                    patch::merge(&mut scale, &call.yaml()?);
                }
                _ => {
                    return Err(Failure::unsupported_media_type(
                        "415: Unsupported Media Type",
                    ));
                }
            }
            scale
        };
        call.check_version(old, &scale)?;
        let replicas = &scale["spec"]["replicas"];
        if !replicas.is_null()
            && replicas
                .as_i64()
                .is_none_or(|n| !(0..=i64::from(i32::MAX)).contains(&n))
        {
            let cause = Cause::invalid(
                "spec.replicas",
                &replicas.to_string(),
                "must be greater than or equal to 0",
            );
            return Err(Failure::invalid_as(
                "Scale.autoscaling",
                "autoscaling",
                "Scale",
                name,
                &[cause],
            ));
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas.as_i64().unwrap_or(0));
        admit::prepare_update(kind, old, &mut new, Scope::Main, services)?;
        managed::track(kind, Some(old), &mut new, &call.manager());
        Ok(new)
    })?;
    if let Outcome::Stored(object) = &outcome {
        ctx.store.durable(object.resource_version()).await?;
    }
    Ok(body::json(StatusCode::OK, &scale_of(outcome.value())))
}
