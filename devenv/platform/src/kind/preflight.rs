//! What can be known before a cluster is made.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use bollard::Docker;
use devenv_compose::EngineError;

use super::config::Mapping;
use super::error::KindError;
use crate::address::{self, AddressError};

/// What a node with the reference application takes, measured: 540 MiB for the node alone.
const MEMORY: u64 = 1200 << 20;
/// So many inotify instances a node takes, as root: systemd, containerd, the kubelet, and one
/// or more for each pod.
const INSTANCES: u64 = 40;
/// The kernel's default of `fs.inotify.max_user_watches` on small machines; the kubelet alone
/// wants more than a few thousand.
const WATCHES: u64 = 8192;

/// Looks at ports, memory and the kernel's limits.
///
/// # Errors
/// The first that is not enough.
pub async fn look(docker: &Docker, mappings: &[Mapping]) -> Result<(), KindError> {
    for mapping in mappings {
        port(mapping.here.into())?;
    }
    let info = docker.info().await;
    let info = info.map_err(|e| EngineError::of(e, "asking the engine what it has"))?;
    let total = info.mem_total.and_then(|n| u64::try_from(n).ok());
    memory(total, available())?;
    inotify(
        number("/proc/sys/fs/inotify/max_user_instances"),
        number("/proc/sys/fs/inotify/max_user_watches"),
        instances_of_root(),
    )
}

/// Whether the engine could have this address.
fn port(address: SocketAddr) -> Result<(), KindError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(AddressError::Taken {
            address,
            holder: address::holder_of(address)
                .unwrap_or_else(|| "a process of another user".to_owned()),
            hint: ", or set another one in devenv.toml: [ingress] http_port",
        }
        .into()),
        // The engine runs as root and may what this user may not.
        Err(_) => Ok(()),
    }
}

fn memory(total: Option<u64>, available: Option<u64>) -> Result<(), KindError> {
    // The engine may be in a virtual machine, which has less than this one.
    let least = [total, available].into_iter().flatten().min();
    match least {
        Some(least) if least < MEMORY => Err(KindError::TooLittle {
            what: format!(
                "a kind cluster needs {} MiB of memory, and {} are left",
                MEMORY >> 20,
                least >> 20
            ),
            help: "end something, or give the Docker Engine's machine more; devenv up without \
                   --target kind needs a tenth of it"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

fn inotify(
    instances: Option<u64>,
    watches: Option<u64>,
    used: Option<u64>,
) -> Result<(), KindError> {
    let too_low = |name: &str, has: String, wanted: u64| KindError::TooLittle {
        what: format!(
            "fs.inotify.{name} is too low for a kind cluster ({has}): its pods would fail with \
             \"too many open files\""
        ),
        help: format!("sudo sysctl -w fs.inotify.{name}={wanted}"),
    };
    if let Some(limit) = instances {
        let used = used.unwrap_or(0);
        if limit.saturating_sub(used) < INSTANCES {
            let has = format!("{limit}, of which root uses {used}");
            return Err(too_low("max_user_instances", has, 512));
        }
    }
    match watches {
        Some(limit) if limit < WATCHES => {
            Err(too_low("max_user_watches", limit.to_string(), 524_288))
        }
        _ => Ok(()),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// How many inotify instances root has, as far as this process may look.
fn instances_of_root() -> Option<u64> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let is_inotify = |entry: fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:inotify")
    };
    let processes = fs::read_dir("/proc").ok()?.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    let of = |process: fs::DirEntry| {
        let open = fs::read_dir(process.path().join("fd"));
        let open = open.into_iter().flatten().flatten();
        open.filter_map(|entry| is_inotify(entry).then_some(()))
            .count() as u64
    };
    Some(processes.map(of).sum())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, None, true)]
    #[case(Some(8 << 30), Some(4 << 30), true)]
    #[case(Some(8 << 30), Some(100 << 20), false)]
    #[case(Some(1 << 30), Some(4 << 30), false)]
    fn memories(#[case] total: Option<u64>, #[case] available: Option<u64>, #[case] fine: bool) {
        assert_eq!(memory(total, available).is_ok(), fine);
    }

    #[rstest]
    #[case(Some(128), Some(65536), Some(10), None)]
    #[case(Some(128), Some(65536), Some(100), Some("max_user_instances=512"))]
    #[case(Some(128), Some(4000), None, Some("max_user_watches=524288"))]
    #[case(None, None, None, None)]
    fn limits(
        #[case] instances: Option<u64>,
        #[case] watches: Option<u64>,
        #[case] used: Option<u64>,
        #[case] help: Option<&str>,
    ) {
        let found = inotify(instances, watches, used);
        match help {
            None => assert!(found.is_ok()),
            Some(help) => {
                let error = found.unwrap_err();
                assert!(error.help().unwrap().contains(help), "{error}");
                assert!(error.is_missing());
            }
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = port(listener.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("is taken by"), "{error}");
        let free = listener.local_addr().unwrap();
        drop(listener);
        port(free).unwrap();
    }
}
