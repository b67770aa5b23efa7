//! Saving files as editors do, and projects that are small enough to be edited often.

use crate::project::Project;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Replaces the version that a source file gives itself, `"N.0.0"` after `marker`.
/// Every second time the file is written beside and renamed, as many editors do.
///
/// # Panics
/// When the file has no such version.
pub fn set_version(file: &Path, marker: &str, n: u32) {
    let text = fs::read_to_string(file).expect("the source can be read");
    let at = text
        .find(marker)
        .expect("the source gives itself a version")
        + marker.len();
    let open = at + text[at..].find('"').expect("a quoted version") + 1;
    let close = open + text[open..].find('"').expect("a quoted version");
    save(
        file,
        &format!("{}{n}.0.0{}", &text[..open], &text[close..]),
        n.is_multiple_of(2),
    );
}

/// Writes a file in place, or by a rename.
///
/// # Panics
/// When it can't be written.
pub fn save(file: &Path, text: &str, rename: bool) {
    if rename {
        let beside = file.with_extension("tmp~");
        fs::write(&beside, text).expect("a file beside the source");
        fs::rename(&beside, file).expect("the source is replaced");
    } else {
        fs::write(file, text).expect("the source is written");
    }
}

/// A program that hard-codes its port and answers with its version, as course projects
/// have it.
pub const PROGRAM: &str = r#"import http.server, os, signal, sys

VERSION = "0.0.0"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = os.environ.get("GREETING", "hello").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Service-Version", VERSION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if os.environ.get("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Server(("0.0.0.0", 5000), Handler).serve_forever()
"#;

/// A project of that one program behind an Ingress.
#[derive(Debug, Clone, Copy)]
pub struct Small<'a> {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.strategy.type`.
    pub strategy: &'a str,
    /// Ignores SIGTERM.
    pub deaf: bool,
    /// The namespace, and the project's name.
    pub name: &'a str,
}

impl Small<'_> {
    /// Writes it into an empty project.
    pub fn write(&self, project: &Project) {
        let Self {
            replicas,
            strategy,
            deaf,
            name,
        } = self;
        project.write("hello/main.py", PROGRAM);
        project.write(
            "devenv.toml",
            &format!(
                "[project]\nname = \"{name}\"\nnamespace = \"{name}\"\nmanifests = [\"k8s\"]\n\n\
                 [image.hello]\nsource = \"hello\"\nrun = [\"python3\", \"main.py\"]\n"
            ),
        );
        let deaf = if *deaf { "1" } else { "" };
        project.write(
            "k8s/app.yaml",
            &format!(
                r#"apiVersion: v1
kind: Namespace
metadata: {{name: {name}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data:
  GREETING: hello
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: hello}}
spec:
  replicas: {replicas}
  strategy: {{type: {strategy}}}
  selector: {{matchLabels: {{app: hello}}}}
  template:
    metadata: {{labels: {{app: hello}}}}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
      - name: hello
        image: hello
        ports: [{{containerPort: 5000}}]
        env: [{{name: DEAF, value: "{deaf}"}}]
        envFrom: [{{configMapRef: {{name: words}}}}]
        readinessProbe: {{httpGet: {{path: /, port: 5000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: hello}}
spec:
  selector: {{app: hello}}
  ports: [{{port: 80, targetPort: 5000}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: hello}}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: hello, port: {{number: 80}}}}}}}}
"#
            ),
        );
    }
}

/// `devenv reloads -o json`.
pub async fn reloads(project: &Project) -> Vec<Value> {
    let run = project.run(&["reloads", "-o", "json"]).await;
    assert!(run.ok(), "{run}");
    run.json().as_array().cloned().unwrap_or_default()
}

/// The number of the newest reload; 0 before the first. Old ones are dropped from the
/// list, so that its length says nothing.
pub async fn newest_reload(project: &Project) -> u64 {
    let all = reloads(project).await;
    all.last().map_or(0, number)
}

fn number(reload: &Value) -> u64 {
    reload["number"].as_u64().expect("a reload has a number")
}

/// Waits for the reload after the one numbered `known` that `is` picks.
///
/// # Panics
/// When none comes within `limit`; with all that came instead.
pub async fn reload_after(
    project: &Project,
    known: u64,
    limit: Duration,
    is: impl Fn(&Value) -> bool,
) -> Value {
    let found = crate::until(limit, Duration::from_millis(20), || async {
        let all = reloads(project).await;
        all.into_iter().find(|r| number(r) > known && is(r))
    });
    match found.await {
        Some(reload) => reload,
        None => panic!(
            "no such reload within {limit:?}; there were {:#?}\n{}",
            reloads(project).await,
            project.supervisor_log()
        ),
    }
}
