//! The process tree under the supervisor, with namespaces or without.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
};

use socket2::{Domain, Socket, Type};

use crate::{
    error::SandboxError, handle::Netd, host_child::HostChild, plain::Plain, spec::HostProcess,
};

/// What ends with the supervisor. Dropping it ends it now.
#[derive(Debug)]
pub enum Tree {
    /// In namespaces, with a network of its own.
    Sandbox(Netd),
    /// Processes of this machine, on its loopback addresses.
    Plain(Plain),
}

impl Tree {
    /// Runs a program with the host's files and network, such as a build.
    ///
    /// # Errors
    /// As [`Netd::run_host`].
    pub fn run_host(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        match self {
            Tree::Sandbox(netd) => netd.run_host(process),
            Tree::Plain(plain) => plain.run_host(process),
        }
    }

    /// Listens at an address that pods reach; non-blocking.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when the address is taken, [`SandboxError::ClusterGone`].
    pub fn listen_tcp(&self, address: SocketAddrV4) -> Result<TcpListener, SandboxError> {
        match self {
            Tree::Sandbox(netd) => netd.listen_tcp(address),
            Tree::Plain(_) => {
                let socket = bound(address, Type::STREAM).and_then(|socket| {
                    socket.listen(1024)?;
                    Ok(socket)
                });
                socket.map(TcpListener::from).map_err(cannot_bind(address))
            }
        }
    }

    /// Binds a UDP socket at an address that pods reach; non-blocking.
    ///
    /// # Errors
    /// As [`listen_tcp`](Self::listen_tcp).
    pub fn bind_udp(&self, address: SocketAddrV4) -> Result<UdpSocket, SandboxError> {
        match self {
            Tree::Sandbox(netd) => netd.bind_udp(address),
            Tree::Plain(_) => bound(address, Type::DGRAM)
                .map(UdpSocket::from)
                .map_err(cannot_bind(address)),
        }
    }
}

fn bound(address: SocketAddrV4, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    if kind == Type::STREAM {
        // Old connections in TIME_WAIT must not keep a new run from its address.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn cannot_bind(address: SocketAddrV4) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Step {
        step: format!("listen at {address}"),
        source,
    }
}
