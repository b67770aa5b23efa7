use rstest::rstest;

use super::*;
use crate::kinds::{
    self, DEPLOYMENT, ENDPOINT_SLICE, EVENT, INGRESS, KNATIVE_SERVICE, NODE, POD, SERVICE,
};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn row(kind: KindRef, mut object: Value) -> Vec<Value> {
    object["metadata"]["name"] = json!("x");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:54:57Z");
    cells(kind, &object, now())
}

#[rstest]
#[case(-2, "<invalid>")]
#[case(0, "0s")]
#[case(119, "119s")]
#[case(120, "2m")]
#[case(303, "5m3s")]
#[case(601, "10m")]
#[case(3 * 3600 + 60, "3h1m")]
#[case(8 * 3600 + 60, "8h")]
#[case(50 * 3600, "2d2h")]
#[case(9 * 86400, "9d")]
#[case(800 * 86400, "2y70d")]
#[case(9 * 365 * 86400, "9y")]
fn durations(#[case] seconds: i64, #[case] wanted: &str) {
    assert_eq!(text::human(seconds), wanted);
}

#[test]
fn every_row_has_as_many_cells_as_there_are_columns() {
    for kind in kinds::ALL.into_iter().chain(kinds::MEASURED) {
        let columns = definitions(kind).as_array().unwrap().len();
        assert_eq!(
            row(kind, json!({"metadata": {}})).len(),
            columns,
            "{kind:?}"
        );
    }
}

fn running(ready: bool) -> Value {
    json!({"ready": ready, "restartCount": 0, "state": {"running": {}}})
}

#[rstest]
#[case(json!({"phase": "Running", "containerStatuses": [running(true), running(true)]}), "2/2", "Running", "0")]
#[case(json!({"phase": "Running", "containerStatuses": [running(true), {"ready": false, "restartCount": 3,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:58:55Z"}}}]}),
    "1/2", "CrashLoopBackOff", "3 (65s ago)")]
#[case(json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}), "0/2", "Completed", "0")]
#[case(json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}), "0/2", "ExitCode:3", "0")]
#[case(json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}), "0/2", "Signal:9", "0")]
#[case(json!({"phase": "Pending"}), "0/2", "Pending", "0")]
#[case(json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted", "0")]
#[case(json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}), "0/2", "ContainerCreating", "0")]
#[case(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses":
    [{"state": {"terminated": {"reason": "Completed"}}}, running(true)]}), "1/2", "Running", "0")]
fn pods(#[case] status: Value, #[case] ready: &str, #[case] reason: &str, #[case] restarts: &str) {
    let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status});
    assert_eq!(
        row(&POD, pod)[1..5],
        [ready, reason, restarts, "5m3s"].map(|s| json!(s))
    );
}

#[test]
fn pods_that_begin_and_end() {
    let inits = json!([{"name": "i"}, {"name": "j"}]);
    let init = |state: Value| {
        let pod = json!({"spec": {"containers": [{}], "initContainers": inits}, "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": state}]}});
        row(&POD, pod)[2].clone()
    };
    assert_eq!(init(json!({"running": {}})), "Init:1/2");
    assert_eq!(
        init(json!({"waiting": {"reason": "ErrImagePull"}})),
        "Init:ErrImagePull"
    );
    assert_eq!(
        init(json!({"terminated": {"exitCode": 2}})),
        "Init:ExitCode:2"
    );
    let mut pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{}]},
        "status": {"phase": "Running", "containerStatuses": [running(true)], "podIP": "10.244.0.9"}});
    let cells = row(&POD, pod.clone());
    assert_eq!(cells[2], "Terminating");
    assert_eq!(
        cells[5..],
        ["10.244.0.9", "<none>", "<none>", "<none>"].map(|s| json!(s))
    );
    pod["status"]["phase"] = json!("Succeeded");
    assert_ne!(row(&POD, pod)[2], "Terminating");
}

#[test]
fn services_and_ingresses() {
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.77.127", "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}});
    assert_eq!(
        row(&SERVICE, service)[1..],
        [
            "ClusterIP",
            "10.96.77.127",
            "<none>",
            "80/TCP,53:30053/UDP",
            "5m3s",
            "app=web"
        ]
        .map(|s| json!(s))
    );
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    assert_eq!(
        row(&SERVICE, external)[1..5],
        ["ExternalName", "<none>", "example.com", "<none>"].map(|s| json!(s))
    );
    assert_eq!(
        row(&SERVICE, json!({"spec": {"type": "LoadBalancer"}}))[3],
        "<pending>"
    );
    let ingress = json!({"spec": {"ingressClassName": "nginx", "rules": [{"host": "a.b"}], "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}, {"hostname": "h"}]}}});
    assert_eq!(
        row(&INGRESS, ingress)[1..5],
        ["nginx", "a.b", "127.0.0.1,h", "80, 443"].map(|s| json!(s))
    );
    assert_eq!(
        row(&INGRESS, json!({"spec": {"rules": [{}]}}))[1..5],
        ["<none>", "*", "", "80"].map(|s| json!(s))
    );
    let endpoints: Vec<Value> = (1..6)
        .map(|i| json!({"addresses": [format!("10.244.0.{i}")]}))
        .collect();
    let slice = json!({"addressType": "IPv4", "ports": [{"port": 5000}], "endpoints": endpoints});
    assert_eq!(
        row(&ENDPOINT_SLICE, slice)[1..4],
        [
            "IPv4",
            "5000",
            "10.244.0.1,10.244.0.2,10.244.0.3 + 2 more..."
        ]
        .map(|s| json!(s))
    );
    assert_eq!(row(&ENDPOINT_SLICE, json!({}))[2], "<unset>");
}

#[test]
fn workloads_nodes_events() {
    let deployment = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
    assert_eq!(
        row(&DEPLOYMENT, deployment)[1..],
        [
            json!("2/3"),
            json!(3),
            json!(1),
            json!("5m3s"),
            json!("c,d"),
            json!("i:1,j"),
            json!("app=web")
        ]
    );
    let knative = json!({"status": {"url": "http://f", "latestCreatedRevisionName": "f-00002",
        "latestReadyRevisionName": "f-00001", "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Deploying"}]}});
    assert_eq!(
        row(&KNATIVE_SERVICE, knative)[1..],
        ["http://f", "f-00002", "f-00001", "Unknown", "Deploying"].map(|s| json!(s))
    );
    let node = json!({"spec": {"unschedulable": true}, "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"},
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    assert_eq!(
        row(&NODE, node)[1..7],
        [
            "Ready,SchedulingDisabled",
            "control-plane",
            "5m3s",
            "v1",
            "127.0.0.1",
            "<none>"
        ]
        .map(|s| json!(s))
    );
    let event = json!({"type": "Normal", "reason": "Pulled", "message": "hi\n", "count": 2,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "devenv"},
        "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:30Z"});
    assert_eq!(
        row(&EVENT, event),
        [
            json!("30s"),
            json!("Normal"),
            json!("Pulled"),
            json!("pod/p"),
            json!("spec.containers{c}"),
            json!("kubelet, devenv"),
            json!("hi"),
            json!("10m"),
            json!(2),
            json!("x")
        ]
    );
}

#[test]
fn metrics_are_summed_up() {
    let usage = |cpu: &str, memory: &str| json!({"usage": {"cpu": cpu, "memory": memory}});
    let pod = json!({"window": "250ms",
        "containers": [usage("1500001n", "2048Ki"), usage("0", "12Ki")]});
    assert_eq!(
        row(&kinds::POD_METRICS, pod),
        ["x", "2m", "2060Ki", "250ms"]
    );
    let mut node = usage("500000000n", "4096Ki");
    node["window"] = json!("1s");
    assert_eq!(
        row(&kinds::NODE_METRICS, node),
        ["x", "500m", "4096Ki", "1s"]
    );
}
