//! A client that posts at a steady rate and writes down which version of which API
//! answered each request.

use crate::loader::{Ledger, acknowledgement};
use crate::record::record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long one request may take. Longer than the proxy holds one.
const REQUEST: Duration = Duration::from_secs(60);
/// Between two bursts.
const TICK: Duration = Duration::from_millis(10);

/// So many requests under way are no queue.
const CALM: usize = 20;

/// What is posted, and who is recognised in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A telemetry record: the answer names the API and the ids.
    Record,
    /// Nothing: a plain GET of a service that answers with its own name.
    Nothing,
}

/// One answer, or the lack of one.
#[derive(Debug, Clone)]
struct Answer {
    sent: Instant,
    received: Instant,
    api: String,
    version: Option<u32>,
    failure: Option<String>,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Answers {
    all: Vec<Answer>,
    /// By API. Whoever waits for a version must not look through all answers: at a few
    /// hundred a second that takes the processor away from who is tested.
    versions: BTreeMap<String, BTreeSet<u32>>,
}

/// The edits that were saved, as the checker must know them.
#[derive(Debug, Default)]
struct Edits {
    /// By API: when version `n + 1` was saved.
    saved: BTreeMap<String, Vec<Instant>>,
}

/// A running load. Dropping it ends it.
#[derive(Debug)]
pub struct Paced {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    answers: watch::Receiver<Answers>,
    under_way: watch::Receiver<usize>,
    ledger: Arc<Mutex<Ledger>>,
    edits: Edits,
}

/// What was seen in the end.
#[derive(Debug)]
pub struct Seen {
    /// Answers in all.
    pub answers: usize,
    /// What failed, the first few.
    pub failures: Vec<String>,
    /// Versions that answered when they must not, the first few.
    pub strays: Vec<String>,
    /// By API, the versions that were seen.
    pub versions: BTreeMap<String, BTreeSet<u32>>,
    /// The slowest answer.
    pub longest: Duration,
    /// For the database.
    pub ledger: Ledger,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How fast requests are sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests a second.
    pub rate: u32,
    /// So many at a time; what would be more is left out.
    pub at_once: usize,
}

impl From<u32> for Pace {
    /// However many are under way.
    fn from(rate: u32) -> Self {
        let at_once = usize::MAX;
        Self { rate, at_once }
    }
}

impl Paced {
    /// Sends requests to `url`; idempotency keys begin with `prefix`.
    pub fn start(url: &str, body: Body, pace: impl Into<Pace>, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, answers) = watch::channel(Answers::default());
        let (count, under_way) = watch::channel(0);
        let ledger = Arc::<Mutex<Ledger>>::default();
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .no_proxy()
            .build()
            .expect("a client without TLS or proxy needs nothing that can fail");
        let one = One {
            client,
            url: url.to_owned(),
            body,
            answers: Arc::new(tell),
            under_way: Arc::new(count),
            ledger: ledger.clone(),
        };
        let task = tokio::spawn(send(one, pace.into(), prefix.to_owned(), stop.clone()));
        Self {
            stop,
            task,
            answers,
            under_way,
            ledger,
            edits: Edits::default(),
        }
    }

    /// Version `n` of `api`, counted from 1 without a gap, is saved right now: call it
    /// just before.
    pub fn saving(&mut self, api: &str, n: u32) {
        let saved = self.edits.saved.entry(api.to_owned()).or_default();
        saved.push(Instant::now());
        assert_eq!(saved.len(), n as usize, "versions are counted from 1");
    }

    /// Waits until version `n` of `api` has answered.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn until_seen(&self, api: &str, n: u32, limit: Duration) {
        let mut answers = self.answers.clone();
        let has = |answers: &Answers| answers.versions.get(api).is_some_and(|v| v.contains(&n));
        let seen = tokio::time::timeout(limit, answers.wait_for(has)).await;
        if matches!(seen, Ok(Ok(_))) {
            return;
        }
        drop(seen);
        let last = self.answers.borrow().all.last().cloned();
        panic!("version {n} of {api} did not answer within {limit:?}; the last answer: {last:?}");
    }

    /// Waits until requests are answered as they come again. Who edits does so once in a
    /// while; edits without a pause would ask whether a machine that compiles and starts
    /// programs all the time can bear the load beside.
    ///
    /// # Panics
    /// When they are not within `limit`.
    pub async fn until_calm(&self, limit: Duration) {
        let mut under_way = self.under_way.clone();
        let calm = tokio::time::timeout(limit, under_way.wait_for(|n| *n <= CALM)).await;
        assert!(
            matches!(calm, Ok(Ok(_))),
            "{} requests still wait after {limit:?}",
            *self.under_way.borrow()
        );
    }

    /// Ends it, when the last request is answered.
    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.expect("the load does not panic");
        let answers = self.answers.borrow().all.clone();
        let mut seen = Seen {
            answers: answers.len(),
            failures: Vec::new(),
            strays: Vec::new(),
            versions: BTreeMap::new(),
            longest: Duration::ZERO,
            ledger: lock(&self.ledger).clone(),
        };
        for a in answers {
            seen.longest = seen.longest.max(a.received - a.sent);
            if let Some(failure) = a.failure {
                seen.failures.push(failure);
                continue;
            }
            let saved = self.edits.saved.get(&a.api).map_or(&[][..], Vec::as_slice);
            let until = |t: Instant| saved.iter().filter(|s| **s <= t).count() as u32;
            let version = a.version.unwrap_or(u32::MAX);
            // The newest or the one before it, at some moment of the request.
            let oldest = until(a.sent).saturating_sub(1);
            if !(oldest..=until(a.received)).contains(&version) {
                seen.strays.push(format!(
                    "{} answered with version {:?} when {} to {} were saved",
                    a.api,
                    a.version,
                    until(a.sent),
                    until(a.received)
                ));
            }
            seen.versions.entry(a.api).or_default().insert(version);
        }
        seen
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    /// Nothing failed, no stray version, and every version up to `last` of each API was
    /// seen.
    ///
    /// # Panics
    /// When not, with the first of what was wrong.
    pub fn assert_whole(&self, last: &BTreeMap<&str, u32>) {
        let first = |list: &[String]| list[..list.len().min(10)].join("\n");
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed, the first:\n{}",
            self.failures.len(),
            self.answers,
            first(&self.failures)
        );
        assert!(
            self.strays.is_empty(),
            "{} of {} answers were of a wrong version, the first:\n{}",
            self.strays.len(),
            self.answers,
            first(&self.strays)
        );
        for (api, last) in last {
            let seen = self.versions.get(*api).cloned().unwrap_or_default();
            let missing: Vec<u32> = (1..=*last).filter(|n| !seen.contains(n)).collect();
            assert!(missing.is_empty(), "never seen of {api}: {missing:?}");
        }
    }
}

#[derive(Debug, Clone)]
struct One {
    client: reqwest::Client,
    url: String,
    body: Body,
    answers: Arc<watch::Sender<Answers>>,
    under_way: Arc<watch::Sender<usize>>,
    ledger: Arc<Mutex<Ledger>>,
}

async fn send(one: One, pace: Pace, prefix: String, stop: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(TICK);
    let start = Instant::now();
    let mut under_way = JoinSet::new();
    let (mut number, mut left_out) = (0u64, 0u64);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        // Open loop: as many as are due, however long the others take.
        let due = start.elapsed().as_secs_f64() * f64::from(pace.rate);
        while ((number + left_out) as f64) < due {
            if *one.under_way.borrow() >= pace.at_once {
                left_out += 1;
                continue;
            }
            one.under_way.send_modify(|n| *n += 1);
            under_way.spawn(ask(one.clone(), format!("{prefix}-{number}"), number));
            number += 1;
        }
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn ask(one: One, key: String, number: u64) {
    let sent = Instant::now();
    let request = match one.body {
        Body::Nothing => one.client.get(&one.url),
        Body::Record => {
            let marked = f64::from(u32::try_from(number % 16_000).unwrap_or(0));
            let post = one.client.post(&one.url).header("Idempotency-Key", &key);
            post.json(&record(marked))
        }
    };
    let wanted = match one.body {
        Body::Nothing => 200,
        Body::Record => 201,
    };
    let mut answer = Answer {
        sent,
        received: sent,
        api: String::new(),
        version: None,
        failure: None,
    };
    match request.send().await {
        Err(e) => answer.failure = Some(format!("{e:?}")),
        Ok(got) => {
            let status = got.status().as_u16();
            let version = got.headers().get("x-service-version");
            answer.version = version.and_then(|v| v.to_str().ok()?.split('.').next()?.parse().ok());
            match got.text().await {
                Err(e) => answer.failure = Some(format!("{status}, cut off: {e:?}")),
                Ok(body) if status != wanted => {
                    answer.failure = Some(format!("{status}: {body}"));
                }
                Ok(body) => match (one.body, acknowledgement(&body)) {
                    (Body::Nothing, _) => answer.api = body.trim().to_owned(),
                    (Body::Record, Some((ids, api))) => {
                        answer.api.clone_from(&api);
                        lock(&one.ledger).acknowledged.insert(key, (ids, api));
                    }
                    (Body::Record, None) => answer.failure = Some(format!("no receipt: {body}")),
                },
            }
        }
    }
    answer.received = Instant::now();
    one.answers.send_if_modified(|answers| {
        let news = answer
            .version
            .filter(|_| answer.failure.is_none())
            .is_some_and(|version| {
                let versions = answers.versions.entry(answer.api.clone()).or_default();
                versions.insert(version)
            });
        answers.all.push(answer);
        news
    });
    one.under_way.send_modify(|n| *n -= 1);
}
