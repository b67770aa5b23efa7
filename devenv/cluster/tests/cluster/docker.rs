//! Pods as containers of a real Docker Engine, in the cluster's network.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use devenv_cluster::{ContainerImage, Containers, Isolation, RunSpec, kinds};
use futures_util::TryStreamExt;
use serde_json::json;

use crate::http::get;
use crate::load::Load;
use crate::metrics;
use crate::rig::{Folder, PATIENCE, Rig};

/// A static busybox with its common names.
const IMAGE: &str = "devenv-cluster-test/busybox:1";
const BUSYBOX: &str = "/bin/busybox";
const HOST: &str = "unix:///var/run/docker.sock";

/// The engine, with the image; nothing, said, where there is none.
async fn engine() -> Option<Containers> {
    let skipped = |why: &str| {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        println!("skipped: {why}");
    };
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| HOST.to_owned());
    let docker = match Docker::connect_with_host(&host) {
        Ok(docker) => docker.negotiate_version().await,
        Err(error) => Err(error),
    };
    let docker = match docker {
        Ok(docker) => docker,
        Err(error) => {
            skipped(&format!("no Docker Engine answers at {host}: {error}"));
            return None;
        }
    };
    if !Path::new(BUSYBOX).exists() {
        skipped("a static busybox is missing; install busybox-static");
        return None;
    }
    if docker.inspect_image(IMAGE).await.is_err() {
        import(&docker).await;
    }
    Some(Containers { docker, host })
}

async fn import(docker: &Docker) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut file = std::fs::File::open(BUSYBOX).expect("busybox");
    archive
        .append_file("bin/busybox", &mut file)
        .expect("added");
    for name in [
        "sh", "httpd", "wget", "cat", "echo", "head", "tail", "test", "touch", "sleep",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive
            .append_link(&mut header, format!("bin/{name}"), "busybox")
            .expect("added");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o1777);
    archive
        .append_data(&mut header, "tmp/", std::io::empty())
        .expect("added");
    let (repo, tag) = IMAGE.split_once(':').expect("a tag");
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repo)
        .tag(tag)
        .build();
    let body = bollard::body_full(archive.into_inner().expect("whole").into());
    let steps = docker.create_image(Some(options), Some(body), None);
    steps.try_collect::<Vec<_>>().await.expect("it is imported");
}

fn image(rig: &Rig, argv: &[&str]) {
    let run = RunSpec {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        cwd: "/tmp".into(),
        env: vec![
            ("PATH".into(), "/bin".into()),
            ("FROM_IMAGE".into(), "yes".into()),
        ],
        container: Some(Arc::new(ContainerImage {
            id: IMAGE.to_owned(),
            ..ContainerImage::default()
        })),
        ..RunSpec::default()
    };
    rig.cluster.images().set("web", run);
}

async fn start(engine: &Containers) -> Rig {
    let dir = Arc::new(Folder::new());
    let rig = Rig::start_on(dir, Isolation::Sandbox, Some(engine.clone())).await;
    image(&rig, &["httpd", "-f", "-p", "5000", "-h", "/www"]);
    rig
}

/// A page from a ConfigMap, served by `replicas` pods behind a Service and an Ingress.
fn serve(rig: &Rig, replicas: u32) {
    rig.create(
        &kinds::CONFIG_MAP,
        json!({"metadata": {"name": "page", "namespace": "default"}, "data": {"index.html": "hello\n"}}),
    );
    rig.create(
        &kinds::DEPLOYMENT,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    // PID 1 ignores SIGTERM when nothing handles it, as in Kubernetes.
                    "terminationGracePeriodSeconds": 1,
                    "volumes": [{"name": "page", "configMap": {"name": "page"}}],
                    "containers": [{
                        "name": "c", "image": "web",
                        "volumeMounts": [{"name": "page", "mountPath": "/www"}],
                        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 5000}},
                    }],
                }},
            },
        }),
    );
    rig.service("web", 5000);
    rig.ingress("web", 5000);
}

/// Everything on the engine that belongs to this system.
async fn left(docker: &Docker, state_dir: &Path) -> Vec<String> {
    let label = format!("dev.devenv.system={}", state_dir.display());
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&HashMap::from([("label", vec![label.as_str()])]))
        .build();
    let found = docker.list_containers(Some(options)).await.expect("listed");
    found
        .into_iter()
        .map(|c| format!("{:?} {:?}", c.names, c.status))
        .collect()
}

/// Two replicas behind their Service's name and the Ingress; nothing is left of them.
pub async fn reached() {
    let Some(engine) = engine().await else { return };
    let rig = start(&engine).await;
    let begin = Instant::now();
    serve(&rig, 2);
    rig.until_available("web", 2).await;
    println!("two containers available in {:?}", begin.elapsed());
    assert_eq!(
        get(rig.ingress, "/index.html").await.expect("an answer"),
        (200, "hello\n".into())
    );
    let asked = "wget -qO- http://web:5000/index.html; wget -qO- http://web.default.svc.cluster.local:5000/index.html; echo $$$$ $FROM_IMAGE $HOSTNAME; cat /etc/hostname";
    assert_eq!(
        rig.run("asker", &["sh", "-c", asked]).await,
        "hello\nhello\n1 yes asker\nasker\n"
    );
    // What the ConfigMap says later appears in the running containers.
    rig.cluster
        .store()
        .update(&kinds::CONFIG_MAP, "default", "page", |map| {
            map["data"]["index.html"] = json!("changed\n");
            Ok(())
        })
        .expect("updated");
    let begin = Instant::now();
    loop {
        let got = get(rig.ingress, "/index.html").await.expect("an answer");
        if got == (200, "changed\n".into()) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{got:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let state_dir = rig.dir.path().join(".devenv");
    let mut running = left(&engine.docker, &state_dir).await;
    // Two replicas, each with its pause container; the asker's are on their way out.
    running.retain(|container| container.contains("test_web-"));
    assert_eq!(running.len(), 4, "{running:#?}");
    rig.stop().await;
    assert_eq!(left(&engine.docker, &state_dir).await, [""; 0]);
}

/// New versions under load: nothing fails.
pub async fn rolling_update() {
    let Some(engine) = engine().await else { return };
    let rig = start(&engine).await;
    serve(&rig, 1);
    let show = async |version: u32| {
        let page = format!("page-{version}");
        rig.create(
            &kinds::CONFIG_MAP,
            json!({"metadata": {"name": page, "namespace": "default"},
                "data": {"index.html": version.to_string()}}),
        );
        let deployment = rig
            .cluster
            .store()
            .update(&kinds::DEPLOYMENT, "default", "web", |d| {
                d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(page);
                Ok(())
            });
        deployment.expect("updated");
        rig.until_available("web", 1).await;
    };
    show(1).await;
    rig.until_ready("web").await;
    let load = Load::of(rig.ingress, 4, &["GET"]);
    load.replies(20).await;
    for version in 2..=4 {
        load.begins(version);
        show(version).await;
        load.is_alone(version).await;
    }
    let report = load.stop().await;
    report.check("rolling update of containers", 4, PATIENCE);
    rig.stop().await;
}

/// Exit codes, memory kills, exec probes, users and read-only roots are told and kept.
pub async fn told_truly() {
    let Some(engine) = engine().await else { return };
    let rig = start(&engine).await;
    let pod = |name: &str, container: serde_json::Value| {
        let mut container = container;
        container["name"] = json!("c");
        container["image"] = json!("web");
        rig.pod(
            name,
            json!({"restartPolicy": "Never", "containers": [container]}),
        );
    };
    let terminated = async |name: &str| {
        rig.until(&kinds::POD, name, "ended", |p| {
            p.is_some_and(|p| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        })
        .await;
        let pod = rig.get(&kinds::POD, name).expect("there");
        let ended = &pod.value()["status"]["containerStatuses"][0]["state"]["terminated"];
        (ended["reason"].clone(), ended["exitCode"].clone())
    };
    pod("three", json!({"command": ["sh", "-c", "exit 3"]}));
    assert_eq!(terminated("three").await, (json!("Error"), json!(3)));
    // Its last pipe holds all of it in memory.
    pod(
        "hungry",
        json!({"command": ["sh", "-c", "exec tail -c 200000000 /dev/zero"],
            "resources": {"limits": {"memory": "16Mi"}}}),
    );
    assert_eq!(terminated("hungry").await, (json!("OOMKilled"), json!(137)));
    pod("lost", json!({"command": ["no-such-program"]}));
    assert_eq!(terminated("lost").await, (json!("StartError"), json!(128)));
    let look = "touch /x 2>/dev/null || echo read-only; touch /tmp/x 2>/dev/null || echo everywhere; cat /proc/self/status | head -8 | tail -1";
    pod(
        "modest",
        json!({"command": ["sh", "-c", look],
            "securityContext": {"runAsUser": 1234, "runAsGroup": 5678, "readOnlyRootFilesystem": true}}),
    );
    assert_eq!(terminated("modest").await, (json!("Completed"), json!(0)));
    let log = rig.log("modest").await;
    assert!(log.starts_with("read-only\neverywhere\n"), "{log}");
    // Not root, as far as the image tells, and asked not to be.
    pod("proud", json!({"securityContext": {"runAsNonRoot": true}}));
    rig.until(&kinds::POD, "proud", "refused", |p| {
        let waiting = p.map(|p| &p["status"]["containerStatuses"][0]["state"]["waiting"]);
        waiting.is_some_and(|w| {
            w["message"]
                .as_str()
                .is_some_and(|m| m.contains("runAsNonRoot"))
        })
    })
    .await;
    let probe = json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1});
    pod(
        "slow",
        json!({"command": ["sh", "-c", "sleep 1; touch /tmp/ready; exec sleep 100"], "readinessProbe": probe}),
    );
    rig.until(&kinds::POD, "slow", "ready", |p| {
        p.is_some_and(|p| p["status"]["containerStatuses"][0]["ready"] == true)
    })
    .await;
    rig.stop().await;
}

/// What containers use is told as the engine counts it.
pub async fn usage() {
    let Some(engine) = engine().await else { return };
    let rig = start(&engine).await;
    let hold = "(head -c 52428800 /dev/zero; echo held >&2; sleep 1000) | tail -c 52428800";
    metrics::told_of(&rig, &["sh", "-c", hold]).await;
    rig.stop().await;
}

/// A container that somebody kills, and a pod whose pause container somebody removes,
/// come back.
pub async fn comes_back() {
    let Some(engine) = engine().await else { return };
    let rig = start(&engine).await;
    serve(&rig, 1);
    rig.until_available("web", 1).await;
    let container = async |name: &str| {
        let label = format!(
            "dev.devenv.system={}",
            rig.dir.path().join(".devenv").display()
        );
        let of = format!("io.kubernetes.container.name={name}");
        let options = ListContainersOptionsBuilder::new()
            .filters(&HashMap::from([(
                "label",
                vec![label.as_str(), of.as_str()],
            )]))
            .build();
        let found = engine
            .docker
            .list_containers(Some(options))
            .await
            .expect("listed");
        found.into_iter().find_map(|c| c.id).expect("one runs")
    };
    let restarts = async |at_least: u64| {
        let pod = rig.pods("web")[0].name().to_owned();
        rig.until(&kinds::POD, &pod, "ready again", |p| {
            let status = p.map(|p| &p["status"]["containerStatuses"][0]);
            status.is_some_and(|s| {
                s["ready"] == true && s["restartCount"].as_u64().unwrap_or(0) >= at_least
            })
        })
        .await;
        rig.until_ready("web").await;
        // In a crash loop's back-off the Ingress refuses, and it hears of what is ready a
        // moment after the one who looks into the store.
        let answers = async {
            while get(rig.ingress, "/index.html").await.expect("an answer").0 == 503 {
                tokio::task::yield_now().await;
            }
            get(rig.ingress, "/index.html").await.expect("an answer").0
        };
        let answer = tokio::time::timeout(PATIENCE, answers).await;
        assert_eq!(answer.expect("it is served again"), 200);
    };
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    engine
        .docker
        .kill_container(
            &container("c").await,
            None::<bollard::query_parameters::KillContainerOptions>,
        )
        .await
        .expect("killed");
    restarts(1).await;
    engine
        .docker
        .remove_container(&container("POD").await, Some(force))
        .await
        .expect("removed");
    restarts(2).await;
    rig.stop().await;
}

/// The role of a process that is killed: a cluster with two pods, said when they run.
pub async fn tree(dir: &str) {
    let engine = engine().await.expect("the caller looked");
    let folder = Arc::new(Folder::of_another(Path::new(dir)));
    let rig = Rig::start_on(folder, Isolation::Sandbox, Some(engine)).await;
    image(&rig, &["httpd", "-f", "-p", "5000", "-h", "/www"]);
    serve(&rig, 2);
    rig.until_available("web", 2).await;
    println!("up");
    std::future::pending::<()>().await;
}

/// A killed devenv's containers are gone a moment later.
pub async fn killed_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    for round in 0..3 {
        let folder = Folder::new();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["docker-tree", &folder.path().display().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdout = child.stdout.take().expect("piped");
        let up = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let mut lines = std::io::BufReader::new(stdout).lines();
            lines.any(|line| line.is_ok_and(|line| line == "up"))
        });
        let limit = match round {
            // On the way up,
            0 => Duration::from_millis(900),
            // and when it stands.
            _ => PATIENCE,
        };
        let _ = tokio::time::timeout(limit, up).await;
        child.kill().expect("killed");
        child.wait().expect("reaped");
        let begin = Instant::now();
        loop {
            let left = left(&engine.docker, &folder.path().join(".devenv")).await;
            if left.is_empty() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "round {round}: {left:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("round {round}: nothing left {:?} later", begin.elapsed());
    }
}
