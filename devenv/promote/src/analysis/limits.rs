//! What is tolerated of a canary, and how sure one wants to be.

use serde::{Deserialize, Serialize};

/// What is tolerated, how sure one wants to be, and how long a step may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// The chance, per promotion and over all its steps, metrics and looks, that a canary
    /// is called worse that is no worse than tolerated. Default 0.01. Of workloads that
    /// are promoted in turn each has an analysis, and they share this: see
    /// [`shared_by`](Self::shared_by).
    pub false_alarms: f64,
    /// How many steps the promotion has; evidence is budgeted over so many. Default 4.
    pub steps: u32,
    /// How much higher than stable's the canary's rate of failed requests may be, as a
    /// difference of rates. Default 0.002: 0.2 percentage points.
    pub error_margin: f64,
    /// The same of failed checks. Default 0.002.
    pub check_margin: f64,
    /// How many times stable's latency the canary's may be. Default 1.25.
    pub slower: f64,
    /// And how many milliseconds beyond that: where an answer takes 1 ms, a quarter more
    /// is noise of the machine. Default 1.
    pub slower_ms: f64,
    /// Restarts of the canary's containers that are tolerated. Default 0.
    pub restarts: u32,
    /// For how many blocks in a row the canary may have fewer ready replicas than wanted.
    /// Default 3.
    pub not_ready_blocks: u32,
    /// How many blocks a step lasts at least. Default 20.
    pub min_blocks: u32,
    /// How many requests of the canary a step needs at least, whatever they show.
    /// Default 100.
    pub min_requests: u64,
    /// After how many blocks a step without an alarm is good, also where little is shown;
    /// after twice as many, where there is some evidence against the canary. Default 120.
    pub budget_blocks: u32,
    /// What has to be excluded before a step is good ahead of its budget.
    pub shown: Shown,
}

/// "Much worse", which has to be excluded before a step is good ahead of its budget. Wider
/// than what is tolerated: to exclude a difference costs the more requests, the smaller it
/// is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Shown {
    /// How sure one wants to be, of each metric in each step. Default 0.95.
    pub confidence: f64,
    /// A rate of failed requests that is so much above stable's. Default 0.01.
    pub error_margin: f64,
    /// A rate of failed checks that is so much above stable's. Default 0.02.
    pub check_margin: f64,
    /// Latency that is so many times stable's. Default 2.
    pub slower: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            false_alarms: 0.01,
            steps: 4,
            error_margin: 0.002,
            check_margin: 0.002,
            slower: 1.25,
            slower_ms: 1.0,
            restarts: 0,
            not_ready_blocks: 3,
            min_blocks: 20,
            min_requests: 100,
            budget_blocks: 120,
            shown: Shown::default(),
        }
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            confidence: 0.95,
            error_margin: 0.01,
            check_margin: 0.02,
            slower: 2.0,
        }
    }
}

/// A limit that no data can meet.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("analysis: {name} is {value}, expected {expected}")]
pub struct BadLimits {
    /// As it is written in a configuration.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be.
    pub expected: &'static str,
}

impl Limits {
    /// The limits of each of so many workloads that are promoted in turn, so that
    /// [`false_alarms`](Self::false_alarms) holds for all of them together.
    #[must_use]
    pub fn shared_by(&self, workloads: u32) -> Self {
        Self {
            false_alarms: self.false_alarms / f64::from(workloads.max(1)),
            ..self.clone()
        }
    }

    /// Whether data can meet them at all.
    ///
    /// # Errors
    /// The first one that can't be met, with what it may be.
    pub fn check(&self) -> Result<(), BadLimits> {
        let rate = |name, value: f64| {
            bound(
                name,
                value,
                (0.0..=0.5).contains(&value),
                "a rate from 0 to 0.5",
            )
        };
        let open = |name, value: f64| {
            let fits = value > 0.0 && value < 1.0;
            bound(name, value, fits, "between 0 and 1")
        };
        let times = |name, value: f64| {
            let fits = (1.0..=1000.0).contains(&value);
            bound(name, value, fits, "from 1 to 1000")
        };
        open("false-alarms", self.false_alarms)?;
        open("shown.confidence", self.shown.confidence)?;
        rate("error-margin", self.error_margin)?;
        rate("check-margin", self.check_margin)?;
        rate("shown.error-margin", self.shown.error_margin)?;
        rate("shown.check-margin", self.shown.check_margin)?;
        times("slower", self.slower)?;
        times("shown.slower", self.shown.slower)?;
        let fits = self.slower_ms >= 0.0 && self.slower_ms.is_finite();
        bound("slower-ms", self.slower_ms, fits, "milliseconds from 0 on")?;
        let one = |name, value: u32| bound(name, value.into(), value > 0, "1 or more");
        one("steps", self.steps)?;
        one("budget-blocks", self.budget_blocks)
    }
}

fn bound(
    name: &'static str,
    value: f64,
    fits: bool,
    expected: &'static str,
) -> Result<(), BadLimits> {
    if fits {
        Ok(())
    } else {
        Err(BadLimits {
            name,
            value,
            expected,
        })
    }
}
