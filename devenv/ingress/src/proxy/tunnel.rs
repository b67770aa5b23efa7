//! After 101: bytes both ways until one side ends, or both are silent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::response_body::Guard;
use super::upstream::Conn;
use super::worker::Worker;

/// A connection that has switched protocols.
pub(super) struct Tunnel {
    pub on_client: OnUpgrade,
    pub on_endpoint: OnUpgrade,
    /// Must be driven until it hands over its socket.
    pub connection: Box<Conn>,
    /// `proxy-read-timeout`: with no byte either way for so long, it ends.
    pub patience: Duration,
    /// The request is in flight as long as the tunnel is.
    pub guard: Guard,
}

impl Tunnel {
    /// Runs beside the client's connection, which is about to hand over its
    /// socket; counted as one of the worker's connections.
    pub fn spawn(self, worker: &Arc<Worker>) {
        let counted = worker.enter();
        tokio::spawn(async move {
            let _counted = counted;
            if let Err(error) = self.run().await {
                debug!(%error, "a tunnel broke");
            }
        });
    }

    async fn run(self) -> io::Result<()> {
        let Self {
            on_client,
            mut on_endpoint,
            mut connection,
            patience,
            guard,
        } = self;
        let on_endpoint = std::future::poll_fn(|cx| {
            connection.drive(cx);
            Pin::new(&mut on_endpoint).poll(cx)
        });
        let (client, endpoint) =
            futures_util::try_join!(on_client, on_endpoint).map_err(io::Error::other)?;
        let activity = Activity {
            start: Instant::now(),
            last: Arc::default(),
        };
        let mut client = Watched::new(client, &activity);
        let mut endpoint = Watched::new(endpoint, &activity);
        let result = tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut endpoint) => copied.map(drop),
            () = activity.ceases_for(patience) => Ok(()),
        };
        drop(guard);
        result
    }
}

/// When a byte was last seen.
#[derive(Debug, Clone)]
struct Activity {
    start: Instant,
    /// Milliseconds since `start`.
    last: Arc<AtomicU64>,
}

impl Activity {
    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    async fn ceases_for(&self, patience: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= patience {
                return;
            }
            tokio::time::sleep_until((last + patience).into()).await;
        }
    }
}

struct Watched {
    io: TokioIo<Upgraded>,
    activity: Activity,
}

impl Watched {
    fn new(io: Upgraded, activity: &Activity) -> Self {
        Self {
            io: TokioIo::new(io),
            activity: activity.clone(),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.activity.touch();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if result.is_ready() {
            self.activity.touch();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
