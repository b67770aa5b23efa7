//! `devenv test e2e --compare`: two trees, or two backends, side by side.

use devenv_tests::editing::Small;
use devenv_tests::inventory::Inventory;
use devenv_tests::project::{Project, Run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const RUN: Duration = Duration::from_secs(180);

/// Says who it is in JSON.
const PROGRAM: &str = r#"import http.server, json

NAME = "one"
COUNT = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global COUNT
        COUNT += 1
        body = json.dumps({"name": NAME, "same": [1, 2], "served": COUNT}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 5000), Handler).serve_forever()
"#;

const SUITE: &str = r#"
[compare]
ignore = ["$.served"]

[[test]]
name = "it answers"
[[test.step]]
http = { url = "${INGRESS_URL}/who" }
expect = { status = 200 }
"#;

fn git(at: &Path, words: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(words)
        .current_dir(at)
        .output()
        .expect("git runs");
    assert!(out.status.success(), "git {words:?}: {out:?}");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A program, its suite, and a repository with one commit.
fn project() -> Project {
    let project = Project::empty();
    let small = Small {
        replicas: 1,
        strategy: "RollingUpdate",
        deaf: false,
        name: "compared",
    };
    small.write(&project);
    project.write("hello/main.py", PROGRAM);
    project.write("tests/e2e/who.toml", SUITE);
    git(project.path(), &["init", "-q", "-b", "main"]);
    git(project.path(), &["add", "-A"]);
    git(project.path(), &["commit", "-q", "-m", "one"]);
    project
}

async fn compare(project: &Project, more: &[&str]) -> Run {
    let words = [&["test", "e2e"], more].concat();
    project.run_within(RUN, &words).await
}

fn runs(project: &Project) -> usize {
    let entries = fs::read_dir(project.path().join(".devenv/runs"));
    let entries = entries.into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_field_is_named_and_an_equal_tree_has_no_difference() {
    let project = project();
    let equal = compare(&project, &["--compare", "main"]).await;
    assert!(equal.ok(), "{equal}");
    assert!(equal.stdout.contains("no difference: main ("), "{equal}");
    assert_eq!(runs(&project), 0, "both are gone");
    // With the state folder, which stays.
    let before = Inventory::take(&project.scope());

    let changed = PROGRAM.replace("\"one\"", "\"two\"");
    project.write("hello/main.py", &changed);
    let found = compare(&project, &["--compare", "HEAD", "--rounds", "12"]).await;
    assert_eq!(found.code, Some(1), "{found}");
    let line = "GET /who: $.name: \"one\" → \"two\" (12 of 12)";
    assert!(found.stdout.contains(line), "{found}");
    assert!(found.stdout.contains("tests/e2e/who.toml:7"), "{found}");
    assert!(found.stdout.contains("1 difference: HEAD ("), "{found}");
    assert!(!found.stdout.contains("served"), "{found}");

    let json = compare(
        &project,
        &["--compare", "main", "--rounds", "2", "-o", "json"],
    )
    .await;
    assert_eq!(json.code, Some(1), "{json}");
    let differences = json.json()["differences"].clone();
    assert_eq!(differences.as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(differences[0]["place"], "$.name", "{json}");
    assert_eq!(runs(&project), 0);
    assert_eq!(
        git(project.path(), &["worktree", "list"]).lines().count(),
        1,
        "git knows nothing of it"
    );
    let scope = project.scope();
    let left = before.nothing_left(&scope, Duration::from_secs(10));
    left.await.unwrap_or_else(|left| panic!("{left}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_checkout_and_a_tree_that_does_not_come_up() {
    let (project, other) = (project(), project());
    let folder = other.path().display().to_string();
    let equal = compare(&project, &["--compare", &folder]).await;
    assert!(equal.ok(), "{equal}");
    let itself = project.path().display().to_string();
    let refused = compare(&project, &["--compare", &itself]).await;
    assert_eq!(refused.code, Some(2), "{refused}");

    // The other side's manifests, and then its program.
    let manifest = other.path().join("k8s/app.yaml");
    let good = fs::read_to_string(&manifest).expect("manifests");
    other.write(
        "k8s/app.yaml",
        &good.replace("kind: Service", "kind: Sevice"),
    );
    let broken = compare(&project, &["--compare", &folder]).await;
    assert_ne!(broken.code, Some(0), "{broken}");
    assert!(broken.stderr.contains(&folder), "the side: {broken}");
    assert!(broken.stderr.contains("k8s/app.yaml"), "{broken}");
    other.write("k8s/app.yaml", &good);
    project.write("hello/main.py", "raise SystemExit('not today')\n");
    let arguments = ["--compare", "main", "--timeout", "5s"];
    let broken = compare(&project, &arguments).await;
    assert_eq!(broken.code, Some(1), "{broken}");
    assert!(broken.stderr.contains("this tree: not ready"), "{broken}");
    assert_eq!(runs(&project), 0);

    let unknown = compare(&project, &["--compare", "nosuch"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown}");
    assert!(unknown.stderr.contains("nosuch"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backends_of_the_split() {
    let project = Project::reference();
    let words = ["--compare-backends", "api1,api2", "contract", "-o", "json"];
    let found = compare(&project, &words).await;
    assert_eq!(found.code, Some(1), "{found}");
    let all = found.json()["differences"].clone();
    let all: Vec<Value> = all.as_array().cloned().unwrap_or_default();
    let name = all.iter().find(|d| d["place"] == "$.api");
    let name = name.unwrap_or_else(|| panic!("their names: {found}"));
    assert_eq!(name["left"], "\"api1\"", "{found}");
    assert_eq!(name["right"], "\"api2\"", "{found}");
    assert_eq!(name["count"], name["of"], "never the other one: {found}");
    assert!(
        all.iter().all(|d| d["place"] != "status"),
        "by the same contract: {found}"
    );
    let unknown = compare(&project, &["--compare-backends", "api1,api9"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown}");
    assert!(
        unknown.stderr.contains("api2-service"),
        "what there is: {unknown}"
    );
}
