//! The end of a pod: asked for, waited for, forced, tidied up after.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::stopping::Stop;
use super::{Instance, KILL_LIMIT, LEAST_GRACE, Life, Slot};
use crate::kinds;
use crate::store::StoreError;

impl Instance {
    /// Begins the end; again only to shorten it.
    pub(super) fn begin_end(&mut self, grace: Duration, unroute: Duration) {
        if grace.is_zero() {
            self.kill();
            return;
        }
        match &mut self.life {
            Life::Alive => {
                let until = Instant::now() + unroute.min(grace);
                self.life = Life::Unrouting { until, grace };
                for index in 0..self.slots.len() {
                    self.slots[index].stop_lethal_probes();
                    let why = format!("Stopping container {}", self.slots[index].name());
                    // When all of devenv ends, there is nobody to wait for.
                    self.stop(index, &why, !unroute.is_zero());
                }
            }
            Life::Unrouting { grace: present, .. } => *present = grace.min(*present),
            Life::Ending { kill_at, .. } => *kill_at = (*kill_at).min(Instant::now() + grace),
            Life::Killed { .. } | Life::Over => {}
        }
    }

    /// SIGKILL to everything that runs.
    pub(super) fn kill(&mut self) {
        if matches!(self.life, Life::Killed { .. } | Life::Over) {
            return;
        }
        self.life = match &self.sandbox {
            Some(sandbox) => {
                sandbox.kill();
                Life::Killed {
                    until: Instant::now() + KILL_LIMIT,
                }
            }
            None => Life::Over,
        };
    }

    /// When the grace period is over: SIGKILL to what had its SIGTERM, and SIGTERM to what waited for
    /// its hook or its turn until now; true when there is such a container.
    pub(super) async fn some_get_more_time(&mut self, kill_at: Instant, now: Instant) -> bool {
        let unasked = |slot: &Slot| slot.is_running() && !matches!(slot.stop, Stop::Asked);
        if now < kill_at || !self.slots.iter().any(unasked) {
            return false;
        }
        for index in 0..self.slots.len() {
            if self.slots[index].is_running() {
                self.time_is_up(index).await;
            }
        }
        self.life = Life::Ending {
            kill_at: now + LEAST_GRACE,
            last: true,
        };
        true
    }

    /// Nothing runs any more: gives everything back.
    pub(super) fn finish(self) {
        self.shared.logs.forget(&self.uid);
        let dir = self.shared.pods_dir.join(&self.uid);
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(dir = %dir.display(), error = &error as &dyn std::error::Error, "a pod's folder could not be removed");
        }
        let (ns, name) = (self.object.namespace(), self.object.name());
        let same = self
            .shared
            .store
            .get(&kinds::POD, ns, name)
            .is_some_and(|o| o.uid() == self.uid);
        if self.remove && same {
            match self.shared.store.delete(&kinds::POD, ns, name) {
                Ok(_) | Err(StoreError::NotFound { .. } | StoreError::Closed) => {}
                Err(error) => warn!(
                    pod = name,
                    error = &error as &dyn std::error::Error,
                    "a pod's object could not be removed"
                ),
            }
        }
    }
}
