use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn container(extra: Value) -> Container {
    let mut value = json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]});
    for (key, field) in extra.as_object().into_iter().flatten() {
        value[key] = field.clone();
    }
    serde_json::from_value(value).expect("a container")
}

#[test]
fn defaults_are_those_of_kubernetes() {
    let container = container(json!({"readinessProbe": {"httpGet": {"port": "http"}}}));
    assert_eq!(
        plans(&container, &[]),
        [Plan {
            kind: Kind::Readiness,
            action: Action::Http {
                host: None,
                port: 8080,
                path: "/".into(),
                headers: vec![]
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
            grace: None,
        }]
    );
}

#[rstest]
#[case(json!({"tcpSocket": {"port": 3306}}), Action::Tcp { host: None, port: 3306 })]
#[case(json!({"exec": {"command": ["check", "$(A)"]}}), Action::Exec(vec!["check".into(), "1".into()]))]
#[case(json!({"httpGet": {"port": 80, "path": "ready?x=1", "httpHeaders": [{"name": "H", "value": "v"}]}}),
    Action::Http { host: None, port: 80, path: "/ready?x=1".into(), headers: vec![("H".into(), "v".into())] })]
#[case(json!({"grpc": {"port": 80}}), Action::Unsupported("grpc probes are not supported here: use httpGet, tcpSocket or exec".into()))]
fn actions(#[case] probe: Value, #[case] expected: Action) {
    let container = container(json!({"livenessProbe": probe}));
    assert_eq!(
        plans(&container, &[("A".into(), "1".into())])[0].action,
        expected
    );
}

#[test]
fn an_unknown_port_name_is_named() {
    let container = container(json!({"livenessProbe": {"tcpSocket": {"port": "no"}}}));
    let Action::Unsupported(why) = &plans(&container, &[])[0].action else {
        panic!("must be refused")
    };
    assert!(why.contains("no") && why.contains("\"c\""), "{why}");
}

/// Answers from a list, then the last one for ever; remembers when it was asked.
#[derive(Debug)]
struct Scripted {
    answers: Mutex<VecDeque<bool>>,
    asked: Mutex<Vec<Instant>>,
}

#[async_trait]
impl Prober for Scripted {
    async fn check(&self, _: &Action, _: &Target) -> Result<(), String> {
        self.asked
            .lock()
            .expect("not poisoned")
            .push(Instant::now());
        let mut answers = self.answers.lock().expect("not poisoned");
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().copied()
        };
        if answer.unwrap_or(false) {
            Ok(())
        } else {
            Err("no".into())
        }
    }
}

fn start(probe: (&str, Value), answers: &[bool]) -> (Arc<Scripted>, mpsc::Receiver<Report>) {
    let container = container(json!({probe.0: probe.1}));
    let plan = plans(&container, &[]).remove(0);
    let prober = Arc::new(Scripted {
        answers: Mutex::new(answers.iter().copied().collect()),
        asked: Mutex::default(),
    });
    let (report_tx, report_rx) = mpsc::channel(8);
    let target = Target {
        ip: std::net::Ipv4Addr::LOCALHOST,
        exec: None,
    };
    tokio::spawn(run(plan, "c".into(), 0, prober.clone(), target, report_tx));
    (prober, report_rx)
}

fn offsets(prober: &Scripted, since: Instant) -> Vec<u128> {
    prober
        .asked
        .lock()
        .expect("not poisoned")
        .iter()
        .map(|at| (*at - since).as_millis())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn readiness_is_asked_fast_until_the_first_yes_then_once_a_period() {
    let begin = Instant::now();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 5, "initialDelaySeconds": 60});
    let (prober, mut report_rx) = start(("readinessProbe", probe), &[false, false, false, true]);
    let report = report_rx.recv().await.expect("a report");
    assert_eq!(report.news, News::Passed);
    assert!(
        begin.elapsed() < Duration::from_millis(15),
        "{:?}",
        begin.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(11)).await;
    let asked = offsets(&prober, begin);
    assert_eq!(asked.len(), 6);
    assert!(asked[5] - asked[4] >= 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_never_ready_is_not_asked_fast_for_ever() {
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 10});
    let (prober, _report_rx) = start(("readinessProbe", probe), &[false]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let fast = prober.asked.lock().expect("not poisoned").len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let slow = prober.asked.lock().expect("not poisoned").len() - fast;
    assert!(
        (640..690).contains(&fast) && (9..=11).contains(&slow),
        "{fast} {slow}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_program_is_found_ready_soon_in_relation_to_its_start() {
    let begin = Instant::now();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 10});
    let (prober, _report_rx) = start(("readinessProbe", probe), &[false]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = offsets(&prober, begin);
    for pair in asked.windows(2) {
        let gap = pair[1] - pair[0];
        // The clock of timers has steps of 1 ms.
        let most = (pair[0] / 20).clamp(2, 50) + 1;
        assert!(gap <= most, "{gap} ms after {} ms", pair[0]);
    }
    assert!((140..180).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_lost_after_the_threshold_and_comes_back() {
    let begin = Instant::now();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 2});
    let (_prober, mut report_rx) = start(
        ("readinessProbe", probe),
        &[true, false, false, false, true],
    );
    let mut news = Vec::new();
    while news.len() < 5 {
        let report = report_rx.recv().await.expect("a report");
        news.push((report.news, begin.elapsed().as_secs()));
    }
    assert_eq!(
        news,
        [
            (News::Passed, 0),
            (News::Missed("no".into()), 1),
            (News::Failed("no".into()), 2),
            (News::Missed("no".into()), 3),
            (News::Passed, 4),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn liveness_waits_and_fails_after_its_threshold() {
    let begin = Instant::now();
    let probe = json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 7, "periodSeconds": 2, "failureThreshold": 3});
    let (_prober, mut report_rx) = start(("livenessProbe", probe), &[false]);
    let mut news = Vec::new();
    while !matches!(news.last(), Some((News::Failed(_), _))) {
        let report = report_rx.recv().await.expect("a report");
        news.push((report.news, begin.elapsed().as_secs()));
    }
    let no = || "no".to_owned();
    assert_eq!(
        news,
        [
            (News::Missed(no()), 7),
            (News::Missed(no()), 9),
            (News::Failed(no()), 11)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn startup_leaves_the_whole_time_and_no_more() {
    let begin = Instant::now();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 10, "failureThreshold": 6});
    let (_prober, mut report_rx) = start(("startupProbe", probe), &[false]);
    loop {
        let report = report_rx.recv().await.expect("a report");
        if matches!(report.news, News::Failed(_)) {
            break;
        }
    }
    assert!(
        (50..=60).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_said_and_kills_nothing() {
    let (prober, mut report_rx) = start(("livenessProbe", json!({"grpc": {"port": 1}})), &[true]);
    let report = report_rx.recv().await.expect("a report");
    assert!(matches!(report.news, News::Missed(why) if why.contains("grpc")));
    assert_eq!(report_rx.recv().await, None);
    assert!(prober.asked.lock().expect("not poisoned").is_empty());
}
