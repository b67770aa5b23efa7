//! Watches over HTTP: one JSON line per change.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::{
    Context,
    body::{self, ApiBody},
    call::Call,
    list::{self, Selection},
    render::{self, ListMeta},
    route::Form,
    status::Failure,
};
use crate::{
    kinds::KindRef,
    store::{Change, Object, StoreError, Watch, WatchEvent},
};

/// How often a quiet watch is told how far it is, so that it can go on from there.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a watch lasts when it does not say; Kubernetes takes 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// GET of a collection with `watch`.
pub(super) fn watch(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    let mut selection = Selection::of(call)?;
    if let Some(name) = &call.target.name {
        // Watching one object by its path.
        let only = format!("metadata.name={name}");
        selection.fields = super::selectors::FieldSelector::parse(kind, &only)?;
    }
    let asked = list::check_version(ctx, call)?;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let send_initial =
        call.query.get("sendInitialEvents").is_some() && call.query.flag("sendInitialEvents");
    if send_initial && call.query.get("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(Failure::bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let timeout = call
        .query
        .number::<u64>("timeoutSeconds")?
        .filter(|s| *s > 0)
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);

    let explicit_off = call.query.get("sendInitialEvents").is_some() && !send_initial;
    let mut lines = Encoder {
        kind,
        form: call.form,
        first: true,
    };
    let mut ready = VecDeque::new();
    let from = match asked.filter(|rv| *rv > 0) {
        Some(rv) if !send_initial => rv,
        None if explicit_off => ctx.store.resource_version(),
        // What is there now comes first, as if it had just been made.
        _ => {
            let (objects, rv) = selection.list(ctx, kind);
            for object in &objects {
                ready.push_back(lines.event("ADDED", object.value()));
            }
            if send_initial && bookmarks {
                ready.push_back(lines.bookmark(rv, true));
            }
            rv
        }
    };
    let watch = match ctx.store.watch(&[kind], Some(from)) {
        Ok(watch) => Some(watch),
        Err(e) => {
            ready.push_back(error(&e.into()));
            None
        }
    };
    let start = Instant::now();
    let mut ticks = interval_at(start + BOOKMARK_EVERY, BOOKMARK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = State {
        ready,
        watch,
        selection,
        lines,
        bookmarks,
        ticks,
        end: start + timeout,
    };
    let closed = ctx.closing.clone().cancelled_owned();
    let lines = stream::unfold(state, State::next).take_until(closed);
    Ok(body::stream("application/json", lines))
}

struct State {
    ready: VecDeque<Bytes>,
    /// `None` after its end.
    watch: Option<Watch>,
    selection: Selection,
    lines: Encoder,
    bookmarks: bool,
    ticks: tokio::time::Interval,
    end: Instant,
}

impl State {
    async fn next(mut self) -> Option<(Bytes, State)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((line, self));
            }
            let watch = self.watch.as_mut()?;
            tokio::select! {
                biased;
                event = watch.next() => match event {
                    Ok(event) => self.ready.extend(self.lines.change(&self.selection, &event)),
                    Err(StoreError::Closed) => self.watch = None,
                    Err(e) => {
                        self.ready.push_back(error(&e.into()));
                        self.watch = None;
                    }
                },
                _ = self.ticks.tick(), if self.bookmarks => {
                    let seen = watch.seen();
                    self.ready.push_back(self.lines.bookmark(seen, false));
                }
                () = sleep_until(self.end) => self.watch = None,
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    Bytes::from(line)
}

fn error(failure: &Failure) -> Bytes {
    line("ERROR", &failure.value())
}

/// Writes events in the form that the client asked for.
struct Encoder {
    kind: KindRef,
    form: Form,
    /// Only the first table defines its columns.
    first: bool,
}

impl Encoder {
    fn event(&mut self, change: &str, value: &Value) -> Bytes {
        match self.form {
            Form::Json => line(change, value),
            Form::Metadata => line(change, &render::metadata(value)),
            Form::Table(rows) => {
                let rv = value["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or_default();
                let meta = ListMeta {
                    resource_version: rv.to_owned(),
                    ..ListMeta::default()
                };
                let first = std::mem::take(&mut self.first);
                line(
                    change,
                    &render::table(self.kind, std::iter::once(value), &meta, rows, first),
                )
            }
        }
    }

    fn bookmark(&mut self, rv: u64, initial_end: bool) -> Bytes {
        let mut object = json!({
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": rv.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Json => line("BOOKMARK", &object),
            Form::Metadata => line("BOOKMARK", &render::metadata(&object)),
            Form::Table(_) => {
                let meta = ListMeta {
                    resource_version: rv.to_string(),
                    ..ListMeta::default()
                };
                let first = std::mem::take(&mut self.first);
                let mut table = render::table(
                    self.kind,
                    std::iter::empty(),
                    &meta,
                    super::route::RowObject::None,
                    first,
                );
                table["rows"] = json!([{"cells": [], "object": render::metadata(&object)}]);
                line("BOOKMARK", &table)
            }
        }
    }

    /// What a change means to someone who sees only the selected objects: one that leaves the
    /// selection is deleted for them, one that enters is new.
    fn change(&mut self, selection: &Selection, event: &WatchEvent) -> Option<Bytes> {
        let now = event.change != Change::Deleted && selection.matches(&event.object);
        let before = event
            .previous
            .as_ref()
            .is_some_and(|p: &Arc<Object>| selection.matches(p));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(self.event("ADDED", event.object.value())),
            (true, true) => Some(self.event("MODIFIED", event.object.value())),
            (true, false) => {
                let last = match &event.previous {
                    // As it was when it was still selected, but with the number of this change.
                    Some(previous) if event.change != Change::Deleted => {
                        let mut last = previous.value().clone();
                        last["metadata"]["resourceVersion"] =
                            json!(event.resource_version.to_string());
                        last
                    }
                    _ => event.object.value().clone(),
                };
                Some(self.event("DELETED", &last))
            }
        }
    }
}
