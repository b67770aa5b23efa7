//! Which keys of the Compose specification devenv runs, and which it leaves to the real
//! Compose. What is in neither list is no key of the specification.

use super::at::Keys;

pub(super) const TOP: Keys = Keys {
    of: "a Compose file",
    // `version` means nothing any more; Compose itself reads past it.
    known: &["name", "networks", "services", "version", "volumes"],
    unsupported: &["configs", "include", "models", "secrets"],
};

pub(super) const SERVICE: Keys = Keys {
    of: "a service",
    known: &[
        "cap_add",
        "cap_drop",
        "command",
        "container_name",
        "depends_on",
        "deploy",
        "entrypoint",
        "env_file",
        "environment",
        "extra_hosts",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "labels",
        "mem_limit",
        "networks",
        "ports",
        "profiles",
        "pull_policy",
        "read_only",
        "restart",
        "shm_size",
        "stop_grace_period",
        "stop_signal",
        "tmpfs",
        "ulimits",
        "user",
        "volumes",
        "working_dir",
    ],
    unsupported: &[
        "annotations",
        "attach",
        "blkio_config",
        "build",
        "cgroup",
        "cgroup_parent",
        "configs",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "credential_spec",
        "develop",
        "device_cgroup_rules",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "expose",
        "extends",
        "external_links",
        "gpus",
        "group_add",
        "ipc",
        "isolation",
        "label_file",
        "links",
        "logging",
        "mac_address",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "models",
        "network_mode",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "pids_limit",
        "platform",
        "post_start",
        "pre_stop",
        "privileged",
        "provider",
        "runtime",
        "scale",
        "secrets",
        "security_opt",
        "stdin_open",
        "storage_opt",
        "sysctls",
        "tty",
        "use_api_socket",
        "userns_mode",
        "uts",
        "volumes_from",
    ],
};

pub(super) const HEALTHCHECK: Keys = Keys {
    of: "a healthcheck",
    known: &[
        "disable",
        "interval",
        "retries",
        "start_interval",
        "start_period",
        "test",
        "timeout",
    ],
    unsupported: &[],
};

pub(super) const DEPENDENCY: Keys = Keys {
    of: "a dependency",
    known: &["condition", "required", "restart"],
    unsupported: &[],
};

pub(super) const ENV_FILE: Keys = Keys {
    of: "an env_file",
    known: &["path", "required"],
    unsupported: &["format"],
};

pub(super) const DEPLOY: Keys = Keys {
    of: "deploy",
    known: &["resources"],
    unsupported: &[
        "endpoint_mode",
        "labels",
        "mode",
        "placement",
        "replicas",
        "restart_policy",
        "rollback_config",
        "update_config",
    ],
};

pub(super) const RESOURCES: Keys = Keys {
    of: "resources",
    known: &["limits"],
    unsupported: &["reservations"],
};

pub(super) const LIMITS: Keys = Keys {
    of: "limits",
    known: &["cpus", "memory", "pids"],
    unsupported: &[],
};

pub(super) const ULIMIT: Keys = Keys {
    of: "a ulimit",
    known: &["hard", "soft"],
    unsupported: &[],
};

pub(super) const PORT: Keys = Keys {
    of: "a port",
    known: &[
        "app_protocol",
        "host_ip",
        "mode",
        "name",
        "protocol",
        "published",
        "target",
    ],
    unsupported: &[],
};

pub(super) const MOUNT: Keys = Keys {
    of: "a mount",
    known: &[
        "bind",
        "read_only",
        "source",
        "target",
        "tmpfs",
        "type",
        "volume",
    ],
    unsupported: &["consistency", "image"],
};

pub(super) const MOUNT_BIND: Keys = Keys {
    of: "the options of a bind mount",
    known: &["create_host_path", "propagation", "selinux"],
    unsupported: &["recursive"],
};

pub(super) const MOUNT_VOLUME: Keys = Keys {
    of: "the options of a volume's mount",
    known: &["nocopy"],
    unsupported: &["labels", "subpath"],
};

pub(super) const MOUNT_TMPFS: Keys = Keys {
    of: "the options of a tmpfs",
    known: &["mode", "size"],
    unsupported: &[],
};

pub(super) const ATTACHMENT: Keys = Keys {
    of: "a service's network",
    known: &["aliases", "ipv4_address", "ipv6_address"],
    unsupported: &[
        "driver_opts",
        "gw_priority",
        "interface_name",
        "link_local_ips",
        "mac_address",
        "priority",
    ],
};

pub(super) const NETWORK: Keys = Keys {
    of: "a network",
    known: &[
        "attachable",
        "driver",
        "driver_opts",
        "enable_ipv6",
        "external",
        "internal",
        "ipam",
        "labels",
        "name",
    ],
    unsupported: &["enable_ipv4"],
};

pub(super) const IPAM: Keys = Keys {
    of: "ipam",
    known: &["config"],
    unsupported: &["driver", "options"],
};

pub(super) const POOL: Keys = Keys {
    of: "an address range",
    known: &["gateway", "ip_range", "subnet"],
    unsupported: &["aux_addresses"],
};

pub(super) const VOLUME: Keys = Keys {
    of: "a volume",
    known: &["driver", "driver_opts", "external", "labels", "name"],
    unsupported: &[],
};
