//! Is the canary worse than stable? A sequential test of both in the same window.
//!
//! [`Analysis`] is a state machine without a clock. It is fed with [`Block`]s, what was
//! seen of both sides within a second or so, and can be asked after each of them:
//! [`Decision::Worse`], [`Decision::Good`] or [`Decision::Continue`]. It can be
//! serialized between blocks, so that who resumes a promotion goes on with the evidence
//! there is.
//!
//! # What is compared
//!
//! Four questions, each of which has a null hypothesis that says "no worse than is
//! tolerated":
//!
//! | metric | null hypothesis |
//! | --- | --- |
//! | [`Metric::Errors`] | the canary's rate of failed requests is at most stable's + [`Limits::error_margin`] |
//! | [`Metric::Checks`] | the same of checks by devenv's own probes, such as "a 201 is followed by a row" |
//! | [`Metric::Median`], [`Metric::Tail`] | the canary's latency is at most [`Limits::slower`] times stable's, + [`Limits::slower_ms`] |
//!
//! Stable's rates are not known, they are observed beside the canary's, and may change
//! from block to block: an outage of the database that both sides suffer from is no
//! evidence against either.
//!
//! # How
//!
//! Each block yields an *e-value* for each question: a number that is at most 1 on average
//! while the null holds (`proportions.rs`). The product of e-values of successive blocks is
//! the wealth of someone who bets against the null at fair odds, so it reaches
//! 1 / α with a probability of at most α, **whenever one looks and however long**
//! (Ville's inequality; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and
//! safe anytime-valid inference", 2023). That is what a threshold on a rate, or a p-value
//! that is looked at every second, cannot promise.
//!
//! Where it is not known what to bet on, the stake is divided, since an average of wealths
//! is a wealth (`evidence.rs`): over metrics, over alternatives (1, 3, 10, 40 points more
//! errors), over quantiles, and over the block in which the canary went bad, so that a
//! crash in the 20th second is not outweighed by 19 good ones. One wealth runs over all
//! steps of a promotion, and it is what [`Limits::false_alarms`] is about: the chance of
//! rolling back a canary that is no worse than tolerated, once per promotion and not per
//! look, metric or step.
//!
//! **Latency.** Quantiles are compared by counting. With θ an estimate of a quantile of
//! stable *from earlier blocks*, count in this block how many of stable took longer than
//! θ, and how many of the canary took longer than 1.25 θ + 1 ms. If the canary is at most
//! that much slower, the second share is at most the first, whatever θ is: that θ is an
//! estimate costs power, never validity. It is then a test of two proportions again.
//!
//! **What is assumed.** That requests of one block fail or are slow independently of each
//! other, given the state of the world in that second, which both sides share. A single
//! second's e-value is cut at 8, so that a pause of one pod can't condemn a release alone;
//! cutting keeps an e-value one.
//!
//! **Good** is the opposite test: that each metric is *much* worse ([`Shown`]) is rejected
//! at 95 %, or the step's budget of blocks is used up without an alarm. While there is some
//! evidence against the canary (a wealth of 10), neither counts, and the budget is twice as
//! long.
//!
//! **How long that takes**, at 5 % of 200 requests a second, is asserted by the simulation
//! beside this code, as is the rate of false alarms: a minute for 3 % of 5xx, half of it for
//! a p95 that doubled, seconds for a crash.
//!
//! **At 100 %** stable has no requests and nothing to compare with in the window. Its
//! rates so far stand in; that part of the guarantee needs the world to stay as it was.

mod decision;
mod evidence;
mod limits;
mod metric;
mod observation;
mod proportions;
mod sketch;

pub use decision::{Decision, Evidence, Good, Numbers, Quantiles, Reason, Worse};
pub use limits::{BadLimits, Limits, Shown};
pub use metric::Metric;
pub use observation::{BadBlock, Block, Health, Latencies, Side};
pub use proportions::Count;

use serde::{Deserialize, Serialize};

use evidence::Starts;
use metric::{Latency, Rates};

/// The analysis of one promotion, over all its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    limits: Limits,
    /// When evidence against the canary begins to count, over all steps.
    starts: Starts,
    errors: Rates,
    checks: Rates,
    latency: Latency,
    /// Of this step.
    blocks: u32,
    /// In a row, without all replicas ready.
    not_ready: u32,
    /// Of this step.
    decided: Option<Decision>,
}

impl Analysis {
    /// The analysis of a promotion that begins its first step.
    ///
    /// # Errors
    /// When the limits can't be met by any data, such as a rate of false alarms of 0.
    pub fn new(limits: Limits) -> Result<Self, BadLimits> {
        limits.check()?;
        Ok(Self {
            starts: Starts::new(limits.steps),
            errors: Rates::new(),
            checks: Rates::new(),
            latency: Latency::new(),
            blocks: 0,
            not_ready: 0,
            decided: None,
            limits,
        })
    }

    /// Takes in what was seen, and says what is known now.
    ///
    /// [`Decision::Worse`] is the last word. A step that is [`Decision::Good`] stays it until
    /// the canary gets worse after all: who pauses there goes on to look.
    ///
    /// # Errors
    /// When the block can't be, such as one with more errors than requests. The analysis
    /// is as it was before.
    pub fn observe(&mut self, block: &Block) -> Result<Decision, BadBlock> {
        block.check()?;
        if matches!(self.decided, Some(Decision::Worse(_))) {
            return Ok(self.decision());
        }
        self.blocks = self.blocks.saturating_add(1);
        let start = self.starts.next();
        let limits = &self.limits;
        self.errors.observe(
            block.canary.failed(),
            block.stable.failed(),
            limits.error_margin,
            limits.shown.error_margin,
            start,
        );
        self.checks.observe(
            block.canary.checks_failed(),
            block.stable.checks_failed(),
            limits.check_margin,
            limits.shown.check_margin,
            start,
        );
        self.latency.observe(
            &block.canary.latencies,
            &block.stable.latencies,
            limits,
            start,
        );
        let bad = self.unhealthy(block.health).or_else(|| self.worse());
        self.decided = match (bad, self.decided.take()) {
            (Some(worse), _) => Some(worse),
            (None, Some(Decision::Good(good))) => Some(Decision::Good(good)),
            (None, _) => self.good(),
        };
        Ok(self.decision())
    }

    /// What is known now.
    pub fn decision(&self) -> Decision {
        self.decided.clone().unwrap_or(Decision::Continue {
            wealth: self.wealth(),
            alarm: self.alarm(),
        })
    }

    /// Begins the next step of the same promotion.
    ///
    /// Evidence against the canary is kept; what is counted for the step begins anew. A
    /// canary that was found worse stays so.
    pub fn next_step(&mut self) {
        if matches!(self.decided, Some(Decision::Worse(_))) {
            return;
        }
        self.starts.next_step();
        self.errors.next_step();
        self.checks.next_step();
        self.latency.next_step();
        self.blocks = 0;
        self.not_ready = 0;
        self.decided = None;
    }

    /// The wealth of who bets against the canary: 1 at first, at most 1 on average as long
    /// as it is no worse than tolerated.
    pub fn wealth(&self) -> f64 {
        let waiting = self.starts.waiting();
        let all = Metric::ALL.map(|metric| self.wealth_of(metric, waiting));
        all.iter().sum::<f64>() / all.len() as f64
    }

    /// The wealth at which the canary is called worse.
    pub fn alarm(&self) -> f64 {
        1.0 / self.limits.false_alarms
    }

    fn wealth_of(&self, metric: Metric, waiting: f64) -> f64 {
        waiting
            + match metric {
                Metric::Errors => self.errors.against.started(),
                Metric::Checks => self.checks.against.started(),
                Metric::Median => self.latency.median.against.started(),
                Metric::Tail => self.latency.tail.against.started(),
            }
    }

    fn unhealthy(&mut self, health: Option<Health>) -> Option<Decision> {
        let health = health?;
        if health.restarts > self.limits.restarts {
            return Some(Decision::Worse(Worse {
                reason: Reason::Restarts {
                    restarts: health.restarts,
                    tolerated: self.limits.restarts,
                },
                numbers: self.numbers(),
            }));
        }
        self.not_ready = if health.ready < health.wanted {
            self.not_ready + 1
        } else {
            0
        };
        (self.not_ready > self.limits.not_ready_blocks).then(|| {
            Decision::Worse(Worse {
                reason: Reason::Readiness {
                    ready: health.ready,
                    wanted: health.wanted,
                    blocks: self.not_ready,
                    tolerated: self.limits.not_ready_blocks,
                },
                numbers: self.numbers(),
            })
        })
    }

    fn worse(&self) -> Option<Decision> {
        let (wealth, alarm) = (self.wealth(), self.alarm());
        if wealth < alarm {
            return None;
        }
        let waiting = self.starts.waiting();
        let metric = Metric::ALL
            .into_iter()
            .max_by(|a, b| {
                self.wealth_of(*a, waiting)
                    .total_cmp(&self.wealth_of(*b, waiting))
            })
            .unwrap_or(Metric::Errors);
        Some(Decision::Worse(Worse {
            reason: Reason::Metric {
                metric,
                wealth,
                alarm,
            },
            numbers: self.numbers(),
        }))
    }

    fn good(&self) -> Option<Decision> {
        let limits = &self.limits;
        let requests = self.errors.canary.of;
        let good = |evidence| {
            Some(Decision::Good(Good {
                evidence,
                numbers: self.numbers(),
            }))
        };
        // A square root of the way to an alarm is no ground to go on.
        let suspicious = self.wealth() >= self.alarm().sqrt();
        if self.blocks >= limits.min_blocks
            && requests >= limits.min_requests
            && self.not_ready == 0
            && !suspicious
            && self.is_shown()
        {
            return good(Evidence::Shown {
                confidence: limits.shown.confidence,
            });
        }
        let budget = if suspicious {
            limits.budget_blocks.saturating_mul(2)
        } else {
            limits.budget_blocks
        };
        if self.blocks < budget {
            return None;
        }
        if requests < limits.min_requests {
            return Some(Decision::TooFew {
                requests,
                needed: limits.min_requests,
                blocks: self.blocks,
            });
        }
        good(Evidence::BudgetUsed {
            blocks: self.blocks,
        })
    }

    /// Whether "much worse" is rejected of each metric that there are data for. All must
    /// be, so no error rate is shared out between them.
    fn is_shown(&self) -> bool {
        let needed = 1.0 / (1.0 - self.limits.shown.confidence);
        self.errors.much_worse.value() >= needed
            && (self.checks.canary.of == 0 || self.checks.much_worse.value() >= needed)
            && (!self.latency.has_data()
                || (self.latency.median.much_worse.value() >= needed
                    && self.latency.tail.much_worse.value() >= needed))
    }

    /// What was seen in this step, for a record.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            blocks: self.blocks,
            canary: self.errors.canary,
            stable: self.errors.stable,
            canary_checks: self.checks.canary,
            stable_checks: self.checks.stable,
            canary_ms: self.latency.canary_quantiles(),
            stable_ms: self.latency.stable_quantiles(),
            error_margin: self.limits.error_margin,
            check_margin: self.limits.check_margin,
            slower: self.limits.slower,
            slower_ms: self.limits.slower_ms,
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
