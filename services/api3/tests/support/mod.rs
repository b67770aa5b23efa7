//! The service in this process, and clients as small as can be of Engine.IO 4
//! and Socket.IO 5 (the protocol of socket.io 4), over both transports.

use std::net::SocketAddr;
use std::time::Duration;

use api3::Api3;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use telemetry::Config;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running api3.
pub struct Service {
    pub addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start(config: &Config) -> Self {
        let api3 = Api3::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            let drain = api3.app.drain().clone();
            let serving = telemetry::lifecycle::serve(
                listener,
                api3.router.clone(),
                drain,
                stop,
                api3.io.close(),
            );
            tokio::select! {
                () = serving => {}
                () = api3.broadcast() => {}
            }
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            addr,
            client,
            stop,
            task,
        }
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub async fn json(&self, path: &str) -> Value {
        let (status, text) = self.call("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("stops in time")
            .unwrap();
    }
}

/// A page that looks on over WebSocket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub async fn connect(addr: SocketAddr) -> Self {
        let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut socket = Self { stream };
        assert!(socket.packet().await.unwrap().starts_with('0'));
        socket.say("40").await;
        assert!(socket.packet().await.unwrap().starts_with("40"));
        socket
    }

    pub async fn say(&mut self, packet: &str) {
        self.stream
            .send(Message::text(packet.to_owned()))
            .await
            .unwrap();
    }

    /// The next packet; `None` when the connection ended. Pings are answered.
    pub async fn packet(&mut self) -> Option<String> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next())
                .await
                .expect("in time");
            match message?.ok()? {
                Message::Text(text) if text.as_str() == "2" => self.say("3").await,
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The payload of the next event of this name.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let packet = self.packet().await.expect("the connection stays open");
            if let Some((event, payload)) = event(&packet)
                && event == name
            {
                return payload;
            }
        }
    }

    /// Events of this name until one satisfies `good`.
    pub async fn event_where(&mut self, name: &str, good: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let payload = self.event(name).await;
                if good(&payload) {
                    return payload;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("the event comes in time")
    }

    /// Sends `request-metrics` and returns the acknowledgement.
    pub async fn request_metrics(&mut self, data: Value) -> Value {
        self.say(&format!("427{}", json!(["request-metrics", data])))
            .await;
        loop {
            let packet = self.packet().await.expect("the connection stays open");
            if let Some(json) = packet.strip_prefix("437") {
                return serde_json::from_str::<Value>(json).unwrap()[0].take();
            }
        }
    }
}

/// An event packet's name and payload.
pub fn event(packet: &str) -> Option<(String, Value)> {
    let mut array: Value = serde_json::from_str(packet.strip_prefix("42")?).ok()?;
    Some((array[0].as_str()?.to_owned(), array[1].take()))
}

/// Writes `n` rows of `api` past the services.
pub async fn write(connection: &mut sqlx::MySqlConnection, api: &str, n: usize) {
    for _ in 0..n {
        sqlx::query(
            "INSERT INTO records (total_ram, ram_libre, uso_ram, porcentaje_ram, \
             porcentaje_cpu_uso, porcentaje_cpu_libre, procesos_corriendo, total_procesos, \
             procesos_durmiendo, procesos_zombie, procesos_parados, hora, api) \
             VALUES (8000, 4000, 4000, 50, 12.5, 87.5, 1, 100, 98, 1, 0, '2025-03-01 12:30:59', ?)",
        )
        .bind(api)
        .execute(&mut *connection)
        .await
        .unwrap();
    }
}
