//! What was seen of both sides within a block of time.

use serde::{Deserialize, Serialize};

use super::proportions::Count;

/// What was seen within one block, a second or so, of both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The side under suspicion.
    pub canary: Side,
    /// The side that it is compared with.
    pub stable: Side,
    /// How the canary's pods are; nothing: nobody looked in this block.
    pub health: Option<Health>,
}

/// What was seen of one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Requests that this side answered, or should have.
    pub requests: u64,
    /// Those of them that failed: a 5xx, or no answer at all.
    pub errors: u64,
    /// Checks of what an answer promised, such as that a 201 is followed by a row.
    pub checks: u64,
    /// Those of them that found the promise broken.
    pub checks_failed: u64,
    /// Of requests that did not fail: a quick 503 must not make a side look fast.
    pub latencies: Latencies,
}

/// How long requests took, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Latencies {
    /// Nobody measured.
    #[default]
    None,
    /// One value for each request.
    Values(Vec<f64>),
    /// How many requests fell between bounds, as Prometheus and Cloud Monitoring count
    /// (not cumulated).
    Histogram {
        /// Upper bounds of the buckets, ascending. What is above the last one is counted
        /// in one bucket more.
        bounds: Vec<f64>,
        /// One more than there are bounds.
        counts: Vec<u64>,
    },
}

/// How the canary's pods are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Restarts of the canary's containers since the promotion began.
    pub restarts: u32,
    /// Replicas that are wanted.
    pub wanted: u32,
    /// Those of them that are ready.
    pub ready: u32,
}

/// A block that can't be. The numbers come from somewhere else, and that has a fault.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadBlock {
    /// More failures than there were tries.
    #[error("{side}: {failed} of {of} {what} failed, which can't be: check what counts them")]
    MoreFailedThanMade {
        /// `canary` or `stable`.
        side: &'static str,
        /// `requests` or `checks`.
        what: &'static str,
        /// How many failed.
        failed: u64,
        /// Of how many.
        of: u64,
    },
    /// A latency below zero, or none at all.
    #[error("{side}: a latency of {value} ms, expected a number from 0 on")]
    Latency {
        /// `canary` or `stable`.
        side: &'static str,
        /// What it is.
        value: f64,
    },
    /// A histogram without an order.
    #[error(
        "{side}: a histogram of {counts} counts for {bounds} bounds, expected ascending bounds and one count more"
    )]
    Histogram {
        /// `canary` or `stable`.
        side: &'static str,
        /// How many bounds.
        bounds: usize,
        /// How many counts.
        counts: usize,
    },
}

impl Block {
    pub(super) fn check(&self) -> Result<(), BadBlock> {
        self.canary.check("canary")?;
        self.stable.check("stable")
    }
}

impl Side {
    pub(super) fn failed(&self) -> Count {
        Count {
            failed: self.errors,
            of: self.requests,
        }
    }

    pub(super) fn checks_failed(&self) -> Count {
        Count {
            failed: self.checks_failed,
            of: self.checks,
        }
    }

    fn check(&self, side: &'static str) -> Result<(), BadBlock> {
        for (what, count) in [
            ("requests", self.failed()),
            ("checks", self.checks_failed()),
        ] {
            if count.failed > count.of {
                return Err(BadBlock::MoreFailedThanMade {
                    side,
                    what,
                    failed: count.failed,
                    of: count.of,
                });
            }
        }
        let numbers: &[f64] = match &self.latencies {
            Latencies::None => &[],
            Latencies::Values(values) => values,
            Latencies::Histogram { bounds, counts } => {
                if counts.len() != bounds.len() + 1 || !bounds.is_sorted_by(|a, b| a < b) {
                    return Err(BadBlock::Histogram {
                        side,
                        bounds: bounds.len(),
                        counts: counts.len(),
                    });
                }
                bounds
            }
        };
        match numbers.iter().find(|n| !(n.is_finite() && **n >= 0.0)) {
            Some(value) => Err(BadBlock::Latency {
                side,
                value: *value,
            }),
            None => Ok(()),
        }
    }
}

impl Latencies {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Latencies::None => 0,
            Latencies::Values(values) => values.len() as u64,
            Latencies::Histogram { counts, .. } => counts.iter().sum(),
        }
    }

    /// How many took longer than `ms` without doubt. Of a bucket that reaches below it
    /// nobody knows.
    pub(super) fn surely_above(&self, ms: f64) -> u64 {
        match self {
            Latencies::Histogram { bounds, counts } => counts
                .iter()
                .skip(1)
                .zip(bounds)
                .filter(|(_, lower)| **lower >= ms)
                .map(|(count, _)| count)
                .sum(),
            _ => self.values_above(ms),
        }
    }

    /// How many may have taken longer than `ms`.
    pub(super) fn possibly_above(&self, ms: f64) -> u64 {
        match self {
            Latencies::Histogram { bounds, counts } => {
                let surely_below: u64 = bounds
                    .iter()
                    .zip(counts)
                    .filter(|(upper, _)| **upper <= ms)
                    .map(|(_, count)| count)
                    .sum();
                self.len() - surely_below
            }
            _ => self.values_above(ms),
        }
    }

    fn values_above(&self, ms: f64) -> u64 {
        match self {
            Latencies::Values(values) => values.iter().filter(|v| **v > ms).count() as u64,
            _ => 0,
        }
    }
}
