//! What containers are given and what becomes of them.

use std::time::Instant;

use devenv_cluster::kinds;
use serde_json::json;

use crate::http::get;
use crate::rig::Rig;

pub async fn killed() {
    let rig = Rig::start().await;
    rig.deployment(
        "web",
        1,
        json!({"readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    rig.until_available("web", 1).await;
    let pod = rig.pods("web").remove(0);
    let begin = Instant::now();
    rig.kill(pod.name());
    rig.until(&kinds::POD, pod.name(), "restarted and ready", |p| {
        p.is_some_and(|p| {
            let status = &p["status"];
            status["containerStatuses"][0]["restartCount"] == 1
                && status["containerStatuses"][0]["ready"] == true
                && status["podIP"] == pod.value()["status"]["podIP"]
        })
    })
    .await;
    println!("killed, restarted and ready again in {:?}", begin.elapsed());
    let last = rig.get(&kinds::POD, pod.name()).expect("there");
    let last = &last.value()["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (last["exitCode"].as_i64(), last["signal"].as_i64()),
        (Some(137), Some(9))
    );
    rig.stop().await;
}

pub async fn configured() {
    let rig = Rig::start().await;
    rig.create(&kinds::CONFIG_MAP, json!({"metadata": {"name": "cm", "namespace": "default"}, "data": {"KEY": "value", "file.txt": "content"}}));
    rig.create(&kinds::SECRET, json!({"metadata": {"name": "s", "namespace": "default"}, "stringData": {"PASSWORD": "hunter2"}}));
    let host = rig.dir.path().join("data");
    rig.pod(
        "configured",
        json!({
            "restartPolicy": "Never",
            "volumes": [
                {"name": "cm", "configMap": {"name": "cm"}},
                {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
                {"name": "cache", "emptyDir": {}},
                {"name": "data", "hostPath": {"path": host, "type": "DirectoryOrCreate"}},
            ],
            "initContainers": [{"name": "init", "image": "web", "command": ["sh", "-c", "echo from init > /cache/note"],
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}],
            "containers": [{
                "name": "c", "image": "web",
                "env": [
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "PASSWORD"}}},
                    {"name": "URL", "value": "db://$(PW)@$(IP)"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "cm"}}],
                "command": ["sh", "-c"],
                "args": ["echo $PW $URL $KEY; cat /etc/cm/file.txt /s/PASSWORD; echo; stat -Lc %a /s/PASSWORD; cat /cache/note; \
                    hostname; echo kept > /data/kept; grep -c nameserver /etc/resolv.conf; touch /etc/cm/x 2>&1 | head -c0; pwd"],
                "volumeMounts": [
                    {"name": "cm", "mountPath": "/etc/cm"}, {"name": "secret", "mountPath": "/s"},
                    {"name": "cache", "mountPath": "/cache"}, {"name": "data", "mountPath": "/data"},
                ],
            }],
        }),
    );
    let log = rig.until_ended("configured").await;
    let web = rig.web().display().to_string();
    let expected = [
        "hunter2 db://hunter2@$(IP) value",
        "contenthunter2",
        "400",
        "from init",
        "configured",
        "1",
        &web,
    ];
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        std::fs::read_to_string(host.join("kept")).expect("written"),
        "kept\n"
    );
    rig.stop().await;
}

/// Follows a file of a volume as programs do that reload their configuration: prints what it holds
/// whenever the directory's `..data` is renamed, until it holds `end`. The pod's labels, in another
/// volume, may come later than that, and are waited for the same way.
const FOLLOW: &str = "import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
IN_MOVED_TO = 0x80
def watch(folder):
    fd = libc.inotify_init(); assert fd >= 0
    assert libc.inotify_add_watch(fd, folder, IN_MOVED_TO) >= 0
    return fd
fd, labels = watch(b'/etc/cm'), watch(b'/info')
def show():
    text = open('/etc/cm/file.txt').read(); print(text, flush=True); return text
text = show()
while text != 'end':
    events = os.read(fd, 4096)
    name = events[16:16 + struct.unpack('iIII', events[:16])[3]].rstrip(b'\\0').decode()
    print(name, flush=True); text = show()
while 'changed' not in open('/info/labels').read(): os.read(labels, 4096)
print(open('/one/file.txt').read(), open('/info/labels').read(), os.path.exists('/token/token'))
try: open('/etc/cm/file.txt', 'w')
except OSError as e: print(e.strerror)
try: open('/one/file.txt', 'w')
except OSError as e: print(e.strerror)";

pub async fn live() {
    let rig = Rig::start().await;
    rig.create(
        &kinds::CONFIG_MAP,
        json!({"metadata": {"name": "cm", "namespace": "default"}, "data": {"file.txt": "begin"}}),
    );
    rig.create(
        &kinds::POD,
        json!({"metadata": {"name": "live", "namespace": "default", "labels": {"app": "live"}}, "spec": {
            "restartPolicy": "Never",
            "volumes": [
                {"name": "cm", "configMap": {"name": "cm"}},
                {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
            "containers": [{"name": "c", "image": "web", "command": ["python3", "-c", FOLLOW], "volumeMounts": [
                {"name": "cm", "mountPath": "/etc/cm"},
                {"name": "cm", "mountPath": "/one/file.txt", "subPath": "file.txt"},
                {"name": "info", "mountPath": "/info"},
                {"name": "token", "mountPath": "/token"},
            ]}],
        }}),
    );
    rig.until(&kinds::POD, "live", "running", |p| {
        p.is_some_and(|p| p["status"]["phase"] == "Running")
    })
    .await;
    let store = rig.cluster.store();
    let label = |pod: &mut serde_json::Value| {
        pod["metadata"]["labels"]["app"] = json!("changed");
        Ok::<_, devenv_cluster::store::StoreError>(())
    };
    rig.until_logged("live", "begin\n").await;
    store
        .update(&kinds::POD, "default", "live", label)
        .expect("updated");
    let mut expected = String::from("begin\n");
    for text in ["middle", "end"] {
        store
            .update(&kinds::CONFIG_MAP, "default", "cm", |cm| {
                cm["data"]["file.txt"] = json!(text);
                Ok::<_, devenv_cluster::store::StoreError>(())
            })
            .expect("updated");
        expected.push_str(&format!("..data\n{text}\n"));
        if text == "middle" {
            rig.until_logged("live", &expected).await;
        }
    }
    expected
        .push_str("begin app=\"changed\" False\nRead-only file system\nRead-only file system\n");
    assert_eq!(rig.until_ended("live").await, expected);
    let told = rig.events().join("\n");
    assert!(
        told.contains("tokens of service accounts are not made here"),
        "{told}"
    );
    rig.stop().await;
}

pub async fn probed() {
    let rig = Rig::start().await;
    let probe = |action: serde_json::Value| {
        let mut probe = action;
        probe["periodSeconds"] = json!(1);
        json!({"readinessProbe": probe})
    };
    rig.deployment(
        "http",
        1,
        probe(json!({"httpGet": {"path": "/index.html", "port": 5000}})),
    );
    rig.deployment(
        "exec",
        1,
        probe(json!({"exec": {"command": ["sh", "-c", "test -f index.html"]}})),
    );
    rig.deployment(
        "missing",
        1,
        probe(json!({"httpGet": {"path": "/nope", "port": 5000}})),
    );
    // As Kubernetes' own documentation has it: a file that the container makes for its probe.
    rig.deployment(
        "file",
        1,
        json!({
            "command": ["sh", "-c", "touch /tmp/healthy; exec sleep 1000"],
            "readinessProbe": {"exec": {"command": ["cat", "/tmp/healthy"]}, "periodSeconds": 1},
        }),
    );
    // Refused twice before the first back-off is over.
    rig.deployment("broken", 1, json!({"command": ["no-such-program"]}));
    rig.until_available("http", 1).await;
    rig.until_available("exec", 1).await;
    rig.until_available("file", 1).await;
    let broken = rig.pods("broken").remove(0);
    rig.until(&kinds::POD, broken.name(), "in a crash loop", |p| {
        p.is_some_and(|p| {
            p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
    })
    .await;
    // Not ready, and the event says why once the first hurry is over.
    assert_eq!(
        rig.get(&kinds::DEPLOYMENT, "missing")
            .expect("there")
            .value()["status"]["readyReplicas"],
        json!(null)
    );
    std::fs::write(rig.web().join("nope"), "now").expect("written");
    rig.until_available("missing", 1).await;
    std::fs::remove_file(rig.web().join("nope")).expect("removed");
    rig.until(&kinds::DEPLOYMENT, "missing", "unavailable again", |d| {
        d.is_some_and(|d| d["status"]["readyReplicas"].is_null())
    })
    .await;
    assert!(
        rig.events()
            .iter()
            .any(|e| e.contains("HTTP probe failed with statuscode: 404")),
        "{:?}",
        rig.events()
    );
    rig.stop().await;
}

pub async fn knative() {
    let rig = Rig::start().await;
    let code = "import os,http.server\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(s):\n    s.send_response(200); s.end_headers(); s.wfile.write(' '.join(os.environ[k] for k in ['K_SERVICE','K_REVISION','API','V']).encode())\nhttp.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), H).serve_forever()";
    let template = |version: &str| {
        json!({"spec": {"containers": [{"image": "web", "command": ["python3", "-c", code],
            "env": [{"name": "API", "value": "$(INGRESS_URL)/api3"}, {"name": "V", "value": version}]}]}})
    };
    rig.create(&kinds::KNATIVE_SERVICE, json!({"metadata": {"name": "frontend", "namespace": "default"}, "spec": {"template": template("1")}}));
    let ready = |revision: &'static str| {
        move |k: Option<&serde_json::Value>| {
            k.is_some_and(|k| {
                let ready = k["status"]["conditions"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|c| c["type"] == "Ready" && c["status"] == "True")
                });
                ready && k["status"]["latestReadyRevisionName"] == revision
            })
        }
    };
    rig.until(
        &kinds::KNATIVE_SERVICE,
        "frontend",
        "ready",
        ready("frontend-00001"),
    )
    .await;
    let addr = rig.cluster.knative_addrs()[0];
    let url = format!("http://{addr}");
    assert_eq!(
        rig.get(&kinds::KNATIVE_SERVICE, "frontend")
            .expect("there")
            .value()["status"]["url"],
        url.as_str()
    );
    let api = format!("http://{}/api3", rig.ingress);
    assert_eq!(
        get(addr, "/").await.expect("an answer"),
        (200, format!("frontend frontend-00001 {api} 1"))
    );
    rig.cluster
        .store()
        .update(&kinds::KNATIVE_SERVICE, "default", "frontend", |k| {
            k["spec"]["template"] = template("2");
            Ok(())
        })
        .expect("updated");
    rig.until(
        &kinds::KNATIVE_SERVICE,
        "frontend",
        "ready",
        ready("frontend-00002"),
    )
    .await;
    assert_eq!(
        get(addr, "/").await.expect("an answer"),
        (200, format!("frontend frontend-00002 {api} 2"))
    );
    rig.stop().await;
}

pub async fn deleted() {
    let rig = Rig::start().await;
    let begin = Instant::now();
    rig.deployment("web", 2, json!({}));
    rig.until(&kinds::DEPLOYMENT, "web", "running", |d| {
        d.is_some_and(|d| d["status"]["readyReplicas"] == 2)
    })
    .await;
    println!(
        "from the Deployment to two running containers in {:?}",
        begin.elapsed()
    );
    rig.until_available("web", 2).await;
    let pods = rig.pods("web");
    rig.cluster
        .store()
        .delete(&kinds::DEPLOYMENT, "default", "web")
        .expect("deleted");
    for pod in pods {
        rig.until(&kinds::POD, pod.name(), "gone", |p| p.is_none())
            .await;
    }
    assert!(
        rig.cluster
            .store()
            .list(&kinds::REPLICA_SET, None)
            .0
            .is_empty()
    );
    assert_eq!(
        std::fs::read_dir(rig.dir.path().join(".devenv/run/logs"))
            .expect("there")
            .count(),
        0
    );
    rig.stop().await;
}
