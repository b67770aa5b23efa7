//! Samples, and what is said of them.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Several measurements of one thing, in one unit.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub what: String,
    pub unit: &'static str,
    pub min: f64,
    pub median: f64,
    pub max: f64,
    pub samples: usize,
}

impl Series {
    /// From durations, in milliseconds.
    pub fn of_times(what: &str, times: &[Duration]) -> Self {
        let values = times.iter().map(|time| time.as_secs_f64() * 1e3);
        Self::new(what, "ms", values.collect())
    }

    /// From any values; of none, all is 0.
    pub fn new(what: &str, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        let half = values.len() / 2;
        let median = if half > 0 && values.len().is_multiple_of(2) {
            f64::midpoint(at(half - 1), at(half))
        } else {
            at(half)
        };
        Self {
            what: what.to_owned(),
            unit,
            min: at(0),
            median,
            max: at(values.len().saturating_sub(1)),
            samples: values.len(),
        }
    }
}

/// A bench's outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub bench: &'static str,
    pub series: Vec<Series>,
    /// The first series over the second, when there is something bare to compare with.
    pub ratio_min: Option<f64>,
    pub ratio_median: Option<f64>,
    /// What is aimed at.
    pub goal: &'static str,
}

impl Report {
    /// Ours against the bare.
    pub fn compared(bench: &'static str, ours: Series, bare: Series, goal: &'static str) -> Self {
        let ratio = |ours: f64, bare: f64| (bare > 0.0).then(|| ours / bare);
        Self {
            bench,
            ratio_min: ratio(ours.min, bare.min),
            ratio_median: ratio(ours.median, bare.median),
            series: vec![ours, bare],
            goal,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (goal: {})", self.bench, self.goal)?;
        for series in &self.series {
            writeln!(
                f,
                "  {:<44} min {:>9.2}  median {:>9.2}  max {:>9.2} {}  ({} samples)",
                series.what, series.min, series.median, series.max, series.unit, series.samples
            )?;
        }
        if let (Some(min), Some(median)) = (self.ratio_min, self.ratio_median) {
            writeln!(
                f,
                "  ratio: {min:.2} of the minima, {median:.2} of the medians"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let odd = Series::new("a", "ms", vec![30.0, 10.0, 20.0]);
        assert_eq!((odd.min, odd.median, odd.max), (10.0, 20.0, 30.0));
        let even = Series::new("b", "ms", vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((even.min, even.median, even.max), (1.0, 2.5, 4.0));
        let none = Series::new("c", "ms", vec![]);
        assert_eq!((none.min, none.median, none.samples), (0.0, 0.0, 0));
        let report = Report::compared("x", odd, even, "small");
        assert_eq!(
            (report.ratio_min, report.ratio_median),
            (Some(10.0), Some(8.0))
        );
    }
}
