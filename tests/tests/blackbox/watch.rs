//! `devenv test watch`: what is saved, and exactly the suites that run for it.

use devenv_tests::editing::save;
use devenv_tests::project::Project;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;

/// For one line of its output.
const LINE: Duration = Duration::from_secs(120);

/// A running `devenv test watch -o json`.
struct Watch {
    child: Child,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    async fn start(project: &Project, arguments: &[&str]) -> Self {
        let words = [&["test", "watch", "-o", "json"], arguments].concat();
        let mut child = project
            .command(&words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("devenv starts");
        let out = child.stdout.take().expect("a pipe");
        let (lines_tx, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
                if lines_tx.send(event).is_err() {
                    return;
                }
            }
        });
        let mut watch = Self { child, lines };
        watch.next("watching").await;
        watch
    }

    /// The next event, which must be of this kind.
    async fn next(&mut self, kind: &str) -> Value {
        let event = tokio::time::timeout(LINE, self.lines.recv())
            .await
            .unwrap_or_else(|_| panic!("no {kind}"))
            .unwrap_or_else(|| panic!("it ended before {kind}"));
        assert_eq!(event["event"], kind, "{event:#}");
        event
    }

    /// The suites of the next run, of which every test must pass.
    async fn run(&mut self) -> Vec<String> {
        let run = self.next("run").await;
        assert_eq!(run["superseded"], false, "{run:#}");
        let suites = run["report"]["suites"].as_array().expect("suites").clone();
        for suite in &suites {
            for test in suite["tests"].as_array().expect("tests") {
                assert_eq!(test["outcome"], "passed", "{test:#}");
            }
        }
        names(&suites)
    }

    /// The next reload of something, and what came of it.
    async fn reload(&mut self) -> (String, String) {
        let event = self.next("reload").await;
        let word = |key: &str| event["reload"][key].as_str().unwrap_or_default().to_owned();
        (word("what"), word("outcome"))
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
    }

    async fn code(mut self) -> Option<i32> {
        // Its output ends when it does.
        let drained = async { while self.lines.recv().await.is_some() {} };
        tokio::time::timeout(LINE, drained).await.expect("it ends");
        self.child.wait().expect("it is waited for").code()
    }
}

fn names(suites: &[Value]) -> Vec<String> {
    let name = |s: &Value| s["name"].as_str().unwrap_or_default().to_owned();
    suites.iter().map(name).collect()
}

fn suite(head: &str, command: &str) -> String {
    format!("{head}\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = {{ command = '{command}' }}\n")
}

/// The reference application with suites that ask for little.
fn project() -> Project {
    let project = Project::reference();
    fs::remove_dir_all(project.path().join("tests/e2e")).expect("it has suites");
    let answers = r#"test -n "$INGRESS_URL""#;
    for (name, head) in [
        ("any", ""),
        ("first", "workloads = [\"api1\"]"),
        ("second", "workloads = [\"api2\"]"),
    ] {
        project.write(&format!("tests/e2e/{name}.toml"), &suite(head, answers));
    }
    project
}

/// A save of a program's source that says the same as before.
fn edit(project: &Project, file: &str, n: u32) {
    let path = project.path().join(file);
    let text = fs::read_to_string(&path).expect("a source");
    save(&path, &format!("{text}\n// {n}\n"), n.is_multiple_of(2));
}

const API1: &str = "services/api1/src/main.rs";
const API2: &str = "services/api2/src/main.rs";

#[tokio::test(flavor = "multi_thread")]
async fn each_save_runs_the_suites_of_what_changed() {
    let project = project();
    project.up().await;
    let mut watch = Watch::start(&project, &[]).await;
    assert_eq!(
        watch.run().await,
        ["any", "first", "second"],
        "at the start"
    );

    edit(&project, API1, 1);
    assert_eq!(watch.reload().await, ("api1".into(), "reloaded".into()));
    assert_eq!(watch.run().await, ["any", "first"], "api1 was saved");

    let text = suite("workloads = [\"api2\"]", "true");
    project.write("tests/e2e/second.toml", &text);
    assert_eq!(watch.run().await, ["second"], "a suite was saved");

    // Nothing runs for what can't be used; the next save finds all in order.
    project.write("tests/e2e/third.toml", "workloads = [\"api9\"]\n");
    let failed = watch.next("failed").await;
    assert_eq!(failed["report"]["exit_code"], 2, "{failed:#}");
    let text = suite("workloads = [\"api3\"]", "true");
    project.write("tests/e2e/third.toml", &text);
    assert_eq!(watch.run().await, ["third"], "it is new");

    // A build that fails.
    let program = project.path().join("target/debug/api1");
    let kept = project.path().join("target/debug/kept");
    fs::rename(&program, &kept).expect("the program is there");
    edit(&project, API1, 2);
    assert_eq!(watch.reload().await, ("api1".into(), "build-failed".into()));
    fs::rename(&kept, &program).expect("the program is there");
    edit(&project, API2, 3);
    assert_eq!(watch.reload().await, ("api2".into(), "reloaded".into()));
    assert_eq!(watch.run().await, ["any", "second"], "api1 was not built");

    // A suite of devenv.toml.
    let config = project.path().join("devenv.toml");
    let text = fs::read_to_string(&config).expect("devenv.toml");
    let section = suite("workloads = [\"api1\"]", "true").replace("[[test", "[[e2e.suite.test");
    let text = format!("{text}\n[[e2e.suite]]\nname = \"inline\"\n{section}");
    save(&config, &text, true);
    assert_eq!(watch.run().await, ["inline"], "it is new");

    watch.interrupt();
    assert_eq!(watch.code().await, Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_while_suites_run_begins_anew_with_both() {
    let project = project();
    project.up().await;
    let mut watch = Watch::start(&project, &["--no-initial"]).await;
    let more = "\n[[test]]\nname = \"after\"\n[[test.step]]\nexec = { command = \"true\" }\n";
    let waits = "touch began; until test -e go; do sleep 0.01; done";
    let slow = suite("workloads = [\"frontend\"]", waits) + more;
    project.write("tests/e2e/slow.toml", &slow);
    let began = project.path().join("began");
    let under_way = devenv_tests::until(LINE, Duration::from_millis(5), || {
        let began = began.exists();
        async move { began.then_some(()) }
    });
    under_way.await.expect("the slow suite runs");
    edit(&project, API2, 1);
    assert_eq!(watch.reload().await, ("api2".into(), "reloaded".into()));
    project.write("go", "");
    let first = watch.next("run").await;
    assert_eq!(first["superseded"], true, "{first:#}");
    let suites = first["report"]["suites"].as_array().expect("suites");
    assert_eq!(names(suites), ["slow"]);
    let tests = suites[0]["tests"].as_array().expect("tests");
    assert_eq!(tests.len(), 1, "the second test did not begin: {tests:#?}");
    assert_eq!(tests[0]["outcome"], "passed", "{tests:#?}");
    assert_eq!(watch.run().await, ["any", "second", "slow"]);
    project.down(&[]).await;
    assert_eq!(watch.code().await, Some(3), "there is nothing to test");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_a_system_that_is_up() {
    let project = project();
    let run = project.run(&["test", "watch"]).await;
    assert_eq!(run.code, Some(3), "{run}");
    assert!(run.stderr.contains("devenv up"), "{run}");
}
