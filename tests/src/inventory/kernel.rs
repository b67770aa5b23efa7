//! What the kernel has: sockets, links, mounts, cgroups, rules, System V objects.
//!
//! The calling thread's view is read (`/proc/thread-self`), so that a test may
//! look into namespaces of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

/// A socket on which somebody can be reached.
#[derive(Debug)]
pub struct Socket {
    pub name: String,
    pub address: Option<SocketAddr>,
    pub inode: u64,
}

/// Listening TCP, bound UDP and named Unix sockets.
pub fn sockets() -> Vec<Socket> {
    let mut found = Vec::new();
    for (protocol, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        for line in lines(&format!("/proc/thread-self/net/{protocol}")).skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, at, _, _, _, _, _, inode, ..] = fields[..] else {
                continue;
            };
            if let (true, Some(address), Ok(inode)) = (at == state, address(local), inode.parse()) {
                found.push(Socket {
                    name: format!("{protocol} {address}"),
                    address: Some(address),
                    inode,
                });
            }
        }
    }
    for line in lines("/proc/thread-self/net/unix").skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Flag 0x10000 is a listening stream; a bound datagram socket has none.
        if let [_, _, _, _, _, _, inode, name, ..] = fields[..]
            && let Ok(inode) = inode.parse()
        {
            found.push(Socket {
                name: format!("unix {name}"),
                address: None,
                inode,
            });
        }
    }
    found
}

/// `0100007F:1F90`: each 32-bit word in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<u8> = (0..host.len() / 8)
        .map(|i| u32::from_str_radix(&host[i * 8..i * 8 + 8], 16))
        .collect::<Result<Vec<_>, _>>()
        .ok()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip = match words.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(words).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Network links by name.
pub fn links() -> Vec<String> {
    lines("/proc/thread-self/net/dev")
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

/// Mounts: where, what, and of which type.
pub fn mounts() -> Vec<String> {
    lines("/proc/thread-self/mountinfo")
        .filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let head: Vec<&str> = head.split(' ').collect();
            Some(format!(
                "{} (root {}, {}, mount {})",
                head.get(4)?,
                head.get(3)?,
                tail.split(' ').next()?,
                head.first()?
            ))
        })
        .collect()
}

/// The directories of all cgroup hierarchies, as paths inside their hierarchy
/// (version 1: after the controller's folder).
pub fn cgroups() -> Vec<String> {
    let mut found = Vec::new();
    for mount in lines("/proc/thread-self/mountinfo") {
        let Some((head, tail)) = mount.split_once(" - ") else {
            continue;
        };
        let Some(at) = head.split(' ').nth(4) else {
            continue;
        };
        if tail.starts_with("cgroup") {
            walk(Path::new(at), at.len(), 8, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

fn walk(folder: &Path, prefix: usize, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            found.push(path.to_string_lossy()[prefix..].to_owned());
            if depth > 0 {
                walk(&path, prefix, depth - 1, found);
            }
        }
    }
}

/// Routes, and packet filter rules as far as the tools to list them are here.
pub fn rules() -> Vec<String> {
    let mut found: Vec<String> = lines("/proc/thread-self/net/route")
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [link, to, via, _, _, _, metric, mask, ..] = fields[..] else {
                return None;
            };
            Some(format!(
                "route {link} {to}/{mask} via {via} metric {metric}"
            ))
        })
        .collect();
    for (tool, arguments) in [
        ("nft", &["list", "ruleset"][..]),
        ("iptables-save", &[]),
        ("ip6tables-save", &[]),
    ] {
        let Some(program) = crate::find_tool(tool) else {
            continue;
        };
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let mut table = String::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.trim();
            if line.starts_with('*') || line.starts_with("table ") {
                line.clone_into(&mut table);
            }
            if line.is_empty() || line.starts_with('#') || line == "}" || line == "COMMIT" {
                continue;
            }
            // A chain's counters move with every packet.
            let rule = line.split(" [").next().unwrap_or(line);
            found.push(format!("{tool} {table}: {rule}"));
        }
    }
    found
}

/// System V shared memory, semaphores and message queues, with their maker's pid
/// (0 where the kernel does not tell).
pub fn ipc() -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for (kind, maker) in [("shm", Some(4)), ("sem", None), ("msg", Some(5))] {
        for line in lines(&format!("/proc/sysvipc/{kind}")).skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Some(id) = fields.get(1) else { continue };
            let maker = maker
                .and_then(|column: usize| fields.get(column)?.parse().ok())
                .unwrap_or(0);
            found.push((format!("{kind} {id}"), maker));
        }
    }
    found
}

fn lines(file: &str) -> impl Iterator<Item = String> {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            address("0100007F:1F90"),
            Some("127.0.0.1:8080".parse().unwrap())
        );
        assert_eq!(
            address("00000000000000000000000001000000:0050"),
            Some("[::1]:80".parse().unwrap())
        );
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("01:02"), None);
    }

    #[test]
    fn a_real_listener_is_listed_with_its_address_and_a_closed_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listed = || {
            sockets()
                .iter()
                .any(|socket| socket.address == Some(address))
        };
        assert!(listed());
        drop(listener);
        assert!(!listed());
    }
}
