//! A connection to an endpoint, driven by whoever uses it.
//!
//! hyper's client connection is a future that must be polled for anything to
//! happen. Instead of a task of its own, which would cost two task switches a
//! request, the request in flight polls it, then the response's body does.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::request_body::RequestBody;
use super::write::poll_write_pieces;

/// After the end of a connection that gave no answer it is looked whether a reset
/// follows: this often, at first after [`RESET_DISTANCE`], later after longer times,
/// for about a quarter of a second in all. The program that ends a connection may be
/// kept from its processor between the two steps.
const RESET_LOOKS: u32 = 40;
const RESET_DISTANCE: Duration = Duration::from_millis(1);

/// How long to wait before the look after `looks` others.
fn reset_distance(looks: u32) -> Duration {
    RESET_DISTANCE * (1 + looks / 4)
}

/// What the socket tells about the request in flight.
#[derive(Debug)]
pub(super) struct Flow {
    /// Look whether the peer has closed before anything is written.
    probe: AtomicBool,
    /// A byte of the request has been written.
    asked: AtomicBool,
    /// A byte of the response has come.
    answered: AtomicBool,
    /// The peer's kernel has refused our bytes with a reset: its program
    /// cannot have read all of the request.
    refused: AtomicBool,
    /// Microseconds from `start` to the last byte in either direction.
    progress: AtomicU64,
    start: Instant,
}

impl Flow {
    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.progress.store(now, Ordering::Relaxed);
    }

    fn last_progress(&self) -> Instant {
        self.start + Duration::from_micros(self.progress.load(Ordering::Relaxed))
    }

    fn failed(&self, error: &io::Error) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ) {
            self.refused.store(true, Ordering::Relaxed);
        }
    }
}

/// The endpoint's socket.
#[derive(Debug)]
struct EndpointStream {
    stream: TcpStream,
    flow: Arc<Flow>,
    /// Running once the peer has ended the connection without an answer.
    look: Option<Pin<Box<Sleep>>>,
    looks: u32,
}

impl EndpointStream {
    /// The peer has ended the connection. If it owes an answer, it matters
    /// whether a reset follows: a program that shuts down closes its idle
    /// connections in two steps, and a request that arrives between the two is
    /// never read, which its kernel tells by a reset a moment later. A program
    /// that had read the request and then ended leaves no reset behind.
    ///
    /// The end itself keeps the socket readable, so there is no event to wait
    /// for: hence a few looks, on a path that is rarely taken.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Ok(Some(error)) = self.stream.take_error() {
                self.flow.failed(&error);
            }
            let owes = self.flow.asked.load(Ordering::Relaxed)
                && !self.flow.answered.load(Ordering::Relaxed);
            if !owes || self.flow.refused.load(Ordering::Relaxed) || self.looks == RESET_LOOKS {
                return Poll::Ready(Ok(()));
            }
            let distance = reset_distance(self.looks);
            let look = self
                .look
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(distance)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
            self.looks += 1;
        }
    }
}

impl AsyncRead for EndpointStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flow.probe.swap(false, Ordering::Relaxed) {
            // Asked of the kernel itself: the event loop may not have heard of
            // the close yet. Any byte would be one nobody asked for, which
            // makes the connection as unusable as its end does.
            match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
        if self.look.is_some() {
            return self.poll_end(cx);
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                self.flow.answered.store(true, Ordering::Relaxed);
                self.flow.touch();
            }
            Poll::Ready(Ok(())) => return self.poll_end(cx),
            Poll::Ready(Err(error)) => self.flow.failed(error),
            Poll::Pending => {}
        }
        result
    }
}

impl EndpointStream {
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(_)) => {
                self.flow.asked.store(true, Ordering::Relaxed);
                self.flow.touch();
            }
            Poll::Ready(Err(error)) => self.flow.failed(error),
            Poll::Pending => {}
        }
    }
}

impl AsyncWrite for EndpointStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = poll_write_pieces(Pin::new(&mut self.stream), cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// hyper's connection, whose type has no public name.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// One connection; nothing happens on it unless it is polled.
pub(super) struct Conn {
    pub address: SocketAddr,
    sender: SendRequest<RequestBody>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    flow: Arc<Flow>,
    idle_since: Instant,
}

/// Why a request got no response.
pub(super) enum Failure {
    /// Nothing of it was written; here it is again.
    Unsent(Box<Request<RequestBody>>),
    /// The endpoint was silent for too long.
    TimedOut,
    /// The connection broke. `unread`: the endpoint provably did not read the
    /// whole request.
    Broken {
        unread: bool,
        error: Option<hyper::Error>,
    },
}

impl Conn {
    /// A new connection over a connected socket.
    pub async fn new(stream: TcpStream, address: SocketAddr) -> Result<Self, hyper::Error> {
        // Nagle's algorithm would hold back the end of a request; a socket
        // that refuses the option still works.
        let _ = stream.set_nodelay(true);
        let now = Instant::now();
        let flow = Arc::new(Flow {
            probe: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            start: now,
        });
        let stream = TokioIo::new(EndpointStream {
            stream,
            flow: flow.clone(),
            look: None,
            looks: 0,
        });
        let (sender, driver) = http1::Builder::new()
            .max_headers(256)
            .handshake(stream)
            .await?;
        Ok(Self {
            address,
            sender,
            driver: Some(Box::pin(driver.with_upgrades())),
            flow,
            idle_since: now,
        })
    }

    /// Lets the connection do what it can.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Ended as far as is known without asking the kernel.
    pub fn is_over(&self) -> bool {
        self.driver.is_none()
    }

    pub fn rest(&mut self) {
        self.idle_since = Instant::now();
    }

    pub fn idle_for(&self) -> Duration {
        self.idle_since.elapsed()
    }

    /// To be called before a connection that was at rest is used again.
    /// `probe`: ask the kernel whether the peer has closed it, for a request
    /// that cannot be sent a second time. Others do without the system call:
    /// the event loop knows of a close soon enough, and the rare request in
    /// between is refused with a reset and sent again.
    pub fn wake_up(&mut self, probe: bool) {
        self.flow.asked.store(false, Ordering::Relaxed);
        self.flow.answered.store(false, Ordering::Relaxed);
        self.flow.probe.store(probe, Ordering::Relaxed);
    }

    /// Sends a request and waits for the response's head.
    ///
    /// `patience` is how long the endpoint may let no byte through in either
    /// direction; `waiting_for_client` tells whether it is the client who has
    /// not sent more of the body, for which the endpoint is not to blame.
    pub async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        patience: Duration,
        waiting_for_client: impl Fn() -> bool,
    ) -> Result<Response<Incoming>, Failure> {
        self.flow.touch();
        let mut response = pin!(self.sender.try_send_request(request));
        let mut timer = pin!(tokio::time::sleep(patience));
        let driver = &mut self.driver;
        let flow = &self.flow;
        let result = std::future::poll_fn(|cx| {
            if let Some(running) = driver
                && running.as_mut().poll(cx).is_ready()
            {
                // Dropping it settles the response, one way or the other.
                *driver = None;
            }
            if let Poll::Ready(result) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            while timer.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                let last = if waiting_for_client() {
                    now
                } else {
                    flow.last_progress()
                };
                if now.duration_since(last) >= patience {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset((last + patience).into());
            }
            Poll::Pending
        })
        .await;
        match result {
            Some(Ok(response)) => Ok(response),
            None => Err(Failure::TimedOut),
            Some(Err(mut failure)) => Err(match failure.take_message() {
                Some(request) => Failure::Unsent(Box::new(request)),
                None => Failure::Broken {
                    unread: self.flow.refused.load(Ordering::Relaxed)
                        && !self.flow.answered.load(Ordering::Relaxed),
                    error: Some(failure.into_error()),
                },
            }),
        }
    }
}
