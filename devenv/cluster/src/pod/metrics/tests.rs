//! Readings that are made up, on paused time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use devenv_sandbox::Usage;

use super::*;
use crate::pod::runtime::RuntimeError;

/// Uses a share of one CPU since the test began, and as many bytes as it was read.
#[derive(Debug)]
struct Busy {
    begin: Instant,
    percent: u64,
    reads: AtomicUsize,
    hangs: AtomicBool,
    fails: AtomicBool,
    set_back: AtomicU64,
}

impl Busy {
    fn new(percent: u64) -> Arc<Busy> {
        Arc::new(Busy {
            begin: Instant::now(),
            percent,
            reads: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            set_back: AtomicU64::new(0),
        })
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Meter for Busy {
    async fn read(&self) -> Result<Reading, RuntimeError> {
        let memory = self.reads.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err(RuntimeError::Other("it has ended".into()));
        }
        let cpu = self.begin.elapsed() * u32::try_from(self.percent).expect("small") / 100;
        let set_back = Duration::from_secs(self.set_back.load(Ordering::Relaxed));
        let at = Duration::from_secs(1000) + self.begin.elapsed() - set_back;
        let usage = Usage { cpu, memory };
        Ok(Reading { at, usage })
    }
}

async fn look(metrics: &Metrics, uid: &str) -> Option<Vec<ContainerMetrics>> {
    metrics.pods(&[uid.to_owned()]).await.remove(uid)
}

async fn one(metrics: &Metrics, uid: &str) -> (u64, u128) {
    let found = look(metrics, uid).await.expect("measured");
    let measured = found[0].measured;
    (measured.nanocores, measured.window.as_millis())
}

#[tokio::test(start_paused = true)]
async fn the_first_look_takes_a_moment_and_the_next_go_on_from_there() {
    let (metrics, meter) = (Metrics::default(), Busy::new(25));
    let _entry = metrics.enter("u", "c", meter.clone());
    assert_eq!(meter.reads(), 0, "nothing is read before someone asks");
    assert_eq!(one(&metrics, "u").await, (250_000_000, 250));
    assert_eq!((meter.reads(), meter.begin.elapsed()), (2, LEAST_WINDOW));
    // Who asks again at once is told the same.
    assert_eq!(one(&metrics, "u").await, (250_000_000, 250));
    assert_eq!(meter.reads(), 2);
    // Later one reading is enough, and none was made meanwhile.
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(one(&metrics, "u").await, (250_000_000, 10_000));
    assert_eq!(meter.reads(), 3);
    // Long after, what was is no longer what is.
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(one(&metrics, "u").await, (250_000_000, 250));
    assert_eq!(meter.reads(), 5);
}

#[tokio::test(start_paused = true)]
async fn containers_are_measured_side_by_side() {
    let metrics = Metrics::default();
    let entries: Vec<Entry> = (0..40)
        .map(|n| metrics.enter(&format!("u{}", n / 2), &format!("c{n}"), Busy::new(n)))
        .collect();
    let begin = Instant::now();
    let uids: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    let found = metrics.pods(&uids).await;
    assert_eq!(begin.elapsed(), LEAST_WINDOW);
    assert_eq!(found.len(), 20);
    let names = |uid: &str| {
        found[uid]
            .iter()
            .map(|c| c.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("u3"), ["c6", "c7"]);
    assert_eq!(found["u3"][1].measured.nanocores, 70_000_000);
    drop(entries);
    assert!(metrics.pods(&uids).await.is_empty());
    assert!(metrics.lock().is_empty(), "what has ended is forgotten");
}

/// A restarted container begins anew; what was of its run before is not subtracted.
#[tokio::test(start_paused = true)]
async fn each_run_counts_by_itself() {
    let metrics = Metrics::default();
    let first = metrics.enter("u", "c", Busy::new(90));
    assert_eq!(one(&metrics, "u").await.0, 900_000_000);
    tokio::time::advance(Duration::from_secs(5)).await;
    // The next run is known before the last is forgotten.
    let _second = metrics.enter("u", "c", Busy::new(10));
    drop(first);
    assert_eq!(one(&metrics, "u").await, (100_000_000, 250));
    assert_eq!(look(&metrics, "u").await.expect("measured").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_left_out_and_read_once() {
    let (metrics, hung) = (Metrics::default(), Busy::new(1));
    hung.hangs.store(true, Ordering::Relaxed);
    let _entries = [
        metrics.enter("hung", "c", hung.clone()),
        metrics.enter("hung", "d", Busy::new(1)),
        metrics.enter("good", "c", Busy::new(7)),
    ];
    for _ in 0..3 {
        let begin = Instant::now();
        let found = metrics.pods(&["hung".to_owned(), "good".to_owned()]).await;
        assert_eq!(begin.elapsed(), LIMIT);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["good"]);
    }
    assert_eq!(hung.reads(), 1);
}

/// One container of a pod ends while it is looked at: the others are told.
#[tokio::test(start_paused = true)]
async fn what_ends_meanwhile_is_not_missed() {
    let (metrics, ending) = (Metrics::default(), Busy::new(1));
    let entry = metrics.enter("u", "ending", ending.clone());
    let _stays = metrics.enter("u", "stays", Busy::new(2));
    let end = async {
        tokio::time::sleep(LEAST_WINDOW / 2).await;
        ending.fails.store(true, Ordering::Relaxed);
        drop(entry);
    };
    let (found, ()) = tokio::join!(look(&metrics, "u"), end);
    let found = found.expect("measured");
    assert_eq!((found.len(), &*found[0].name), (1, "stays"));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_known_is_not_told() {
    let (metrics, meter) = (Metrics::default(), Busy::new(50));
    let _entry = metrics.enter("u", "c", meter.clone());
    meter.fails.store(true, Ordering::Relaxed);
    assert_eq!(look(&metrics, "u").await, None);
    meter.fails.store(false, Ordering::Relaxed);
    assert_eq!(one(&metrics, "u").await.0, 500_000_000);
    // The meter's clock is set back between two readings.
    tokio::time::advance(Duration::from_secs(5)).await;
    meter.set_back.store(60, Ordering::Relaxed);
    assert_eq!(look(&metrics, "u").await, None);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(one(&metrics, "u").await.0, 500_000_000);
    assert_eq!(look(&metrics, "nobody").await, None);
}

#[tokio::test]
async fn the_machine_uses_something() {
    let metrics = Metrics::default();
    let measured = metrics.node(node::NAME).await.expect("measured");
    assert!(
        measured.window >= LEAST_WINDOW && measured.memory > 1 << 20,
        "{measured:?}"
    );
    // Each of the five counters is rounded, by a hundredth of a second.
    let most = std::fs::read_to_string("/proc/stat").expect("there");
    let most = most.lines().filter(|line| line.starts_with("cpu")).count() as u64;
    assert!(measured.nanocores <= most * 1_000_000_000, "{measured:?}");
    assert_eq!(metrics.node("another").await, None);
}

#[test]
fn rates() {
    let reading = |at: u64, cpu: u64, memory: u64| Reading {
        at: Duration::from_millis(at),
        usage: Usage {
            cpu: Duration::from_millis(cpu),
            memory,
        },
    };
    let rate = |first, second| {
        let measured = between(&first, &second, Timestamp::UNIX_EPOCH)?;
        Some((
            measured.nanocores,
            measured.window.as_millis(),
            measured.memory,
        ))
    };
    let first = reading(1000, 500, 7);
    assert_eq!(
        rate(first, reading(1250, 1000, 8)),
        Some((2_000_000_000, 250, 8))
    );
    assert_eq!(rate(first, reading(4000, 500, 8)), Some((0, 3000, 8)));
    assert_eq!(rate(first, reading(2000, 400, 8)), Some((0, 1000, 8)));
    assert_eq!(rate(first, reading(1000, 501, 8)), None);
    assert_eq!(rate(first, reading(999, 501, 8)), None);
}
