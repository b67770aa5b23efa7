use rstest::rstest;
use serde_json::json;

use super::*;

fn service(store: &Store) {
    let service = json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    store.create(&kinds::SERVICE, service).expect("created");
}

fn workload_of(app: &str, change: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": app, "namespace": "default", "generation": 2},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app, "tier": "x"}}}},
        "status": {"observedGeneration": 2},
    });
    merge(&mut object, &change);
    object
}

fn merge(object: &mut Value, change: &Value) {
    match change.as_object() {
        Some(fields) => fields
            .iter()
            .for_each(|(key, value)| merge(&mut object[key], value)),
        None => *object = change.clone(),
    }
}

fn slice() -> Value {
    let endpoint = |pod: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}});
    json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {SERVICE_LABEL: "web"}},
        "addressType": "IPv4", "endpoints": [endpoint("serving", true), endpoint("behind", false)]})
}

/// A pod as the kubelet tells of it: when its container started, if it runs, and since when it
/// is ready or not.
fn pod_of(app: &str, state: Value, ready: &str, since: u32) -> Value {
    json!({
        "metadata": {"generateName": "p-", "namespace": "default", "labels": {"app": app},
            "ownerReferences": [{"controller": true, "kind": "ReplicaSet", "name": "r", "uid": "u"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(since)}],
            "containerStatuses": [{"name": "c", "state": state}],
        },
    })
}

/// A ready pod that is among the endpoints, see [`slice`].
fn serving() -> Value {
    ready("serving")
}

fn ready(name: &str) -> Value {
    let mut pod = pod_of("web", running(1), "True", 2);
    pod["metadata"]["name"] = json!(name);
    pod
}

fn at(second: u32) -> String {
    format!("2026-01-01T00:00:{second:02}Z")
}

fn running(second: u32) -> Value {
    json!({"running": {"startedAt": at(second)}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason}})
}

fn coming(objects: Vec<(KindRef, Value)>) -> bool {
    let store = Store::in_memory();
    service(&store);
    store
        .create(&kinds::ENDPOINT_SLICE, slice())
        .expect("created");
    for (kind, object) in objects {
        store.create(kind, object).expect("created");
    }
    let all = services(&store);
    let one = is_coming(&store, "default", "web");
    assert_eq!(!all.is_empty(), one);
    one
}

#[rstest]
#[case::nothing_there(None, vec![], false)]
#[case::about_to_be_made(Some(json!({})), vec![], true)]
#[case::another_app(Some(json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}})), vec![], false)]
#[case::scaled_to_zero(Some(json!({"spec": {"replicas": 0}})), vec![], false)]
#[case::paused_before_it_makes_any(Some(json!({"spec": {"paused": true}})), vec![], false)]
#[case::paused_with_one_starting(Some(json!({"spec": {"paused": true}})), vec![pod_of("web", waiting("ContainerCreating"), "False", 1)], true)]
#[case::ready(Some(json!({})), vec![serving()], false)]
#[case::one_of_two(Some(json!({"spec": {"replicas": 2}})), vec![serving()], true)]
#[case::ready_but_its_endpoint_not_yet(Some(json!({})), vec![ready("behind")], true)]
#[case::ready_but_not_among_the_endpoints_yet(Some(json!({})), vec![pod_of("web", running(1), "True", 2)], true)]
#[case::no_status_yet(Some(json!({})), vec![json!({"metadata": {"generateName": "p-", "namespace": "default", "labels": {"app": "web"}}})], true)]
#[case::image_is_being_built(Some(json!({})), vec![pod_of("web", waiting("ErrImageNeverPull"), "False", 1)], true)]
#[case::probe_not_passed_yet(Some(json!({})), vec![pod_of("web", running(5), "False", 1)], true)]
#[case::restarted_in_the_same_second(Some(json!({})), vec![pod_of("web", running(5), "False", 5)], true)]
#[case::restarted_and_told_in_the_next(Some(json!({})), vec![pod_of("web", running(5), "False", 6)], true)]
#[case::says_that_it_is_not_ready(Some(json!({})), vec![pod_of("web", running(5), "False", 7)], false)]
#[case::crash_loop(Some(json!({})), vec![pod_of("web", waiting("CrashLoopBackOff"), "False", 1)], false)]
#[case::crash_loop_beside_a_new_one(Some(json!({})),
    vec![pod_of("web", waiting("CrashLoopBackOff"), "False", 1), pod_of("web", running(5), "False", 1)], true)]
#[case::ended_pods_do_not_count(Some(json!({})),
    vec![{ let mut pod = serving(); pod["status"]["phase"] = json!("Failed"); pod }], true)]
fn a_deployment(#[case] change: Option<Value>, #[case] pods: Vec<Value>, #[case] expected: bool) {
    let deployment =
        change.map(|change| (&kinds::DEPLOYMENT as KindRef, workload_of("web", change)));
    let pods = pods.into_iter().map(|pod| (&kinds::POD as KindRef, pod));
    assert_eq!(
        coming(deployment.into_iter().chain(pods).collect()),
        expected
    );
}

#[rstest]
#[case::late(1, false)]
#[case::late_but_changed_since(0, true)]
fn a_deployment_that_missed_its_deadline(#[case] observed: i64, #[case] expected: bool) {
    let late = json!({"status": {"observedGeneration": observed,
        "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}});
    let pod = pod_of("web", running(5), "False", 1);
    let objects: Vec<(KindRef, Value)> = vec![
        (&kinds::DEPLOYMENT, workload_of("web", late)),
        (&kinds::POD, pod),
    ];
    assert_eq!(coming(objects), expected);
}

/// While a Recreate waits for the old pods to end, and when the workload itself goes.
#[rstest]
#[case::its_pods(true, false, true)]
#[case::the_deployment_too(true, true, false)]
fn what_ends_does_not_come(
    #[case] pod_ends: bool,
    #[case] deployment_ends: bool,
    #[case] expected: bool,
) {
    let store = Store::in_memory();
    service(&store);
    let ending = |kind, object: Value, ends: bool| {
        let object = store.create(kind, object).expect("created");
        if ends {
            store
                .mark_deleted(kind, "default", object.name(), 30)
                .expect("marked");
        }
    };
    let finalizer = json!({"metadata": {"finalizers": ["a/b"]}});
    ending(&kinds::POD, pod_of("web", running(1), "True", 2), pod_ends);
    ending(
        &kinds::DEPLOYMENT,
        workload_of("web", finalizer),
        deployment_ends,
    );
    assert_eq!(is_coming(&store, "default", "web"), expected);
}

#[test]
fn pods_and_replica_sets_without_an_owner() {
    let mut pod = pod_of("web", waiting("ContainerCreating"), "False", 1);
    assert!(
        !coming(vec![(&kinds::POD, pod.clone())]),
        "its owner is gone: it will be too"
    );
    pod["metadata"]["ownerReferences"] = json!([]);
    assert!(coming(vec![(&kinds::POD, pod)]));
    assert!(coming(vec![(
        &kinds::REPLICA_SET,
        workload_of("web", json!({}))
    )]));
    assert!(!coming(vec![(
        &kinds::REPLICA_SET,
        workload_of("web", json!({"spec": {"replicas": 0}}))
    )]));
}

#[test]
fn a_service_without_a_selector_waits_for_nobody() {
    let store = Store::in_memory();
    let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    store.create(&kinds::SERVICE, service).expect("created");
    store
        .create(&kinds::DEPLOYMENT, workload_of("web", json!({})))
        .expect("created");
    assert_eq!(services(&store), []);
}

/// While a pod becomes an endpoint, every look finds it on the way or arrived.
#[test]
fn an_endpoint_that_comes_is_never_missed() {
    for _ in 0..300 {
        let store = Store::in_memory();
        service(&store);
        let deployment = workload_of("web", json!({}));
        store
            .create(&kinds::DEPLOYMENT, deployment)
            .expect("created");
        let mut pod = pod_of("web", running(5), "False", 1);
        pod["metadata"]["name"] = json!("serving");
        store.create(&kinds::POD, pod).expect("created");
        let mut empty = slice();
        empty["endpoints"] = json!([]);
        store
            .create(&kinds::ENDPOINT_SLICE, empty)
            .expect("created");
        let arrival = std::thread::spawn({
            let store = store.clone();
            move || {
                let status = serving()["status"].clone();
                let ready = store.update_status(&kinds::POD, "default", "serving", status);
                ready.expect("updated");
                let filled = slice()["endpoints"].clone();
                let arrived = store.update(&kinds::ENDPOINT_SLICE, "default", "web-1", |slice| {
                    slice["endpoints"] = filled.clone();
                    Ok(())
                });
                arrived.expect("updated");
            }
        });
        loop {
            let (slices, coming) = with_slices(&store, "default", "web");
            let here = slices.iter().any(|slice| !slice.endpoints.is_empty());
            assert!(here || coming);
            if here {
                break;
            }
        }
        arrival.join().expect("it does not panic");
    }
}
