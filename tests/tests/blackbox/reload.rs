//! Editing under load: nothing fails, nothing is lost, every version is seen.

use devenv_tests::editing::{Small, newest_reload, reload_after, reloads, save, set_version};
use devenv_tests::inventory::{Inventory, Kind};
use devenv_tests::paced::{Body, Pace, Paced};
use devenv_tests::project::{self, Project, Services, kept_folder, kill};
use devenv_tests::{database, proven, rounds};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const RATE: u32 = 500;
/// What the APIs bear beside a compiler with debug builds of the proxy and the client on
/// the same two cores: at 500 a second they answered 503, for want of a processor, and
/// on a machine with other work too at 200. So here no more than wait for a database's
/// connection for less than the services' two seconds: that an edit loses nothing is
/// asked, not what a machine bears. The soak has a release build and asks 500 a second,
/// however many are under way.
const PACE_DEBUG: Pace = Pace {
    rate: 200,
    at_once: 64,
};
const SEEN: Duration = Duration::from_secs(120);
const UP: Duration = Duration::from_secs(600);

/// An API of a project: its name in answers, its source, and where that says its version.
struct Edited<'a> {
    api: &'a str,
    file: &'a str,
    marker: &'a str,
}

async fn edit_under_load(project: &Project, profile: &[&str], apis: &[Edited<'_>]) {
    let pace = if project::is_built_with_optimisation() {
        RATE.into()
    } else {
        PACE_DEBUG
    };
    for edited in apis {
        set_version(&project.path().join(edited.file), edited.marker, 0);
    }
    let up = project
        .run_within(UP, &[&["up", "-d"], profile].concat())
        .await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    let url = project.url("database").await;
    let before = database::count(&url).await.expect("the database answers");
    let prefix = format!("edit-{}", std::process::id());
    let ingress = format!("{}/api", project.ingress().await);
    let mut load = Paced::start(&ingress, Body::Record, pace, &prefix);
    let edits = rounds(3);
    let start = Instant::now();
    for n in 1..=edits {
        for edited in apis {
            load.until_calm(SEEN).await;
            load.saving(edited.api, n);
            set_version(&project.path().join(edited.file), edited.marker, n);
            load.until_seen(edited.api, n, SEEN).await;
        }
    }
    let took = start.elapsed();
    let seen = load.stop().await;
    println!(
        "{edits} edits of each of {} APIs in {took:.1?}: {} answers, the slowest after {:.0?}",
        apis.len(),
        seen.answers,
        seen.longest
    );
    let last = apis.iter().map(|e| (e.api, edits)).collect();
    seen.assert_whole(&last);
    let found = database::disagreements(&url, &prefix, before, &seen.ledger)
        .await
        .expect("the database answers");
    assert!(
        found.is_empty(),
        "{} lost or doubled: {:?}",
        found.len(),
        found.first()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_python_and_node_lose_nothing() {
    let project = Project::reference();
    let apis = [
        Edited {
            api: "Python",
            file: "services/seed/api1/app/__init__.py",
            marker: "VERSION = ",
        },
        Edited {
            api: "NodeJS",
            file: "services/seed/api2/src/main.js",
            marker: "version: ",
        },
    ];
    edit_under_load(&project, &["--profile", "seed"], &apis).await;
    proven("local, process", "seed", "edits under load, none failed");

    // A save that can't run: the version before it serves, and the next good one does.
    let file = project.path().join("services/seed/api1/app/__init__.py");
    let good = fs::read_to_string(&file).expect("the source");
    let known = newest_reload(&project).await;
    let mut load = Paced::start(
        &format!("{}/api", project.ingress().await),
        Body::Record,
        PACE_DEBUG,
        "broken",
    );
    load.saving("Python", 1);
    save(&file, "def broken(:\n", false);
    let failed = reload_after(&project, known, SEEN, |r| r["outcome"] == "not-ready").await;
    let log = failed["error"]["output"].as_str().unwrap_or_default();
    assert!(log.contains("SyntaxError"), "{failed:#}");
    let status = project.status().await;
    assert_eq!(
        status["troubles"].as_array().map(Vec::len),
        Some(1),
        "{status:#}"
    );
    set_version_of(&file, &good, 1);
    load.until_seen("Python", 1, SEEN).await;
    let seen = load.stop().await;
    assert!(seen.failures.is_empty(), "{:?}", seen.failures.first());
    let mended = reload_after(&project, known, SEEN, |r| r["outcome"] == "reloaded").await;
    assert_eq!(mended["what"], "api1");
    let status = project.status().await;
    assert_eq!(
        status["troubles"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );
}

fn set_version_of(file: &Path, good: &str, n: u32) {
    fs::write(file, good).expect("the source is written");
    set_version(file, "VERSION = ", n);
}

/// The reference application, built from source where the checkout's own build can't be
/// used: another folder has other fingerprints. What cargo made is kept from run to run.
fn rust_project() -> Project {
    let project = Project::copy_named(Services::FromSource, "edit-rust");
    let target = kept_folder("edit-rust-target");
    project.configure(|config| {
        let images = config["image"].as_table_mut().expect("images");
        images.retain(|name, _| name != "frontend");
        for (_, image) in images {
            let build = format!(
                "cargo build --locked -p api1 -p api2 -p api3 --target-dir {target} && \
                 mkdir -p target/debug && \
                 install -C -t target/debug {target}/debug/api1 {target}/debug/api2 {target}/debug/api3",
                target = target.display()
            );
            image["build"] = build.into();
        }
        config.remove("cloudrun");
    });
    project
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_rust_lose_nothing() {
    let project = rust_project();
    let apis = ["api1", "api2"].map(|api| (api, format!("services/{api}/src/main.rs")));
    let apis = apis.each_ref().map(|(api, file)| Edited {
        api,
        file,
        marker: "const VERSION: &str = ",
    });
    edit_under_load(&project, &[], &apis).await;

    // A compile error: told as the compiler said it, and no request fails meanwhile.
    let file = project.path().join(apis[0].file);
    let good = fs::read_to_string(&file).expect("the source");
    let known = newest_reload(&project).await;
    let ingress = format!("{}/api", project.ingress().await);
    let load = Paced::start(&ingress, Body::Record, PACE_DEBUG, "broken");
    save(&file, &format!("{good}\nfn broken( {{\n"), true);
    let failed = reload_after(&project, known, SEEN, |r| r["outcome"] == "build-failed").await;
    let output = failed["error"]["output"].as_str().unwrap_or_default();
    assert!(output.contains("unclosed delimiter"), "{failed:#}");
    let status = project.run(&["status"]).await;
    assert!(status.stdout.contains("unclosed delimiter"), "{status}");
    let events = kubectl(&project, &["get", "events", "-A", "-o", "wide"]).await;
    assert!(events.contains("BuildFailed"), "{events}");
    save(&file, &format!("{good}\n// mended\n"), false);
    reload_after(&project, known, SEEN, |r| r["outcome"] == "reloaded").await;
    let seen = load.stop().await;
    assert!(seen.failures.is_empty(), "{:?}", seen.failures.first());
    let status = project.status().await;
    assert_eq!(
        status["troubles"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );
    let events = kubectl(&project, &["get", "events", "-A", "-o", "wide"]).await;
    assert!(!events.contains("BuildFailed"), "{events}");
}

async fn kubectl(project: &Project, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new("kubectl");
    command
        .arg("--kubeconfig")
        .arg(project.kubeconfig())
        .args(arguments);
    let output = command.output().await.expect("kubectl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_coded_port_two_replicas_and_a_deaf_program_lose_nothing() {
    for (strategy, replicas, deaf) in [
        ("RollingUpdate", 2, false),
        ("RollingUpdate", 1, true),
        ("Recreate", 2, false),
    ] {
        let project = Project::empty();
        let small = Small {
            replicas,
            strategy,
            deaf,
            name: "small",
        };
        small.write(&project);
        project.up().await;
        let url = project.ingress().await;
        let mut load = Paced::start(&url, Body::Nothing, RATE, "");
        let file = project.path().join("hello/main.py");
        let edits = rounds(5);
        let start = Instant::now();
        for n in 1..=edits {
            load.until_calm(SEEN).await;
            let known = newest_reload(&project).await;
            load.saving("hello", n);
            set_version(&file, "VERSION = ", n);
            load.until_seen("hello", n, SEEN).await;
            // With two replicas the version before answers until the last is replaced.
            let is_done = |r: &serde_json::Value| r["outcome"] == "reloaded";
            reload_after(&project, known, SEEN, is_done).await;
        }
        let took = start.elapsed();
        let seen = load.stop().await;
        println!(
            "{strategy}, {replicas} replicas, deaf: {deaf}: {edits} edits in {took:.1?}, \
             {} answers, the slowest after {:.0?}",
            seen.answers, seen.longest
        );
        seen.assert_whole(&BTreeMap::from([("hello", edits)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_configuration_and_mistakes_are_taken_over() {
    let project = Project::empty();
    let small = Small {
        replicas: 1,
        strategy: "RollingUpdate",
        deaf: false,
        name: "small",
    };
    small.write(&project);
    project.up().await;
    let url = project.ingress().await;
    let get = || async { reqwest::get(&url).await.ok()?.text().await.ok() };
    let manifest = project.path().join("k8s/app.yaml");
    let good = fs::read_to_string(&manifest).expect("the manifest");

    // A variable from a ConfigMap: its pods are replaced, and nothing else.
    save(
        &manifest,
        &good.replace("GREETING: hello", "GREETING: hola"),
        true,
    );
    let reload = reload_after(&project, 0, SEEN, |r| r["outcome"] == "reloaded").await;
    assert_eq!(reload["what"], "project", "{reload:#}");
    assert_eq!(reload["workload"], "Deployment hello", "{reload:#}");
    assert_eq!(get().await.as_deref(), Some("hola"));

    // A comment changes nothing.
    let hola = fs::read_to_string(&manifest).expect("the manifest");
    let known = newest_reload(&project).await;
    save(&manifest, &format!("# words\n{hola}"), false);
    // A mistake is told with its place, and what ran runs on.
    save(
        &manifest,
        &hola.replace("kind: Deployment", "kind: Deploiment"),
        true,
    );
    let invalid = reload_after(&project, known, SEEN, |_| true).await;
    assert_eq!(invalid["outcome"], "invalid", "{invalid:#}");
    let text = invalid["error"].to_string();
    assert!(text.contains("k8s/app.yaml:"), "{invalid:#}");
    assert_eq!(get().await.as_deref(), Some("hola"));

    // Its mending and another change at once; an object that is gone from the files goes.
    let mended = hola.replace("replicas: 1", "replicas: 2");
    save(&manifest, &mended, false);
    reload_after(&project, known + 1, SEEN, |r| r["outcome"] == "reloaded").await;
    let pods = kubectl(&project, &["get", "deployment", "hello", "-n", "small"]).await;
    assert!(pods.contains("2/2"), "{pods}");
    let status = project.status().await;
    assert_eq!(
        status["troubles"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );

    // A probe that is gone from the manifest is gone with its defaults.
    let known = newest_reload(&project).await;
    let text = fs::read_to_string(&manifest).expect("the manifest");
    let lines = text.lines().filter(|l| !l.contains("readinessProbe"));
    let probeless = lines.collect::<Vec<_>>().join("\n");
    assert_ne!(probeless, text.trim_end());
    save(&manifest, &probeless, false);
    reload_after(&project, known, SEEN, |r| r["outcome"] == "reloaded").await;
    let known = newest_reload(&project).await;
    save(&manifest, &text, false);
    reload_after(&project, known, SEEN, |r| r["outcome"] == "reloaded").await;

    // How it is run: the program's own line in devenv.toml.
    let known = newest_reload(&project).await;
    project.configure(|config| {
        let hello = config["image"]["hello"].as_table_mut().expect("a table");
        hello.insert("run".into(), vec!["python3", "other.py"].into());
        let env = BTreeMap::from([("A".to_owned(), toml::Value::from("b"))]);
        hello.insert("env".into(), toml::Value::try_from(env).expect("a table"));
    });
    reload_after(&project, known, SEEN, |r| r["outcome"] == "not-ready").await;
    assert_eq!(
        get().await.as_deref(),
        Some("hola"),
        "the old version serves"
    );
    let program = fs::read_to_string(project.path().join("hello/main.py")).expect("the program");
    project.write("hello/other.py", &program);
    reload_after(&project, known, SEEN, |r| r["outcome"] == "reloaded").await;

    // A touch reloads nothing; asking for it does.
    let known = reloads(&project).await.len();
    project.write("hello/other.py", &program);
    let asked = project.run(&["reload", "hello"]).await;
    assert!(asked.ok(), "{asked}");
    let all = reloads(&project).await;
    assert_eq!(all.len(), known + 1, "{all:#?}");

    // What somebody deleted comes back with the next `up`.
    kubectl(&project, &["delete", "namespace", "small", "--wait=true"]).await;
    let up = project.run(&["up", "-d"]).await;
    assert!(up.ok(), "{up}");
    assert_eq!(get().await.as_deref(), Some("hola"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_and_two_namespaces_have_the_same_ports_at_once() {
    let projects = [Project::empty(), Project::empty()];
    for (project, name) in projects.iter().zip(["one", "two"]) {
        let small = Small {
            replicas: 2,
            strategy: "RollingUpdate",
            deaf: false,
            name,
        };
        small.write(project);
        // The same Deployment again in a second namespace, behind a path of its own.
        let first = fs::read_to_string(project.path().join("k8s/app.yaml")).expect("written");
        let other = format!("{name}-b");
        let second = first
            .replace(
                &format!("metadata: {{name: {name}}}"),
                &format!("metadata: {{name: {other}}}"),
            )
            .replace(
                "metadata: {name: words}",
                &format!("metadata: {{name: words, namespace: {other}}}"),
            )
            .replace(
                "metadata: {name: hello}",
                &format!("metadata: {{name: hello, namespace: {other}}}"),
            )
            .replace("GREETING: hello", "GREETING: other")
            .replace("path: /,", "path: /other,");
        project.write("k8s/other.yaml", &second);
        project.up().await;
    }
    for project in &projects {
        let ingress = project.ingress().await;
        let get = |path: &str| reqwest::get(format!("{ingress}{path}"));
        let text = |r: Result<reqwest::Response, _>| async { r.expect("an answer").text().await };
        assert_eq!(text(get("/").await).await.expect("text"), "hello");
        assert_eq!(text(get("/other").await).await.expect("text"), "other");
    }
    // An edit of one is none of the other.
    let file = projects[0].path().join("hello/main.py");
    set_version(&file, "VERSION = ", 7);
    let both = |r: &serde_json::Value| r["outcome"] == "reloaded";
    reload_after(&projects[0], 1, SEEN, both).await;
    assert!(reloads(&projects[1]).await.is_empty());
}

/// SIGKILL at random moments of `up`, of reloads and of `down`.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_left_and_the_next_up_is_good() {
    let project = Project::empty();
    let small = Small {
        replicas: 2,
        strategy: "RollingUpdate",
        deaf: false,
        name: "small",
    };
    small.write(&project);
    project.configure(|config| {
        let hello = config["image"]["hello"].as_table_mut().expect("a table");
        // Something of the build to be killed as well, which would outlive its parent.
        let build = "trap '' HUP TERM; (setsid sleep 0.2 &); sleep 0.1";
        hello.insert("build".into(), build.into());
    });
    let file = project.path().join("hello/main.py");
    let before = Inventory::take(&project.scope());
    for round in 1..=rounds(6) {
        let moment = Duration::from_millis(u64::from(round * 7919 % 400));
        let scope = match round % 3 {
            // During `up`.
            0 => {
                let mut up = project.command(&["up", "-d"]).spawn().expect("up starts");
                let holder = devenv_tests::until(SEEN, Duration::from_millis(1), || async {
                    project.supervisor()
                });
                let pid = holder.await.expect("a supervisor");
                tokio::time::sleep(moment).await;
                let mut scope = project.scope();
                scope.learn(pid);
                kill(pid);
                let _ = up.wait();
                scope
            }
            // During a reload.
            1 => {
                project.up().await;
                let scope = project.scope_of_all().await;
                set_version(&file, "VERSION = ", round);
                tokio::time::sleep(moment).await;
                kill(project.supervisor().expect("a supervisor"));
                scope
            }
            // During `down`.
            _ => {
                project.up().await;
                let scope = project.scope_of_all().await;
                let pid = project.supervisor().expect("a supervisor");
                let mut down = project.command(&["down"]).spawn().expect("down starts");
                tokio::time::sleep(moment / 4).await;
                kill(pid);
                let _ = down.wait();
                scope
            }
        };
        let scope = scope.without(Kind::RunFile);
        if let Err(left) = before.nothing_left(&scope, Duration::from_secs(5)).await {
            panic!("round {round}, after {moment:.0?}: {left}");
        }
        project.up().await;
        let answer = reqwest::get(project.ingress().await)
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "round {round}");
        project.down(&[]).await;
    }
}
