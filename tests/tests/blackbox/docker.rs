//! `devenv up --runtime docker`: the same system in containers, with MySQL in one beside it.

use devenv_tests::containers::{self, everything, new_since};
use devenv_tests::editing::{newest_reload, reload_after, save};
use devenv_tests::project::{Project, kill};
use devenv_tests::{database, proven, rounds, until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const UP: Duration = Duration::from_secs(300);
const SEEN: Duration = Duration::from_secs(120);
const IN_CONTAINERS: [&str; 4] = ["up", "-d", "--runtime", "docker"];

async fn up(project: &Project, more: &[&str]) {
    let up = project
        .run_within(UP, &[&IN_CONTAINERS[..], more].concat())
        .await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
}

/// Waits until nothing more is on the engine than `before`.
async fn nothing_left(before: &BTreeSet<String>, what: &str) {
    let clean = until(SEEN, Duration::from_millis(50), || async {
        new_since(before).is_empty().then_some(())
    });
    if clean.await.is_none() {
        panic!("{what}: {:#?}", new_since(before));
    }
}

/// The real Compose 2, where it is.
fn compose(project: &Project, arguments: &[&str]) -> Option<String> {
    let program = std::env::var_os("DEVENV_TEST_COMPOSE")?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir(project.path())
        .output()
        .expect("Compose runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// 10,000 records, split evenly, as rows of a real MySQL in a container that Compose knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_in_containers() {
    let Some(project) = containers::reference() else {
        return;
    };
    let name = containers::compose_project(&project);
    let before = everything();
    up(&project, &[]).await;
    let facts = project.status().await["database"].clone();
    assert_eq!(facts["engine"], "MySQL", "{facts}");
    let words = [
        "traffic",
        "--requests",
        "10000",
        "--concurrency",
        "32",
        "-o",
        "json",
    ];
    let run = project.run_within(SEEN, &words).await;
    assert!(run.ok(), "{run}");
    let report = run.json();
    println!("traffic: {report}");
    assert_eq!(report["by_status"], json!({"201": 10_000}), "{run}");
    let url = project.url("database").await;
    let (rows, _) = database::by_api(&url, 0).await.expect("rows");
    assert_eq!(
        rows,
        BTreeMap::from([("api1".into(), 5_000), ("api2".into(), 5_000)])
    );

    proven("local, docker", "rust", "10,000 records, half and half");

    // Pods are containers as far as Docker is concerned, the database as far as Compose is.
    let listed = containers::docker(&["ps", "--format", "{{.Names}} {{.Labels}}"]);
    let listed = listed.expect("the engine answers");
    for api in ["api1", "api2", "api3", "frontend"] {
        let label = format!("io.kubernetes.pod.name={api}-");
        assert!(listed.contains(&label), "{api}: {listed}");
    }
    match compose(&project, &["ls", "--format", "json"]) {
        None => println!("SKIP: Docker Compose 2 is missing"),
        Some(said) => {
            let all: Value = serde_json::from_str(&said).expect("JSON");
            let ours = all
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| p["Name"] == name.as_str());
            let ours = ours.unwrap_or_else(|| panic!("{said}"));
            assert_eq!(ours["Status"], "running(1)", "{said}");
            let file = project.path().join("compose/compose.yaml");
            let file = file.canonicalize().expect("there").display().to_string();
            assert_eq!(ours["ConfigFiles"], file.as_str(), "{said}");
            let logs = compose(&project, &["-p", &name, "logs", "cloudsql"]);
            assert!(logs.is_some_and(|logs| logs.contains("ready for connections")));
        }
    }

    // The data stays, and is there again.
    project.down(&[]).await;
    let left = new_since(&before);
    assert_eq!(left, [format!("volume {name}_cloudsql")]);
    up(&project, &[]).await;
    let url = project.url("database").await;
    assert_eq!(database::count(&url).await.expect("answers"), 10_000);
    project.down(&["-v"]).await;
    nothing_left(&before, "after down -v").await;
}

/// Every suite, in an environment of its own, with the profile that people bring.
#[tokio::test(flavor = "multi_thread")]
async fn the_default_suites_pass_in_containers() {
    let Some(project) = containers::reference() else {
        return;
    };
    let before = everything();
    for profile in [&[][..], &["--profile", "seed"]] {
        let words = [&["test", "e2e", "--runtime", "docker"], profile].concat();
        let run = project.run_within(UP, &words).await;
        assert!(run.ok(), "{run}");
        println!("{words:?} took {:.1?}", run.took);
        let name = profile.last().copied().unwrap_or("rust");
        proven("local, docker", name, "all suites");
        nothing_left(&before, "after a run").await;
        assert!(run.stderr.contains("passes at level image"), "{run}");
        the_verdict_is_on_these_images(&project, profile).await;
        proven("local, docker", name, "a verdict on exactly the images");
    }
}

/// What `devenv verdict --verify` says, and whether by its exit code a verdict applies.
async fn verification(project: &Project, more: &[&[&str]]) -> (bool, Value) {
    let words = [&["verdict", "--verify", "-o", "json"], &more.concat()[..]].concat();
    let run = project.run(&words).await;
    let said = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run}"));
    (run.ok(), said)
}

/// A run in containers has made a verdict on the images that it ran, the database's too: with
/// another one in place of any of them it does not apply, and says of which.
async fn the_verdict_is_on_these_images(project: &Project, profile: &[&str]) {
    const IMAGE: &[&str] = &["--level", "image"];
    let api1 = "devenv/so1-fase2-api1:latest";
    let (applies, said) = verification(project, &[IMAGE, profile]).await;
    assert!(applies, "{said:#}");
    let verdict = &said["closest"]["verdict"];
    assert_eq!(verdict["level"], "image");
    let ran = containers::image_ids("so1-fase2");
    assert_eq!(verdict["coverage"]["inputs"]["digest"], json!(ran));
    let text = project
        .run(&[&["verdict"], IMAGE, profile].concat())
        .await
        .stdout;
    assert!(text.contains("level image, target local"), "{text}");
    assert!(text.contains(&format!("api1 {}", ran["api1"])), "{text}");

    // The sources are those that the images were built from; a real cluster was not asked.
    let (applies, said) = verification(project, &[profile]).await;
    assert!(applies, "{said:#}");
    let (applies, said) = verification(project, &[IMAGE, profile, &["--target", "kind"]]).await;
    assert!(!applies, "{said:#}");
    assert_eq!(said["reasons"][0]["reason"], "other-environment");

    // Built anew, of the same sources.
    let folder = project.path().join("offline/anew");
    fs::create_dir_all(&folder).expect("made");
    let dockerfile = format!("FROM {api1}\nLABEL anew=1\n");
    fs::write(folder.join("Dockerfile"), dockerfile).expect("written");
    let context = folder.display().to_string();
    containers::docker(&["build", "-q", "-t", api1, &context]).expect("built");
    let anew = containers::image_id(api1);
    let (applies, said) = verification(project, &[IMAGE, profile]).await;
    let changed = |image: &str, was: &str, is: &str| {
        json!([{
            "reason": "input",
            "group": "digest",
            "input": image,
            "how": "changed",
            "detail": format!("{was} → {is}"),
        }])
    };
    assert!(!applies, "{said:#}");
    assert_eq!(said["reasons"], changed("api1", &ran["api1"], &anew));
    let (applies, said) = verification(project, &[profile]).await;
    assert!(applies, "the sources are as they were: {said:#}");

    // What the engine has does not count where somebody says a digest.
    let given = format!("api1={}", ran["api1"]);
    let (applies, said) = verification(project, &[profile, &["--image", &given]]).await;
    assert!(applies, "{said:#}");
    let other = format!("sha256:{}", "0a".repeat(32));
    let database = format!("{}={other}", containers::MYSQL);
    let words = ["--image", &given, "--image", &database];
    let (applies, said) = verification(project, &[profile, &words]).await;
    assert!(!applies, "{said:#}");
    let mysql = containers::MYSQL;
    assert_eq!(said["reasons"], changed(mysql, &ran[mysql], &other));
    containers::docker(&["tag", &ran["api1"], api1]).expect("as it was");
}

/// Edits under load, a save whose image can't be built, and the next good one.
#[tokio::test(flavor = "multi_thread")]
async fn edits_are_built_and_lose_nothing() {
    let Some(project) = containers::reference() else {
        return;
    };
    containers::prepare_edits(&project);
    up(&project, &["--profile", "seed"]).await;
    containers::edits_lose_nothing(&project, 100, rounds(3), "docker").await;
    proven("local, docker", "seed", "edits at 100/s, none failed");
}

/// What a command of this machine makes is laid over the image that the Dockerfile made, and
/// `devenv reload` builds that one again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_build_makes_is_laid_over_the_image() {
    let Some(project) = containers::reference() else {
        return;
    };
    let before = everything();
    project.configure(|config| {
        let api2 = config["image"]["api2"].as_table_mut().expect("a table");
        // Another program as far as its bytes go.
        let build = "cp offline/api2/program made && cat services/api2/src/main.rs >> made";
        api2.insert("build".into(), build.into());
        let sync = [("made".to_owned(), "/app/program".into())];
        api2.insert("sync".into(), toml::Table::from_iter(sync).into());
    });
    up(&project, &[]).await;
    assert!(
        !project.path().join("made").exists(),
        "it is built at a save"
    );
    let image = [
        "image",
        "inspect",
        "--format",
        "{{.Id}}",
        "devenv/so1-fase2-api2:latest",
    ];
    let at_up = containers::docker(&image).expect("it was built");
    let end_of_program = || {
        let label = "label=io.kubernetes.container.name=api2";
        let pods = containers::docker(&["ps", "-q", "--filter", label]);
        let pods = pods.expect("the engine answers");
        let newest = pods.lines().next().expect("a pod runs");
        let tail = ["exec", newest, "tail", "-c", "15", "/app/program"];
        containers::docker(&tail).expect("tail runs in it")
    };
    let source = project.path().join("services/api2/src/main.rs");
    let text = fs::read_to_string(&source).expect("the source");
    for n in 1..=2 {
        let known = newest_reload(&project).await;
        save(&source, &format!("{text}// Saved {n} times.\n"), n == 1);
        let reload = reload_after(&project, known, SEEN, |r| r["what"] == "api2").await;
        assert_eq!(reload["outcome"], "reloaded", "{reload:#}");
        assert_eq!(end_of_program(), format!("Saved {n} times.\n"));
        assert_eq!(containers::docker(&image).expect("there"), at_up);
    }
    let asked = project.run_within(SEEN, &["reload", "api2"]).await;
    assert!(asked.ok(), "{asked}");
    let end = end_of_program();
    assert!(!end.contains("times."), "built anew: {end:?}");
    project.down(&["-v"]).await;
    nothing_left(&before, "after down").await;
}

/// A killed devenv's pods are gone a moment later, and its database with `down`.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_devenv_leaves_nothing_that_down_does_not_remove() {
    let Some(project) = containers::reference() else {
        return;
    };
    let before = everything();
    up(&project, &["--profile", "seed"]).await;
    for round in 1..=rounds(3) {
        if round > 1 {
            // Somewhere on the way up.
            let mut command =
                project.command(&[&IN_CONTAINERS[..], &["--profile", "seed"]].concat());
            let mut starting = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("devenv starts");
            tokio::time::sleep(Duration::from_millis(u64::from(round * 397 % 2_500))).await;
            starting.kill().expect("killed");
            starting.wait().expect("reaped");
        }
        if let Some(supervisor) = project.supervisor() {
            kill(supervisor);
        }
        // Its pods, by what waits for its end; what Compose made stays, and goes with `down`.
        let pods = || {
            new_since(&before)
                .into_iter()
                .filter(|name| name.contains("_POD_"))
                .count()
        };
        let gone = until(SEEN, Duration::from_millis(50), || async {
            (pods() == 0).then_some(())
        });
        assert!(
            gone.await.is_some(),
            "round {round}: {:#?}",
            new_since(&before)
        );
        if round % 2 == 0 {
            project.down(&["-v"]).await;
            nothing_left(&before, &format!("round {round}")).await;
        }
    }
    up(&project, &["--profile", "seed"]).await;
    project.down(&["-v"]).await;
    nothing_left(&before, "in the end").await;
}

/// Two checkouts whose Compose projects have one name: neither takes the other's database,
/// nor throws it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_its_own_checkouts() {
    // For what it looks for.
    if containers::reference().is_none() {
        return;
    }
    let before = everything();
    let [one, other] = [(); 2].map(|()| Project::empty());
    let name = containers::compose_project(&one);
    for project in [&one, &other] {
        project.write(
            "devenv.toml",
            "[project]\nname = \"p\"\nnamespace = \"p\"\nmanifests = [\"manifests\"]\n\n[cloudsql]\n",
        );
        project.write(
            "manifests/all.yaml",
            "{apiVersion: v1, kind: Namespace, metadata: {name: p}}\n---\n\
             {apiVersion: v1, kind: Service, metadata: {name: cloudsql}, spec: {ports: [{port: 3306}]}}\n",
        );
        let compose = devenv_tests::project::checkout().join("compose/compose.yaml");
        let compose = fs::read_to_string(compose).expect("the checkout has one");
        project.write("compose/compose.yaml", &compose);
        let image = containers::MYSQL;
        project.write(
            "compose/.env",
            &format!("MYSQL_IMAGE={image}\nCOMPOSE_PROJECT_NAME={name}\n"),
        );
    }
    up(&one, &[]).await;
    let volume = format!("volume {name}_cloudsql");
    // While it runs, and while only its data is there.
    for _ in 0..2 {
        let refused = other.run_within(UP, &IN_CONTAINERS).await;
        assert_eq!(refused.code, Some(1), "{refused}");
        let folder = one.path().display().to_string();
        assert!(refused.stderr.contains(&folder), "{refused}");
        other.down(&["-v"]).await;
        assert!(everything().contains(&volume), "{volume} is gone");
        one.down(&[]).await;
    }
    one.down(&["-v"]).await;
    nothing_left(&before, "in the end").await;
}

/// Without an engine: what to do, before anything is made.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_command_that_mends_it_is_said() {
    let project = Project::reference();
    let mut command = project.command(&IN_CONTAINERS);
    let output = command
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .output()
        .expect("devenv runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("no Docker Engine answers at unix:///nowhere/docker.sock"),
        "{said}"
    );
    assert!(said.contains("systemctl start docker"), "{said}");
    assert!(project.supervisor().is_none());
}
