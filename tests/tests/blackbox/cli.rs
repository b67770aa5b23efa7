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
    let project = Project::reference();
    project.up().await;
    let url = project.ingress().await;
    project.down(&[]).await;
    let address = address_of(&url).expect("the Ingress has an address");
    let port = url
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(80);
    // This test is the holder.
    let taken = TcpListener::bind(SocketAddr::new(address, port)).unwrap();
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
