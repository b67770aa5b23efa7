//! Where a project listens: its own loopback address, and the ports on 127.0.0.1
//! that people type by hand.
//!
//! Every project owns one address of 127.0.0.0/8, worked out from its folder, so
//! that two projects or two worktrees run side by side and an Ingress has an
//! ADDRESS that means this project alone.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::Path,
};

use sha2::{Digest, Sha256};

/// The stable loopback address of the project in `root`, or of a system beside it that
/// keeps its state in `root`.
///
/// 127.64.0.1 to 127.191.255.254: away from 127.0.0.0/16, which other programs
/// use by hand.
pub fn project_address(root: &Path) -> Ipv4Addr {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    Ipv4Addr::new(127, 64 + digest[0] % 128, digest[1], 1 + digest[2] % 254)
}

/// A listener and what has to be said about how it was had.
#[derive(Debug)]
pub struct Bound {
    /// The bound socket, non-blocking.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
    /// Why it isn't the address that was wanted, for people.
    pub note: Option<String>,
}

/// Why an address could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Another process listens there.
    #[error("{address} is taken by {holder}; stop it{hint}")]
    Taken {
        /// The wanted address.
        address: SocketAddr,
        /// Who has it, as far as /proc tells.
        holder: String,
        /// What else helps, as the end of the sentence; may be empty.
        hint: &'static str,
    },
    /// The machine reserves low ports for root.
    #[error(
        "this user may not listen on {address}; allow it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start={}",
        address.port()
    )]
    Forbidden {
        /// The wanted address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("can't listen on {address}")]
    Io {
        /// The wanted address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Listens on exactly `address`.
pub fn bind(address: SocketAddr, hint: &'static str) -> Result<Bound, AddressError> {
    match listen(address) {
        Ok(listener) => Ok(Bound {
            address: listener.local_addr().unwrap_or(address),
            listener,
            note: None,
        }),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(AddressError::Taken {
            address,
            holder: holder_of(address).unwrap_or_else(|| "a process of another user".to_owned()),
            hint,
        }),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(AddressError::Forbidden { address })
        }
        Err(source) => Err(AddressError::Io { address, source }),
    }
}

/// Listens on `wanted` or, if it is taken, on the next free of the 200 ports after it.
///
/// The note names the process that has the wanted one.
pub fn bind_or_next(wanted: SocketAddr, hint: &'static str) -> Result<Bound, AddressError> {
    bind_or_from(wanted, wanted.port().saturating_add(1), hint)
}

/// Listens on `wanted` or, if it is taken or reserved for root, on the first free of
/// the 200 ports from `other` on. The note says why.
pub fn bind_or_from(
    wanted: SocketAddr,
    other: u16,
    hint: &'static str,
) -> Result<Bound, AddressError> {
    let first = match bind(wanted, hint) {
        Ok(bound) => return Ok(bound),
        Err(e) => e,
    };
    let why = match &first {
        AddressError::Taken {
            address, holder, ..
        } => format!("{address} is taken by {holder}"),
        AddressError::Forbidden { .. } => first.to_string(),
        AddressError::Io { .. } => return Err(first),
    };
    for port in other..=other.saturating_add(199) {
        let next = SocketAddr::new(wanted.ip(), port);
        if let Ok(listener) = listen(next) {
            return Ok(Bound {
                listener,
                address: next,
                note: Some(format!("{why}; listening on {next} instead")),
            });
        }
    }
    Err(first)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    // A project that was just killed must get its port back while old
    // connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The process that listens on `address`, as `name (pid N)`; `None` where /proc
/// does not show it (another user's process).
pub fn holder_of(address: SocketAddr) -> Option<String> {
    let inode = listening_inode(address)?;
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|s| s.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            if fs::read_link(fd.path()).is_ok_and(|t| t.as_os_str() == wanted.as_str()) {
                let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                let cwd = fs::read_link(entry.path().join("cwd"))
                    .map(|c| format!(" in {}", c.display()))
                    .unwrap_or_default();
                return Some(format!("{} (pid {pid}{cwd})", comm.trim()));
            }
        }
    }
    None
}

/// The inode of the listening socket that would keep `address` from being bound:
/// the same address, or the wildcard, on the same port.
fn listening_inode(address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let port = format!("{:04X}", address.port());
    let exact = format!("{:08X}:{port}", u32::from_le_bytes(ip.octets()));
    let any = format!("00000000:{port}");
    let any6 = format!("{:032X}:{port}", 0);
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            fs::read_to_string(table)
                .ok()?
                .lines()
                .skip(1)
                .find_map(|line| {
                    let f: Vec<&str> = line.split_whitespace().collect();
                    let local = *f.get(1)?;
                    (f.get(3) == Some(&LISTEN) && (local == exact || local == any || local == any6))
                        .then(|| f.get(9)?.parse().ok())
                        .flatten()
                })
        })
}

/// Who owns the checkout: pods and builds run as this user, also when devenv was
/// started as root.
pub fn owner_of(root: &Path) -> io::Result<(u32, u32)> {
    let meta = fs::metadata(root)?;
    Ok((meta.uid(), meta.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_stable_and_of_the_project() {
        let a = project_address(Path::new("/home/ana/so1"));
        assert_eq!(a, project_address(Path::new("/home/ana/so1")));
        assert_ne!(a, project_address(Path::new("/home/ana/so2")));
        let [n, x, _, z] = a.octets();
        assert_eq!(n, 127);
        assert!((64..192).contains(&x) && (1..255).contains(&z));
    }

    #[test]
    fn a_taken_port_names_its_holder_and_the_next_is_used() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "x").unwrap();
        let e = bind(first.address, ", or wait").unwrap_err();
        assert!(e.to_string().ends_with("; stop it, or wait"), "{e}");
        let me = format!("pid {}", std::process::id());
        assert!(e.to_string().contains(&me), "{e}");
        let next = bind_or_next(first.address, "").unwrap();
        assert_ne!(next.address, first.address);
        assert!(next.note.unwrap().contains(&me));
        let far = bind_or_from(first.address, 20_000, "").unwrap();
        assert!((20_000..20_200).contains(&far.address.port()));
    }

    #[test]
    fn a_wildcard_listener_is_found_as_the_holder() {
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = any.local_addr().unwrap().port();
        let holder = holder_of(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
