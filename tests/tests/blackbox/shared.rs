//! `devenv up --target kube:CONTEXT`: a namespace of one's own on a cluster that somebody else
//! has, whose nodes pull from a registry. The cluster is another project's in kind (Kubernetes
//! 1.20.2).

use devenv_tests::containers::{self, MYSQL, docker, everything, new_since};
use devenv_tests::editing::{newest_reload, reload_after, set_version};
use devenv_tests::engine_registry::EngineRegistry;
use devenv_tests::project::{Project, kill};
use devenv_tests::{database, record::record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const UP: Duration = Duration::from_secs(480);
const SEEN: Duration = Duration::from_secs(120);
const CONTEXT: &str = "kind-devenv-bb-kube-host";
const SHARED: [&str; 5] = [
    "up",
    "-d",
    "--profile=seed",
    "--target",
    "kube:kind-devenv-bb-kube-host",
];

/// A volume of the node, for who asks for one.
const STORAGE: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: kept}
spec:
  storageClassName: kept
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /kept, type: DirectoryOrCreate}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: kept, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
"#;

fn kubectl(kubeconfig: &Path, words: &[&str]) -> String {
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(words)
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn allow(project: &mut Project, text: &str) {
    let home = project.path().join("config-home");
    fs::create_dir_all(home.join("devenv-gke")).expect("a folder");
    fs::write(home.join("devenv-gke/config.toml"), text).expect("a file");
    project.set_variable("XDG_CONFIG_HOME", home);
}

/// Records that `count` requests through the ingress of that host have made, by API.
async fn post(ingress: &str, host: &str, count: u32) -> BTreeMap<String, usize> {
    let client = reqwest::Client::new();
    let mut apis = BTreeMap::new();
    for n in 0..count {
        let answer = client
            .post(format!("{ingress}/api"))
            .header("host", host)
            .json(&record(f64::from(n)))
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 201, "{body}");
        *apis
            .entry(body["api"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    apis
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_ones_own() {
    let Some(host) = containers::reference_for_kind("bb-kube-host") else {
        return;
    };
    let Some(mut mine) = containers::reference() else {
        return;
    };
    let before = everything();
    let Some(registry) = EngineRegistry::start("bb-kube-registry") else {
        return;
    };
    let cluster = fs::read_to_string(host.path().join("kind/cluster.yaml")).expect("there");
    let patched = format!("{cluster}{}", registry.containerd_patch());
    host.write("kind/cluster.yaml", &patched);
    let words = ["up", "-d", "--target", "kind", "--ingress", "devenv"];
    let up = host
        .run_within(UP, &[&words[..], &["--timeout=4m"]].concat())
        .await;
    assert!(up.ok(), "{up}\n{}", host.supervisor_log());
    registry.join("kind");
    let admin = host.kubeconfig();
    // The class of this Kubernetes makes its volumes inside of a pod of the control plane.
    kubectl(&admin, &["delete", "storageclass", "--all"]);
    host.write("storage.yaml", STORAGE);
    let storage = host.path().join("storage.yaml");
    kubectl(&admin, &["apply", "-f", &storage.display().to_string()]);
    let mysql = registry.push(MYSQL, "mysql:9");
    let name = containers::compose_project(&mine);
    let env = format!("MYSQL_IMAGE={mysql}\nCOMPOSE_PROJECT_NAME={name}\n");
    mine.write("compose/.env", &env);
    mine.set_variable("KUBECONFIG", admin.clone());
    let server = kubectl(
        &admin,
        &[
            "config",
            "view",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ],
    );

    // Nobody's cluster is used because a project says so.
    allow(&mut mine, "");
    let refused = mine.run(&SHARED).await;
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(refused.stderr.contains("[[allow_contexts]]"), "{refused}");
    assert!(refused.stderr.contains(&server), "{refused}");
    let ingress = host.ingress().await;
    let port = ingress.rsplit(':').next().expect("a port");
    let listed = |server: &str, namespace: &str| {
        format!(
            "[[allow_contexts]]\nname = {CONTEXT:?}\nserver = {server:?}\nregistry = \
             \"{}/dev\"\nnamespace = {namespace:?}\ningress = \
             \"http://{{namespace}}.localhost:{port}\"\n",
            registry.host()
        )
    };
    allow(
        &mut mine,
        &listed("https://elsewhere:6443", "{namespace}-bob"),
    );
    let moved = mine.run(&SHARED).await;
    assert_eq!(moved.code, Some(1), "{moved}");
    assert!(moved.stderr.contains("https://elsewhere:6443"), "{moved}");
    // Nor is a namespace that is somebody else's.
    allow(&mut mine, &listed(&server, "{namespace}"));
    let taken = mine.run(&SHARED).await;
    assert_eq!(taken.code, Some(1), "{taken}");
    assert!(taken.stderr.contains("is there already"), "{taken}");

    allow(&mut mine, &listed(&server, "{namespace}-bob"));
    let up = mine.run_within(UP, &SHARED).await;
    assert!(up.ok(), "{up}\n{}", mine.supervisor_log());
    println!("up on a shared cluster: {:.1?}", up.took);
    let status = mine.status().await;
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["endpoints"]["target"], "kube", "{status:#}");
    assert_eq!(status["endpoints"]["namespace"], "so1-fase2-bob");
    let images = kubectl(
        &admin,
        &[
            "-n",
            "so1-fase2-bob",
            "get",
            "deployment",
            "api1",
            "-o",
            "jsonpath={..image}",
        ],
    );
    let pinned = format!("{}/dev/", registry.host());
    assert!(
        images.starts_with(&pinned) && images.contains("@sha256:"),
        "{images}"
    );
    // Each host leads to its own system, on one ingress controller.
    let apis = post(&ingress, "so1-fase2-bob.localhost", 40).await;
    assert_eq!(apis.values().sum::<usize>(), 40, "{apis:?}");
    assert_eq!(apis.len(), 2, "{apis:?}");
    let url = mine.url("database").await;
    assert_eq!(database::count(&url).await.expect("answers"), 40);
    let others = host.url("database").await;
    assert_eq!(database::count(&others).await.expect("answers"), 0);
    let page = reqwest::get(mine.url("frontend").await)
        .await
        .expect("the page");
    assert_eq!(page.status(), 200);

    // A save goes by the registry.
    let file = mine.path().join("services/seed/api1/app/__init__.py");
    let known = newest_reload(&mine).await;
    set_version(&file, "VERSION = ", 7);
    let save = reload_after(&mine, known, SEEN, |r| r["outcome"] == "reloaded").await;
    println!("a save on a shared cluster: {}", save["ms"]);
    let saved = kubectl(
        &admin,
        &[
            "-n",
            "so1-fase2-bob",
            "get",
            "deployment",
            "api1",
            "-o",
            "jsonpath={..image}",
        ],
    );
    assert_ne!(saved, images);

    // Who was killed finds it again; down ends what runs and keeps the data where the cluster
    // keeps it; -v takes the namespace away, and nothing of others.
    kill(mine.supervisor().expect("it runs"));
    let again = mine.run_within(UP, &SHARED).await;
    assert!(again.ok(), "{again}\n{}", mine.supervisor_log());
    let down = mine.run_within(UP, &["down"]).await;
    assert!(down.ok(), "{down}");
    let left = kubectl(
        &admin,
        &["-n", "so1-fase2-bob", "get", "pods", "-o", "name"],
    );
    assert_eq!(left, "");
    let warm = mine.run_within(UP, &SHARED).await;
    assert!(warm.ok(), "{warm}\n{}", mine.supervisor_log());
    println!("warm: {:.1?}", warm.took);
    let url = mine.url("database").await;
    assert_eq!(database::count(&url).await.expect("answers"), 40);
    let gone = mine.run_within(UP, &["down", "-v"]).await;
    assert!(gone.ok(), "{gone}");
    let namespaces = kubectl(&admin, &["get", "namespaces", "-o", "name"]);
    assert!(!namespaces.contains("bob"), "{namespaces}");
    let status = host.status().await;
    assert_eq!(status["ready"], true, "{status:#}");

    host.down(&["-v"]).await;
    drop(registry);
    assert_eq!(new_since(&before), [""; 0], "after down -v");
    assert!(docker(&["ps"]).is_ok());
}
