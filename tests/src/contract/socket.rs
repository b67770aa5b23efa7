//! A page that looks on: a client as small as can be of Engine.IO 4 and Socket.IO 5
//! (the protocol of socket.io 4), over either transport.

use crate::contract::api::Api;
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for anything; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between the packets of one polling answer.
const SEPARATOR: char = '\u{1e}';

/// How packets come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Polling,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
        })
    }
}

/// A connection to the default namespace.
#[derive(Debug)]
pub struct Socket {
    wire: Wire,
    /// Packets that came and were not asked for yet.
    came: VecDeque<String>,
    /// The handshake's answer.
    pub open: Value,
    acknowledgements: u32,
}

#[derive(Debug)]
enum Wire {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Polling { api: Api, session: String },
}

impl Socket {
    /// Opens a connection and joins the default namespace.
    pub async fn connect(api: &Api, transport: Transport) -> Self {
        let path = format!("/socket.io/?EIO=4&transport={transport}");
        let (wire, first) = match transport {
            Transport::WebSocket => {
                let url = format!("ws://{}{path}", api.address());
                let (stream, _) = tokio_tungstenite::connect_async(url).await.expect("opens");
                let mut wire = Wire::WebSocket(Box::new(stream));
                let first = wire.receive().await.expect("a handshake");
                (wire, first)
            }
            Transport::Polling => {
                let reply = api.get(&path).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                let first = reply.text.split(SEPARATOR).map(str::to_owned).collect();
                let wire = Wire::Polling {
                    api: api.clone(),
                    session: path,
                };
                (wire, first)
            }
        };
        let mut socket = Self {
            wire,
            came: first,
            open: Value::Null,
            acknowledgements: 0,
        };
        let open = socket.packet().await.expect("a handshake");
        let open = open.strip_prefix('0').unwrap_or_else(|| panic!("{open}"));
        socket.open = serde_json::from_str(open).expect("the handshake is JSON");
        if let Wire::Polling { session, .. } = &mut socket.wire {
            let sid = socket.open["sid"].as_str().expect("a session");
            session.push_str(&format!("&sid={sid}"));
        }
        socket.say("40").await;
        let joined = socket.packet().await.expect("an answer");
        assert!(joined.starts_with("40{"), "{joined}");
        socket
    }

    /// Goes on over WebSocket, as a client does that began by polling.
    ///
    /// # Panics
    /// When this is no polling connection, or the upgrade is refused.
    pub async fn upgrade(&mut self) {
        let Wire::Polling { api, session } = &self.wire else {
            panic!("not a polling connection");
        };
        let (api, session) = (api.clone(), session.clone());
        let path = session.replace("transport=polling", "transport=websocket");
        let url = format!("ws://{}{path}", api.address());
        let (stream, _) = tokio_tungstenite::connect_async(url).await.expect("opens");
        let mut upgraded = Wire::WebSocket(Box::new(stream));
        upgraded.send("2probe").await;
        let answer = upgraded.receive().await.expect("an answer");
        assert_eq!(answer, ["3probe"]);
        // What is still on the way over the old transport.
        while let Some(packets) = self.wire.receive().await {
            let last = packets.iter().any(|packet| packet == "6");
            self.came
                .extend(packets.into_iter().filter(|packet| packet != "6"));
            if last {
                break;
            }
        }
        upgraded.send("5").await;
        self.wire = upgraded;
    }

    /// Sends a packet.
    pub async fn say(&mut self, packet: &str) {
        self.wire.send(packet).await;
    }

    /// The next packet; `None` when the connection ended. Pings are answered.
    pub async fn packet(&mut self) -> Option<String> {
        loop {
            while let Some(packet) = self.came.pop_front() {
                match packet.as_str() {
                    "2" => self.say("3").await,
                    // Closed by the server.
                    "1" => return None,
                    // Nothing to say, as the transport changes.
                    "6" => {}
                    _ => return Some(packet),
                }
            }
            self.came = self.wire.receive().await?;
        }
    }

    /// The next event: name and payload. `None` when the connection ended.
    pub async fn next_event(&mut self) -> Option<(String, Value)> {
        loop {
            let packet = self.packet().await?;
            if let Some(json) = packet.strip_prefix("42") {
                let mut event: Value = serde_json::from_str(json).expect("an event is JSON");
                let name = event[0].as_str().expect("an event has a name").to_owned();
                return Some((name, event[1].take()));
            }
        }
    }

    /// The payload of the next event of this name.
    pub async fn event(&mut self, name: &str) -> Value {
        self.event_where(name, |_| true).await
    }

    /// The payload of the next event of this name that is as wanted.
    pub async fn event_where(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let coming = async {
            loop {
                let event = self.next_event().await;
                let (event, payload) = event.expect("the connection stays open");
                if event == name && wanted(&payload) {
                    return payload;
                }
                if event == name {
                    last = payload;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, coming).await.ok();
        found.unwrap_or_else(|| panic!("no {name} as wanted in {PATIENCE:?}; the last: {last}"))
    }

    /// Sends `request-metrics` and gives the acknowledgement.
    pub async fn request_metrics(&mut self, data: Value) -> Value {
        self.acknowledgements += 1;
        let id = self.acknowledgements;
        let request = json!(["request-metrics", data]);
        self.say(&format!("42{id}{request}")).await;
        let prefix = format!("43{id}[");
        loop {
            let packet = self.packet().await.expect("the connection stays open");
            if packet.starts_with(&prefix) {
                let json = &packet[prefix.len() - 1..];
                let mut answer: Value = serde_json::from_str(json).expect("JSON");
                assert_eq!(answer.as_array().map(Vec::len), Some(1), "{answer}");
                return answer[0].take();
            }
        }
    }
}

impl Wire {
    async fn send(&mut self, packet: &str) {
        match self {
            Self::WebSocket(stream) => {
                let message = Message::text(packet.to_owned());
                stream.send(message).await.expect("the connection is open");
            }
            Self::Polling { api, session } => {
                let request = api.request(Method::POST, session);
                let reply = api.send(request.body(packet.to_owned())).await;
                assert_eq!((reply.status, reply.text.as_str()), (200, "ok"));
            }
        }
    }

    /// The next packets; `None` when the connection ended.
    async fn receive(&mut self) -> Option<VecDeque<String>> {
        match self {
            Self::WebSocket(stream) => loop {
                let next = tokio::time::timeout(PATIENCE, stream.next());
                match next.await.expect("something comes in time")?.ok()? {
                    Message::Text(text) => return Some(VecDeque::from([text.to_string()])),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::Polling { api, session } => {
                let polling = api.request(Method::GET, session);
                let reply = api.try_send(polling).await.ok()?;
                let packets = reply.text.split(SEPARATOR).map(str::to_owned).collect();
                // 400: the session is over.
                (reply.status == 200).then_some(packets)
            }
        }
    }
}
