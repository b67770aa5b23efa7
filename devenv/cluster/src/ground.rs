//! What pods and builds stand on: namespaces of their own, or, where those are
//! forbidden, plain processes on this machine's loopback addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devenv_sandbox::{HostChild, HostProcess, Netd, NetdOptions, Plain, SandboxError};

use crate::net::loopback::Loopback;
use crate::pod::plain::PlainRuntime;
use crate::store::Store;

/// How pods are kept apart from the machine and from each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// [`Isolation::Sandbox`], or [`Isolation::Ports`] where the machine forbids namespaces.
    #[default]
    Auto,
    /// Namespaces; without them nothing starts.
    Sandbox,
    /// Plain processes that get their port in `PORT`.
    Ports,
}

/// What holds everything that ends with devenv. Dropping it ends it now.
#[derive(Debug)]
pub(crate) enum Ground {
    /// In namespaces, with a network of its own.
    Sandbox(Arc<Netd>),
    /// Processes of this machine.
    Ports(Ports),
}

/// The ground where there are no namespaces.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) plain: Arc<Plain>,
    pub(crate) loopback: Arc<Loopback>,
    /// What gives pods namespaces here, as a sentence that begins in lower case.
    pub(crate) remedy: String,
    /// What forbids namespaces; `None` where ports were asked for.
    by: Option<String>,
}

impl Ground {
    /// Starts it. `project` is the project's own loopback address.
    ///
    /// # Errors
    /// As [`Netd::start`] and [`Plain::start`].
    pub(crate) fn start(
        isolation: Isolation,
        options: NetdOptions,
        project: Ipv4Addr,
    ) -> Result<Ground, SandboxError> {
        let ports = |by, remedy| {
            Ok(Ground::Ports(Ports {
                plain: Arc::new(Plain::start(&options)?),
                loopback: Arc::new(Loopback::new(project)),
                remedy,
                by,
            }))
        };
        if isolation == Isolation::Ports {
            return ports(None, "leave out --isolation ports".to_owned());
        }
        match Netd::start(options.clone()) {
            Ok(netd) => Ok(Ground::Sandbox(Arc::new(netd))),
            Err(SandboxError::NamespacesForbidden { by, remedy, .. })
                if isolation == Isolation::Auto =>
            {
                ports(Some(by), remedy)
            }
            Err(error) => Err(error),
        }
    }

    /// The table of addresses, where pods share this machine's.
    pub(crate) fn loopback(&self) -> Option<Arc<Loopback>> {
        match self {
            Ground::Sandbox(_) => None,
            Ground::Ports(ports) => Some(ports.loopback.clone()),
        }
    }

    /// What people should know about it.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Ground::Sandbox(_) => None,
            Ground::Ports(ports) => Some(ports.note()),
        }
    }

    /// Runs a program with the host's files and network, such as a build.
    ///
    /// # Errors
    /// As [`Netd::run_host`].
    pub(crate) fn run_host(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        match self {
            Ground::Sandbox(netd) => netd.run_host(process),
            Ground::Ports(ports) => ports.plain.run_host(process),
        }
    }

    /// Listens at an address of the cluster; non-blocking.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when the address is taken, [`SandboxError::ClusterGone`].
    pub(crate) fn listen_tcp(&self, address: SocketAddrV4) -> Result<TcpListener, SandboxError> {
        match self {
            Ground::Sandbox(netd) => netd.listen_tcp(address),
            Ground::Ports(ports) => {
                let listener = ports.loopback.listen_tcp(address);
                listener.map_err(cannot_listen(address))
            }
        }
    }

    /// Binds a UDP socket at an address of the cluster; non-blocking.
    ///
    /// # Errors
    /// As [`Ground::listen_tcp`].
    pub(crate) fn bind_udp(&self, address: SocketAddrV4) -> Result<UdpSocket, SandboxError> {
        match self {
            Ground::Sandbox(netd) => netd.bind_udp(address),
            Ground::Ports(ports) => {
                let socket = ports.loopback.bind_udp(address);
                socket.map_err(cannot_listen(address))
            }
        }
    }
}

impl Ports {
    /// What runs pods here, with their folders in `dir`, for `owner`.
    pub(crate) fn runtime(&self, store: Store, dir: PathBuf, owner: (u32, u32)) -> PlainRuntime {
        PlainRuntime::new(
            self.plain.clone(),
            self.loopback.clone(),
            store,
            dir,
            owner,
            self.remedy.clone(),
        )
    }

    /// Lets programs of `owner` pass through folders that are private to root: nothing can be
    /// bound past them. What is in them keeps its own permissions.
    pub(crate) fn give_way(&self, dirs: &[&Path], (uid, gid): (u32, u32)) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        dirs.iter()
            .try_for_each(|dir| std::os::unix::fs::chown(dir, Some(uid), Some(gid)))
    }

    fn note(&self) -> String {
        let why = match &self.by {
            Some(by) => format!("{by} forbids namespaces, so pods run as plain processes"),
            None => "as asked for, pods run as plain processes".to_owned(),
        };
        let remedy = &self.remedy;
        format!(
            "{why} of this machine. Each gets its port in PORT, and addresses for the names of Services in its \
             environment and arguments. What is lost: a program that ignores PORT runs once at a time and is \
             stopped before its successor starts; names of Services do not resolve; volumes can only be given \
             where a variable or argument names their path; limits of memory and CPU do not hold; pods see all files and processes of this user, and \
             can be reached from outside if they listen on every address. To have all of it, {remedy}"
        )
    }
}

fn cannot_listen(address: SocketAddrV4) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Step {
        step: format!("listen at {address}"),
        source,
    }
}
