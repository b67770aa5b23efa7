//! Counts outcomes while a run goes on, in bounded memory.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;

use crate::report::Latency;

/// Latencies are kept from 1 µs to an hour, which is more than any timeout, with three digits.
const MAX_MICROS: u64 = 3_600_000_000;

/// A server that names a different `api` in every answer must not fill the memory.
const MAX_NAMES: usize = 64;

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) by_status: BTreeMap<u16, u64>,
    pub(crate) by_api: BTreeMap<String, u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) rows: u64,
    pub(crate) retries: u64,
    pub(crate) retry_causes: BTreeMap<String, u64>,
    pub(crate) preflights: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) ids: Option<Vec<u64>>,
    all: Histogram<u64>,
    recent: Histogram<u64>,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<StatusCode>,
    /// What took it, on success.
    pub(crate) api: Option<String>,
    pub(crate) ids: Vec<u64>,
    /// The kind of failure, otherwise.
    pub(crate) error: Option<String>,
    /// None for failures that say nothing about the server's speed.
    pub(crate) latency: Option<Duration>,
}

impl Tally {
    pub(crate) fn new(collect_ids: bool) -> Tally {
        Tally {
            requests: 0,
            failures: 0,
            by_status: BTreeMap::new(),
            by_api: BTreeMap::new(),
            errors: BTreeMap::new(),
            rows: 0,
            retries: 0,
            retry_causes: BTreeMap::new(),
            preflights: 0,
            bytes_sent: 0,
            bytes_received: 0,
            ids: collect_ids.then(Vec::new),
            all: histogram(),
            recent: histogram(),
        }
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.requests += 1;
        if let Some(status) = outcome.status {
            *self.by_status.entry(status.as_u16()).or_default() += 1;
        }
        match outcome.error {
            Some(kind) => {
                self.failures += 1;
                count(&mut self.errors, &kind);
            }
            None => {
                count(
                    &mut self.by_api,
                    outcome.api.as_deref().unwrap_or("unknown"),
                );
                self.rows += outcome.ids.len() as u64;
                if let Some(ids) = &mut self.ids {
                    ids.extend(outcome.ids);
                }
            }
        }
        if let Some(latency) = outcome.latency {
            let micros = u64::try_from(latency.as_micros())
                .unwrap_or(MAX_MICROS)
                .max(1);
            self.all.saturating_record(micros);
            self.recent.saturating_record(micros);
        }
    }

    pub(crate) fn retry(&mut self, cause: &str) {
        self.retries += 1;
        count(&mut self.retry_causes, cause);
    }

    pub(crate) fn latency(&self) -> Latency {
        quantiles(&self.all)
    }

    /// Latency since the last call.
    pub(crate) fn take_recent(&mut self) -> Latency {
        let latency = quantiles(&self.recent);
        self.recent.reset();
        latency
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_MICROS, 3)
        .expect("1 < 3600000000 and 3 digits are legal bounds")
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(n) = counts.get_mut(name) {
        *n += 1;
    } else {
        let name = if counts.len() < MAX_NAMES {
            name
        } else {
            "other"
        };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Latency {
    if histogram.is_empty() {
        return Latency::default();
    }
    let ms = |micros: f64| (micros.round() / 1000.0 * 1000.0).round() / 1000.0;
    // A bucket's upper end may lie above the largest value that is in it.
    let at = |q| ms(histogram.value_at_quantile(q).min(histogram.max()) as f64);
    Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        max: ms(histogram.max() as f64),
        mean: ms(histogram.mean()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success(api: &str, ms: u64) -> Outcome {
        Outcome {
            status: Some(StatusCode::CREATED),
            api: Some(api.to_owned()),
            ids: vec![1, 2],
            error: None,
            latency: Some(Duration::from_millis(ms)),
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut tally = Tally::new(false);
        for ms in 1..=100 {
            tally.end(success("api1", ms));
        }
        let latency = tally.latency();
        for (got, want) in [
            (latency.p50, 50.0),
            (latency.p90, 90.0),
            (latency.p99, 99.0),
            (latency.max, 100.0),
            (latency.mean, 50.5),
        ] {
            assert!((got - want).abs() <= want * 0.002, "{got} {want}");
        }
        assert_eq!(tally.take_recent(), latency);
        assert_eq!(tally.take_recent(), Latency::default());
        assert_eq!(tally.latency(), latency);
    }

    #[test]
    fn failures_are_the_sum_of_errors_and_rows_are_counted() {
        let mut tally = Tally::new(true);
        tally.end(success("api1", 1));
        tally.end(Outcome {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            api: None,
            ids: Vec::new(),
            error: Some("http-503".to_owned()),
            latency: Some(Duration::from_millis(1)),
        });
        assert_eq!((tally.requests, tally.failures, tally.rows), (2, 1, 2));
        assert_eq!(tally.errors.values().sum::<u64>(), tally.failures);
        assert_eq!(tally.ids.as_deref(), Some([1, 2].as_slice()));
    }

    #[test]
    fn a_server_of_many_names_does_not_fill_the_memory() {
        let mut tally = Tally::new(false);
        for n in 0..1000 {
            tally.end(success(&format!("api{n}"), 1));
        }
        assert_eq!(tally.by_api.len(), MAX_NAMES + 1);
        assert_eq!(tally.by_api.values().sum::<u64>(), 1000);
    }
}
