//! The four questions that are asked of a canary, and the bets on each.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    decision::Quantiles,
    evidence::{Mixture, Single},
    limits::Limits,
    observation::Latencies,
    proportions::{Bet, Count, ln_e},
    sketch::Sketch,
};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Requests that failed.
    Errors,
    /// Checks that failed.
    Checks,
    /// The latency of most requests.
    Median,
    /// The latency of the slowest requests.
    Tail,
}

impl Metric {
    pub(super) const ALL: [Metric; 4] =
        [Metric::Errors, Metric::Checks, Metric::Median, Metric::Tail];
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Errors => "errors",
            Metric::Checks => "checks",
            Metric::Median => "median latency",
            Metric::Tail => "latency of the slowest",
        })
    }
}

/// How much of the past is kept from block to block where the next bet is chosen by it: so
/// much that it follows the hour, and not the second.
const MEMORY: f64 = 0.99;

/// How much worse than tolerated bets have it, as a share of what is left to 100 %.
const WORSE_BY: [f64; 4] = [0.01, 0.03, 0.1, 0.4];

/// Where nothing was seen yet, a bettor takes stable to fail so often,
const RATE_BEFORE: f64 = 0.001;
/// as if it had been seen in so many requests.
const RATE_BEFORE_OF: f64 = 200.0;

/// A rate of failures, of requests or of checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rates {
    /// Of this step, for people.
    pub canary: Count,
    /// Of this step, for people.
    pub stable: Count,
    /// Stable's failures and tries of late.
    recent: (f64, f64),
    pub against: Mixture,
    pub much_worse: Single,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self {
            canary: Count::default(),
            stable: Count::default(),
            recent: (0.0, 0.0),
            against: Mixture::new(WORSE_BY.len()),
            much_worse: Single::new(),
        }
    }

    /// The bets are placed by what was seen before this block, then it is looked at.
    pub(super) fn observe(
        &mut self,
        canary: Count,
        stable: Count,
        margin: f64,
        much: f64,
        start: f64,
    ) {
        let (failed, of) = self.recent;
        let rate = (failed + RATE_BEFORE * RATE_BEFORE_OF) / (of + RATE_BEFORE_OF);
        let reference = (of > 0.0).then_some(rate);
        let line = (rate + margin).min(1.0);
        self.against.update(
            start,
            WORSE_BY.map(|by| {
                let bet = Bet {
                    canary: line + by * (1.0 - line),
                    stable: rate,
                    margin,
                };
                ln_e(canary, stable, bet, reference)
            }),
        );
        let bet = Bet {
            canary: rate,
            stable: rate,
            margin: much,
        };
        self.much_worse.update(ln_e(canary, stable, bet, reference));
        self.recent = (
            failed * MEMORY + stable.failed as f64,
            of * MEMORY + stable.of as f64,
        );
        self.canary.add(canary);
        self.stable.add(stable);
    }

    pub(super) fn next_step(&mut self) {
        self.canary = Count::default();
        self.stable = Count::default();
        self.much_worse = Single::new();
    }
}

/// Quantiles of stable that the canary's requests are compared at, and how much larger
/// than stable's the bets have the canary's share above them.
const MEDIAN_LEVELS: [f64; 2] = [0.5, 0.75];
const MEDIAN_WORSE_BY: [f64; 3] = [0.1, 0.3, 0.8];
/// The 99th percentile finds a tail that is longer, the 90th one that is thicker.
const TAIL_LEVELS: [f64; 3] = [0.9, 0.95, 0.99];
const TAIL_WORSE_BY: [f64; 4] = [0.02, 0.06, 0.2, 0.8];

/// Fewer latencies of stable make no quantile.
const ENOUGH: f64 = 50.0;

/// Latency, of most requests and of the slowest ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    /// Of stable of late: where quantiles come from.
    recent: Sketch,
    /// Of this step, for people.
    canary: Sketch,
    /// Of this step, for people.
    stable: Sketch,
    pub median: Wealths,
    pub tail: Wealths,
}

/// Against "no worse than tolerated", and against "much worse".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Wealths {
    pub against: Mixture,
    pub much_worse: Single,
}

impl Wealths {
    fn new(bets: usize) -> Self {
        Self {
            against: Mixture::new(bets),
            much_worse: Single::new(),
        }
    }
}

impl Latency {
    pub(super) fn new() -> Self {
        Self {
            recent: Sketch::default(),
            canary: Sketch::default(),
            stable: Sketch::default(),
            median: Wealths::new(MEDIAN_LEVELS.len() * MEDIAN_WORSE_BY.len()),
            tail: Wealths::new(TAIL_LEVELS.len() * TAIL_WORSE_BY.len()),
        }
    }

    pub(super) fn observe(
        &mut self,
        canary: &Latencies,
        stable: &Latencies,
        limits: &Limits,
        start: f64,
    ) {
        let look = Look {
            canary,
            stable,
            recent: &self.recent,
            limits,
        };
        let bets = MEDIAN_LEVELS.map(|level| look.against(level, MEDIAN_WORSE_BY));
        self.median
            .against
            .update(start, bets.into_iter().flatten());
        self.median.much_worse.update(look.much_worse(0.5));
        let bets = TAIL_LEVELS.map(|level| look.against(level, TAIL_WORSE_BY));
        self.tail.against.update(start, bets.into_iter().flatten());
        self.tail.much_worse.update(look.much_worse(0.95));

        self.recent.fade(MEMORY);
        self.recent.add(stable);
        self.canary.add(canary);
        self.stable.add(stable);
    }

    pub(super) fn next_step(&mut self) {
        self.canary = Sketch::default();
        self.stable = Sketch::default();
        self.median.much_worse = Single::new();
        self.tail.much_worse = Single::new();
    }

    pub(super) fn has_data(&self) -> bool {
        self.canary.total() > 0.0
    }

    pub(super) fn canary_quantiles(&self) -> Option<Quantiles> {
        quantiles(&self.canary)
    }

    pub(super) fn stable_quantiles(&self) -> Option<Quantiles> {
        quantiles(&self.stable)
    }
}

fn quantiles(sketch: &Sketch) -> Option<Quantiles> {
    let middle = |(low, high): (f64, f64)| (low * high).sqrt();
    Some(Quantiles {
        p50: middle(sketch.quantile(0.5)?),
        p95: middle(sketch.quantile(0.95)?),
    })
}

/// One block's latencies, and the past that bets are placed by.
struct Look<'a> {
    canary: &'a Latencies,
    stable: &'a Latencies,
    recent: &'a Sketch,
    limits: &'a Limits,
}

impl Look<'_> {
    /// For each bet the logarithm of the e-value against "at most `slower` times stable's
    /// latency", at one quantile of stable. What a histogram does not tell counts for the
    /// canary.
    fn against<const N: usize>(&self, level: f64, worse_by: [f64; N]) -> [f64; N] {
        let Some((_, theta)) = self.quantile(level) else {
            return [0.0; N];
        };
        let tolerated = theta * self.limits.slower + self.limits.slower_ms;
        let canary = Count {
            failed: self.canary.surely_above(tolerated),
            of: self.canary.len(),
        };
        let stable = Count {
            failed: self.stable.possibly_above(theta),
            of: self.stable.len(),
        };
        let rate = self.recent.share_above(theta);
        worse_by.map(|by| {
            let bet = Bet {
                canary: rate + by * (1.0 - rate),
                stable: rate,
                margin: 0.0,
            };
            ln_e(canary, stable, bet, Some(rate))
        })
    }

    /// The logarithm of the e-value against "at least `shown.slower` times stable's
    /// latency".
    fn much_worse(&self, level: f64) -> f64 {
        let Some((theta, _)) = self.quantile(level) else {
            return 0.0;
        };
        let much = theta * self.limits.shown.slower + self.limits.slower_ms;
        let canary = Count {
            failed: self.canary.possibly_above(much),
            of: self.canary.len(),
        };
        let stable = Count {
            failed: self.stable.surely_above(theta),
            of: self.stable.len(),
        };
        let rate = self.recent.share_above(theta);
        let bet = Bet {
            canary: self.recent.share_above(much),
            stable: rate,
            margin: 0.0,
        };
        if bet.canary >= bet.stable {
            return 0.0;
        }
        ln_e(canary, stable, bet, Some(rate))
    }

    fn quantile(&self, level: f64) -> Option<(f64, f64)> {
        (self.recent.total() >= ENOUGH)
            .then(|| self.recent.quantile(level))
            .flatten()
    }
}
