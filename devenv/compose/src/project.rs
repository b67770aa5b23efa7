//! A Compose project as devenv runs it: everything resolved, nothing left to look up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use devenv_model::Origin;

/// A Compose project.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Its name: what all of its containers, networks and volumes are labelled with.
    pub name: String,
    /// The file it was read from, absolute.
    pub file: PathBuf,
    /// The folder that relative paths are relative to, absolute: the file's own.
    pub working_dir: PathBuf,
    /// The services to run.
    pub services: BTreeMap<String, Service>,
    /// Services that no enabled profile asks for: not run, and no orphans either.
    pub disabled: BTreeSet<String>,
    /// The networks that are declared or used.
    pub networks: BTreeMap<String, Network>,
    /// The volumes that are declared.
    pub volumes: BTreeMap<String, Volume>,
}

/// One service: devenv runs one container of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its key in the file.
    pub name: String,
    /// Where the file says so.
    pub origin: Origin,
    /// The image's reference, as written.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// In place of the image's `CMD`; an empty one clears it.
    pub command: Option<Vec<String>>,
    /// In place of the image's `ENTRYPOINT`; an empty one clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Environment, `env_file`s included. Nothing is: unset what the image sets.
    pub environment: BTreeMap<String, Option<String>>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Volumes, bind mounts and tmpfs of the key `volumes`.
    pub mounts: Vec<Mount>,
    /// The key `tmpfs`: `PATH` or `PATH:OPTIONS`.
    pub tmpfs: Vec<String>,
    /// The networks it is on, by their keys.
    pub networks: BTreeMap<String, Option<Attachment>>,
    /// How to tell that it works; nothing leaves the image's own check.
    pub healthcheck: Option<Healthcheck>,
    /// What must be so far before it starts, by the keys of services.
    pub depends_on: BTreeMap<String, Dependency>,
    /// When the engine starts it again.
    pub restart: Option<Restart>,
    /// Labels of its container.
    pub labels: BTreeMap<String, String>,
    /// User and group, as the engine reads them.
    pub user: Option<String>,
    /// Where its process starts.
    pub working_dir: Option<String>,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
    /// How long that may take before it is killed; the engine's default is 10 s.
    pub stop_grace_period: Option<Duration>,
    /// Memory limit in bytes: `mem_limit`.
    pub mem_limit: Option<u64>,
    /// `deploy.resources.limits`.
    pub limits: Option<Limits>,
    /// Whether an init process reaps what its processes leave.
    pub init: Option<bool>,
    /// Capabilities that it gets beyond the engine's defaults.
    pub cap_add: Vec<String>,
    /// Capabilities that it does not get.
    pub cap_drop: Vec<String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Names in its `/etc/hosts` with their addresses.
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    /// Resource limits of its processes.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Its own name for itself.
    pub hostname: Option<String>,
    /// The container's name in place of `PROJECT-SERVICE-1`.
    pub container_name: Option<String>,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// The profiles that it belongs to; none: it always runs.
    pub profiles: Vec<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// At every `up`.
    Always,
    /// Never.
    Never,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The container's.
    pub target: u16,
    /// The host's: a port or a range, or empty for any.
    pub published: String,
    /// The host's address; empty for all.
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// `ingress` or `host`: the same without Swarm.
    pub mode: String,
    /// What it is for: only a name.
    pub name: Option<String>,
    /// What is spoken there: only a name.
    pub app_protocol: Option<String>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// The key of a volume (empty: one without a name), or an absolute path of the host.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A volume of the engine.
    Volume {
        /// Don't fill a new one with what the image has there.
        nocopy: bool,
        /// Whether the file says anything about it (the short form always does).
        written: bool,
    },
    /// A file or folder of the host.
    Bind {
        /// Make the folder if it isn't there; nothing: the file does not say (it is made).
        create_host_path: Option<bool>,
        /// `z` or `Z`.
        selinux: Option<String>,
        /// Mount propagation.
        propagation: Option<String>,
        /// Whether the file says anything about it (the short form always does).
        written: bool,
    },
    /// Memory.
    Tmpfs {
        /// At most so many bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: Option<u32>,
    },
}

/// How a service is on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Names beside the service's own.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4_address: Option<String>,
    /// A fixed address.
    pub ipv6_address: Option<String>,
}

/// A check that runs in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`; empty leaves the image's.
    pub test: Vec<String>,
    /// Between two runs.
    pub interval: Option<Duration>,
    /// For one run.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u64>,
    /// At the start, in which failures don't count.
    pub start_period: Option<Duration>,
    /// Between two runs in the start period.
    pub start_interval: Option<Duration>,
    /// Don't check, even if the image says how.
    pub disable: bool,
}

/// What must be so far before a service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// How far.
    pub condition: Condition,
    /// Restarted together with what it depends on.
    pub restart: bool,
    /// Whether the service can't do without.
    pub required: bool,
}

/// How far a dependency must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Started,
    /// Its healthcheck passes.
    Healthy,
    /// It has ended with 0.
    CompletedSuccessfully,
}

impl Condition {
    /// As Compose writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::CompletedSuccessfully => "service_completed_successfully",
        }
    }
}

/// When the engine starts a container again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    No,
    /// Whenever it ends.
    Always,
    /// Whenever it ends, unless it was stopped.
    UnlessStopped,
    /// When it fails, so many times; nothing: without limit.
    OnFailure(Option<u32>),
}

/// `deploy.resources.limits`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// CPUs.
    pub cpus: Option<f32>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<i64>,
}

/// A resource limit of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ulimit {
    /// Both are the same.
    Single(i64),
    /// What a process may lift itself to, and where it starts.
    Range {
        /// Where it starts.
        soft: i64,
        /// What it may lift itself to.
        hard: i64,
    },
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The engine's name for it.
    pub name: String,
    /// Not ours: it must be there, and stays.
    pub external: bool,
    /// Its driver; nothing for the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Without a way out.
    pub internal: bool,
    /// Containers that aren't of the project may join.
    pub attachable: bool,
    /// With IPv6 addresses.
    pub enable_ipv6: bool,
    /// Its address ranges; none: the engine chooses.
    pub pools: Vec<Pool>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where the file says so; the implicit one stands at the services.
    pub origin: Origin,
}

/// An address range of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// `172.28.0.0/16`.
    pub subnet: Option<String>,
    /// Its gateway.
    pub gateway: Option<String>,
    /// The part of it that containers get their addresses from.
    pub ip_range: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The engine's name for it.
    pub name: String,
    /// Not ours: it must be there, and stays.
    pub external: bool,
    /// Its driver; nothing for the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where the file says so.
    pub origin: Origin,
}

impl Mount {
    /// Whether it is a volume that has no name.
    pub fn is_anonymous(&self) -> bool {
        self.is_volume("")
    }

    /// Whether it is the volume of this key.
    fn is_volume(&self, key: &str) -> bool {
        matches!(self.kind, MountKind::Volume { .. }) && self.source == key
    }
}

impl Service {
    /// What Compose 2 calls the hash of its configuration: equal as long as nothing of
    /// the service has changed.
    pub fn config_hash(&self) -> String {
        crate::hash::config_hash(self)
    }

    /// The name of its container.
    pub fn container(&self, project: &str) -> String {
        self.container_name
            .clone()
            .unwrap_or_else(|| format!("{project}-{}-1", self.name))
    }
}

impl Project {
    /// Keeps these services and those that they depend on, as `docker compose up NAME…`
    /// does: the others are not run, and are no orphans. Networks and volumes that nobody
    /// uses then are not made.
    pub fn only(&mut self, names: &[&str]) {
        let mut kept: BTreeSet<String> = BTreeSet::new();
        let mut next: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        while let Some(name) = next.pop() {
            if let Some(service) = self.services.get(&name)
                && kept.insert(name)
            {
                next.extend(service.depends_on.keys().cloned());
            }
        }
        let left_out = self.services.keys().filter(|name| !kept.contains(*name));
        self.disabled.extend(left_out.cloned());
        self.services.retain(|name, _| kept.contains(name));
        let services = || self.services.values();
        self.networks
            .retain(|key, _| services().any(|s| s.networks.contains_key(key)));
        self.volumes
            .retain(|key, _| services().any(|s| s.mounts.iter().any(|m| m.is_volume(key))));
    }

    /// The services, every one after those that it depends on. The file has been checked
    /// for cycles.
    pub fn in_order(&self) -> Vec<&Service> {
        let mut out: Vec<&Service> = Vec::new();
        let mut seen = BTreeSet::new();
        // Depth first, without recursion: a chain may be as long as the file.
        for root in self.services.keys() {
            let mut stack = vec![(root, false)];
            while let Some((name, ready)) = stack.pop() {
                let Some((name, service)) = self.services.get_key_value(name) else {
                    continue;
                };
                if ready {
                    out.push(service);
                } else if seen.insert(name) {
                    stack.push((name, true));
                    stack.extend(service.depends_on.keys().rev().map(|d| (d, false)));
                }
            }
        }
        out
    }
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Restart::No => f.write_str("no"),
            Restart::Always => f.write_str("always"),
            Restart::UnlessStopped => f.write_str("unless-stopped"),
            Restart::OnFailure(None) => f.write_str("on-failure"),
            Restart::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
        }
    }
}
