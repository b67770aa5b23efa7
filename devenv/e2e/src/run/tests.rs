use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::suite::parse;

/// A system: an application and a Kubernetes API in one server.
#[derive(Clone, Default)]
struct System {
    calls: Arc<AtomicUsize>,
    /// What each request asked for.
    seen: Arc<Mutex<Vec<String>>>,
}

impl System {
    async fn serve(&self) -> String {
        let app = Router::new()
            .route("/api", any(take))
            .route("/third", get(third))
            .route("/hang", get(std::future::pending::<()>))
            .route("/api/v1/namespaces/shop/pods", get(pods))
            .route("/api/v1/namespaces/shop/pods/{pod}/log", get(log))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn take(State(system): State<System>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let said = format!(
        "{} {} {}",
        parts.method,
        parts.uri.query().unwrap_or_default(),
        String::from_utf8_lossy(&body)
    );
    system
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(said);
    (
        StatusCode::CREATED,
        [("x-version", "v2")],
        axum::Json(json!({"ids": [41, 42], "api": "api1"})),
    )
        .into_response()
}

/// Well from the third request on.
async fn third(State(system): State<System>) -> StatusCode {
    match system.calls.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

async fn pods() -> axum::Json<serde_json::Value> {
    let pod = json!({
        "metadata": {
            "name": "api1-6f7-x", "namespace": "shop", "labels": {"pod-template-hash": "6f7"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api1-6f7", "uid": "u"
            }],
        },
        "spec": {"containers": [{"name": "api1"}]},
    });
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}))
}

async fn log(State(system): State<System>, request: Request) -> String {
    let query = request.uri().query().unwrap_or_default().to_owned();
    system
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(query);
    "connecting to mysql://u:hunter2@db/d\nno such table\n".into()
}

/// Hands out environments at one system, and counts them.
struct Provided {
    address: String,
    /// It is one environment, by whatever name.
    shared: AtomicBool,
    fresh: AtomicUsize,
    discarded: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Provider for Provided {
    async fn fresh(&self) -> Result<Environment, String> {
        let config = kube::Config::new(self.address.parse().unwrap());
        let number = self.fresh.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Environment {
            name: format!("e{number}"),
            target: "local".into(),
            namespace: "shop".into(),
            ingress: Some(self.address.clone()),
            database: Some("mysql://u:hunter2@127.0.0.1:1/d".into()),
            kubeconfig: "/nowhere".into(),
            ..Environment::at(kube::Client::try_from(config).unwrap())
        })
    }

    async fn discard(&self, environment: Environment) {
        self.discarded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(environment.name);
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }
}

struct Harness {
    system: System,
    provider: Arc<Provided>,
    folder: TempDir,
    options: Options,
}

impl Harness {
    async fn new() -> Self {
        let system = System::default();
        let folder = TempDir::new().unwrap();
        let provider = Arc::new(Provided {
            address: system.serve().await,
            shared: AtomicBool::new(false),
            fresh: AtomicUsize::new(0),
            discarded: Mutex::default(),
        });
        let options = Options {
            selection: Selection {
                target: "local".into(),
                ..Selection::default()
            },
            retries: 0,
            repeat: 1,
            until_fail: false,
            jobs: 2,
            id: "r1".into(),
            run_dir: folder.path().to_owned(),
            cancel: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        Self {
            system,
            provider,
            folder,
            options,
        }
    }

    fn suite(&self, name: &str, text: &str) -> Suite {
        let file = format!("tests/e2e/{name}.toml");
        parse(self.folder.path(), Path::new(&file), text.to_owned()).unwrap_or_else(|problems| {
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", said.join("\n"))
        })
    }

    async fn run(&self, suites: Vec<Suite>) -> (RunReport, Vec<RunEvent>) {
        let (events_tx, mut events_rx) = mpsc::unbounded_channel();
        let report = run(
            suites,
            self.options.clone(),
            self.provider.clone(),
            events_tx,
        )
        .await
        .unwrap();
        let mut events = Vec::new();
        while let Some(event) = events_rx.recv().await {
            events.push(event);
        }
        (report, events)
    }

    async fn one(&self, text: &str) -> TestReport {
        let (mut report, _) = self.run(vec![self.suite("s", text)]).await;
        report.suites.remove(0).tests.remove(0)
    }
}

fn step(report: &TestReport) -> &crate::outcome::StepReport {
    report.attempts.last().unwrap().steps.last().unwrap()
}

/// A fault of one would be taken for the system's by the other.
#[tokio::test]
async fn in_a_system_that_was_there_before_all_suites_take_turns() {
    let harness = Harness::new().await;
    harness.provider.shared.store(true, Ordering::SeqCst);
    let text =
        "parallel = true\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = { command = \"true\" }\n";
    let suites = ["a", "b", "c"].map(|name| harness.suite(name, text));
    let (report, events) = harness.run(suites.into()).await;
    assert!(report.passed(), "{report:#?}");
    let order: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::TestStarted { suite, .. } => Some(format!("{suite} begins")),
            RunEvent::TestEnded { suite, .. } => Some(format!("{suite} ends")),
            _ => None,
        })
        .collect();
    let turns = ["a", "b", "c"].map(|s| [format!("{s} begins"), format!("{s} ends")]);
    assert_eq!(order, turns.concat());
    assert_eq!(harness.provider.fresh.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_captured_goes_on_with_its_type() {
    let harness = Harness::new().await;
    let report = harness
        .one(
            r#"
            [vars]
            who = "api1"
            [[test]]
            name = "t"
            [[test.step]]
            http = { url = "${INGRESS_URL}/api?a=1", json = { x = "${who}" } }
            expect = { status = 201, headers = { x-version = "v2" }, json = { "$.api" = { in = ["${who}"] }, "$.ids" = { length = 2 } } }
            capture = { id = "$.ids[0]", version = "header:X-Version" }
            [[test.step]]
            http = { method = "put", url = "${INGRESS_URL}/api?v=${version}", json = { n = "${id}", t = "n${id}" } }
            "#,
        )
        .await;
    assert_eq!(report.outcome, Outcome::Passed, "{report:#?}");
    assert_eq!(
        harness.system.seen(),
        [
            "POST a=1 {\"x\":\"api1\"}",
            "PUT v=v2 {\"n\":41,\"t\":\"n41\"}"
        ]
    );
}

#[tokio::test]
async fn a_failed_step_says_what_was_expected_and_what_the_workloads_printed() {
    let harness = Harness::new().await;
    let report = harness
        .one(
            r#"
            [[test]]
            name = "it's taken"
            [[test.step]]
            http = { url = "${INGRESS_URL}/api" }
            expect = { status = 200, json = { "$.api" = "api2" }, body = { contains = "${DATABASE_URL}" } }
            [[test.step]]
            exec = { command = ["true"] }
            "#,
        )
        .await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(
        report.attempts[0].steps.len(),
        1,
        "nothing after the failure"
    );
    let step = step(&report);
    let said: Vec<String> = step
        .mismatches
        .iter()
        .map(|m| format!("{}: expected {}, got {}", m.what, m.expected, m.got))
        .collect();
    assert_eq!(said[0], "status: expected 200, got 201");
    assert_eq!(said[1], "$.api: expected \"api2\", got \"api1\"");
    assert_eq!(
        step.logs["api1"],
        ["connecting to mysql://u:***@db/d", "no such table"]
    );
    assert!(harness.system.seen().last().unwrap().contains("sinceTime="));
    assert_eq!(report.again, r"devenv test e2e --filter 's::it'\''s taken'");
    let all = serde_json::to_string(&report).unwrap();
    assert!(!all.contains("hunter2"), "{all}");
}

#[tokio::test]
async fn polling_asks_until_it_is_as_expected() {
    let harness = Harness::new().await;
    let report = harness
        .one(
            r#"
            [[test]]
            name = "t"
            [[test.step]]
            http = { url = "${INGRESS_URL}/third" }
            expect = { status = 200 }
            poll = { within = "60s", every = "1ms" }
            "#,
        )
        .await;
    assert_eq!(report.outcome, Outcome::Passed);
    assert_eq!(harness.system.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_test_that_passes_at_another_attempt_is_flaky() {
    let mut harness = Harness::new().await;
    harness.options.retries = 5;
    let suite = harness.suite(
        "s",
        r#"
        [[test]]
        name = "t"
        [[test.step]]
        http = { url = "${INGRESS_URL}/third" }
        expect = { status = 200 }
        "#,
    );
    let (report, events) = harness.run(vec![suite]).await;
    let test = &report.suites[0].tests[0];
    assert_eq!((test.outcome, test.attempts.len()), (Outcome::Flaky, 3));
    let retries = events
        .iter()
        .filter(|e| matches!(e, RunEvent::Retry { .. }));
    assert_eq!(retries.count(), 2);
    assert!(report.passed());
}

#[rstest]
#[case("timeout = \"50ms\"", "", "done within 50ms")]
#[case("", "poll = { within = \"50ms\" }", "one within 50ms")]
#[tokio::test]
async fn what_hangs_ends(#[case] head: &str, #[case] poll: &str, #[case] want: &str) {
    let harness = Harness::new().await;
    let report = harness
        .one(&format!(
            "{head}\n[[test]]\nname = \"t\"\n[[test.step]]\nhttp = {{ url = \"${{INGRESS_URL}}/hang\" }}\n{poll}"
        ))
        .await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(step(&report).mismatches[0].expected, want);
}

#[tokio::test]
async fn a_stopped_run_finishes_the_test_under_way_and_leaves_the_others_out() {
    let harness = Harness::new().await;
    let two = r#"
        [[test]]
        name = "first"
        [[test.step]]
        http = { url = "${INGRESS_URL}/api" }
        [[test]]
        name = "second"
        [[test.step]]
        exec = { command = ["true"] }
        "#;
    let suites = vec![harness.suite("s", two), harness.suite("t", two)];
    let (events_tx, mut events_rx) = mpsc::unbounded_channel();
    let running = tokio::spawn(run(
        suites,
        harness.options.clone(),
        harness.provider.clone(),
        events_tx,
    ));
    let mut ended = 0;
    while let Some(event) = events_rx.recv().await {
        match event {
            RunEvent::TestStarted { .. } => harness.options.stop.cancel(),
            RunEvent::TestEnded { .. } => ended += 1,
            _ => {}
        }
    }
    let report = running.await.unwrap().unwrap();
    let suites: Vec<_> = report.suites.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(suites, ["s"]);
    let tests = &report.suites[0].tests;
    // The test was under way before anybody could know of it.
    assert_eq!((tests.len(), ended), (1, 1), "{tests:#?}");
    assert_eq!(tests[0].outcome, Outcome::Passed);
    let discarded = harness.provider.discarded.lock();
    assert_eq!(discarded.unwrap_or_else(PoisonError::into_inner).len(), 1);
}

#[tokio::test]
async fn a_cancelled_run_ends_the_test_under_way_and_the_environment() {
    let harness = Harness::new().await;
    let suite = harness.suite(
        "s",
        r#"
        [[test]]
        name = "first"
        [[test.step]]
        http = { url = "${INGRESS_URL}/hang" }
        [[test]]
        name = "second"
        [[test.step]]
        exec = { command = ["true"] }
        "#,
    );
    let (events_tx, mut events_rx) = mpsc::unbounded_channel();
    let running = tokio::spawn(run(
        vec![suite],
        harness.options.clone(),
        harness.provider.clone(),
        events_tx,
    ));
    while let Some(event) = events_rx.recv().await {
        if matches!(event, RunEvent::TestStarted { .. }) {
            harness.options.cancel.cancel();
        }
    }
    let report = running.await.unwrap().unwrap();
    let tests = &report.suites[0].tests;
    assert_eq!(tests[0].outcome, Outcome::Failed);
    assert_eq!(step(&tests[0]).mismatches[0].got, "interrupted");
    assert_eq!(tests[1].outcome, Outcome::Skipped);
    assert_eq!(harness.provider.discarded.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn suites_take_turns_in_one_environment_or_run_beside_them_in_their_own() {
    let harness = Harness::new().await;
    let test = "[[test]]\nname = \"t\"\n[[test.step]]\nexec = { command = \"true\" }\n";
    let suites = vec![
        harness.suite("a", test),
        harness.suite("b", &format!("parallel = true\n{test}")),
        harness.suite("c", test),
        harness.suite("d", &format!("targets = [\"kind\"]\n{test}")),
    ];
    let (report, events) = harness.run(suites).await;
    let environment = |i: usize| report.suites[i].environment.as_str();
    assert_eq!(environment(0), environment(2));
    assert_ne!(environment(0), environment(1));
    assert_eq!(report.suites[3].tests[0].outcome, Outcome::Skipped);
    assert_eq!(harness.provider.fresh.load(Ordering::SeqCst), 2);
    assert_eq!(harness.provider.discarded.lock().unwrap().len(), 2);
    let ended = events.iter().filter_map(|event| match event {
        RunEvent::TestEnded { done, total, .. } => Some((*done, *total)),
        _ => None,
    });
    assert_eq!(
        ended.collect::<BTreeSet<_>>(),
        (1..=4).map(|n| (n, 4)).collect()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_take_longest_begins_first() {
    let mut harness = Harness::new().await;
    harness.options.jobs = 1;
    let test = |name: &str| {
        format!("[[test]]\nname = \"{name}\"\n[[test.step]]\nexec = {{ command = \"true\" }}\n")
    };
    let suite = |name, timeout: &str, tests: &[&str]| {
        let tests: String = tests.iter().map(|name| test(name)).collect();
        harness.suite(
            name,
            &format!("parallel = true\ntimeout = \"{timeout}\"\n{tests}"),
        )
    };
    let suites = vec![
        suite("a", "60s", &["one"]),
        suite("b", "60s", &["one", "two"]),
        suite("c", "300s", &["one"]),
        suite("d", "60s", &["one"]),
    ];
    let (_, events) = harness.run(suites).await;
    let mut began: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::TestStarted { suite, .. } => Some(suite.as_str()),
            _ => None,
        })
        .collect();
    began.dedup();
    assert_eq!(began, ["c", "b", "a", "d"]);
}

#[tokio::test]
async fn of_several_rounds_the_worst_counts() {
    let mut harness = Harness::new().await;
    harness.options.repeat = 4;
    let report = harness
        .one("[[test]]\nname = \"t\"\n[[test.step]]\nhttp = { url = \"${INGRESS_URL}/third\" }\nexpect = { status = 200 }\n")
        .await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.reason.as_deref(), Some("in round 1"));
    assert_eq!(harness.system.calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn until_fail_goes_on_until_there_is_a_failure() {
    let mut harness = Harness::new().await;
    harness.options.until_fail = true;
    let report = harness
        .one("[[test]]\nname = \"t\"\n[[test.step]]\nhttp = { url = \"${INGRESS_URL}/third\" }\nexpect = { status = 503 }\n")
        .await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.reason.as_deref(), Some("in round 3"));
}

#[rstest]
#[case(
    "exec = { command = \"echo '{\\\"n\\\": 3}'; echo oh >&2; exit 4\" }\nexpect = { exit = 4, stderr = { contains = \"oh\" }, json = { \"$.n\" = 3 } }",
    Outcome::Passed
)]
#[case("exec = { command = [\"false\"] }", Outcome::Failed)]
#[case(
    "exec = { command = [\"no-such-program\"], missing = \"apt-get install it\" }",
    Outcome::Missing
)]
#[case(
    "exec = { command = \"no-such-program\", missing = \"apt-get install it\" }",
    Outcome::Missing
)]
#[case(
    "exec = { command = [\"cat\"], stdin = \"hello\" }\nexpect = { stdout = \"hello\" }",
    Outcome::Passed
)]
#[case(
    "exec = { command = \"test $INGRESS_URL = ${INGRESS_URL} && test $DEVENV_VAR_WHO = me && test $X = 1\", env = { X = \"1\" } }",
    Outcome::Passed
)]
#[case("exec = { command = [\"true\"], dir = \"nowhere\" }", Outcome::Failed)]
#[case(
    "exec = { command = [\"sleep\", \"600\"], timeout = \"50ms\" }",
    Outcome::Failed
)]
#[case("http = { url = \"${FRONTEND_URL}/\" }", Outcome::Unsupported)]
#[tokio::test]
async fn programs(#[case] step: &str, #[case] want: Outcome) {
    let harness = Harness::new().await;
    let report = harness
        .one(&format!(
            "[vars]\nwho = \"me\"\n[[test]]\nname = \"t\"\n[[test.step]]\n{step}\n"
        ))
        .await;
    assert_eq!(report.outcome, want, "{report:#?}");
}

#[tokio::test]
async fn a_programs_children_end_with_its_step() {
    let harness = Harness::new().await;
    let pid = harness.folder.path().join("pid");
    let report = harness
        .one(&format!(
            "timeout = \"10s\"\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = {{ command = \"sleep 600 & echo $! > {0}; exec sleep 600\", timeout = \"500ms\" }}\n",
            pid.display()
        ))
        .await;
    assert_eq!(report.outcome, Outcome::Failed);
    let child: i32 = std::fs::read_to_string(&pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Killed, which it notices when it is next given a processor; then gone, or a
    // zombie until its reaper looks.
    let gone = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            if matches!(state, None | Some('Z' | 'X')) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone)
        .await
        .expect("the child ends with its step");
}

#[tokio::test]
async fn a_load_asks_again_with_the_same_key_until_it_is_acknowledged() {
    let harness = Harness::new().await;
    let report = harness
        .one(
            r#"
            [[test]]
            name = "t"
            [[test.step]]
            load = { start = "l", url = "${INGRESS_URL}/third", rate = 0.01, retry = true, idempotency = true, acknowledged = { status = 200 } }
            [[test.step]]
            load = { stop = "l" }
            expect = { json = { "$.sent" = 1, "$.acknowledged" = 1, "$.failed" = 0, "$.statuses" = { "503" = 2, "200" = 1 } } }
            [[test.step]]
            load = { stop = "l" }
            expect = { json = { "$.sent" = 1 } }
            "#,
        )
        .await;
    assert_eq!(report.outcome, Outcome::Passed, "{report:#?}");
}

#[rstest]
#[case("{ api1 = 1.0 }", Outcome::Passed)]
#[case("{ api1 = 0.5, api2 = 0.5 }", Outcome::Failed)]
#[tokio::test]
async fn a_split_counts_who_answered(#[case] shares: &str, #[case] want: Outcome) {
    let harness = Harness::new().await;
    let report = harness
        .one(&format!(
            "[[test]]\nname = \"t\"\n[[test.step]]\nsplit = {{ requests = 40, url = \"${{INGRESS_URL}}/api?${{uuid}}\", by = \"$.api\" }}\nexpect = {{ status = 201, shares = {shares}, json = {{ \"$.counts.api1\" = 40 }} }}\n"
        ))
        .await;
    assert_eq!(report.outcome, want, "{report:#?}");
    assert_eq!(step(&report).split.as_ref().unwrap()["api1"], 40);
    let different: BTreeSet<String> = harness
        .system
        .seen()
        .into_iter()
        .filter(|s| s.starts_with("GET"))
        .collect();
    assert_eq!(different.len(), 40, "each request has a uuid of its own");
}
