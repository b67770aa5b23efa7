//! A Deployment's status. Pure.
//!
//! Source: `pkg/controller/deployment/progress.go` and `util/deployment_util.go` of Kubernetes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Desired, Set, Strategy, current, is_complete};
use crate::time::{between, format};

/// Reasons of the condition Progressing that something is decided by.
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// What the status is computed from, beside the plan's inputs.
#[derive(Debug, Clone)]
pub struct Context {
    /// `metadata.generation`.
    pub generation: i64,
    /// The status as it is stored.
    pub previous: Value,
    /// `progressDeadlineSeconds`; `None` when there is no deadline.
    pub deadline: Option<Duration>,
    /// The time now.
    pub now: Timestamp,
}

/// The status, and when it must be computed again because of the progress deadline.
pub fn status(desired: &Desired, sets: &[Set], context: &Context) -> (Value, Option<Duration>) {
    let new = current(desired, sets);
    let sum = |f: fn(&Set) -> i32| sets.iter().map(f).sum::<i32>();
    let (replicas, ready, available) =
        (sum(|s| s.replicas), sum(|s| s.ready), sum(|s| s.available));
    let updated = new.map_or(0, |s| s.replicas);
    let mut status = json!({"observedGeneration": context.generation});
    for (field, count) in [
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        (
            "unavailableReplicas",
            (sum(|s| s.wanted) - available).max(0),
        ),
    ] {
        // Kubernetes leaves zeros out.
        if count > 0 {
            status[field] = json!(count);
        }
    }
    let down = match desired.strategy {
        Strategy::Rolling {
            max_unavailable, ..
        } => max_unavailable,
        Strategy::Recreate => 0,
    };
    let enough = available >= desired.replicas - down;
    let available_condition = if enough {
        wanted(
            "Available",
            true,
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        wanted(
            "Available",
            false,
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let mut conditions = vec![carry(
        &context.previous,
        available_condition,
        context.now,
        false,
    )];
    let (progressing, again) = progressing(desired, sets, new, &status, context);
    conditions.extend(progressing);
    status["conditions"] = Value::Array(conditions);
    (status, again)
}

/// The condition that `kubectl rollout status` and the progress deadline go by.
fn progressing(
    desired: &Desired,
    sets: &[Set],
    new: Option<&Set>,
    status: &Value,
    context: &Context,
) -> (Option<Value>, Option<Duration>) {
    let Some(deadline) = context.deadline else {
        return (None, None);
    };
    let was = &context.previous;
    let before = previous(was, "Progressing");
    let is = |reason: &str| before.is_some_and(|c| c["reason"] == reason);
    let tell = |is: &str, reason: &str, message: String, again: Option<Duration>| {
        let condition =
            json!({"type": "Progressing", "status": is, "reason": reason, "message": message});
        (Some(carry(was, condition, context.now, true)), again)
    };
    if desired.paused {
        if is(PAUSED) || is(TIMED_OUT) {
            return (before.cloned(), None);
        }
        return tell("Unknown", PAUSED, "Deployment is paused".to_owned(), None);
    }
    if is(PAUSED) {
        let message = "Deployment is resumed".to_owned();
        return tell("Unknown", RESUMED, message, Some(deadline));
    }
    let subject = match new {
        Some(new) => format!("ReplicaSet {:?}", new.name),
        // A Recreate whose old pods have not ended.
        None => format!("Deployment {:?}", desired.name),
    };
    let name = format!("{:?}", new.map_or(&desired.name, |n| &n.name));
    let named = before.is_some_and(|c| c["message"].as_str().is_some_and(|m| m.contains(&name)));
    let count = |s: &Value, field: &str| s[field].as_i64().unwrap_or(0);
    let old_of = |s: &Value| count(s, "replicas") - count(s, "updatedReplicas");
    if named && is(AVAILABLE) && old_of(status) == 0 {
        // A roll-out that is over has no deadline, whatever becomes of its pods.
        return (before.cloned(), None);
    }
    if new.is_some_and(|new| is_complete(desired, new, sets)) {
        let message = format!("{subject} has successfully progressed.");
        return tell("True", AVAILABLE, message, None);
    }
    if let Some(new) = new.filter(|_| !named && !is(RESUMED)) {
        let (reason, message) = if sets.iter().any(|s| s.created > new.created) {
            (
                "FoundNewReplicaSet",
                format!("Found new replica set {name}"),
            )
        } else {
            (
                "NewReplicaSetCreated",
                format!("Created new replica set {name}"),
            )
        };
        return tell("True", reason, message, Some(deadline));
    }
    let moved = count(status, "updatedReplicas") > count(was, "updatedReplicas")
        || old_of(status) < old_of(was)
        || count(status, "readyReplicas") > count(was, "readyReplicas")
        || count(status, "availableReplicas") > count(was, "availableReplicas");
    if moved || !(named || is(RESUMED)) {
        let message = format!("{subject} is progressing.");
        return tell("True", "ReplicaSetUpdated", message, Some(deadline));
    }
    let before = before.filter(|_| !is(TIMED_OUT) && !is(AVAILABLE));
    let Some(before) = before else {
        return (previous(was, "Progressing").cloned(), None);
    };
    let since = before["lastUpdateTime"]
        .as_str()
        .and_then(|t| t.parse().ok())
        .unwrap_or(context.now);
    let waited = between(since, context.now);
    if waited >= deadline {
        let message = format!("{subject} has timed out progressing.");
        return tell("False", TIMED_OUT, message, None);
    }
    // A condition's time has whole seconds: a second later is surely after the deadline.
    (
        Some(before.clone()),
        Some(deadline - waited + Duration::from_secs(1)),
    )
}

fn wanted(kind: &str, status: bool, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message})
}

fn previous<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// Gives a condition its times: of its last transition, and of its last update (`touch` renews it).
fn carry(status: &Value, mut condition: Value, now: Timestamp, touch: bool) -> Value {
    let before = condition["type"]
        .as_str()
        .and_then(|kind| previous(status, kind));
    let now = json!(format(now));
    let same = before.filter(|b| b["status"] == condition["status"]);
    let unchanged = same.filter(|b| b["reason"] == condition["reason"] && !touch);
    condition["lastTransitionTime"] =
        same.map_or_else(|| now.clone(), |b| b["lastTransitionTime"].clone());
    condition["lastUpdateTime"] = unchanged.map_or(now, |b| b["lastUpdateTime"].clone());
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn desired() -> Desired {
        Desired {
            name: "web".into(),
            replicas: 2,
            strategy: Strategy::Rolling {
                max_surge: 1,
                max_unavailable: 0,
            },
            paused: false,
            history_limit: 10,
            min_ready: 0,
            hash: "new".into(),
        }
    }

    fn set(available: i32) -> Set {
        Set {
            name: "web-new".into(),
            hash: "new".into(),
            revision: 1,
            wanted: 2,
            min_ready: 0,
            replicas: 2,
            ready: available,
            available,
            observed: true,
            created: at(0),
            pods: 2,
        }
    }

    fn run(previous: Value, available: i32, second: i64) -> (Value, Option<Duration>) {
        let deadline = Some(Duration::from_secs(600));
        status(
            &desired(),
            &[set(available)],
            &Context {
                generation: 3,
                previous,
                deadline,
                now: at(second),
            },
        )
    }

    fn condition(status: &Value, kind: &str) -> (String, String, String) {
        let c = previous(status, kind).expect("there");
        let text = |f: &str| c[f].as_str().expect("text").to_owned();
        (text("status"), text("reason"), text("lastTransitionTime"))
    }

    #[test]
    fn from_new_to_available() {
        let (first, again) = run(Value::Null, 0, 10);
        assert_eq!(again, Some(Duration::from_secs(600)));
        assert_eq!(first["unavailableReplicas"], 2);
        assert_eq!(first.get("readyReplicas"), None);
        assert_eq!(
            condition(&first, "Available").1,
            "MinimumReplicasUnavailable"
        );
        assert_eq!(condition(&first, "Progressing").1, "NewReplicaSetCreated");
        let (second, again) = run(first, 2, 20);
        assert_eq!(again, None);
        assert_eq!(
            condition(&second, "Available"),
            (
                "True".into(),
                "MinimumReplicasAvailable".into(),
                "1970-01-01T00:00:20Z".into()
            )
        );
        assert_eq!(
            condition(&second, "Progressing"),
            (
                "True".into(),
                "NewReplicaSetAvailable".into(),
                "1970-01-01T00:00:10Z".into()
            )
        );
        assert_eq!(
            (
                second["availableReplicas"].as_i64(),
                second["observedGeneration"].as_i64()
            ),
            (Some(2), Some(3))
        );
        assert_eq!(
            run(second.clone(), 2, 99).0,
            second,
            "nothing changes at rest"
        );
    }

    #[test]
    fn the_deadline_counts_from_the_last_progress() {
        let (first, _) = run(Value::Null, 0, 0);
        let (second, again) = run(first, 1, 500);
        assert_eq!(
            again,
            Some(Duration::from_secs(600)),
            "one more is ready: the clock starts over"
        );
        let (third, again) = run(second, 1, 1000);
        assert_eq!(again, Some(Duration::from_secs(101)));
        let (fourth, again) = run(third, 1, 1101);
        assert_eq!(
            (condition(&fourth, "Progressing").1.as_str(), again),
            ("ProgressDeadlineExceeded", None)
        );
        let (fifth, _) = run(fourth.clone(), 1, 2000);
        assert_eq!(fifth, fourth);
        let (sixth, _) = run(fifth, 2, 3000);
        assert_eq!(condition(&sixth, "Progressing").1, "NewReplicaSetAvailable");
    }

    /// Follows the status through a history of sets; returns the reasons of Progressing.
    fn reasons(history: &[(Desired, Vec<Set>)]) -> Vec<String> {
        let mut previous_status = Value::Null;
        let mut reasons = Vec::new();
        for (second, (desired, sets)) in history.iter().enumerate() {
            let context = Context {
                generation: 1,
                previous: previous_status,
                deadline: Some(Duration::from_secs(2)),
                now: at(i64::try_from(second).expect("small")),
            };
            previous_status = status(desired, sets, &context).0;
            reasons.push(condition(&previous_status, "Progressing").1);
        }
        reasons
    }

    fn old(wanted: i32) -> Set {
        Set {
            name: "web-old".into(),
            hash: "old".into(),
            wanted,
            replicas: wanted,
            ready: wanted,
            available: wanted,
            pods: usize::try_from(wanted).expect("not negative"),
            ..set(0)
        }
    }

    #[test]
    fn a_newer_template_gets_a_deadline_of_its_own() {
        let of = |hash: &str| Desired {
            hash: hash.into(),
            ..desired()
        };
        let newer = Set {
            created: at(5),
            ..set(0)
        };
        let stuck = vec![old(2), newer.clone()];
        let newest = Set {
            name: "web-newest".into(),
            hash: "newest".into(),
            created: at(9),
            ..set(0)
        };
        let told = reasons(&[
            (of("old"), vec![old(2)]),
            (of("new"), stuck.clone()),
            (of("new"), stuck.clone()),
            (of("new"), stuck.clone()),
            (of("new"), stuck.clone()),
            (of("newest"), vec![old(2), newer, newest]),
            (of("old"), stuck),
        ]);
        let expected = [
            AVAILABLE,
            "NewReplicaSetCreated",
            "NewReplicaSetCreated",
            TIMED_OUT,
            TIMED_OUT,
            "NewReplicaSetCreated",
            "FoundNewReplicaSet",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_was_complete_has_no_deadline() {
        let crashed = vec![set(0)];
        let told = reasons(&[
            (desired(), vec![set(2)]),
            (desired(), crashed.clone()),
            (desired(), crashed.clone()),
            (desired(), crashed.clone()),
            (desired(), crashed),
        ]);
        assert_eq!(told, [AVAILABLE; 5]);
    }

    #[test]
    fn a_pause_stops_the_clock() {
        let paused = Desired {
            paused: true,
            ..desired()
        };
        let stuck = vec![old(2), set(1)];
        let told = reasons(&[
            (desired(), stuck.clone()),
            (paused.clone(), stuck.clone()),
            (paused.clone(), stuck.clone()),
            (paused.clone(), stuck.clone()),
            (paused, stuck.clone()),
            (desired(), stuck.clone()),
            (desired(), stuck.clone()),
            (desired(), stuck),
        ]);
        let expected = [
            "NewReplicaSetCreated",
            PAUSED,
            PAUSED,
            PAUSED,
            PAUSED,
            RESUMED,
            RESUMED,
            TIMED_OUT,
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_recreate_that_waits_for_its_old_pods_has_a_deadline() {
        let recreate = |hash: &str| Desired {
            strategy: Strategy::Recreate,
            hash: hash.into(),
            ..desired()
        };
        let ending = Set { pods: 2, ..old(0) };
        let told = reasons(&[
            (recreate("old"), vec![old(2)]),
            (recreate("new"), vec![ending.clone()]),
            (recreate("new"), vec![ending.clone()]),
            (recreate("new"), vec![ending.clone()]),
            (recreate("new"), vec![ending, set(0)]),
        ]);
        let expected = [
            AVAILABLE,
            "ReplicaSetUpdated",
            "ReplicaSetUpdated",
            TIMED_OUT,
            "NewReplicaSetCreated",
        ];
        assert_eq!(told, expected);
    }
}
