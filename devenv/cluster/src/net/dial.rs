//! Where a connection is made from: an address means something in the cluster's
//! network, on this machine, or beyond it.
//!
//! Everything that carries traffic dials through here: the way out of the pods,
//! ClusterIPs whose endpoints lie outside, the ingress.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use devenv_sandbox::{GATEWAY, POD_PREFIX, SERVICE_RANGE};
use tokio::net::{TcpStream, UdpSocket};

use super::connect::Sockets;
use super::endpoints;
use super::well_known::HOST;
use crate::ground::Ground;
use crate::store::Store;

/// How long a connection to another machine may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// One of its `spec.ports[].port`.
    pub port: u16,
}

/// Connects to addresses as pods mean them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    sockets: Sockets,
    /// For datagrams. Weak: dropping the network is not delayed by who might still dial.
    ground: Weak<Ground>,
    store: Store,
    also_at: Arc<BTreeMap<SocketAddrV4, ServicePort>>,
}

/// What an address stands for.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    /// A pod, a ClusterIP, the gateway.
    Cluster,
    /// What this machine has on its loopback.
    Loopback,
    /// The ready endpoints of a Service, whatever the address is elsewhere.
    Service(&'a ServicePort),
    /// Another machine.
    Outside,
    /// Nothing, for this reason.
    Nowhere(&'static str),
}

impl Dialer {
    /// Connections to a key of `also_at` lead to the Service that it names.
    pub(crate) fn new(
        sockets: Sockets,
        ground: &Arc<Ground>,
        store: Store,
        also_at: BTreeMap<SocketAddrV4, ServicePort>,
    ) -> Dialer {
        Dialer {
            sockets,
            ground: Arc::downgrade(ground),
            store,
            also_at: Arc::new(also_at),
        }
    }

    /// Connects; small writes are sent at once.
    ///
    /// # Errors
    /// What connect(2) says; `AddrNotAvailable` for an address that leads nowhere from a pod.
    pub async fn connect(&self, addr: SocketAddrV4) -> io::Result<TcpStream> {
        match way(addr, &self.also_at) {
            Way::Cluster => self.sockets.connect(addr).await,
            Way::Loopback => on_loopback(addr.port()).await,
            Way::Service(port) => self.connect_to_service(port).await,
            Way::Outside => outside(addr.into()).await,
            Way::Nowhere(why) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why)),
        }
    }

    /// A socket whose datagrams go to `addr`, and which receives those from there.
    ///
    /// # Errors
    /// What the system says; `AddrNotAvailable` for an address that leads nowhere from a pod.
    pub async fn datagrams(&self, addr: SocketAddrV4) -> io::Result<UdpSocket> {
        let (socket, to) = match way(addr, &self.also_at) {
            Way::Cluster => (self.own_datagrams().await?, self.sockets.real(addr)),
            Way::Loopback => {
                let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, addr.port());
                (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?, to)
            }
            Way::Outside => (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?, addr),
            Way::Service(_) => {
                let why = "the Service that stands in for this address takes connections alone";
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
            }
            Way::Nowhere(why) => return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why)),
        };
        socket.connect(to).await?;
        Ok(socket)
    }

    async fn own_datagrams(&self) -> io::Result<UdpSocket> {
        let gone = || io::Error::new(io::ErrorKind::NetworkDown, "the cluster's network is gone");
        let ground = self.ground.upgrade().ok_or_else(gone)?;
        let bound =
            tokio::task::spawn_blocking(move || ground.bind_udp(SocketAddrV4::new(GATEWAY, 0)));
        // A panic there is a bug of the sandbox; here the network is gone.
        let socket = bound.await.map_err(|_| gone())?.map_err(io::Error::other)?;
        UdpSocket::from_std(socket)
    }

    async fn connect_to_service(&self, port: &ServicePort) -> io::Result<TcpStream> {
        let mut last = io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the Service has no ready endpoint",
        );
        for addr in endpoints::of_port(&self.store, port) {
            match self.sockets.connect(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[async_trait]
impl devenv_ingress::Connector for Dialer {
    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        match addr {
            SocketAddr::V4(addr) => Dialer::connect(self, addr).await,
            SocketAddr::V6(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the cluster's network has IPv4 only",
            )),
        }
    }
}

/// A program of this machine that listens on loopback: on IPv4, or on IPv6 alone, as some do that
/// are told `localhost`.
async fn on_loopback(port: u16) -> io::Result<TcpStream> {
    match outside((Ipv4Addr::LOCALHOST, port).into()).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // The first answer is the one that people expect.
            outside((Ipv6Addr::LOCALHOST, port).into())
                .await
                .map_err(|_| error)
        }
        other => other,
    }
}

async fn outside(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn way(addr: SocketAddrV4, also_at: &BTreeMap<SocketAddrV4, ServicePort>) -> Way<'_> {
    let ip = *addr.ip();
    if let Some(port) = also_at.get(&addr) {
        return Way::Service(port);
    }
    // A program with a production address built in must not reach production by another port.
    if also_at.keys().any(|known| *known.ip() == ip) {
        return Way::Nowhere("a Service stands in for this address, and not on this port");
    }
    if in_cluster(ip) {
        return Way::Cluster;
    }
    if ip == HOST {
        return Way::Loopback;
    }
    // A pod's own kernel sends 127.0.0.0/8 nowhere, but a pod that writes raw packets could ask for
    // it, and here it would be this machine's loopback.
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
        return Way::Nowhere("no single other machine has this address");
    }
    Way::Outside
}

/// Whether an address is one of a pod or a Service.
pub fn in_cluster(ip: Ipv4Addr) -> bool {
    in_network(ip, GATEWAY, POD_PREFIX) || in_network(ip, SERVICE_RANGE.0, SERVICE_RANGE.1)
}

fn in_network(ip: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix))
        .unwrap_or_default();
    u32::from(ip) & mask == u32::from(network) & mask
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10.244.3.7:80", "Cluster")]
    #[case("10.96.0.1:443", "Cluster")]
    #[case("10.245.0.1:80", "Outside")]
    #[case("10.97.0.1:80", "Outside")]
    #[case("169.254.1.2:5432", "Loopback")]
    #[case("169.254.169.254:80", "Outside")]
    #[case("192.168.1.1:80", "Outside")]
    #[case("142.250.1.1:443", "Outside")]
    #[case("34.66.1.2:3306", "Service")]
    #[case("34.66.1.2:3307", "Nowhere")]
    #[case("34.66.1.3:3306", "Outside")]
    #[case("127.0.0.1:22", "Nowhere")]
    #[case("127.140.111.80:80", "Nowhere")]
    #[case("0.0.0.0:22", "Nowhere")]
    #[case("255.255.255.255:1", "Nowhere")]
    #[case("224.0.0.1:1", "Nowhere")]
    fn ways(#[case] addr: SocketAddrV4, #[case] expected: &str) {
        let database = ServicePort {
            namespace: "default".to_owned(),
            service: "cloudsql".to_owned(),
            port: 3306,
        };
        let at = SocketAddrV4::new(Ipv4Addr::new(34, 66, 1, 2), 3306);
        let also_at = BTreeMap::from([(at, database)]);
        let found = match way(addr, &also_at) {
            Way::Cluster => "Cluster",
            Way::Loopback => "Loopback",
            Way::Service(_) => "Service",
            Way::Outside => "Outside",
            Way::Nowhere(_) => "Nowhere",
        };
        assert_eq!(found, expected);
    }
}
