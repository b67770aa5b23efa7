//! What limits look like in a group's files, and the record of groups. Pure.
//!
//! The numbers are the kubelet's: `pkg/kubelet/cm/helpers_linux.go`, and
//! KEP-2254 for weights in version 2.

use std::path::PathBuf;

use super::{Controller, Dir, Group, Version};
use crate::spec::Limits;

/// Length of the period in which a CPU limit counts, in microseconds.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota, in microseconds.
const LEAST_QUOTA: u64 = 1_000;
/// The bounds of `cpu.shares`.
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// A line to write into a group's file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub file: &'static str,
    pub value: String,
    /// Not every kernel has the file.
    pub optional: bool,
}

pub(super) fn settings(version: Version, controller: Controller, limits: &Limits) -> Vec<Setting> {
    let set = |file, value: String| Setting {
        file,
        value,
        optional: false,
    };
    let maybe = |file, value: String| Setting {
        file,
        value,
        optional: true,
    };
    let mut all = Vec::new();
    match (controller, version) {
        (Controller::Cpu, Version::V1) => {
            if let Some(request) = limits.cpu_request {
                all.push(set("cpu.shares", shares(request).to_string()));
            }
            if let Some(limit) = limits.cpu {
                all.push(set("cpu.cfs_period_us", PERIOD.to_string()));
                all.push(set("cpu.cfs_quota_us", quota(limit).to_string()));
            }
        }
        (Controller::Cpu, Version::V2) => {
            if let Some(request) = limits.cpu_request {
                all.push(set("cpu.weight", weight(request).to_string()));
            }
            if let Some(limit) = limits.cpu {
                all.push(set("cpu.max", format!("{} {PERIOD}", quota(limit))));
            }
        }
        (Controller::Memory, Version::V1) => {
            if let Some(bytes) = limits.memory {
                all.push(set("memory.limit_in_bytes", bytes.to_string()));
                // With swap: a limit that swaps instead of killing is none.
                all.push(maybe("memory.memsw.limit_in_bytes", bytes.to_string()));
            }
        }
        (Controller::Memory, Version::V2) => {
            if let Some(bytes) = limits.memory {
                all.push(set("memory.max", bytes.to_string()));
                all.push(maybe("memory.swap.max", "0".to_owned()));
                // A container that lost one of its processes is no use.
                all.push(maybe("memory.oom.group", "1".to_owned()));
            }
        }
        (Controller::Accounting, _) => {}
        (Controller::Pids, _) => {
            if let Some(count) = limits.pids {
                all.push(set("pids.max", count.to_string()));
            }
        }
    }
    all
}

/// Weight in version 1 of so many thousandths of a CPU.
fn shares(request: u64) -> u64 {
    (request.saturating_mul(1024) / 1000).clamp(LEAST_SHARES, MOST_SHARES)
}

/// Weight in version 2, from 1 to 10,000.
fn weight(request: u64) -> u64 {
    1 + (shares(request) - LEAST_SHARES) * 9999 / (MOST_SHARES - LEAST_SHARES)
}

fn quota(limit: u64) -> u64 {
    limit.saturating_mul(PERIOD / 1000).max(LEAST_QUOTA)
}

/// The number after `oom_kill` in `memory.oom_control` or `memory.events`.
pub(super) fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Version, controllers, path.
pub(super) fn to_line(dir: &Dir) -> String {
    let version = match dir.version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    };
    let controllers: Vec<_> = dir.controllers.iter().map(|c| c.name()).collect();
    format!(
        "{version} {} {}\n",
        controllers.join(","),
        dir.path.display()
    )
}

/// Lines that are not ours are passed over.
pub(super) fn from_text(text: &str) -> Group {
    let dir = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let version = match words.next()? {
            "v1" => Version::V1,
            "v2" => Version::V2,
            _ => return None,
        };
        let names = words.next()?.split(',');
        let controllers: Vec<_> = names
            .filter_map(|name| Controller::ALL.into_iter().find(|c| c.name() == name))
            .collect();
        let path = PathBuf::from(words.next()?);
        let ours = path.is_absolute() && super::find::is_project(&path);
        ours.then_some(Dir {
            version,
            controllers,
            path,
        })
    };
    Group {
        dirs: text.lines().filter_map(dir).collect(),
    }
}
