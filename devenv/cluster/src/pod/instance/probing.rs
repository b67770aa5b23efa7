//! A pod's probes: their tasks, and what their reports change.

use std::time::Duration;

use tokio::time::Instant;

use super::slot::Phase;
use super::{EventType, Instance, Life};
use crate::pod::probes::{self, Kind, News, Report, Target};

impl Instance {
    /// Starts the probes that are due: the startup probe alone, or the two others.
    pub(super) fn start_probes(&mut self, index: usize) {
        let (Some(ip), Some(sandbox)) = (&self.ip, &self.sandbox) else {
            return;
        };
        let slot = &mut self.slots[index];
        let due: Vec<_> = slot
            .plans
            .iter()
            .filter(|p| (p.kind == Kind::Startup) != slot.started)
            .cloned()
            .collect();
        for plan in due {
            let target = Target {
                ip: ip.addr(),
                exec: slot.spec.clone().map(|spec| (sandbox.clone(), spec)),
            };
            let kind = plan.kind;
            let asking = probes::run(
                plan,
                slot.name().to_owned(),
                slot.run,
                self.shared.prober.clone(),
                target,
                self.report_tx.clone(),
            );
            let task = tokio::spawn(asking);
            slot.add_probe(kind, task.abort_handle());
        }
    }

    pub(super) fn take_report(&mut self, report: Report) {
        let Some(index) = self
            .slots
            .iter()
            .position(|s| s.name() == report.container && s.run == report.run && s.is_running())
        else {
            return;
        };
        match (report.kind, report.news) {
            (Kind::Startup, News::Passed) => {
                self.slots[index].has_started();
                self.start_probes(index);
            }
            (Kind::Readiness, News::Passed) => self.slots[index].ready = true,
            (Kind::Liveness, News::Passed) => {}
            (kind, News::Missed(why)) => self.unhealthy(kind, &why),
            (Kind::Readiness, News::Failed(why)) => {
                self.slots[index].ready = false;
                self.unhealthy(Kind::Readiness, &why);
            }
            (kind, News::Failed(why)) => {
                self.unhealthy(kind, &why);
                self.restart(index, kind);
            }
        }
    }

    fn unhealthy(&self, kind: Kind, why: &str) {
        self.tell(
            EventType::Warning,
            "Unhealthy",
            &format!("{} probe failed: {why}", kind.title()),
        );
    }

    /// Ends a container whose probe failed; it is started again when it has ended.
    fn restart(&mut self, index: usize, kind: Kind) {
        if !matches!(self.life, Life::Alive) {
            return;
        }
        let of_pod = self.grace();
        let slot = &mut self.slots[index];
        let of_probe = slot
            .plans
            .iter()
            .find(|p| p.kind == kind)
            .and_then(|p| p.grace);
        let grace = of_probe
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(of_pod, Duration::from_secs);
        let message = format!(
            "Container {} failed {} probe, will be restarted",
            slot.name(),
            kind.title().to_lowercase()
        );
        slot.stop_probes();
        slot.ready = false;
        if let Phase::Running { kill_at, .. } = &mut slot.phase {
            *kill_at = Some(Instant::now() + grace);
        }
        self.stop(index, &message, true);
    }
}
