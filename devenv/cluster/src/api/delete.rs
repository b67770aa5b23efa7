//! Deleting objects, one or many.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Context,
    body::{self, ApiBody},
    call::Call,
    list::Selection,
    render::{self, ListMeta},
    status::{self, Failure},
};
use crate::{
    kinds::{self, KindRef},
    store::{Object, StoreError},
};

/// What a deletion asks for: `DeleteOptions`, from the body or the query.
#[derive(Debug, Default)]
struct Options {
    grace_seconds: Option<i64>,
    uid: Option<String>,
    resource_version: Option<String>,
    orphan: bool,
    dry_run: bool,
}

impl Options {
    fn of(call: &Call) -> Result<Options, Failure> {
        let body = match call.content_type.as_str() {
            _ if call.body.is_empty() => Value::Null,
            "" | "application/json" => call.json()?,
            "application/yaml" => call.yaml()?,
            _ => {
                return Err(Failure::unsupported_media_type(
                    "415: Unsupported Media Type",
                ));
            }
        };
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let policy = text(&body["propagationPolicy"])
            .or_else(|| call.query.get("propagationPolicy").map(str::to_owned));
        let orphan = match policy.as_deref() {
            None | Some("Background" | "Foreground") => body["orphanDependents"] == true,
            Some("Orphan") => true,
            Some(other) => {
                return Err(Failure::bad_request(format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
        };
        let grace_seconds = match call.query.number("gracePeriodSeconds")? {
            Some(seconds) => Some(seconds),
            None => body["gracePeriodSeconds"].as_i64(),
        };
        Ok(Options {
            grace_seconds,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            orphan,
            dry_run: call.query.dry_run()? || body["dryRun"] == json!(["All"]),
        })
    }

    fn check(&self, object: &Object) -> Result<(), Failure> {
        let checks = [
            ("UID", &self.uid, object.uid().to_owned()),
            (
                "ResourceVersion",
                &self.resource_version,
                object.resource_version().to_string(),
            ),
        ];
        for (what, wanted, is) in checks {
            if let Some(wanted) = wanted
                && *wanted != is
            {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been deleted and then recreated"
                );
                return Err(Failure::precondition(object.kind(), object.name(), &why));
            }
        }
        Ok(())
    }
}

/// DELETE of one object.
pub(super) async fn delete(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let options = Options::of(call)?;
    let kind = call.kind();
    let object = ctx
        .store
        .get(kind, call.namespace(), call.name())
        .ok_or_else(|| Failure::not_found(kind, call.name()))?;
    options.check(&object)?;
    if options.dry_run {
        return Ok(render::object(
            call.form,
            StatusCode::OK,
            kind,
            object.value(),
        ));
    }
    let (last, gone) = delete_one(ctx, &object, &options)?;
    ctx.store.durable(last.resource_version()).await?;
    // Kubernetes shows an object that is only marked, and answers a plain success for one that is
    // gone; except pods, which it always shows.
    if gone && kind != &kinds::POD {
        return Ok(body::json(
            StatusCode::OK,
            &status::deleted(kind, last.name(), last.uid()),
        ));
    }
    Ok(render::object(
        call.form,
        StatusCode::OK,
        kind,
        last.value(),
    ))
}

/// DELETE of a collection.
pub(super) async fn delete_many(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    if kind.namespaced && call.namespace().is_empty() || kind == &kinds::NAMESPACE {
        return Err(Failure::method_not_allowed());
    }
    let options = Options::of(call)?;
    let (objects, rv) = Selection::of(call)?.list(ctx, kind);
    let mut newest = rv;
    if !options.dry_run {
        for object in &objects {
            match delete_one(ctx, object, &options) {
                Ok((last, _)) => newest = newest.max(last.resource_version()),
                // Someone else deleted it meanwhile.
                Err(e) if e.reason == "NotFound" => {}
                Err(e) => return Err(e),
            }
        }
        ctx.store.durable(newest).await?;
    }
    let meta = ListMeta {
        resource_version: newest.to_string(),
        ..ListMeta::default()
    };
    Ok(render::list(call.form, kind, &objects, &meta))
}

/// Deletes or marks; returns the last state and whether it is gone.
fn delete_one(
    ctx: &Context,
    object: &Object,
    options: &Options,
) -> Result<(std::sync::Arc<Object>, bool), Failure> {
    let (kind, ns, name) = (object.kind(), object.namespace(), object.name());
    if kind == &kinds::NAMESPACE && name == "default" {
        return Err(Failure::forbidden(
            kind,
            name,
            "this namespace may not be deleted",
            None,
        ));
    }
    if options.orphan {
        orphan(ctx, object)?;
    }
    if kind == &kinds::NAMESPACE {
        // Its contents go first; whoever collects them removes the namespace in the end.
        ctx.store.mark_deleted(kind, ns, name, 0)?;
        let marked = ctx.store.update(kind, ns, name, |namespace| {
            namespace["status"]["phase"] = json!("Terminating");
            Ok(())
        })?;
        return Ok((marked, false));
    }
    let grace = if kind == &kinds::POD {
        pod_grace(object.value(), options)
    } else {
        0
    };
    let finalizers = object.value()["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    if grace > 0 || finalizers {
        return Ok((ctx.store.mark_deleted(kind, ns, name, grace)?, false));
    }
    Ok((ctx.store.delete(kind, ns, name)?, true))
}

/// How long a pod may take to end: as asked, else as its spec says; nothing runs in a pod that was
/// never placed or has ended.
fn pod_grace(pod: &Value, options: &Options) -> i64 {
    let placed = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|n| !n.is_empty());
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !placed || ended {
        return 0;
    }
    options
        .grace_seconds
        .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}

/// Takes the owner's reference out of everything that it owns, so that it stays.
fn orphan(ctx: &Context, owner: &Object) -> Result<(), Failure> {
    let owned = |value: &Value| {
        value["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|refs| refs.iter().any(|r| r["uid"] == owner.uid()))
    };
    for kind in kinds::ALL
        .iter()
        .copied()
        .filter(|k: &KindRef| k.namespaced)
    {
        for object in ctx.store.list(kind, Some(owner.namespace())).0 {
            if !owned(object.value()) {
                continue;
            }
            let freed = ctx
                .store
                .update(kind, object.namespace(), object.name(), |value| {
                    if let Some(refs) = value["metadata"]["ownerReferences"].as_array_mut() {
                        refs.retain(|r| r["uid"] != owner.uid());
                    }
                    Ok(())
                });
            match freed {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}
