//! The e-value of one block: is one side's rate more than a margin above the other's?
//!
//! Sides A and B have n_a and n_b tries in a block, each of which fails with probability
//! p_a or p_b, which nobody knows. The null hypothesis is the set of all pairs with
//! p_a ≤ p_b + δ. The e-value is a ratio of likelihoods: of an alternative (q_a, q_b)
//! that was chosen before the block, over the pair (r_a, r_b) in the null that is nearest
//! to it, by the relative entropy weighted with n_a and n_b. The construction is Turner,
//! Ly and Grünwald's ("Generic E-variables for exact sequential k-sample tests that allow
//! for optional stopping", 2021; with margins in Turner and Grünwald, "Exact anytime-valid
//! confidence intervals for contingency tables and beyond", 2022).
//!
//! Why its mean is at most 1 for *every* pair in the null: one try of side A contributes
//! a factor with mean 1 + (p_a − r_a)·g_a where g_a = (q_a − r_a) / (r_a(1 − r_a)), and
//! log(1 + x) ≤ x, so the logarithm of the mean of the whole is at most
//! n_a(p_a − r_a)g_a + n_b(p_b − r_b)g_b. That is minus the directional derivative of the
//! weighted entropy at (r_a, r_b) towards (p_a, p_b). The null is convex and (r_a, r_b)
//! its nearest point, so the derivative is not negative, and the mean is at most e⁰.
//! Only the averages of p_a and p_b over the block come into it, so requests need not be
//! alike.

use serde::{Deserialize, Serialize};

/// So many failures of so many tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many failed.
    pub failed: u64,
    /// Of how many.
    pub of: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: Count) {
        self.failed = self.failed.saturating_add(other.failed);
        self.of = self.of.saturating_add(other.of);
    }

    /// The rate, 0 where there were no tries.
    pub fn rate(self) -> f64 {
        if self.of == 0 {
            0.0
        } else {
            self.failed as f64 / self.of as f64
        }
    }

    fn ln_likelihood_ratio(self, over: f64, under: f64) -> f64 {
        let fine = (self.of - self.failed.min(self.of)) as f64;
        let mut sum = 0.0;
        if self.failed > 0 {
            sum += self.failed as f64 * (over / under).ln();
        }
        if fine > 0.0 {
            sum += fine * ((1.0 - over) / (1.0 - under)).ln();
        }
        sum
    }
}

/// Rates are kept this far from 0 and 1.
const TINY: f64 = 1e-6;

/// What is bet on, and against what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bet {
    /// The canary's rate, as the alternative has it.
    pub canary: f64,
    /// Stable's rate, as the alternative has it.
    pub stable: f64,
    /// δ: where the null ends, in points between the two.
    pub margin: f64,
}

/// The logarithm of the e-value of a block against "the canary's rate is at most stable's
/// + margin" if the bet lies above that line, against "at least" if below.
///
/// Without tries of stable, `reference` stands in for its rate; without either there is
/// nothing to say, which is 0.
pub(super) fn ln_e(canary: Count, stable: Count, bet: Bet, reference: Option<f64>) -> f64 {
    if canary.of == 0 {
        return 0.0;
    }
    let (q_c, q_s) = (
        bet.canary.clamp(TINY, 1.0 - TINY),
        bet.stable.clamp(TINY, 1.0 - TINY),
    );
    if stable.of == 0 {
        return match reference {
            Some(rate) => {
                let line = (rate + bet.margin).clamp(TINY, 1.0 - TINY);
                // On the line's other side a ratio would reward the null.
                let above = bet.canary > bet.stable + bet.margin;
                if above == (q_c > line) {
                    canary.ln_likelihood_ratio(q_c, line)
                } else {
                    0.0
                }
            }
            None => 0.0,
        };
    }
    let (r_c, r_s) = nearest((canary.of as f64, q_c), (stable.of as f64, q_s), bet.margin);
    canary.ln_likelihood_ratio(q_c, r_c) + stable.ln_likelihood_ratio(q_s, r_s)
}

/// The point on the line r_c = r_s + margin that is nearest to (q_c, q_s).
///
/// On the line the weighted entropy is convex in r_s, and its derivative changes its sign
/// between stable's rate and the canary's less the margin: bisection finds it.
fn nearest((n_c, q_c): (f64, f64), (n_s, q_s): (f64, f64), margin: f64) -> (f64, f64) {
    let floor = TINY / 2.0;
    let ceiling = 1.0 - margin - floor;
    let mut low = q_s.min(q_c - margin).clamp(floor, ceiling);
    let mut high = q_s.max(q_c - margin).clamp(floor, ceiling);
    let slope = |r: f64| {
        let r_c = r + margin;
        n_c * (r_c - q_c) / (r_c * (1.0 - r_c)) + n_s * (r - q_s) / (r * (1.0 - r))
    };
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
        if high - low < 1e-12 {
            break;
        }
    }
    let r_s = 0.5 * (low + high);
    (r_s + margin, r_s)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn binomial(n: u64, p: f64) -> Vec<f64> {
        let mut all = vec![0.0; n as usize + 1];
        all[0] = 1.0;
        for done in 0..n as usize {
            for k in (0..=done).rev() {
                all[k + 1] += all[k] * p;
                all[k] *= 1.0 - p;
            }
        }
        all
    }

    /// The exact mean, over all outcomes of a block.
    fn mean(n_c: u64, p_c: f64, n_s: u64, p_s: f64, bet: Bet) -> f64 {
        let (canary, stable) = (binomial(n_c, p_c), binomial(n_s, p_s));
        let mut sum = 0.0;
        for (x, weight_c) in canary.iter().enumerate() {
            for (y, weight_s) in stable.iter().enumerate() {
                let e = ln_e(
                    Count {
                        failed: x as u64,
                        of: n_c,
                    },
                    Count {
                        failed: y as u64,
                        of: n_s,
                    },
                    bet,
                    None,
                )
                .exp();
                sum += weight_c * weight_s * e;
            }
        }
        sum
    }

    /// Every pair of rates on the line and below it, blocks of several shapes, bets that
    /// are right and bets that are absurd.
    #[rstest]
    #[case(10, 60, 0.03, 0.001, 0.002)]
    #[case(10, 60, 0.4, 0.02, 0.002)]
    #[case(30, 30, 0.3, 0.1, 0.05)]
    #[case(60, 3, 0.9, 0.0001, 0.0)]
    #[case(1, 1, 0.5, 0.25, 0.0)]
    fn the_mean_is_at_most_one_while_the_null_holds(
        #[case] n_c: u64,
        #[case] n_s: u64,
        #[case] q_c: f64,
        #[case] q_s: f64,
        #[case] margin: f64,
    ) {
        let bet = Bet {
            canary: q_c,
            stable: q_s,
            margin,
        };
        let mut largest: f64 = 0.0;
        for p_s in [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.9] {
            for below in [0.0, 0.5, 1.0] {
                let p_c = (p_s + margin) * (1.0 - below);
                if p_c <= 1.0 {
                    largest = largest.max(mean(n_c, p_c, n_s, p_s, bet));
                }
            }
        }
        assert!(largest <= 1.0 + 1e-9, "{largest}");
        assert!(
            mean(n_c, q_c, n_s, q_s, bet) > 1.0,
            "no power where the bet is right"
        );
    }

    /// The other side of the line: what rejects "much worse".
    #[test]
    fn a_bet_below_the_line_is_one_against_at_least() {
        let bet = Bet {
            canary: 0.001,
            stable: 0.001,
            margin: 0.05,
        };
        for p_s in [0.0, 0.01, 0.2] {
            for above in [0.0, 0.05, 0.4] {
                let m = mean(20, p_s + 0.05 + above, 40, p_s, bet);
                assert!(m <= 1.0 + 1e-9, "{m}");
            }
        }
        assert!(mean(20, 0.001, 40, 0.001, bet) > 1.0);
    }

    #[test]
    fn without_stable_its_history_stands_in() {
        let bet = Bet {
            canary: 0.3,
            stable: 0.01,
            margin: 0.002,
        };
        let bad = Count { failed: 5, of: 10 };
        assert_eq!(ln_e(bad, Count::default(), bet, None), 0.0);
        assert!(ln_e(bad, Count::default(), bet, Some(0.01)) > 5.0);
        assert_eq!(ln_e(bad, Count::default(), bet, Some(0.4)), 0.0);
        assert_eq!(ln_e(Count::default(), bad, bet, None), 0.0);
    }
}
