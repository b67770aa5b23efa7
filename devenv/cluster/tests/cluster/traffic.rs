//! Ways into the cluster and through it.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use devenv_cluster::kinds;
use serde_json::json;
use tokio::net::TcpStream;

use crate::http::{Client, get};
use crate::rig::{Rig, port_of};

const FETCH: &str =
    "import urllib.request,sys; print(urllib.request.urlopen(sys.argv[1]).read().decode())";

pub async fn reached() {
    let begin = Instant::now();
    let rig = Rig::start().await;
    println!("cluster started in {:?}", begin.elapsed());
    rig.ingress("web", 5000);
    rig.service("web", 5000);
    let begin = Instant::now();
    let probe = json!({"httpGet": {"path": "/", "port": 5000}});
    rig.deployment("web", 2, json!({"readinessProbe": probe}));
    rig.until_available("web", 2).await;
    println!(
        "two replicas of python's http.server available in {:?}",
        begin.elapsed()
    );
    assert_eq!(
        get(rig.ingress, "/").await.expect("an answer"),
        (200, "hello from web\n".into())
    );
    let ingress = rig.get(&kinds::INGRESS, "web").expect("there");
    assert_eq!(
        ingress.value()["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "127.9.9.9"}])
    );

    // By name from another pod: short, with the search path's forms, and in full.
    for (n, host) in ["web", "web.default", "web.default.svc.cluster.local"]
        .iter()
        .enumerate()
    {
        let url = format!("http://{host}:5000/index.html");
        assert_eq!(
            rig.run(&format!("fetch-{n}"), &["python3", "-c", FETCH, &url])
                .await
                .trim(),
            "hello from web"
        );
    }
    // Both replicas get connections through the ClusterIP.
    let service = rig.get(&kinds::SERVICE, "web").expect("there");
    let ip = service.value()["spec"]["clusterIP"]
        .as_str()
        .expect("allocated")
        .parse()
        .expect("an address");
    for n in 0..4 {
        let stream = rig
            .cluster
            .connect(SocketAddrV4::new(ip, 5000))
            .await
            .expect("connects");
        let mut client = Client::over(stream, "x").await.expect("speaks");
        assert_eq!(
            client
                .get(&format!("/index.html?n={n}"))
                .await
                .expect("an answer")
                .0,
            200
        );
    }
    for pod in rig.pods("web") {
        rig.cluster
            .store()
            .mark_deleted(&kinds::POD, "default", pod.name(), 1)
            .expect("marked");
        let log = rig.log(pod.name()).await;
        assert_eq!(log.matches("?n=").count(), 2, "{log}");
    }
    rig.stop().await;
}

pub async fn rolling_update() {
    let rig = Rig::start().await;
    let probe = json!({"httpGet": {"path": "/", "port": 5000}});
    rig.deployment("web", 2, json!({"readinessProbe": probe}));
    rig.service("web", 5000);
    rig.ingress("web", 5000);
    rig.until_available("web", 2).await;

    let (stop, good) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let ingress = rig.ingress;
    let users: Vec<_> = (0..4)
        .map(|_| {
            let (stop, good) = (stop.clone(), good.clone());
            tokio::spawn(async move {
                let mut bad = Vec::new();
                let stream = TcpStream::connect(ingress).await.expect("connects");
                let mut client = Client::over(stream, "test.local").await.expect("speaks");
                while !stop.load(Ordering::Relaxed) {
                    match client.get("/index.html").await {
                        Ok((200, _)) => {
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        other => {
                            bad.push(format!("{other:?}"));
                            break;
                        }
                    }
                }
                bad
            })
        })
        .collect();
    for version in 1..=3 {
        let before: Vec<String> = rig
            .pods("web")
            .iter()
            .map(|p| p.name().to_owned())
            .collect();
        let begin = Instant::now();
        rig.cluster
            .store()
            .update(&kinds::DEPLOYMENT, "default", "web", |d| {
                d["spec"]["template"]["metadata"]["annotations"] =
                    json!({"version": version.to_string()});
                Ok(())
            })
            .expect("updated");
        rig.until_available("web", 2).await;
        println!("rolling update {version} took {:?}", begin.elapsed());
        assert!(
            rig.pods("web")
                .iter()
                .all(|p| !before.contains(&p.name().to_owned()) || p.is_deleting()),
            "{before:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for user in users {
        let bad = user.await.expect("no panic");
        assert!(bad.is_empty(), "{bad:?}");
    }
    println!("{} requests, none failed", good.load(Ordering::Relaxed));
    assert!(good.load(Ordering::Relaxed) > 100);
    let deployment = rig.get(&kinds::DEPLOYMENT, "web").expect("there");
    assert_eq!(
        deployment.value()["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "4"
    );
    rig.stop().await;
}

pub async fn refuses() {
    let rig = Rig::start().await;
    rig.service("nobody", 80);
    let code = "import socket\nfor target in ['nobody', 'nowhere']:\n  try: socket.create_connection((target, 80), 5)\n  except Exception as e: print(type(e).__name__)";
    assert_eq!(
        rig.run("asker", &["python3", "-c", code]).await,
        "ConnectionRefusedError\ngaierror\n"
    );
    assert_eq!(get(rig.ingress, "/").await.expect("an answer").0, 404);
    rig.ingress("nobody", 80);
    rig.until(&kinds::INGRESS, "nobody", "given an address", |i| {
        i.is_some_and(|i| i["status"]["loadBalancer"]["ingress"][0].is_object())
    })
    .await;
    assert_eq!(get(rig.ingress, "/").await.expect("an answer").0, 503);
    rig.stop().await;
}

pub async fn forwarded() {
    let rig = Rig::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    rig.cluster
        .forward(listener, port_of("web", 5000))
        .await
        .expect("forwarded");
    get(addr, "/").await.expect_err("nobody is there yet");
    rig.service("web", 5000);
    rig.deployment(
        "web",
        1,
        json!({"readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    rig.until_ready("web").await;
    assert_eq!(get(addr, "/").await.expect("an answer").0, 200);
    rig.stop().await;
}

/// Sends what it is given in small letters, and prints the answer.
const SHOUT: &str = "import socket,sys
s=socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.sendall(b'hello'); s.shutdown(socket.SHUT_WR); print(s.makefile().read())";

/// Answers each connection in capitals.
async fn shouting(address: std::net::IpAddr) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind((address, 0))
        .await
        .expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = String::new();
            stream
                .read_to_string(&mut asked)
                .await
                .expect("read to the half-close");
            stream
                .write_all(asked.to_uppercase().as_bytes())
                .await
                .expect("written");
        }
    });
    port
}

pub async fn way_out() {
    let rig = Rig::start().await;
    // An address of this machine that is not in the pod's own loopback: where a route to the outside leaves from.
    let Some(host) = outside_address() else {
        println!("skipped: this machine has no address beside loopback");
        return rig.stop().await;
    };
    let port = shouting(host).await;
    let (host, port) = (host.to_string(), port.to_string());
    let asked = ["python3", "-c", SHOUT, &host, &port];
    assert_eq!(rig.run("out", &asked).await.trim(), "HELLO");
    // A Service whose endpoint is another machine: what stands outside is reached by a name inside.
    rig.create(
        &kinds::SERVICE,
        json!({"metadata": {"name": "elsewhere", "namespace": "default"}, "spec": {"ports": [{"port": 7}]}}),
    );
    let port: u16 = port.parse().expect("a number");
    rig.create(
        &kinds::ENDPOINT_SLICE,
        json!({"metadata": {"name": "elsewhere", "namespace": "default", "labels": {"kubernetes.io/service-name": "elsewhere"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [host]}], "ports": [{"port": port}]}),
    );
    // The listener comes a moment after the objects.
    let patient = format!(
        "import socket,time\nfor _ in range(600):\n  try: socket.create_connection(('elsewhere', 7)); break\n  except OSError: time.sleep(0.05)\n{SHOUT}"
    );
    let asked = ["python3", "-c", &patient, "elsewhere", "7"];
    assert_eq!(rig.run("by-name", &asked).await.trim(), "HELLO");
    rig.stop().await;
}

pub async fn host_loopback() {
    let rig = Rig::start().await;
    let v4 = shouting([127, 0, 0, 1].into()).await.to_string();
    for (n, name) in ["host.devenv.internal", "host.docker.internal"]
        .iter()
        .enumerate()
    {
        let asked = ["python3", "-c", SHOUT, name, &v4];
        assert_eq!(rig.run(&format!("v4-{n}"), &asked).await.trim(), "HELLO");
    }
    // Without a listener there, and at loopback addresses, nobody answers.
    let code = "import socket,sys
for host in ['host.devenv.internal', '127.0.0.1']:
    try: print(socket.create_connection((host, int(sys.argv[1])), 10).recv(1))
    except OSError as e: print(type(e).__name__)";
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    assert_eq!(
        rig.run("nobody", &["python3", "-c", code, &port]).await,
        "ConnectionResetError\nConnectionRefusedError\n"
    );
    rig.stop().await;
}

pub async fn also_at() {
    let rig = Rig::start().await;
    rig.service("web", 5000);
    rig.deployment(
        "web",
        1,
        json!({"readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    rig.until_ready("web").await;
    let url = "http://34.66.1.2:3306/index.html";
    assert_eq!(
        rig.run("hard-coded", &["python3", "-c", FETCH, url])
            .await
            .trim(),
        "hello from web"
    );
    let code = "import socket
try: print(socket.create_connection(('34.66.1.2', 3307), 10).recv(1))
except OSError as e: print(type(e).__name__)";
    assert_eq!(
        rig.run("other-port", &["python3", "-c", code]).await,
        "ConnectionResetError\n"
    );
    rig.stop().await;
}

/// An address of this machine that others would reach it at. Nothing is sent.
fn outside_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback()).then_some(ip)
}
