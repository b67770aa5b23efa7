//! Requests that are held until their service has endpoints.
//!
//! The wait comes before the body is taken in: until then what is left of the
//! body stays with the client, so that a held request costs little more than
//! its connection. Only one that was sent in vain may have its small body in
//! memory; those bytes are bounded as well.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::client::{ClientState, Order};
use super::live::{Chosen, Live};
use super::worker::Worker;
use crate::table::UpstreamId;

/// Bounds of holding requests for services whose endpoints are on the way
/// ([`Upstream::coming`](crate::Upstream::coming)). Past any of them a request
/// is answered 503 with `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldLimits {
    /// Longest time that one request is held, in all.
    pub patience: Duration,
    /// How long a request whose endpoints all failed waits for a new table when
    /// nothing says that one is coming: whoever removes a pod that has just died
    /// needs a moment to notice.
    pub settle: Duration,
    /// Requests held at the same time.
    pub requests: usize,
    /// Bytes of request bodies that are in memory because of it.
    pub body_bytes: usize,
}

impl Default for HoldLimits {
    /// 30 s, half a second, 10,000 requests, 64 MiB.
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(30),
            settle: Duration::from_millis(500),
            requests: 10_000,
            body_bytes: 64 << 20,
        }
    }
}

/// What all workers hold together.
#[derive(Debug)]
pub(super) struct Holding {
    limits: HoldLimits,
    requests: AtomicUsize,
    body_bytes: AtomicUsize,
}

impl Holding {
    pub fn new(limits: HoldLimits) -> Self {
        Self {
            limits,
            requests: AtomicUsize::new(0),
            body_bytes: AtomicUsize::new(0),
        }
    }

    /// Whether there is room for one more request, which is then counted.
    fn enter(&self, body_bytes: usize) -> bool {
        let requests = self.requests.fetch_add(1, Ordering::AcqRel);
        let bytes = self.body_bytes.fetch_add(body_bytes, Ordering::AcqRel);
        let fits = requests < self.limits.requests
            && (body_bytes == 0 || bytes.saturating_add(body_bytes) <= self.limits.body_bytes);
        if !fits {
            self.leave(body_bytes);
        }
        fits
    }

    fn leave(&self, body_bytes: usize) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
        self.body_bytes.fetch_sub(body_bytes, Ordering::AcqRel);
    }
}

/// A held request, counted until this is dropped.
struct Place {
    worker: Arc<Worker>,
    client: Arc<ClientState>,
    service: (Arc<Live>, UpstreamId),
    body_bytes: usize,
}

impl Place {
    /// `None` when there is no room for one more.
    fn take(
        worker: &Arc<Worker>,
        client: &Arc<ClientState>,
        chosen: &Chosen,
        body_bytes: usize,
    ) -> Option<Self> {
        if !worker.shared.holding.enter(body_bytes) {
            return None;
        }
        client.hold(true);
        chosen.live.counters(chosen.id).hold(worker.index);
        Some(Self {
            worker: worker.clone(),
            client: client.clone(),
            service: (chosen.live.clone(), chosen.id),
            body_bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.shared.holding.leave(self.body_bytes);
        self.client.hold(false);
        let (live, id) = &self.service;
        live.counters(*id).release(self.worker.index);
    }
}

/// Why a request is not held any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// Nothing is on the way to it.
    NothingComes,
    /// A bound was reached, or the proxy is about to end: ask again later.
    Later,
}

/// One request's waits, which share one patience.
pub(super) struct Hold<'a> {
    worker: &'a Arc<Worker>,
    client: &'a Arc<ClientState>,
    /// Set by the first wait.
    late: Option<Instant>,
    settled: Option<Instant>,
    /// Kept until the service has answered.
    passage: Option<OwnedSemaphorePermit>,
}

impl<'a> Hold<'a> {
    pub fn new(worker: &'a Arc<Worker>, client: &'a Arc<ClientState>) -> Self {
        Self {
            worker,
            client,
            late: None,
            settled: None,
            passage: None,
        }
    }

    /// Waits until the chosen service has endpoints, and others than it has
    /// now. `body_bytes` of the request's body are in memory.
    ///
    /// Dropping the future, as the end of the client's connection does, ends
    /// the wait.
    pub async fn for_endpoints(
        &mut self,
        chosen: &mut Chosen,
        body_bytes: usize,
    ) -> Result<(), GivenUp> {
        let begin = Instant::now();
        let limits = &self.worker.shared.holding.limits;
        let late = *self.late.get_or_insert(begin + limits.patience);
        let settled = if chosen.endpoints().is_empty() {
            begin
        } else {
            *self.settled.get_or_insert(begin + limits.settle)
        };
        let version = chosen.version();
        let mut place = None;
        loop {
            // Before the look at the table, so that no publication is missed.
            let mut published = pin!(self.worker.published.notified());
            if !chosen.follow(self.worker.live.load_full()) {
                return Err(GivenUp::NothingComes);
            }
            if chosen.version() != version && !chosen.endpoints().is_empty() {
                if place.is_some() && self.passage.is_none() {
                    let gate = chosen.live.counters(chosen.id).gate();
                    let Ok(Ok(passage)) = tokio::time::timeout_at(late, gate.acquire_owned()).await
                    else {
                        return Err(self.give_up(chosen, "too many were released at once"));
                    };
                    self.passage = Some(passage);
                    // The endpoints may be others by now.
                    continue;
                }
                if place.is_some() {
                    let key = chosen.key();
                    let service = &key.service;
                    debug!(namespace = key.namespace, service, held = ?begin.elapsed(), "released");
                }
                return Ok(());
            }
            let coming = chosen.coming();
            let until = if coming { late.max(settled) } else { settled };
            if Instant::now() >= until {
                return Err(if coming {
                    self.give_up(chosen, "no endpoint came in time")
                } else {
                    GivenUp::NothingComes
                });
            }
            if self.client.ordered() != Order::Serve {
                return Err(GivenUp::Later);
            }
            if place.is_none() {
                place = Place::take(self.worker, self.client, chosen, body_bytes);
                if place.is_none() {
                    return Err(self.give_up(chosen, "too many requests are held"));
                }
            }
            let mut timer = pin!(tokio::time::sleep_until(until));
            std::future::poll_fn(|cx| {
                let over = published.as_mut().poll(cx).is_ready()
                    || timer.as_mut().poll(cx).is_ready()
                    // An order wakes this task.
                    || self.client.ordered() != Order::Serve;
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    fn give_up(&self, chosen: &Chosen, why: &str) -> GivenUp {
        let key = chosen.key();
        warn!(
            namespace = key.namespace,
            service = key.service,
            "a held request is given up: {why}"
        );
        GivenUp::Later
    }
}
