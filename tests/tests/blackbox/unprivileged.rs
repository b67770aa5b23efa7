//! An ordinary user, without an entry in /etc/passwd: all works as for root, in
//! namespaces, where these are forbidden in plain processes, and for one who may use the
//! Docker Engine in containers and in kind.

use devenv_tests::containers::{self, everything, new_since};
use devenv_tests::editing::{Small, newest_reload, reload_after, save, set_version};
use devenv_tests::inventory::{Inventory, processes_of};
use devenv_tests::paced::{Body, Paced};
use devenv_tests::project::Project;
use devenv_tests::{database, skip, until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Another one than that of the sandbox's own tests, which may run at the same time.
const USER: u32 = 54_322;
const SEEN: Duration = Duration::from_secs(120);
const UP: Duration = Duration::from_secs(480);
const RATE: u32 = 100;
const EDITS: u32 = 3;

const NODE: &str = r#"const http = require("node:http");

const VERSION = "0.0.0";

http.createServer((request, response) => {
  response.setHeader("X-Service-Version", VERSION);
  response.end(process.env.GREETING);
}).listen(process.env.PORT || 5000);
"#;

const DATABASE: &str = "apiVersion: v1
kind: Service
metadata: {name: cloudsql}
spec:
  ports: [{port: 3306}]
";

/// A program in Python at `/` and one in Node.js at `/node`, beside a database.
fn write(project: &Project) {
    let small = Small {
        replicas: 1,
        strategy: "RollingUpdate",
        deaf: false,
        name: "ordinary",
    };
    small.write(project);
    project.write("node/main.js", NODE);
    let first = fs::read_to_string(project.path().join("k8s/app.yaml")).expect("written");
    let (_namespace, objects) = first.split_once("---").expect("several objects");
    // In plain processes a value that is the name of a Service becomes its address, so
    // the programs don't say the names of theirs.
    let greeting = "GREETING: hello";
    project.write(
        "k8s/app.yaml",
        &first.replace(greeting, "GREETING: in-python"),
    );
    let second = objects
        .replace(greeting, "GREETING: in-node")
        .replace("hello", "node")
        .replace("{name: words}", "{name: node-words}")
        .replace("path: /,", "path: /node,");
    project.write("k8s/node.yaml", &second);
    project.write("k8s/database.yaml", DATABASE);
    project.configure(|config| {
        let more = "[image.node]\nsource = \"node\"\nrun = [\"node\", \"main.js\"]\n\
                    [cloudsql]\nversion = \"mysql:8.4\"\n";
        let more: toml::Table = more.parse().expect("TOML");
        let images = config["image"].as_table_mut().expect("a table");
        images.insert("node".to_owned(), more["image"]["node"].clone());
        config.insert("cloudsql".to_owned(), more["cloudsql"].clone());
    });
}

/// Whether other users can be had; says so if not.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("only root can be another user; all other tests run as an ordinary one here");
    }
    root
}

/// A mount in a folder of root's that is closed to all others, as each running container of a
/// Docker Engine has one.
struct Closed(tempfile::TempDir);

impl Closed {
    fn mount() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bb-closed-")
            .tempdir_in("/var/lib");
        let closed = Self(folder.expect("root may make a folder"));
        let below = closed.below();
        fs::create_dir(&below).expect("a folder in it");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "bb-closed"])
            .arg(&below)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "{below:?}");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(closed.0.path(), mode).expect("it is root's");
        closed
    }

    fn below(&self) -> PathBuf {
        self.0.path().join("mount")
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        // What can't be unmounted keeps its folder.
        let _ = Command::new("umount").arg(self.below()).status();
    }
}

async fn up(project: &Project, isolation: &str) {
    let words = ["up", "-d", "--isolation", isolation];
    let up = project.run_within(SEEN, &words).await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    let plain = up.text().contains("pods run as plain processes");
    let ran = if plain {
        "plain processes"
    } else {
        "namespaces"
    };
    println!("--isolation {isolation}: pods ran as {ran}");
    assert!(plain || isolation != "ports", "{up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_reload_and_down_work_the_same() {
    if !is_root() {
        return;
    }
    let _closed = Closed::mount();
    for isolation in ["auto", "ports"] {
        let mut project = Project::empty();
        write(&project);
        project.give_to(USER);
        let before = Inventory::take(&project.scope());
        up(&project, isolation).await;
        let scope = project.scope_of_all().await;
        let ingress = project.ingress().await;
        assert!(project.url("database").await.starts_with("mysql://"));

        let edited = [
            ("in-python", "hello", "", "hello/main.py"),
            ("in-node", "node", "/node", "node/main.js"),
        ];
        for (api, image, path, file) in edited {
            let url = format!("{ingress}{path}");
            let mut load = Paced::start(&url, Body::Nothing, RATE, "");
            for n in 1..=EDITS {
                let known = newest_reload(&project).await;
                load.saving(api, n);
                set_version(&project.path().join(file), "VERSION = ", n);
                load.until_seen(api, n, SEEN).await;
                // The version before answers until its pod is out of the rotation.
                let is_done = |r: &serde_json::Value| r["outcome"] == "reloaded";
                let reload = reload_after(&project, known, SEEN, is_done).await;
                assert_eq!(reload["what"], image, "{reload:#}");
            }
            let seen = load.stop().await;
            println!(
                "{api}: {EDITS} edits, {} answers, the slowest after {:.0?}",
                seen.answers, seen.longest
            );
            seen.assert_whole(&BTreeMap::from([(api, EDITS)]));
        }
        let known = newest_reload(&project).await;
        save(
            &project.path().join("hello/main.py"),
            "def broken(:\n",
            false,
        );
        let failed = reload_after(&project, known, SEEN, |_| true).await;
        assert_eq!(failed["outcome"], "not-ready", "{failed:#}");

        project.down(&["-v"]).await;
        if let Err(left) = before.nothing_left(&scope, Duration::from_secs(5)).await {
            panic!("--isolation {isolation}: {left}");
        }
        let gone = until(
            Duration::from_secs(5),
            Duration::from_millis(20),
            || async { processes_of(USER).is_empty().then_some(()) },
        );
        let left = gone.await.map_or_else(|| processes_of(USER), |()| vec![]);
        assert!(left.is_empty(), "--isolation {isolation}: {left:?}");
        assert!(!project.path().join(".devenv").exists());
    }
}

/// Root helps out in somebody's checkout; afterwards that user goes on, with the data.
#[tokio::test(flavor = "multi_thread")]
async fn after_root_was_here_the_owner_can_go_on() {
    if !is_root() {
        return;
    }
    let mut project = Project::empty();
    write(&project);
    project.give_to(USER);
    project.set_users(false);
    up(&project, "auto").await;
    project.down(&[]).await;
    project.set_users(true);
    up(&project, "auto").await;
    let answer = reqwest::get(project.ingress().await).await;
    assert_eq!(answer.expect("an answer").status(), 200);
    project.down(&["-v"]).await;
    assert!(!project.path().join(".devenv").exists());
}

/// The engine's socket, whose group may use it.
const SOCKET: &str = "/var/run/docker.sock";
const RECORDS: u64 = 1_000;

/// What is below a folder and not the user's, but for links.
fn not_the_users(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.uid() != USER {
            found.push(path);
        } else if metadata.is_dir() {
            found.extend(not_the_users(&path));
        }
    }
    found
}

/// Brings the project up as its owner, sends records, builds an image again, and takes all of
/// it down.
async fn all_of_it(project: &Project, before: &BTreeSet<String>, words: &[&str]) {
    let up = project.run_within(UP, words).await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    println!("{words:?}: {:.1?}", up.took);
    let count = RECORDS.to_string();
    let traffic = ["traffic", "-o", "json", "--requests", &count];
    let run = project.run_within(SEEN, &traffic).await;
    assert!(run.ok(), "{run}");
    assert_eq!(run.json()["by_status"]["201"], RECORDS, "{run}");
    let url = project.url("database").await;
    assert_eq!(database::count(&url).await.expect("rows"), RECORDS);
    let reload = project.run_within(SEEN, &["reload", "api3"]).await;
    assert!(reload.ok(), "{reload}");
    let theirs = not_the_users(project.path());
    assert!(theirs.is_empty(), "{theirs:#?}");
    // The data stays, and is the user's to go on with.
    project.down(&[]).await;
    let theirs = not_the_users(project.path());
    assert!(theirs.is_empty(), "{theirs:#?}");
    let up = project.run_within(UP, words).await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    let url = project.url("database").await;
    assert_eq!(database::count(&url).await.expect("rows"), RECORDS);
    project.down(&["-v"]).await;
    assert!(!project.path().join(".devenv").exists());
    assert_eq!(new_since(before), [""; 0], "after down -v");
    let gone = until(SEEN, Duration::from_millis(50), || async {
        processes_of(USER).is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "{:?}", processes_of(USER));
}

/// Puts the project's user into the group of the engine's socket.
fn join_the_engines_group(project: &mut Project) {
    let group = fs::metadata(SOCKET).expect("the engine's socket").gid();
    project.put_into_group(group);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_engines_group_pods_are_containers() {
    if !is_root() {
        return;
    }
    let Some(mut project) = containers::reference() else {
        return;
    };
    project.give_to(USER);
    let words = ["up", "-d", "--runtime", "docker"];
    let refused = project.run(&words).await;
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("usermod -aG docker"), "{refused}");
    join_the_engines_group(&mut project);
    let before = everything();
    all_of_it(&project, &before, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "over a minute for what the test before shows but for kind: cargo xtask soak kind"]
async fn in_the_engines_group_there_is_a_kind_cluster() {
    if !is_root() {
        return;
    }
    let Some(mut project) = containers::reference_for_kind("bb-kind-user") else {
        return;
    };
    project.give_to(USER);
    join_the_engines_group(&mut project);
    let kind = std::env::var_os("DEVENV_TEST_KIND").expect("the test has it");
    project.give_program(Path::new(&kind));
    let before = everything();
    let words = ["up", "-d", "--target", "kind", "--ingress", "devenv"];
    all_of_it(&project, &before, &[&words[..], &["--timeout=4m"]].concat()).await;
}
