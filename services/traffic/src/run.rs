//! A run: resolve, send at the pace asked for, count, report.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Client, Failure};
use crate::error::TrafficError;
use crate::options::{Endpoint, Idempotency, Options, Pace};
use crate::pace::{Schedule, Ticker};
use crate::report::{Progress, Report};
use crate::source::Source;
use crate::tally::{Outcome, Tally};

/// How long a cancelled run waits for requests that are under way.
const DRAIN: Duration = Duration::from_secs(2);

/// The longest wait before a repeat, whatever `Retry-After` asks: a stand-in for a user's patience.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Sends records until a limit of [`Options::stop`] is reached or `cancel` is cancelled, calls
/// `on_progress` once a second, and reports. A cancelled run reports what was done until then, after at
/// most two seconds for what is under way. Must be called on a tokio runtime with time and I/O.
///
/// # Errors
/// When the options make no sense, the host has no address or nothing accepts connections at the start.
/// What fails later is counted in the report.
pub async fn run(
    options: &Options,
    source: Source,
    mut on_progress: impl FnMut(&Progress),
    cancel: CancellationToken,
) -> Result<Report, TrafficError> {
    options.check()?;
    let client = connect(options).await?;
    let shared = Arc::new(Shared {
        client,
        source,
        tally: Mutex::new(Tally::new(options.collect_ids)),
        in_flight: AtomicU64::new(0),
        next: AtomicU64::new(0),
        key_prefix: format!("devenv-{:016x}", rand::random::<u64>()),
        idempotency: options.idempotency,
        preflight: options.preflight,
        cancel: cancel.clone(),
    });
    let start = Instant::now();
    let (total, mut loops) = match options.pace {
        Pace::Rate(rate) => {
            let schedule = Schedule::new(rate, options.stop);
            let mut loops = JoinSet::new();
            loops.spawn(open_loop(
                Arc::clone(&shared),
                schedule,
                start,
                options.max_in_flight,
            ));
            (schedule.total(), loops)
        }
        Pace::Users(users) => {
            let end = options.stop.duration.map(|duration| start + duration);
            let requests = options.stop.requests.unwrap_or(u64::MAX);
            let mut loops = JoinSet::new();
            for _ in 0..users.min(usize::try_from(requests).unwrap_or(usize::MAX)) {
                loops.spawn(user(Arc::clone(&shared), requests, end));
            }
            (options.stop.requests, loops)
        }
    };

    let mut looks = tokio::time::interval(Duration::from_secs(1));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    let mut last = Look {
        at: start,
        requests: 0,
    };
    let drained = async {
        cancel.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::pin!(drained);
    loop {
        tokio::select! {
            ended = loops.join_next() => match ended {
                None => break,
                // A panic of a sender is a defect of this crate and must not pass as a result.
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(_) => {}
            },
            _ = looks.tick() => on_progress(&shared.look(start, total, &mut last)),
            () = &mut drained => {
                loops.abort_all();
                while loops.join_next().await.is_some() {}
                break;
            }
        }
    }
    Ok(shared.report(options, start.elapsed()))
}

async fn connect(options: &Options) -> Result<Client, TrafficError> {
    let endpoint = Endpoint::parse(&options.url)?;
    let wrong = |reason| TrafficError::Url {
        url: options.url.clone(),
        reason,
    };
    let addresses: Vec<SocketAddr> =
        match tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await {
            Ok(addresses) => addresses.collect(),
            Err(source) => {
                return Err(TrafficError::Resolve {
                    host: endpoint.host.clone(),
                    source: Some(source),
                });
            }
        };
    if addresses.is_empty() {
        return Err(TrafficError::Resolve {
            host: endpoint.host,
            source: None,
        });
    }
    let authority = match &options.host {
        Some(host) => http::HeaderValue::from_str(host).map_err(|_| TrafficError::Option {
            option: "host",
            value: format!("`{host}`"),
            expected: "a host name, with a port if need be",
        })?,
        None => http::HeaderValue::from_str(&endpoint.authority)
            .map_err(|_| wrong("its host has characters that no header takes"))?,
    };
    let path = endpoint
        .path
        .parse()
        .map_err(|_| wrong("its path is none"))?;
    let client = Client::new(addresses, authority, path, options.timeout);
    client
        .probe()
        .await
        .map_err(|source| TrafficError::Unreachable {
            url: options.url.clone(),
            source,
        })?;
    Ok(client)
}

struct Shared {
    client: Client,
    source: Source,
    tally: Mutex<Tally>,
    in_flight: AtomicU64,
    /// The number of the next request; also how many were begun.
    next: AtomicU64,
    key_prefix: String,
    idempotency: Idempotency,
    preflight: bool,
    cancel: CancellationToken,
}

/// Starts every request when it is due, as far as `max_in_flight` lets it; a late start counts as
/// latency, because the time of a request is measured from when it was due.
async fn open_loop(shared: Arc<Shared>, schedule: Schedule, start: Instant, max_in_flight: usize) {
    let tick = Arc::new(Notify::new());
    let _ticker = Ticker::start(schedule, start, Arc::clone(&tick));
    let permits = Arc::new(Semaphore::new(max_in_flight));
    let mut requests = JoinSet::new();
    let mut next = 0;
    'send: loop {
        while next < schedule.due_by(start.elapsed()) {
            let permit = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => break 'send,
                // The semaphore is never closed.
                permit = Arc::clone(&permits).acquire_owned() => permit.ok(),
            };
            let due = start + schedule.due(next);
            let shared = Arc::clone(&shared);
            shared.next.fetch_add(1, Ordering::Relaxed);
            requests.spawn(async move {
                shared.request(next, due).await;
                drop(permit);
            });
            next += 1;
            // Those that ended are taken off, so that the set stays as small as what is under way.
            while requests.try_join_next().is_some() {}
        }
        if schedule.total().is_some_and(|total| next >= total) {
            break;
        }
        tokio::select! {
            () = tick.notified() => {}
            () = shared.cancel.cancelled() => break 'send,
        }
    }
    while let Some(ended) = requests.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn user(shared: Arc<Shared>, requests: u64, end: Option<Instant>) {
    while !shared.cancel.is_cancelled() && end.is_none_or(|end| Instant::now() < end) {
        let begun = shared
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < requests).then_some(n + 1)
            });
        let Ok(index) = begun else { return };
        shared.request(index, Instant::now()).await;
    }
}

/// Counts a request as under way until it ends or is given up.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn enter(count: &'a AtomicU64) -> InFlight<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an API answers to a record it took.
#[derive(Deserialize)]
struct Taken {
    api: Option<String>,
    #[serde(default)]
    ids: Vec<u64>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A tally is a set of counters: whole after every step.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends request `index`, repeats it where that is allowed, and counts how it ended.
    async fn request(&self, index: u64, since: Instant) {
        let _in_flight = InFlight::enter(&self.in_flight);
        let outcome = self.outcome(index, since).await;
        self.tally().end(outcome);
    }

    async fn outcome(&self, index: u64, since: Instant) -> Outcome {
        let failed = |status, error: String, latency| Outcome {
            status,
            api: None,
            ids: Vec::new(),
            error: Some(error),
            latency,
        };
        if self.preflight {
            self.tally().preflights += 1;
            match self.client.preflight().await {
                Ok(answer) if answer.status.is_success() => {
                    self.tally().bytes_received += answer.body.len() as u64;
                }
                Ok(answer) => {
                    let kind = format!("preflight-{}", answer.status.as_u16());
                    return failed(Some(answer.status), kind, Some(since.elapsed()));
                }
                Err(failure) => {
                    let latency = (failure == Failure::Timeout).then(|| since.elapsed());
                    return failed(None, format!("preflight-{}", failure.name()), latency);
                }
            }
        }
        let body = self.source.body(index);
        let (key, retries) = match self.idempotency {
            Idempotency::Off => (None, 0),
            Idempotency::Retry(retries) => (Some(format!("{}-{index}", self.key_prefix)), retries),
        };
        let mut attempt = 0;
        loop {
            self.tally().bytes_sent += body.len() as u64;
            let result = self.client.post(body.clone(), key.as_deref()).await;
            let latency = since.elapsed();
            let (status, kind, retryable, after) = match result {
                Ok(answer) if answer.status.is_success() => return self.taken(answer, latency),
                Ok(answer) => {
                    self.tally().bytes_received += answer.body.len() as u64;
                    let code = answer.status.as_u16();
                    let retryable = matches!(code, 429 | 502 | 503 | 504);
                    (
                        Some(answer.status),
                        format!("http-{code}"),
                        retryable,
                        retry_after(&answer.headers),
                    )
                }
                Err(failure) => (None, failure.name().to_owned(), true, None),
            };
            let give_up = attempt >= retries || !retryable || self.cancel.is_cancelled();
            if give_up {
                let measured = status.is_some() || kind == Failure::Timeout.name();
                return failed(status, kind, measured.then_some(latency));
            }
            self.tally().retry(&kind);
            let wait = after.unwrap_or_else(|| backoff(attempt)).min(MAX_BACKOFF);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // One last attempt, so that the outcome is known.
                () = self.cancel.cancelled() => {}
            }
            attempt += 1;
        }
    }

    fn taken(&self, answer: Answer, latency: Duration) -> Outcome {
        self.tally().bytes_received += answer.body.len() as u64;
        let taken = serde_json::from_slice(&answer.body).unwrap_or(Taken {
            api: None,
            ids: Vec::new(),
        });
        Outcome {
            status: Some(answer.status),
            api: taken.api,
            ids: taken.ids,
            error: None,
            latency: Some(latency),
        }
    }

    fn look(&self, start: Instant, total: Option<u64>, last: &mut Look) -> Progress {
        let now = Instant::now();
        let mut tally = self.tally();
        let since = now.duration_since(last.at).as_secs_f64();
        let progress = Progress {
            elapsed: now.duration_since(start),
            requests: tally.requests,
            total,
            failures: tally.failures,
            retries: tally.retries,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            by_api: tally.by_api.clone(),
            last_rate_per_s: per_second(tally.requests - last.requests, since),
            last_latency_ms: tally.take_recent(),
        };
        *last = Look {
            at: now,
            requests: tally.requests,
        };
        progress
    }

    fn report(&self, options: &Options, took: Duration) -> Report {
        let mut tally = self.tally();
        let seconds = took.as_secs_f64();
        Report {
            requests: tally.requests,
            failures: tally.failures,
            by_status: tally.by_status.clone(),
            by_api: tally.by_api.clone(),
            errors: tally.errors.clone(),
            rows: tally.rows,
            retries: tally.retries,
            retry_causes: tally.retry_causes.clone(),
            preflights: tally.preflights,
            latency_ms: tally.latency(),
            duration_s: (seconds * 1e6).round() / 1e6,
            rate_per_s: per_second(tally.requests, seconds),
            target_rate_per_s: match options.pace {
                Pace::Rate(rate) => Some(rate),
                Pace::Users(_) => None,
            },
            users: match options.pace {
                Pace::Rate(_) => None,
                Pace::Users(users) => Some(users),
            },
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            cancelled: self.cancel.is_cancelled(),
            unfinished: self.next.load(Ordering::Relaxed) - tally.requests,
            ids: tally.ids.take(),
        }
    }
}

struct Look {
    at: Instant,
    requests: u64,
}

fn per_second(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        (n as f64 / seconds * 10.0).round() / 10.0
    } else {
        0.0
    }
}

/// `Retry-After` in seconds; its date form is not used by the APIs and falls back to our own waits.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// 50 ms, 100 ms, 200 ms, … with up to half of it added at random, lest all repeat at once.
fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(50) * 2u32.saturating_pow(attempt.min(5));
    base.mul_f64(1.0 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some("1"), Some(1))]
    #[case(Some(" 30 "), Some(30))]
    #[case(Some("Wed, 21 Oct 2026 07:28:00 GMT"), None)]
    #[case(Some("-1"), None)]
    #[case(None, None)]
    fn retry_after_is_read_in_seconds(
        #[case] value: Option<&'static str>,
        #[case] seconds: Option<u64>,
    ) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static(value));
        }
        assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs));
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        for attempt in 0..40 {
            let wait = backoff(attempt);
            let base = 50 * 2u64.pow(attempt.min(5));
            assert!(
                wait >= Duration::from_millis(base) && wait <= Duration::from_millis(base * 3 / 2)
            );
        }
    }
}
