//! A server's life in a pod: it answers until SIGTERM, then lets go without
//! dropping a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// After SIGTERM the service still accepts for this long. Kubernetes removes a
/// pod from the Service and sends SIGTERM at the same moment, so some requests
/// are still on their way here; a refused connection would be a lost one. Each
/// answer meanwhile says `Connection: close`, which empties the proxies' pools
/// of kept connections in the orderly way.
pub const LINGER: Duration = Duration::from_millis(250);

/// How long requests in flight may take after that.
pub const GRACE: Duration = Duration::from_secs(15);

/// How long a connection may be silent. Longer than any load balancer keeps
/// one (Google's: 600 s), because the side that closes first must be the one
/// that sends requests: else a request meets a closing connection.
const SILENCE: Duration = Duration::from_secs(620);

/// Whether the service is on its way out; clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    /// True from SIGTERM on.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Resolves on SIGTERM or SIGINT. The handlers are set when this is called,
/// not when the future is first polled.
///
/// # Errors
/// When the handlers can't be set.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Serves HTTP/1.1 (with upgrades) on `listener` until `stop` resolves; then
/// lingers, awaits `farewell` (where long-lived connections are told to go),
/// finishes what is in flight and returns, after twice [`LINGER`] and [`GRACE`] at
/// the latest.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    drain: Drain,
    stop: impl Future<Output = ()>,
    farewell: impl Future<Output = ()>,
) {
    // Each connection holds a receiver for as long as it lives.
    let (close_tx, close_rx) = watch::channel(());
    {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            () = accept(&listener, &router, &close_rx) => {}
            () = &mut stop => {}
        }
    }
    tracing::info!("stopping");
    drain.begin();
    let _ = tokio::time::timeout(LINGER, accept(&listener, &router, &close_rx)).await;
    accept_who_waits(listener, &router, &close_rx);
    drop(close_rx);
    // Who was accepted last has the request still on the way, and idle to hyper is a
    // connection on which it has not come.
    tokio::time::sleep(LINGER).await;
    let finish = async {
        farewell.await;
        let _ = close_tx.send(());
        close_tx.closed().await;
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!(grace = ?GRACE, "requests were still in flight after the grace period");
    }
}

/// Accepts forever.
async fn accept(listener: &TcpListener, router: &Router, close_rx: &watch::Receiver<()>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client went away, or file descriptors ran out; those
                // come back when requests end, so a short pause is the cure.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        attend(stream, router, close_rx);
    }
}

/// Accepts those that the system took while nobody looked, and then listens no more:
/// who is not accepted when a listener closes is reset.
fn accept_who_waits(listener: TcpListener, router: &Router, close_rx: &watch::Receiver<()>) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, _)) = listener.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => attend(stream, router, close_rx),
            Err(error) => tracing::warn!(%error, "accepting a connection failed"),
        }
    }
}

/// Serves one connection in a task of its own.
fn attend(stream: TcpStream, router: &Router, close_rx: &watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut close_rx = close_rx.clone();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            _ = close_rx.changed() => {
                // Ends an idle connection at once, a busy one after its answer.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    });
}
