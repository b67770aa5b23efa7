//! What a run may be required to show: `--expect-split 50:50±2` and `--max-failures 0`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::report::Report;

/// Why a requirement could not be read; names what was given, what is expected and an example.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}: {reason}; expected something like {example}")]
pub struct ParseCheckError {
    given: String,
    what: &'static str,
    reason: String,
    example: &'static str,
}

/// How the successful requests must have been shared among the APIs.
///
/// Written `50:50±2` (or `50:50+-2`): shares in the order of the APIs' names, which need not add up to
/// 100 (`1:1` and `50:50` are the same), and by how many percentage points each may be off. Shares can
/// name their API: `api1=30:api2=70±1`. Without a tolerance 2 points are allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectSplit {
    /// Name, where given, and share in 0..1.
    parts: Vec<(Option<String>, f64)>,
    /// In percentage points.
    tolerance: f64,
}

const DEFAULT_TOLERANCE: f64 = 2.0;

impl FromStr for ExpectSplit {
    type Err = ParseCheckError;

    fn from_str(given: &str) -> Result<ExpectSplit, ParseCheckError> {
        let wrong = |reason: String| ParseCheckError {
            given: given.to_owned(),
            what: "expected split",
            reason,
            example: "50:50±2 or api1=30:api2=70±1",
        };
        let text = given.trim();
        let (shares, tolerance) = match text.split_once('±').or_else(|| text.split_once("+-")) {
            Some((shares, tolerance)) => {
                let tolerance = tolerance.trim().trim_end_matches('%').trim_end();
                let points = number(tolerance)
                    .filter(|points| *points <= 100.0)
                    .ok_or_else(|| wrong(format!("the tolerance `{tolerance}` is not a number of percentage points from 0 to 100")))?;
                (shares, points)
            }
            None => (text, DEFAULT_TOLERANCE),
        };
        let mut parts = Vec::new();
        for part in shares.split(':').map(str::trim) {
            let (name, share) = match part.split_once('=') {
                Some((name, share)) if !name.trim().is_empty() => {
                    (Some(name.trim().to_owned()), share.trim())
                }
                Some(_) => return Err(wrong(format!("`{part}` has no name before its ="))),
                None => (None, part),
            };
            let share = share.trim_end_matches('%').trim_end();
            let share = number(share).ok_or_else(|| {
                wrong(format!("the share `{share}` is not a number of 0 or more"))
            })?;
            parts.push((name, share));
        }
        if parts.len() < 2 {
            return Err(wrong(
                "a split has at least two shares, divided by a colon".to_owned(),
            ));
        }
        let named = parts.iter().filter(|(name, _)| name.is_some()).count();
        if named != 0 && named != parts.len() {
            return Err(wrong(
                "some shares name their API and some do not".to_owned(),
            ));
        }
        for (index, (name, _)) in parts.iter().enumerate() {
            if let Some(name) = name
                && parts[..index]
                    .iter()
                    .any(|(other, _)| other.as_ref() == Some(name))
            {
                return Err(wrong(format!("{name} stands in it twice")));
            }
        }
        let sum: f64 = parts.iter().map(|(_, share)| share).sum();
        if sum <= 0.0 || !sum.is_finite() {
            return Err(wrong("its shares add up to nothing".to_owned()));
        }
        for (_, share) in &mut parts {
            *share /= sum;
        }
        Ok(ExpectSplit { parts, tolerance })
    }
}

impl ExpectSplit {
    /// Judges the split of a run.
    ///
    /// # Errors
    /// A sentence that says what was expected and what was found.
    pub fn check(&self, report: &Report) -> Result<(), String> {
        self.check_counts(&report.by_api)
    }

    /// As [`check`](Self::check), for counts from elsewhere.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_counts(&self, by_api: &BTreeMap<String, u64>) -> Result<(), String> {
        let total: u64 = by_api.values().sum();
        if total == 0 {
            return Err(format!(
                "expected a split of {self}, but no request succeeded"
            ));
        }
        let expected: Vec<(&str, f64)> = if self.parts.iter().all(|(name, _)| name.is_some()) {
            if let Some(stranger) = by_api.keys().find(|api| {
                !self
                    .parts
                    .iter()
                    .any(|(name, _)| name.as_ref() == Some(api))
            }) {
                return Err(format!(
                    "expected a split of {self}, but {stranger} took requests too ({})",
                    found(by_api)
                ));
            }
            self.parts
                .iter()
                .map(|(name, share)| (name.as_deref().unwrap_or_default(), *share))
                .collect()
        } else {
            // An API with a share of 0 may well not appear.
            let needed = self.parts.iter().filter(|(_, share)| *share > 0.0).count();
            if by_api.len() != self.parts.len() && by_api.len() != needed {
                return Err(format!(
                    "expected a split of {self} among {} APIs, but found {} ({})",
                    self.parts.len(),
                    by_api.len(),
                    found(by_api)
                ));
            }
            let shares: Vec<f64> = self
                .parts
                .iter()
                .map(|(_, share)| *share)
                .filter(|share| by_api.len() == self.parts.len() || *share > 0.0)
                .collect();
            by_api.keys().map(String::as_str).zip(shares).collect()
        };
        for (api, share) in expected {
            let share_found = by_api.get(api).copied().unwrap_or(0) as f64 / total as f64;
            if (share_found - share).abs() * 100.0 > self.tolerance + 1e-9 {
                return Err(format!(
                    "expected a split of {self}, but {api} took {:.2} % ({})",
                    share_found * 100.0,
                    found(by_api)
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for ExpectSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, share)) in self.parts.iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            if let Some(name) = name {
                write!(f, "{name}=")?;
            }
            write!(f, "{}", (share * 10_000.0).round() / 100.0)?;
        }
        write!(f, "±{}", self.tolerance)
    }
}

fn found(by_api: &BTreeMap<String, u64>) -> String {
    by_api
        .iter()
        .map(|(api, n)| format!("{api}: {n}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>()
        .ok()
        .filter(|n| n.is_finite() && *n >= 0.0 && !text.starts_with('+'))
}

/// How many requests may fail: a count (`0`, `25`) or a share of all (`1%`, `0.5%`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailures {
    /// At most so many.
    Count(u64),
    /// At most this share of all requests, percent.
    Percent(f64),
}

impl FromStr for MaxFailures {
    type Err = ParseCheckError;

    fn from_str(given: &str) -> Result<MaxFailures, ParseCheckError> {
        let wrong = |reason: &str| ParseCheckError {
            given: given.to_owned(),
            what: "limit of failures",
            reason: reason.to_owned(),
            example: "0, 25 or 0.5%",
        };
        let text = given.trim();
        match text.strip_suffix('%') {
            Some(percent) => number(percent.trim_end())
                .filter(|percent| *percent <= 100.0)
                .map(MaxFailures::Percent)
                .ok_or_else(|| wrong("it is not a percentage from 0 to 100")),
            None => text
                .parse()
                .map(MaxFailures::Count)
                .map_err(|_| wrong("it is neither a whole number of 0 or more nor a percentage")),
        }
    }
}

impl MaxFailures {
    /// Judges the failures of a run.
    ///
    /// # Errors
    /// A sentence that says how many failed, why, and how many may.
    pub fn check(&self, report: &Report) -> Result<(), String> {
        let passed = match self {
            MaxFailures::Count(most) => report.failures <= *most,
            MaxFailures::Percent(most) => {
                report.failures as f64 <= report.requests as f64 * most / 100.0 + 1e-9
            }
        };
        if passed {
            return Ok(());
        }
        let why = report
            .errors
            .iter()
            .map(|(kind, n)| format!("{kind}: {n}"))
            .collect::<Vec<_>>()
            .join(", ");
        Err(format!(
            "{} of {} requests failed ({why}), at most {self} may",
            report.failures, report.requests
        ))
    }
}

impl fmt::Display for MaxFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxFailures::Count(most) => write!(f, "{most}"),
            MaxFailures::Percent(most) => write!(f, "{most} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn counts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
        all.iter().map(|(api, n)| ((*api).to_owned(), *n)).collect()
    }

    #[rstest]
    #[case("50:50±2", &[("api1", 5000), ("api2", 5000)], None)]
    #[case("50:50+-2", &[("api1", 5200), ("api2", 4800)], None)]
    #[case("50:50±2", &[("api1", 5201), ("api2", 4799)], Some("api1 took 52.01 %"))]
    #[case("50:50", &[("api1", 52), ("api2", 48)], None)]
    #[case("1:1±0", &[("NodeJS", 3), ("Python", 3)], None)]
    #[case("1:1±0", &[("NodeJS", 3), ("Python", 4)], Some("NodeJS took 42.86 %"))]
    #[case("30%:70% ± 1%", &[("api1", 30), ("api2", 70)], None)]
    #[case("30:70±1", &[("api1", 70), ("api2", 30)], Some("api1 took 70.00 %"))]
    #[case("api2=70:api1=30±1", &[("api1", 30), ("api2", 70)], None)]
    #[case("a=50:b=50", &[("a", 1), ("b", 1), ("c", 1)], Some("c took requests too"))]
    #[case("a=50:b=50", &[("a", 1)], Some("a took 100.00 %"))]
    #[case("50:50", &[("a", 1)], Some("among 2 APIs, but found 1 (a: 1)"))]
    #[case("100:0", &[("a", 9)], None)]
    #[case("0:100", &[("b", 9)], None)]
    #[case("0:100", &[("a", 9), ("b", 9)], Some("a took 50.00 %"))]
    #[case("50:50", &[], Some("no request succeeded"))]
    fn a_split_is_judged(
        #[case] expected: &str,
        #[case] by_api: &[(&str, u64)],
        #[case] message: Option<&str>,
    ) {
        let expected: ExpectSplit = expected.parse().unwrap();
        let verdict = expected.check_counts(&counts(by_api));
        match message {
            None => assert_eq!(verdict, Ok(())),
            Some(part) => assert!(verdict.clone().unwrap_err().contains(part), "{verdict:?}"),
        }
    }

    #[rstest]
    #[case("", "the share ``")]
    #[case("50", "at least two shares")]
    #[case("50:x", "the share `x`")]
    #[case("50:-50", "the share `-50`")]
    #[case("50:50±x", "the tolerance `x`")]
    #[case("50:50±200", "the tolerance `200`")]
    #[case("0:0", "add up to nothing")]
    #[case("a=50:50", "some shares name")]
    #[case("a=50:a=50", "a stands in it twice")]
    #[case("=50:a=50", "no name")]
    fn a_bad_split_is_explained(#[case] given: &str, #[case] reason: &str) {
        let error = given.parse::<ExpectSplit>().unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("50:50±2"),
            "{error}"
        );
    }

    #[rstest]
    #[case("0", 0, true)]
    #[case("0", 1, false)]
    #[case("3", 3, true)]
    #[case("1%", 10, true)]
    #[case("1 %", 11, false)]
    #[case("0.5%", 5, true)]
    fn failures_are_judged(#[case] limit: &str, #[case] failures: u64, #[case] passes: bool) {
        let limit: MaxFailures = limit.parse().unwrap();
        let report = Report {
            requests: 1000,
            failures,
            errors: [("http-503".to_owned(), failures)].into(),
            ..empty()
        };
        let verdict = limit.check(&report);
        assert_eq!(verdict.is_ok(), passes, "{verdict:?}");
        if let Err(message) = verdict {
            assert!(
                message.contains(&format!("http-503: {failures}")),
                "{message}"
            );
        }
    }

    #[rstest]
    #[case("-1")]
    #[case("1.5")]
    #[case("101%")]
    #[case("many")]
    #[case("%")]
    fn a_bad_limit_is_explained(#[case] given: &str) {
        let error = given.parse::<MaxFailures>().unwrap_err().to_string();
        assert!(
            error.contains(given) && error.contains("0, 25 or 0.5%"),
            "{error}"
        );
    }

    fn empty() -> Report {
        Report {
            requests: 0,
            failures: 0,
            by_status: BTreeMap::new(),
            by_api: BTreeMap::new(),
            errors: BTreeMap::new(),
            rows: 0,
            retries: 0,
            retry_causes: BTreeMap::new(),
            preflights: 0,
            latency_ms: crate::report::Latency::default(),
            duration_s: 0.0,
            rate_per_s: 0.0,
            target_rate_per_s: None,
            users: None,
            bytes_sent: 0,
            bytes_received: 0,
            cancelled: false,
            unfinished: 0,
            ids: None,
        }
    }
}
