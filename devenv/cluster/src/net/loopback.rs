//! The cluster's addresses on this machine's loopback, where pods have no
//! network of their own.
//!
//! Objects show the same addresses as ever: pods of 10.244.0.0/16, Services of
//! 10.96.0.0/16. Each of them stands for an address of 127.0.0.0/8, which on
//! Linux can be used without being set up. Every project has two ranges of its
//! own, worked out from its own address: a /24 for pods and one for all else.
//!
//! A pod's real ports are known to its [`Door`] alone. An address that is not a
//! pod's keeps its ports, unless one is reserved for root or taken: then it is
//! moved, and [`Loopback::real`] tells where to.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rand::RngExt as _;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// Where moved ports and those of pods begin and end: below the ports that the
/// system gives to outgoing connections, and where few programs listen.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 29_999;
/// Ports that a low one moves to, so that it is known before anything listens there.
const LOW_PORTS: u16 = 1024;

/// Leads to a pod.
#[async_trait]
pub trait Door: Send + Sync + fmt::Debug {
    /// Connects to whatever answers for this port of the pod.
    async fn connect(&self, port: u16) -> io::Result<TcpStream>;
    /// Ports that programs of the pod hold on every address of this machine although
    /// they were given others, so that no other pod can have them meanwhile.
    async fn fixed_ports(&self) -> Vec<u16>;
    /// The pod, for people.
    fn name(&self) -> String;
}

/// The table of addresses.
pub struct Loopback {
    project: Ipv4Addr,
    pods: Ipv4Addr,
    others: Ipv4Addr,
    /// Ports below this are root's.
    low: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the pod's own address.
    pods: HashMap<Ipv4Addr, (Ipv4Addr, Arc<dyn Door>)>,
    others: HashMap<Ipv4Addr, Ipv4Addr>,
    /// Real ports of those that could not be had.
    moved: HashMap<SocketAddrV4, u16>,
    /// Ports given to pods.
    given: HashSet<u16>,
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback")
            .field("pods", &self.pods)
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}

impl Loopback {
    /// An empty table of the project with this address.
    pub fn new(project: Ipv4Addr) -> Loopback {
        let low = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let low = low.ok().and_then(|text| text.trim().parse().ok());
        let low = if may_bind_low_ports() {
            0
        } else {
            low.unwrap_or(LOW_PORTS).min(LOW_PORTS)
        };
        let [pods, others] = ranges(project);
        Loopback {
            project,
            pods,
            others,
            low,
            state: Mutex::default(),
        }
    }

    /// Gives the pod at `ip` a real address and leads to it through the door made for that.
    /// `None` when all are in use.
    pub fn admit<D: Door + 'static>(
        &self,
        ip: Ipv4Addr,
        door: impl FnOnce(Ipv4Addr) -> Arc<D>,
    ) -> Option<Arc<D>> {
        let mut state = self.lock();
        let used = state.pods.values().map(|(real, _)| *real);
        let used = used.chain([self.project]).collect();
        let real = free(self.pods, &used)?;
        let door = door(real);
        state.pods.insert(ip, (real, door.clone()));
        Some(door)
    }

    /// The pod is gone.
    pub fn dismiss(&self, ip: Ipv4Addr) {
        self.lock().pods.remove(&ip);
    }

    /// The real address of a pod.
    pub fn pod(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        self.lock().pods.get(&ip).map(|(real, _)| *real)
    }

    /// Where an address of the cluster that is not a pod's really is, whether or not anything
    /// listens there by now. `None` when no more addresses are free.
    pub fn real(&self, addr: SocketAddrV4) -> Option<SocketAddrV4> {
        let mut state = self.lock();
        let ip = self.address(&mut state, *addr.ip())?;
        let port = match state.moved.get(&addr) {
            Some(port) => *port,
            None if (1..self.low).contains(&addr.port()) => moved_low(addr.port()),
            None => addr.port(),
        };
        Some(SocketAddrV4::new(ip, port))
    }

    /// Where datagrams to an address of the cluster go: programs are given no ports for them, so
    /// pods have their own.
    pub fn for_datagrams(&self, addr: SocketAddrV4) -> Option<SocketAddrV4> {
        match self.pod(*addr.ip()) {
            Some(ip) => Some(SocketAddrV4::new(ip, addr.port())),
            None => self.real(addr),
        }
    }

    fn address(&self, state: &mut State, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        if let Some(real) = state.others.get(&ip) {
            return Some(*real);
        }
        let used = state
            .others
            .values()
            .copied()
            .chain([self.project])
            .collect();
        let real = free(self.others, &used)?;
        state.others.insert(ip, real);
        Some(real)
    }

    /// Listens where an address of the cluster really is; moves its port where that is taken.
    pub fn listen_tcp(&self, addr: SocketAddrV4) -> io::Result<TcpListener> {
        self.bind(addr, Type::STREAM).map(TcpListener::from)
    }

    /// The same for UDP.
    pub fn bind_udp(&self, addr: SocketAddrV4) -> io::Result<UdpSocket> {
        self.bind(addr, Type::DGRAM).map(UdpSocket::from)
    }

    fn bind(&self, addr: SocketAddrV4, kind: Type) -> io::Result<Socket> {
        let real = self.real(addr).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let first = match listening(real, kind) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        if !matches!(
            first.kind(),
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
        ) {
            return Err(first);
        }
        for port in FIRST_PORT + LOW_PORTS..=LAST_PORT {
            let next = SocketAddrV4::new(*real.ip(), port);
            if let Ok(socket) = listening(next, kind) {
                self.lock().moved.insert(addr, port);
                return Ok(socket);
            }
        }
        Err(first)
    }

    /// Connects to an address of the cluster.
    ///
    /// # Errors
    /// What connect(2) says; refused where the pod does not listen.
    pub async fn connect(&self, addr: SocketAddrV4) -> io::Result<TcpStream> {
        let door = self
            .lock()
            .pods
            .get(addr.ip())
            .map(|(_, door)| door.clone());
        match door {
            Some(door) => door.connect(addr.port()).await,
            None => {
                let real = self.real(addr).ok_or(io::ErrorKind::AddrNotAvailable)?;
                dial(real).await
            }
        }
    }

    /// Whether the pod at `ip` holds a port that no other can have; see [`Door::fixed_ports`].
    pub async fn has_fixed_port(&self, ip: Ipv4Addr) -> bool {
        let door = self.lock().pods.get(&ip).map(|(_, door)| door.clone());
        match door {
            Some(door) => !door.fixed_ports().await.is_empty(),
            None => false,
        }
    }

    /// The pod that holds `port` on every address, other than the one at `ip`.
    pub async fn holder_of(&self, port: u16, ip: Ipv4Addr) -> Option<String> {
        let doors: Vec<Arc<dyn Door>> = {
            let state = self.lock();
            let others = state.pods.iter().filter(|(pod, _)| **pod != ip);
            others.map(|(_, (_, door))| door.clone()).collect()
        };
        for door in doors {
            if door.fixed_ports().await.contains(&port) {
                return Some(door.name());
            }
        }
        None
    }

    /// A port that nothing on this machine listens at, for one pod. It is given to no other
    /// until [`Loopback::give_back`].
    pub fn give_port(&self) -> Option<u16> {
        let mut state = self.lock();
        let first = FIRST_PORT + LOW_PORTS;
        let span = LAST_PORT - first + 1;
        // From a random place, so that two projects seldom look at the same.
        let start = rand::rng().random_range(0..span);
        let port = (0..span)
            .map(|n| first + (start + n) % span)
            .find(|port| !state.given.contains(port) && is_free(*port))?;
        state.given.insert(port);
        Some(port)
    }

    /// The port is nobody's any more.
    pub fn give_back(&self, port: u16) {
        self.lock().given.remove(&port);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects on this machine. Requests and probes are small: waiting to fill a segment would only
/// delay them.
pub async fn dial(addr: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a program that listens on every address can have this port now.
pub fn is_free(port: u16) -> bool {
    bound(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port), Type::STREAM).is_ok()
}

/// Where a port goes that is reserved for root.
fn moved_low(port: u16) -> u16 {
    FIRST_PORT + port
}

/// The bases of the ranges for pods and for all else. Projects have addresses from 127.64.0.0 to
/// 127.191.255.255, so the second range is no project's first one.
fn ranges(project: Ipv4Addr) -> [Ipv4Addr; 2] {
    let [_, a, b, _] = project.octets();
    let second = 192 + a.wrapping_sub(64) / 4;
    [
        Ipv4Addr::new(127, a, b, 0),
        Ipv4Addr::new(127, second, b, 0),
    ]
}

/// From a random place: an address rests before it is given again, and where two projects share a
/// range they seldom meet.
fn free(base: Ipv4Addr, used: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let start = rand::rng().random_range(0..254);
    (0..254)
        .map(|n| Ipv4Addr::from(u32::from(base) + 1 + (start + n) % 254))
        .find(|ip| !used.contains(ip))
}

fn listening(addr: SocketAddrV4, kind: Type) -> io::Result<Socket> {
    let socket = bound(addr, kind)?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bound(addr: SocketAddrV4, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    if kind == Type::STREAM {
        // Old connections in TIME_WAIT must not keep a new listener from its address.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::V4(addr).into())?;
    Ok(socket)
}

fn may_bind_low_ports() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE))
}

#[cfg(test)]
mod tests;
