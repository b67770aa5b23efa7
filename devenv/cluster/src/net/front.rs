//! Fronts: addresses at which a Service is reached, and what carries their traffic.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::balance::Balancer;
use super::datagram;
use super::dial::Dialer;
use super::fault::Faults;
use super::forward;
use crate::controllers::runtime::Key;

/// What a port speaks; SCTP is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// From a port's `protocol`, whose default is TCP.
    pub fn of(text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// An open socket that traffic arrives at. Dropping it closes the socket; TCP connections that it
/// has accepted go on.
#[derive(Debug)]
pub struct Front {
    balancer: Arc<Balancer>,
    stop: CancellationToken,
}

impl Front {
    /// Where its traffic goes.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes fronts.
#[derive(Debug, Clone)]
pub struct Carrier {
    dialer: Dialer,
    faults: Faults,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Carrier {
    /// Everything that its fronts carry lives until `cut`.
    pub fn new(
        dialer: Dialer,
        faults: Faults,
        cut: CancellationToken,
        tasks: TaskTracker,
    ) -> Carrier {
        Carrier {
            dialer,
            faults,
            cut,
            tasks,
        }
    }

    /// A front of this Service for connections that the listener (non-blocking) accepts.
    ///
    /// # Errors
    /// When the listener is not usable.
    pub fn tcp(&self, listener: std::net::TcpListener, service: &Key) -> io::Result<Front> {
        let listener = TcpListener::from_std(listener)?;
        let (balancer, stop) = (Arc::new(Balancer::default()), CancellationToken::new());
        let order = {
            let balancer = balancer.clone();
            move |client| balancer.order(client)
        };
        let path = {
            let (faults, service) = (self.faults.clone(), service.clone());
            move |client| faults.path(client, Some(&service))
        };
        let serving = forward::serve(
            listener,
            self.dialer.clone(),
            order,
            path,
            stop.clone(),
            self.cut.clone(),
            self.tasks.clone(),
        );
        self.spawn(serving);
        Ok(Front { balancer, stop })
    }

    /// A front for datagrams that arrive at this socket (non-blocking).
    ///
    /// # Errors
    /// When the socket is not usable.
    pub fn udp(&self, socket: std::net::UdpSocket) -> io::Result<Front> {
        let socket = UdpSocket::from_std(socket)?;
        let (balancer, stop) = (Arc::new(Balancer::default()), CancellationToken::new());
        let serving = datagram::serve(socket, self.dialer.clone(), balancer.clone(), stop.clone());
        self.spawn(async move {
            if let Err(error) = serving.await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a Service's UDP port broke"
                );
            }
        });
        Ok(Front { balancer, stop })
    }

    fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = serving => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// The address by which a client is known; what has none in IPv4 shares one.
pub(super) fn client_ip(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}
