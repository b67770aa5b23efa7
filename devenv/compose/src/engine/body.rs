//! What the engine is asked to create.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Ipam,
    IpamConfig, Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountTmpfsOptions, MountType, MountVolumeOptions, NetworkCreateRequest, NetworkingConfig,
    PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};

use super::labels;
use crate::project::{
    Attachment, Healthcheck, Mount, MountKind, Network, Project, Restart, Service, Ulimit, Volume,
};

/// The container of a service; `image` is the id of its image. `inherited` are volumes
/// without a name of the container that it takes the place of.
pub(super) fn container(
    project: &Project,
    service: &Service,
    image: &str,
    inherited: Vec<EngineMount>,
) -> ContainerCreateBody {
    let first = service.networks.iter().next();
    let first = first.and_then(|(key, attachment)| {
        let name = project.networks.get(key)?.name.clone();
        Some((name, endpoint(project, service, attachment.as_ref())))
    });
    ContainerCreateBody {
        hostname: service.hostname.clone(),
        user: service.user.clone(),
        exposed_ports: some(
            service
                .ports
                .iter()
                .map(|p| format!("{}/{}", p.target, p.protocol))
                .collect(),
        ),
        env: some(
            service
                .environment
                .iter()
                .map(|(key, value)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => key.clone(),
                })
                .collect(),
        ),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        image: Some(service.image.clone()),
        working_dir: service.working_dir.clone(),
        labels: Some(labels::container(project, service, image)),
        stop_signal: service.stop_signal.clone(),
        // Whole seconds is all the engine knows; never none for a fraction.
        stop_timeout: service
            .stop_grace_period
            .map(|d| whole(d.as_secs() + u64::from(d.subsec_nanos() > 0))),
        host_config: Some(host(project, service, inherited, first.as_ref())),
        networking_config: first.map(|(name, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn host(
    project: &Project,
    service: &Service,
    inherited: Vec<EngineMount>,
    first: Option<&(String, EndpointSettings)>,
) -> HostConfig {
    let limits = service.limits.clone().unwrap_or_default();
    let mut binds = Vec::new();
    let mut mounts = inherited;
    for m in &service.mounts {
        if mounts.iter().any(|i| i.target.as_ref() == Some(&m.target)) {
            continue;
        }
        match bind(m) {
            Some(bind) => binds.push(bind),
            None => mounts.push(mount(project, m)),
        }
    }
    let mut port_bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.ports {
        port_bindings
            .entry(format!("{}/{}", port.target, port.protocol))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: Some(port.host_ip.clone()),
                host_port: Some(port.published.clone()),
            });
    }
    let tmpfs: HashMap<String, String> = service
        .tmpfs
        .iter()
        .map(|t| t.split_once(':').unwrap_or((t, "")))
        .map(|(path, options)| (path.into(), options.into()))
        .collect();
    HostConfig {
        memory: limits.memory.or(service.mem_limit).map(whole),
        nano_cpus: limits.cpus.map(|c| (f64::from(c) * 1e9).round() as i64),
        pids_limit: limits.pids.filter(|p| *p > 0),
        init: service.init,
        ulimits: some(
            service
                .ulimits
                .iter()
                .map(|(name, limit)| {
                    let (soft, hard) = match *limit {
                        Ulimit::Single(both) => (both, both),
                        Ulimit::Range { soft, hard } => (soft, hard),
                    };
                    ResourcesUlimits {
                        name: Some(name.clone()),
                        soft: Some(soft),
                        hard: Some(hard),
                    }
                })
                .collect(),
        ),
        binds: some(binds),
        mounts: some(mounts),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        network_mode: Some(first.map_or("none".into(), |(name, _)| name.clone())),
        port_bindings: (!port_bindings.is_empty()).then_some(port_bindings),
        restart_policy: service.restart.map(restart),
        cap_add: some(service.cap_add.clone()),
        cap_drop: some(service.cap_drop.clone()),
        extra_hosts: some(
            service
                .extra_hosts
                .iter()
                .flat_map(|(host, ips)| ips.iter().map(move |ip| format!("{host}:{ip}")))
                .collect(),
        ),
        readonly_rootfs: Some(service.read_only),
        shm_size: service.shm_size.map(whole),
        ..HostConfig::default()
    }
}

/// Under which names and addresses a service's container is on a network.
pub(super) fn endpoint(
    project: &Project,
    service: &Service,
    attachment: Option<&Attachment>,
) -> EndpointSettings {
    let mut aliases = vec![service.container(&project.name), service.name.clone()];
    aliases.extend(attachment.iter().flat_map(|a| a.aliases.clone()));
    let fixed = attachment.filter(|a| a.ipv4_address.is_some() || a.ipv6_address.is_some());
    EndpointSettings {
        aliases: Some(aliases),
        ipam_config: fixed.map(|a| EndpointIpamConfig {
            ipv4_address: a.ipv4_address.clone(),
            ipv6_address: a.ipv6_address.clone(),
            link_local_ips: None,
        }),
        ..EndpointSettings::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos = |d: Option<Duration>| d.map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    let test = match check.disable {
        true => vec!["NONE".to_owned()],
        false => check.test.clone(),
    };
    HealthConfig {
        test: some(test),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: check.retries.map(whole),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
    }
}

fn restart(restart: Restart) -> RestartPolicy {
    let (name, times) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure(times) => (RestartPolicyNameEnum::ON_FAILURE, times),
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count: times.map(i64::from),
    }
}

/// The old form, which makes the folder where it is not there, and knows SELinux.
fn bind(mount: &Mount) -> Option<String> {
    let MountKind::Bind {
        create_host_path,
        selinux,
        propagation,
        ..
    } = &mount.kind
    else {
        return None;
    };
    if *create_host_path == Some(false) && selinux.is_none() {
        return None;
    }
    let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
    options.extend(selinux.as_deref());
    options.extend(propagation.as_deref());
    Some(format!(
        "{}:{}:{}",
        mount.source,
        mount.target,
        options.join(",")
    ))
}

fn mount(project: &Project, mount: &Mount) -> EngineMount {
    let mut out = EngineMount {
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    };
    match &mount.kind {
        MountKind::Volume { nocopy, .. } => {
            out.typ = Some(MountType::VOLUME);
            out.source = project.volumes.get(&mount.source).map(|v| v.name.clone());
            out.volume_options = nocopy.then(|| MountVolumeOptions {
                no_copy: Some(true),
                ..MountVolumeOptions::default()
            });
        }
        MountKind::Bind { propagation, .. } => {
            out.typ = Some(MountType::BIND);
            out.source = Some(mount.source.clone());
            out.bind_options = propagation.as_deref().map(|word| MountBindOptions {
                propagation: word.parse::<MountBindOptionsPropagationEnum>().ok(),
                ..MountBindOptions::default()
            });
        }
        MountKind::Tmpfs { size, mode } => {
            out.typ = Some(MountType::TMPFS);
            out.tmpfs_options = Some(MountTmpfsOptions {
                size_bytes: size.map(whole),
                mode: mode.map(i64::from),
                options: None,
            });
        }
    }
    out
}

/// A network of the project.
pub(super) fn network(project: &Project, key: &str, network: &Network) -> NetworkCreateRequest {
    let pools: Vec<IpamConfig> = network
        .pools
        .iter()
        .map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            gateway: pool.gateway.clone(),
            ip_range: pool.ip_range.clone(),
            auxiliary_addresses: None,
        })
        .collect();
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv6: Some(network.enable_ipv6),
        ipam: (!pools.is_empty()).then(|| Ipam {
            config: Some(pools),
            ..Ipam::default()
        }),
        options: options(&network.driver_opts),
        labels: Some(labels::resource(
            project,
            labels::NETWORK,
            key,
            &network.labels,
        )),
        ..NetworkCreateRequest::default()
    }
}

/// A volume of the project.
pub(super) fn volume(project: &Project, key: &str, volume: &Volume) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: options(&volume.driver_opts),
        labels: Some(labels::resource(
            project,
            labels::VOLUME,
            key,
            &volume.labels,
        )),
        ..VolumeCreateRequest::default()
    }
}

fn options(written: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!written.is_empty()).then(|| written.clone().into_iter().collect())
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The engine's integers are signed.
fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
