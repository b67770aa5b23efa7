//! Pods on the fake runtime and paused time, through the kubelet.

mod endings;
mod faults;
mod limits;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::image::RunSpec;
use crate::pod::fake::{FakeProber, FakeRuntime, Run};
use crate::pod::kubelet::{Command, Kubelet};

struct Rig {
    store: Store,
    runtime: Arc<FakeRuntime>,
    prober: Arc<FakeProber>,
    routed: Routed,
    faults: Faults,
    images: ImageTable,
    command_tx: mpsc::Sender<Command>,
    stop: CancellationToken,
    dir: tempfile::TempDir,
}

fn rig() -> Rig {
    let store = Store::in_memory();
    let runtime = FakeRuntime::new();
    let prober = Arc::new(FakeProber::default());
    let dir = tempfile::tempdir().expect("a folder");
    let (routed, images, stop) = (Routed::new(), ImageTable::new(), CancellationToken::new());
    let faults = Faults::default();
    images.set(
        "web",
        RunSpec {
            argv: vec!["serve".into()],
            cwd: "/srv".into(),
            ..RunSpec::default()
        },
    );
    let shared = Shared {
        store: store.clone(),
        runtime: runtime.clone(),
        images: images.clone(),
        prober: prober.clone(),
        recorder: Recorder::new(store.clone()),
        faults: faults.clone(),
        logs: LogStore::new(dir.path().join("logs"), store.clone()).expect("made"),
        pids: Pids::default(),
        metrics: Metrics::default(),
        ips: IpPool::default(),
        routed: routed.clone(),
        pods_dir: dir.path().join("pods"),
        host_paths: vec![],
        around: Surroundings::of_this_machine((0, 0), vec![]),
    };
    let (command_tx, command_rx) = mpsc::channel(1);
    let kubelet = Kubelet::new(Arc::new(shared), command_rx);
    tokio::spawn(kubelet.run(stop.clone()));
    Rig {
        store,
        runtime,
        prober,
        routed,
        faults,
        images,
        command_tx,
        stop,
        dir,
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    fn pod(&self, name: &str, extra: Value) {
        let mut spec = json!({"containers": [{"name": "c", "image": "web"}], "restartPolicy": "Always", "terminationGracePeriodSeconds": 30});
        let mut metadata = json!({"name": name, "namespace": "default"});
        for (key, value) in extra.as_object().into_iter().flatten() {
            if key == "metadata" {
                for (k, v) in value.as_object().into_iter().flatten() {
                    metadata[k] = v.clone();
                }
            } else {
                spec[key] = value.clone();
            }
        }
        self.store
            .create(&kinds::POD, json!({"metadata": metadata, "spec": spec}))
            .expect("created");
    }

    async fn until(&self, name: &str, what: &str, is: impl Fn(Option<&Value>) -> bool) {
        let mut watch = self.store.watch(&[&kinds::POD], None).expect("watched");
        let wait = async {
            loop {
                let object = self.store.get(&kinds::POD, "default", name);
                if is(object.as_ref().map(|o| o.value())) {
                    return;
                }
                watch.next().await.expect("open");
            }
        };
        if tokio::time::timeout(Duration::from_secs(7200), wait)
            .await
            .is_err()
        {
            let object = self
                .store
                .get(&kinds::POD, "default", name)
                .map(|o| o.value().to_string());
            panic!(
                "{name} never was {what}: {object:?} {:?}",
                self.runtime.log()
            );
        }
    }

    async fn until_ready(&self, name: &str) {
        self.until(name, "ready", |p| {
            p.is_some_and(|p| p["status"]["conditions"][2]["status"] == "True")
        })
        .await;
    }

    async fn until_waiting(&self, name: &str, reason: &str) {
        self.until(name, reason, |p| {
            p.is_some_and(|p| waiting(p)["reason"] == reason)
        })
        .await;
    }

    async fn until_gone(&self, name: &str) {
        self.until(name, "gone", |p| p.is_none()).await;
    }

    fn events(&self, reason: &str) -> Vec<(String, i64)> {
        let (events, _) = self.store.list(&kinds::EVENT, None);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|e| e.value())
            .filter(|e| e["reason"] == reason)
            .map(|e| (text(&e["message"]), e["count"].as_i64().unwrap_or(0)))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.runtime
            .log()
            .into_iter()
            .map(|(_, what)| what)
            .collect()
    }
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

#[tokio::test(start_paused = true)]
async fn a_pod_starts_gets_an_address_and_is_ready() {
    let rig = rig();
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    let value = pod.value();
    assert_eq!(
        (
            value["status"]["phase"].as_str(),
            value["status"]["podIP"].as_str()
        ),
        (Some("Running"), Some("10.244.0.2"))
    );
    assert_eq!(value["spec"]["nodeName"], "devenv");
    assert_eq!(rig.names(), ["create p", "start c"]);
    let version = pod.resource_version();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let later = rig.store.get(&kinds::POD, "default", "p").expect("there");
    assert_eq!(
        later.resource_version(),
        version,
        "a pod at rest writes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_as_kubernetes_does() {
    let rig = rig();
    rig.runtime
        .script("c", vec![Run::ends(Duration::from_secs(1), 3)]);
    rig.pod("p", json!({}));
    tokio::time::sleep(Duration::from_secs(420)).await;
    // It ends 1 s after each start; then 0, 10, 20, 40, 80 and 160 s pass.
    assert_eq!(rig.runtime.seconds("start c"), [0, 1, 12, 33, 74, 155, 316]);
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    let status = &pod.value()["status"];
    assert_eq!(waiting(pod.value())["reason"], "CrashLoopBackOff");
    assert!(waiting(pod.value())["message"].as_str().is_some_and(|m| {
        m.starts_with("back-off 300s restarting failed container=c pod=p_default(")
    }));
    assert_eq!(
        status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        3
    );
    assert_eq!(status["containerStatuses"][0]["restartCount"], 7);
    assert_eq!(
        (
            status["phase"].as_str(),
            status["conditions"][2]["status"].as_str()
        ),
        (Some("Running"), Some("False"))
    );
    assert_eq!(
        rig.events("BackOff")[0].1,
        6,
        "the same words are one Event"
    );
}

#[tokio::test(start_paused = true)]
async fn an_annotation_makes_restarts_quick() {
    let rig = rig();
    rig.runtime
        .script("c", vec![Run::ends(Duration::from_millis(900), 1)]);
    rig.pod(
        "p",
        json!({"metadata": {"annotations": {"devenv.dev/restart-backoff": "100ms"}}}),
    );
    tokio::time::sleep(Duration::from_millis(20_500)).await;
    assert_eq!(rig.runtime.seconds("start c").len(), 21);
}

#[tokio::test(start_paused = true)]
async fn restart_policies() {
    let rig = rig();
    rig.runtime
        .script("c", vec![Run::ends(Duration::from_secs(1), 0)]);
    rig.pod("done", json!({"restartPolicy": "OnFailure"}));
    rig.until("done", "Succeeded", |p| {
        p.is_some_and(|p| p["status"]["phase"] == "Succeeded")
    })
    .await;
    rig.runtime
        .script("c", vec![Run::ends(Duration::from_secs(1), 1)]);
    rig.pod("failed", json!({"restartPolicy": "Never"}));
    rig.until("failed", "Failed", |p| {
        p.is_some_and(|p| p["status"]["phase"] == "Failed")
    })
    .await;
    assert_eq!(rig.runtime.seconds("start c").len(), 2);
    // An ended pod is still removed when asked.
    rig.store
        .mark_deleted(&kinds::POD, "default", "failed", 30)
        .expect("marked");
    rig.until_gone("failed").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_said_and_waited_for() {
    let rig = rig();
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    rig.pod(
        "p",
        json!({"containers": [{"name": "c", "image": "other:v1", "env": env}]}),
    );
    rig.until_waiting("p", "ErrImageNeverPull").await;
    rig.images.set(
        "other:v1",
        RunSpec {
            argv: vec!["x".into()],
            cwd: "/srv".into(),
            ..RunSpec::default()
        },
    );
    rig.until_waiting("p", "CreateContainerConfigError").await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    assert_eq!(
        waiting(pod.value())["message"],
        r#"configmap "cm" not found in namespace "default""#
    );
    assert_eq!(rig.runtime.seconds("start c"), [0u64; 0]);
    let map = json!({"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v"}});
    rig.store.create(&kinds::CONFIG_MAP, map).expect("created");
    rig.until_ready("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_start_loops_too() {
    let rig = rig();
    rig.runtime.script(
        "c",
        vec![
            Run {
                fails: true,
                ..Run::good()
            },
            Run {
                fails: true,
                ..Run::good()
            },
            Run::good(),
        ],
    );
    rig.pod("p", json!({}));
    rig.until_waiting("p", "CrashLoopBackOff").await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    let last = &pod.value()["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (
            last["reason"].as_str(),
            last["exitCode"].as_i64(),
            last["message"].as_str()
        ),
        (Some("StartError"), Some(128), Some("cannot execute it"))
    );
    rig.until_ready("p").await;
    assert_eq!(rig.runtime.seconds("start c"), [10]);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_made_is_tried_again() {
    let rig = rig();
    rig.runtime.refuse(3);
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    assert_eq!(
        rig.names(),
        ["refused", "refused", "refused", "create p", "start c"]
    );
    assert_eq!(rig.events("FailedCreatePodSandBox").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_comes_back_with_the_same_address() {
    let rig = rig();
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    rig.runtime.lose_sandboxes();
    rig.until("p", "restarted", |p| {
        p.is_some_and(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
    })
    .await;
    rig.until_ready("p").await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    assert_eq!(pod.value()["status"]["podIP"], "10.244.0.2");
    assert_eq!(
        pod.value()["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        137
    );
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_to_their_end() {
    let rig = rig();
    rig.runtime.script(
        "first",
        vec![
            Run::ends(Duration::from_secs(2), 1),
            Run::ends(Duration::from_secs(2), 0),
        ],
    );
    rig.runtime
        .script("second", vec![Run::ends(Duration::from_secs(3), 0)]);
    rig.pod(
        "p",
        json!({"initContainers": [
        {"name": "first", "image": "web"}, {"name": "second", "image": "web"},
        {"name": "side", "image": "web", "restartPolicy": "Always"}]}),
    );
    rig.until_ready("p").await;
    let order: Vec<String> = rig
        .names()
        .into_iter()
        .filter(|n| n.starts_with("start"))
        .collect();
    assert_eq!(
        order,
        [
            "start first",
            "start first",
            "start second",
            "start side",
            "start c"
        ]
    );
    assert_eq!(rig.runtime.seconds("start c"), [7]);
}

#[tokio::test(start_paused = true)]
async fn the_end_routes_away_then_asks_then_kills() {
    let rig = rig();
    rig.runtime.script(
        "c",
        vec![Run {
            stops_after: None,
            ..Run::good()
        }],
    );
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    let ip = Ipv4Addr::new(10, 244, 0, 2);
    rig.routed.publish("ingress", HashSet::from([ip]));
    let begin = u64::try_from(rig.runtime.log().len()).expect("small");
    rig.store
        .mark_deleted(&kinds::POD, "default", "p", 5)
        .expect("marked");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        u64::try_from(rig.runtime.log().len()).expect("small"),
        begin,
        "it still gets traffic: no signal yet"
    );
    rig.routed.publish("ingress", HashSet::new());
    rig.until_gone("p").await;
    let tail: Vec<(u128, String)> = rig
        .runtime
        .log()
        .into_iter()
        .skip(2)
        .map(|(ms, w)| (ms / 1000, w))
        .collect();
    assert_eq!(
        tail,
        [(1, "signal 15 c".to_owned()), (6, "kill".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_answered_first() {
    let rig = rig();
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    rig.runtime.inbound(3);
    rig.store
        .mark_deleted(&kinds::POD, "default", "p", 30)
        .expect("marked");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(rig.runtime.seconds("signal 15 c"), [0u64; 0]);
    rig.runtime.inbound(0);
    rig.until_gone("p").await;
    assert_eq!(rig.runtime.seconds("signal 15 c"), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_hangs_delays_the_end_by_two_seconds_at_most() {
    let rig = rig();
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    rig.routed
        .publish("ingress", HashSet::from([Ipv4Addr::new(10, 244, 0, 2)]));
    rig.store
        .mark_deleted(&kinds::POD, "default", "p", 30)
        .expect("marked");
    rig.until_gone("p").await;
    assert_eq!(rig.runtime.seconds("signal 15 c"), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_and_none_at_all() {
    let rig = rig();
    rig.runtime.script(
        "c",
        vec![Run {
            stops_after: None,
            ..Run::good()
        }],
    );
    rig.pod("p", json!({}));
    rig.until_ready("p").await;
    rig.store
        .mark_deleted(&kinds::POD, "default", "p", 600)
        .expect("marked");
    tokio::time::sleep(Duration::from_secs(10)).await;
    rig.store
        .mark_deleted(&kinds::POD, "default", "p", 1)
        .expect("marked");
    rig.until_gone("p").await;
    assert_eq!(rig.runtime.seconds("kill"), [11]);
    rig.pod("q", json!({}));
    rig.until_ready("q").await;
    rig.store
        .delete(&kinds::POD, "default", "q")
        .expect("removed");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.runtime.seconds("kill"), [11, 11]);
    let left = std::fs::read_dir(rig.dir.path().join("logs"))
        .expect("there")
        .count();
    assert_eq!(left, 0, "the logs of both are gone");
}

#[tokio::test(start_paused = true)]
async fn liveness_restarts_and_readiness_only_takes_traffic_away() {
    let rig = rig();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 2});
    rig.pod(
        "live",
        json!({"containers": [{"name": "c", "image": "web", "livenessProbe": probe}]}),
    );
    rig.pod(
        "ready",
        json!({"containers": [{"name": "r", "image": "web", "readinessProbe": probe}]}),
    );
    rig.until_ready("live").await;
    rig.until_ready("ready").await;
    rig.prober.bad.store(true, Ordering::Relaxed);
    rig.until("ready", "unready", |p| {
        p.is_some_and(|p| p["status"]["conditions"][2]["status"] == "False")
    })
    .await;
    rig.until("live", "restarted", |p| {
        p.is_some_and(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
    })
    .await;
    rig.prober.bad.store(false, Ordering::Relaxed);
    rig.until_ready("ready").await;
    assert_eq!(
        rig.events("Killing"),
        [(
            "Container c failed liveness probe, will be restarted".to_owned(),
            1
        )]
    );
    assert_eq!(rig.runtime.seconds("start r").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn databases_stop_last_and_objects_stay() {
    let rig = rig();
    rig.runtime.script(
        "c",
        vec![Run {
            stops_after: Some(Duration::from_secs(3)),
            ..Run::good()
        }],
    );
    rig.pod("web", json!({}));
    rig.pod("db", json!({"containers": [{"name": "d", "image": "web"}], "metadata": {"labels": {"devenv.dev/role": "database"}}}));
    rig.until_ready("web").await;
    rig.until_ready("db").await;
    let (done_tx, done_rx) = tokio::sync::oneshot::channel();
    rig.command_tx
        .send(Command::Stop {
            grace: Duration::from_secs(10),
            done_tx,
        })
        .await
        .expect("listens");
    done_rx.await.expect("done");
    assert_eq!(
        (
            rig.runtime.seconds("signal 15 c"),
            rig.runtime.seconds("signal 15 d")
        ),
        (vec![0], vec![3])
    );
    assert_eq!(rig.store.list(&kinds::POD, None).0.len(), 2);
    rig.pod("late", json!({}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !rig.names().contains(&"create late".to_owned()),
        "nothing new is taken on"
    );
}

#[rstest::rstest]
#[case::the_pods_own_is_shorter(3, 10, 3)]
#[case::there_is_less_time_than_it_asks_for(30, 10, 10)]
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_deaf_pod_no_longer_than_its_grace(
    #[case] own: u64,
    #[case] limit: u64,
    #[case] waited: u64,
) {
    let rig = rig();
    rig.runtime.script(
        "c",
        vec![Run {
            stops_after: None,
            ..Run::good()
        }],
    );
    rig.pod("p", json!({"terminationGracePeriodSeconds": own}));
    rig.until_ready("p").await;
    let (done_tx, done_rx) = tokio::sync::oneshot::channel();
    let (begin, grace) = (Instant::now(), Duration::from_secs(limit));
    let stop = Command::Stop { grace, done_tx };
    rig.command_tx.send(stop).await.expect("listens");
    done_rx.await.expect("done");
    assert_eq!(begin.elapsed().as_secs(), waited);
}
