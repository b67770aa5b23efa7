//! Which weights a route carries at each step of a promotion, and how to get back.
//!
//! The declared split of a rule (api1 50, api2 50) is its steady state, and no release. A
//! workload that is promoted gets a canary of its own beside it, which takes the step's
//! share of *that workload's* part: at 10 % api1 45, api1-canary 5, api2 50. Nobody else's
//! part changes.
//!
//! **In turn.** Workloads of one promotion are promoted one after the other, each through
//! all its steps. Together would be shorter, but two canaries at once are each other's
//! environment: when api3 gets slow beside a new api1, whose fault is it? In turn the
//! answer is the one that was moved, what is rolled back is one workload, and stable is
//! what it was. The order is the caller's: what others call goes first.
//!
//! **Weights and endpoints never change together**, as they spread at different speeds:
//! the canary is in the route with a weight of 0 before it gets a share, and stable takes
//! the new digest while the canary has all of its part.

mod pods;
mod route;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use pods::{Pods, pods};
pub use route::{Moving, route_at};

/// The largest weight of a backend in an HTTPRoute (Gateway API v1).
pub const LARGEST: u32 = 1_000_000;

/// The largest weight of a backend service in a URL map of Google Cloud, which is what a
/// GKE Gateway makes of a route (Compute API v1, `WeightedBackendService.weight`).
pub const LARGEST_ON_GOOGLE_CLOUD: u32 = 1_000;

/// How many backends a rule of an HTTPRoute has at most (Gateway API v1).
pub const MOST_BACKENDS: usize = 16;

/// A step's share, in hundredths of a percent, above 0 and up to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percent(u32);

/// All of it, in hundredths of a percent.
const ALL: u32 = 10_000;

impl Percent {
    /// 100 %.
    pub const ALL: Percent = Percent(ALL);

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(ALL)
    }
}

/// A share that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share of a step: expected a percentage above 0 and up to 100, by hundredths")]
pub struct NoPercent(String);

impl TryFrom<f64> for Percent {
    type Error = NoPercent;

    fn try_from(percent: f64) -> Result<Self, NoPercent> {
        let hundredths = percent * 100.0;
        let whole = hundredths.round();
        if (1.0..=f64::from(ALL)).contains(&whole) && (hundredths - whole).abs() < 1e-6 {
            Ok(Self(whole as u32))
        } else {
            Err(NoPercent(percent.to_string()))
        }
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> f64 {
        f64::from(percent.0) / 100.0
    }
}

impl FromStr for Percent {
    type Err = NoPercent;

    fn from_str(text: &str) -> Result<Self, NoPercent> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let no = || NoPercent(text.to_owned());
        Self::try_from(number.parse::<f64>().map_err(|_| no())?).map_err(|_| no())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(*self))
    }
}

/// A backend of a rule and its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The Service's name.
    pub service: String,
    /// Its part of all weights of the rule.
    pub weight: u32,
}

impl Part {
    /// One.
    pub fn new(service: impl Into<String>, weight: u32) -> Self {
        Self {
            service: service.into(),
            weight,
        }
    }
}

/// Where one workload's promotion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", content = "percent", rename_all = "kebab-case")]
pub enum Stage {
    /// The declared weights, no canary: before, and after.
    Declared,
    /// The canary is a backend without a share, so that the load balancer learns its
    /// endpoints. Also where a rollback goes, in one write of weights.
    Attached,
    /// The canary has this share of its workload's part.
    Shared(Percent),
}

/// Why weights can't be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Nobody is called so.
    #[error("no backend is called {service}: the rule has {}", among.join(", "))]
    NoSuchBackend {
        /// Who was to be promoted.
        service: String,
        /// Who there is.
        among: Vec<String>,
    },
    /// Its part is nothing, and so is each share of it.
    #[error(
        "{service} has the weight 0, so its canary would have no request to be judged by: give it a weight, or promote it without steps"
    )]
    NoTraffic {
        /// Who was to be promoted.
        service: String,
    },
    /// The canary's name is taken.
    #[error(
        "a backend is called {service} already: remove it, or finish the promotion that it is of"
    )]
    NameTaken {
        /// The canary's Service.
        service: String,
    },
    /// Too fine for the weights there are.
    #[error(
        "{share} of {service}'s part would need weights up to {needed}, and the largest is {largest}: choose a coarser step, or weights with a common divisor"
    )]
    TooFine {
        /// The step's share.
        share: Percent,
        /// Who is promoted.
        service: String,
        /// The largest weight that would be needed.
        needed: u64,
        /// The largest there is.
        largest: u32,
    },
    /// More backends than a rule has.
    #[error(
        "with its canary the rule would have {backends} backends, and {MOST_BACKENDS} are allowed"
    )]
    TooManyBackends {
        /// How many.
        backends: usize,
    },
    /// An object that is no HTTPRoute as this crate writes them.
    #[error("HTTPRoute {name}: {problem}")]
    NotARoute {
        /// Its name, if it has one.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The greatest common divisor; of 0 and n it is n.
pub(crate) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The weights of a rule at a stage of one workload's promotion. The canary stands behind
/// its workload.
///
/// Ratios are exact: where a share is no whole number, all weights are scaled up, and
/// divided by what they have in common only if they would be too large otherwise.
///
/// # Errors
/// When the workload has no backend or no traffic there, or its share can't be said by
/// weights up to `largest`.
pub fn weights(
    declared: &[Part],
    service: &str,
    canary: &str,
    stage: Stage,
    largest: u32,
) -> Result<Vec<Part>, ShareError> {
    let at = declared
        .iter()
        .position(|part| part.service == service)
        .ok_or_else(|| ShareError::NoSuchBackend {
            service: service.to_owned(),
            among: declared.iter().map(|part| part.service.clone()).collect(),
        })?;
    if declared.iter().any(|part| part.service == canary) {
        return Err(ShareError::NameTaken {
            service: canary.to_owned(),
        });
    }
    let share = match stage {
        Stage::Declared => return Ok(declared.to_vec()),
        Stage::Attached => None,
        Stage::Shared(percent) => Some(percent),
    };
    if declared.len() == MOST_BACKENDS {
        return Err(ShareError::TooManyBackends {
            backends: declared.len() + 1,
        });
    }
    let mut out = declared.to_vec();
    let Some(share) = share else {
        out.insert(at + 1, Part::new(canary, 0));
        return Ok(out);
    };
    let own = u64::from(declared[at].weight);
    if own == 0 {
        return Err(ShareError::NoTraffic {
            service: service.to_owned(),
        });
    }
    // own · share / ALL is whole once everything is scaled by this.
    let product = own * u64::from(share.0);
    let scale = u64::from(ALL) / gcd(product, u64::from(ALL));
    let moved = product * scale / u64::from(ALL);
    let mut scaled: Vec<u64> = declared
        .iter()
        .map(|part| u64::from(part.weight) * scale)
        .collect();
    scaled[at] -= moved;
    scaled.insert(at + 1, moved);
    let max = |all: &[u64]| all.iter().copied().max().unwrap_or(0);
    if max(&scaled) > u64::from(largest) {
        let common = scaled.iter().copied().fold(0, gcd).max(1);
        for weight in &mut scaled {
            *weight /= common;
        }
    }
    if max(&scaled) > u64::from(largest) {
        return Err(ShareError::TooFine {
            share,
            service: service.to_owned(),
            needed: max(&scaled),
            largest,
        });
    }
    out.insert(at + 1, Part::new(canary, 0));
    for (part, weight) in out.iter_mut().zip(scaled) {
        part.weight = u32::try_from(weight).unwrap_or(u32::MAX);
    }
    Ok(out)
}

/// The stages of one workload's promotion: attached, each step, all of it, and back to
/// what is declared, by way of a canary without a share.
///
/// While the canary has all, stable takes the new digest without a request being at
/// stake. Steps are sorted, and 100 % is added where it is missing.
pub fn stages(steps: &[Percent]) -> Vec<Stage> {
    let mut steps = steps.to_vec();
    steps.push(Percent::ALL);
    steps.sort_unstable();
    steps.dedup();
    let mut out = vec![Stage::Attached];
    out.extend(steps.into_iter().map(Stage::Shared));
    out.extend([Stage::Attached, Stage::Declared]);
    out
}

#[cfg(test)]
mod tests;
