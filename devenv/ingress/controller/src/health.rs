//! The answers to the kubelet's probes: `/healthz` while the process lives,
//! `/readyz` while it serves a whole table.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::options::ControllerError;

/// How long a client may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the probes ask for; clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probed {
    ready: Arc<AtomicBool>,
}

impl Probed {
    /// What `/readyz` says from now on; false at first.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, &'static str) {
        match path {
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only\n")
            }
            "/healthz" => (StatusCode::OK, "ok\n"),
            "/readyz" if self.ready.load(Ordering::Acquire) => (StatusCode::OK, "ok\n"),
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: no whole table is in force, or it is stopping\n",
            ),
            _ => (StatusCode::NOT_FOUND, "there are /healthz and /readyz\n"),
        }
    }
}

/// A bound listener that answers probes once it is [served](Health::serve).
#[derive(Debug)]
pub(crate) struct Health {
    listener: TcpListener,
    address: SocketAddr,
    probed: Probed,
}

impl Health {
    /// Binds; port 0 is any free one.
    pub fn bind(address: SocketAddr) -> Result<Health, ControllerError> {
        let failed = |source| ControllerError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Health {
            address: listener.local_addr().map_err(failed)?,
            listener,
            probed: Probed::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers by.
    pub fn probed(&self) -> Probed {
        self.probed.clone()
    }

    /// Answers until `ended`; connections that are open then are closed.
    pub async fn serve(self, ended: CancellationToken) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "probes cannot be answered");
                return;
            }
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = ended.cancelled() => return,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, self.probed.clone()));
                }
                Err(error) => {
                    debug!(%error, "a probe's connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, probed: Probed) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (status, text) = probed.answer(request.method(), request.uri().path());
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a probe's connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_only_while_it_is() {
        let probed = Probed::default();
        let status = |path: &str| probed.answer(&Method::GET, path).0.as_u16();
        assert_eq!((status("/healthz"), status("/readyz")), (200, 503));
        probed.set_ready(true);
        assert_eq!((status("/healthz"), status("/readyz")), (200, 200));
        probed.set_ready(false);
        assert_eq!((status("/healthz"), status("/readyz")), (200, 503));
        assert_eq!(status("/"), 404);
        assert_eq!(probed.answer(&Method::POST, "/healthz").0.as_u16(), 405);
    }
}
