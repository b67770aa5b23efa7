//! Which pods a ReplicaSet adopts, releases, makes and ends. Pure.
//!
//! Source: `pkg/controller/replicaset` and `controller_utils.go` (`ActivePodsWithRanks`) of Kubernetes.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::time::between;

/// Whose pod it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This ReplicaSet's.
    Me,
    /// Nobody's.
    Nobody,
    /// Another controller's.
    Other,
}

/// What matters of a pod.
#[derive(Debug, Clone)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether the selector matches its labels.
    pub matches: bool,
    /// Whether it has all labels of the template.
    pub fully_labelled: bool,
    /// Whether it is marked for deletion.
    pub deleting: bool,
    /// Whether it ended for good (phase Succeeded or Failed).
    pub ended: bool,
    /// Whether it runs (phase Running).
    pub running: bool,
    /// Since when it is ready, if it is.
    pub ready_since: Option<Timestamp>,
    /// Restarts of its containers.
    pub restarts: i64,
    /// When it was made.
    pub created: Timestamp,
}

/// What the ReplicaSet asks for.
#[derive(Debug, Clone, Copy)]
pub struct Desired {
    /// `spec.replicas`.
    pub replicas: usize,
    /// `spec.minReadySeconds`.
    pub min_ready: Duration,
    /// `metadata.generation`.
    pub generation: i64,
    /// Whether the ReplicaSet itself is being deleted: then it does nothing but count.
    pub deleting: bool,
}

/// The steps, and the status as it is before them.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods that become this ReplicaSet's.
    pub adopt: Vec<String>,
    /// Pods that are no longer this ReplicaSet's.
    pub release: Vec<String>,
    /// How many pods to make.
    pub create: usize,
    /// Pods to end, in this order.
    pub delete: Vec<String>,
    /// The status.
    pub status: Value,
    /// When a ready pod becomes available, which no event tells.
    pub again: Option<Duration>,
}

/// The next steps.
pub fn plan(desired: Desired, pods: &[PodView], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut mine: Vec<&PodView> = Vec::new();
    for pod in pods {
        match (pod.owner, pod.matches) {
            (Owner::Me, true) => mine.push(pod),
            (Owner::Me, false) if !pod.deleting => plan.release.push(pod.name.clone()),
            (Owner::Nobody, true) if !pod.deleting && !pod.ended && !desired.deleting => {
                plan.adopt.push(pod.name.clone());
                mine.push(pod);
            }
            _ => {}
        }
    }
    let mut active: Vec<&PodView> = mine
        .into_iter()
        .filter(|p| !p.deleting && !p.ended)
        .collect();
    let available = |pod: &PodView| {
        pod.ready_since
            .is_some_and(|since| between(since, now) >= desired.min_ready)
    };
    plan.status = status(desired, &active, available);
    plan.again = active
        .iter()
        .filter(|p| !available(p))
        .filter_map(|p| p.ready_since)
        .map(|since| desired.min_ready.saturating_sub(between(since, now)))
        .min();
    if desired.deleting {
        return plan;
    }
    if active.len() < desired.replicas {
        plan.create = desired.replicas - active.len();
    } else {
        let surplus = active.len() - desired.replicas;
        // Those that serve least go first; among equals the youngest.
        active.sort_by_key(|p| {
            (
                p.running,
                p.ready_since.is_some(),
                Reverse(p.ready_since),
                Reverse(p.restarts),
                Reverse(p.created),
                p.name.clone(),
            )
        });
        plan.delete = active
            .iter()
            .take(surplus)
            .map(|p| p.name.clone())
            .collect();
    }
    plan
}

fn status(desired: Desired, active: &[&PodView], available: impl Fn(&PodView) -> bool) -> Value {
    let count = |f: &dyn Fn(&PodView) -> bool| active.iter().filter(|p| f(p)).count();
    let mut status = json!({"replicas": active.len(), "observedGeneration": desired.generation});
    for (field, n) in [
        ("fullyLabeledReplicas", count(&|p| p.fully_labelled)),
        ("readyReplicas", count(&|p| p.ready_since.is_some())),
        ("availableReplicas", count(&available)),
    ] {
        if n > 0 {
            status[field] = json!(n);
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn pod(name: &str) -> PodView {
        PodView {
            name: name.into(),
            owner: Owner::Me,
            matches: true,
            fully_labelled: true,
            deleting: false,
            ended: false,
            running: true,
            ready_since: Some(at(100)),
            restarts: 0,
            created: at(0),
        }
    }

    fn desired(replicas: usize) -> Desired {
        Desired {
            replicas,
            min_ready: Duration::ZERO,
            generation: 7,
            deleting: false,
        }
    }

    #[rstest]
    #[case::none(vec![], 2, 2, &[])]
    #[case::enough(vec![pod("a"), pod("b")], 2, 0, &[])]
    #[case::ending_pods_are_replaced(vec![pod("a"), PodView { deleting: true, ..pod("b") }], 2, 1, &[])]
    #[case::ended_pods_are_replaced(vec![PodView { ended: true, ..pod("a") }], 1, 1, &[])]
    #[case::unready_goes_first(vec![pod("a"), PodView { ready_since: None, ..pod("b") }], 1, 0, &["b"])]
    #[case::pending_before_unready(
        vec![PodView { ready_since: None, ..pod("a") }, PodView { ready_since: None, running: false, ..pod("b") }], 1, 0, &["b"])]
    #[case::latest_ready_goes_first(vec![pod("a"), PodView { ready_since: Some(at(200)), ..pod("b") }], 1, 0, &["b"])]
    #[case::youngest_goes_first(vec![pod("a"), PodView { created: at(5), ..pod("b") }], 1, 0, &["b"])]
    #[case::most_restarts_go_first(vec![pod("a"), PodView { restarts: 3, ..pod("b") }], 1, 0, &["b"])]
    #[case::others_are_not_touched(vec![PodView { owner: Owner::Other, ..pod("a") }], 1, 1, &[])]
    #[case::all(vec![pod("a")], 0, 0, &["a"])]
    fn counts(
        #[case] pods: Vec<PodView>,
        #[case] replicas: usize,
        #[case] create: usize,
        #[case] delete: &[&str],
    ) {
        let plan = plan(desired(replicas), &pods, at(300));
        assert_eq!(
            (
                plan.create,
                plan.delete
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice()
            ),
            (create, delete)
        );
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let pods = [
            PodView {
                owner: Owner::Nobody,
                ..pod("orphan")
            },
            PodView {
                matches: false,
                ..pod("relabelled")
            },
            PodView {
                owner: Owner::Nobody,
                deleting: true,
                ..pod("ending")
            },
        ];
        let plan = plan(desired(1), &pods, at(300));
        assert_eq!(plan.adopt, ["orphan"]);
        assert_eq!(plan.release, ["relabelled"]);
        assert_eq!((plan.create, plan.delete.len()), (0, 0));
    }

    #[test]
    fn available_comes_after_min_ready_seconds() {
        let desired = Desired {
            min_ready: Duration::from_secs(30),
            ..desired(2)
        };
        let pods = [
            pod("a"),
            PodView {
                ready_since: Some(at(90)),
                ..pod("b")
            },
        ];
        let plan = plan(desired, &pods, at(125));
        assert_eq!(
            plan.status,
            json!({"replicas": 2, "observedGeneration": 7, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 1})
        );
        assert_eq!(plan.again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_set_that_goes_makes_nothing() {
        let desired = Desired {
            deleting: true,
            ..desired(3)
        };
        assert_eq!(plan(desired, &[], at(0)).create, 0);
    }
}
