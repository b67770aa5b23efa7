//! What pods see of the cluster's network, asked with real programs.

use devenv_cluster::kinds;
use serde_json::json;

use crate::rig::Rig;

pub async fn service_links() {
    let rig = Rig::start().await;
    rig.service("first-one", 5000);
    let ip = rig
        .get(&kinds::SERVICE, "first-one")
        .expect("there")
        .value()["spec"]["clusterIP"]
        .as_str()
        .expect("allocated")
        .to_owned();
    let show = "env | grep -E '^(FIRST_ONE|KUBERNETES)_(SERVICE|PORT=)' | sort";
    let master = "KUBERNETES_PORT=tcp://10.96.0.1:443\nKUBERNETES_SERVICE_HOST=10.96.0.1\n\
                  KUBERNETES_SERVICE_PORT=443\nKUBERNETES_SERVICE_PORT_HTTPS=443\n";
    let own = format!(
        "FIRST_ONE_PORT=tcp://{ip}:5000\nFIRST_ONE_SERVICE_HOST={ip}\nFIRST_ONE_SERVICE_PORT=5000\n"
    );
    assert_eq!(
        rig.run("linked", &["sh", "-c", show]).await,
        format!("{own}{master}")
    );
    rig.pod(
        "plain",
        json!({"restartPolicy": "Never", "enableServiceLinks": false,
            "containers": [{"name": "c", "image": "web", "command": ["sh", "-c", show]}]}),
    );
    assert_eq!(rig.until_ended("plain").await, master);
    rig.stop().await;
}

pub async fn api() {
    let rig = Rig::start().await;
    let kubeconfig =
        std::fs::read_to_string(rig.dir.path().join(".devenv/kubeconfig")).expect("a kubeconfig");
    let (_, authority) = kubeconfig
        .split_once("certificate-authority-data: ")
        .expect("an authority");
    let authority = authority.lines().next().expect("a line").trim();
    // The certificate is checked for each name; without a token the answer is 401.
    let code = "import base64,ssl,sys,urllib.request,urllib.error
context = ssl.create_default_context(cadata=base64.b64decode(sys.argv[1]).decode())
for host in ['kubernetes.default', 'kubernetes.default.svc.cluster.local', '10.96.0.1']:
    for path in ['/readyz', '/api/v1/namespaces']:
        try: print(urllib.request.urlopen(f'https://{host}{path}', context=context).status)
        except urllib.error.HTTPError as e: print(e.code)";
    assert_eq!(
        rig.run("asker", &["python3", "-c", code, authority]).await,
        "200\n401\n".repeat(3)
    );
    rig.stop().await;
}

/// Answers datagrams with the pod's name.
const ECHO: &str = "import socket,os,sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', int(sys.argv[1])))
open('/tmp/ready', 'w')
while True:
    what, who = s.recvfrom(65535); s.sendto(os.environ['HOSTNAME'].encode() + b' ' + what[:20], who)";

/// Asks for an answer until there is one, then prints how many of 20 came from the address that was
/// asked and how many pods gave them.
const ASK: &str = "import socket,sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def ask(s, what):
    for _ in range(1200):
        try:
            s.send(what); return s.recv(65535)
        except OSError: pass
s = None
names = set(); answers = 0
for n in range(20):
    if s is None or n % count == 0:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.1); s.connect((host, port))
    name, what = ask(s, b'x' * 30000 if n == 7 else str(n).encode()).split()
    answers += what == (b'x' * 20 if n == 7 else str(n).encode()); names.add(name)
print(answers, len(names))";

pub async fn udp() {
    let rig = Rig::start().await;
    let spec = json!({"selector": {"app": "echo"}, "ports": [
        {"name": "u", "port": 53, "targetPort": "answers", "protocol": "UDP"}]});
    rig.create(
        &kinds::SERVICE,
        json!({"metadata": {"name": "echo", "namespace": "default"}, "spec": spec}),
    );
    // Nobody is there: the kernel says so at once, as kube-proxy's rules do.
    let refused = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('echo', 53))
s.send(b'x')
try: s.recv(9)
except OSError as e: print(type(e).__name__)";
    assert_eq!(
        rig.run("nobody", &["python3", "-c", refused]).await,
        "ConnectionRefusedError\n"
    );
    rig.deployment(
        "echo",
        2,
        json!({"command": ["python3", "-c", ECHO, "5353"],
            "ports": [{"name": "answers", "containerPort": 5353, "protocol": "UDP"}],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}}),
    );
    rig.until_available("echo", 2).await;
    // The status may be a moment ahead of the endpoints.
    rig.until(&kinds::ENDPOINT_SLICE, "echo-devenv", "ready", |s| {
        s.is_some_and(|s| (0..2).all(|n| s["endpoints"][n]["conditions"]["ready"] == true))
    })
    .await;
    // One socket is one client and keeps its pod; many go to both.
    let ask = |count: &'static str| ["python3", "-c", ASK, "echo", "53", count];
    assert_eq!(rig.run("one", &ask("20")).await, "20 1\n");
    assert_eq!(rig.run("many", &ask("2")).await, "20 2\n");
    rig.stop().await;
}

pub async fn ports() {
    let rig = Rig::start().await;
    let spec = json!({"selector": {"app": "web"}, "ports": [
        {"name": "plain", "port": 80, "targetPort": 5000},
        {"name": "named", "port": 81, "targetPort": "http"},
        {"name": "sidecar", "port": 82, "targetPort": "beside"},
        {"name": "datagrams", "port": 80, "targetPort": 5000, "protocol": "UDP"},
    ]});
    rig.create(
        &kinds::SERVICE,
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}),
    );
    let serve = |port: &str| json!(["python3", "-m", "http.server", port]);
    rig.create(
        &kinds::POD,
        json!({"metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "initContainers": [{"name": "side", "image": "web", "restartPolicy": "Always",
                    "command": serve("5001"), "ports": [{"name": "beside", "containerPort": 5001}]}],
                "containers": [
                    {"name": "c", "image": "web", "ports": [{"name": "http", "containerPort": 5000}],
                        "readinessProbe": {"tcpSocket": {"port": 5000}}},
                    {"name": "u", "image": "web", "command": ["python3", "-c", ECHO, "5000"],
                        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}},
                ],
            }}),
    );
    rig.until_ready("web").await;
    let code = "import urllib.request
for port in [80, 81, 82]: print(urllib.request.urlopen(f'http://web:{port}/index.html').read().decode().strip())";
    assert_eq!(
        rig.run("fetch", &["python3", "-c", code]).await,
        "hello from web\n".repeat(3)
    );
    let ask = ["python3", "-c", ASK, "web", "80", "2"];
    assert_eq!(rig.run("ask", &ask).await, "20 1\n");
    rig.stop().await;
}

pub async fn affinity() {
    let rig = Rig::start().await;
    let serve = "import http.server,os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['HOSTNAME'].encode())
http.server.HTTPServer(('', 5000), H).serve_forever()";
    rig.deployment(
        "who",
        3,
        json!({"command": ["python3", "-c", serve], "readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    let spec = json!({"selector": {"app": "who"}, "ports": [{"port": 80, "targetPort": 5000}]});
    let service = |name: &str, affinity: &str| {
        let mut spec = spec.clone();
        spec["sessionAffinity"] = json!(affinity);
        rig.create(
            &kinds::SERVICE,
            json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
    };
    service("sticky", "ClientIP");
    service("fickle", "None");
    rig.until_available("who", 3).await;
    for name in ["sticky-devenv", "fickle-devenv"] {
        rig.until(&kinds::ENDPOINT_SLICE, name, "ready", |s| {
            s.is_some_and(|s| (0..3).all(|n| s["endpoints"][n]["conditions"]["ready"] == true))
        })
        .await;
    }
    let code = "import urllib.request,sys,time
def ask():
    for _ in range(600):
        try: return urllib.request.urlopen(f'http://{sys.argv[1]}').read()
        except OSError: time.sleep(0.05)
print(len({ask() for _ in range(30)}))";
    let ask = |service: &'static str| ["python3", "-c", code, service];
    assert_eq!(rig.run("ask-sticky", &ask("sticky")).await, "1\n");
    assert_eq!(rig.run("ask-fickle", &ask("fickle")).await, "3\n");
    rig.stop().await;
}

pub async fn names() {
    let rig = Rig::start().await;
    rig.create(
        &kinds::SERVICE,
        json!({"metadata": {"name": "peers", "namespace": "default"}, "spec": {
            "clusterIP": "None", "selector": {"app": "peers"}, "ports": [{"name": "http", "port": 5000}]}}),
    );
    let peer = |name: &str, command: serde_json::Value, probe: serde_json::Value| {
        rig.create(
            &kinds::POD,
            json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": "peers"}},
                "spec": {"hostname": name, "subdomain": "peers",
                    "containers": [{"name": "c", "image": "web", "command": command, "readinessProbe": probe}]}}),
        );
    };
    let serve = json!(["python3", "-m", "http.server", "5000"]);
    peer("one", serve.clone(), json!({"tcpSocket": {"port": 5000}}));
    peer("never", serve, json!({"tcpSocket": {"port": 1}}));
    for (name, target) in [
        ("alias", "one.peers.default.svc.cluster.local"),
        ("host", "host.docker.internal"),
    ] {
        rig.create(
            &kinds::SERVICE,
            json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"type": "ExternalName", "externalName": target}}),
        );
    }
    rig.until(&kinds::ENDPOINT_SLICE, "peers-devenv", "ready", |s| {
        let endpoints = s.and_then(|s| s["endpoints"].as_array());
        endpoints.is_some_and(|all| {
            all.len() == 2 && all.iter().any(|e| e["conditions"]["ready"] == true)
        })
    })
    .await;
    let one = rig.get(&kinds::POD, "one").expect("there").value()["status"]["podIP"]
        .as_str()
        .expect("an address")
        .to_owned();
    // The C library's own resolver, with the search path that the pod was given.
    let show = "for name in peers one.peers alias host; do getent ahostsv4 $name | awk '{print $1}' | sort -u | tr '\\n' ' '; done
getent hosts $1 | awk '{print $2}'; getent ahostsv4 never.peers || echo none";
    assert_eq!(
        rig.run("getent", &["sh", "-c", show, "sh", &one]).await,
        format!("{one} {one} {one} 169.254.1.2 one.peers.default.svc.cluster.local\nnone\n")
    );
    // Node.js asks by itself, past the C library.
    let code = "const dns = require('dns').promises;
(async () => {
  for (const [kind, name] of [['SRV', '_http._tcp.peers.default.svc.cluster.local'], ['A', 'kubernetes.default.svc.cluster.local'],
      ['CNAME', 'alias.default.svc.cluster.local'], ['SRV', '_https._tcp.kubernetes.default.svc.cluster.local']])
    console.log(JSON.stringify(await dns.resolve(name, kind)));
  console.log((await dns.reverse('10.96.0.1'))[0]);
  await dns.resolve('nope.default.svc.cluster.local').catch(e => console.log(e.code));
})()";
    assert_eq!(
        rig.run("node", &["node", "-e", code]).await,
        "[{\"name\":\"one.peers.default.svc.cluster.local\",\"port\":5000,\"priority\":0,\"weight\":100}]\n\
         [\"10.96.0.1\"]\n\
         [\"one.peers.default.svc.cluster.local\"]\n\
         [{\"name\":\"kubernetes.default.svc.cluster.local\",\"port\":443,\"priority\":0,\"weight\":100}]\n\
         kubernetes.default.svc.cluster.local\n\
         ENOTFOUND\n"
    );
    rig.stop().await;
}
