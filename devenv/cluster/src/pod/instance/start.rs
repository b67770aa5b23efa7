//! Making the pod's sandbox and starting its containers.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{EventType, Instance};
use crate::net::resolv;
use crate::pod::configs::StoredConfigs;
use crate::pod::limits;
use crate::pod::mixed;
use crate::pod::probes::plans;
use crate::pod::runtime::{Ended, RuntimeError, SandboxSpec};
use crate::pod::spec::{start_spec, user_of_volumes};
use crate::pod::volumes::{HostPolicy, Source, absent, memory_volumes, refresh};

/// Exit code of a container that could not be started, as containerd gives it.
const START_ERROR: i32 = 128;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

impl Instance {
    /// Whether there is a sandbox now.
    pub(super) async fn make_sandbox(&mut self, now: Instant) -> bool {
        if self.sandbox_retry.is_some_and(|(at, _)| at > now) {
            return false;
        }
        if self.ip.is_none() {
            self.ip = self.shared.ips.take();
        }
        let volumes = memory_volumes(&self.pod, &self.host_policy());
        let made = match (&self.ip, volumes) {
            (None, _) => Err("no pod address is free".to_owned()),
            (_, Err(error)) => Err(error.to_string()),
            (Some(ip), Ok(tmpfs)) => {
                let spec = SandboxSpec {
                    namespace: self.object.namespace().to_owned(),
                    name: self.object.name().to_owned(),
                    uid: self.uid.clone(),
                    runtime: self.asked_runtime(),
                    hostname: resolv::hostname(&self.pod),
                    ip: ip.addr(),
                    files: resolv::files(&self.pod, ip.addr()),
                    limits: self
                        .pod
                        .spec
                        .as_ref()
                        .map(limits::of_pod)
                        .unwrap_or_default(),
                    tmpfs,
                };
                self.shared
                    .runtime
                    .create(spec)
                    .await
                    .map_err(|error| error.full())
            }
        };
        match made {
            Ok(sandbox) => {
                self.sandbox = Some(sandbox);
                self.imposed.begin_anew();
                self.sandbox_retry = None;
                true
            }
            Err(why) => {
                let wait = self
                    .sandbox_retry
                    .map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LONGEST_RETRY));
                self.sandbox_retry = Some((now + wait, wait));
                let message = format!("Failed to create pod sandbox: {why}");
                self.tell(EventType::Warning, "FailedCreatePodSandBox", &message);
                for slot in self.slots.iter_mut().filter(|s| s.is_due(now)) {
                    slot.wait("ContainerCreating", message.clone());
                }
                false
            }
        }
    }

    fn asked_runtime(&self) -> Option<String> {
        let annotations = self.pod.metadata.annotations.as_ref();
        annotations?.get(mixed::ANNOTATION).cloned()
    }

    fn host_policy(&self) -> HostPolicy {
        HostPolicy {
            volumes_dir: self.shared.pods_dir.join(&self.uid).join("volumes"),
            allowed: self.shared.host_paths.clone(),
            owner: self.shared.around.owner,
        }
    }

    /// Starts a container, or says why it waits.
    pub(super) async fn start(&mut self, index: usize) {
        let Some(sandbox) = self.sandbox.clone() else {
            return;
        };
        let container = self.slots[index].container.clone();
        let name = container.image.clone().unwrap_or_default();
        let Some(image) = self.shared.images.image(&name) else {
            let message = format!(
                "image {name:?} is not built here: devenv.toml must say how it is built and run; it starts when that is done"
            );
            if self.slots[index].wait("ErrImageNeverPull", message.clone()) {
                self.tell(EventType::Warning, "ErrImageNeverPull", &message);
            }
            return;
        };
        let configs = StoredConfigs {
            store: &self.shared.store,
            namespace: self.object.namespace(),
        };
        let policy = self.host_policy();
        let spec = match start_spec(
            &self.pod,
            &container,
            &image,
            &configs,
            &self.facts(),
            &policy,
            &self.shared.around,
            |own| sandbox.prepare(&container, &image.run.env, own),
        ) {
            Ok(spec) => spec,
            Err(error) => {
                if self.slots[index].wait(error.reason, error.message.clone()) {
                    self.tell(
                        EventType::Warning,
                        "Failed",
                        &format!("Error: {}", error.message),
                    );
                }
                return;
            }
        };
        let started = match sandbox.start(spec.clone()).await {
            Ok(started) => started,
            Err(RuntimeError::Config(message)) => {
                if self.slots[index].wait("CreateContainerConfigError", message.clone()) {
                    self.tell(EventType::Warning, "Failed", &format!("Error: {message}"));
                }
                return;
            }
            Err(error) => {
                let why = error.full();
                self.tell(
                    EventType::Warning,
                    "Failed",
                    &format!(
                        "Error: failed to start container {:?}: {why}",
                        container.name
                    ),
                );
                self.ended(
                    index,
                    Ended::Code(START_ERROR),
                    Some("StartError"),
                    Some(why),
                );
                return;
            }
        };
        debug!(
            pod = self.object.name(),
            container = container.name,
            pid = started.pid,
            "a container started"
        );
        for warning in &started.warnings {
            self.tell_of_machine("ContainerLimited", warning);
        }
        if (spec.limits.cpu, spec.limits.memory) != (None, None)
            && let Some(why) = self.shared.runtime.limits_missing()
        {
            self.tell_of_machine("LimitsNotEnforced", &why);
        }
        let process = self
            .shared
            .pids
            .enter(&self.uid, &container.name, started.pid);
        let measured = self
            .shared
            .metrics
            .enter(&self.uid, &container.name, started.meter.clone());
        let run = self.slots[index].run;
        if let Err(error) = self
            .shared
            .logs
            .begin(&self.uid, &container.name, run, started)
        {
            // Its pipes are closed with that: it will notice when it prints. Said, since it may end for it.
            self.tell(
                EventType::Warning,
                "Failed",
                &format!(
                    "the log of container {:?} cannot be written: {error}",
                    container.name
                ),
            );
        }
        let plans = plans(&container, &spec.env);
        self.slots[index].began(spec, plans);
        self.slots[index].process = process;
        self.slots[index].measured = Some(measured);
        self.start_probes(index);
        for missing in absent(&self.pod, &container) {
            self.tell(EventType::Warning, "FailedMount", &missing);
        }
        // What changed while it started is not missed.
        self.refresh_volumes();
        self.tell(
            EventType::Normal,
            "Started",
            &format!("Started container {}", container.name),
        );
    }

    /// What ConfigMaps, Secrets and the pod's own labels say now appears in the running containers.
    pub(super) fn refresh_volumes(&mut self) {
        let configs = StoredConfigs {
            store: &self.shared.store,
            namespace: self.object.namespace(),
        };
        let (facts, policy, around) = (self.facts(), self.host_policy(), &self.shared.around);
        let mut failed = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.is_running()) {
            // Both were answered already when the container started.
            let name = slot.container.image.as_deref().unwrap_or_default();
            let Some(image) = self.shared.images.image(name) else {
                continue;
            };
            let Ok(user) = user_of_volumes(&self.pod, &slot.container, &image.run, around) else {
                continue;
            };
            let source = Source {
                pod: &self.pod,
                configs: &configs,
                facts: &facts,
                policy: &policy,
                user,
            };
            failed.extend(refresh(&source, &slot.container, &mut self.fixed));
        }
        for (volume, error) in failed {
            let message = format!("MountVolume.SetUp failed for volume {volume:?} : {error}");
            self.tell(EventType::Warning, "FailedMount", &message);
        }
    }
}
