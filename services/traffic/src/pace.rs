//! When requests are due, and a clock fine enough to say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::options::Stop;

/// The schedule of an open loop: a pure function of the time since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    per_second: f64,
    /// How many requests are ever due.
    total: Option<u64>,
}

impl Schedule {
    pub(crate) fn new(per_second: f64, stop: Stop) -> Schedule {
        // A request due exactly at the end is not sent any more: 100 a second for 1 s are 100.
        let by_time = stop
            .duration
            .map(|d| ((d.as_secs_f64() * per_second - 1e-6).ceil() as u64).max(1));
        let total = match (stop.requests, by_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Schedule { per_second, total }
    }

    /// When request `index` is due, from the start.
    pub(crate) fn due(&self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 / self.per_second)
    }

    /// How many requests are due by then.
    pub(crate) fn due_by(&self, elapsed: Duration) -> u64 {
        let due = (elapsed.as_secs_f64() * self.per_second + 1e-9).floor() as u64 + 1;
        self.total.map_or(due, |total| due.min(total))
    }

    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }
}

/// Wakes the sender when a request is due. A thread that sleeps in the kernel is exact to some tens of
/// microseconds; the runtime's own timer rounds up to whole milliseconds, which would be reported as
/// latency that the server does not have.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Thread,
}

impl Ticker {
    pub(crate) fn start(schedule: Schedule, start: Instant, tick_tx: Arc<Notify>) -> Ticker {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let handle = thread::spawn(move || {
            let mut next = 0;
            while !stopped.load(Ordering::Acquire)
                && schedule.total().is_none_or(|total| next < total)
            {
                let wait = (start + schedule.due(next)).saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    thread::park_timeout(wait);
                    continue;
                }
                // Counted before the waking: whoever is woken looks at the clock later and sees no fewer.
                // The other way round, a request due between the two would wait for the next one's tick,
                // and the last one for ever.
                next = schedule.due_by(start.elapsed());
                tick_tx.notify_one();
            }
        });
        Ticker {
            stop,
            thread: handle.thread().clone(),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn schedule(per_second: f64, requests: Option<u64>, ms: Option<u64>) -> Schedule {
        Schedule::new(
            per_second,
            Stop {
                requests,
                duration: ms.map(Duration::from_millis),
            },
        )
    }

    #[rstest]
    #[case(100.0, None, Some(1000), Some(100))]
    #[case(100.0, Some(7), Some(1000), Some(7))]
    #[case(100.0, Some(700), Some(1000), Some(100))]
    #[case(0.5, None, Some(1000), Some(1))]
    #[case(3.0, None, Some(1000), Some(3))]
    #[case(100.0, Some(7), None, Some(7))]
    #[case(100.0, None, None, None)]
    fn the_limits_say_how_many(
        #[case] rate: f64,
        #[case] requests: Option<u64>,
        #[case] ms: Option<u64>,
        #[case] total: Option<u64>,
    ) {
        assert_eq!(schedule(rate, requests, ms).total(), total);
    }

    #[test]
    fn every_request_is_due_exactly_once_and_at_its_time() {
        for rate in [0.3, 1.0, 7.0, 333.0, 4999.0, 1e6] {
            let schedule = schedule(rate, None, None);
            for index in [0u64, 1, 2, 3, 10, 999, 123_456] {
                let due = schedule.due(index);
                assert!(
                    schedule.due_by(due + Duration::from_nanos(2)) > index,
                    "{rate} {index}"
                );
                if let Some(before) = due.checked_sub(Duration::from_secs_f64(0.5 / rate)) {
                    assert!(schedule.due_by(before) <= index, "{rate} {index}");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_ticker_is_on_time_and_ends() {
        let tick = Arc::new(Notify::new());
        let start = Instant::now();
        let schedule = schedule(100.0, Some(11), None);
        let ticker = Ticker::start(schedule, start, Arc::clone(&tick));
        while schedule.due_by(start.elapsed()) < 11 {
            tick.notified().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(took < Duration::from_millis(400), "{took:?}");
        drop(ticker);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_tick_is_lost_between_two_requests() {
        // Dense enough that requests fall due while the ticker is between its two steps.
        for _ in 0..20 {
            let tick = Arc::new(Notify::new());
            let start = Instant::now();
            let schedule = schedule(200_000.0, Some(2_000), None);
            let _ticker = Ticker::start(schedule, start, Arc::clone(&tick));
            let all = async {
                while schedule.due_by(start.elapsed()) < 2_000 {
                    tick.notified().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), all)
                .await
                .expect("the last tick came");
        }
    }
}
