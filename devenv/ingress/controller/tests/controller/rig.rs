//! An API over an empty store, endpoints on loopback, and a client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use devenv_cluster::api::{
    ApiBody, ApiOptions, ApiServer, ApiService, ContainerMetrics, LogError, LogQuery, LogSource,
    Measured, MetricsSource,
};
use devenv_cluster::kinds;
use devenv_cluster::store::Store;
use devenv_ingress_controller::{Controller, ControllerError, ControllerOptions};
use futures_util::stream::BoxStream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{Service, service_fn};

/// No step of a test takes longer, or it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not in time"))
}

struct NoLogs;

#[async_trait]
impl LogSource for NoLogs {
    async fn logs(
        &self,
        _: &str,
        pod: &str,
        _: LogQuery,
    ) -> Result<BoxStream<'static, Bytes>, LogError> {
        Err(LogError::BadRequest(format!("{pod} has no logs")))
    }
}

struct NoMetrics;

#[async_trait]
impl MetricsSource for NoMetrics {
    async fn pods(&self, _: &[String]) -> HashMap<String, Vec<ContainerMetrics>> {
        HashMap::new()
    }

    async fn node(&self, _: &str) -> Option<Measured> {
        None
    }
}

/// Which endpoints the API pretends to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    V1,
    V1beta1,
    Neither,
}

/// An API that can be taken away, and hold its endpoints back.
pub struct Rig {
    store: Store,
    server: Option<ApiServer>,
    service: Arc<Mutex<Option<ApiService>>>,
    /// Whether EndpointSlices are told.
    pub slices_tx: watch::Sender<bool>,
    serves: Serves,
    dir: tempfile::TempDir,
}

impl Rig {
    pub async fn new(serves: Serves) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        let mut rig = Rig {
            store,
            server: None,
            service: Arc::default(),
            slices_tx: watch::Sender::new(true),
            serves,
            dir,
        };
        rig.api_up().await;
        rig
    }

    pub async fn api_up(&mut self) {
        let options = ApiOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            in_cluster: None,
            kubeconfig: self.dir.path().join("kubeconfig"),
            tls_dir: self.dir.path().join("tls"),
            project: "test".to_owned(),
            namespace: "default".to_owned(),
            logs: Arc::new(NoLogs),
            metrics: Arc::new(NoMetrics),
            server_version: None,
        };
        let server = ApiServer::start(self.store.clone(), options).await.unwrap();
        *self.service.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.service());
        self.server = Some(server);
    }

    /// Ends all watches, and answers nothing but 503.
    pub async fn api_down(&mut self) {
        *self.service.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.server.take().unwrap().shutdown().await;
    }

    /// To the API as it is.
    pub fn client(&self) -> Client {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        Client::new(service.clone().unwrap(), "default")
    }

    /// To the API as the controller is to see it.
    fn played(&self) -> Client {
        let (current, slices_rx) = (self.service.clone(), self.slices_tx.subscribe());
        let serves = self.serves;
        let service = service_fn(move |request: Request<Body>| {
            let (current, mut slices_rx) = (current.clone(), slices_rx.clone());
            async move {
                let path = request.uri().path().to_owned();
                if path.ends_with("/endpointslices") || path.ends_with("/endpoints") {
                    let _ = slices_rx.wait_for(|told| *told).await;
                }
                let request = match (serves, path.as_str()) {
                    (Serves::V1beta1, "/apis/discovery.k8s.io") => {
                        return Ok(answer(200, &group_v1beta1()));
                    }
                    (Serves::Neither, path) if path.starts_with("/apis/discovery.k8s.io") => {
                        return Ok(answer(404, &json!("404 page not found")));
                    }
                    (Serves::V1beta1, path) => {
                        assert!(!path.starts_with("/apis/discovery.k8s.io/v1/"), "{path}");
                        of_v1(request)
                    }
                    _ => request,
                };
                let service = current
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                match service {
                    Some(mut service) => service.call(request).await,
                    None => Ok(answer(503, &json!({}))),
                }
            }
        });
        Client::new(service, "default")
    }

    /// Applies an object on the server's side.
    pub async fn apply(&self, object: Value) {
        let api_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = object["kind"].as_str().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let client = self.client();
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        api.patch(
            &name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&object),
        )
        .await
        .unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// Has a Service lead to one endpoint.
    pub async fn leads(&self, service: &str, to: SocketAddr) {
        let (ip, port) = (to.ip().to_string(), to.port());
        let ports = json!([{"name": "http", "port": port, "protocol": "TCP"}]);
        if self.serves == Serves::Neither {
            let subsets = json!([{"addresses": [{"ip": ip}], "ports": ports}]);
            // Not through the API: it refuses loopback addresses, as Kubernetes does.
            let stored = match self.store.get(&kinds::ENDPOINTS, "default", service) {
                Some(_) => self
                    .store
                    .update(&kinds::ENDPOINTS, "default", service, |endpoints| {
                        endpoints["subsets"] = subsets;
                        Ok(())
                    })
                    .map(drop),
                None => {
                    let endpoints = json!({
                        "apiVersion": "v1",
                        "kind": "Endpoints",
                        "metadata": {"name": service, "namespace": "default"},
                        "subsets": subsets,
                    });
                    self.store.create(&kinds::ENDPOINTS, endpoints).map(drop)
                }
            };
            return stored.unwrap();
        }
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-1"), "namespace": "default",
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": ports,
        }))
        .await;
    }

    /// Starts a controller against this API.
    pub async fn controller(&self) -> Running {
        let shutdown = CancellationToken::new();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let controller = Controller::bind(ControllerOptions {
            client: Some(self.played()),
            listen: vec![loopback],
            health: loopback,
            publish_status_addresses: vec!["192.0.2.7".parse().unwrap()],
            shutdown: shutdown.clone(),
            ..ControllerOptions::default()
        })
        .await
        .unwrap();
        Running {
            address: controller.addresses()[0],
            health: controller.health_address(),
            shutdown,
            task: tokio::spawn(controller.run()),
        }
    }
}

fn answer(status: u16, body: &Value) -> Response<ApiBody> {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn group_v1beta1() -> Value {
    let version = json!({"groupVersion": "discovery.k8s.io/v1beta1", "version": "v1beta1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": "discovery.k8s.io",
           "versions": [version], "preferredVersion": version})
}

/// The same request of the version that is really there.
fn of_v1(mut request: Request<Body>) -> Request<Body> {
    let uri = request.uri().to_string();
    let uri = uri.replace("discovery.k8s.io/v1beta1", "discovery.k8s.io/v1");
    *request.uri_mut() = uri.parse().unwrap();
    request
}

/// A running controller.
pub struct Running {
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), ControllerError>>,
}

impl Running {
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await
    }

    pub async fn probe(&self, path: &str) -> u16 {
        get(self.health, path).await.0
    }

    /// Until `/readyz` says so.
    pub async fn ready(&self, status: u16) {
        in_time("readiness", async {
            while self.probe("/readyz").await != status {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Until a path is answered by `name`.
    pub async fn answered_by(&self, path: &str, name: &str) {
        in_time(name, async {
            while self.get(path).await.1 != name {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// One request on one connection, by hand: status and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    in_time(path, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let status = reply.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = reply
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        (
            status.unwrap_or_else(|| panic!("no status: {reply:?}")),
            body.unwrap_or_default(),
        )
    })
    .await
}

/// An endpoint that answers its name; to `/…slow` only when it is let.
pub struct Endpoint {
    pub address: SocketAddr,
    /// A slow request has come.
    pub slow_rx: mpsc::UnboundedReceiver<()>,
    /// Lets slow requests be answered.
    pub let_tx: watch::Sender<bool>,
}

impl Endpoint {
    pub async fn new(name: &'static str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (slow_tx, slow_rx) = mpsc::unbounded_channel();
        let let_tx = watch::Sender::new(false);
        let let_rx = let_tx.subscribe();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answers(stream, name, slow_tx.clone(), let_rx.clone()));
            }
        });
        Endpoint {
            address,
            slow_rx,
            let_tx,
        }
    }
}

/// Requests without bodies, one after the other.
async fn answers(
    stream: TcpStream,
    name: &str,
    slow_tx: mpsc::UnboundedSender<()>,
    mut let_rx: watch::Receiver<bool>,
) -> Result<(), Infallible> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        if stream.read_line(&mut first).await.unwrap_or(0) == 0 {
            return Ok(());
        }
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return Ok(());
            }
        }
        if first.contains("slow ") {
            let _ = slow_tx.send(());
            let _ = let_rx.wait_for(|is| *is).await;
        }
        let length = name.len();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return Ok(());
        }
    }
}

pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]},
    })
}

/// An Ingress of class nginx; `/` goes to a Service.
pub fn ingress(name: &str, service: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"http": {"paths": [{
                "path": "/",
                "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"number": 80}}},
            }]}}],
        },
    })
}
