//! A course project as people have them: addresses and ports hard-coded, nothing said
//! of how it is run.

use devenv_tests::project::Project;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;

/// Answers on its hard-coded port with what it finds at the hard-coded address of its
/// database, and by the names that pods have.
const PROGRAM: &str = r#"const http = require("http"), net = require("net"), dns = require("dns").promises;

/** The version in the greeting that MySQL's protocol begins with. */
function greeting(host) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(3306, host);
    socket.once("error", reject);
    socket.once("data", (data) => {
      socket.destroy();
      resolve(data.subarray(5, data.indexOf(0, 5)).toString());
    });
  });
}

async function look() {
  return {
    ip: await greeting("34.66.1.2"),
    name: await greeting("cloudsql"),
    service: await (await fetch("http://api3-service:8080/self")).text(),
    srv: await dns.resolveSrv("_http._tcp.api3-service.course.svc.cluster.local"),
  };
}

http.createServer(async (request, response) => {
  if (request.url !== "/look") return response.end("itself");
  try {
    response.end(JSON.stringify(await look()));
  } catch (error) {
    response.writeHead(500).end(String(error.stack));
  }
}).listen(3000);
"#;

const CONFIG: &str = r#"[project]
name = "course"
namespace = "course"
manifests = ["k8s"]

[cloudsql]
version = "mysql:8.4"
database = "course"
user = "course"
also_at = ["34.66.1.2"]

[image."gcr.io/course/api3"]
source = "api3"
"#;

const MANIFESTS: &str = r"apiVersion: v1
kind: Namespace
metadata: {name: course}
---
apiVersion: v1
kind: Service
metadata: {name: cloudsql}
spec:
  ports: [{name: mysql, port: 3306}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api3}
spec:
  selector: {matchLabels: {app: api3}}
  template:
    metadata: {labels: {app: api3}}
    spec:
      containers:
      - name: api3
        image: gcr.io/course/api3:v3
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: api3-service}
spec:
  selector: {app: api3}
  ports: [{name: http, port: 8080, targetPort: 3000}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: course}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: api3-service, port: {number: 8080}}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn hard_coded_addresses_and_names_lead_where_production_leads() {
    let project = Project::empty();
    project.write("devenv.toml", CONFIG);
    project.write("k8s/course.yaml", MANIFESTS);
    project.write("api3/server.js", PROGRAM);
    project.write(
        "api3/package.json",
        r#"{"name": "api3", "version": "1.0.0", "main": "server.js", "scripts": {"start": "node server.js"}}"#,
    );
    project.up().await;
    let ingress = project.ingress().await;
    let answer = reqwest::get(format!("{ingress}/look"))
        .await
        .expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    assert_eq!(status, 200, "{text}");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let engine = project.status().await["database"]["version"].clone();
    let engine = engine.as_str().expect("the engine's version");
    assert!(
        found["ip"].as_str().expect("a greeting").contains(engine),
        "{found:#}"
    );
    assert_eq!(found["ip"], found["name"]);
    assert_eq!(found["service"], "itself");
    let srv = &found["srv"][0];
    assert_eq!(srv["port"], 8080, "{found:#}");
    assert_eq!(
        srv["name"], "api3-service.course.svc.cluster.local",
        "{found:#}"
    );

    // Nothing of it can be reached by an address of this machine that others have too.
    let base: SocketAddr = ingress
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .expect("an address");
    assert!(base.ip().is_loopback(), "{ingress}");
    let addresses = addresses();
    if addresses.is_empty() {
        println!("this machine has no address but loopback, so there is nothing to try");
    }
    let database = project.status().await["database"]["port"].as_u64();
    let database = u16::try_from(database.expect("a port")).expect("a port");
    for address in addresses {
        for port in [base.port(), 3000, database, 6443] {
            let connected = connect(format!("{address}:{port}")).await;
            let error = connected.expect_err("nobody listens there");
            assert_eq!(
                error.kind(),
                io::ErrorKind::ConnectionRefused,
                "{address}:{port}"
            );
        }
    }
}

async fn connect(to: String) -> io::Result<TcpStream> {
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, TcpStream::connect(to)).await?
}

/// The machine's IPv4 addresses that are not loopback.
fn addresses() -> Vec<String> {
    let output = Command::new("hostname")
        .arg("-I")
        .output()
        .expect("hostname is here");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|address| !address.contains(':') && !address.starts_with("127."))
        .map(str::to_owned)
        .collect()
}
