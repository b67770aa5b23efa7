//! Counters of requests by service and status class.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// What the proxy has done since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests that were given to a service, by namespace and name.
    pub services: Vec<ServiceStats>,
    /// Requests answered without asking a service (404, 413, 503 …), by class
    /// of status: 1xx at index 0 to 5xx at index 4.
    pub own: [u64; 5],
    /// Client connections open now, tunnels included.
    pub connections: u64,
}

/// One service's share of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStats {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Finished requests by class of status: 1xx at index 0 to 5xx at index 4.
    /// A client that went away before the reply counts as 4xx (nginx's 499).
    pub by_class: [u64; 5],
    /// Requests whose reply has not ended.
    pub in_flight: u64,
    /// Times that a request was held until the service has endpoints; one that
    /// was given up in the end is also counted in [`Stats::own`].
    pub held: u64,
    /// Requests that are being held now.
    pub waiting: u64,
}

/// Counters of one service; each worker thread writes its own shard, so that
/// counting costs no cache line travelling between cores.
#[derive(Debug)]
pub(super) struct Counters {
    shards: Box<[Shard]>,
    /// Through which held requests go when endpoints have come: a thousand at once would
    /// overflow the accept queue of a program that has only just begun to listen.
    gate: Arc<Semaphore>,
}

/// How many requests that were held are under way to one service at a time; common
/// accept queues hold 128.
const GATE: usize = 64;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    started: AtomicU64,
    by_class: [AtomicU64; 5],
    held: AtomicU64,
    released: AtomicU64,
}

impl Counters {
    fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers).map(|_| Shard::default()).collect(),
            gate: Arc::new(Semaphore::new(GATE)),
        }
    }

    pub fn gate(&self) -> Arc<Semaphore> {
        self.gate.clone()
    }

    pub fn start(&self, worker: usize) {
        self.shards[worker].started.fetch_add(1, Ordering::Relaxed);
    }

    pub fn finish(&self, worker: usize, status: u16) {
        let class = usize::from((status / 100).clamp(1, 5)) - 1;
        self.shards[worker].by_class[class].fetch_add(1, Ordering::Relaxed);
    }

    pub fn hold(&self, worker: usize) {
        self.shards[worker].held.fetch_add(1, Ordering::Relaxed);
    }

    pub fn release(&self, worker: usize) {
        self.shards[worker].released.fetch_add(1, Ordering::Relaxed);
    }

    /// Ever held, and held now.
    fn read_held(&self) -> (u64, u64) {
        let sum = |count: fn(&Shard) -> &AtomicU64| -> u64 {
            let counts = self.shards.iter().map(count);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        // Released before held, for the same reason as below.
        let released = sum(|shard| &shard.released);
        let held = sum(|shard| &shard.held);
        (held, held.saturating_sub(released))
    }

    /// Finished by class, and in flight.
    fn read(&self) -> ([u64; 5], u64) {
        // Finished before started: what starts in between may show as in
        // flight, but nothing shows as finished without having started.
        let mut by_class = [0; 5];
        for shard in &self.shards {
            for (sum, count) in by_class.iter_mut().zip(&shard.by_class) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        let started: u64 = self
            .shards
            .iter()
            .map(|shard| shard.started.load(Ordering::Relaxed))
            .sum();
        (by_class, started.saturating_sub(by_class.iter().sum()))
    }
}

/// All counters; they outlive the tables that point to them.
#[derive(Debug)]
pub(super) struct Registry {
    workers: usize,
    services: Mutex<BTreeMap<(String, String), Arc<Counters>>>,
    own: Counters,
}

impl Registry {
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            services: Mutex::default(),
            own: Counters::new(workers),
        }
    }

    pub fn of(&self, namespace: &str, service: &str) -> Arc<Counters> {
        self.services
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((namespace.to_owned(), service.to_owned()))
            .or_insert_with(|| Arc::new(Counters::new(self.workers)))
            .clone()
    }

    pub fn own(&self) -> &Counters {
        &self.own
    }

    pub fn snapshot(&self, connections: u64) -> Stats {
        let services = self
            .services
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|((namespace, service), counters)| {
                let (by_class, in_flight) = counters.read();
                let (held, waiting) = counters.read_held();
                ServiceStats {
                    namespace: namespace.clone(),
                    service: service.clone(),
                    by_class,
                    in_flight,
                    held,
                    waiting,
                }
            })
            .collect();
        Stats {
            services,
            own: self.own.read().0,
            connections,
        }
    }
}
