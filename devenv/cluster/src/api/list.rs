//! Reading one object, and lists in one piece or in chunks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    Context,
    body::ApiBody,
    call::Call,
    render::{self, ListMeta},
    selectors::{FieldSelector, LabelSelector},
    status::Failure,
};
use crate::{kinds::KindRef, store::Object};

/// Which objects of a kind a request is about.
pub(super) struct Selection {
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn of(call: &Call) -> Result<Selection, Failure> {
        Selection::of_kind(call, call.kind())
    }

    /// The same of another kind of objects than the request names.
    pub fn of_kind(call: &Call, kind: KindRef) -> Result<Selection, Failure> {
        Ok(Selection {
            namespace: Some(call.namespace().to_owned()).filter(|ns| !ns.is_empty()),
            labels: LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(
                kind,
                call.query.get("fieldSelector").unwrap_or_default(),
            )?,
        })
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|ns| ns == object.namespace())
            && self.labels.matches(&object.value()["metadata"]["labels"])
            && self.fields.matches(object.value())
    }

    /// The objects now, and the resourceVersion of now.
    pub fn list(&self, ctx: &Context, kind: KindRef) -> (Vec<Arc<Object>>, u64) {
        let (mut objects, rv) = ctx.store.list(kind, self.namespace.as_deref());
        objects.retain(|o| self.matches(o));
        (objects, rv)
    }
}

/// GET of one object.
pub(super) fn get(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let (kind, name) = (call.kind(), call.name());
    check_version(ctx, call)?;
    let object = ctx
        .store
        .get(kind, call.namespace(), name)
        .ok_or_else(|| Failure::not_found(kind, name))?;
    Ok(render::object(
        call.form,
        StatusCode::OK,
        kind,
        object.value(),
    ))
}

/// Refuses a resourceVersion from the future (of another cluster, or of a lost store).
pub(super) fn check_version(ctx: &Context, call: &Call) -> Result<Option<u64>, Failure> {
    let asked = call.query.number::<u64>("resourceVersion")?;
    let current = ctx.store.resource_version();
    match asked {
        Some(asked) if asked > current => Err(Failure::too_large_version(asked, current)),
        other => Ok(other),
    }
}

/// GET of a collection.
pub(super) fn list(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    let selection = Selection::of(call)?;
    let limit = call.query.number::<usize>("limit")?.filter(|l| *l > 0);
    if let Some(token) = call.query.get("continue") {
        let (objects, rv, skip) = ctx.chunks.resume(token, || selection.list(ctx, kind))?;
        return Ok(chunk(ctx, call, objects, rv, skip, limit));
    }
    let asked = check_version(ctx, call)?;
    let (objects, rv) = selection.list(ctx, kind);
    match (call.query.get("resourceVersionMatch"), asked) {
        // Only the present is kept, and the present may be older than its number says.
        (Some("Exact"), Some(asked)) if asked < rv => return Err(Failure::expired("list")),
        (Some("Exact" | "NotOlderThan"), _) | (None, _) => {}
        (Some(other), _) => {
            return Err(Failure::bad_request(format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            )));
        }
    }
    Ok(chunk(ctx, call, objects, rv, 0, limit))
}

/// The part of a list that begins at `skip`.
fn chunk(
    ctx: &Context,
    call: &Call,
    objects: Vec<Arc<Object>>,
    rv: u64,
    skip: usize,
    limit: Option<usize>,
) -> Response<ApiBody> {
    let end = limit.map_or(objects.len(), |l| (skip + l).min(objects.len()));
    let mut meta = ListMeta {
        resource_version: rv.to_string(),
        ..ListMeta::default()
    };
    let part = objects.get(skip..end).unwrap_or_default().to_vec();
    if end < objects.len() {
        meta.remaining_item_count = Some(objects.len() - end);
        meta.continue_token = Some(ctx.chunks.keep(objects, rv, end));
    }
    render::list(call.form, call.kind(), &part, &meta)
}

/// What a continue token says.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    /// The list that is kept, and from where it goes on.
    list: u64,
    skip: usize,
    /// The last object that was shown, for lists that are no longer kept.
    after: (String, String),
}

impl Token {
    fn encode(&self) -> String {
        // Numbers and strings always have a JSON form.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Lists that are being read in chunks: the objects never change, so keeping one is keeping
/// references. A few at a time, for a while; whoever comes later is told to start again.
#[derive(Debug, Default)]
pub(super) struct Chunks(Mutex<(u64, VecDeque<Kept>)>);

#[derive(Debug)]
struct Kept {
    id: u64,
    rv: u64,
    since: Instant,
    objects: Vec<Arc<Object>>,
}

const KEPT_LISTS: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);

impl Chunks {
    fn keep(&self, objects: Vec<Arc<Object>>, rv: u64, skip: usize) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.1.retain(|k| now.duration_since(k.since) < KEPT_FOR);
        kept.0 += 1;
        let id = kept.0;
        let after = skip
            .checked_sub(1)
            .and_then(|last| objects.get(last))
            .map(|o| (o.namespace().to_owned(), o.name().to_owned()))
            .unwrap_or_default();
        if kept.1.len() == KEPT_LISTS {
            kept.1.pop_front();
        }
        kept.1.push_back(Kept {
            id,
            rv,
            since: now,
            objects,
        });
        let token = Token {
            v: "meta.k8s.io/v1".to_owned(),
            rv: i64::try_from(rv).unwrap_or(i64::MAX),
            list: id,
            skip,
            after,
        };
        token.encode()
    }

    /// The list behind a token: as it was, or, for the token of an expired answer, as it is now.
    fn resume(
        &self,
        token: &str,
        now: impl FnOnce() -> (Vec<Arc<Object>>, u64),
    ) -> Result<(Vec<Arc<Object>>, u64, usize), Failure> {
        let invalid = || {
            Failure::bad_request("continue key is not valid: it was not given out by this server")
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| invalid())?;
        let mut token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        if token.rv < 0 {
            let (objects, rv) = now();
            let skip = objects.partition_point(|o| {
                (o.namespace(), o.name()) <= (token.after.0.as_str(), token.after.1.as_str())
            });
            return Ok((objects, rv, skip));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept
            .1
            .iter()
            .position(|k| k.id == token.list && i64::try_from(k.rv) == Ok(token.rv));
        match at.and_then(|at| kept.1.remove(at)) {
            Some(found) => Ok((found.objects, found.rv, token.skip)),
            None => {
                token.rv = -1;
                Err(Failure::continue_expired(token.encode()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{kinds::CONFIG_MAP, store::Store};

    fn config_maps(count: usize) -> (Store, Vec<Arc<Object>>) {
        let store = Store::in_memory();
        for i in 0..count {
            let value = json!({"metadata": {"name": format!("c{i}"), "namespace": "default"}});
            store.create(&CONFIG_MAP, value).unwrap();
        }
        let objects = store.list(&CONFIG_MAP, None).0;
        (store, objects)
    }

    #[test]
    fn a_list_in_chunks_is_of_one_moment() {
        let (store, objects) = config_maps(5);
        let chunks = Chunks::default();
        let token = chunks.keep(objects.clone(), 7, 2);
        store.delete(&CONFIG_MAP, "default", "c3").unwrap();
        let (resumed, rv, skip) = chunks.resume(&token, || unreachable!()).unwrap();
        assert_eq!((resumed.len(), rv, skip), (5, 7, 2));
    }

    #[test]
    fn whoever_comes_too_late_can_go_on_with_what_is_there() {
        let (store, objects) = config_maps(5);
        let chunks = Chunks::default();
        let token = chunks.keep(objects.clone(), 7, 2);
        for _ in 0..KEPT_LISTS {
            chunks.keep(objects.clone(), 7, 1);
        }
        let expired = chunks.resume(&token, || unreachable!()).unwrap_err();
        assert_eq!((expired.code, expired.reason), (410, "Expired"));
        store.delete(&CONFIG_MAP, "default", "c1").unwrap();
        let now = || store.list(&CONFIG_MAP, None);
        let (objects, _, skip) = chunks
            .resume(&expired.continue_token.unwrap(), now)
            .unwrap();
        assert_eq!(objects[skip].name(), "c2");
        assert_eq!(
            chunks
                .resume("nonsense", || unreachable!())
                .unwrap_err()
                .code,
            400
        );
    }
}
