//! Where a family of processes listens, by the kernel's list of sockets.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::unistd::Pid;

const LISTEN: &str = "0A";

/// The TCP addresses that one of these processes listens at.
pub(super) fn listening(processes: &[Pid]) -> Vec<SocketAddr> {
    let own: HashSet<String> = processes.iter().flat_map(|pid| sockets(*pid)).collect();
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
    // Without IPv6 there is no second list.
    let tables = ["tcp", "tcp6"].map(|name| read(name).unwrap_or_default());
    let mut found: Vec<SocketAddr> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(listener)
        .filter(|(_, inode)| own.contains(*inode))
        .map(|(address, _)| address)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The inodes of a process's sockets; none when it is gone.
fn sockets(pid: Pid) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let links = entries
        .flatten()
        .filter_map(|e| fs::read_link(e.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// A line's address and inode, if it is of a listener.
fn listener(line: &str) -> Option<(SocketAddr, &str)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip_in(ip)?, port), *fields.get(9)?))
}

/// Words of 32 bits, each in the machine's byte order.
fn ip_in(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            let ip = Ipv6Addr::from(bytes);
            Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::getpid;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn only_listeners_of_these_processes_are_found() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let mut wanted = vec![v4.local_addr().unwrap(), any.local_addr().unwrap()];
        let v6 = TcpListener::bind("[::1]:0").ok();
        wanted.extend(v6.iter().map(|l| l.local_addr().unwrap()));
        let client = TcpStream::connect(wanted[0]).unwrap();
        let found = listening(&[getpid()]);
        for address in wanted {
            assert!(found.contains(&address), "{address} in {found:?}");
        }
        assert!(!found.contains(&client.local_addr().unwrap()));
        assert_eq!(listening(&[]), []);
        assert_eq!(listening(&[Pid::from_raw(i32::MAX)]), []);
    }

    #[test]
    fn what_is_no_listener_is_no_address() {
        assert!(listener("").is_none());
        assert!(listener("0: 0100007F:1F90 0100007F:0000 01 0 0 0 0 0 5").is_none());
        assert!(listener("0: 0100:1F90 0100007F:0000 0A 0 0 0 0 0 5").is_none());
        assert!(listener("0: 0100007F:1F90 00000000:0000 0A 0 0 0 0").is_none());
    }
}
