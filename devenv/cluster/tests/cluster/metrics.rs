//! What pods and the machine use, as the API and the real kubectl tell it.

use std::time::{Duration, Instant};

use devenv_cluster::{Isolation, kinds};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tower::Service;

use crate::rig::{PATIENCE, Rig};

const MIB: u64 = 1 << 20;
const BURN: &str = "while :; do :; done";

/// Processes of the sandbox: from their control groups, or as an ordinary user from /proc.
pub async fn processes() {
    let rig = Rig::start().await;
    told(&rig).await;
    kubectl(&rig).await;
    rig.stop().await;
}

/// Processes without namespaces.
pub async fn plain() {
    let rig = Rig::start_as(Isolation::Ports).await;
    told(&rig).await;
    rig.stop().await;
}

async fn told(rig: &Rig) {
    let hold = "import time; m = bytearray(50 << 20); print('held', flush=True); time.sleep(1000)";
    told_of(rig, &["python3", "-c", hold]).await;
}

async fn get(rig: &Rig, path: &str) -> Value {
    let path = format!("/apis/metrics.k8s.io/v1beta1{path}");
    let request = http::Request::get(&path)
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let response = rig.cluster.api_service().call(request).await;
    let body = response.expect("infallible").into_body().collect().await;
    serde_json::from_slice(&body.expect("a body").to_bytes()).expect("JSON")
}

/// CPU in thousandths and memory in bytes.
fn usage(value: &Value) -> (u64, u64) {
    let number = |resource: &str, unit: &str| -> u64 {
        let text = value["usage"][resource].as_str().expect("a quantity");
        text.trim_end_matches(unit).parse().expect("a number")
    };
    (
        number("cpu", "n") / 1_000_000,
        number("memory", "Ki") * 1024,
    )
}

/// The usage of a pod's container, once it is told and `is` holds of it.
async fn until(rig: &Rig, pod: &str, container: &str, is: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    let begin = Instant::now();
    loop {
        let metrics = get(rig, &format!("/namespaces/default/pods/{pod}")).await;
        let containers = metrics["containers"].as_array().into_iter().flatten();
        let found = containers.into_iter().find(|c| c["name"] == container);
        if let Some((cpu, memory)) = found.map(usage)
            && is(cpu, memory)
        {
            return (cpu, memory);
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{pod} {container}: {metrics}\n{:#?}",
            rig.events()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A pod that burns a processor beside a container that does nothing, one that holds 50 MiB when
/// it says `held`, and one that ends: each is told as what it is.
pub async fn told_of(rig: &Rig, hold: &[&str]) {
    let container =
        |name: &str, command: &[&str]| json!({"name": name, "image": "web", "command": command});
    let pod = |name: &str, containers: Value| {
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers});
        rig.pod(name, spec);
    };
    pod("done", json!([container("c", &["sh", "-c", "exit 0"])]));
    pod("holder", json!([container("c", hold)]));
    rig.until_logged("holder", "held\n").await;
    let idle = container("idle", &["sleep", "1000"]);
    pod(
        "pair",
        json!([container("busy", &["sh", "-c", BURN]), idle]),
    );
    rig.until_ended("done").await;

    // The machine may be busy with other things: the burner gets a fair share at least once.
    let (cpu, memory) = until(rig, "pair", "busy", |cpu, _| cpu >= 200).await;
    println!("the burner uses {cpu}m and {} KiB", memory / 1024);
    assert!(cpu <= 1100, "it has one thread: {cpu}m");
    assert!((1..20 * MIB).contains(&memory), "{memory} bytes");
    let (cpu, memory) = until(rig, "pair", "idle", |_, _| true).await;
    println!("the idle one {cpu}m and {} KiB", memory / 1024);
    assert!(cpu < 50 && memory < 20 * MIB, "{cpu}m, {memory} bytes");
    let (cpu, memory) = until(rig, "holder", "c", |_, memory| memory >= 50 * MIB).await;
    println!("the holder {cpu}m and {} KiB", memory / 1024);
    assert!(cpu < 200 && memory < 85 * MIB, "{cpu}m, {memory} bytes");

    let list = get(rig, "/pods").await;
    let name = |item: &Value| item["metadata"]["name"].as_str().expect("text").to_owned();
    let items = list["items"].as_array().expect("a list");
    let names: Vec<String> = items.iter().map(name).collect();
    assert_eq!(names, ["holder", "pair"], "what has ended uses nothing");
    let (node_cpu, node_memory) = usage(&get(rig, "/nodes/devenv").await);
    println!("the machine {node_cpu}m and {} MiB", node_memory / MIB);
    let node = rig.cluster.store().get(&kinds::NODE, "", "devenv");
    let capacity = node.expect("there").value()["status"]["capacity"]["memory"].clone();
    let capacity = capacity.as_str().expect("text").trim_end_matches("Ki");
    let capacity: u64 = capacity.parse().expect("a number");
    assert!(node_cpu >= 100, "one processor is burnt: {node_cpu}m");
    assert!((50 * MIB..capacity * 1024).contains(&node_memory));
}

/// The real kubectl, if there is one.
async fn kubectl(rig: &Rig) {
    let kubeconfig = rig.dir.path().join(".devenv/kubeconfig");
    let top = |arguments: &'static str| {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("top")
            .args(arguments.split(' '))
            .env("KUBECACHEDIR", rig.dir.path().join("cache"));
        async move { command.output().await }
    };
    if let Err(error) = top("pods").await {
        assert!(
            std::env::var("CI").is_err(),
            "CI must have kubectl: {error}"
        );
        println!("skipped: {error}");
        return;
    }
    let rows = |arguments: &'static str| {
        let output = top(arguments);
        async move {
            let output = output.await.expect("it runs");
            let both = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&both).into_owned();
            assert!(output.status.success(), "top {arguments}: {text}");
            print!("kubectl top {arguments}\n{text}");
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            text.lines().map(words).collect::<Vec<Vec<String>>>()
        }
    };
    let number = |text: &str, unit: &str| -> u64 {
        let digits = text.strip_suffix(unit).expect(unit);
        digits.parse().expect("a number")
    };
    let pods = rows("pods --sort-by=memory").await;
    assert_eq!(pods[0], ["NAME", "CPU(cores)", "MEMORY(bytes)"]);
    assert_eq!((&*pods[1][0], &*pods[2][0]), ("holder", "pair"));
    assert!((50..85).contains(&number(&pods[1][2], "Mi")));
    let mut containers = rows("pods --containers --no-headers").await;
    containers.sort();
    let names: Vec<&str> = containers.iter().map(|row| &*row[1]).collect();
    assert_eq!(names, ["c", "busy", "idle"]);
    assert!((50..=1100).contains(&number(&containers[1][2], "m")));
    let nodes = rows("nodes").await;
    assert_eq!(nodes[1][0], "devenv");
    assert!(number(&nodes[1][1], "m") >= 50 && number(&nodes[1][4], "%") <= 100);
}
