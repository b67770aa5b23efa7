//! Real kubectl: every version that is installed, from the oldest to the newest.
//!
//! Without kubectl the test says so and passes; with `CI=true` that is a failure.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::support::Running;
use devenv_cluster::{kinds, store::Store};
use serde_json::json;

const APP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: x}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: web:1
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
        ports: [{containerPort: 5000}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: x}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 5000}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: x}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
      - {path: /api, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm, namespace: x}
data: {a: "1", b: "2"}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: frontend, namespace: x}
spec: {template: {spec: {containers: [{image: frontend}]}}}
"#;

/// `kubectl` of the PATH, and its versioned siblings where it is the Cloud SDK's dispatcher.
fn installed() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in std::env::split_paths(&path) {
        let Ok(kubectl) = dir.join("kubectl").canonicalize() else {
            continue;
        };
        let siblings = kubectl.parent().and_then(|d| std::fs::read_dir(d).ok());
        let versions = siblings
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                p.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("kubectl.1."))
            });
        found.extend(versions);
        found.push(kubectl);
        break;
    }
    found.sort();
    found.dedup();
    found
}

struct Kubectl<'a> {
    program: &'a Path,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl<'_> {
    /// Exit code, and both outputs one after the other.
    async fn run(&self, args: &str) -> (i32, String) {
        let output = Command::new(self.program)
            .args(args.split_whitespace())
            .env("KUBECONFIG", &self.kubeconfig)
            // Its discovery cache belongs to this test alone.
            .env("HOME", &self.home)
            .env("KUBECACHEDIR", self.home.join("cache"))
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    async fn ok(&self, args: &str) -> String {
        let (code, text) = self.run(args).await;
        assert_eq!(code, 0, "{} {args}: {text}", self.program.display());
        text
    }

    async fn fails(&self, args: &str) -> String {
        let (code, text) = self.run(args).await;
        assert_ne!(code, 0, "{} {args}: {text}", self.program.display());
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyday_commands_work_with_every_version() {
    let programs = installed();
    if programs.is_empty() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "CI must have kubectl"
        );
        println!("skipped: kubectl is not installed");
        return;
    }
    for program in programs {
        let running = Running::start().await;
        let home = running.path("home");
        std::fs::create_dir(&home).unwrap();
        let changed = APP
            .replace("replicas: 2", "replicas: 3")
            .replace(r#"{name: A, value: "1"}, "#, "")
            .replace(r#", b: "2""#, "");
        std::fs::write(home.join("app.yaml"), APP).unwrap();
        std::fs::write(home.join("changed.yaml"), changed).unwrap();
        let kubectl = Kubectl {
            program: &program,
            kubeconfig: running.kubeconfig(),
            home,
        };
        everyday(&kubectl).await;
        created(&kubectl).await;
        top(&kubectl, &running.store).await;
        println!("{}: every command did what it should", program.display());
    }
}

/// From 1.32 on these are sent as protobuf, before as JSON: the same comes of both.
async fn created(kubectl: &Kubectl<'_>) {
    kubectl.ok("create namespace made").await;
    for (what, path, wanted) in [
        (
            "configmap m --from-literal=a=b --from-file=f=app.yaml",
            "cm m -o jsonpath={.data.a}",
            "b",
        ),
        (
            "secret generic s --from-literal=a=b",
            "secret s -o jsonpath={.type}/{.data.a}",
            "Opaque/Yg==",
        ),
        (
            "deployment d --image=web:1 --replicas=0 --port=80 -- sleep 10",
            "deploy d -o jsonpath={.spec.replicas}{.spec.selector.matchLabels}{.spec.template.spec.containers[0].command}{.spec.template.spec.containers[0].ports}",
            r#"0{"app":"d"}["sleep","10"][{"containerPort":80,"protocol":"TCP"}]"#,
        ),
        (
            "service clusterip c --tcp=80:web",
            "svc c -o jsonpath={.spec.type}{.spec.selector}{.spec.ports}",
            r#"ClusterIP{"app":"c"}[{"name":"80-web","port":80,"protocol":"TCP","targetPort":"web"}]"#,
        ),
        (
            "service externalname e --external-name=example.com",
            "svc e -o jsonpath={.spec.externalName}",
            "example.com",
        ),
        (
            "ingress i --class=nginx --rule=foo.com/bar*=web:80,tls=cert",
            "ing i -o jsonpath={.spec.ingressClassName}{.spec.rules}{.spec.tls}",
            r#"nginx[{"host":"foo.com","http":{"paths":[{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/bar","pathType":"Prefix"}]}}][{"hosts":["foo.com"],"secretName":"cert"}]"#,
        ),
    ] {
        let (command, program) = what.split_once(" --").unwrap_or((what, ""));
        kubectl
            .ok(&format!("create {command} -n made --{program}"))
            .await;
        assert_eq!(kubectl.ok(&format!("get {path} -n made")).await, wanted);
    }
}

/// What it makes of the numbers of [`crate::support::Metrics`].
async fn top(kubectl: &Kubectl<'_>, store: &Store) {
    kubectl.ok("create namespace t").await;
    assert!(
        kubectl
            .ok("top pods -n t")
            .await
            .starts_with("No resources found")
    );
    for (name, label) in [("p1", "app=a"), ("p2", "app=b")] {
        kubectl
            .ok(&format!(
                "run {name} --image=x -n t --labels={label} --restart=Never"
            ))
            .await;
    }
    let capacity = json!({"cpu": "2", "memory": "1024Mi"});
    store
        .create(
            &kinds::NODE,
            json!({"metadata": {"name": "devenv"},
                "status": {"capacity": capacity, "allocatable": capacity}}),
        )
        .unwrap();
    let rows = async |args: &str| -> Vec<String> {
        let text = kubectl.ok(args).await;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    };
    let [head, p1, p2] = [
        "NAME CPU(cores) MEMORY(bytes)",
        "p1 251m 53Mi",
        "p2 251m 53Mi",
    ];
    assert_eq!(rows("top pods -n t").await, [head, p1, p2]);
    assert_eq!(rows("top pod -n t --sort-by=memory").await, [head, p1, p2]);
    assert_eq!(
        rows("top pods -n t -l app=b --no-headers").await,
        ["p2 251m 53Mi"]
    );
    assert_eq!(rows("top pod p1 -n t").await, [head, p1]);
    assert_eq!(
        rows("top pod p2 -n t --containers --sort-by=cpu").await,
        [
            "POD NAME CPU(cores) MEMORY(bytes)",
            "p2 busy 251m 3Mi",
            "p2 big 0m 50Mi"
        ]
    );
    let summed = rows("top pods -n t --sum").await;
    assert_eq!(summed.last().unwrap(), "501m 106Mi");
    assert_eq!(
        rows("top pods -A --no-headers").await,
        ["t p1 251m 53Mi", "t p2 251m 53Mi"]
    );
    let node = rows("top nodes").await;
    assert_eq!(node[1], "devenv 1500m 75% 512Mi 50%");
    assert_eq!(rows("top node devenv --no-headers").await, node[1..]);
    assert_eq!(rows("top node --show-capacity").await[1], node[1]);
    let refused = kubectl.fails("top pod nobody -n t").await;
    assert!(refused.contains("\"nobody\" not found"), "{refused}");
    let table = kubectl.ok("get pods.metrics.k8s.io -n t").await;
    assert!(table.contains("54272Ki"), "{table}");
    assert!(kubectl.ok("api-resources").await.contains("PodMetrics"));
}

async fn everyday(kubectl: &Kubectl<'_>) {
    let spec = "get deploy web -n x -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(
        kubectl
            .ok("apply -f app.yaml")
            .await
            .matches(" created")
            .count(),
        6
    );
    assert_eq!(
        kubectl
            .ok("apply -f app.yaml")
            .await
            .matches(" unchanged")
            .count(),
        6
    );
    assert_eq!(kubectl.ok(spec).await, "2/A B");
    assert_eq!(
        kubectl
            .ok("apply -f changed.yaml")
            .await
            .matches(" configured")
            .count(),
        2
    );
    assert_eq!(
        kubectl.ok(spec).await,
        "3/B",
        "what the manifest no longer has is taken away"
    );
    assert_eq!(
        kubectl.ok("get cm cm -n x -o jsonpath={.data}").await,
        r#"{"a":"1"}"#
    );
    // From client-side to server-side apply: the first takes over, then fields can go.
    kubectl.ok("apply --server-side -f changed.yaml").await;
    kubectl.ok("apply --server-side -f app.yaml").await;
    assert_eq!(kubectl.ok(spec).await, "2/A B");
    let refused = kubectl
        .fails("apply --server-side --field-manager=other -f changed.yaml")
        .await;
    assert!(
        refused.contains("conflict with \"kubectl\": .spec.replicas"),
        "{refused}"
    );
    kubectl
        .ok("apply --server-side --field-manager=other --force-conflicts -f changed.yaml")
        .await;

    let wide = kubectl.ok("get all,ing -n x -o wide").await;
    for wanted in [
        "deployment.apps/web   0/3",
        "service/web   ClusterIP   10.96.",
        "80/TCP",
        "app=web",
        "service.serving.knative.dev/frontend",
        "nginx",
    ] {
        assert!(wide.contains(wanted), "{wanted} in {wide}");
    }
    kubectl.ok("scale deploy/web --replicas=4 -n x").await;
    kubectl
        .ok("scale deploy/web --current-replicas=4 --replicas=1 -n x")
        .await;
    kubectl.ok("rollout restart deploy/web -n x").await;
    kubectl.ok("set image deploy/web c=web:2 -n x").await;
    kubectl.ok("set env deploy/web Z=9 -n x").await;
    kubectl.ok("annotate deploy/web k=v -n x").await;
    kubectl.ok("label deploy/web l=v -n x").await;
    kubectl.ok(r#"patch deploy web -n x --type=json -p [{"op":"replace","path":"/metadata/labels/l","value":"w"}]"#).await;
    let changed = "get deploy web -n x -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}/{.spec.template.spec.containers[0].env[*].name}/{.metadata.labels.l}";
    assert_eq!(kubectl.ok(changed).await, "1/web:2/A B Z/w");

    kubectl.ok("run p --image=web:1 -n x --restart=Never").await;
    assert_eq!(
        kubectl.ok("logs p -n x --tail=2").await,
        "x/p/p tail=Some(2)\n"
    );
    assert!(
        kubectl
            .ok("get pods -n x")
            .await
            .contains("0/1     Pending   0")
    );
    assert!(
        kubectl
            .ok("describe pod p -n x")
            .await
            .contains("QoS Class:")
    );
    assert!(
        kubectl
            .ok("describe deploy web -n x")
            .await
            .contains("1 desired")
    );
    assert!(kubectl.ok("describe svc web -n x").await.contains("10.96."));
    kubectl.ok("describe ing web -n x").await;
    kubectl
        .ok("wait --for=jsonpath={.status.phase}=Pending pod/p -n x --timeout=5s")
        .await;
    kubectl
        .ok("expose deploy/web --name=web2 --port=81 -n x")
        .await;
    assert!(kubectl.ok("api-resources").await.contains("kservice,ksvc"));
    assert!(kubectl.ok("version").await.contains("v1.34.0-devenv"));
    assert!(
        kubectl
            .fails("get pod nope -n x")
            .await
            .contains("pods \"nope\" not found")
    );
    kubectl.ok("replace -f changed.yaml").await;
    kubectl.ok("delete pod p -n x").await;
    kubectl.ok("delete -n x deploy,svc,ing,cm --all").await;
    assert!(
        kubectl
            .ok("get cm -n x")
            .await
            .contains("No resources found")
    );
}
