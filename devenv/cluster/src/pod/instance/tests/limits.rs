//! Limits: what a memory kill looks like, and what is said where there are none.

use serde_json::json;

use super::*;

fn limited(memory: &str) -> Value {
    json!({"containers": [{
        "name": "c", "image": "web", "resources": {"limits": {"memory": memory}},
    }]})
}

/// As kubectl shows it: the last run, while the next is on its way.
#[tokio::test(start_paused = true)]
async fn a_memory_kill_is_told_as_one() {
    let rig = rig();
    let hungry = Run {
        out_of_memory: true,
        ends: Some((Duration::from_secs(1), 0)),
        killed: true,
        ..Run::good()
    };
    rig.runtime.script("c", vec![hungry, Run::good()]);
    rig.pod("p", limited("32Mi"));
    rig.until("p", "restarted", |p| {
        p.is_some_and(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
    })
    .await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    let last = &pod.value()["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["reason"], &last["exitCode"], &last["message"]),
        (
            &json!("OOMKilled"),
            &json!(137),
            &json!("it wanted more memory than resources.limits.memory, 32Mi")
        )
    );
}

/// A child of its was killed, and it went on to a good end.
#[tokio::test(start_paused = true)]
async fn a_good_end_stays_one() {
    let rig = rig();
    let survivor = Run {
        out_of_memory: true,
        ..Run::ends(Duration::from_secs(1), 0)
    };
    rig.runtime.script("c", vec![survivor]);
    let mut spec = limited("32Mi");
    spec["restartPolicy"] = json!("Never");
    rig.pod("p", spec);
    rig.until("p", "done", |p| {
        p.is_some_and(|p| p["status"]["phase"] == "Succeeded")
    })
    .await;
    let pod = rig.store.get(&kinds::POD, "default", "p").expect("there");
    let state = &pod.value()["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "Completed");
}

#[tokio::test(start_paused = true)]
async fn what_the_machine_cannot_do_is_said_of_the_node_once() {
    let rig = rig();
    node::ensure(&rig.store).expect("made");
    rig.runtime.no_limits("no groups here");
    rig.runtime.warn("no overlays here");
    // Without limits nothing is missed.
    rig.pod("free", json!({}));
    rig.until_ready("free").await;
    assert_eq!(rig.events("LimitsNotEnforced"), []);
    for name in ["p", "q"] {
        rig.pod(name, limited("1Gi"));
        rig.until_ready(name).await;
    }
    assert_eq!(
        rig.events("LimitsNotEnforced"),
        [("no groups here".to_owned(), 2)]
    );
    assert_eq!(
        rig.events("ContainerLimited"),
        [("no overlays here".to_owned(), 3)]
    );
    let events = rig.store.list(&kinds::EVENT, None).0;
    let of_node = |reason: &str| {
        events
            .iter()
            .filter(|e| e.value()["reason"] == reason)
            .all(|e| e.value()["involvedObject"]["kind"] == "Node")
    };
    assert!(of_node("LimitsNotEnforced") && of_node("ContainerLimited"));
}
