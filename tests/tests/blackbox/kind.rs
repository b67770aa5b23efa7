//! `devenv up --target kind`: the same system on real Kubernetes, with devenv's controller
//! serving its Ingresses.
//!
//! The cluster is Kubernetes 1.20.2, which is what can be made of Debian's packages; every
//! figure that is printed here is of that.

use devenv_tests::containers::{self, docker, everything, new_since};
use devenv_tests::project::{Project, kill};
use devenv_tests::{database, proven, rounds, until};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) const UP: Duration = Duration::from_secs(480);
const SUITES: Duration = Duration::from_secs(480);
pub(super) const SEEN: Duration = Duration::from_secs(120);
pub(super) const IN_KIND: [&str; 7] = [
    "up",
    "-d",
    "--target",
    "kind",
    "--ingress",
    "devenv",
    "--timeout=4m",
];

pub(super) async fn up(project: &Project, more: &[&str]) -> Duration {
    let start = Instant::now();
    let up = project.run_within(UP, &[&IN_KIND[..], more].concat()).await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    start.elapsed()
}

/// Sends records through the Ingress: half to each, as rows of the database.
pub(super) async fn main_job(project: &Project, apis: [&str; 2], requests: u64) {
    let url = project.url("database").await;
    let (known, _) = database::by_api(&url, 0).await.expect("rows");
    let words = ["traffic", "--concurrency", "16", "-o", "json", "--requests"];
    let count = requests.to_string();
    let run = project
        .run_within(SEEN, &[&words[..], &[&count]].concat())
        .await;
    assert!(run.ok(), "{run}");
    let report = run.json();
    println!("traffic: {report}");
    assert_eq!(report["by_status"], json!({"201": requests}), "{run}");
    let (rows, _) = database::by_api(&url, 0).await.expect("rows");
    let new: BTreeMap<String, u64> = rows
        .into_iter()
        .map(|(api, n)| (api.clone(), n - known.get(&api).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(new.values().sum::<u64>(), requests, "{new:?}");
    let [one, two] = apis.map(|api| new.get(api).copied().unwrap_or(0));
    // Each of the proxy's two threads deals by itself.
    assert!(one.abs_diff(two) <= 2, "{new:?}");
}

/// The suites that say least of the application and most of what it runs on; in the long form
/// all of them. Those that take the database away come last, each to a system that has
/// recovered: Kubernetes asks a pod that is not ready only every few seconds.
async fn suites(project: &Project, profile: &str) {
    let is_long = std::env::var_os("DEVENV_ROUNDS").is_some();
    let groups: &[&[&str]] = match is_long {
        true => &[
            &[
                "contract",
                "idempotency",
                "live",
                "migrations",
                "page",
                "read",
                "split",
                "traffic",
            ],
            &["ingest"],
            &["outage"],
        ],
        false => &[&["live", "split"], &["ingest"]],
    };
    for group in groups {
        let words = [&["test", "e2e", "--attach"][..], group].concat();
        let run = project.run_within(SUITES, &words).await;
        assert!(run.ok(), "{run}");
        println!("{words:?} took {:.1?}", run.took);
        let ready = until(SEEN, Duration::from_millis(200), async || {
            (project.status().await["ready"] == true).then_some(())
        });
        assert!(ready.await.is_some(), "{:#}", project.status().await);
    }
    let what = if is_long {
        "all suites"
    } else {
        "suites ingest, live, split"
    };
    proven("kind, devenv's controller", profile, what);
}

/// Records, suites, down and up again with the data there, and nothing left in the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_in_kind() {
    let Some(project) = containers::reference_for_kind("bb-kind") else {
        return;
    };
    let before = everything();
    println!("cold up: {:.1?}", up(&project, &[]).await);
    let status = project.status().await;
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["endpoints"]["target"], "kind", "{status:#}");
    main_job(&project, ["api1", "api2"], 10_000).await;
    proven(
        "kind, devenv's controller",
        "rust",
        "10,000 records, half and half",
    );
    // An Ingress says where it is, as for kubectl.
    let address = project.url("address").await;
    let kubeconfig = project.kubeconfig();
    let kubectl = std::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["-n", "so1-fase2", "get", "ingress", "telemetry", "-o"])
        .arg("jsonpath={.status.loadBalancer.ingress[0].ip}")
        .output()
        .expect("kubectl runs");
    let said = String::from_utf8_lossy(&kubectl.stdout).into_owned();
    assert!(
        !said.is_empty() && address.contains(&said),
        "{address}: {kubectl:?}"
    );
    // A Cloud Run service is reached by its own address, and knows the Ingress.
    let front = project.url("frontend").await;
    let page = reqwest::get(&front).await.expect("the page answers");
    assert_eq!(page.status(), 200, "{front}");
    suites(&project, "rust").await;
    let url = project.url("database").await;
    let rows = database::count(&url).await.expect("answers");
    project.down(&[]).await;
    let running = docker(&["ps", "--format", "{{.Names}}"]).expect("the engine answers");
    assert!(!running.contains("bb-kind"), "{running}");
    // A cluster of another kind is not made over this one without being told to.
    let known = fs::read_to_string(project.path().join("kind/cluster.yaml")).expect("there");
    project.write("kind/cluster.yaml", &format!("{known}  - role: worker\n"));
    let refused = project.run_within(UP, &IN_KIND).await;
    assert_eq!(refused.code, Some(1), "{refused}");
    let mend = "kind delete cluster --name devenv-bb-kind";
    assert!(refused.stderr.contains(mend), "{refused}");
    project.write("kind/cluster.yaml", &known);
    println!("warm up: {:.1?}", up(&project, &[]).await);
    let other = project.run(&["up", "-d", "--target", "local"]).await;
    assert_eq!(other.code, Some(2), "{other}");
    assert!(other.stderr.contains("runs on the kind target"), "{other}");
    let url = project.url("database").await;
    assert_eq!(database::count(&url).await.expect("answers"), rows);
    main_job(&project, ["api1", "api2"], 100).await;
    project.down(&["-v"]).await;
    assert_eq!(new_since(&before), [""; 0], "after down -v");
}

/// With the profile that people bring: records, suites, edits under load that lose nothing, an
/// image that can't be built, and a killed supervisor whose cluster the next one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn edits_are_rolled_out() {
    let Some(project) = containers::reference_for_kind("bb-kind-seed") else {
        return;
    };
    let before = everything();
    let seed = ["--profile", "seed"];
    containers::prepare_edits(&project);
    up(&project, &seed).await;
    main_job(&project, ["Python", "NodeJS"], 1_000).await;
    suites(&project, "seed").await;
    containers::edits_lose_nothing(&project, 50, rounds(2), "kind").await;
    proven(
        "kind, devenv's controller",
        "seed",
        "edits at 50/s, none failed",
    );

    // The cluster does not need who made it.
    kill(project.supervisor().expect("it runs"));
    up(&project, &seed).await;
    main_job(&project, ["Python", "NodeJS"], 100).await;
    project.down(&["-v"]).await;
    assert_eq!(new_since(&before), [""; 0], "after down -v");
}

/// Killed at any moment of `up`, the next `up` or `down` recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_up_is_recovered_from() {
    let Some(project) = containers::reference_for_kind("bb-kind-kill") else {
        return;
    };
    let before = everything();
    for round in 1..=rounds(2) {
        let mut command = project.command(&IN_KIND);
        let mut starting = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("devenv starts");
        // Spread over the whole way: a cluster of nothing takes about half a minute.
        let after = u64::from(round) * 7_919 % 40_000;
        tokio::time::sleep(Duration::from_millis(after)).await;
        starting.kill().expect("killed");
        starting.wait().expect("reaped");
        if let Some(supervisor) = project.supervisor() {
            kill(supervisor);
        }
        if round % 2 == 0 {
            project.run_within(SEEN, &["down", "-v"]).await;
            let clean = until(SEEN, Duration::from_millis(100), || async {
                new_since(&before).is_empty().then_some(())
            });
            assert!(
                clean.await.is_some(),
                "round {round}: {:#?}",
                new_since(&before)
            );
        }
    }
    up(&project, &[]).await;
    main_job(&project, ["api1", "api2"], 100).await;
    project.down(&["-v"]).await;
    assert_eq!(new_since(&before), [""; 0], "in the end");
}

/// What is not there is said before anything is made, with what mends it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_for_kind_is_said_first() {
    let mut project = Project::reference();
    project.set_variable("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    if !std::path::Path::new("/usr/bin/kind").exists() {
        let refused = project.run(&IN_KIND).await;
        assert_eq!(refused.code, Some(3), "{refused}");
        assert!(
            refused.stderr.contains("kind is not installed"),
            "{refused}"
        );
        assert!(refused.stderr.contains("apt-get install kind"), "{refused}");
    }
    let Some(mut project) = containers::reference_for_kind("bb-kind-none") else {
        return;
    };
    let before = everything();
    // The real controller comes from the network, which is not there: it is not swapped for
    // another one.
    let nowhere = "http://127.0.0.1:9";
    project.set_variable("https_proxy", nowhere);
    let cache = project.path().join("empty-cache");
    project.set_variable("XDG_CACHE_HOME", cache);
    let refused = project.run(&["up", "-d", "--target", "kind"]).await;
    assert_eq!(refused.code, Some(1), "{refused}");
    for said in [
        "ingress-nginx can't be had",
        "controller-v1.15.1",
        "--ingress devenv",
    ] {
        assert!(refused.stderr.contains(said), "{said}: {refused}");
    }
    // A port that somebody has.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    project.configure(|config| config["ingress"]["http_port"] = i64::from(port).into());
    let refused = project.run(&IN_KIND).await;
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = format!("127.0.0.1:{port} is taken by");
    assert!(refused.stderr.contains(&said), "{refused}");
    assert_eq!(new_since(&before), [""; 0]);
    // Nor is a cluster that nobody has.
    let nobodys = project.path().join("kubeconfig-of-nobody");
    project.set_variable("KUBECONFIG", nobodys);
    let kube = project.run(&["up", "--target", "kube:prod"]).await;
    assert_eq!(kube.code, Some(3), "{kube}");
    assert!(kube.stderr.contains("kubeconfig-of-nobody"), "{kube}");
}
