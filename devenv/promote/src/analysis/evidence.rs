//! Wealth that is divided over bets, and over the time at which they begin.
//!
//! An average of wealths is a wealth. One that begins its betting in block j is 1 until
//! then; with weights w_j that sum up to 1, the average over all beginnings is what has
//! been started, S, and what still waits. S needs no memory of each:
//! S_t = (S_{t−1} + w_t) · e_t. It is Shiryaev's way of finding a change at an unknown
//! time, with weights that are spent instead of a threshold for how often a change may be
//! found (Shin, Ramdas and Rinaldo, "E-detectors", 2023, compares both).

use serde::{Deserialize, Serialize};

/// A single block's e-value counts for no more than this: one bad second is none of a
/// release's, and an e-value that is cut is still one.
const LARGEST: f64 = 8.0;

/// Within a step half of its weight begins at once, and the rest later: this share of what
/// is left in each block, so a change is expected after a minute.
const LATER: f64 = 1.0 / 64.0;

/// When bets begin, over all steps of a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Starts {
    steps: u32,
    step: u32,
    /// Of the step's weight.
    left: f64,
    first: bool,
    waiting: f64,
}

impl Starts {
    pub(super) fn new(steps: u32) -> Self {
        Self {
            steps: steps.max(1),
            step: 0,
            left: Self::of_step(0, steps.max(1)),
            first: true,
            waiting: 1.0,
        }
    }

    /// The first step has half of all weight: most bad releases are found there, and it
    /// has the least traffic to find them by. The others share the rest; a step more than
    /// was said has nothing left.
    fn of_step(step: u32, steps: u32) -> f64 {
        match (step, steps) {
            (0, 1) => 1.0,
            (0, _) => 0.5,
            (step, steps) if step < steps => 0.5 / f64::from(steps - 1),
            _ => 0.0,
        }
    }

    pub(super) fn next_step(&mut self) {
        self.step = self.step.saturating_add(1);
        self.left = Self::of_step(self.step, self.steps);
        self.first = true;
    }

    /// The weight that begins with this block.
    pub(super) fn next(&mut self) -> f64 {
        let weight = self.left * if self.first { 0.5 } else { LATER };
        self.first = false;
        self.left -= weight;
        self.waiting = (self.waiting - weight).max(0.0);
        weight
    }

    /// What has not begun, and is worth what it was.
    pub(super) fn waiting(&self) -> f64 {
        self.waiting
    }
}

/// What has been started, on several bets of equal weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mixture {
    bets: Vec<f64>,
}

impl Mixture {
    pub(super) fn new(bets: usize) -> Self {
        Self {
            bets: vec![0.0; bets],
        }
    }

    /// Each bet's e-value of a block, as logarithms, where `start` begins before it.
    pub(super) fn update(&mut self, start: f64, ln_e: impl IntoIterator<Item = f64>) {
        for (wealth, ln_e) in self.bets.iter_mut().zip(ln_e) {
            *wealth = (*wealth + start) * ln_e.exp().min(LARGEST);
        }
    }

    /// The wealth of what has been started; what waits is not in it.
    pub(super) fn started(&self) -> f64 {
        self.bets.iter().sum::<f64>() / self.bets.len().max(1) as f64
    }
}

/// One bet within one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Single {
    starts: Starts,
    mixture: Mixture,
}

impl Single {
    pub(super) fn new() -> Self {
        Self {
            starts: Starts::new(1),
            mixture: Mixture::new(1),
        }
    }

    pub(super) fn update(&mut self, ln_e: f64) {
        let start = self.starts.next();
        self.mixture.update(start, [ln_e]);
    }

    pub(super) fn value(&self) -> f64 {
        self.starts.waiting() + self.mixture.started()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_up_to_one_over_all_steps() {
        for steps in [1, 2, 4, 7] {
            let mut starts = Starts::new(steps);
            let mut sum = 0.0;
            for step in 0..steps + 2 {
                if step > 0 {
                    starts.next_step();
                }
                for _ in 0..5_000 {
                    sum += starts.next();
                }
            }
            assert!((sum - 1.0).abs() < 1e-9, "{steps} steps: {sum}");
            assert!(starts.waiting() < 1e-9);
        }
    }

    #[test]
    fn wealth_of_fair_bets_that_say_nothing_stays_one() {
        let mut starts = Starts::new(4);
        let mut mixture = Mixture::new(3);
        for _ in 0..500 {
            let start = starts.next();
            mixture.update(start, [0.0; 3]);
            assert!((mixture.started() + starts.waiting() - 1.0).abs() < 1e-9);
        }
    }

    /// What makes a crash after a good while one of a few blocks.
    #[test]
    fn a_change_after_long_is_found_nearly_as_soon() {
        let mut single = Single::new();
        for _ in 0..100 {
            single.update(-20.0);
        }
        assert!(single.value() < 1.0);
        for _ in 0..6 {
            single.update(50.0);
        }
        assert!(single.value() > 100.0, "{}", single.value());
    }
}
