//! The real Compose 2 and devenv, each on what the other has started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use devenv_compose::{Options, Progress, load};
use serde_json::Value;

use crate::support::{TestProject, compose, engine};

const PAIR: &str = r#"
services:
  db:
    image: IMAGE
    command: sh -c 'echo ready; exec httpd -f -p 80'
    init: true
    stop_grace_period: 0s
    environment: {PASSWORD: "s<e>c&r\"e't", LEVEL: 1.0}
    ports: ["127.0.0.1::80"]
    volumes: [data:/data]
    healthcheck: {test: "true", interval: 200ms, timeout: 5s, retries: 30, start_period: 1m30s}
  app:
    image: IMAGE
    stop_grace_period: 0s
    restart: unless-stopped
    env_file: [a.env, {path: none.env, required: false}]
    environment: {Q: mine}
    depends_on:
      db: {condition: service_healthy}
volumes:
  data:
"#;

fn pair(engine: &devenv_compose::Engine) -> TestProject {
    let project = TestProject::new(engine, PAIR);
    let env = "FROM_FILE=1\nQ='x y'\nD=${NOT_SET:-d}${FROM_FILE}\n";
    std::fs::write(project.file().with_file_name("a.env"), env).unwrap();
    project
}

/// JSON values, whether Compose writes them as a list or one a line.
fn rows(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => rows,
        _ => text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect(),
    }
}

fn column(rows: &[Value], key: &str) -> Vec<String> {
    let mut out: Vec<String> = rows
        .iter()
        .map(|row| row[key].as_str().unwrap_or_default().to_owned())
        .collect();
    out.sort();
    out
}

#[tokio::test]
async fn compose_works_on_what_devenv_has_started() {
    let (Some(engine), Some(compose)) = (engine().await, compose()) else {
        return;
    };
    let project = pair(&engine);
    project.up().await.unwrap();

    let listed = rows(&project.compose(&compose, &["ls", "--format", "json"]));
    let row = listed.iter().find(|r| r["Name"] == project.name.as_str());
    let row = row.expect("`ls` knows the project");
    assert_eq!(row["Status"], "running(2)");
    assert_eq!(row["ConfigFiles"], project.file().to_str().unwrap());

    let ps = rows(&project.compose(&compose, &["ps", "--format", "json"]));
    assert_eq!(column(&ps, "Service"), ["app", "db"]);
    assert_eq!(column(&ps, "State"), ["running", "running"]);
    assert_eq!(column(&ps, "Health"), ["", "healthy"]);
    assert_eq!(
        column(&ps, "Name"),
        [project.container("app"), project.container("db")]
    );
    let logs = project.compose(&compose, &["logs", "--no-color"]);
    assert!(logs.contains("db-1") && logs.contains("ready"), "{logs}");

    // Its `up` finds nothing to do: the hashes are equal.
    let ids = project.ids().await;
    project.compose(&compose, &["up", "-d", "--wait"]);
    assert_eq!(project.ids().await, ids);

    project.compose(&compose, &["down"]);
    assert_eq!(project.left().await, [0, 0, 1]);
    project.up().await.unwrap();
    project.compose(&compose, &["down", "--volumes"]);
    assert_eq!(project.left().await, [0, 0, 0]);
}

#[tokio::test]
async fn devenv_works_on_what_compose_has_started() {
    let (Some(engine), Some(compose)) = (engine().await, compose()) else {
        return;
    };
    let project = pair(&engine);
    project.compose(&compose, &["up", "-d", "--wait"]);
    let states = project.states().await;
    let states: Vec<_> = states
        .iter()
        .map(|(s, state, health)| (s.as_str(), state.as_str(), health.as_deref()))
        .collect();
    assert_eq!(
        states,
        [("app", "running", None), ("db", "running", Some("healthy"))]
    );
    assert_eq!(project.log_texts("db").await, ["ready"]);

    let ids = project.ids().await;
    let told = project.up().await.unwrap();
    assert!(
        told.iter().all(|event| matches!(
            event,
            Progress::Unchanged(_) | Progress::Healthy(_) | Progress::Waiting { .. }
        )),
        "{told:?}"
    );
    assert_eq!(project.ids().await, ids);

    // One-off containers go too: nothing stays.
    project.compose(
        &compose,
        &["run", "-d", "--no-deps", "app", "sleep", "3600"],
    );
    assert_eq!(project.left().await, [3, 1, 1]);
    assert_eq!(project.states().await.len(), 2, "ps does not list it");
    project.down(false).await.unwrap();
    assert_eq!(project.left().await, [0, 0, 1]);
    project.down(true).await.unwrap();
    assert_eq!(project.left().await, [0, 0, 0]);
}

/// What `config --hash` says for each service.
fn composes_hashes(
    program: &Path,
    file: &Path,
    environment: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let output = Command::new(program)
        .arg("-f")
        .arg(file)
        .args(["--profile", "*", "config", "--hash", "*"])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(service, hash)| (service.to_owned(), hash.trim().to_owned()))
        .collect()
}

/// What devenv's are.
fn our_hashes(file: &Path, environment: &[(&str, &str)]) -> BTreeMap<String, String> {
    let options = Options {
        environment: environment
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        profiles: vec!["*".into()],
        ..Options::default()
    };
    let project = load(file, &options).unwrap().project;
    let services = project.services.values();
    services
        .map(|s| (s.name.clone(), s.config_hash()))
        .collect()
}

#[test]
fn hashes_are_composes_own() {
    let Some(compose) = compose() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("compose.yaml");
    // One key each, so that a difference names itself. (`config --hash` reads no
    // env_file, as `up` does: those are in the pair that both start.)
    let services = [
        "{image: a}",
        "{image: a, command: sh -c 'a <b>'}",
        "{image: a, command: [], entrypoint: []}",
        "{image: a, command: '', entrypoint: ''}",
        "{image: a, command: sh -c 'exec \"a\" b\\ c'}",
        "{image: a, entrypoint: [a, \"b<c>&\\n\\u2028é\"]}",
        "{image: a, environment: {A: 1, B: true, C: 1.5, D: , E: '', F: 1e30}}",
        "{image: a, environment: [A=1, B, NOT_SET, C=]}",
        "{image: a, ports: [80, '127.0.0.1:8000-8001:90-91/udp', '7000-7005:70', '[::1]:60:60']}",
        "{image: a, ports: [{target: 80, published: '8080', host_ip: 127.0.0.1, name: n, app_protocol: http, mode: host}]}",
        "{image: a, volumes: [data:/d, ./x:/x:ro, /anon/, '/abs:/y:z', data:/n:nocopy]}",
        "{image: a, volumes: [{type: volume, source: data, target: /a}, {type: volume, source: data, target: /b, volume: {nocopy: true}}]}",
        "{image: a, volumes: [{type: bind, source: ./x, target: /a}, {type: bind, source: ./x, target: /b, bind: {create_host_path: true}}]}",
        "{image: a, volumes: [{type: tmpfs, target: /t}, {type: tmpfs, target: /u, tmpfs: {size: 1m, mode: 0700}}]}",
        "{image: a, networks: [n, default]}",
        "{image: a, networks: {n: {aliases: [x], ipv4_address: 10.0.0.9}, default: }}",
        "{image: a, healthcheck: {test: 'a | b', interval: 90s, timeout: 1500ms, retries: 3, start_period: 1h, start_interval: 0s}}",
        "{image: a, healthcheck: {test: [CMD, a], disable: false}}",
        "{image: a, healthcheck: {disable: true}}",
        "{image: a, depends_on: [s0, s1]}",
        "{image: a, depends_on: {s0: {condition: service_healthy, restart: true, required: false}}}",
        "{image: a, restart: on-failure:3}",
        "{image: a, restart: no}",
        "{image: a, labels: {b: 1, a: x}}",
        "{image: a, labels: [x=y, z]}",
        "{image: a, user: '1000', working_dir: /w, hostname: h, container_name: c}",
        "{image: a, stop_signal: SIGINT, stop_grace_period: 1m1s}",
        "{image: a, mem_limit: 1gb, shm_size: 64m}",
        "{image: a, deploy: {resources: {limits: {cpus: '0.25', memory: 64M, pids: 10}}}}",
        "{image: a, deploy: {resources: {limits: {cpus: 1.5}}}}",
        "{image: a, init: true, read_only: true}",
        "{image: a, init: false, read_only: false}",
        "{image: a, cap_add: [NET_ADMIN, ALL], cap_drop: [CHOWN]}",
        "{image: a, tmpfs: /t}",
        "{image: a, tmpfs: [/t, '/u:size=1m']}",
        "{image: a, extra_hosts: ['b=1.2.3.4', 'a:[::1]']}",
        "{image: a, extra_hosts: {b: 1.2.3.4, a: '::1'}}",
        "{image: a, ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}}",
        "{image: a, profiles: [p, q]}",
        "{image: a, pull_policy: always}",
        "{image: '${REPO:-a}:$TAG', x-note: 1}",
    ];
    let mut text = String::from("name: hashes\nservices:\n");
    for (i, service) in services.iter().enumerate() {
        text.push_str(&format!("  s{i}: {service}\n"));
    }
    text.push_str("networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}\nvolumes: {data: }\n");
    std::fs::write(&file, text).unwrap();
    let environment = [("B", "from outside"), ("TAG", "1"), ("HOME", "/root")];
    let theirs = composes_hashes(&compose, &file, &environment);
    let ours = our_hashes(&file, &environment);
    let different: Vec<&str> = services
        .iter()
        .enumerate()
        .map(|(i, service)| (format!("s{i}"), *service))
        .filter(|(key, _)| theirs.get(key) != ours.get(key))
        .map(|(_, service)| service)
        .collect();
    assert_eq!(theirs.len(), services.len());
    assert_eq!(different, [] as [&str; 0]);
}

#[test]
fn this_projects_own_file_is_composes_too() {
    let Some(compose) = compose() else { return };
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../compose/compose.yaml")
        .canonicalize()
        .unwrap();
    let environment = [("DB_PASSWORD", "p$p")];
    let theirs = composes_hashes(&compose, &file, &environment);
    assert_eq!(theirs, our_hashes(&file, &environment));
    assert!(theirs.contains_key("cloudsql") && theirs.contains_key("registry"));
}
