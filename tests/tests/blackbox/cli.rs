//! The command line: exit codes, what is said when something is wrong, and that
//! everything can be said twice.

use devenv_tests::inventory::{Inventory, Kind};
use devenv_tests::project::{Project, address_of};
use devenv_tests::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_end_with_2_and_say_what_is_possible() {
    let project = Project::empty();
    for words in [
        &["nonsense"][..],
        &["up", "--no-such-option"],
        &["up", "--timeout", "soon"],
        &["traffic", "--requests", "many"],
        &["traffic", "--requests", "0"],
        &["traffic", "--rate", "-1"],
        &["traffic", "--expect-split", "50"],
        &["-n", "so1_fase2", "status"],
        &["status", "-o", "yaml"],
        &[],
    ] {
        let run = project.run(words).await;
        assert_eq!(run.code, Some(2), "{run}");
        assert!(run.stdout.is_empty(), "errors go to stderr: {run}");
        assert!(!run.stderr.trim().is_empty(), "{run}");
    }
    for words in [&["--version"][..], &["--help"], &["help", "up"]] {
        let run = project.run(words).await;
        assert_eq!(run.code, Some(0), "{run}");
        assert!(!run.stdout.is_empty(), "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_devenv_toml_the_message_names_it_and_nothing_is_made() {
    let project = Project::empty();
    for words in [
        &["up", "-d"][..],
        &["status"],
        &["url", "ingress"],
        &["logs"],
        &["down"],
    ] {
        let run = project.run(words).await;
        assert!(matches!(run.code, Some(1 | 2)), "{run}");
        assert!(run.stderr.contains("devenv.toml"), "{run}");
        assert!(!run.stderr.contains("panicked"), "{run}");
    }
    let made = std::fs::read_dir(project.path()).unwrap().count();
    assert_eq!(made, 0, "a folder that is no project stays as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_illegal_namespace_is_explained_where_it_stands() {
    let project = Project::reference();
    project.configure(|config| {
        let table = config["project"].as_table_mut().unwrap();
        table.insert("namespace".to_owned(), "so1_fase2".into());
    });
    let run = project.run(&["up", "-d"]).await;
    assert!(matches!(run.code, Some(1 | 2)), "{run}");
    for part in ["so1_fase2", "so1-fase2", "RFC 1123", "devenv.toml"] {
        assert!(run.stderr.contains(part), "{part}: {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_down_says_so() {
    let project = Project::reference();
    let status = project.run(&["status"]).await;
    assert!(matches!(status.code, Some(0 | 1)), "{status}");
    let text = status.text().to_lowercase();
    assert!(
        text.contains("not running") || text.contains("down") || text.contains("not up"),
        "{status}"
    );
    let json = project.run(&["status", "-o", "json"]).await;
    assert!(json.json().is_object(), "{json}");
    let url = project.run(&["url", "ingress"]).await;
    assert_eq!(url.code, Some(3), "{url}");
    assert!(
        url.stderr.contains("devenv up"),
        "the remedy is named: {url}"
    );
    for _ in 0..2 {
        project.down(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_and_down_may_be_said_twice_and_the_data_survives_down() {
    let project = Project::reference();
    let before = Inventory::take(&project.scope());
    project.up().await;
    let supervisor = project.supervisor().unwrap();
    let again = project.run(&["up", "-d"]).await;
    assert!(again.ok(), "{again}");
    assert!(again.text().to_lowercase().contains("already"), "{again}");
    assert_eq!(project.supervisor(), Some(supervisor), "it is the same one");

    let status = project.status().await;
    assert!(status["database"]["pid"].is_u64(), "{status}");
    let shown = project.run(&["status"]).await;
    assert!(shown.ok(), "{shown}");
    for name in ["api1", "api2", "api3", "frontend"] {
        assert!(shown.stdout.contains(name), "{name}: {shown}");
    }
    let alias = project.run(&["ps"]).await;
    assert!(alias.ok() && alias.stdout.contains("api1"), "{alias}");
    let logs = project.run(&["logs", "--tail", "3"]).await;
    assert!(logs.ok(), "{logs}");
    for what in ["ingress", "frontend", "database", "kubernetes", "api3"] {
        assert!(project.url(what).await.contains("://"), "{what}");
    }
    let unknown = project.run(&["url", "nothing"]).await;
    assert!(matches!(unknown.code, Some(1 | 2)), "{unknown}");

    let run = project
        .run(&[
            "traffic",
            "--requests",
            "50",
            "--concurrency",
            "4",
            "-o",
            "json",
        ])
        .await;
    assert!(run.ok(), "{run}");
    project.down(&[]).await;
    project.down(&[]).await;
    project.up().await;
    let url = project.url("database").await;
    assert_eq!(
        devenv_tests::database::count(&url).await.unwrap(),
        50,
        "down keeps the data"
    );
    let scope = project.scope_of_all().await;
    project.down(&["-v"]).await;
    project.up().await;
    let url = project.url("database").await;
    assert_eq!(
        devenv_tests::database::count(&url).await.unwrap(),
        0,
        "down -v does not"
    );
    project.down(&[]).await;

    let took = before.nothing_left(&scope, Duration::from_secs(5)).await;
    took.unwrap_or_else(|left| panic!("{left}"));
    // And the check is not blind: a leak in this very project is seen.
    let mut leak = Command::new("sleep")
        .arg("60")
        .current_dir(project.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let left = before
        .nothing_left(&scope, Duration::from_millis(100))
        .await;
    leak.kill().unwrap();
    leak.wait().unwrap();
    assert!(left.is_err_and(|left| left.has(Kind::Process)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_names_its_holder() {
    // This test is the holder.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::reference();
    project.configure(|config| {
        let ingress: toml::Table = [("http_port".to_owned(), i64::from(port).into())]
            .into_iter()
            .collect();
        config.insert("ingress".to_owned(), ingress.into());
    });
    let up = project
        .run_within(Duration::from_secs(120), &["up", "-d"])
        .await;
    drop(taken);
    let text = up.text();
    assert!(text.contains(&port.to_string()), "{up}");
    assert!(
        text.contains(&std::process::id().to_string()),
        "the holder's pid: {up}"
    );
    assert!(matches!(up.code, Some(0 | 1)), "{up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_run_side_by_side() {
    let [one, two] = [Project::reference(), Project::reference()];
    let (up_one, up_two) = tokio::join!(one.up(), two.up());
    println!("side by side: {:.1?} and {:.1?}", up_one.took, up_two.took);
    assert_ne!(one.ingress().await, two.ingress().await);
    let words = [
        "traffic",
        "--requests",
        "20",
        "--concurrency",
        "2",
        "-o",
        "json",
    ];
    assert!(one.run(&words).await.ok());
    let [rows_one, rows_two] = [one.url("database").await, two.url("database").await];
    assert_eq!(devenv_tests::database::count(&rows_one).await.unwrap(), 20);
    assert_eq!(devenv_tests::database::count(&rows_two).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_foreground_an_interrupt_takes_everything_down() {
    let project = Project::reference();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let before = Inventory::take(&project.scope());
        let mut child = project
            .command(&["up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = until(
            Duration::from_secs(120),
            Duration::from_millis(50),
            || async { project.run(&["url", "ingress"]).await.ok().then_some(()) },
        );
        assert!(ready.await.is_some(), "{}", project.supervisor_log());
        let scope = project.scope_of_all().await;
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let ended = until(Duration::from_secs(30), Duration::from_millis(10), || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        });
        let ended = ended.await.unwrap_or_else(|| {
            child.kill().unwrap();
            panic!("{signal}: not over\n{}", project.supervisor_log())
        });
        assert!(
            matches!(ended.code(), Some(0 | 130 | 143)),
            "{signal}: {ended}"
        );
        let left = before.nothing_left(&scope, Duration::from_secs(5)).await;
        left.unwrap_or_else(|left| panic!("{signal}: {left}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_a_failure_is_one_document_with_its_place() {
    let project = Project::empty();
    project.write("devenv.toml", "[project]\nname = \"Not Legal\"\n");
    for words in [&["status", "-o", "json"][..], &["up", "-d", "-o", "json"]] {
        let run = project.run(words).await;
        assert_eq!(run.code, Some(1), "{run}");
        let document = run.json();
        assert_eq!(document["event"], "failed", "{run}");
        assert_eq!(document["problems"][0]["file"], "devenv.toml", "{run}");
        assert_eq!(document["problems"][1]["line"], 2, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_in_the_background_can_be_interrupted() {
    let project = Project::reference();
    // The first one makes the database, which takes long enough.
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut child = project
            .command(&["up", "-d"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = until(
            Duration::from_secs(60),
            Duration::from_millis(1),
            || async { project.supervisor() },
        );
        started.await.expect("a supervisor holds the project");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let ended = until(Duration::from_secs(30), Duration::from_millis(10), || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        });
        let ended = ended.await.expect("it ends");
        assert_eq!(ended.code(), Some(code), "{}", project.supervisor_log());
        assert_eq!(project.status().await["state"], "down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_is_shown_once() {
    let project = Project::reference();
    project.configure(|config| {
        let image = config["image"]["api1"].as_table_mut().unwrap();
        let script = "echo step one; echo expected a semicolon >&2; exit 1";
        image.insert("build".to_owned(), script.into());
    });
    let run = project
        .run_within(Duration::from_secs(120), &["up", "-d"])
        .await;
    assert_eq!(run.code, Some(1), "{run}");
    for line in ["step one", "expected a semicolon"] {
        // The command itself, which is named, has the words too.
        let shown = run.stderr.lines().filter(|l| l.ends_with(line)).count();
        assert_eq!(shown, 1, "{line}: {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_crashes_is_told_with_place_reason_and_log() {
    let project = Project::reference();
    project.configure(|config| {
        let image = config["image"]["api1"].as_table_mut().unwrap();
        let run = ["sh", "-c", "echo no FOO in the environment; exit 3"];
        let run = run.map(toml::Value::from).to_vec();
        image.insert("run".to_owned(), toml::Value::Array(run));
    });
    let up = ["up", "-d", "--timeout", "2s"];
    let run = project.run_within(Duration::from_secs(120), &up).await;
    assert_eq!(run.code, Some(1), "{run}");
    for part in [
        "Deployment api1 (kind/base/api1.yaml:2:1)",
        "exit code 3",
        "no FOO in the environment",
        "--timeout",
    ] {
        assert!(run.stderr.contains(part), "{part}: {run}");
    }
    assert_eq!(project.status().await["state"], "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_told_truly() {
    let project = Project::reference();
    // Something that the ingress does not do.
    let file = project.path().join("kind/base/ingress.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let odd = "annotations:\n    nginx.ingress.kubernetes.io/enable-modsecurity: \"true\"";
    std::fs::write(&file, text.replacen("annotations:", odd, 1)).unwrap();
    let up = project.up().await;
    assert!(up.stderr.contains("enable-modsecurity"), "{up}");
    let status = project.status().await;
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(
        status["warnings"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );

    let logs = project.run(&["logs", "nothing"]).await;
    assert_eq!(logs.code, Some(1), "{logs}");
    assert!(logs.stderr.contains("api1, api2, api3"), "{logs}");

    // What runs can be asked for also when the files are broken by now.
    project.write("devenv.toml", "[project");
    let status = project.run(&["status"]).await;
    assert!(status.ok() && status.stdout.contains("api1"), "{status}");
    assert!(project.run(&["url", "database"]).await.ok());

    // A reader that has enough is no error, and a full disk is no panic.
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let run = project
        .command(&["status"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&run.stderr).contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_without_its_project_ends() {
    let project = Project::reference();
    project.up().await;
    let supervisor = project.supervisor().unwrap();
    std::fs::remove_dir_all(project.path().join(".devenv")).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{supervisor}/exe"));
    let ended = until(Duration::from_secs(30), Duration::from_millis(10), || {
        // A zombie that nobody has waited for yet has no program either.
        let gone = std::fs::read_link(&process).is_err();
        async move { gone.then_some(()) }
    });
    assert!(ended.await.is_some(), "pid {supervisor} still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_database_port_is_stepped_around() {
    let project = Project::reference();
    project.up().await;
    let url = project.url("database").await;
    let address = address_of(&url).unwrap();
    project.down(&[]).await;
    let taken = TcpListener::bind(SocketAddr::new(address, 3306)).unwrap();
    let up = project.up().await;
    assert!(up.stderr.contains("3306 is taken by"), "{up}");
    let url = project.url("database").await;
    assert!(!url.contains(":3306/"), "{url}");
    assert_eq!(devenv_tests::database::count(&url).await.unwrap(), 0);
    drop(taken);
}
