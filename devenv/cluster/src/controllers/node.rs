//! The one Node: this machine.

use serde_json::{Value, json};

use crate::kinds;
use crate::store::{Store, StoreError};

/// The Node's name.
pub const NAME: &str = "devenv";

/// The Node's address as pods see it: the bridge that they hang on.
pub const ADDRESS: &str = "10.244.0.1";

/// Makes or refreshes the Node; it is Ready while devenv runs.
///
/// # Errors
/// When the store refuses the write.
pub fn ensure(store: &Store) -> Result<(), StoreError> {
    let before = store.get(&kinds::NODE, "", NAME);
    let since = before
        .as_ref()
        .and_then(|node| node.value()["status"]["conditions"][0]["lastTransitionTime"].as_str())
        .map_or_else(crate::time::now, str::to_owned);
    let status = status(&since, &crate::time::now());
    if before.is_none() {
        let arch = go_arch();
        store.create(
            &kinds::NODE,
            json!({
                "metadata": {
                    "name": NAME,
                    "labels": {
                        "kubernetes.io/hostname": NAME,
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": arch,
                        "node-role.kubernetes.io/control-plane": "",
                    },
                },
                "spec": {"podCIDR": "10.244.0.0/16", "podCIDRs": ["10.244.0.0/16"]},
                "status": status,
            }),
        )?;
    } else {
        store.update_status(&kinds::NODE, "", NAME, status)?;
    }
    Ok(())
}

fn status(since: &str, now: &str) -> Value {
    let cpus = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let memory = format!("{}Ki", memory_kib());
    let resources = json!({"cpu": cpus, "memory": memory, "pods": "110"});
    json!({
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "devenv runs pods", "lastHeartbeatTime": now, "lastTransitionTime": since,
        }],
        "addresses": [
            {"type": "InternalIP", "address": ADDRESS},
            {"type": "Hostname", "address": NAME},
        ],
        "nodeInfo": {
            "architecture": go_arch(),
            "operatingSystem": "linux",
            "kernelVersion": first_line("/proc/sys/kernel/osrelease"),
            "osImage": os_name(),
            "containerRuntimeVersion": concat!("devenv://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("v1.34.0-devenv.", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "machineID": "", "systemUUID": "",
            "bootID": first_line("/proc/sys/kernel/random/boot_id"),
        },
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}

fn os_name() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || "Linux".to_owned(),
            |name| name.trim_matches('"').to_owned(),
        )
}

fn memory_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_ready_and_made_once() {
        let store = Store::in_memory();
        ensure(&store).expect("made");
        let first = store.get(&kinds::NODE, "", NAME).expect("there");
        ensure(&store).expect("refreshed");
        let second = store.get(&kinds::NODE, "", NAME).expect("there");
        assert_eq!(first.uid(), second.uid());
        let ready = &second.value()["status"]["conditions"][0];
        assert_eq!(
            (ready["type"].as_str(), ready["status"].as_str()),
            (Some("Ready"), Some("True"))
        );
        assert_ne!(second.value()["status"]["capacity"]["memory"], "0Ki");
    }
}
