//! The order in which containers end, and what they do before.

use rstest::rstest;
use serde_json::json;

use super::*;

fn deaf() -> Run {
    Run {
        stops_after: None,
        ..Run::good()
    }
}

fn slow(seconds: u64) -> Run {
    Run {
        stops_after: Some(Duration::from_secs(seconds)),
        ..Run::good()
    }
}

fn with_sidecars() -> Value {
    let sidecar = |name| json!({"name": name, "image": "web", "restartPolicy": "Always"});
    json!({"initContainers": [sidecar("first"), sidecar("second")]})
}

fn with_hook(hook: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "web", "lifecycle": {"preStop": hook}}]})
}

impl Rig {
    /// Deletes the pod and lists what is done to it, with seconds from then on.
    async fn end(&self, name: &str, grace: u64) -> Vec<(u128, String)> {
        self.until_ready(name).await;
        let begin = self.runtime.log().len();
        let start = tokio::time::Instant::now();
        let before = self.runtime.begin();
        let grace = i64::try_from(grace).expect("small");
        self.store
            .mark_deleted(&kinds::POD, "default", name, grace)
            .expect("marked");
        self.until_gone(name).await;
        let offset = (start - before).as_millis();
        let log = self.runtime.log().into_iter().skip(begin);
        log.map(|(ms, what)| ((ms - offset) / 1000, what)).collect()
    }
}

fn said(lines: &[(u128, &str)]) -> Vec<(u128, String)> {
    lines.iter().map(|(s, w)| (*s, (*w).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn sidecars_end_after_those_that_need_them() {
    let rig = rig();
    rig.runtime.script("c", vec![slow(3)]);
    rig.runtime.script("second", vec![slow(2)]);
    rig.pod("p", with_sidecars());
    let expected = [
        (0, "signal 15 c"),
        (3, "end c"),
        (3, "signal 15 second"),
        (5, "end second"),
        (5, "signal 15 first"),
        (5, "end first"),
        (5, "kill"),
    ];
    assert_eq!(rig.end("p", 30).await, said(&expected));
}

/// They get their SIGTERM all the same, and two seconds.
#[tokio::test(start_paused = true)]
async fn a_deaf_container_does_not_cost_the_sidecars_their_end() {
    let rig = rig();
    rig.runtime.script("c", vec![deaf()]);
    rig.runtime.script("first", vec![slow(1)]);
    rig.runtime.script("second", vec![deaf()]);
    rig.pod("p", with_sidecars());
    let mut sorted = rig.end("p", 5).await;
    let expected = [
        (0, "signal 15 c"),
        (5, "signal 15 first"),
        (5, "signal 15 second"),
        (5, "signal 9 c"),
        (5, "end c"),
        (6, "end first"),
        (7, "kill"),
    ];
    sorted.sort();
    let mut wanted = said(&expected);
    wanted.sort();
    assert_eq!(sorted, wanted);
}

#[rstest]
#[case::within_its_time(json!({"sleep": {"seconds": 4}}), 0, 30, &[(4, "signal 15 c"), (4, "end c"), (4, "kill")], 0)]
#[case::a_command(json!({"exec": {"command": ["drain"]}}), 3, 30, &[(3, "signal 15 c"), (3, "end c"), (3, "kill")], 0)]
#[case::longer_than_the_grace_period(json!({"exec": {"command": ["drain"]}}), 60, 5, &[(5, "signal 15 c"), (5, "end c"), (5, "kill")], 1)]
#[tokio::test(start_paused = true)]
async fn hooks_come_before_sigterm(
    #[case] hook: Value,
    #[case] takes: u64,
    #[case] grace: u64,
    #[case] expected: &[(u128, &str)],
    #[case] failures: usize,
) {
    let rig = rig();
    *rig.prober.takes.lock().expect("not poisoned") = Duration::from_secs(takes);
    rig.pod("p", with_hook(hook));
    assert_eq!(rig.end("p", grace).await, said(expected));
    assert_eq!(rig.events("FailedPreStopHook").len(), failures);
    assert_eq!(
        rig.events("Killing"),
        [("Stopping container c".to_owned(), 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_said_and_the_end_goes_on() {
    let rig = rig();
    rig.pod("p", with_hook(json!({"httpGet": {"port": 80}})));
    rig.until_ready("p").await;
    rig.prober.bad.store(true, Ordering::Relaxed);
    let expected = [(0, "signal 15 c"), (0, "end c"), (0, "kill")];
    assert_eq!(rig.end("p", 30).await, said(&expected));
    let failed = [("PreStopHook failed: no".to_owned(), 1)];
    assert_eq!(rig.events("FailedPreStopHook"), failed);
}

/// A deaf one with a hook that takes all of the time has two seconds more, and no more.
#[tokio::test(start_paused = true)]
async fn time_after_a_hook_is_short() {
    let rig = rig();
    rig.runtime.script("c", vec![deaf()]);
    rig.pod("p", with_hook(json!({"sleep": {"seconds": 60}})));
    let expected = [(5, "signal 15 c"), (7, "kill")];
    assert_eq!(rig.end("p", 5).await, said(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_routers() {
    let rig = rig();
    rig.pod("p", with_hook(json!({"sleep": {"seconds": 20}})));
    rig.until_ready("p").await;
    let (done_tx, done_rx) = tokio::sync::oneshot::channel();
    let grace = Duration::from_secs(30);
    rig.command_tx
        .send(Command::Stop { grace, done_tx })
        .await
        .expect("open");
    done_rx.await.expect("stopped");
    assert_eq!(rig.runtime.seconds("signal 15 c"), [0]);
}

/// A Job is done when its work is, whatever its sidecars say about their end.
#[tokio::test(start_paused = true)]
async fn the_sidecars_of_finished_work_end_in_order() {
    let rig = rig();
    rig.runtime
        .script("c", vec![Run::ends(Duration::from_secs(2), 0)]);
    rig.runtime.script("second", vec![slow(1)]);
    rig.runtime.script("first", vec![deaf()]);
    let mut spec = with_sidecars();
    spec["restartPolicy"] = json!("Never");
    spec["terminationGracePeriodSeconds"] = json!(5);
    rig.pod("p", spec);
    rig.until("p", "done", |p| {
        p.is_some_and(|p| {
            p["status"]["phase"] == "Succeeded"
                && p["status"]["initContainerStatuses"][0]["state"]["terminated"] != Value::Null
        })
    })
    .await;
    assert_eq!(rig.runtime.seconds("signal 15 second"), [2]);
    assert_eq!(rig.runtime.seconds("signal 15 first"), [3]);
    assert_eq!(rig.runtime.seconds("signal 9 first"), [7]);
    assert_eq!(rig.runtime.seconds("start second").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_runs_the_hook_too() {
    let rig = rig();
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1});
    let mut spec = with_hook(json!({"sleep": {"seconds": 3}}));
    spec["containers"][0]["livenessProbe"] = probe.clone();
    let mut sidecar = with_sidecars()["initContainers"][0].clone();
    sidecar["livenessProbe"] = probe;
    spec["initContainers"] = json!([sidecar]);
    rig.pod("p", spec);
    rig.until_ready("p").await;
    rig.prober.bad.store(true, Ordering::Relaxed);
    let restarted = |list: &'static str| {
        move |p: Option<&Value>| {
            p.is_some_and(|p| p["status"][list][0]["restartCount"].as_i64() >= Some(1))
        }
    };
    // A sidecar waits for nobody when it is only restarted.
    rig.until("p", "restarted beside", restarted("initContainerStatuses"))
        .await;
    let asked = rig.runtime.seconds("signal 15 first")[0];
    rig.until("p", "restarted", restarted("containerStatuses"))
        .await;
    assert_eq!(rig.runtime.seconds("signal 15 c")[0], asked + 3);
}
