//! Engine.IO 4: the handshake, and packets over WebSocket or HTTP.

use std::{fmt, time::Duration};

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::{SocketError, Transport};

/// Between the packets of one body.
const SEPARATOR: char = '\u{1e}';

/// Of a message or a polling answer, in bytes; more ends the connection.
const LARGEST: usize = 16 * 1024 * 1024;

/// How long sending a packet may take.
const SENDING: Duration = Duration::from_secs(10);

/// What comes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A packet.
    Text(String),
    /// A binary attachment, which nobody reads.
    Binary,
}

/// What a server says of itself first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handshake {
    sid: String,
    /// Milliseconds.
    ping_interval: u64,
    /// Milliseconds.
    ping_timeout: u64,
    max_payload: Option<u64>,
}

impl Handshake {
    /// How long the server may say nothing.
    pub(super) fn silence(&self) -> Duration {
        const DAY: u64 = 24 * 60 * 60 * 1000;
        Duration::from_millis(
            self.ping_interval
                .saturating_add(self.ping_timeout)
                .min(DAY),
        )
    }
}

/// Where Socket.IO is behind a server's address.
pub(super) fn address(given: &str) -> Result<Url, SocketError> {
    let wrong = |why: String| SocketError::Address {
        url: given.to_owned(),
        why,
    };
    let mut url = Url::parse(given).map_err(|e| wrong(e.to_string()))?;
    match url.scheme() {
        "http" | "ws" => {}
        other => return Err(wrong(format!("{other} is not supported, only http is"))),
    }
    if !matches!(url.path(), "" | "/") {
        let path = url.path();
        return Err(wrong(format!(
            "the path {path} would be a namespace; only the default one is supported"
        )));
    }
    url.set_fragment(None);
    url.set_path("/socket.io/");
    Ok(url)
}

/// The address for one transport.
fn endpoint(url: &Url, transport: Transport, sid: Option<&str>) -> Result<Url, String> {
    let mut url = url.clone();
    let scheme = match transport {
        Transport::WebSocket => "ws",
        Transport::Polling => "http",
    };
    url.set_scheme(scheme)
        .map_err(|()| format!("{url} has no {scheme} form"))?;
    let mut query = url.query_pairs_mut();
    query.append_pair("EIO", "4");
    query.append_pair("transport", &transport.to_string());
    if let Some(sid) = sid {
        query.append_pair("sid", sid);
    }
    drop(query);
    Ok(url)
}

/// A transport after its handshake.
pub(super) struct Wire {
    kind: Kind,
    max_payload: Option<u64>,
}

enum Kind {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Polling {
        client: Client,
        url: Url,
        /// The request that waits for packets. It is kept when `receive` is dropped, as
        /// what it brings would be lost.
        waiting: Option<BoxFuture<'static, Result<Vec<Frame>, String>>>,
    },
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::WebSocket(_) => "WebSocket",
            Kind::Polling { .. } => "Polling",
        })
    }
}

impl Wire {
    /// Shakes hands; gives what came behind the handshake as well.
    pub(super) async fn open(
        url: &Url,
        transport: Transport,
    ) -> Result<(Self, Handshake, Vec<Frame>), String> {
        let opening = endpoint(url, transport, None)?;
        let (kind, mut frames) = match transport {
            Transport::WebSocket => {
                let config = WebSocketConfig::default()
                    .max_message_size(Some(LARGEST))
                    .max_frame_size(Some(LARGEST));
                let connecting = tokio_tungstenite::connect_async_with_config(
                    opening.as_str(),
                    Some(config),
                    true,
                );
                let (stream, _) = connecting
                    .await
                    .map_err(|e| format!("{opening}: {}", words(&e)))?;
                let mut kind = Kind::WebSocket(Box::new(stream));
                let frames = kind.receive().await?;
                (kind, frames)
            }
            Transport::Polling => {
                let client = Client::builder()
                    .no_proxy()
                    .tcp_nodelay(true)
                    .build()
                    .map_err(|e| words(&e))?;
                let frames = poll(client.get(opening)).await?;
                let kind = Kind::Polling {
                    client,
                    url: url.clone(),
                    waiting: None,
                };
                (kind, frames)
            }
        };
        let first = if frames.is_empty() {
            None
        } else {
            Some(frames.remove(0))
        };
        let Some(Frame::Text(first)) = first else {
            return Err("the server sent no handshake".to_owned());
        };
        let handshake: Handshake = first
            .strip_prefix('0')
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| {
                let start: String = first.chars().take(80).collect();
                format!("the server sent {start:?}, which is no handshake of Engine.IO 4")
            })?;
        let mut wire = Self {
            kind,
            max_payload: handshake.max_payload,
        };
        if let Kind::Polling { url: of, .. } = &mut wire.kind {
            *of = endpoint(url, transport, Some(&handshake.sid))?;
        }
        Ok((wire, handshake, frames))
    }

    /// Why the server would not take it.
    pub(super) fn too_large(&self, packet: &str) -> Option<String> {
        let max = self.max_payload?;
        let len = u64::try_from(packet.len()).unwrap_or(u64::MAX);
        (len > max).then(|| format!("it is {len} bytes, and the server takes {max} at most"))
    }

    /// Sends one packet.
    pub(super) async fn send(&mut self, packet: &str) -> Result<(), String> {
        match &mut self.kind {
            Kind::WebSocket(stream) => {
                let sending = stream.send(Message::text(packet));
                match tokio::time::timeout(SENDING, sending).await {
                    Ok(sent) => sent.map_err(|e| words(&e)),
                    Err(_) => Err(format!("the server read nothing for {SENDING:?}")),
                }
            }
            Kind::Polling { client, url, .. } => {
                let request = client
                    .post(url.clone())
                    .header("content-type", "text/plain;charset=UTF-8")
                    .timeout(SENDING)
                    .body(packet.to_owned());
                match body(request).await? {
                    text if text == b"ok" => Ok(()),
                    other => Err(format!(
                        "the server answered {:?} to a packet, not \"ok\"",
                        start(&other)
                    )),
                }
            }
        }
    }

    /// What comes next: one packet or more. Loses nothing when it is dropped.
    pub(super) async fn receive(&mut self) -> Result<Vec<Frame>, String> {
        self.kind.receive().await
    }

    /// Leaves the namespace and closes the transport.
    pub(super) async fn close(&mut self) {
        // Whoever is gone already needs no goodbye.
        let _ = self.send("41").await;
        let _ = self.send("1").await;
        if let Kind::WebSocket(stream) = &mut self.kind {
            let _ = stream.close().await;
        }
    }
}

impl Kind {
    async fn receive(&mut self) -> Result<Vec<Frame>, String> {
        match self {
            Self::WebSocket(stream) => loop {
                let Some(message) = stream.next().await else {
                    return Err("the server closed it".to_owned());
                };
                match message.map_err(|e| words(&e))? {
                    Message::Text(text) => return Ok(vec![Frame::Text(text.as_str().to_owned())]),
                    Message::Binary(_) => return Ok(vec![Frame::Binary]),
                    Message::Close(frame) => {
                        let why = frame.map(|f| format!(" ({f})")).unwrap_or_default();
                        return Err(format!("the server closed it{why}"));
                    }
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            },
            Self::Polling {
                client,
                url,
                waiting,
            } => {
                let polling = waiting.get_or_insert_with(|| poll(client.get(url.clone())).boxed());
                let came = polling.await;
                *waiting = None;
                came
            }
        }
    }
}

/// The packets of an answer.
async fn poll(request: RequestBuilder) -> Result<Vec<Frame>, String> {
    let bytes = body(request).await?;
    let text = String::from_utf8(bytes).map_err(|_| "the server sent no UTF-8".to_owned())?;
    Ok(text
        .split(SEPARATOR)
        .filter(|packet| !packet.is_empty())
        .map(|packet| match packet.starts_with('b') {
            true => Frame::Binary,
            false => Frame::Text(packet.to_owned()),
        })
        .collect())
}

/// The body of a good answer.
async fn body(request: RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request.send().await.map_err(|e| words(&e))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| words(&e))? {
        if bytes.len() + chunk.len() > LARGEST {
            return Err(format!("the server sent more than {LARGEST} bytes at once"));
        }
        bytes.extend_from_slice(&chunk);
    }
    let status = response.status();
    if !status.is_success() {
        return Err(format!("the server answered {status}: {}", start(&bytes)));
    }
    Ok(bytes)
}

/// As much as a person reads.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

/// An error with what caused it.
fn words(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say what their cause says.
        if !out.contains(&cause_text) {
            out.push_str(": ");
            out.push_str(&cause_text);
        }
        source = cause.source();
    }
    out
}
