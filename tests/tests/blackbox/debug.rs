//! Services under their debuggers: breakpoints are hit by requests, nothing is lost on the
//! way there and back, and edits go on reloading.

use devenv_tests::debuggers::{Dap, Inspector};
use devenv_tests::editing::{PROGRAM, Small, save};
use devenv_tests::paced::{Body, Paced};
use devenv_tests::project::Project;
use devenv_tests::until;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

const SEEN: Duration = Duration::from_secs(60);
/// Longer than the liveness probes below bear.
const PAUSE: Duration = Duration::from_secs(3);
const PROBES: &str = "readinessProbe: {httpGet: {path: /, port: 5000}, periodSeconds: 1}
        startupProbe: {httpGet: {path: /, port: 5000}, periodSeconds: 1, failureThreshold: 60}
        livenessProbe: {httpGet: {path: /, port: 5000}, periodSeconds: 1, failureThreshold: 1}";

const NODE: &str = r#"const http = require("node:http");

const VERSION = "0";

http
  .createServer((request, response) => {
    const answer = `version ${VERSION}`;
    response.end(answer);
  })
  .listen(5000, "0.0.0.0");
"#;

/// The small project with a liveness probe that a pause would fail.
fn project(replicas: u32) -> Project {
    let project = Project::empty();
    let small = Small {
        replicas,
        strategy: "RollingUpdate",
        deaf: false,
        name: "small",
    };
    small.write(&project);
    let manifest = project.path().join("k8s/app.yaml");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    let readiness = "readinessProbe: {httpGet: {path: /, port: 5000}, periodSeconds: 1}";
    assert!(text.contains(readiness), "{text}");
    project.write("k8s/app.yaml", &text.replace(readiness, PROBES));
    project
}

fn node(replicas: u32) -> Project {
    let project = project(replicas);
    project.write("hello/main.js", NODE);
    project.configure(|config| {
        config["image"]["hello"]["run"] = toml_words(&["node", "main.js"]);
    });
    project
}

fn toml_words(words: &[&str]) -> toml::Value {
    toml::Value::Array(words.iter().map(|w| (*w).into()).collect())
}

/// The line of a text, from 1.
fn line_of(text: &str, what: &str) -> u32 {
    let at = text.lines().position(|l| l.contains(what));
    u32::try_from(at.expect("the line is there") + 1).expect("few lines")
}

async fn debug(project: &Project, more: &[&str]) -> Value {
    let arguments = [&["debug", "hello", "-o", "json"], more].concat();
    let run = project.run_within(SEEN * 2, &arguments).await;
    assert!(run.ok(), "{run}\n{}", project.supervisor_log());
    run.json()
}

fn address(told: &Value) -> SocketAddr {
    let address: SocketAddr = told["debug"]["address"]
        .as_str()
        .and_then(|a| a.parse().ok())
        .unwrap_or_else(|| panic!("no address: {told:#}"));
    assert!(address.ip().is_loopback(), "{address}");
    address
}

/// Asks while the program stands at a breakpoint; the answer comes when it goes on.
fn asking(url: &str) -> tokio::task::JoinHandle<(u16, String)> {
    let url = url.to_owned();
    tokio::spawn(async move {
        let answer = reqwest::get(url).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a body"))
    })
}

async fn restarts(project: &Project) -> Value {
    let status = project.status().await;
    let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
    let hello = workloads.into_iter().find(|w| w["name"] == "hello");
    hello.map(|w| w["restarts"].clone()).unwrap_or_default()
}

async fn says(url: &str, wanted: &str) {
    let get = || async {
        let text = reqwest::get(url).await.ok()?.text().await.ok()?;
        text.contains(wanted).then_some(())
    };
    let seen = until(SEEN, Duration::from_millis(20), get).await;
    assert!(seen.is_some(), "{url} never said {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_stands_at_a_breakpoint_and_goes_on() {
    let project = project(1);
    let file = project.path().join("hello/main.py");
    let before = project.run(&["debug", "hello"]).await;
    assert_eq!(before.code, Some(3), "{before}");
    project.up().await;
    let url = project.ingress().await;

    let load = Paced::start(&url, Body::Nothing, 100, "");
    let told = debug(&project, &["--launch-json"]).await;
    let at = address(&told);
    let seen = load.stop().await;
    assert!(seen.failures.is_empty(), "{:?}", seen.failures.first());
    let launch = fs::read_to_string(project.path().join(".vscode/launch.json"));
    let launch: Value = serde_json::from_str(&launch.expect("launch.json")).expect("JSON");
    let written = &launch["configurations"][0];
    assert_eq!(written["connect"]["port"], at.port(), "{launch:#}");
    let mapping = &written["pathMappings"][0];
    assert_eq!(mapping["localRoot"], "${workspaceFolder}/hello");

    // The breakpoint is where an editor would set it by that mapping.
    let remote = mapping["remoteRoot"].as_str().expect("remoteRoot");
    let line = line_of(PROGRAM, "self.send_response(200)");
    let mut dap = Dap::attach(at, &format!("{remote}/main.py"), line).await;
    let asked = asking(&url);
    let thread = dap.stopped().await;
    assert_eq!(dap.evaluate(&thread, "body.decode()").await, "'hello'");
    tokio::time::sleep(PAUSE).await;
    assert!(!asked.is_finished());
    dap.detach().await;
    assert_eq!(asked.await.expect("asked"), (200, "hello".to_owned()));
    assert_eq!(restarts(&project).await, 0);

    // An edit reloads, and the new version is the one that is debugged, at the same place.
    let edited = PROGRAM.replace("\"hello\"", "\"hola\"");
    save(&file, &edited, true);
    let manifest = project.path().join("k8s/app.yaml");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    save(
        &manifest,
        &text.replace("GREETING: hello", "OTHER: hello"),
        false,
    );
    says(&url, "hola").await;
    let again = project.up().await;
    assert!(again.ok(), "{again}");
    let mut dap = Dap::attach(at, &format!("{remote}/main.py"), line).await;
    let asked = asking(&url);
    let thread = dap.stopped().await;
    assert_eq!(dap.evaluate(&thread, "body.decode()").await, "'hola'");
    dap.detach().await;
    assert_eq!(asked.await.expect("asked").0, 200);

    let load = Paced::start(&url, Body::Nothing, 100, "");
    let off = project.run(&["debug", "hello", "--off"]).await;
    assert!(off.ok(), "{off}");
    let seen = load.stop().await;
    assert!(seen.failures.is_empty(), "{:?}", seen.failures.first());
    assert!(TcpStream::connect(at).await.is_err(), "{at} is still open");
    let off = project.run(&["debug", "hello", "--off"]).await;
    assert_eq!(off.code, Some(1), "{off}");
    let unknown = project.run(&["debug", "nobody"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown}");
    assert!(unknown.stderr.contains("hello"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_stands_at_a_breakpoint_in_the_newest_of_two_pods() {
    let project = node(2);
    project.up().await;
    let url = project.ingress().await;
    let told = debug(&project, &["--port", "19229"]).await;
    let at = address(&told);
    assert_eq!(at.port(), 19229);
    assert_eq!(told["debug"]["replicas"], 2);
    let line = line_of(NODE, "response.end");
    let mut inspector = Inspector::attach(at, r"/hello/main\.js$", line).await;
    // One of the two pods has it: ask until it is that one's turn.
    let others = tokio::spawn({
        let url = url.clone();
        async move {
            let mut asked = Vec::new();
            for _ in 0..4 {
                asked.push(asking(&url));
            }
            asked
        }
    });
    let frame = inspector.paused().await;
    assert_eq!(inspector.evaluate(&frame, "answer").await, "version 0");
    tokio::time::sleep(PAUSE).await;
    inspector.detach().await;
    for asked in others.await.expect("asked") {
        assert_eq!(asked.await.expect("asked"), (200, "version 0".to_owned()));
    }
    assert_eq!(restarts(&project).await, 0);

    let file = project.path().join("hello/main.js");
    save(&file, &NODE.replace("\"0\"", "\"1\""), false);
    says(&url, "version 1").await;
    let off = project.run(&["debug", "deployment/hello", "--off"]).await;
    assert!(off.ok(), "{off}");
    assert!(TcpStream::connect(at).await.is_err(), "{at} is still open");
    says(&url, "version 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_waits_for_its_debugger_while_the_version_before_it_serves() {
    let project = node(1);
    project.up().await;
    let url = project.ingress().await;
    let told = debug(&project, &["--wait"]).await;
    let at = address(&told);
    assert_eq!(told["debug"]["wait"], true);
    let load = Paced::start(&url, Body::Nothing, 100, "");
    tokio::time::sleep(PAUSE).await;
    assert_eq!(restarts(&project).await, 0);
    // Its first line has not run.
    let mut inspector =
        Inspector::attach(at, r"/hello/main\.js$", line_of(NODE, "VERSION =")).await;
    inspector.paused().await;
    inspector.detach().await;
    let ready = until(SEEN, Duration::from_millis(50), || async {
        let status = project.status().await;
        (status["workloads"][0]["ready"] == 1 && status["workloads"][0]["wanted"] == 1)
            .then_some(())
    });
    assert!(ready.await.is_some(), "{:#}", project.status().await);
    let seen = load.stop().await;
    assert!(seen.failures.is_empty(), "{:?}", seen.failures.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_debugged_is_said() {
    let project = project(1);
    project.configure(|config| {
        config["image"]["hello"]["run"] = "exec python3 main.py; true".into();
    });
    project.up().await;
    let unclear = project.run(&["debug", "hello"]).await;
    assert_eq!(unclear.code, Some(1), "{unclear}");
    assert!(
        unclear.stderr.contains("[image.hello] debug ="),
        "{unclear}"
    );

    // A command of the project's own, which listens where it is told to.
    project.configure(|config| {
        let debug = toml_words(&[
            "node",
            "--inspect=$(DEVENV_DEBUG_HOST):$(DEVENV_DEBUG_PORT)",
            "main.js",
        ]);
        let image = config["image"]["hello"].as_table_mut().expect("a table");
        image.insert("debug".to_owned(), debug);
    });
    project.write("hello/main.js", NODE);
    let applied = project.up().await;
    assert!(applied.ok(), "{applied}");
    let at = address(&debug(&project, &[]).await);
    let version = reqwest::get(format!("http://{at}/json/version")).await;
    let version: Value = version.expect("it listens").json().await.expect("JSON");
    assert!(
        version["Browser"]
            .as_str()
            .unwrap_or_default()
            .starts_with("node.js")
    );
    says(&project.ingress().await, "version 0").await;
}

/// A server in C that answers with a number, which a debugger changes.
const C: &str = r#"#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void answer(int client, int number) {
    char body[64], text[192];
    snprintf(body, sizeof body, "number %d", number);
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
    if (write(client, text, strlen(text)) < 0) perror("write");
}

int main(void) {
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(5000)};
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 128)) return 1;
    for (;;) {
        char request[4096];
        int client = accept(server, NULL, NULL);
        if (client < 0) continue;
        if (read(client, request, sizeof request) > 0) answer(client, 7);
        close(client);
    }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_program_is_attached_to_and_let_go() {
    let project = project(1);
    project.write("hello/main.c", C);
    project.configure(|config| {
        let image = config["image"]["hello"].as_table_mut().expect("a table");
        image.insert("build".to_owned(), "cc -g -O0 -o server main.c".into());
        image.insert("run".to_owned(), toml_words(&["./server"]));
    });
    project.up().await;
    let url = project.ingress().await;
    let told = debug(&project, &[]).await;
    let at = address(&told);
    let program = told["debug"]["program"].as_str().expect("a program");
    for leaves in ["detach", "dies"] {
        let asked = asking(&url);
        let mut gdb = tokio::process::Command::new("gdb");
        gdb.args(["-nx", "-batch", program])
            .args(["-ex", "set pagination off"])
            .args(["-ex", &format!("target remote {at}")])
            .args(["-ex", "break answer"])
            .args(["-ex", "continue"])
            .args(["-ex", "print number"])
            .args(["-ex", "set var number = 8"]);
        if leaves == "detach" {
            gdb.args(["-ex", "detach"]);
        } else {
            // As an editor that dies: with its breakpoint set.
            gdb.args(["-ex", "python import os; os.kill(os.getpid(), 9)"]);
        }
        let run = tokio::time::timeout(SEEN, gdb.output()).await;
        let run = run.expect("gdb ends").expect("gdb runs");
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(text.contains("$1 = 7"), "{text}\n{errors}");
        let (status, _) = asked.await.expect("asked");
        assert_eq!(status, 200);
        says(&url, "number 7").await;
        assert_eq!(restarts(&project).await, 0, "{text}");
    }
    let wait = project.run(&["debug", "hello", "--wait"]).await;
    assert_eq!(wait.code, Some(1), "{wait}");
    let off = project.run(&["debug", "hello", "--off"]).await;
    assert!(off.ok(), "{off}");
    assert!(TcpStream::connect(at).await.is_err(), "{at} is still open");
    says(&url, "number 7").await;
}
