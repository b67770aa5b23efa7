//! What an analysis says, with the numbers that a person would ask for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{metric::Metric, proportions::Count};

/// What is known of the canary now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// Nothing is decided yet.
    Continue {
        /// The wealth of who bets against the canary.
        wealth: f64,
        /// Where it would be called worse.
        alarm: f64,
    },
    /// Worse than tolerated: back.
    Worse(Worse),
    /// Good for this step: go on.
    Good(Good),
    /// The step's budget is used up, and the canary had too few requests to say anything.
    /// To go on would be to hope: send it more, by probes, or wait for traffic.
    TooFew {
        /// Of the canary in this step.
        requests: u64,
        /// What [`Limits::min_requests`](super::Limits::min_requests) asks for.
        needed: u64,
        /// For how long.
        blocks: u32,
    },
}

/// Why the canary is worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worse {
    /// What it is about.
    pub reason: Reason,
    /// What was seen in this step.
    pub numbers: Numbers,
}

/// What a canary is worse by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// A metric that is compared with stable's; the one with the most evidence.
    Metric {
        /// Which.
        metric: Metric,
        /// The wealth of who bet against the canary.
        wealth: f64,
        /// What it had to reach.
        alarm: f64,
    },
    /// Its containers restart.
    Restarts {
        /// How often they did.
        restarts: u32,
        /// How often is tolerated.
        tolerated: u32,
    },
    /// Fewer replicas are ready than wanted.
    Readiness {
        /// How many are.
        ready: u32,
        /// How many should be.
        wanted: u32,
        /// For so many blocks in a row.
        blocks: u32,
        /// How many are tolerated.
        tolerated: u32,
    },
}

/// Why a step is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Good {
    /// How that is known.
    pub evidence: Evidence,
    /// What was seen in this step.
    pub numbers: Numbers,
}

/// How it is known that a step is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "evidence", rename_all = "kebab-case")]
pub enum Evidence {
    /// That the canary is much worse is excluded.
    Shown {
        /// How sure that is, of each metric.
        confidence: f64,
    },
    /// Nobody found anything while the step's budget lasted.
    BudgetUsed {
        /// How long that was.
        blocks: u32,
    },
}

/// What was seen within a step, of both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// For how long.
    pub blocks: u32,
    /// The canary's requests.
    pub canary: Count,
    /// Stable's requests.
    pub stable: Count,
    /// Checks of the canary.
    pub canary_checks: Count,
    /// Checks of stable.
    pub stable_checks: Count,
    /// The canary's latency; nothing where nobody measured.
    pub canary_ms: Option<Quantiles>,
    /// Stable's latency.
    pub stable_ms: Option<Quantiles>,
    /// What is tolerated: [`Limits::error_margin`](super::Limits::error_margin),
    pub error_margin: f64,
    /// [`Limits::check_margin`](super::Limits::check_margin),
    pub check_margin: f64,
    /// [`Limits::slower`](super::Limits::slower),
    pub slower: f64,
    /// [`Limits::slower_ms`](super::Limits::slower_ms).
    pub slower_ms: f64,
}

/// Quantiles of a latency in milliseconds, right to 4 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of the requests took longer.
    pub p50: f64,
    /// One in twenty took longer.
    pub p95: f64,
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = &self.numbers;
        match &self.reason {
            Reason::Metric { metric, .. } => match metric {
                Metric::Errors => write!(
                    f,
                    "requests fail: {} of the canary, {} of stable, where {} more is tolerated",
                    Rate(n.canary),
                    Rate(n.stable),
                    Points(n.error_margin)
                ),
                Metric::Checks => write!(
                    f,
                    "answers don't keep what they promise: {} checks of the canary failed, {} of \
                     stable, where {} more is tolerated",
                    Rate(n.canary_checks),
                    Rate(n.stable_checks),
                    Points(n.check_margin)
                ),
                Metric::Median => self.slower(f, "p50", |q| q.p50),
                Metric::Tail => self.slower(f, "p95", |q| q.p95),
            },
            Reason::Restarts {
                restarts,
                tolerated,
            } => write!(
                f,
                "the canary's containers restarted {restarts} times, where {tolerated} is tolerated"
            ),
            Reason::Readiness {
                ready,
                wanted,
                blocks,
                tolerated,
            } => write!(
                f,
                "the canary is not ready: {ready} of {wanted} replicas for {blocks} looks in a \
                 row, where {tolerated} are tolerated"
            ),
        }
    }
}

impl Worse {
    fn slower(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        of: impl Fn(Quantiles) -> f64,
    ) -> fmt::Result {
        let n = &self.numbers;
        let shown = |side: Option<Quantiles>| {
            side.map_or_else(|| "unknown".to_owned(), |q| format!("{:.1} ms", of(q)))
        };
        write!(
            f,
            "requests are slow: {name} {} of the canary, {} of stable, where {} times that and {} \
             ms is tolerated",
            shown(n.canary_ms),
            shown(n.stable_ms),
            n.slower,
            n.slower_ms
        )
    }
}

struct Rate(Count);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { failed, of } = self.0;
        write!(f, "{failed} of {of} ({:.1} %)", 100.0 * self.0.rate())
    }
}

struct Points(f64);

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = format!("{:.2}", 100.0 * self.0);
        let short = points.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{short} %")
    }
}
