//! A client that keeps books: it posts records with idempotency keys, tries again
//! until each is acknowledged, and keeps every acknowledgement.

use crate::record::record;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long one request may take before the client takes it for lost.
const REQUEST: Duration = Duration::from_secs(10);
/// Between two tries of one record; below the servers' Retry-After on purpose, so
/// that many requests meet the outage.
const AGAIN: Duration = Duration::from_millis(20);

/// What a loader saw.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Acknowledged keys, with the ids and the API of the 201.
    pub acknowledged: BTreeMap<String, (Vec<u64>, String)>,
    /// Keys that were sent and never acknowledged: nothing was promised of them.
    pub unanswered: Vec<String>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: refused, reset, timed out.
    pub lost: u64,
    /// Answers 503 that did not say when to come back.
    pub without_retry_after: u64,
    /// What an unexpected answer (neither 201 nor 503) looked like, the first of each.
    pub unexpected: BTreeMap<u16, String>,
    /// The longest time that one record took from its first try to its 201.
    pub longest: Duration,
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unanswered.extend(other.unanswered);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.lost += other.lost;
        self.without_retry_after += other.without_retry_after;
        self.unexpected.extend(other.unexpected);
        self.longest = self.longest.max(other.longest);
    }
}

/// Running clients. Dropping it ends them without their books.
#[derive(Debug)]
pub struct Loader {
    workers: JoinSet<Ledger>,
    stop: Arc<AtomicBool>,
    /// 201s so far.
    done: watch::Receiver<u64>,
}

impl Loader {
    /// Starts `workers` clients that post to `base` + `/api`. The keys begin with
    /// `prefix`, which a database check needs to find them.
    pub fn start(base: &str, prefix: &str, workers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (done_tx, done) = watch::channel(0);
        let done_tx = Arc::new(done_tx);
        let serial = Arc::new(AtomicU64::new(0));
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .no_proxy()
            .build()
            .expect("a client without TLS or proxy needs nothing that can fail");
        let mut set = JoinSet::new();
        for _ in 0..workers {
            set.spawn(work(Worker {
                client: client.clone(),
                url: format!("{}/api", base.trim_end_matches('/')),
                prefix: prefix.to_owned(),
                serial: serial.clone(),
                stop: stop.clone(),
                done: done_tx.clone(),
            }));
        }
        Self {
            workers: set,
            stop,
            done,
        }
    }

    /// 201s so far.
    pub fn acknowledged(&self) -> u64 {
        *self.done.borrow()
    }

    /// Waits for `more` further 201s.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn wait_for(&mut self, more: u64, limit: Duration) {
        let goal = self.acknowledged() + more;
        let reached = self.done.wait_for(|done| *done >= goal);
        let reached = tokio::time::timeout(limit, reached).await.is_ok();
        assert!(
            reached,
            "{} of {goal} records were acknowledged within {limit:?}",
            self.acknowledged()
        );
    }

    /// Ends the clients; each may still try its last record for `grace`.
    pub async fn stop(mut self, grace: Duration) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        let deadline = tokio::time::Instant::now() + grace + REQUEST;
        while let Ok(Some(worker)) =
            tokio::time::timeout_at(deadline, self.workers.join_next()).await
        {
            ledger.add(worker.expect("a loader's client panicked"));
        }
        assert!(self.workers.is_empty(), "a loader's client did not end");
        ledger
    }
}

struct Worker {
    client: reqwest::Client,
    url: String,
    prefix: String,
    serial: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    done: Arc<watch::Sender<u64>>,
}

async fn work(worker: Worker) -> Ledger {
    let mut ledger = Ledger::default();
    while !worker.stop.load(Ordering::Relaxed) {
        let number = worker.serial.fetch_add(1, Ordering::Relaxed);
        let key = format!("{}-{number}", worker.prefix);
        let start = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            if post(&worker, &key, number, &mut ledger).await {
                ledger.longest = ledger.longest.max(start.elapsed());
                worker.done.send_modify(|done| *done += 1);
                break;
            }
            if worker.stop.load(Ordering::Relaxed) {
                let since = stopped.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(5) {
                    ledger.unanswered.push(key);
                    break;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    ledger
}

/// One try; whether it was acknowledged.
async fn post(worker: &Worker, key: &str, number: u64, ledger: &mut Ledger) -> bool {
    // The same key always carries the same body.
    let marked = f64::from(u32::try_from(number % 16_000).unwrap_or(0));
    let sent = worker
        .client
        .post(&worker.url)
        .header("Idempotency-Key", key)
        .json(&record(marked))
        .send()
        .await;
    let Ok(answer) = sent else {
        ledger.lost += 1;
        return false;
    };
    let status = answer.status().as_u16();
    let retry_after = answer.headers().contains_key(RETRY_AFTER);
    // A 201 whose body is cut off is not yet an acknowledgement: the same key asks again.
    let Ok(body) = answer.text().await else {
        ledger.lost += 1;
        return false;
    };
    *ledger.statuses.entry(status).or_default() += 1;
    match status {
        201 => {
            let Some((ids, api)) = acknowledgement(&body) else {
                ledger.unexpected.entry(status).or_insert(body);
                return false;
            };
            ledger.acknowledged.insert(key.to_owned(), (ids, api));
            true
        }
        503 => {
            ledger.without_retry_after += u64::from(!retry_after);
            false
        }
        _ => {
            ledger.unexpected.entry(status).or_insert(body);
            false
        }
    }
}

/// Reads `{"ids":[…],"api":"…"}`.
pub(crate) fn acknowledgement(body: &str) -> Option<(Vec<u64>, String)> {
    let body: Value = serde_json::from_str(body).ok()?;
    let ids = body["ids"]
        .as_array()?
        .iter()
        .map(Value::as_u64)
        .collect::<Option<Vec<_>>>()?;
    Some((ids, body["api"].as_str()?.to_owned()))
}
