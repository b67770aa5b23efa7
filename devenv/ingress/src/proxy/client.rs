//! The client's side of a connection: its socket and what the worker's
//! sweeper must know about it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::headers::Peer;
use super::write::poll_write_pieces;

/// nginx's `client_header_timeout`, `client_body_timeout` and `send_timeout`.
const PATIENCE: u32 = 60;
/// nginx's `keepalive_timeout`.
const KEEP_ALIVE: u32 = 75;
/// nginx's `lingering_timeout`: how long a refused body is still taken.
const LINGER: Duration = Duration::from_secs(5);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The first request.
    Fresh,
    /// A further request.
    Idle,
    /// A part of the request's body.
    Body,
    /// Us.
    Busy,
}

/// Order to the task that serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// Finish the request in flight, then close.
    Finish,
    /// Close now.
    Abort,
}

/// Shared by the connection's task, its socket and the sweeper. Times are
/// whole seconds of the worker's own clock, so that no request needs a timer.
#[derive(Debug)]
pub(super) struct ClientState {
    pub peer: Peer,
    phase: AtomicU8,
    since: AtomicU32,
    /// Second + 1 since when the client takes no bytes; 0: it does.
    blocked_since: AtomicU32,
    order: AtomicU8,
    /// Wakes the connection's task when an order comes.
    pub waker: AtomicWaker,
    /// A body was refused: take what still comes before closing, or the reset
    /// would wipe out our answer on its way.
    linger: AtomicBool,
    /// Its request is being held: the socket watches for the client's going.
    held: AtomicBool,
    clock: Arc<AtomicU32>,
}

impl ClientState {
    pub fn new(peer: Peer, clock: Arc<AtomicU32>) -> Self {
        Self {
            peer,
            phase: AtomicU8::new(Phase::Fresh as u8),
            since: AtomicU32::new(clock.load(Ordering::Relaxed)),
            blocked_since: AtomicU32::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            waker: AtomicWaker::new(),
            linger: AtomicBool::new(false),
            held: AtomicBool::new(false),
            clock,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since
            .store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn busy(&self) {
        self.phase.store(Phase::Busy as u8, Ordering::Relaxed);
    }

    pub fn idle(&self) {
        self.enter(Phase::Idle);
    }

    /// The body's next part is not there yet.
    pub fn waits_for_body(&self) {
        if self.phase.load(Ordering::Relaxed) != Phase::Body as u8 {
            self.enter(Phase::Body);
        }
    }

    /// A part of the request's body may be left on the socket.
    pub fn linger(&self, may_be_left: bool) {
        self.linger.store(may_be_left, Ordering::Relaxed);
    }

    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// To be called now and then: has the socket look whether a client whose
    /// request is being held is still there.
    pub fn look_if_held(&self) {
        if self.held.load(Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    pub fn order(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::Release) < order as u8 {
            self.waker.wake();
        }
    }

    pub fn ordered(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Finish,
            _ => Order::Abort,
        }
    }

    /// Whether the client has been silent, or deaf, for too long.
    pub fn overdue(&self) -> bool {
        let now = self.clock.load(Ordering::Relaxed);
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && now.saturating_sub(blocked - 1) > PATIENCE {
            return true;
        }
        let phase = self.phase.load(Ordering::Relaxed);
        let limit = if phase == Phase::Fresh as u8 && self.ordered() == Order::Finish {
            // Nothing has come on it and we are about to go.
            0
        } else if phase == Phase::Fresh as u8 || phase == Phase::Body as u8 {
            PATIENCE
        } else if phase == Phase::Idle as u8 {
            KEEP_ALIVE
        } else {
            return false;
        };
        now.saturating_sub(self.since.load(Ordering::Relaxed)) > limit
    }

    fn wrote<T>(&self, result: &Poll<io::Result<T>>) {
        let blocked = match result {
            Poll::Ready(_) => 0,
            Poll::Pending => self.clock.load(Ordering::Relaxed) + 1,
        };
        let before = self.blocked_since.load(Ordering::Relaxed);
        if (blocked == 0) != (before == 0) {
            self.blocked_since.store(blocked, Ordering::Relaxed);
        }
    }
}

/// The client's socket.
#[derive(Debug)]
pub(super) struct ClientStream {
    stream: TcpStream,
    state: Arc<ClientState>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub fn new(stream: TcpStream, state: Arc<ClientState>) -> Self {
        Self {
            stream,
            state,
            lingering: None,
        }
    }

    /// Whether the client has ended its side, which nginx takes for going
    /// away; otherwise the task is woken when it does, except that an end
    /// behind unread bytes of a body is only seen at the next look.
    fn has_gone(&self, cx: &mut Context<'_>) -> bool {
        let _ = self.stream.poll_read_ready(cx);
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.state.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = poll_write_pieces(Pin::new(&mut self.stream), cx, bufs);
        self.state.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is nothing to flush, but this is called whenever hyper has
        // looked at the request that is being answered.
        if self.state.held.load(Ordering::Relaxed) && self.has_gone(cx) {
            self.state.order(Order::Abort);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.state.linger.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let timer = this
            .lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0u8; 16 << 10];
        loop {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end, or nobody there any more: either way it is over.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn state(clock: &Arc<AtomicU32>) -> ClientState {
        let peer = Peer {
            address: HeaderValue::from_static("192.0.2.1"),
            port: HeaderValue::from_static("80"),
        };
        ClientState::new(peer, clock.clone())
    }

    /// nginx's patience with silent and deaf clients, in seconds.
    #[rstest]
    #[case::first_request(|_: &ClientState| {}, Some(60))]
    #[case::further_request(|s: &ClientState| { s.busy(); s.idle(); }, Some(75))]
    #[case::body(|s: &ClientState| { s.busy(); s.waits_for_body(); }, Some(60))]
    #[case::deaf(|s: &ClientState| { s.busy(); s.wrote::<usize>(&Poll::Pending); }, Some(60))]
    #[case::ours_to_answer(|s: &ClientState| s.busy(), None)]
    #[case::deaf_no_more(|s: &ClientState| {
        s.busy();
        s.wrote::<usize>(&Poll::Pending);
        s.wrote(&Poll::Ready(Ok(1)));
    }, None)]
    #[case::never_asked_and_we_go(|s: &ClientState| s.order(Order::Finish), Some(0))]
    fn overdue(#[case] happens: fn(&ClientState), #[case] limit: Option<u32>) {
        let clock = Arc::new(AtomicU32::new(1000));
        let state = state(&clock);
        happens(&state);
        let Some(limit) = limit else {
            clock.store(100_000, Ordering::Relaxed);
            assert!(!state.overdue());
            return;
        };
        clock.store(1000 + limit, Ordering::Relaxed);
        assert!(!state.overdue());
        clock.store(1001 + limit, Ordering::Relaxed);
        assert!(state.overdue());
    }

    #[test]
    fn an_order_is_never_taken_back() {
        let state = state(&Arc::default());
        state.order(Order::Abort);
        state.order(Order::Finish);
        assert_eq!(state.ordered(), Order::Abort);
    }
}
