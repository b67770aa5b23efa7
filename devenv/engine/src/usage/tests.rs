//! Answers of API servers that are played.

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use rstest::rstest;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// A client of an API server that answers so: no answer for what it does not know, none ever for
/// what hangs.
fn played(answer: fn(&str) -> Option<Value>, hangs: &'static str) -> Client {
    let service = service_fn(move |request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        if !hangs.is_empty() && path.starts_with(hangs) {
            std::future::pending::<()>().await;
        }
        let (code, value) = match answer(&path) {
            Some(value) => (200, value),
            None => (
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "message": "no", "reason": "NotFound"}),
            ),
        };
        let response = Response::builder().status(code);
        let body = Body::from(value.to_string().into_bytes());
        Ok::<_, Infallible>(response.body(body).expect("a response"))
    });
    Client::new(service, "default")
}

fn groups(names: &[&str]) -> Value {
    let group = |name: &&str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    json!({"kind": "APIGroupList", "groups": names.iter().map(group).collect::<Vec<_>>()})
}

fn metrics() -> Value {
    let usage = |cpu: &str, memory: &str| json!({"usage": {"cpu": cpu, "memory": memory}});
    json!({"items": [
        {"metadata": {"name": "a"}, "containers": [usage("1500001n", "12Ki"), usage("250m", "1Mi")]},
        {"metadata": {"name": "b"}, "containers": [usage("0", "0")]},
        {"metadata": {"name": "c"}, "containers": [usage("much", "1Ki")]},
    ]})
}

/// As a kubelet of 1.20 wrote it, shortened.
fn summary() -> Value {
    let container = |nano: Value, bytes: u64| {
        json!({
            "name": "c", "startTime": "2026-01-01T00:00:00Z",
            "cpu": {"time": "2026-01-01T00:00:10Z", "usageNanoCores": nano, "usageCoreNanoSeconds": 99},
            "memory": {"time": "2026-01-01T00:00:10Z", "usageBytes": 9_999_999, "workingSetBytes": bytes},
            "rootfs": {}, "logs": {},
        })
    };
    let pod = |namespace: &str, name: &str, containers: Value| {
        json!({"podRef": {"name": name, "namespace": namespace, "uid": "u"}, "startTime": "2026-01-01T00:00:00Z",
            "containers": containers, "cpu": {}, "network": {}})
    };
    json!({"node": {"nodeName": "n1"}, "pods": [
        pod("x", "a", json!([container(json!(1_500_001), 4096), container(json!(2), 1)])),
        pod("x", "starting", json!([container(json!(1), 1), {"name": "d", "memory": {"workingSetBytes": 1}}])),
        pod("x", "empty", json!([])),
        pod("y", "a", json!([container(json!(7), 7)])),
    ]})
}

fn used(nanocores: u64, memory: u64) -> Usage {
    Usage { nanocores, memory }
}

fn by_pod(all: &[(&str, Usage)]) -> ByPod {
    all.iter()
        .map(|(name, usage)| ((*name).to_owned(), *usage))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_api_of_metrics_is_asked_where_it_is() {
    let client = played(
        |path| match path {
            "/apis" => Some(groups(&["apps", "metrics.k8s.io"])),
            "/apis/metrics.k8s.io/v1beta1/namespaces/x/pods" => Some(metrics()),
            _ => None,
        },
        "/api/",
    );
    let expected = by_pod(&[("a", used(251_500_001, 1_060_864)), ("b", used(0, 0))]);
    assert_eq!(of_pods(&client, "x").await, Some(expected));
}

fn of_kind(path: &str) -> Option<Value> {
    let node = |name: &str| json!({"metadata": {"name": name}});
    match path {
        "/apis" => Some(groups(&["apps"])),
        "/api/v1/nodes" => Some(
            json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [node("n1"), node("n2")]}),
        ),
        "/api/v1/nodes/n1/proxy/stats/summary" => Some(summary()),
        _ => None,
    }
}

#[rstest]
#[case::the_other_node_refuses("")]
#[case::the_other_node_hangs("/api/v1/nodes/n2/")]
#[tokio::test(start_paused = true)]
async fn else_the_kubelets_are(#[case] hangs: &'static str) {
    let begin = Instant::now();
    let found = of_pods(&played(of_kind, hangs), "x").await;
    assert_eq!(found, Some(by_pod(&[("a", used(1_500_003, 4097))])));
    assert!(begin.elapsed() <= LIMIT);
}

/// metrics-server is registered, and its pod is not there.
#[tokio::test(start_paused = true)]
async fn a_registered_source_that_fails_is_gone_round() {
    let client = played(
        |path| match path {
            "/apis" => Some(groups(&["metrics.k8s.io"])),
            other => of_kind(other),
        },
        "",
    );
    let found = of_pods(&client, "x").await;
    assert_eq!(found, Some(by_pod(&[("a", used(1_500_003, 4097))])));
}

#[rstest]
#[case::all_hang("/")]
#[case::discovery_hangs("/apis")]
#[case::nodes_hang("/api/v1/nodes")]
#[tokio::test(start_paused = true)]
async fn who_hangs_is_not_waited_for(#[case] hangs: &'static str) {
    let begin = Instant::now();
    assert_eq!(of_pods(&played(of_kind, hangs), "x").await, None);
    assert_eq!(begin.elapsed(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_tells_there_is_nothing() {
    assert_eq!(of_pods(&played(|_| None, ""), "x").await, None);
}

#[rstest]
#[case::none(&[], Some(used(0, 0)))]
#[case::both(&[("a", "running"), ("b", "running")], Some(used(11, 22)))]
#[case::what_waits_uses_nothing(&[("a", "running"), ("x", "waiting")], Some(used(1, 2)))]
#[case::what_has_ended_uses_nothing(&[("x", "terminated")], Some(used(0, 0)))]
#[case::one_is_unknown(&[("a", "running"), ("x", "running")], None)]
fn several_pods(#[case] pods: &[(&str, &str)], #[case] expected: Option<Usage>) {
    let known = by_pod(&[
        ("a", used(1, 2)),
        ("b", used(10, 20)),
        ("z", used(100, 200)),
    ]);
    let pods: Vec<Pod> = pods
        .iter()
        .map(|(name, state)| {
            let details = match *state {
                "terminated" => json!({"exitCode": 0}),
                _ => json!({}),
            };
            let status = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {(*state): details}});
            let pod = json!({"metadata": {"name": name}, "status": {"containerStatuses": [status]}});
            serde_json::from_value(pod).expect("a pod")
        })
        .collect();
    assert_eq!(together(pods.iter(), &known), expected);
}

#[rstest]
#[case(0, 0)]
#[case(1, 1)]
#[case(1_000_000, 1)]
#[case(1_000_001, 2)]
fn thousandths(#[case] nanocores: u64, #[case] milli: u64) {
    assert_eq!(used(nanocores, 0).milli(), milli);
}
