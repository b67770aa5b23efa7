//! Services that are reached from outside the cluster: node ports and load balancers.

use std::net::SocketAddr;

use devenv_cluster::kinds;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::http::get;
use crate::rig::Rig;

fn service(rig: &Rig, name: &str, spec: Value) {
    rig.create(
        &kinds::SERVICE,
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
    );
}

/// A port that nobody listens at now.
fn free_port(rig: &Rig) -> u16 {
    let listener = std::net::TcpListener::bind((rig.address, 0)).expect("bound");
    listener.local_addr().expect("an address").port()
}

async fn until_balanced(rig: &Rig, name: &str) {
    let address = rig.address.to_string();
    rig.until(&kinds::SERVICE, name, "balanced", |s| {
        s.is_some_and(|s| s["status"]["loadBalancer"]["ingress"][0]["ip"] == address)
    })
    .await;
}

async fn until_told(rig: &Rig, words: &str) {
    let mut watch = rig
        .cluster
        .store()
        .watch(&[&kinds::EVENT], None)
        .expect("watched");
    let told = async {
        while !rig.events().iter().any(|e| e.contains(words)) {
            watch.next().await.expect("open");
        }
    };
    let limit = std::time::Duration::from_secs(60);
    if tokio::time::timeout(limit, told).await.is_err() {
        panic!("nothing says {words:?}: {:#?}", rig.events());
    }
}

/// Waits until a connection is refused: the listener closes a moment after its Service.
async fn until_refused(at: SocketAddr) {
    let limit = std::time::Duration::from_secs(60);
    let refused = async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, refused).await.expect("closed");
}

fn web(rig: &Rig) {
    let probe = json!({"tcpSocket": {"port": 5000}});
    rig.deployment("web", 1, json!({"readinessProbe": probe}));
}

pub async fn node_port() {
    let rig = Rig::start().await;
    web(&rig);
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 5000}]});
    service(&rig, "web", spec);
    rig.until_ready("web").await;
    let port =
        rig.get(&kinds::SERVICE, "web").expect("there").value()["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .expect("allocated");
    let port = u16::try_from(port).expect("a port");
    // From this machine, on the project's address alone; from a pod, at the node's.
    let at = SocketAddr::from((rig.address, port));
    let answer = loop {
        // The listener comes a moment after the endpoint.
        match get(at, "/index.html").await {
            Ok(answer) => break answer,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    assert_eq!(answer, (200, "hello from web\n".into()));
    TcpStream::connect(("127.0.0.1", port))
        .await
        .expect_err("not on every address");
    let code = "import os,urllib.request; print(urllib.request.urlopen(f'http://{os.environ[\"NODE\"]}:{os.environ[\"WEB_NODE\"]}/index.html').read().decode().strip())";
    let node = json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
    rig.pod(
        "asker",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "web",
            "command": ["python3", "-c", code], "env": [node, {"name": "WEB_NODE", "value": port.to_string()}]}]}),
    );
    assert_eq!(rig.until_ended("asker").await, "hello from web\n");
    rig.cluster
        .store()
        .delete(&kinds::SERVICE, "default", "web")
        .expect("deleted");
    until_refused(at).await;
    rig.stop().await;
}

pub async fn load_balancer() {
    let rig = Rig::start().await;
    let answer = "import socket,threading
def carry(c):
    for line in c.makefile('rb'): c.sendall(line.upper())
s = socket.create_server(('', 5000))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 5000))
def echo():
    while True:
        what, who = u.recvfrom(9999); u.sendto(what.upper(), who)
threading.Thread(target=echo, daemon=True).start()
while True: threading.Thread(target=carry, args=(s.accept()[0],), daemon=True).start()";
    rig.deployment(
        "shout",
        1,
        json!({"command": ["python3", "-c", answer], "readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    let port = free_port(&rig);
    let ports = json!([
        {"name": "t", "port": port, "targetPort": 5000},
        {"name": "u", "port": port, "targetPort": 5000, "protocol": "UDP"},
    ]);
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "shout"}, "ports": ports});
    service(&rig, "shout", spec);
    until_balanced(&rig, "shout").await;
    rig.until_available("shout", 1).await;
    rig.until_ready("shout").await;

    let at = SocketAddr::from((rig.address, port));
    let socket = UdpSocket::bind((rig.address, 0)).await.expect("bound");
    socket.connect(at).await.expect("connected");
    let mut buffer = [0; 16];
    let asked = async {
        loop {
            socket.send(b"udp").await.expect("sent");
            let wait = std::time::Duration::from_millis(200);
            if let Ok(len) = tokio::time::timeout(wait, socket.recv(&mut buffer)).await {
                return len.expect("an answer");
            }
        }
    };
    let limit = std::time::Duration::from_secs(60);
    let len = tokio::time::timeout(limit, asked).await.expect("answered");
    assert_eq!(&buffer[..len], b"UDP");

    let mut stream = TcpStream::connect(at).await.expect("connects");
    let mut say = async |word: &str| {
        stream.write_all(word.as_bytes()).await.expect("written");
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).await.expect("an answer");
        String::from_utf8(heard).expect("text")
    };
    assert_eq!(say("one\n").await, "ONE\n");
    // A connection under way outlives the address that it came by.
    let store = rig.cluster.store();
    store
        .delete(&kinds::SERVICE, "default", "shout")
        .expect("deleted");
    until_refused(at).await;
    assert_eq!(say("two\n").await, "TWO\n");
    rig.stop().await;
}

pub async fn taken() {
    let rig = Rig::start().await;
    let spec = |port: u16| json!({"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": port}]});
    let port = free_port(&rig);
    service(&rig, "first", spec(port));
    until_balanced(&rig, "first").await;
    service(&rig, "second", spec(port));
    until_told(&rig, "Service default/first has it").await;
    let status =
        |name: &str| rig.get(&kinds::SERVICE, name).expect("there").value()["status"].clone();
    assert_eq!(status("second")["loadBalancer"]["ingress"], Value::Null);
    service(&rig, "third", spec(rig.ingress_own));
    until_told(&rig, "the Ingress listens there").await;
    // The first makes room, and the second needs no push.
    let store = rig.cluster.store();
    store
        .delete(&kinds::SERVICE, "default", "first")
        .expect("deleted");
    until_balanced(&rig, "second").await;
    // As a ClusterIP it has no address outside any more.
    store
        .update(&kinds::SERVICE, "default", "second", |s| {
            s["spec"]["type"] = json!("ClusterIP");
            Ok::<_, devenv_cluster::store::StoreError>(())
        })
        .expect("updated");
    rig.until(&kinds::SERVICE, "second", "no longer balanced", |s| {
        s.is_some_and(|s| s["status"]["loadBalancer"]["ingress"].is_null())
    })
    .await;
    rig.stop().await;
}

pub async fn endpoints() {
    let rig = Rig::start().await;
    web(&rig);
    service(
        &rig,
        "web",
        json!({"selector": {"app": "web"}, "ports": [{"port": 5000}]}),
    );
    rig.until_ready("web").await;
    let pod = rig.pods("web")[0].value()["status"]["podIP"].clone();
    rig.until(&kinds::ENDPOINTS, "web", "written", |e| {
        e.is_some_and(|e| e["subsets"][0]["addresses"][0]["ip"] == pod)
    })
    .await;
    service(&rig, "by-hand", json!({"ports": [{"port": 80}]}));
    rig.create(
        &kinds::ENDPOINTS,
        json!({"metadata": {"name": "by-hand", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": pod}], "ports": [{"port": 5000}]}]}),
    );
    let code = "import time,urllib.request
for _ in range(600):
    try: print(urllib.request.urlopen('http://by-hand/index.html').read().decode().strip()); break
    except OSError: time.sleep(0.05)";
    assert_eq!(
        rig.run("asker", &["python3", "-c", code]).await,
        "hello from web\n"
    );
    rig.stop().await;
}
