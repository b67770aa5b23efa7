//! Backends that behave and misbehave, clients, and tables that lead to them.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use devenv_ingress::{Inputs, Proxy, ProxyOptions, Table, compile};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub type Body = BoxBody<Bytes, std::io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// A well-behaved HTTP server; counts its requests.
pub struct Backend {
    pub addr: SocketAddr,
    pub hits: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = watch::channel(false);
        let answer = Arc::new(answer);
        let counter = hits.clone();
        let ended = tokio::spawn(async move {
            let mut stopping = stopped.clone();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = stopping.changed() => break,
                };
                let (answer, counter, mut stopping) =
                    (answer.clone(), counter.clone(), stopped.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(connection);
                    tokio::select! {
                        _ = connection.as_mut() => return,
                        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
            drop(listener);
            connections.join_all().await;
        });
        Self {
            addr,
            hits,
            stop,
            ended,
        }
    }

    /// Answers with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            Response::new(full(name))
        })
        .await
    }

    /// Answers with what it was asked, as JSON.
    pub async fn mirror() -> Self {
        Self::start(|request: Request<Incoming>| async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let headers: Vec<(String, String)> = parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            let seen = json!({
                "method": parts.method.as_str(),
                "target": parts.uri.to_string(),
                "version": format!("{:?}", parts.version),
                "headers": headers,
                "body": String::from_utf8_lossy(&body),
            });
            Response::new(full(seen.to_string()))
        })
        .await
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// As a pod stops on SIGTERM: finishes what it has, takes nothing more.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.ended.await.unwrap();
    }
}

/// A server that does with each connection what the test says.
pub async fn raw<F, R>(serve: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (addr, connections)
}

/// Reads up to the blank line and a body of the given Content-Length.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse::<usize>().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
        }
    }
}

/// An address on which nothing listens.
pub fn refused() -> SocketAddr {
    StdListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn objects<T: DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
    values
        .into_iter()
        .map(|value| serde_json::from_value(value).unwrap())
        .collect()
}

/// A service's endpoints and its Ingress's annotations.
pub type Annotated<'a> = (&'a [SocketAddr], &'a [(&'a str, &'a str)]);

/// `/` to `main`, with annotations by their short names; `canary` gets the
/// same path with annotations of its own.
pub fn routes(main: Annotated<'_>, canary: Option<Annotated<'_>>) -> Table {
    routes_while(&[], main, canary)
}

/// [`routes`] while endpoints of these services are on the way.
pub fn routes_while(coming: &[&str], main: Annotated<'_>, canary: Option<Annotated<'_>>) -> Table {
    let annotated = |pairs: &[(&str, &str)]| -> Value {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    format!("nginx.ingress.kubernetes.io/{name}"),
                    Value::from(*value),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let ingress = |name: &str, annotations: &[(&str, &str)]| {
        json!({
            "metadata": {"name": name, "namespace": "n", "annotations": annotated(annotations)},
            "spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": name, "port": {"number": 80}}}}]}}]},
        })
    };
    let service = |name: &str| json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"ports": [{"port": 80}]}});
    let slice = |name: &str, addr: &SocketAddr| {
        json!({
            "addressType": "IPv4",
            "metadata": {"namespace": "n", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"port": addr.port()}],
            "endpoints": [{"addresses": [addr.ip().to_string()], "conditions": {"ready": true}}],
        })
    };
    let mut ingresses = vec![ingress("main", main.1)];
    let mut slices: Vec<Value> = main.0.iter().map(|addr| slice("main", addr)).collect();
    if let Some((endpoints, annotations)) = canary {
        let mut all = vec![("canary", "true")];
        all.extend(annotations);
        ingresses.push(ingress("canary", &all));
        slices.extend(endpoints.iter().map(|addr| slice("canary", addr)));
    }
    let compiled = compile(&Inputs {
        ingresses: &objects(ingresses),
        classes: &[],
        services: &objects(vec![service("main"), service("canary")]),
        endpoint_slices: &objects(slices),
        coming: &coming
            .iter()
            .map(|name| ("n".to_owned(), (*name).to_owned()))
            .collect::<Vec<_>>(),
    });
    assert_eq!(compiled.warnings, []);
    compiled.table
}

/// `/` to these endpoints.
pub fn to(main: &[SocketAddr]) -> Table {
    routes((main, &[]), None)
}

/// `/` to these endpoints, with more on the way.
pub fn coming(main: &[SocketAddr]) -> Table {
    routes_while(&["main"], (main, &[]), None)
}

pub struct Running {
    pub proxy: Proxy,
    pub addr: SocketAddr,
}

pub fn start(table: Table) -> Running {
    start_with(table, |_| {})
}

pub fn start_with(table: Table, change: impl FnOnce(&mut ProxyOptions)) -> Running {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut options = ProxyOptions::new(vec![listener]);
    options.seed = 1;
    options.threads = 2;
    change(&mut options);
    Running {
        proxy: Proxy::start(options, table).unwrap(),
        addr,
    }
}

/// One keep-alive connection.
pub struct Client {
    sender: SendRequest<Body>,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn try_send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Status and whole body.
    pub async fn send(&mut self, request: Request<Body>) -> (u16, String) {
        let response = self.try_send(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

pub fn request(method: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/x?q=1");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "test.example");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(full(body)).unwrap()
}

pub fn get() -> Request<Body> {
    request("GET", &[], "")
}

pub fn post(body: &'static str) -> Request<Body> {
    request("POST", &[], body)
}

/// A whole exchange on a connection of its own.
pub async fn once(addr: SocketAddr, request: Request<Body>) -> (u16, String) {
    Client::connect(addr).await.send(request).await
}

/// Sends bytes and reads until the other side closes.
pub async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    soon(stream.read_to_end(&mut got)).await.unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

/// Fails loudly instead of hanging.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("nothing happened for 30 s")
}
