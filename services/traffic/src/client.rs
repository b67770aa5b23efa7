//! One exchange over a kept-alive HTTP/1.1 connection, and what can go wrong with it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Answers of the APIs are a few dozen bytes; an error page may be longer. More than this is no answer.
const MAX_ANSWER: usize = 1 << 20;

/// Idle connections, the last used on top.
#[derive(Debug)]
pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    authority: http::HeaderValue,
    path: http::Uri,
    timeout: Duration,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why an exchange had no answer. The names are what the report counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens.
    ConnectRefused,
    /// Another failure to connect.
    Connect,
    /// This process has no file descriptors left.
    NoFileDescriptors,
    /// This machine has no local port left.
    NoLocalPorts,
    /// No whole answer in time.
    Timeout,
    /// The connection ended after the request was written and before the answer was whole.
    Closed,
    /// What came was not HTTP/1.1, or too long.
    Protocol,
}

impl Failure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::ConnectRefused => "connect-refused",
            Failure::Connect => "connect",
            Failure::NoFileDescriptors => "no-file-descriptors",
            Failure::NoLocalPorts => "no-local-ports",
            Failure::Timeout => "timeout",
            Failure::Closed => "closed",
            Failure::Protocol => "protocol",
        }
    }

    fn of_connect(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            // EMFILE, ENFILE: the same numbers on Linux and macOS.
            Some(23 | 24) => Failure::NoFileDescriptors,
            _ => match error.kind() {
                io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
                io::ErrorKind::AddrNotAvailable => Failure::NoLocalPorts,
                _ => Failure::Connect,
            },
        }
    }

    fn of_exchange(error: &hyper::Error) -> Failure {
        if error.is_parse() {
            Failure::Protocol
        } else {
            Failure::Closed
        }
    }
}

impl Client {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        authority: http::HeaderValue,
        path: http::Uri,
        timeout: Duration,
    ) -> Client {
        Client {
            addresses,
            authority,
            path,
            timeout,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Opens a first connection and keeps it, to say early that nothing is there.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        let stream = timeout(self.timeout, self.dial())
            .await
            .map_err(io::Error::from)??;
        if let Ok(connection) = shake_hands(stream).await {
            self.keep(connection);
        }
        Ok(())
    }

    pub(crate) async fn post(&self, body: Bytes, key: Option<&str>) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        headers.insert(
            header::ACCEPT,
            http::HeaderValue::from_static("application/json"),
        );
        // Keys are made of letters, digits and dashes (run.rs), which are all legal in a header.
        if let Some(key) = key.and_then(|key| http::HeaderValue::from_str(key).ok()) {
            headers.insert("idempotency-key", key);
        }
        self.exchange(request).await
    }

    /// What a browser asks before a page of another origin may post JSON (Fetch, CORS-preflight).
    pub(crate) async fn preflight(&self) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::OPTIONS;
        let headers = request.headers_mut();
        headers.insert(
            header::ORIGIN,
            http::HeaderValue::from_static("http://localhost"),
        );
        headers.insert(
            header::ACCESS_CONTROL_REQUEST_METHOD,
            http::HeaderValue::from_static("POST"),
        );
        headers.insert(
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            http::HeaderValue::from_static("content-type"),
        );
        self.exchange(request).await
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.authority.clone());
        headers.insert(
            header::USER_AGENT,
            http::HeaderValue::from_static(concat!("devenv-traffic/", env!("CARGO_PKG_VERSION"))),
        );
        timeout(self.timeout, self.attempt(request))
            .await
            .unwrap_or(Err(Failure::Timeout))
    }

    async fn attempt(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        loop {
            let (mut connection, reused) = match self.idle() {
                Some(connection) => (connection, true),
                None => {
                    let stream = self
                        .dial()
                        .await
                        .map_err(|error| Failure::of_connect(&error))?;
                    (
                        shake_hands(stream)
                            .await
                            .map_err(|e| Failure::of_exchange(&e))?,
                        false,
                    )
                }
            };
            if let Err(error) = connection.ready().await {
                if reused {
                    continue;
                }
                return Err(Failure::of_exchange(&error));
            }
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = match Limited::new(body, MAX_ANSWER).collect().await {
                        Ok(body) => body.to_bytes(),
                        Err(error) => {
                            return Err(error
                                .downcast_ref::<hyper::Error>()
                                .map_or(Failure::Protocol, Failure::of_exchange));
                        }
                    };
                    self.keep(connection);
                    return Ok(Answer {
                        status: head.status,
                        headers: head.headers,
                        body,
                    });
                }
                Err(mut error) => match error.take_message() {
                    // The server closed an idle connection and nothing of the request was written:
                    // sending it on another one is no repeat.
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(Failure::of_exchange(&error.into_error())),
                },
            }
        }
    }

    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        if !connection.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn shake_hands(stream: TcpStream) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when its sender is dropped; its errors reach whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}
