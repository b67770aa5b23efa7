//! A cluster in a temporary folder, and what all tests do with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use devenv_cluster::kinds::{self, KindRef};
use devenv_cluster::store::Object;
use devenv_cluster::{Cluster, ClusterOptions, Containers, Isolation, RunSpec, ServicePort, api};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tower::Service;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub cluster: Cluster,
    pub ingress: SocketAddr,
    /// The project's own address,
    pub address: Ipv4Addr,
    /// and the Ingress' port there.
    pub ingress_own: u16,
    pub dir: Arc<Folder>,
}

/// A project's folder.
pub struct Folder {
    path: PathBuf,
    /// Removes it, unless it is another process's.
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    pub fn new() -> Folder {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(dir.path().join("web")).expect("made");
        std::fs::write(dir.path().join("web/index.html"), "hello from web\n").expect("written");
        Folder {
            path: dir.path().to_owned(),
            _temporary: Some(dir),
        }
    }

    /// One that another process has made, and removes.
    pub fn of_another(path: &Path) -> Folder {
        Folder {
            path: path.to_owned(),
            _temporary: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An address of loopback that is this process's own.
fn address() -> Ipv4Addr {
    let [_, _, a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 201, a, b.max(1))
}

fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// A port of a Service in the namespace of all tests.
pub fn port_of(service: &str, port: u16) -> ServicePort {
    ServicePort {
        namespace: "default".into(),
        service: service.into(),
        port,
    }
}

impl Rig {
    pub async fn start() -> Rig {
        Rig::start_as(Isolation::Sandbox).await
    }

    pub async fn start_as(isolation: Isolation) -> Rig {
        Rig::start_in_as(Arc::new(Folder::new()), isolation).await
    }

    pub async fn start_in(dir: Arc<Folder>) -> Rig {
        Rig::start_in_as(dir, Isolation::Sandbox).await
    }

    pub async fn start_in_as(dir: Arc<Folder>, isolation: Isolation) -> Rig {
        Rig::start_on(dir, isolation, None).await
    }

    pub async fn start_on(
        dir: Arc<Folder>,
        isolation: Isolation,
        containers: Option<Containers>,
    ) -> Rig {
        let state_dir = dir.path().join(".devenv");
        std::fs::create_dir_all(&state_dir).expect("made");
        let ingress = listener();
        let address = address();
        let own = std::net::TcpListener::bind((address, 0)).expect("a free port");
        let ingress_own = own.local_addr().expect("an address").port();
        let addr = ingress.local_addr().expect("an address");
        let owner = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let cluster = Cluster::start(ClusterOptions {
            project: "test".into(),
            project_dir: dir.path().to_owned(),
            hidden: vec![state_dir.clone()],
            state_dir,
            isolation,
            containers,
            api_listen: ([127, 0, 0, 1], 0).into(),
            namespace: "default".into(),
            owner,
            ingress: vec![ingress, own],
            address,
            ingress_addresses: vec![[127, 9, 9, 9].into()],
            also_at: [(
                "34.66.1.2:3306".parse().expect("an address"),
                port_of("web", 5000),
            )]
            .into(),
            knative: vec![listener()],
            env_for_knative: vec![("INGRESS_URL".into(), format!("http://{addr}"))],
        })
        .await
        .expect("the cluster starts");
        let rig = Rig {
            cluster,
            ingress: addr,
            address,
            ingress_own,
            dir,
        };
        rig.image("web", &["python3", "-m", "http.server", "5000"]);
        rig
    }

    pub fn image(&self, name: &str, argv: &[&str]) {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        let run = RunSpec {
            argv,
            cwd: self.web(),
            env: vec![("PYTHONUNBUFFERED".into(), "1".into())],
            ..RunSpec::default()
        };
        self.cluster.images().set(name, run);
    }

    pub fn web(&self) -> std::path::PathBuf {
        self.dir.path().join("web")
    }

    pub fn create(&self, kind: KindRef, object: Value) -> Arc<Object> {
        match api::create(self.cluster.store(), kind, object) {
            Ok(object) => object,
            Err(failure) => panic!("not created: {}", failure.message),
        }
    }

    pub fn get(&self, kind: KindRef, name: &str) -> Option<Arc<Object>> {
        self.cluster.store().get(kind, "default", name)
    }

    pub fn deployment(&self, name: &str, replicas: u32, container: Value) {
        let mut container = container;
        container["name"] = json!("c");
        if container["image"].is_null() {
            container["image"] = json!("web");
        }
        self.create(
            &kinds::DEPLOYMENT,
            json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
                },
            }),
        );
    }

    pub fn service(&self, name: &str, port: u16) {
        let spec = json!({"selector": {"app": name}, "ports": [{"port": port}]});
        self.create(
            &kinds::SERVICE,
            json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
    }

    pub fn ingress(&self, service: &str, port: u16) {
        let backend = json!({"service": {"name": service, "port": {"number": port}}});
        let rule =
            json!({"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
        let spec = json!({"ingressClassName": "nginx", "rules": [rule]});
        self.create(
            &kinds::INGRESS,
            json!({"metadata": {"name": service, "namespace": "default"}, "spec": spec}),
        );
    }

    pub async fn until(
        &self,
        kind: KindRef,
        name: &str,
        what: &str,
        is: impl Fn(Option<&Value>) -> bool,
    ) {
        let mut watch = self.cluster.store().watch(&[kind], None).expect("watched");
        let wait = async {
            while !is(self.get(kind, name).as_ref().map(|o| o.value())) {
                watch.next().await.expect("open");
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let now = self.get(kind, name).map(|o| o.value().to_string());
            panic!(
                "{} {name} never was {what}: {now:?}\nevents: {:#?}",
                kind.kind,
                self.events()
            );
        }
    }

    pub async fn until_available(&self, name: &str, replicas: i64) {
        self.until(&kinds::DEPLOYMENT, name, "available", |d| {
            d.is_some_and(|d| {
                let status = &d["status"];
                status["observedGeneration"] == d["metadata"]["generation"]
                    && ["replicas", "updatedReplicas", "availableReplicas"]
                        .iter()
                        .all(|f| status[*f].as_i64() == Some(replicas))
            })
        })
        .await;
    }

    /// Waits until one endpoint of a Service is ready: the status of its pod may be a moment ahead.
    pub async fn until_ready(&self, service: &str) {
        let slice = format!("{service}-devenv");
        self.until(&kinds::ENDPOINT_SLICE, &slice, "ready", |s| {
            s.is_some_and(|s| s["endpoints"][0]["conditions"]["ready"] == true)
        })
        .await;
    }

    pub async fn until_ended(&self, pod: &str) -> String {
        self.until(&kinds::POD, pod, "ended", |p| {
            p.is_some_and(|p| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        })
        .await;
        let phase = self.get(&kinds::POD, pod).expect("there").value()["status"]["phase"]
            .as_str()
            .expect("text")
            .to_owned();
        let log = self.log(pod).await;
        assert_eq!(phase, "Succeeded", "{log}");
        log
    }

    /// Runs a command in a pod of its own to its end; returns what it printed.
    pub async fn run(&self, name: &str, command: &[&str]) -> String {
        self.pod(name, json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "web", "command": command}]}));
        self.until_ended(name).await
    }

    pub fn pod(&self, name: &str, spec: Value) {
        self.create(
            &kinds::POD,
            json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
    }

    /// The log of a pod that has ended, as the API serves it.
    pub async fn log(&self, pod: &str) -> String {
        // The pump may be a moment behind the exit.
        self.log_of(pod, true).await
    }

    /// The pod's log as the API serves it; with `follow` to its end.
    pub async fn log_of(&self, pod: &str, follow: bool) -> String {
        let path = format!("/api/v1/namespaces/default/pods/{pod}/log?follow={follow}&container=c");
        let request = http::Request::get(path)
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let response = self
            .cluster
            .api_service()
            .call(request)
            .await
            .expect("infallible");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Waits until a running pod has printed exactly this.
    pub async fn until_logged(&self, pod: &str, text: &str) {
        let path = format!("/api/v1/namespaces/default/pods/{pod}/log?container=c");
        let printed = async {
            loop {
                let request = http::Request::get(&path)
                    .body(Empty::<Bytes>::new())
                    .expect("a request");
                let mut api = self.cluster.api_service();
                let response = api.call(request).await.expect("infallible");
                let body = response.into_body().collect().await.expect("a body");
                if body.to_bytes() == text.as_bytes() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, printed).await.is_err() {
            let events = self.events();
            panic!("{pod} never printed {text:?}\nevents: {events:#?}");
        }
    }

    pub fn pods(&self, app: &str) -> Vec<Arc<Object>> {
        let (pods, _) = self.cluster.store().list(&kinds::POD, Some("default"));
        pods.into_iter()
            .filter(|p| p.value()["metadata"]["labels"]["app"] == app)
            .collect()
    }

    /// Kills the program of a pod's container: PID 1 there is the pod's own.
    pub fn kill(&self, pod: &str) {
        let pid = std::fs::read_dir("/proc")
            .expect("there")
            .filter_map(|e| e.ok()?.file_name().into_string().ok()?.parse::<i32>().ok())
            .find(|pid| {
                let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environ).contains(&format!("HOSTNAME={pod}\0"))
            })
            .expect("the container's process");
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    }

    pub fn events(&self) -> Vec<String> {
        let (events, _) = self.cluster.store().list(&kinds::EVENT, None);
        events
            .iter()
            .map(|e| {
                format!(
                    "{} {}: {}",
                    e.value()["involvedObject"]["name"],
                    e.value()["reason"],
                    e.value()["message"]
                )
            })
            .collect()
    }

    pub async fn stop(self) {
        self.cluster.shutdown(Duration::from_secs(5)).await;
    }
}

/// Processes whose command line has `needle`, zombies left out.
pub fn processes(needle: &Path) -> Vec<String> {
    let needle = needle.display().to_string();
    let read = |pid: &str, file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
    };
    std::fs::read_dir("/proc")
        .expect("there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| read(pid, "cmdline").contains(&needle) && !read(pid, "stat").contains(") Z "))
        .collect()
}
