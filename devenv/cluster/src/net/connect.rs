//! Connections into the cluster's network.
//!
//! A socket keeps the network namespace that it was born in. netd makes them 64
//! at a time and hands them over; here they wait, so that a connection costs no
//! round trip to netd. Where the cluster has no network of its own, the table of
//! its loopback addresses leads to its pods instead.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use devenv_sandbox::{Netd, SandboxError};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::loopback::Loopback;

/// How many sockets netd makes at a time.
const BATCH: usize = 64;
/// When fewer are left, more are asked for.
const LOW: usize = 24;

/// A stock of sockets; cheap to clone, all clones share it.
#[derive(Clone)]
pub struct Sockets {
    shared: Arc<Shared>,
}

struct Shared {
    /// Set where there is no network of the cluster's own; the stock stays empty then.
    loopback: Option<Arc<Loopback>>,
    state: Mutex<State>,
    /// For the refilling task: the stock is low.
    low: Notify,
    /// For those who wait: the stock was refilled, or never will be.
    filled: Notify,
}

#[derive(Default)]
struct State {
    stock: VecDeque<OwnedFd>,
    /// Why there will be no more.
    failed: Option<String>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("stock", &self.lock().stock.len())
            .finish()
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets::new()
    }
}

impl Sockets {
    /// An empty stock; [`Sockets::refill`] must run for it to fill.
    pub fn new() -> Sockets {
        Sockets::with(None)
    }

    /// Connections by way of the cluster's loopback addresses.
    pub fn on_loopback(loopback: Arc<Loopback>) -> Sockets {
        Sockets::with(Some(loopback))
    }

    fn with(loopback: Option<Arc<Loopback>>) -> Sockets {
        Sockets {
            shared: Arc::new(Shared {
                loopback,
                state: Mutex::default(),
                low: Notify::new(),
                filled: Notify::new(),
            }),
        }
    }

    /// Keeps the stock filled until `stop`.
    ///
    /// # Errors
    /// When netd hands over no more sockets: the cluster's network is gone.
    pub async fn refill(
        &self,
        netd: Arc<Netd>,
        stop: CancellationToken,
    ) -> Result<(), SandboxError> {
        let end = |why: &str| {
            self.lock().failed = Some(why.to_owned());
            self.shared.filled.notify_waiters();
        };
        loop {
            if self.lock().stock.len() < LOW {
                let netd = netd.clone();
                // A panic there is a bug of the sandbox; for those who wait the network is gone.
                let made = tokio::task::spawn_blocking(move || netd.sockets(BATCH)).await;
                match made.unwrap_or(Err(SandboxError::ClusterGone)) {
                    Ok(sockets) => {
                        self.lock().stock.extend(sockets);
                        self.shared.filled.notify_waiters();
                    }
                    Err(error) => {
                        end(&error.to_string());
                        return Err(error);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    end("devenv is shutting down");
                    return Ok(());
                }
                () = self.shared.low.notified() => {}
            }
        }
    }

    /// Connects to an address of the cluster: of a pod, or a ClusterIP.
    ///
    /// # Errors
    /// What connect(2) says, or that the cluster's network is gone.
    pub async fn connect(&self, addr: SocketAddrV4) -> io::Result<TcpStream> {
        if let Some(loopback) = &self.shared.loopback {
            return loopback.connect(addr).await;
        }
        let fd = self.take().await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
        // Requests and probes are small: waiting to fill a segment would only delay them.
        socket.set_nodelay(true)?;
        socket.connect(SocketAddr::V4(addr)).await
    }

    /// Where an address of the cluster is for datagrams.
    pub fn real(&self, addr: SocketAddrV4) -> SocketAddrV4 {
        match &self.shared.loopback {
            Some(loopback) => loopback.for_datagrams(addr).unwrap_or(addr),
            None => addr,
        }
    }

    async fn take(&self) -> io::Result<OwnedFd> {
        loop {
            // Registered before looking, so that a refill in between is not missed.
            let filled = self.shared.filled.notified();
            {
                let mut state = self.lock();
                if let Some(fd) = state.stock.pop_front() {
                    if state.stock.len() < LOW {
                        self.shared.low.notify_one();
                    }
                    return Ok(fd);
                }
                if let Some(why) = &state.failed {
                    return Err(io::Error::new(
                        io::ErrorKind::NetworkDown,
                        format!("the cluster's network is gone: {why}"),
                    ));
                }
                self.shared.low.notify_one();
            }
            filled.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
