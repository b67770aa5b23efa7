//! `metrics.k8s.io`: what is measured, to whom it may concern.

use super::*;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Three pods in two namespaces, and the Node.
async fn filled() -> Running {
    let running = Running::start().await;
    create(
        &running,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "x"}}),
    )
    .await;
    for (namespace, name, app) in [
        ("default", "a", "web"),
        ("default", "b", "db"),
        ("x", "c", "web"),
    ] {
        create(
            &running,
            &format!("/api/v1/namespaces/{namespace}/pods"),
            json!({
                "metadata": {"name": name, "labels": {"app": app}},
                "spec": {"containers": [{"name": "busy", "image": "x"}, {"name": "big", "image": "x"}]},
            }),
        )
        .await;
    }
    create(
        &running,
        "/api/v1/nodes",
        json!({"metadata": {"name": "devenv"}}),
    )
    .await;
    running
}

#[tokio::test]
async fn pods_are_listed_and_selected() {
    let running = filled().await;
    let names = async |path: &str| -> Vec<String> {
        let (code, list) = ask(&running, "GET", &format!("{METRICS}{path}"), JSON, "").await;
        assert_eq!((code, &list["kind"]), (200, &json!("PodMetricsList")));
        let name = |i: &Value| i["metadata"]["name"].as_str().unwrap().to_owned();
        list["items"].cells().iter().map(name).collect()
    };
    assert_eq!(names("/pods").await, ["a", "b", "c"]);
    assert_eq!(names("/namespaces/default/pods").await, ["a", "b"]);
    assert_eq!(names("/namespaces/nope/pods").await, [""; 0]);
    assert_eq!(names("/pods?labelSelector=app%3Dweb").await, ["a", "c"]);
    assert_eq!(
        names("/pods?labelSelector=app+in+(web),app!%3Ddb&limit=1").await,
        ["a", "c"]
    );
    assert_eq!(names("/pods?fieldSelector=metadata.name%3Db").await, ["b"]);
    assert_eq!(
        names("/pods?fieldSelector=status.phase%3DFailed").await,
        [""; 0]
    );
}

#[tokio::test]
async fn one_is_told_in_full() {
    let running = filled().await;
    let path = format!("{METRICS}/namespaces/default/pods/a");
    let (code, mut pod) = ask(&running, "GET", &path, JSON, "").await;
    assert_eq!(code, 200);
    let made = pod["metadata"]["creationTimestamp"].take();
    assert!(made.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let usage = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    assert_eq!(
        pod,
        json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"}, "creationTimestamp": null},
            "timestamp": "2026-01-01T00:00:10Z", "window": "10.062s",
            "containers": [
                {"name": "busy", "usage": usage("250000001n", "3072Ki")},
                {"name": "big", "usage": usage("0", "51200Ki")},
            ],
        })
    );
    let (code, node) = ask(
        &running,
        "GET",
        &format!("{METRICS}/nodes/devenv"),
        JSON,
        "",
    )
    .await;
    assert_eq!((code, &node["kind"]), (200, &json!("NodeMetrics")));
    assert_eq!(node["usage"], usage("1500000000n", "524288Ki"));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, table) = json_of(send(&running, "GET", &path, &table, "").await).await;
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["a", "251m", "54272Ki", "10.062s"])
    );
}

#[tokio::test]
async fn nothing_else_can_be_done_with_them() {
    let running = filled().await;
    let of_a = format!("{METRICS}/namespaces/default/pods/a");
    let nobody = format!("{METRICS}/namespaces/default/pods/nobody");
    let pods = format!("{METRICS}/pods");
    for (method, path, wanted) in [
        ("GET", nobody.as_str(), 404),
        ("GET", &format!("{METRICS}/nodes/nobody"), 404),
        ("GET", &format!("{of_a}/log"), 404),
        ("GET", &format!("{METRICS}/services"), 404),
        ("GET", &format!("{pods}?watch=true"), 405),
        ("GET", &format!("{pods}?labelSelector=a%3D%3D%3Db"), 400),
        ("GET", &format!("{pods}?fieldSelector=spec.x%3Db"), 400),
        ("DELETE", &of_a, 405),
        ("DELETE", &pods, 405),
        ("POST", &format!("{METRICS}/namespaces/default/pods"), 405),
        ("PUT", &of_a, 405),
        ("PATCH", &of_a, 405),
    ] {
        let (code, status) = ask(&running, method, path, JSON, "{}").await;
        assert_eq!(code, wanted, "{method} {path}: {status}");
        assert_eq!(status["kind"], "Status");
    }
    let (_, status) = ask(&running, "GET", &nobody, JSON, "").await;
    assert_eq!(
        status["message"],
        "pods.metrics.k8s.io \"nobody\" not found"
    );
    // The pod is still there.
    let (code, _) = ask(
        &running,
        "GET",
        "/api/v1/namespaces/default/pods/a",
        JSON,
        "",
    )
    .await;
    assert_eq!(code, 200);
}
