//! The exact two-sided binomial test.

/// How probable it is that chance alone gives a count at most as probable as `k` of `n`
/// draws, each of which succeeds with probability `p`.
pub(super) fn two_sided(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        let certain = if p <= 0.0 { 0 } else { n };
        return if k == certain { 1.0 } else { 0.0 };
    }
    // ln n!, built up: exact enough for any number of requests one can wait for.
    let mut ln_factorial = vec![0.0_f64];
    for i in 1..=n {
        let before = ln_factorial.last().copied().unwrap_or_default();
        ln_factorial.push(before + (i as f64).ln());
    }
    let ln = |i: u64| ln_factorial.get(i as usize).copied().unwrap_or_default();
    let probability = |i: u64| {
        let ln_choose = ln(n) - ln(i) - ln(n - i);
        (ln_choose + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp()
    };
    let k = k.min(n);
    // What is equally probable counts, however the logarithms were rounded.
    let limit = probability(k) * (1.0 + 1e-7);
    let sum: f64 = (0..=n).map(probability).filter(|&each| each <= limit).sum();
    sum.min(1.0)
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
    fn as_r_has_it(#[case] k: u64, #[case] n: u64, #[case] p: f64, #[case] want: f64) {
        let got = two_sided(k, n, p);
        assert!((got - want).abs() < 1e-4, "{got}");
    }
}
