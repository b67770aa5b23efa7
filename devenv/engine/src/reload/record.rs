//! What came of a save: the reload and its budget.

use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Report;

/// One reload of one workload, or of the project's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Counted from 1 since `up`.
    pub number: u64,
    /// The image that changed, or `project` for manifests and devenv.toml, or
    /// `migrations`.
    pub what: String,
    /// What was rolled, such as `Deployment api1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The files that were saved, from the project's folder; at most [`Reload::FILES`].
    pub files: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// When the last of the files was written.
    pub saved: Timestamp,
    /// Where the time went.
    #[serde(default)]
    pub ms: Budget,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Report>,
}

impl Reload {
    /// How many files of one save are named.
    pub const FILES: usize = 10;
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version serves.
    Reloaded,
    /// The files changed in the running pods; their program reloads itself.
    Synced,
    /// Objects were applied, and none of them had to roll.
    Applied,
    /// A command failed; the old version serves.
    BuildFailed,
    /// The new version does not get ready; the old one serves.
    NotReady,
    /// What was saved can't be used; nothing changed.
    Invalid,
    /// A newer save came before the new version was ready.
    Superseded,
}

/// Milliseconds from the save to each step; nothing for a step that was not needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The change was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected: Option<u64>,
    /// The build was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<u64>,
    /// The first new pod's program runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// The rollout is complete: every pod is of the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
    /// The new version, in its Service's rotation, answered a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<u64>,
}

/// The moment of a save on the monotonic clock and on the wall's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Save {
    at: Instant,
    pub saved: SystemTime,
    pub detected: Instant,
}

impl Save {
    /// `saved` is the newest modification time among the files, where there is one: a
    /// removal or a request has none, and then it is the moment of detection.
    pub fn new(saved: Option<SystemTime>, detected: Instant) -> Self {
        let now = (Instant::now(), SystemTime::now());
        let detected_wall = now.1 - (now.0 - detected.min(now.0));
        // A file that was moved here or unpacked may have been written long ago, and a
        // clock of a network's server may run ahead.
        let saved = saved
            .filter(|s| {
                detected_wall
                    .duration_since(*s)
                    .is_ok_and(|d| d.as_secs() < 10)
            })
            .unwrap_or(detected_wall);
        let before = detected_wall.duration_since(saved).unwrap_or_default();
        Self {
            at: detected.checked_sub(before).unwrap_or(detected),
            saved,
            detected,
        }
    }

    /// Milliseconds from the save to `then`.
    pub fn ms(&self, then: Instant) -> u64 {
        let d = then.saturating_duration_since(self.at);
        u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
    }

    /// Of two saves that one reload answers, the newer: its budget is what people feel.
    pub fn newer(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }

    pub fn timestamp(&self) -> Timestamp {
        Timestamp::try_from(self.saved).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_budget_begins_when_the_file_was_written() {
        let detected = Instant::now();
        let wrote = SystemTime::now() - Duration::from_millis(40);
        let save = Save::new(Some(wrote), detected);
        let seen = save.ms(detected);
        assert!((30..=60).contains(&seen), "{seen}");
        assert!(save.ms(detected + Duration::from_secs(1)) >= 1000 + seen);
    }

    #[test]
    fn an_old_or_future_file_counts_from_its_detection() {
        let detected = Instant::now();
        for odd in [
            SystemTime::UNIX_EPOCH,
            SystemTime::now() + Duration::from_secs(3600),
        ] {
            assert_eq!(Save::new(Some(odd), detected).ms(detected), 0);
        }
        assert_eq!(Save::new(None, detected).ms(detected), 0);
    }
}
