//! One pod: a task that owns its state, with controls coming in over a channel.
//!
//! The loop is always the same: bring things one step further (`advance`),
//! publish the status if it changed, wait for the next input. Inputs are never
//! acted on by themselves; they change state, and `advance` decides.
//!
//! The end of a pod: it leaves the routes, then SIGTERM, its grace period,
//! SIGKILL, and its object is removed last.

mod ending;
mod fault;
mod probing;
mod slot;
mod start;
mod stopping;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::backoff::{ANNOTATION, parse_duration};
use super::env::Facts;
use super::ip::{IpPool, PodIp};
use super::links::service_variables;
use super::logs::LogStore;
use super::metrics::Metrics;
use super::pids::Pids;
use super::probes::{Prober, Report};
use super::runtime::{Ended, PodRuntime, PodSandbox, SandboxEvent};
use super::spec::Surroundings;
use super::status::{PodView, status};
use super::volumes::Fixed;
use crate::controllers::events::{EventType, Recorder};
use crate::controllers::node;
use crate::image::ImageTable;
use crate::kinds;
use crate::net::fault::Faults;
use crate::net::routed::Routed;
use crate::store::{Object, Store, StoreError};
use fault::Imposed;
use slot::{Phase, Slot};
use stopping::{HookDone, LEAST_GRACE};

/// How long a pod waits at most for the routers to leave it, and for the requests that it has, before
/// its SIGTERM. Connections that last (WebSockets, a database's clients) outlive it.
const UNROUTE_LIMIT: Duration = Duration::from_secs(2);
/// How often a pod that ends is asked for the connections that it holds: from this, growing to that.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How long the kernel may take to end a killed pod before its object goes anyway.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What all pods of a cluster share.
#[derive(Debug)]
pub struct Shared {
    /// The objects.
    pub store: Store,
    /// What runs pods.
    pub runtime: Arc<dyn PodRuntime>,
    /// How images run.
    pub images: ImageTable,
    /// What asks probes.
    pub prober: Arc<dyn Prober>,
    /// Where events go.
    pub recorder: Recorder,
    /// What is to go wrong between pods and Services.
    pub faults: Faults,
    /// Where output goes.
    pub logs: LogStore,
    /// Which processes run.
    pub pids: Pids,
    /// What running containers use.
    pub metrics: Metrics,
    /// Free addresses.
    pub ips: IpPool,
    /// Who still sends traffic to whom.
    pub routed: Routed,
    /// Folder for what lives as long as a pod.
    pub pods_dir: PathBuf,
    /// hostPath volumes must lie in one of these.
    pub host_paths: Vec<PathBuf>,
    /// Defaults of this machine.
    pub around: Surroundings,
}

/// What a pod's task can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Something that concerns the pod changed: look again.
    Wake,
    /// devenv shuts down: end within this time, or the pod's own grace period where that is shorter,
    /// and leave the object.
    Stop(Duration),
}

/// Where the pod is in its life.
#[derive(Debug)]
enum Life {
    /// It runs, or is on the way to it.
    Alive,
    /// It ends: the routers are to leave it first, and its requests to be answered.
    Unrouting { until: Instant, grace: Duration },
    /// It was asked to end. `last` says that there is no more time after that.
    Ending { kill_at: Instant, last: bool },
    /// It was killed.
    Killed { until: Instant },
    /// Nothing of it is left.
    Over,
}

enum Input {
    Control(Option<Control>),
    Event(SandboxEvent),
    Report(Report),
    Hook(HookDone),
    Unrouted,
    Look,
}

/// The task's state.
pub struct Instance {
    shared: Arc<Shared>,
    object: Arc<Object>,
    pod: Pod,
    uid: String,
    life: Life,
    slots: Vec<Slot>,
    sandbox: Option<Arc<dyn PodSandbox>>,
    ip: Option<PodIp>,
    /// When to try again to make the sandbox, and how long to wait after that.
    sandbox_retry: Option<(Instant, Duration)>,
    /// Volumes whose objects are immutable.
    fixed: Fixed,
    /// The faults that it has now.
    imposed: Imposed,
    /// Whether the object is to be removed at the end.
    remove: bool,
    published: Value,
    taken: Timestamp,
    control_rx: mpsc::Receiver<Control>,
    report_tx: mpsc::Sender<Report>,
    report_rx: mpsc::Receiver<Report>,
    /// From the tasks of preStop hooks.
    hook_tx: mpsc::Sender<HookDone>,
    hook_rx: mpsc::Receiver<HookDone>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("pod", &self.object.name())
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// The state of a pod that was just taken on. `control_rx` is fed by the kubelet.
    ///
    /// # Errors
    /// When the object is not a usable Pod.
    pub fn new(
        shared: Arc<Shared>,
        object: Arc<Object>,
        control_rx: mpsc::Receiver<Control>,
    ) -> Result<Instance, StoreError> {
        let pod: Pod = object.typed()?;
        let spec = pod.spec.clone().unwrap_or_default();
        let annotation = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(ANNOTATION));
        let backoff = annotation.and_then(|text| match parse_duration(text) {
            Ok(constant) => Some(constant),
            Err(why) => {
                shared.recorder.record(
                    &object,
                    "kubelet",
                    EventType::Warning,
                    "InvalidAnnotation",
                    &format!("{ANNOTATION}: {why}"),
                );
                None
            }
        });
        let init = spec.init_containers.unwrap_or_default();
        let waits = !init.is_empty();
        let slots = init
            .into_iter()
            .map(|c| Slot::new(c, true, backoff, waits))
            .chain(
                spec.containers
                    .into_iter()
                    .map(|c| Slot::new(c, false, backoff, waits)),
            )
            .collect();
        let (report_tx, report_rx) = mpsc::channel(32);
        let (hook_tx, hook_rx) = mpsc::channel(32);
        let published = object.value()["status"].clone();
        Ok(Instance {
            uid: object.uid().to_owned(),
            shared,
            object,
            pod,
            life: Life::Alive,
            slots,
            sandbox: None,
            ip: None,
            sandbox_retry: None,
            fixed: Fixed::new(),
            imposed: Imposed::default(),
            remove: false,
            published,
            taken: Timestamp::now(),
            control_rx,
            report_tx,
            report_rx,
            hook_tx,
            hook_rx,
        })
    }

    /// Runs the pod to its end.
    pub async fn run(mut self) {
        let mut images_rx = self.shared.images.changes();
        self.look_at_object();
        loop {
            self.advance().await;
            self.impose().await;
            self.publish();
            if matches!(self.life, Life::Over) {
                break;
            }
            let deadline = self.deadline();
            let unrouting = matches!(self.life, Life::Unrouting { .. });
            let input = tokio::select! {
                biased;
                control = self.control_rx.recv() => Input::Control(control),
                event = next_event(self.sandbox.as_ref()) => Input::Event(event),
                Some(report) = self.report_rx.recv() => Input::Report(report),
                Some(done) = self.hook_rx.recv() => Input::Hook(done),
                () = unrouted(&self.shared.routed, self.ip.as_ref(), self.sandbox.as_deref()), if unrouting => Input::Unrouted,
                Ok(()) = images_rx.changed() => Input::Look,
                () = sleep_until(deadline) => Input::Look,
            };
            self.take(input).await;
        }
        self.finish();
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Control(Some(Control::Wake)) => self.look_at_object(),
            Input::Control(Some(Control::Stop(limit))) => {
                // Where the pod says nothing, the limit.
                let says = self.pod.spec.as_ref();
                let says = says.and_then(|s| s.termination_grace_period_seconds);
                let own = says.map_or(limit, |_| self.grace());
                self.begin_end(own.min(limit), Duration::ZERO);
            }
            // The kubelet is gone: nobody will ever ask for this pod again.
            Input::Control(None) => self.begin_end(Duration::ZERO, Duration::ZERO),
            Input::Event(event) => self.take_event(event),
            Input::Report(report) => self.take_report(report),
            Input::Hook(done) => self.take_hook(done),
            Input::Unrouted => {
                if let Life::Unrouting { until, .. } = &mut self.life {
                    *until = Instant::now();
                }
            }
            Input::Look => {}
        }
    }

    /// Follows the stored object: its deletion above all.
    fn look_at_object(&mut self) {
        let stored =
            self.shared
                .store
                .get(&kinds::POD, self.object.namespace(), self.object.name());
        let Some(object) = stored.filter(|o| o.uid() == self.uid) else {
            // Removed without grace.
            self.remove = true;
            self.kill();
            return;
        };
        self.object = object;
        if self.object.is_deleting() {
            self.remove = true;
            let seconds = self.object.value()["metadata"]["deletionGracePeriodSeconds"]
                .as_u64()
                .unwrap_or(30);
            self.begin_end(Duration::from_secs(seconds), UNROUTE_LIMIT);
        } else if let Ok(pod) = self.object.typed() {
            self.pod = pod;
            self.refresh_volumes();
        }
    }

    /// Brings the pod one step further.
    async fn advance(&mut self) {
        let now = Instant::now();
        match self.life {
            Life::Alive => self.advance_alive(now).await,
            Life::Unrouting { until, grace } => {
                if !self.slots.iter().any(Slot::is_running) {
                    self.kill();
                } else if now >= until {
                    self.life = Life::Ending {
                        kill_at: now + grace,
                        last: false,
                    };
                    self.ask_those_due().await;
                }
            }
            Life::Ending { kill_at, last } => {
                let over = last || !self.some_get_more_time(kill_at, now).await;
                if !self.slots.iter().any(Slot::is_running) || now >= kill_at && over {
                    self.kill();
                } else {
                    self.ask_those_due().await;
                }
            }
            Life::Killed { until } => {
                if self.sandbox.is_none() {
                    self.life = Life::Over;
                } else if now >= until {
                    warn!(
                        pod = self.object.name(),
                        "the processes of a killed pod were not reaped in time"
                    );
                    self.sandbox = None;
                    self.life = Life::Over;
                }
            }
            Life::Over => {}
        }
    }

    async fn advance_alive(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if let Phase::Running {
                kill_at: Some(at), ..
            } = self.slots[index].phase
                && at <= now
            {
                let more = self.time_is_up(index).await;
                if let Phase::Running { kill_at, .. } = &mut self.slots[index].phase {
                    *kill_at = more.then_some(now + LEAST_GRACE);
                }
            }
        }
        if self.is_complete() {
            if self.wind_up(now).await
                && let Some(sandbox) = self.sandbox.take()
            {
                sandbox.kill();
            }
            return;
        }
        self.ask_those_due().await;
        if self.sandbox.is_none() && !self.make_sandbox(now).await {
            return;
        }
        for index in 0..self.slots.len() {
            if !self.may_start(index) {
                break;
            }
            if self.slots[index].is_due(now) {
                self.start(index).await;
            }
        }
    }

    /// Whether all init containers before this one are done.
    fn may_start(&self, index: usize) -> bool {
        self.slots[..index]
            .iter()
            .filter(|s| s.init)
            .all(Slot::is_initialized)
    }

    /// Whether nothing of the pod is ever started again.
    fn is_complete(&self) -> bool {
        let done = |slot: &Slot| matches!(slot.phase, Phase::Done(_));
        let failed_init = self
            .slots
            .iter()
            .any(|s| s.init && matches!(&s.phase, Phase::Done(exit) if exit.code() != 0));
        failed_init || self.slots.iter().filter(|s| !s.init).all(done)
    }

    fn restarts(&self, slot: &Slot, ended: Ended) -> bool {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref())
            .unwrap_or("Always");
        match policy {
            _ if slot.sidecar => true,
            _ if slot.init => ended != Ended::Code(0) && policy != "Never",
            "Never" => false,
            "OnFailure" => ended != Ended::Code(0),
            _ => true,
        }
    }

    fn take_event(&mut self, event: SandboxEvent) {
        match event {
            SandboxEvent::Exited {
                container,
                ended,
                out_of_memory,
            } => {
                if let Some(index) = self
                    .slots
                    .iter()
                    .position(|s| s.name() == container && s.is_running())
                {
                    let (reason, message) = if out_of_memory && ended != Ended::Code(0) {
                        (Some("OOMKilled"), Some(self.slots[index].memory_limit()))
                    } else {
                        let why = self.sandbox.as_ref().and_then(|s| s.explain(&container));
                        if let Some(why) = &why {
                            self.tell(EventType::Warning, "PortInUse", why);
                        }
                        (None, why)
                    };
                    self.ended(index, ended, reason, message);
                }
            }
            SandboxEvent::Gone => {
                self.sandbox = None;
                for index in 0..self.slots.len() {
                    if self.slots[index].is_running() {
                        self.ended(index, Ended::Signal(Signal::SIGKILL as i32), None, None);
                    }
                }
            }
        }
    }

    /// A container's run ended, or could not begin.
    fn ended(&mut self, index: usize, ended: Ended, reason: Option<&str>, message: Option<String>) {
        let alive = matches!(self.life, Life::Alive);
        // When the pod's work is done, its sidecars are not started again.
        let restart = alive && !self.is_complete() && self.restarts(&self.slots[index], ended);
        let described = self.described();
        let slot = &mut self.slots[index];
        debug!(
            pod = self.object.name(),
            container = slot.name(),
            ?ended,
            restart,
            "a container ended"
        );
        let Some(delay) = slot.ended(ended, reason, message, restart) else {
            return;
        };
        if !delay.is_zero() {
            slot.back_off(delay, &described);
            let message = format!(
                "Back-off restarting failed container {} in pod {described}",
                slot.name()
            );
            self.tell(EventType::Warning, "BackOff", &message);
        }
    }

    async fn signal(&self, index: usize, signal: Signal) {
        let Some(sandbox) = &self.sandbox else {
            return;
        };
        if let Err(error) = sandbox
            .signal(self.slots[index].name(), signal as i32)
            .await
        {
            // It ended meanwhile: its event is on the way.
            debug!(
                pod = self.object.name(),
                error = &error as &dyn std::error::Error,
                "a signal was not delivered"
            );
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match self.life {
            Life::Alive => self
                .sandbox_retry
                .filter(|_| self.sandbox.is_none())
                .map(|(at, _)| at),
            Life::Unrouting { until, .. } | Life::Killed { until } => Some(until),
            Life::Ending { kill_at, .. } => Some(kill_at),
            Life::Over => None,
        };
        let alive = matches!(self.life, Life::Alive) && self.sandbox.is_some();
        // A slot that may not start yet is woken by the end of what it waits for.
        let slots = (0..self.slots.len())
            .filter(|index| alive && (self.slots[*index].is_running() || self.may_start(*index)))
            .filter_map(|index| self.slots[index].deadline());
        slots.chain(own).min()
    }

    fn facts(&self) -> Facts {
        Facts {
            pod_ip: self
                .ip
                .as_ref()
                .map(|ip| ip.addr().to_string())
                .unwrap_or_default(),
            host_ip: node::ADDRESS.to_owned(),
            node: node::NAME.to_owned(),
            services: service_variables(
                &self.shared.store,
                self.object.namespace(),
                self.pod
                    .spec
                    .as_ref()
                    .and_then(|s| s.enable_service_links)
                    .unwrap_or(true),
            ),
        }
    }

    fn described(&self) -> String {
        format!(
            "{}_{}({})",
            self.object.name(),
            self.object.namespace(),
            self.uid
        )
    }

    fn tell(&self, kind: EventType, reason: &str, message: &str) {
        self.shared
            .recorder
            .record(&self.object, "kubelet", kind, reason, message);
    }

    /// Says what this machine cannot do for pods; the same words again are said once.
    fn tell_of_machine(&self, reason: &str, message: &str) {
        if let Some(node) = self.shared.store.get(&kinds::NODE, "", node::NAME) {
            self.shared
                .recorder
                .record(&node, "kubelet", EventType::Warning, reason, message);
        }
    }

    fn publish(&mut self) {
        if matches!(self.life, Life::Over) {
            return;
        }
        let view = PodView {
            pod: &self.pod,
            containers: self.slots.iter().map(Slot::view).collect(),
            ip: self.ip.as_ref().map(|ip| ip.addr().to_string()),
            has_sandbox: self.sandbox.is_some(),
            fault: self.imposed.outcome.clone(),
            taken: self.taken,
        };
        let status = status(&view, &self.published, Timestamp::now());
        if status == self.published {
            return;
        }
        let (ns, name) = (self.object.namespace(), self.object.name());
        let written = self.shared.store.update(&kinds::POD, ns, name, |pod| {
            if pod["metadata"]["uid"] != self.uid.as_str() {
                return Err(StoreError::not_found(&kinds::POD, name));
            }
            if pod["spec"]["nodeName"].is_null() {
                pod["spec"]["nodeName"] = node::NAME.into();
            }
            pod["status"] = status.clone();
            Ok(())
        });
        match written {
            Ok(_) => self.published = status,
            // Its removal is on the way to us as a wake-up.
            Err(StoreError::NotFound { .. } | StoreError::Closed) => {}
            Err(error) => warn!(
                pod = name,
                error = &error as &dyn std::error::Error,
                "a pod's status could not be stored"
            ),
        }
    }
}

async fn next_event(sandbox: Option<&Arc<dyn PodSandbox>>) -> SandboxEvent {
    match sandbox {
        Some(sandbox) => sandbox.next_event().await,
        None => std::future::pending().await,
    }
}

/// Waits until nobody sends to the pod any more and what it was sent is answered.
async fn unrouted(routed: &Routed, ip: Option<&PodIp>, sandbox: Option<&dyn PodSandbox>) {
    if let Some(ip) = ip {
        routed.gone(ip.addr()).await;
    }
    let mut pause = FIRST_LOOK;
    while let Some(sandbox) = sandbox
        && sandbox.inbound().await > 0
    {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
