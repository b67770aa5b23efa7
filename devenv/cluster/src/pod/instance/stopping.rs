//! How a container is ended: its preStop hook, its turn, SIGTERM.
//!
//! Main containers and plain init containers are asked as soon as their hooks
//! are done. A sidecar is asked when everything that may need it has ended: the
//! main containers, and the sidecars that started after it. Source: kubelet's
//! `kuberuntime_container.go` (`killContainer`) and `kuberuntime_termination_order.go`.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::slot::Phase;
use super::{EventType, Instance, Life, Slot};
use crate::pod::hooks;
use crate::pod::probes::Target;

/// What a container that used up its time before its SIGTERM still gets.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How far a running container is on its way to its end.
#[derive(Debug, Default)]
pub(super) enum Stop {
    /// Nobody wants its end.
    #[default]
    No,
    /// Its preStop hook runs.
    Hook(AbortHandle),
    /// It gets its SIGTERM when it is its turn.
    Due,
    /// It got it.
    Asked,
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Stop::Hook(task) = self {
            task.abort();
        }
    }
}

/// The end of a hook.
#[derive(Debug)]
pub(super) struct HookDone {
    container: String,
    run: u64,
    result: Result<(), String>,
}

impl Instance {
    /// Begins the end of a running container. `sleeps` says whether a hook that only waits for the
    /// routers is of use.
    pub(super) fn stop(&mut self, index: usize, why: &str, sleeps: bool) {
        let slot = &self.slots[index];
        if !slot.is_running() || !matches!(slot.stop, Stop::No) {
            return;
        }
        self.tell(EventType::Normal, "Killing", why);
        let hook = hooks::pre_stop(&slot.container).filter(|hook| sleeps || !hook.only_waits());
        let (Some(hook), Some(ip)) = (hook, &self.ip) else {
            self.slots[index].stop = Stop::Due;
            return;
        };
        let exec = self.sandbox.clone().zip(slot.spec.clone());
        let target = Target {
            ip: ip.addr(),
            exec,
        };
        let (container, run) = (slot.name().to_owned(), slot.run);
        let (prober, done_tx) = (self.shared.prober.clone(), self.hook_tx.clone());
        let task = tokio::spawn(async move {
            let result = hooks::run(hook, &*prober, &target).await;
            let done = HookDone {
                container,
                run,
                result,
            };
            // Without the pod's task nobody waits for it.
            let _ = done_tx.send(done).await;
        });
        self.slots[index].stop = Stop::Hook(task.abort_handle());
    }

    pub(super) fn take_hook(&mut self, done: HookDone) {
        let slot = self.slots.iter_mut().find(|slot| {
            slot.name() == done.container
                && slot.run == done.run
                && matches!(slot.stop, Stop::Hook(_))
        });
        let Some(slot) = slot else {
            return;
        };
        slot.stop = Stop::Due;
        if let Err(why) = done.result {
            let message = format!("PreStopHook failed: {why}");
            self.tell(EventType::Warning, "FailedPreStopHook", &message);
        }
    }

    /// SIGTERM to the containers whose turn it is.
    pub(super) async fn ask_those_due(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.is_running() && matches!(slot.stop, Stop::Due) && self.is_turn(index) {
                self.ask(index).await;
            }
        }
    }

    async fn ask(&mut self, index: usize) {
        self.slots[index].stop = Stop::Asked;
        self.signal(index, Signal::SIGTERM).await;
    }

    /// Whether nothing runs any more that may need this container. One that is only restarted
    /// waits for nobody.
    fn is_turn(&self, index: usize) -> bool {
        if matches!(self.life, Life::Alive) && !self.is_complete() {
            return true;
        }
        let needs = |(other, slot): (usize, &Slot)| {
            slot.is_running() && (!slot.init || slot.sidecar && other > index)
        };
        !self.slots[index].sidecar || !self.slots.iter().enumerate().any(needs)
    }

    /// A container's time is up: SIGKILL. One that did not get its SIGTERM yet, because of its hook or
    /// its turn, gets that now and a little time: true.
    pub(super) async fn time_is_up(&mut self, index: usize) -> bool {
        if !matches!(self.slots[index].stop, Stop::Asked) {
            if matches!(self.slots[index].stop, Stop::Hook(_)) {
                let message = "PreStopHook failed: it did not end within the grace period";
                self.tell(EventType::Warning, "FailedPreStopHook", message);
            }
            self.ask(index).await;
            return true;
        }
        self.signal(index, Signal::SIGKILL).await;
        false
    }

    /// Ends what still runs of a pod whose work is done, its sidecars; true when nothing does.
    pub(super) async fn wind_up(&mut self, now: Instant) -> bool {
        let grace = self.grace();
        for index in 0..self.slots.len() {
            if self.slots[index].is_running() && matches!(self.slots[index].stop, Stop::No) {
                let why = format!("Stopping container {}", self.slots[index].name());
                self.slots[index].stop_probes();
                self.stop(index, &why, true);
                if let Phase::Running { kill_at, .. } = &mut self.slots[index].phase {
                    *kill_at = Some(now + grace);
                }
            }
        }
        self.ask_those_due().await;
        !self.slots.iter().any(Slot::is_running)
    }

    /// The pod's own grace period.
    pub(super) fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let seconds = spec.and_then(|s| s.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }
}
