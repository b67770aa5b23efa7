//! The HTTPS server, and the same API without a network.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use hyper::body::{Body, Bytes, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ApiError, Context,
    body::ApiBody,
    dispatch, kubeconfig,
    list::Chunks,
    logs::LogSource,
    metrics::MetricsSource,
    status::Failure,
    tls::{self, Identity},
};
use crate::{net::well_known::API_IN_CLUSTER, store::Store};

/// Version of Kubernetes whose API this is.
const SERVER_VERSION: &str = "v1.34.0-devenv";

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers under way may take when the server stops; watches are ended at once.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a connection could not be accepted (out of file descriptors): trying again at once
/// would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the server needs to know.
pub struct ApiOptions {
    /// Address to listen on, of loopback unless the user asked otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A listener in the cluster's own network, where pods reach the API; bound by the caller.
    pub in_cluster: Option<std::net::TcpListener>,
    /// Where the kubeconfig goes; written with mode 0600.
    pub kubeconfig: PathBuf,
    /// Folder for certificates and token; made with mode 0700.
    pub tls_dir: PathBuf,
    /// Name of the project: the context is `devenv-PROJECT`.
    pub project: String,
    /// The context's namespace.
    pub namespace: String,
    /// Who reads the logs of containers.
    pub logs: Arc<dyn LogSource>,
    /// Who measures what pods and the machine use.
    pub metrics: Arc<dyn MetricsSource>,
    /// `gitVersion` of `/version`; `None` for the default, `v1.34.0-devenv`.
    pub server_version: Option<String>,
}

/// The running API server.
#[derive(Debug)]
pub struct ApiServer {
    context: Arc<Context>,
    address: SocketAddr,
    accepting: Vec<JoinHandle<()>>,
}

impl ApiServer {
    /// Listens, writes the kubeconfig and serves.
    ///
    /// # Errors
    /// The address is taken, or a file cannot be written.
    pub async fn start(store: Store, options: ApiOptions) -> Result<ApiServer, ApiError> {
        let listener =
            TcpListener::bind(options.listen)
                .await
                .map_err(|source| ApiError::Listen {
                    address: options.listen,
                    source,
                })?;
        let address = listener.local_addr().map_err(|source| ApiError::Listen {
            address: options.listen,
            source,
        })?;
        let identity = Identity::load_or_create(&options.tls_dir, address.ip())?;
        let acceptor = TlsAcceptor::from(identity.server_config()?);
        let text = kubeconfig::text(&options.project, &options.namespace, address, &identity);
        tls::write_private(&options.kubeconfig, text.as_bytes())?;

        let context = Arc::new(Context {
            store,
            logs: options.logs,
            metrics: options.metrics,
            version: options
                .server_version
                .unwrap_or_else(|| SERVER_VERSION.to_owned()),
            chunks: Chunks::default(),
            closing: CancellationToken::new(),
        });
        let service = Guarded {
            token: format!("Bearer {}", identity.token).into(),
            inner: ApiService {
                context: context.clone(),
            },
        };
        let in_cluster = options
            .in_cluster
            .map(TcpListener::from_std)
            .transpose()
            .map_err(|source| ApiError::Listen {
                address: API_IN_CLUSTER.into(),
                source,
            })?;
        let accepting = [Some(listener), in_cluster]
            .into_iter()
            .flatten()
            .map(|listener| {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(accept(listener, acceptor, service, context.closing.clone()))
            })
            .collect();
        tracing::debug!(%address, "API server listens");
        Ok(ApiServer {
            context,
            address,
            accepting,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The API without a network and already authenticated, such as `kube::Client::new` takes it.
    pub fn service(&self) -> ApiService {
        ApiService {
            context: self.context.clone(),
        }
    }

    /// Ends watches and followed logs, lets other answers finish and closes the connections.
    pub async fn shutdown(self) {
        self.context.closing.cancel();
        for accepting in self.accepting {
            if let Err(e) = accepting.await {
                tracing::error!(error = %e, "the API server ended badly");
            }
        }
    }
}

/// Accepts connections until `closing`, then drains them.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    service: Guarded,
    closing: CancellationToken,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new());
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection to the API server could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Watches send small events that someone waits for; if it cannot be set, they come later.
        let _ = stream.set_nodelay(true);
        let (acceptor, http, service) = (acceptor.clone(), http.clone(), service.clone());
        let (watcher, closing) = (graceful.watcher(), closing.clone());
        connections.spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let stream = tokio::select! {
                () = closing.cancelled() => return,
                handshake = handshake => match handshake {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(e)) => return tracing::debug!(error = %e, "TLS handshake failed"),
                    Err(_) => return tracing::debug!("TLS handshake took too long"),
                },
            };
            let service = TowerToHyperService::new(service);
            let connection = http
                .serve_connection(TokioIo::new(stream), service)
                .into_owned();
            if let Err(e) = watcher.watch(connection).await {
                tracing::debug!(error = %e, "a connection to the API server broke");
            }
        });
    }
    drop(listener);
    connections.close();
    let drained = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::debug!("some connections to the API server did not end in time");
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<ApiBody>, Infallible>> + Send>>;

/// The API as a service; every request through it is allowed.
#[derive(Clone, Debug)]
pub struct ApiService {
    context: Arc<Context>,
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let context = self.context.clone();
        Box::pin(async move { Ok(dispatch::dispatch(&context, request).await) })
    }
}

/// [`ApiService`] for those who show the token.
#[derive(Clone)]
struct Guarded {
    token: Arc<str>,
    inner: ApiService,
}

impl tower::Service<Request<Incoming>> for Guarded {
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answer {
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .map_or(&b""[..], |v| v.as_bytes());
        let allowed = tls::same_secret(shown, self.token.as_bytes());
        // Whether the server is there is no secret.
        if allowed || dispatch::is_public(request.uri().path()) {
            return self.inner.call(request);
        }
        Box::pin(async { Ok(Failure::unauthorized().into_response()) })
    }
}
