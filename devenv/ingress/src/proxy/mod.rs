//! The data plane: listeners in, endpoints out.

mod client;
mod forward;
mod headers;
mod hold;
mod live;
mod pages;
mod pool;
mod request_body;
mod response_body;
mod stats;
mod tunnel;
mod upstream;
mod worker;
mod write;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use crate::table::Table;
pub use hold::HoldLimits;
use live::Live;
pub use stats::{ServiceStats, Stats};
use worker::{Command, Shared, Worker};

/// How endpoints are reached: they may live in another network namespace.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Connects to an endpoint. Called inside the proxy's own single-threaded
    /// runtimes, to one of which the stream must belong; cancelled when
    /// `proxy-connect-timeout` is over.
    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream>;
}

/// Connects from this process's own network.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

#[async_trait]
impl Connector for Direct {
    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(addr).await
    }
}

/// What [`Proxy::start`] needs.
pub struct ProxyOptions {
    /// Bound and listening; each is served by every thread.
    pub listeners: Vec<TcpListener>,
    /// The way to endpoints.
    pub connector: Arc<dyn Connector>,
    /// Of the split's order; the same seed deals the same.
    pub seed: u64,
    /// Threads, each with an event loop of its own; at least 1.
    pub threads: usize,
    /// Bounds of waiting for endpoints that are on the way.
    pub hold: HoldLimits,
}

impl ProxyOptions {
    /// Direct connections, a random seed, and two threads or as many as there
    /// are cores.
    pub fn new(listeners: Vec<TcpListener>) -> Self {
        Self {
            listeners,
            connector: Arc::new(Direct),
            seed: rand::random(),
            threads: thread::available_parallelism().map_or(1, |cores| cores.get().min(2)),
            hold: HoldLimits::default(),
        }
    }
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listener could not be prepared.
    #[error("cannot use listener {address}: it must be a bound, listening TCP socket")]
    Listener {
        /// Its address, or `unknown`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A worker thread did not come up.
    #[error(
        "cannot start worker thread {index}: the limits on threads or open files may be too low"
    )]
    Thread {
        /// Which one, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// A running proxy; dropping it ends it at once, [`Proxy::drain`] in peace.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<Arc<Worker>>,
    /// The table in force, and the lock that publishers take turns by.
    current: Mutex<Live>,
    seed: u64,
    command: watch::Sender<Command>,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
}

impl Proxy {
    /// Starts serving; when it returns, every listener is being accepted from.
    ///
    /// # Errors
    /// A listener that is no listening socket, or threads that cannot start.
    pub fn start(options: ProxyOptions, table: Table) -> Result<Self, ProxyError> {
        let count = options.threads.max(1);
        let shared = Arc::new(Shared {
            connector: options.connector,
            registry: stats::Registry::new(count),
            holding: hold::Holding::new(options.hold),
            workers: OnceLock::new(),
        });
        let live = Live::new(table, None, &shared.registry, options.seed);
        let (command, commands) = watch::channel(Command::Run);
        let mut workers = Vec::with_capacity(count);
        let mut prepared = Vec::with_capacity(count);
        for index in 0..count {
            let listeners = share(&options.listeners)?;
            let (worker, handoff) = Worker::new(index, shared.clone(), live.clone());
            workers.push(worker.clone());
            prepared.push((worker, handoff, listeners));
        }
        // Set exactly once, here.
        let _ = shared
            .workers
            .set(workers.iter().map(Arc::downgrade).collect());
        let mut threads = Vec::with_capacity(count);
        for (index, (worker, handoff, listeners)) in prepared.into_iter().enumerate() {
            let failed = |source| ProxyError::Thread { index, source };
            let (ready_tx, ready_rx) = std::sync::mpsc::channel();
            let (ended_tx, ended_rx) = oneshot::channel();
            let commands = commands.clone();
            let thread = thread::Builder::new()
                .name(format!("ingress-{index}"))
                .spawn(move || worker.run(listeners, handoff, commands, &ready_tx, ended_tx))
                .map_err(failed)?;
            ready_rx
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
                .map_err(failed)?;
            threads.push((thread, ended_rx));
        }
        Ok(Self {
            shared,
            workers,
            current: Mutex::new(live),
            seed: options.seed,
            command,
            threads,
        })
    }

    /// Puts a table in force: requests that start after this returns use it,
    /// those in flight finish with the old one. Idle connections to endpoints
    /// that are gone are closed.
    pub fn publish(&self, table: Table) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let live = Live::new(table, Some(&current), &self.shared.registry, self.seed);
        for worker in &self.workers {
            worker.publish(&live);
        }
        *current = live;
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let connections: usize = self.workers.iter().map(|worker| worker.active()).sum();
        self.shared.registry.snapshot(connections as u64)
    }

    /// Stops accepting, closes idle connections and lets requests in flight
    /// finish, at most for `grace`; what is left then, tunnels above all, is
    /// cut off.
    pub async fn drain(mut self, grace: Duration) {
        self.command.send_replace(Command::Drain(grace));
        for (thread, ended) in std::mem::take(&mut self.threads) {
            let _ = ended.await;
            // It has nothing left to do: this takes microseconds.
            let _ = thread.join();
        }
    }
}

/// The same sockets again, for another thread.
fn share(listeners: &[TcpListener]) -> Result<Vec<TcpListener>, ProxyError> {
    listeners
        .iter()
        .map(|listener| {
            let shared = listener.try_clone()?;
            shared.set_nonblocking(true)?;
            Ok(shared)
        })
        .zip(listeners)
        .map(|(shared, listener)| {
            shared.map_err(|source| ProxyError::Listener {
                address: listener
                    .local_addr()
                    .map_or_else(|_| "unknown".into(), |address| address.to_string()),
                source,
            })
        })
        .collect()
}
