//! Exact tests: what chance alone explains, without assumptions about how values are
//! distributed.

/// How probable it is that chance alone gives a count at most as probable as `k` of `n`
/// draws, each of which succeeds with probability `p`: the two-sided binomial test.
pub(crate) fn binomial(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        let certain = if p <= 0.0 { 0 } else { n };
        return if k == certain { 1.0 } else { 0.0 };
    }
    let ln = LnFactorials::up_to(n);
    let probability =
        |i: u64| (ln.choose(n, i) + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp();
    at_most_as_probable(probability, k.min(n), 0..=n)
}

/// How probable it is that chance alone tells two samples apart as much as `a` of `m` and
/// `b` of `n` are, if both are drawn alike: Fisher's exact test, two-sided.
pub(crate) fn fisher((a, m): (u64, u64), (b, n): (u64, u64)) -> f64 {
    let (a, b) = (a.min(m), b.min(n));
    let ln = LnFactorials::up_to(m + n);
    let both = a + b;
    let all = ln.choose(m + n, both);
    let probability = |i: u64| (ln.choose(m, i) + ln.choose(n, both - i) - all).exp();
    at_most_as_probable(probability, a, both.saturating_sub(n)..=both.min(m))
}

/// Ranks, counted from 0, between which the median of whatever `n` samples come from lies
/// with at least this confidence, once they are sorted: order statistics, by the sign
/// test. Nothing if so few samples can't carry that.
pub(crate) fn median_ranks(n: usize, confidence: f64) -> Option<(usize, usize)> {
    let ln = LnFactorials::up_to(n as u64);
    let each_side = (1.0 - confidence) / 2.0;
    let mut below = 0.0;
    let mut rank = None;
    for i in 0..n / 2 {
        below += (ln.choose(n as u64, i as u64) - n as f64 * std::f64::consts::LN_2).exp();
        if below > each_side {
            break;
        }
        rank = Some((i, n - 1 - i));
    }
    rank
}

fn at_most_as_probable(
    probability: impl Fn(u64) -> f64,
    seen: u64,
    all: std::ops::RangeInclusive<u64>,
) -> f64 {
    // What is equally probable counts, however the logarithms were rounded.
    let limit = probability(seen) * (1.0 + 1e-7);
    let sum: f64 = all.map(probability).filter(|&each| each <= limit).sum();
    sum.min(1.0)
}

/// ln n!, built up: exact enough for any number of requests one can wait for.
struct LnFactorials(Vec<f64>);

impl LnFactorials {
    fn up_to(n: u64) -> Self {
        let mut all = vec![0.0_f64];
        for i in 1..=n {
            let before = all.last().copied().unwrap_or_default();
            all.push(before + (i as f64).ln());
        }
        Self(all)
    }

    /// The logarithm of n over k.
    fn choose(&self, n: u64, k: u64) -> f64 {
        let ln = |i: u64| self.0.get(i as usize).copied().unwrap_or_default();
        ln(n) - ln(k) - ln(n - k)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Against R's `binom.test(k, n, p)$p.value`, and by hand where it is short.
    #[rstest]
    #[case(5, 10, 0.5, 1.0)]
    #[case(0, 10, 0.5, 2.0 / 1024.0)]
    #[case(2, 10, 0.5, 112.0 / 1024.0)]
    #[case(0, 1, 0.5, 1.0)]
    #[case(3, 3, 0.1, 0.001)]
    #[case(682, 925, 0.75, 0.3825)]
    #[case(0, 0, 0.5, 1.0)]
    #[case(0, 5, 0.0, 1.0)]
    #[case(1, 5, 0.0, 0.0)]
    #[case(5, 5, 1.0, 1.0)]
    fn binomial_by_hand(#[case] k: u64, #[case] n: u64, #[case] p: f64, #[case] want: f64) {
        let got = binomial(k, n, p);
        assert!((got - want).abs() < 1e-4, "{got}");
    }

    /// By hand: the tea tasting of Fisher's own book, and what is shorter.
    #[rstest]
    #[case((3, 4), (1, 4), 34.0 / 70.0)]
    #[case((4, 4), (0, 4), 2.0 / 70.0)]
    #[case((5, 10), (5, 10), 1.0)]
    #[case((0, 10), (0, 10), 1.0)]
    #[case((10, 10), (10, 10), 1.0)]
    #[case((1, 1), (0, 1), 1.0)]
    #[case((0, 0), (3, 5), 1.0)]
    #[case((0, 3), (3, 3), 0.1)]
    fn fisher_by_hand(#[case] left: (u64, u64), #[case] right: (u64, u64), #[case] want: f64) {
        for got in [fisher(left, right), fisher(right, left)] {
            assert!((got - want).abs() < 1e-9, "{got}");
        }
    }

    /// Two times the sum of the binomial coefficients below a rank, over 2^n.
    #[rstest]
    #[case(0, 0.95, None)]
    #[case(5, 0.95, None)]
    #[case(6, 0.95, Some((0, 5)))]
    #[case(9, 0.95, Some((1, 7)))]
    #[case(10, 0.95, Some((1, 8)))]
    #[case(10, 0.999, None)]
    #[case(11, 0.999, Some((0, 10)))]
    #[case(20, 0.999, Some((2, 17)))]
    #[case(100, 0.95, Some((39, 60)))]
    fn ranks_of_the_median(
        #[case] n: usize,
        #[case] confidence: f64,
        #[case] want: Option<(usize, usize)>,
    ) {
        assert_eq!(median_ranks(n, confidence), want);
    }
}
