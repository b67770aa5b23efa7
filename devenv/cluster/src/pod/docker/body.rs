//! A container of a pod, as the engine is asked for it.

use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
};
use devenv_sandbox::{Access, Limits};

use super::Shared;
use crate::image::ContainerImage;
use crate::pod::runtime::{SandboxSpec, StartSpec};

/// `pause` is the id of the pod's pause container; `files` are paths on this machine and
/// in the container that all containers of the pod see.
pub(super) fn container(
    shared: &Shared,
    pod: &SandboxSpec,
    pause: &str,
    files: &[(PathBuf, PathBuf)],
    spec: &StartSpec,
    image: &ContainerImage,
) -> ContainerCreateBody {
    let files = files
        .iter()
        .map(|(source, target)| mount(source, target, true));
    let binds = spec.binds.iter().map(|bind| {
        let read_only = bind.access != Access::ReadWrite;
        mount(&bind.source, &bind.target, read_only)
    });
    let security = &spec.security;
    let limits = limits_of(&spec.limits);
    ContainerCreateBody {
        image: Some(image.id.clone()),
        // The whole command line: nothing of the image's own comes after it.
        entrypoint: Some(spec.argv.clone()),
        env: Some(
            spec.env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        working_dir: Some(spec.cwd.display().to_string()),
        user: spec.user.clone(),
        labels: Some(shared.labels(pod, &spec.name)),
        // Kubernetes asks its own probes, and not the image's check.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            network_mode: Some(format!("container:{pause}")),
            ipc_mode: Some(format!("container:{pause}")),
            mounts: Some(binds.chain(files).collect()),
            readonly_rootfs: Some(security.read_only_root),
            privileged: Some(security.privileged),
            cap_add: some(&security.add),
            cap_drop: some(&security.drop),
            security_opt: security
                .no_new_privileges
                .then(|| vec!["no-new-privileges".to_owned()]),
            // Devenv keeps the logs; the engine's own are for `docker logs`, and bounded.
            log_config: Some(HostConfigLogConfig {
                typ: Some("local".to_owned()),
                config: None,
            }),
            // Devenv, not the engine, starts containers again.
            ..limits
        }),
        ..ContainerCreateBody::default()
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn mount(source: &std::path::Path, target: &std::path::Path, read_only: bool) -> Mount {
    Mount {
        source: Some(source.display().to_string()),
        target: Some(target.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// As kubelet translates them: shares of 1024 for each CPU asked for, no swap beyond the
/// memory's limit.
fn limits_of(limits: &Limits) -> HostConfig {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let memory = limits.memory.map(whole);
    HostConfig {
        memory,
        memory_swap: memory,
        // Not `NanoCpus`, of which an engine takes no more than the machine has.
        cpu_period: limits.cpu.map(|_| 100_000),
        cpu_quota: limits
            .cpu
            .map(|milli| whole(milli.saturating_mul(100).max(1000))),
        cpu_shares: limits
            .cpu_request
            .map(|milli| whole((milli * 1024 / 1000).max(2))),
        pids_limit: limits.pids.map(whole),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_translated_as_kubelet_does() {
        let host = limits_of(&Limits {
            cpu: Some(250),
            cpu_request: Some(500),
            memory: Some(64 << 20),
            pids: None,
        });
        assert_eq!(
            (host.cpu_quota, host.cpu_period),
            (Some(25_000), Some(100_000))
        );
        assert_eq!(host.cpu_shares, Some(512));
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(64 << 20), Some(64 << 20))
        );
        let none = limits_of(&Limits::default());
        assert_eq!(
            (none.memory, none.cpu_quota, none.cpu_shares),
            (None, None, None)
        );
        let least = limits_of(&Limits {
            cpu_request: Some(1),
            ..Limits::default()
        });
        assert_eq!(least.cpu_shares, Some(2));
    }
}
