//! `devenv test e2e`: runs beside each other and beside `up`, and what a killed one leaves.

use devenv_tests::inventory::{Inventory, Scope};
use devenv_tests::project::{Project, kill};
use devenv_tests::{proven, rounds, until};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(180);
/// A suite that changes much and asks for little.
const SUITE: &str = "idempotency";

/// The state folders of the runs that are up, with where they are.
fn runs(project: &Project) -> Vec<(PathBuf, Value)> {
    let folders = fs::read_dir(project.path().join(".devenv/runs"));
    let folders = folders.into_iter().flatten().flatten().map(|e| e.path());
    folders
        .filter_map(|folder| {
            let text = fs::read_to_string(folder.join("endpoints.json")).ok()?;
            Some((folder, serde_json::from_str(&text).ok()?))
        })
        .collect()
}

fn supervisor(run: &std::path::Path) -> Option<u32> {
    let text = fs::read_to_string(run.join("supervisor.lock")).ok()?;
    let lock: Value = serde_json::from_str(&text).ok()?;
    u32::try_from(lock["pid"].as_u64()?).ok()
}

/// What the run has now, on top of what its project has.
fn scope_of(project: &Project, run: &(PathBuf, Value)) -> Scope {
    let mut scope = project.scope();
    if let Some(address) = run.1["address"].as_str().and_then(|a| a.parse().ok()) {
        scope = scope.address(address);
    }
    if let Some(pid) = supervisor(&run.0) {
        scope.learn(pid);
    }
    scope
}

fn report(project: &Project, id: &str) -> Value {
    let file = project.path().join(format!(".devenv/e2e/{id}/report.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).expect("the report is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_and_an_up_do_not_meet() {
    let project = Project::reference();
    let before = Inventory::take(&project.scope());
    project.up().await;
    let ingress = project.ingress().await;
    let url = project.url("database").await;
    let rows = devenv_tests::database::count(&url).await.expect("answers");
    for round in 1..=rounds(2) {
        let start = Instant::now();
        let arguments = ["test", "e2e", SUITE, "split"];
        let (one, two) = tokio::join!(
            project.run_within(RUN, &arguments),
            project.run_within(RUN, &arguments)
        );
        for run in [&one, &two] {
            assert!(run.ok(), "round {round}: {run}");
        }
        println!("round {round}: two runs in {:.1?}", start.elapsed());
        assert_eq!(runs(&project), [], "a run stayed");
    }
    assert_eq!(project.ingress().await, ingress, "`up` stays where it was");
    let now = devenv_tests::database::count(&url).await.expect("answers");
    assert_eq!(now, rows, "a run wrote into the database of `up`");
    let scope = project.scope_of_all().await;
    project.down(&[]).await;
    let left = before.nothing_left(&scope, Duration::from_secs(10)).await;
    left.unwrap_or_else(|left| panic!("{left}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_leaves_nothing() {
    let project = Project::reference();
    // Its state folder, with what builds have.
    let first = project.run_within(RUN, &["test", "e2e", SUITE]).await;
    assert!(first.ok(), "{first}");
    let before = Inventory::take(&project.scope());
    for round in 1..=rounds(3) {
        let mut command = project.command(&["test", "e2e", "ingest"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut test = command.spawn().expect("devenv starts");
        let up = until(
            Duration::from_secs(60),
            Duration::from_millis(5),
            || async { runs(&project).pop() },
        );
        let run = up.await.expect("an environment comes up");
        // Somewhere else in the suite's course each round.
        tokio::time::sleep(Duration::from_millis(u64::from(round * 137 % 900))).await;
        let scope = scope_of(&project, &run);
        // Every second time it is the supervisor, and the run fails by itself.
        if round % 2 == 1 {
            test.kill().expect("killed");
            test.wait().expect("reaped");
        } else {
            kill(supervisor(&run.0).expect("the run's supervisor"));
            let ended = tokio::task::spawn_blocking(move || test.wait());
            let ended = tokio::time::timeout(RUN, ended).await.expect("it ends");
            assert_eq!(ended.expect("no panic").expect("reaped").code(), Some(1));
        }
        match before.nothing_left(&scope, Duration::from_secs(30)).await {
            Ok(took) => println!("round {round}: nothing left {took:.0?} later"),
            Err(left) => panic!("round {round}: {left}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_takes_its_environment_down() {
    let project = Project::reference();
    project.write(
        "tests/e2e/endless.toml",
        "[[test]]\nname = \"t\"\n[[test.step]]\n\
         exec = { command = \"touch began; exec sleep 1000\" }\n",
    );
    let before = Inventory::take(&project.scope());
    let mut command = project.command(&["test", "e2e", "endless"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut test = command.spawn().expect("devenv starts");
    let began = project.path().join("began");
    let under_way = until(RUN, Duration::from_millis(5), || {
        let began = began.exists();
        async move { began.then_some(()) }
    });
    under_way.await.expect("the suite runs");
    let run = runs(&project).pop().expect("its environment");
    let scope = scope_of(&project, &run);
    let pid = Pid::from_raw(i32::try_from(test.id()).expect("a pid"));
    signal::kill(pid, Signal::SIGINT).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || test.wait());
    let ended = tokio::time::timeout(RUN, ended).await.expect("it ends");
    assert_eq!(ended.expect("no panic").expect("reaped").code(), Some(130));
    let left = before.nothing_left(&scope, Duration::from_secs(5)).await;
    left.unwrap_or_else(|left| panic!("{left}"));
    assert!(
        !project.path().join(".devenv/verdicts").exists(),
        "half a run is no verdict"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_environment_is_reached_and_ended_by_its_id() {
    let project = Project::reference();
    let run = project
        .run_within(RUN, &["test", "e2e", SUITE, "--keep", "-o", "json"])
        .await;
    assert!(run.ok(), "{run}");
    let kept = run.stdout.lines().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == "kept").then_some(event)
    });
    let kept = kept.unwrap_or_else(|| panic!("nothing is kept: {run}"));
    let id = kept["runs"][0].as_str().expect("the id of the kept one");
    let status = project.run(&["--run", id, "status", "-o", "json"]).await;
    assert!(status.ok(), "{status}");
    assert_eq!(project.run(&["url"]).await.code, Some(3), "no `up`");
    // Its folder lies in the one that `down -v` would throw away.
    let refused = project.run(&["down", "-v"]).await;
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains(id), "{refused}");
    let again = ["--run", id, "test", "e2e", SUITE, "--attach"];
    let attached = project.run_within(RUN, &again).await;
    assert!(attached.ok(), "{attached}");
    let down = project.run(&["--run", id, "down"]).await;
    assert!(down.ok(), "{down}");
    assert_eq!(runs(&project), []);
    let unknown = project.run(&["--run", id, "up", "-d"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_suites_pass_and_are_reported() {
    let project = Project::reference();
    let junit = project.path().join("junit.xml");
    let junit_argument = format!("junit={}", junit.display());
    let (times, repeat) = (rounds(1), rounds(1).to_string());
    let arguments = ["test", "e2e", "-o", "json", "--report", &junit_argument];
    let arguments = [&arguments[..], &["--repeat", &repeat]].concat();
    let run = project.run_within(RUN * times, &arguments).await;
    assert!(run.ok(), "{run}");
    let ended = run.stdout.lines().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == "ended").then(|| event["report"].clone())
    });
    let ended = ended.unwrap_or_else(|| panic!("no end: {run}"));
    let id = ended["id"].as_str().expect("an id");
    assert_eq!(report(&project, id)["suites"], ended["suites"]);
    let text = fs::read_to_string(&junit).expect("JUnit XML");
    assert!(
        text.contains("<testsuites") && text.contains("failures=\"0\""),
        "{text}"
    );
    println!(
        "the default suites, {times} times: ready after {} ms, {} ms in all",
        ended["ready_ms"], ended["ms"]
    );
    proven("local, process", "rust", "all suites");
    the_verdict_follows_each_input(&project).await;
}

/// What `devenv verdict --verify` says, and whether by its exit code a verdict applies.
async fn verification(project: &Project) -> (bool, Value) {
    let run = project.run(&["verdict", "--verify", "-o", "json"]).await;
    let said: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run}"));
    (run.ok(), said)
}

/// Whether that is because of this input: it differs, or the project can't even be read
/// without it.
fn names(said: &Value, group: &str, file: &str, how: &str) -> bool {
    let reasons = said["reasons"].as_array().into_iter().flatten();
    let problems = said["problems"].as_array().into_iter().flatten();
    let mut messages = problems.filter_map(|problem| problem["message"].as_str());
    let change = serde_json::json!({"group": group, "input": file, "how": how});
    let is_it = |reason: &Value| {
        change
            .as_object()
            .into_iter()
            .flatten()
            .all(|(k, v)| &reason[k] == v)
    };
    reasons.into_iter().any(is_it) || messages.any(|message| message.contains(file))
}

/// A verdict applies to the tree that was tested; touched anywhere it does not, and says
/// where; as it was, it does again.
async fn the_verdict_follows_each_input(project: &Project) {
    let (applies, said) = verification(project).await;
    assert!(applies, "{said:#}");
    let covered = &said["closest"]["verdict"]["coverage"]["inputs"];
    let files: Vec<(&str, &String)> = ["source", "migration", "suite"]
        .into_iter()
        .flat_map(|group| {
            let files = covered[group].as_object();
            let files = files.unwrap_or_else(|| panic!("no {group}: {covered:#}"));
            files.keys().map(move |file| (group, file))
        })
        .collect();
    assert!(files.len() > 30, "{files:?}");
    let seed = u64::from(std::process::id());
    println!("edits of {} files, seed {seed}", files.len());
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..30 {
        let (group, file) = files[random.random_range(0..files.len())];
        let path = project.path().join(file);
        let was = fs::read(&path).expect("a covered file");
        let mode = fs::metadata(&path).expect("a covered file").permissions();
        let mut is = was.clone();
        let (what, how) = match n % 4 {
            0 => {
                is.push(b' ');
                ("a byte more", "changed")
            }
            1 if !is.is_empty() => {
                let at = random.random_range(0..is.len());
                is[at] ^= 1;
                ("a bit turned", "changed")
            }
            2 => ("gone", "removed"),
            _ => ("made executable or not", "changed"),
        };
        match what {
            "gone" => fs::remove_file(&path).expect("removed"),
            "made executable or not" => {
                let mut other = mode.clone();
                other.set_mode(other.mode() ^ 0o111);
                fs::set_permissions(&path, other).expect("its owner may");
            }
            _ => fs::write(&path, &is).expect("written"),
        }
        let (applies, said) = verification(project).await;
        assert!(
            !applies && names(&said, group, file, how),
            "{file}, {what}: {said:#}"
        );
        fs::write(&path, &was).expect("written");
        fs::set_permissions(&path, mode).expect("its owner may");
    }
    let (applies, said) = verification(project).await;
    assert!(applies, "{}", said["reasons"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_suites_are_told_with_their_place() {
    let project = Project::reference();
    project.write(
        "tests/e2e/bad.toml",
        "[[test]]\nname = \"x\"\n[[test.step]]\nhtp = { url = \"${INGRESS}\" }\n",
    );
    let run = project.run(&["test", "e2e"]).await;
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.contains("tests/e2e/bad.toml:4"), "{run}");
    assert!(run.stderr.contains("http"), "{run}");
    fs::remove_file(project.path().join("tests/e2e/bad.toml")).expect("removed");
    let run = project.run(&["test", "e2e", "nosuch"]).await;
    assert_eq!(run.code, Some(2), "{run}");
    assert!(
        run.stderr.contains("contract"),
        "the suites are named: {run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_needs_no_system_and_the_rest_says_what_it_needs() {
    let project = Project::empty();
    project.write("devenv.toml", "[project]\nname = \"p\"\n");
    let schema = project.run(&["test", "schema"]).await;
    assert!(schema.ok(), "{schema}");
    assert_eq!(schema.json()["title"], "devenv end-to-end suite");
    for (words, code, said) in [
        (&["--runtime", "podman"][..], 2, "process, docker"),
        (&["--target", "cloud"], 2, "local, kind or kube:CONTEXT"),
        (&["--target", "kube"], 2, "kubectl config get-contexts"),
        (&["--attach"], 3, "devenv up"),
    ] {
        let run = project.run(&[&["test", "e2e"], words].concat()).await;
        assert_eq!(run.code, Some(code), "{run}");
        assert!(run.stderr.contains(said), "{run}");
    }
}
