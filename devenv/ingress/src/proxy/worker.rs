//! One thread with its own event loop: accepts, serves, sweeps, drains.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::Connector;
use super::client::{ClientState, ClientStream, Order};
use super::forward;
use super::headers::Peer;
use super::hold::Holding;
use super::live::Live;
use super::pool::Pool;
use super::stats::Registry;
use crate::table::mix;

/// nginx's `large_client_header_buffers`, 4 of 8 KiB.
const MAX_HEAD: usize = 32 << 10;
/// Bytes a connection reads ahead of what is passed on.
const MAX_BUFFER: usize = 64 << 10;

/// What all workers share.
pub(super) struct Shared {
    pub connector: Arc<dyn Connector>,
    pub registry: Registry,
    pub holding: Holding,
    /// All of them; weak, since each holds this.
    pub workers: OnceLock<Vec<Weak<Worker>>>,
}

/// What a worker is told to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Run,
    /// Accept no more, finish what runs, at most for this long.
    Drain(Duration),
}

/// A connection accepted by one worker and served by another.
pub(super) struct Handoff {
    stream: StdStream,
    peer: SocketAddr,
}

/// One worker thread's state.
pub(super) struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub live: ArcSwap<Live>,
    /// Rung when `live` was replaced.
    pub published: Notify,
    pub pool: Pool,
    clients: Mutex<HashMap<u64, Arc<ClientState>>>,
    /// Connections, tunnels included.
    active: AtomicUsize,
    /// Rung when `active` falls to 0.
    quiet: Notify,
    /// Rung when there is something to sweep again.
    stir: Notify,
    /// Whole seconds, counted while there is anything to watch.
    clock: Arc<AtomicU32>,
    handoff: mpsc::UnboundedSender<Handoff>,
    next_client: AtomicU64,
    ids: [u64; 2],
    next_id: AtomicU64,
}

/// Counts one connection for as long as it lives.
pub(super) struct Counted(Arc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.notify_one();
        }
    }
}

impl Worker {
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        live: Live,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Handoff>) {
        let (handoff_tx, handoff_rx) = mpsc::unbounded_channel();
        let pool = Pool::default();
        pool.keep_only(&live.addresses());
        let worker = Arc::new(Self {
            index,
            shared,
            live: ArcSwap::from_pointee(live),
            published: Notify::new(),
            pool,
            clients: Mutex::default(),
            active: AtomicUsize::new(0),
            quiet: Notify::new(),
            stir: Notify::new(),
            clock: Arc::default(),
            handoff: handoff_tx,
            next_client: AtomicU64::new(0),
            ids: [rand::random(), rand::random()],
            next_id: AtomicU64::new(0),
        });
        (worker, handoff_rx)
    }

    pub fn publish(&self, live: &Live) {
        self.live.store(Arc::new(live.clone()));
        self.pool.keep_only(&live.addresses());
        self.published.notify_waiters();
    }

    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Counts a connection until the result is dropped.
    pub fn enter(self: &Arc<Self>) -> Counted {
        self.active.fetch_add(1, Ordering::AcqRel);
        Counted(self.clone())
    }

    /// 32 hexadecimal digits that no other request has, as nginx's
    /// `$request_id`.
    pub fn request_id(&self) -> HeaderValue {
        let n = self.next_id.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.ids.map(|key| mix(key ^ mix(n ^ key.rotate_left(32))));
        let mut text = [0u8; 32];
        for (half, number) in text.chunks_exact_mut(16).zip([high, low]) {
            for (digit, nibble) in half.iter_mut().rev().zip(0..) {
                *digit = b"0123456789abcdef"[((number >> (nibble * 4)) & 15) as usize];
            }
        }
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
            .unwrap_or(HeaderValue::from_static("-"))
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<ClientState>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's whole life. Reports through `ready` once it accepts.
    pub fn run(
        self: &Arc<Self>,
        listeners: Vec<StdListener>,
        mut handoff: mpsc::UnboundedReceiver<Handoff>,
        mut command: watch::Receiver<Command>,
        ready: &std::sync::mpsc::Sender<io::Result<()>>,
        ended: oneshot::Sender<()>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        runtime.block_on(async {
            let listeners: io::Result<Vec<_>> =
                listeners.into_iter().map(TcpListener::from_std).collect();
            let listeners = match listeners {
                Ok(listeners) => listeners,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let (stop_tx, stop_rx) = watch::channel(false);
            let accepting: Vec<_> = listeners
                .into_iter()
                .map(|listener| tokio::spawn(self.clone().accept(listener, stop_rx.clone())))
                .collect();
            tokio::spawn(self.clone().sweep());
            let _ = ready.send(Ok(()));
            let grace = loop {
                tokio::select! {
                    Some(handed) = handoff.recv() => self.take(handed),
                    changed = command.changed() => {
                        let now = *command.borrow_and_update();
                        match (changed, now) {
                            (Ok(()), Command::Run) => {}
                            (Ok(()), Command::Drain(grace)) => break grace,
                            // The proxy was dropped without being drained.
                            (Err(_), _) => break Duration::ZERO,
                        }
                    }
                }
            };
            stop_tx.send_replace(true);
            let drained = async {
                futures_util::future::join_all(accepting).await;
                self.drain(&mut handoff).await;
            };
            // Whatever is left then ends with the runtime.
            let _ = tokio::time::timeout(grace, drained).await;
        });
        drop(runtime);
        let _ = ended.send(());
    }

    /// Finishes requests in flight and closes idle connections.
    async fn drain(self: &Arc<Self>, handoff: &mut mpsc::UnboundedReceiver<Handoff>) {
        // Another worker that still accepts keeps what it has from now on.
        handoff.close();
        while let Ok(handed) = handoff.try_recv() {
            self.take(handed);
        }
        for client in self.clients().values() {
            client.order(Order::Finish);
        }
        while self.active() > 0 {
            self.quiet.notified().await;
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = stop.changed() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.place(stream, peer),
                // Out of file descriptors: they come back as connections end.
                Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                    warn!(%error, "cannot accept connections for now");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => debug!(%error, "a connection ended before it was accepted"),
            }
        }
        // Connections that the kernel has already accepted would be reset.
        while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
            self.place(stream, peer);
        }
    }

    /// Gives a connection to the least busy worker: the kernel wakes whichever
    /// thread is first, which may always be the same one.
    fn place(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let least = self
            .shared
            .workers
            .get()
            .into_iter()
            .flatten()
            .filter_map(Weak::upgrade)
            .min_by_key(|worker| worker.active());
        match least {
            Some(other) if other.active() < self.active() => match stream.into_std() {
                Ok(stream) => {
                    let handoff = Handoff { stream, peer };
                    if let Err(back) = other.handoff.send(handoff) {
                        self.take(back.0);
                    }
                }
                Err(error) => debug!(%error, "cannot hand a connection over"),
            },
            _ => self.serve(stream, peer),
        }
    }

    fn take(self: &Arc<Self>, handed: Handoff) {
        match TcpStream::from_std(handed.stream) {
            Ok(stream) => self.serve(stream, handed.peer),
            Err(error) => debug!(%error, "cannot take a connection over"),
        }
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // As with endpoints: without the option it works too.
        let _ = stream.set_nodelay(true);
        let port = stream.local_addr().map_or(80, |address| address.port());
        let address = peer.ip().to_canonical().to_string();
        let Ok(address) = HeaderValue::try_from(address) else {
            return;
        };
        let peer = Peer {
            address,
            port: HeaderValue::from(port),
        };
        let state = Arc::new(ClientState::new(peer, self.clock.clone()));
        let counted = self.enter();
        let id = self.next_client.fetch_add(1, Ordering::Relaxed);
        self.clients().insert(id, state.clone());
        self.stir.notify_one();
        let worker = self.clone();
        tokio::spawn(async move {
            let _counted = counted;
            worker.converse(stream, &state).await;
            worker.clients().remove(&id);
        });
    }

    async fn converse(self: &Arc<Self>, stream: TcpStream, state: &Arc<ClientState>) {
        let io = TokioIo::new(ClientStream::new(stream, state.clone()));
        let service = service_fn(|request| forward::handle(self.clone(), state.clone(), request));
        let connection = http1::Builder::new()
            // A client may end its side after the request and still wait.
            .half_close(true)
            .max_headers(128)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut finishing = false;
        let result = std::future::poll_fn(|cx| {
            state.waker.register(cx.waker());
            match state.ordered() {
                Order::Serve => {}
                Order::Finish if finishing => {}
                Order::Finish => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                Order::Abort => return Poll::Ready(Ok(())),
            }
            connection.as_mut().poll(cx)
        })
        .await;
        if let Err(error) = result {
            debug!(%error, "a client's connection broke");
        }
    }

    /// Once a second, as long as there is anything to watch: ends connections
    /// that have been silent for too long and closes old idle ones.
    async fn sweep(self: Arc<Self>) {
        loop {
            let pooled = self.pool.sweep();
            if !pooled && self.active() == 0 {
                self.stir.notified().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.clock.fetch_add(1, Ordering::Relaxed);
            for client in self.clients().values() {
                if client.overdue() {
                    client.order(Order::Abort);
                }
                client.look_if_held();
            }
        }
    }
}
