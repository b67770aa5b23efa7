//! A small histogram of latencies: bounds 4 % apart, whatever comes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observation::Latencies;

/// The ratio of a bucket's bounds.
const RATIO: f64 = 1.04;

/// What is below counts as this; in milliseconds.
const SMALLEST_MS: f64 = 0.001;

/// The last bucket, of some ten thousand seconds.
const LAST: u16 = 600;

/// How many latencies fell into which bucket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sketch {
    buckets: BTreeMap<u16, f64>,
}

impl Sketch {
    pub(super) fn add(&mut self, latencies: &Latencies) {
        match latencies {
            Latencies::None => {}
            Latencies::Values(values) => {
                for value in values {
                    self.count(*value, 1.0);
                }
            }
            // In a bucket's middle; above the last bound there is no middle.
            Latencies::Histogram { bounds, counts } => {
                let mut lower = 0.0;
                for (index, count) in counts.iter().enumerate() {
                    let middle = bounds
                        .get(index)
                        .map_or(lower, |upper| 0.5 * (lower + upper));
                    self.count(middle, *count as f64);
                    lower = bounds.get(index).copied().unwrap_or(lower);
                }
            }
        }
    }

    fn count(&mut self, ms: f64, times: f64) {
        if times > 0.0 {
            *self.buckets.entry(bucket(ms)).or_default() += times;
        }
    }

    /// Makes what is there weigh less than what comes.
    pub(super) fn fade(&mut self, keep: f64) {
        self.buckets.retain(|_, count| {
            *count *= keep;
            *count > 1e-3
        });
    }

    pub(super) fn total(&self) -> f64 {
        self.buckets.values().sum()
    }

    /// The bounds of the bucket with the quantile of `level` in it.
    pub(super) fn quantile(&self, level: f64) -> Option<(f64, f64)> {
        let wanted = level * self.total();
        let mut sum = 0.0;
        let mut last = None;
        for (index, count) in &self.buckets {
            sum += count;
            last = Some((lower(*index), lower(index + 1)));
            if sum >= wanted {
                break;
            }
        }
        last
    }

    /// The share that lies above `ms`, as far as buckets tell.
    pub(super) fn share_above(&self, ms: f64) -> f64 {
        let total = self.total();
        if total == 0.0 {
            return 0.0;
        }
        // A bound belongs to the bucket above it, but for rounding.
        let first = bucket(ms * (1.0 + 1e-9));
        self.buckets
            .range(first..)
            .map(|(_, count)| count)
            .sum::<f64>()
            / total
    }
}

fn bucket(ms: f64) -> u16 {
    let index = ((ms.max(SMALLEST_MS) / SMALLEST_MS).ln() / RATIO.ln()).floor();
    // Saturates, and is never negative.
    (index as u16).min(LAST)
}

fn lower(bucket: u16) -> f64 {
    SMALLEST_MS * RATIO.powi(i32::from(bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_bucket() {
        let mut sketch = Sketch::default();
        sketch.add(&Latencies::Values((1..=1000).map(f64::from).collect()));
        for (level, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let (low, high) = sketch.quantile(level).unwrap();
            assert!(low <= exact && exact <= high, "{level}: {low}..{high}");
            assert!((sketch.share_above(high) - (1.0 - level)).abs() < 0.04);
        }
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn what_is_absurd_has_a_bucket_too() {
        let mut sketch = Sketch::default();
        sketch.add(&Latencies::Values(vec![0.0, 1e-300, 1e300]));
        assert_eq!(sketch.total(), 3.0);
        assert!(sketch.share_above(1.0) > 0.3);
    }

    #[test]
    fn histograms_count_by_their_middles() {
        let mut sketch = Sketch::default();
        sketch.add(&Latencies::Histogram {
            bounds: vec![10.0, 20.0],
            counts: vec![5, 5, 2],
        });
        assert_eq!(sketch.total(), 12.0);
        let (low, high) = sketch.quantile(0.8).unwrap();
        assert!(low <= 15.0 && 15.0 <= high);
    }
}
