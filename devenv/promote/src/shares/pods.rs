//! Steps by pods behind one Service, where the front door can't split any further.
//!
//! ingress-nginx honours one canary for each main Service, and in a declared split that is
//! the other workload. So a canary's pods stand behind the same Service as stable's, and
//! their part of all pods is their share, as far as the front door spreads requests evenly
//! over pods: that is roughly so over many requests, and never exactly.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Percent;

/// How many pods of each version stand behind a Service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pods {
    /// Of the version that runs; never fewer than are declared.
    pub stable: u32,
    /// Of the new one.
    pub canary: u32,
    /// What was asked for.
    pub wanted: Percent,
    /// How many pods of stable would give what was asked for with one canary.
    pub stable_for_exact: u32,
}

impl Pods {
    /// The canary's part of all pods, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.canary) / f64::from((self.stable + self.canary).max(1))
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stable,
            canary,
            wanted,
            stable_for_exact,
        } = self;
        write!(
            f,
            "{canary} pods of the new version beside {stable} of the old behind one Service: about \
             {:.0} % of its requests, where {wanted} was asked for",
            100.0 * self.share()
        )?;
        if self.share() > wanted.fraction() * 1.1 {
            write!(
                f,
                "; for that, {stable_for_exact} pods of the old version would be needed, or a Gateway"
            )?;
        }
        Ok(())
    }
}

/// The pods that come nearest to a share, with at most `most` pods in all; where several
/// do, the fewest.
///
/// Stable keeps what is declared at least: what runs in production is not touched. So
/// 100 % can't be had by pods; nothing then, as the last step is an ordinary rollout.
pub fn pods(declared: u32, wanted: Percent, most: u32) -> Option<Pods> {
    if wanted == Percent::ALL {
        return None;
    }
    let declared = declared.max(1);
    // More than any cluster of this kind runs; a bound on what is tried.
    let most = most.min(1_000).max(declared.saturating_add(1));
    let target = wanted.fraction();
    let exact = (1.0 / target - 1.0).ceil();
    let mut best: Option<(f64, u32, Pods)> = None;
    for stable in declared..most {
        // The canary's number that is nearest, and at least one.
        let ideal = f64::from(stable) * target / (1.0 - target);
        for canary in [ideal.floor(), ideal.ceil()] {
            let canary = (canary as u32).clamp(1, most - stable);
            let pods = Pods {
                stable,
                canary,
                wanted,
                stable_for_exact: exact as u32,
            };
            let off = (pods.share() - target).abs();
            let all = stable + canary;
            let better = best.as_ref().is_none_or(|(least, fewest, _)| {
                off < least - 1e-9 || ((off - least).abs() <= 1e-9 && all < *fewest)
            });
            if better {
                best = Some((off, all, pods));
            }
        }
    }
    best.map(|(_, _, pods)| pods)
}
