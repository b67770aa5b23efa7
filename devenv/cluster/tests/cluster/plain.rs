//! Pods where namespaces are forbidden: their ports, names, files and end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devenv_cluster::{Isolation, ServicePort, kinds};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::http::get;
use crate::rig::{Folder, PATIENCE, Rig};

/// A server that heeds `PORT` and tells who it is; with an argument it listens there instead.
const SERVER: &str = "import http.server,os,sys
class H(http.server.BaseHTTPRequestHandler):
  def do_GET(s):
    s.send_response(200); s.end_headers()
    s.wfile.write((os.environ.get('V','') + ' ' + os.environ['HOSTNAME']).encode())
  def log_message(s, *a): print('asked', flush=True)
port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ['PORT'])
http.server.ThreadingHTTPServer(('', port), H).serve_forever()";
const FETCH: &str =
    "import urllib.request,sys; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
/// What the processes of a run directory have in their environment.
const MARKER: &str = "DEVENV_RUN_DIR";

async fn rig() -> Rig {
    Rig::start_as(Isolation::Ports).await
}

fn heeds(version: &str) -> Value {
    json!({
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "V", "value": version}],
        "ports": [{"name": "http", "containerPort": 5000}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    })
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn fixed(version: &str, port: u16) -> Value {
    json!({
        "command": ["python3", "-c", SERVER, port.to_string()],
        "env": [{"name": "V", "value": version}],
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    })
}

impl Rig {
    fn give_anew(&self, name: &str, container: Value) {
        let store = self.cluster.store();
        store
            .update(&kinds::DEPLOYMENT, "default", name, |d| {
                let new = &mut d["spec"]["template"]["spec"]["containers"][0];
                for (key, value) in container.as_object().into_iter().flatten() {
                    new[key] = value.clone();
                }
                d["metadata"]["generation"] =
                    json!(d["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
                // As the API does.
                devenv_cluster::api::defaults::apply(&kinds::DEPLOYMENT, d);
                Ok(())
            })
            .expect("edited");
    }

    fn has_event(&self, reason: &str, text: &str) -> bool {
        let wanted = format!("\"{reason}\"");
        let events = self.events();
        events
            .iter()
            .any(|e| e.contains(&wanted) && e.contains(text))
    }
}

pub async fn reached() {
    let rig = rig().await;
    assert!(
        rig.cluster.notes()[0].contains("plain processes"),
        "{:?}",
        rig.cluster.notes()
    );
    rig.service("web", 5000);
    rig.ingress("web", 5000);
    rig.deployment("web", 2, heeds("1"));
    rig.until_available("web", 2).await;
    let mut names: Vec<String> = Vec::new();
    while names.len() < 2 {
        let (status, who) = get(rig.ingress, "/").await.expect("an answer");
        assert_eq!(status, 200);
        if !names.contains(&who) {
            names.push(who);
        }
    }
    // By every form of its name, and by its address, from another pod.
    let service = rig.get(&kinds::SERVICE, "web").expect("there");
    let ip = service.value()["spec"]["clusterIP"]
        .as_str()
        .expect("one")
        .to_owned();
    for (n, host) in ["web", "web.default", "web.default.svc.cluster.local", &ip]
        .iter()
        .enumerate()
    {
        let url = format!("http://{host}:5000/");
        let said = rig
            .run(&format!("fetch-{n}"), &["python3", "-c", FETCH, &url])
            .await;
        assert!(said.starts_with("1 web-"), "{said}");
    }
    // A roll-out of a program that heeds PORT has no gap.
    rig.give_anew("web", heeds("2"));
    let mut seen = String::new();
    while !seen.starts_with('2') {
        let (status, body) = get(rig.ingress, "/").await.expect("an answer");
        assert_eq!(status, 200);
        seen = body;
    }
    rig.until_available("web", 2).await;
    assert!(!rig.has_event("TakingTurns", ""), "{:?}", rig.events());
    // What the one that answered prints meanwhile is kept.
    let pod = seen.split_whitespace().nth(1).expect("VERSION NAME");
    let printed = async {
        while !rig.log_of(pod, false).await.contains("asked") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, printed)
        .await
        .expect("it prints that it was asked");
    rig.stop().await;
}

pub async fn takes_turns() {
    let rig = rig().await;
    let port = free_port();
    rig.service("web", port);
    rig.deployment("web", 1, fixed("1", port));
    rig.until_available("web", 1).await;
    let addr = forwarded(&rig, "web", port).await;
    for version in ["2", "3"] {
        rig.give_anew("web", fixed(version, port));
        rig.until_available("web", 1).await;
        let begin = Instant::now();
        let (_, body) = loop {
            match get(addr, "/").await {
                Ok(answer) => break answer,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
            }
        };
        assert!(body.starts_with(version), "{body}");
    }
    assert!(rig.has_event("TakingTurns", "PORT"), "{:?}", rig.events());
    assert!(!rig.has_event("PortInUse", ""), "{:?}", rig.events());
    // A second replica cannot be had, and is told who is in its way; the first one serves.
    let first = rig.pods("web").remove(0);
    rig.cluster
        .store()
        .update(&kinds::DEPLOYMENT, "default", "web", |d| {
            d["spec"]["replicas"] = json!(2);
            Ok(())
        })
        .expect("scaled");
    let mut watch = rig
        .cluster
        .store()
        .watch(&[&kinds::EVENT], None)
        .expect("watched");
    let holder = format!("port {port} was held by pod default/{}", first.name());
    let told = async {
        while !rig.has_event("PortInUse", &holder) {
            watch.next().await.expect("open");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told)
        .await
        .unwrap_or_else(|_| panic!("{:#?}", rig.events()));
    assert!(get(addr, "/").await.expect("an answer").1.starts_with('3'));
    rig.stop().await;
}

async fn forwarded(rig: &Rig, service: &str, port: u16) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    rig.cluster
        .forward(
            listener,
            ServicePort {
                namespace: "default".into(),
                service: service.into(),
                port,
            },
        )
        .await
        .expect("forwarded");
    addr
}

pub async fn configured() {
    let rig = rig().await;
    rig.create(&kinds::CONFIG_MAP, json!({"metadata": {"name": "cm", "namespace": "default"}, "data": {"file.txt": "content"}}));
    rig.create(&kinds::SECRET, json!({"metadata": {"name": "s", "namespace": "default"}, "stringData": {"PASSWORD": "hunter2"}}));
    let volumes = json!([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
        {"name": "cache", "emptyDir": {}},
    ]);
    let mounts = json!([
        {"name": "cm", "mountPath": "/etc/cm"}, {"name": "secret", "mountPath": "/s"},
        {"name": "cache", "mountPath": "/tmp"},
    ]);
    let script = "cat $CONFIG; echo; cat /s/PASSWORD; echo; stat -Lc %a /s/PASSWORD; echo x > $TMPDIR/note; cat /tmp/note; pwd; echo $PORT $HOST";
    let container = json!({
        "name": "c", "image": "web", "command": ["sh", "-c", script], "volumeMounts": mounts,
        "env": [
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "PASSWORD"}}},
            {"name": "CONFIG", "value": "/etc/cm/file.txt"},
        ],
    });
    rig.pod(
        "configured",
        json!({"restartPolicy": "Never", "volumes": volumes, "containers": [container]}),
    );
    let log = rig.until_ended("configured").await;
    let lines: Vec<&str> = log.lines().collect();
    let web = rig.web().display().to_string();
    assert_eq!(
        lines[..5],
        ["content", "hunter2", "400", "x", &web],
        "{log}"
    );
    // Of the project's own range.
    let [_, a, b, _] = rig.address.octets();
    let pods = format!("127.{a}.{b}.");
    let (port, host) = lines[5].split_once(' ').expect("both");
    assert!(
        port.parse::<u16>().is_ok() && host.starts_with(&pods),
        "{log}"
    );

    // A mount that nothing names: the container says so, and starts once one is named.
    let unnamed = json!({"name": "c", "image": "web", "command": ["sleep", "1000"],
        "volumeMounts": [{"name": "cm", "mountPath": "/etc/cm"}]});
    rig.pod(
        "unnamed",
        json!({"volumes": volumes, "containers": [unnamed]}),
    );
    rig.until(&kinds::POD, "unnamed", "refused", |p| {
        p.is_some_and(|p| {
            let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError"
                && waiting["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("/etc/cm"))
        })
    })
    .await;
    rig.stop().await;
}

pub async fn probed_and_restarted() {
    let rig = rig().await;
    let mut web = heeds("1");
    web["readinessProbe"] = json!({
        "exec": {"command": ["sh", "-c", "python3 -c \"import urllib.request; urllib.request.urlopen('http://localhost:5000/')\""]},
        "periodSeconds": 1, "timeoutSeconds": 10,
    });
    web["startupProbe"] =
        json!({"tcpSocket": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 60});
    rig.deployment("web", 1, web);
    rig.until_available("web", 1).await;
    let pod = rig.pods("web").remove(0);
    let marked = processes_of(&rig, pod.name());
    kill(marked[0], Signal::SIGKILL).expect("killed");
    rig.until(&kinds::POD, pod.name(), "restarted and ready", |p| {
        p.is_some_and(|p| {
            let status = &p["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && status["ready"] == true
        })
    })
    .await;
    rig.deployment("broken", 1, json!({"command": ["no-such-program"]}));
    rig.until(&kinds::DEPLOYMENT, "broken", "made", |d| {
        d.is_some_and(|d| d["status"]["replicas"] == 1)
    })
    .await;
    let broken = rig.pods("broken").remove(0);
    rig.until(&kinds::POD, broken.name(), "in a crash loop", |p| {
        p.is_some_and(|p| {
            p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
    })
    .await;
    // A deleted pod is gone with its folder.
    let ip = pod.value()["status"]["podIP"]
        .as_str()
        .expect("one")
        .replace('.', "-");
    rig.cluster
        .store()
        .delete(&kinds::DEPLOYMENT, "default", "web")
        .expect("deleted");
    rig.until(&kinds::POD, pod.name(), "gone", |p| p.is_none())
        .await;
    let folders = rig.dir.path().join(".devenv/run/plain");
    assert!(folders.exists());
    // Whoever probed it may hold it a moment longer.
    let begin = Instant::now();
    while folders.join(&ip).exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "its folder stays"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(processes_of(&rig, pod.name()), []);
    rig.stop().await;
}

/// The processes of a pod that kept their environment.
fn processes_of(rig: &Rig, pod: &str) -> Vec<Pid> {
    let run_dir = rig.dir.path().join(".devenv/run/netd");
    let host = format!("HOSTNAME={pod}\0");
    marked(&run_dir.canonicalize().expect("there").display().to_string())
        .into_iter()
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&host)
        })
        .collect()
}

fn marked(run_dir: &str) -> Vec<Pid> {
    let entry = format!("{MARKER}={run_dir}");
    let processes = std::fs::read_dir("/proc").expect("there").flatten();
    processes
        .filter_map(|p| p.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|b| *b == 0)
                .any(|e| e == entry.as_bytes())
        })
        .map(Pid::from_raw)
        .collect()
}

/// The supervisor that is killed: three pods whose programs do what they can to live on.
pub async fn tree(dir: &str) {
    let dir = Arc::new(Folder::of_another(dir.as_ref()));
    let rig = Rig::start_in_as(dir, Isolation::Ports).await;
    let stubborn = "trap '' TERM INT HUP; setsid sleep 876543 & (setsid nohup sleep 876543 >/dev/null 2>&1 &); while :; do sleep 876543; done";
    // An earlier round may have made them.
    if rig.get(&kinds::DEPLOYMENT, "stubborn").is_none() {
        rig.deployment("stubborn", 2, json!({"command": ["sh", "-c", stubborn]}));
    }
    if rig.get(&kinds::DEPLOYMENT, "web").is_none() {
        rig.deployment("web", 1, heeds("1"));
    }
    rig.until_available("web", 1).await;
    rig.until_available("stubborn", 2).await;
    println!("up");
    std::future::pending::<()>().await;
}

pub async fn killed_leaves_nothing() {
    let dir = Folder::new();
    let run_dir = dir.path().join(".devenv/run/netd");
    for round in 0..6 {
        let mut supervisor = Command::new(std::env::current_exe().expect("known"))
            .arg("plain-tree")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        if round % 2 == 0 {
            let out = supervisor.stdout.take().expect("piped");
            let mut lines = BufReader::new(out).lines();
            assert!(
                lines.any(|line| line.expect("text") == "up"),
                "round {round}"
            );
            // Two shells with three sleeps each, and the server.
            assert!(marked(&run_dir.display().to_string()).len() > 2 * 4);
        } else {
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
        }
        supervisor.kill().expect("killed");
        supervisor.wait().expect("reaped");
        let begin = Instant::now();
        let run_dir = run_dir.canonicalize().map(|d| d.display().to_string());
        // Killed before it made anything.
        let Ok(run_dir) = run_dir else { continue };
        let mut clean = 0;
        while clean < 3 {
            let left = marked(&run_dir);
            clean = if left.is_empty() { clean + 1 } else { 0 };
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "round {round}: {left:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // The next start finds its store, and works.
    let rig = Rig::start_in_as(Arc::new(dir), Isolation::Ports).await;
    rig.until_available("web", 1).await;
    rig.stop().await;
}

/// Runs the scenarios of this module in a user namespace in which none can be made, so that the
/// cluster falls back by itself; as the present user and, for root, as another.
pub async fn falls_back() {
    let exe = std::env::current_exe().expect("known");
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- {} --exact plain::forbidden",
        exe.display()
    );
    let unshared = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        &script,
    ];
    let output = Command::new(unshared[0])
        .args(&unshared[1..])
        .env("DEVENV_FORBIDDEN", "1")
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no unshare program");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

/// The part of [`falls_back`] that runs where namespaces are forbidden.
pub async fn forbidden() {
    if std::env::var_os("DEVENV_FORBIDDEN").is_none() {
        return;
    }
    let rig = Rig::start_as(Isolation::Auto).await;
    let note = rig.cluster.notes().join("\n");
    assert!(
        note.contains("user.max_user_namespaces = 0 forbids namespaces")
            && note.contains("sudo sysctl -w user.max_user_namespaces=15000"),
        "{note}"
    );
    // Low ports are reserved here: the Service is at another, and those who ask for it by name are led there.
    rig.service("web", 80);
    rig.cluster
        .store()
        .update(&kinds::SERVICE, "default", "web", |s| {
            s["spec"]["ports"][0]["targetPort"] = json!("http");
            Ok(())
        })
        .expect("updated");
    rig.deployment("web", 2, heeds("1"));
    rig.until_available("web", 2).await;
    let said = rig
        .run("fetch", &["python3", "-c", FETCH, "http://web/"])
        .await;
    assert!(said.starts_with("1 web-"), "{said}");
    rig.stop().await;
}
