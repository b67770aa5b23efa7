//! One container of a pod, as its pod's task sees it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::stopping::Stop;
use crate::pod::backoff::Backoff;
use crate::pod::metrics;
use crate::pod::pids::Entry;
use crate::pod::probes::{Kind, Plan};
use crate::pod::runtime::{Ended, StartSpec};
use crate::pod::status::{ContainerView, ExitRecord, State};

/// What a container does.
#[derive(Debug)]
pub(super) enum Phase {
    /// It is to be started: at once, or at a time.
    Waiting {
        reason: &'static str,
        message: Option<String>,
        until: Option<Instant>,
    },
    /// It runs. `kill_at` is set when it was asked to end, so that it is restarted.
    Running {
        since: Timestamp,
        at: Instant,
        kill_at: Option<Instant>,
    },
    /// It ended for good.
    Done(ExitRecord),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) container: Container,
    pub(super) init: bool,
    /// An init container with restartPolicy Always.
    pub(super) sidecar: bool,
    pub(super) phase: Phase,
    pub(super) ready: bool,
    pub(super) started: bool,
    /// Number of the present or next run.
    pub(super) run: u64,
    pub(super) last: Option<ExitRecord>,
    pub(super) plans: Vec<Plan>,
    /// How it was started, for commands beside it.
    pub(super) spec: Option<StartSpec>,
    pub(super) stop: Stop,
    /// Its process, while it runs.
    pub(super) process: Option<Entry>,
    /// Where what it uses is asked for, while it runs.
    pub(super) measured: Option<metrics::Entry>,
    backoff: Backoff,
    probes: Vec<(Kind, AbortHandle)>,
    ever_ran: bool,
}

impl Slot {
    pub(super) fn new(
        container: Container,
        init: bool,
        backoff: Option<Duration>,
        waits_for_init: bool,
    ) -> Slot {
        let sidecar = init && container.restart_policy.as_deref() == Some("Always");
        let reason = if waits_for_init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        Slot {
            container,
            init,
            sidecar,
            phase: Phase::Waiting {
                reason,
                message: None,
                until: None,
            },
            ready: false,
            started: false,
            run: 0,
            last: None,
            plans: Vec::new(),
            process: None,
            measured: None,
            spec: None,
            stop: Stop::No,
            backoff: Backoff::new(backoff),
            probes: Vec::new(),
            ever_ran: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.container.name
    }

    /// Why a run of it was killed for want of memory.
    pub(super) fn memory_limit(&self) -> String {
        let limits = self.container.resources.as_ref();
        let limit = limits.and_then(|r| r.limits.as_ref()?.get("memory"));
        match limit {
            Some(limit) => format!(
                "it wanted more memory than resources.limits.memory, {}",
                limit.0
            ),
            None => "the pod or the machine was out of memory".to_owned(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Waiting { until, .. } if until.is_none_or(|at| at <= now))
    }

    /// Whether what comes after this init container may go on.
    pub(super) fn is_initialized(&self) -> bool {
        match &self.phase {
            Phase::Done(exit) => exit.code() == 0,
            Phase::Running { .. } => self.sidecar && self.started,
            Phase::Waiting { .. } => self.sidecar && self.ever_ran,
        }
    }

    /// Says why it waits; true when that is news.
    pub(super) fn wait(&mut self, reason: &'static str, message: String) -> bool {
        let news = !matches!(&self.phase, Phase::Waiting { reason: r, message: Some(m), .. } if *r == reason && *m == message);
        self.phase = Phase::Waiting {
            reason,
            message: Some(message),
            until: None,
        };
        news
    }

    pub(super) fn began(&mut self, spec: StartSpec, plans: Vec<Plan>) {
        self.phase = Phase::Running {
            since: Timestamp::now(),
            at: Instant::now(),
            kill_at: None,
        };
        self.ever_ran = true;
        self.spec = Some(spec);
        self.started = !plans.iter().any(|p| p.kind == Kind::Startup);
        self.ready = self.started && !plans.iter().any(|p| p.kind == Kind::Readiness);
        self.plans = plans;
    }

    /// The startup probe passed.
    pub(super) fn has_started(&mut self) {
        self.started = true;
        self.ready = !self.plans.iter().any(|p| p.kind == Kind::Readiness);
    }

    /// Its run ended (or could not begin). Returns the delay before the next run, if there is one.
    pub(super) fn ended(
        &mut self,
        ended: Ended,
        reason: Option<&str>,
        message: Option<String>,
        restart: bool,
    ) -> Option<Duration> {
        let (since, ran) = match self.phase {
            Phase::Running { since, at, .. } => (since, at.elapsed()),
            _ => (Timestamp::now(), Duration::ZERO),
        };
        self.stop_probes();
        self.process = None;
        self.measured = None;
        self.stop = Stop::No;
        self.ready = false;
        self.started = false;
        let reason = reason
            .unwrap_or(if ended == Ended::Code(0) {
                "Completed"
            } else {
                "Error"
            })
            .to_owned();
        let record = ExitRecord {
            ended,
            reason,
            message,
            started: since,
            finished: Timestamp::now(),
            run: self.run,
        };
        if !restart {
            self.phase = Phase::Done(record);
            return None;
        }
        let delay = self.backoff.ended(ran);
        self.last = Some(record);
        self.run += 1;
        self.ever_ran = true;
        self.phase = Phase::Waiting {
            reason: "ContainerCreating",
            message: None,
            // Now, as a time: where a start failed, nothing else brings the next one.
            until: Some(Instant::now()),
        };
        Some(delay)
    }

    /// The next run waits because those before ended.
    pub(super) fn back_off(&mut self, delay: Duration, pod: &str) {
        let shown = if delay.as_secs() >= 1 {
            format!("{}s", delay.as_secs())
        } else {
            format!("{}ms", delay.as_millis())
        };
        let message = format!(
            "back-off {shown} restarting failed container={} pod={pod}",
            self.name()
        );
        self.phase = Phase::Waiting {
            reason: "CrashLoopBackOff",
            message: Some(message),
            until: Some(Instant::now() + delay),
        };
    }

    pub(super) fn add_probe(&mut self, kind: Kind, task: AbortHandle) {
        self.probes.push((kind, task));
    }

    pub(super) fn stop_probes(&mut self) {
        for (_, task) in self.probes.drain(..) {
            task.abort();
        }
    }

    /// A container that ends is no longer asked whether it lives.
    pub(super) fn stop_lethal_probes(&mut self) {
        self.probes.retain(|(kind, task)| {
            let keep = *kind == Kind::Readiness;
            if !keep {
                task.abort();
            }
            keep
        });
    }

    /// When this slot must be looked at without being woken.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until, .. } => until,
            Phase::Running { kill_at, .. } => kill_at,
            Phase::Done(_) => None,
        }
    }

    pub(super) fn view(&self) -> ContainerView<'_> {
        ContainerView {
            container: &self.container,
            init: self.init,
            sidecar: self.sidecar,
            state: match &self.phase {
                Phase::Waiting {
                    reason, message, ..
                } => State::Waiting {
                    reason: (*reason).to_owned(),
                    message: message.clone(),
                },
                Phase::Running { since, .. } => State::Running { since: *since },
                Phase::Done(exit) => State::Exited(exit.clone()),
            },
            last: self.last.as_ref(),
            ready: self.ready,
            started: self.started,
            restarts: i64::try_from(self.run).unwrap_or(i64::MAX),
            run: self.run,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.stop_probes();
    }
}
