//! What a run says at its end, and once a second meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The outcome of a run; its JSON form is what `devenv traffic -o json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Requests that came to an end: answered, failed for good, or timed out.
    pub requests: u64,
    /// Those among them that did not end with a 2xx; always the sum of `errors`.
    pub failures: u64,
    /// Requests by the status of their last answer.
    pub by_status: BTreeMap<u16, u64>,
    /// Successful requests by the `api` that the answer names; `unknown` where it names none.
    pub by_api: BTreeMap<String, u64>,
    /// Failures by kind: `http-503`, `timeout`, `connect-refused`, `connect`, `closed`, `protocol`,
    /// `no-file-descriptors`, `no-local-ports`, `preflight-403`, …
    pub errors: BTreeMap<String, u64>,
    /// Rows that the answers acknowledge.
    pub rows: u64,
    /// Repeats of requests with an Idempotency-Key.
    pub retries: u64,
    /// Why they were repeated, in the words of `errors`.
    pub retry_causes: BTreeMap<String, u64>,
    /// OPTIONS requests sent before POSTs.
    pub preflights: u64,
    /// Latency of requests that were answered, with whatever status, or timed out.
    pub latency_ms: Latency,
    /// From the first request to the end of the last, seconds.
    pub duration_s: f64,
    /// `requests / duration_s`.
    pub rate_per_s: f64,
    /// The rate asked for, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_rate_per_s: Option<f64>,
    /// The users asked for, in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub users: Option<usize>,
    /// Bytes of request bodies, repeats included.
    pub bytes_sent: u64,
    /// Bytes of answers' bodies.
    pub bytes_received: u64,
    /// Whether the run was cancelled before its end.
    pub cancelled: bool,
    /// Requests given up because the run was cancelled; they may have made rows.
    pub unfinished: u64,
    /// The ids of the rows made, in the order of the answers, when asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ids: Option<Vec<u64>>,
}

/// Quantiles of latency in milliseconds, each exact to three digits; all 0 when nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests were faster.
    pub p50: f64,
    /// Nine in ten were faster.
    pub p90: f64,
    /// 99 in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// The average.
    pub mean: f64,
}

/// A look at a run under way; `last_*` are about the time since the look before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Since the start.
    #[serde(skip)]
    pub elapsed: Duration,
    /// Requests ended so far.
    pub requests: u64,
    /// How many there will be, if a limit says so.
    pub total: Option<u64>,
    /// Failures so far.
    pub failures: u64,
    /// Repeats so far.
    pub retries: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Successful requests so far by API.
    pub by_api: BTreeMap<String, u64>,
    /// Requests a second.
    pub last_rate_per_s: f64,
    /// Latency.
    pub last_latency_ms: Latency,
}
