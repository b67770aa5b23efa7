//! A service in this process on a loopback port, and a client for it.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use telemetry::Config;
use telemetry::http::{App, write_router};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running service.
pub struct Service {
    pub addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Asserts a problem of this status and returns it.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{problem}"
        );
        problem
    }

    /// The ids of a 201.
    #[track_caller]
    pub fn ids(&self) -> Vec<i64> {
        assert_eq!(self.status, 201, "{self:?}");
        self.json()["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .collect()
    }
}

impl Service {
    pub async fn start(config: &Config) -> Self {
        let app = App::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = write_router(&app);
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            telemetry::lifecycle::serve(listener, router, app.drain().clone(), stop, async {})
                .await;
            app.db().close(std::time::Duration::from_secs(1)).await;
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            addr,
            client,
            stop: Some(stop),
            task,
        }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let response = self.client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(
            self.request(Method::GET, path)
                .body(Full::default())
                .unwrap(),
        )
        .await
    }

    pub async fn post(&self, body: impl Into<Bytes>, key: Option<&str>) -> Reply {
        let mut request = self
            .request(Method::POST, "/api")
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(Full::new(body.into())).unwrap())
            .await
    }

    pub async fn post_json(&self, body: &Value, key: Option<&str>) -> Reply {
        self.post(body.to_string(), key).await
    }

    /// Tells the service to stop, as SIGTERM does.
    pub fn begin_stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }

    pub async fn stop(mut self) {
        self.begin_stop();
        self.task.await.unwrap();
    }
}

/// A good record that can be told from others by its `total_procesos`.
pub fn record(mark: u32) -> Value {
    json!({
        "total_ram": 7821.4, "ram_libre": 3000.25, "uso_ram": 4821.15, "porcentaje_ram": 61.6,
        "porcentaje_cpu_uso": 12.5, "porcentaje_cpu_libre": 87.5, "procesos_corriendo": 2,
        "total_procesos": mark, "procesos_durmiendo": 310, "procesos_zombie": 1,
        "procesos_parados": 0, "hora": "2025-03-01 12:30:59"
    })
}
