//! The controller against an API: that of the local cluster, without the cluster's own controllers.

mod rig;

use std::collections::BTreeMap;

use devenv_ingress_controller::{ManifestOptions, manifest};
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use rig::{Endpoint, Rig, Serves, get, in_time, ingress, service};
use rstest::rstest;
use serde_json::json;
use tokio::net::TcpStream;

const CANARY: &str = "nginx.ingress.kubernetes.io/canary";
const WEIGHT: &str = "nginx.ingress.kubernetes.io/canary-weight";

/// Two Services, half of the requests each.
async fn pair(serves: Serves) -> (Rig, Endpoint, Endpoint) {
    let (rig, one, two) = (
        Rig::new(serves).await,
        Endpoint::new("one").await,
        Endpoint::new("two").await,
    );
    for (name, endpoint) in [("one", &one), ("two", &two)] {
        rig.apply(service(name)).await;
        rig.leads(name, endpoint.address).await;
    }
    rig.apply(ingress("main", "one", json!({}))).await;
    rig.apply(ingress(
        "canary",
        "two",
        json!({CANARY: "true", WEIGHT: "50"}),
    ))
    .await;
    (rig, one, two)
}

#[rstest]
#[case::of_today(Serves::V1)]
#[case::of_1_20(Serves::V1beta1)]
#[case::without_slices(Serves::Neither)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_goes_to_the_canary(#[case] serves: Serves) {
    let (rig, _one, _two) = pair(serves).await;
    let controller = rig.controller().await;
    controller.ready(200).await;
    let mut by_name = BTreeMap::new();
    for _ in 0..200 {
        let (status, name) = controller.get("/x").await;
        assert_eq!(status, 200);
        *by_name.entry(name).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([("one".to_owned(), 100), ("two".to_owned(), 100)]);
    assert_eq!(by_name, expected);
    // Endpoints change, and so does the table.
    let three = Endpoint::new("three").await;
    rig.leads("one", three.address).await;
    controller.answered_by("/x", "three").await;
}

fn has_address(ingress: Option<&Ingress>) -> bool {
    let value = serde_json::to_value(ingress).unwrap();
    value["status"]["loadBalancer"] == json!({"ingress": [{"ip": "192.0.2.7"}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_ingresses_get_the_address() {
    let (rig, _one, _two) = pair(Serves::V1).await;
    let mut foreign = ingress("foreign", "one", json!({}));
    foreign["spec"]["ingressClassName"] = json!("gce");
    rig.apply(foreign).await;
    let api: Api<Ingress> = Api::default_namespaced(rig.client());
    let theirs = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let params = PatchParams::default();
    api.patch_status("foreign", &params, &Patch::Merge(&theirs))
        .await
        .unwrap();
    let _controller = rig.controller().await;
    for name in ["main", "canary"] {
        in_time(name, await_condition(api.clone(), name, has_address))
            .await
            .unwrap();
    }
    let value = serde_json::to_value(api.get("foreign").await.unwrap()).unwrap();
    assert_eq!(value["status"], theirs["status"]);
    // Written once: a status that is right is left alone, whatever else changes.
    let version = async || api.get("main").await.unwrap().metadata.resource_version;
    let before = version().await;
    rig.apply(ingress("late", "one", json!({}))).await;
    in_time("late", await_condition(api.clone(), "late", has_address))
        .await
        .unwrap();
    assert_eq!(version().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_done_is_told_once() {
    let (rig, _one, _two) = pair(Serves::V1).await;
    let affinity = json!({"nginx.ingress.kubernetes.io/affinity": "cookie"});
    rig.apply(ingress("main", "one", affinity)).await;
    let controller = rig.controller().await;
    let api: Api<Event> = Api::default_namespaced(rig.client());
    let first_event = async || {
        let events = watcher(api.clone(), watcher::Config::default()).applied_objects();
        let mut events = std::pin::pin!(events);
        let event = in_time("an Event", events.try_next()).await.unwrap();
        event.unwrap()
    };
    let event = first_event().await;
    let uid = Api::<Ingress>::default_namespaced(rig.client())
        .get("main")
        .await
        .unwrap()
        .metadata
        .uid;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.reason.as_deref(), Some("Ingress"));
    assert_eq!(event.involved_object.kind.as_deref(), Some("Ingress"));
    assert_eq!(event.involved_object.name.as_deref(), Some("main"));
    assert_eq!(event.involved_object.uid, uid);
    let message = event.message.as_deref().unwrap();
    assert!(message.contains("affinity"), "{message}");
    controller.shutdown.cancel();
    in_time("the end", controller.task).await.unwrap().unwrap();

    // The next run finds that it was told.
    let long_ago = json!({"lastTimestamp": "2020-02-02T20:20:20Z"});
    let name = event.metadata.name.as_deref().unwrap();
    api.patch(name, &PatchParams::default(), &Patch::Merge(&long_ago))
        .await
        .unwrap();
    let controller = rig.controller().await;
    let is_renewed = |event: Option<&Event>| {
        let value = serde_json::to_value(event).unwrap();
        value["lastTimestamp"] != long_ago["lastTimestamp"]
    };
    in_time("told again", await_condition(api.clone(), name, is_renewed))
        .await
        .unwrap();
    assert_eq!(api.list(&Default::default()).await.unwrap().items.len(), 1);
    drop(controller);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_all_is_known_it_is_not_ready_and_requests_wait() {
    let (rig, _one, _two) = pair(Serves::V1).await;
    rig.slices_tx.send_replace(false);
    let controller = rig.controller().await;
    // It is accepted, so the routes are known.
    let address = controller.address;
    let held = tokio::spawn(async move { get(address, "/x").await });
    assert_eq!(get(address, "/x/../..").await.0, 400);
    assert_eq!(controller.probe("/healthz").await, 200);
    assert_eq!(controller.probe("/readyz").await, 503);
    assert!(!held.is_finished());
    rig.slices_tx.send_replace(true);
    assert_eq!(in_time("the held one", held).await.unwrap().0, 200);
    controller.ready(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_table_serves_while_the_api_is_away() {
    let (mut rig, one, _two) = pair(Serves::V1).await;
    let controller = rig.controller().await;
    controller.ready(200).await;
    rig.api_down().await;
    for _ in 0..10 {
        assert_eq!(controller.get("/x").await.0, 200);
    }
    assert_eq!(controller.probe("/readyz").await, 200);
    rig.api_up().await;
    rig.apply(ingress("main", "two", json!({}))).await;
    rig.apply(ingress(
        "canary",
        "one",
        json!({CANARY: "true", WEIGHT: "0"}),
    ))
    .await;
    let three = Endpoint::new("three").await;
    rig.leads("two", three.address).await;
    controller.answered_by("/x", "three").await;
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_loses_no_request() {
    let (rig, mut one, _two) = pair(Serves::V1).await;
    rig.apply(ingress(
        "canary",
        "two",
        json!({CANARY: "true", WEIGHT: "0"}),
    ))
    .await;
    let controller = rig.controller().await;
    controller.ready(200).await;
    let address = controller.address;
    let slow = tokio::spawn(async move { get(address, "/slow").await });
    in_time("a slow request", one.slow_rx.recv()).await.unwrap();
    controller.shutdown.cancel();
    controller.ready(503).await;
    assert_eq!(controller.probe("/healthz").await, 200);
    assert!(!slow.is_finished() && !controller.task.is_finished());
    one.let_tx.send_replace(true);
    let reply = in_time("the slow one", slow).await.unwrap();
    assert_eq!(reply, (200, "one".to_owned()));
    in_time("the end", controller.task).await.unwrap().unwrap();
    for address in [address, controller.health] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

/// As far as the local cluster has such objects: it knows no accounts and no roles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_can_be_applied_again_and_again() {
    let rig = Rig::new(Serves::V1).await;
    for _ in 0..2 {
        for object in manifest(&ManifestOptions::new("registry.example/devenv:1")) {
            let kind = object["kind"].as_str().unwrap();
            if ["Namespace", "IngressClass", "Deployment"].contains(&kind) {
                rig.apply(object).await;
            }
        }
    }
}
