//! Whether one side is slower.
//!
//! The method: both sides get the same request one right after the other, in turns first,
//! so that what the machine does meanwhile is met by both. Of each pair the ratio of the
//! two times is taken. The median of all ratios is what is told, with the interval in
//! which the true one lies with a confidence of 99.9 %, from order statistics (the sign
//! test): it assumes only that pairs don't influence each other, and nothing about how
//! times are distributed, nor that different requests take alike. Only when that interval
//! lies wholly on one side of 1 is anything said to be slower or faster; with fewer than
//! eleven pairs no interval has that confidence, and nothing is said.
//!
//! A time is from before a request is sent until its answer has been read, as a client on
//! this machine sees it; of pairs whose answers have different statuses, none is taken.

use std::time::Duration;

use serde::Serialize;

use crate::statistics::median_ranks;

const CONFIDENCE: f64 = 0.999;
/// So many times it takes until one of them lies beyond the 95th percentile.
const FOR_P95: usize = 20;

/// Times of both sides, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// How many pairs of times.
    pub pairs: usize,
    /// Of the left side.
    pub left: Times,
    /// Of the right side.
    pub right: Times,
    /// How many times as long the right side takes; nothing where the pairs are too few
    /// to say so.
    pub ratio: Option<Ratio>,
}

/// Times of one side, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// The median.
    pub median: f64,
    /// The 95th percentile, where there are times beyond it.
    pub p95: Option<f64>,
}

/// How many times as long one takes as the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the samples.
    pub median: f64,
    /// The true median is at least this, with a confidence of 99.9 %.
    pub low: f64,
    /// And at most this.
    pub high: f64,
}

/// What the samples carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The right side takes longer.
    Slower,
    /// The left side takes longer.
    Faster,
    /// Neither can be said of these samples.
    Unknown,
}

impl Latency {
    /// Of pairs of times, left and right; nothing if there are none.
    pub(super) fn of(pairs: &[(Duration, Duration)]) -> Option<Self> {
        let sorted = |values: &mut dyn Iterator<Item = f64>| {
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
        let left = Times::of(&sorted(&mut pairs.iter().map(|(left, _)| ms(left))))?;
        let right = Times::of(&sorted(&mut pairs.iter().map(|(_, right)| ms(right))))?;
        // A clock may stand still for as long as an answer takes.
        let ticks = |time: &Duration| time.as_secs_f64().max(1e-9);
        let ratios = sorted(&mut pairs.iter().map(|(left, right)| ticks(right) / ticks(left)));
        let ratio = median_ranks(ratios.len(), CONFIDENCE).and_then(|(low, high)| {
            Some(Ratio {
                median: quantile(&ratios, 0.5)?,
                low: *ratios.get(low)?,
                high: *ratios.get(high)?,
            })
        });
        Some(Self {
            pairs: pairs.len(),
            left,
            right,
            ratio,
        })
    }

    /// What can be said.
    pub fn verdict(&self) -> Verdict {
        match self.ratio {
            Some(ratio) if ratio.low > 1.0 => Verdict::Slower,
            Some(ratio) if ratio.high < 1.0 => Verdict::Faster,
            _ => Verdict::Unknown,
        }
    }
}

impl Times {
    fn of(sorted: &[f64]) -> Option<Self> {
        let p95 = (sorted.len() >= FOR_P95).then(|| quantile(sorted, 0.95));
        Some(Self {
            median: quantile(sorted, 0.5)?,
            p95: p95.flatten(),
        })
    }
}

/// Between the two samples that lie around it.
fn quantile(sorted: &[f64], of: f64) -> Option<f64> {
    let at = of * (sorted.len().checked_sub(1)?) as f64;
    let (low, high) = (
        sorted.get(at.floor() as usize)?,
        sorted.get(at.ceil() as usize)?,
    );
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Latency {
        let time = Duration::from_secs_f64;
        let pairs: Vec<_> = pairs
            .map(|(l, r)| (time(l / 1000.0), time(r / 1000.0)))
            .collect();
        Latency::of(&pairs).unwrap()
    }

    #[rstest]
    #[case::twice_as_slow(20, |i| (10.0 + i, 2.0 * (10.0 + i)), Verdict::Slower)]
    #[case::half(20, |i| (10.0 + i, (10.0 + i) / 2.0), Verdict::Faster)]
    #[case::too_few(10, |_| (1.0, 100.0), Verdict::Unknown)]
    #[case::just_enough(11, |_| (1.0, 100.0), Verdict::Slower)]
    #[case::equal(1000, |i| (10.0 + i, 10.0 + i), Verdict::Unknown)]
    #[case::noise(200, |i| (10.0 + i % 7.0, 10.0 + i % 5.0), Verdict::Unknown)]
    #[case::a_few_outliers(40, |i| (10.0, if i < 12.0 { 500.0 } else { 9.9 + 0.2 * (i % 2.0) }), Verdict::Unknown)]
    #[case::small_but_steady(100, |i| (10.0 + i, 1.01 * (10.0 + i)), Verdict::Slower)]
    fn verdicts(#[case] n: u32, #[case] pair: fn(f64) -> (f64, f64), #[case] want: Verdict) {
        let latency = of((0..n).map(|i| pair(f64::from(i))));
        assert_eq!(latency.verdict(), want, "{latency:?}");
    }

    #[test]
    fn figures() {
        let latency = of((0..21).map(|i| (f64::from(i), 3.0 * f64::from(i))));
        assert_eq!((latency.pairs, latency.left.median), (21, 10.0));
        assert!((latency.right.p95.unwrap() - 57.0).abs() < 1e-6);
        let ratio = latency.ratio.unwrap();
        assert!((ratio.median - 3.0).abs() < 1e-6 && (ratio.high - 3.0).abs() < 1e-6);
        assert_eq!(
            of((0..19).map(|i| (f64::from(i), 1.0))).left.p95,
            None,
            "too few"
        );
        assert_eq!(Latency::of(&[]), None);
    }
}
