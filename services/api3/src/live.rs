//! Telling the pages over Socket.IO what is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::layer::SocketIoLayer;
use telemetry::read::{Page, page};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::feed::{Away, Feed};
use crate::tally::WINDOW_S;

/// How often the database is looked at while somebody looks on.
const LOOK_EVERY: Duration = Duration::from_millis(75);

/// `metrics-update` comes no more often than this.
const UPDATE_AT_MOST: Duration = Duration::from_millis(250);

/// It comes at rest as well, and so does `split-update`.
const AT_REST: Duration = Duration::from_secs(1);

/// The first and the longest pause before the database is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// Most records of one `request-metrics`, and how many without a number.
const MAX_HISTORY: u32 = 500;
const HISTORY: u32 = 100;

/// Those who look on.
#[derive(Debug, Clone, Default)]
pub struct Audience(Arc<AudienceInner>);

#[derive(Debug, Default)]
struct AudienceInner {
    connected: AtomicUsize,
    came: Notify,
}

impl Audience {
    fn enter(&self) {
        self.0.connected.fetch_add(1, Ordering::Relaxed);
        self.0.came.notify_one();
    }

    fn leave(&self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until somebody is there.
    async fn wait(&self) {
        while self.0.connected.load(Ordering::Relaxed) == 0 {
            self.0.came.notified().await;
        }
    }
}

/// The payload of `metrics-error`.
#[derive(Debug, Serialize)]
struct MetricsError {
    message: String,
    retry_in_ms: u64,
}

impl MetricsError {
    fn new(away: &Away, retry_in: Duration) -> Self {
        Self {
            message: away.to_string(),
            retry_in_ms: retry_in.as_millis() as u64,
        }
    }
}

/// Socket.IO on its usual path, and what happens when a page comes.
pub fn socket_layer(feed: Arc<Feed>, audience: Audience) -> (SocketIoLayer, SocketIo) {
    let (layer, io) = SocketIo::builder()
        // Pages send requests of a few bytes.
        .max_payload(64 << 10)
        .ws_max_message_size(64 << 10)
        .ws_max_frame_size(64 << 10)
        .ws_read_buffer_size(4 << 10)
        .build_layer();
    io.ns("/", async move |socket: SocketRef| {
        audience.enter();
        let leaving = audience.clone();
        socket.on_disconnect(async move || leaving.leave());
        let asked = feed.clone();
        socket.on(
            "request-metrics",
            async move |socket: SocketRef, data: TryData<Value>, ack: AckSender| {
                history(&asked, &socket, data.0.ok(), ack).await;
            },
        );
        greet(&feed, &socket).await;
    });
    (layer, io)
}

/// What a page is told at once.
async fn greet(feed: &Feed, socket: &SocketRef) {
    // A page that went away meanwhile needs no answer: errors of emit are dropped.
    match feed.snapshot(LOOK_EVERY).await {
        Ok(snapshot) => {
            let _ = socket.emit("metrics-update", &snapshot);
            let _ = socket.emit("split-update", &snapshot.split(WINDOW_S));
        }
        Err(away) => {
            let _ = socket.emit("metrics-error", &MetricsError::new(&away, RETRY_FIRST));
        }
    }
}

/// Answers `request-metrics` with the newest records, newest first; with
/// `{error}` when they can't be had, which `metrics-error` says as well.
async fn history(feed: &Feed, socket: &SocketRef, data: Option<Value>, ack: AckSender) {
    let limit = match data.as_ref().and_then(|d| d.get("limit")) {
        None | Some(Value::Null) => HISTORY,
        Some(limit) => match limit.as_u64() {
            Some(limit @ 1..) => limit.min(u64::from(MAX_HISTORY)) as u32,
            _ => {
                let message = format!("limit is {limit}; expected 1 to {MAX_HISTORY}");
                let _ = ack.send(&json!({ "error": { "message": message } }));
                return;
            }
        },
    };
    match page(feed.db(), Page { limit, after: None }).await {
        Ok(page) => {
            let _ = ack.send(&page.records);
        }
        Err(error) => {
            let error = MetricsError::new(&error.into(), RETRY_FIRST);
            let _ = socket.emit("metrics-error", &error);
            let _ = ack.send(&json!({ "error": error }));
        }
    }
}

/// Looks at the database while somebody looks on, and tells all of them.
pub async fn broadcast(io: &SocketIo, feed: &Feed, audience: &Audience) {
    let mut told = Told::default();
    let mut retry_in = RETRY_FIRST;
    loop {
        audience.wait().await;
        let pause = match feed.snapshot(Duration::ZERO).await {
            Ok(snapshot) => {
                retry_in = RETRY_FIRST;
                let now = Instant::now();
                if told.update_is_due(snapshot.version, now) {
                    let _ = io.emit("metrics-update", &snapshot).await;
                }
                if told.split_is_due(now) {
                    let _ = io.emit("split-update", &snapshot.split(WINDOW_S)).await;
                }
                LOOK_EVERY
            }
            Err(away) => {
                let _ = io
                    .emit("metrics-error", &MetricsError::new(&away, retry_in))
                    .await;
                let pause = retry_in;
                retry_in = (retry_in * 2).min(RETRY_LONGEST);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// When all were told what.
#[derive(Debug, Default)]
struct Told {
    update: Option<(Instant, u64)>,
    split: Option<Instant>,
}

impl Told {
    /// Whether `metrics-update` is due, which is then taken as sent.
    fn update_is_due(&mut self, version: u64, now: Instant) -> bool {
        let due = self.update.is_none_or(|(at, last)| {
            let pause = if version == last {
                AT_REST
            } else {
                UPDATE_AT_MOST
            };
            now >= at + pause
        });
        if due {
            self.update = Some((now, version));
        }
        due
    }

    fn split_is_due(&mut self, now: Instant) -> bool {
        let due = self.split.is_none_or(|at| now >= at + AT_REST);
        if due {
            self.split = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_come_when_rows_do_but_not_too_often_and_at_rest() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut told = Told::default();
        assert!(told.update_is_due(1, at(0)));
        assert!(!told.update_is_due(2, at(249)), "new rows wait");
        assert!(told.update_is_due(2, at(250)));
        assert!(!told.update_is_due(2, at(1249)), "nothing new");
        assert!(told.update_is_due(2, at(1250)), "at rest");
        assert!(told.split_is_due(at(0)));
        assert!(!told.split_is_due(at(999)));
        assert!(told.split_is_due(at(1000)));
    }

    #[tokio::test]
    async fn nobody_there_means_nobody_asks() {
        let audience = Audience::default();
        let patience = Duration::from_millis(20);
        assert!(
            tokio::time::timeout(patience, audience.wait())
                .await
                .is_err()
        );
        audience.enter();
        assert!(
            tokio::time::timeout(patience, audience.wait())
                .await
                .is_ok()
        );
        audience.leave();
        assert!(
            tokio::time::timeout(patience, audience.wait())
                .await
                .is_err()
        );
    }
}
