//! Socket.IO clients that are not ours, through the Ingress.

use devenv_tests::clients::{node_client, python_client};
use devenv_tests::project::Project;
use devenv_tests::record::record;
use devenv_tests::{find_tool, skip};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

const FIELDS: &[&str] = &[
    "total_ram",
    "ram_libre",
    "uso_ram",
    "porcentaje_ram",
    "porcentaje_cpu_uso",
    "porcentaje_cpu_libre",
    "procesos_corriendo",
    "total_procesos",
    "procesos_durmiendo",
    "procesos_zombie",
    "procesos_parados",
    "hora",
];

/// Runs a client over one transport, posts a marked record when it is ready, and
/// compares all that it printed.
async fn exchange(program: &OsStr, client: &OsStr, base: &str, transport: &str, mark: f64) {
    let mut child = Command::new(program)
        .arg(client)
        .args([base, transport, &mark.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = child.stderr.take().unwrap();
    let errors = tokio::spawn(async move {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text).await;
        text
    });
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            let event = line["event"].as_str().unwrap().to_owned();
            if event == "ready" {
                let posted = reqwest::Client::new()
                    .post(format!("{base}/api"))
                    .json(&record(mark))
                    .send()
                    .await
                    .unwrap();
                assert_eq!(posted.status(), 201);
            }
            seen.insert(event, line["payload"].clone());
        }
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(Duration::from_secs(40), reading)
        .await
        .expect("the client ends by itself");
    let errors = errors.await.unwrap();
    assert!(status.success(), "{status}: {seen:?}\n{errors}");

    assert_eq!(seen["transport"], transport, "{seen:?}");
    let update = &seen["marked"];
    for field in FIELDS {
        assert!(!update["record"][field].is_null(), "{field}: {update}");
    }
    assert_eq!(update["record"]["uso_ram"].as_f64(), Some(mark), "{update}");
    let counts: BTreeMap<String, u64> = serde_json::from_value(update["counts"].clone()).unwrap();
    assert_eq!(
        update["total"].as_u64(),
        Some(counts.values().sum()),
        "{update}"
    );
    let split = &seen["split-update"];
    assert!(split["window_s"].is_number(), "{split}");
    assert!(
        split["by_api"].is_object() && split["share"].is_object(),
        "{split}"
    );
    // Acknowledged as an array, or in an object that names it.
    let history = &seen["history"];
    let records = history.as_array().or_else(|| history["records"].as_array());
    let records = records.unwrap_or_else(|| panic!("{history}"));
    assert!((1..=3).contains(&records.len()), "{history}");
}

async fn post_some(base: &str) {
    let client = reqwest::Client::new();
    for n in 0..5 {
        let sent = client
            .post(format!("{base}/api"))
            .json(&record(100.0 + f64::from(n)));
        assert_eq!(sent.send().await.unwrap().status(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn npms_socket_io_client_over_polling_and_websocket() {
    if find_tool("node").is_none() || find_tool("npm").is_none() {
        return skip("there is no node or npm here");
    }
    let client = node_client()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let project = Project::reference();
    project.up().await;
    let base = project.ingress().await;
    post_some(&base).await;
    for (transport, mark) in [("polling", 4321.25), ("websocket", 4321.5)] {
        exchange(
            OsStr::new("node"),
            client.as_os_str(),
            &base,
            transport,
            mark,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pypis_python_socketio_over_polling_and_websocket() {
    if find_tool("python3").is_none() {
        return skip("there is no python3 here");
    }
    let (python, client) = python_client()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let project = Project::reference();
    project.up().await;
    let base = project.ingress().await;
    post_some(&base).await;
    for (transport, mark) in [("polling", 1234.25), ("websocket", 1234.5)] {
        exchange(
            python.as_os_str(),
            client.as_os_str(),
            &base,
            transport,
            mark,
        )
        .await;
    }
}
