//! What a Deployment's ReplicaSets must become. Pure.
//!
//! Source: `pkg/controller/deployment` of Kubernetes (rolling.go, recreate.go, sync.go).

use jiff::Timestamp;

/// How pods are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// New pods come before old ones go, within these absolute bounds.
    Rolling {
        /// Pods beyond the wanted number.
        max_surge: i32,
        /// Pods below the wanted number that may be unavailable.
        max_unavailable: i32,
    },
    /// All old pods end before a new one starts.
    Recreate,
}

/// What the Deployment asks for.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Its name, the base of the names of its ReplicaSets.
    pub name: String,
    /// Wanted number of pods.
    pub replicas: i32,
    /// How pods are replaced.
    pub strategy: Strategy,
    /// Whether a change of the template waits.
    pub paused: bool,
    /// How many emptied ReplicaSets are kept for a roll-back.
    pub history_limit: i32,
    /// `minReadySeconds`.
    pub min_ready: i64,
    /// Hash of the template.
    pub hash: String,
}

/// One ReplicaSet of the Deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Hash of its template.
    pub hash: String,
    /// Its revision annotation; 0 if there is none.
    pub revision: i64,
    /// `spec.replicas`.
    pub wanted: i32,
    /// `spec.minReadySeconds`.
    pub min_ready: i64,
    /// `status.replicas`.
    pub replicas: i32,
    /// `status.readyReplicas`.
    pub ready: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// Whether its status was computed for its present spec.
    pub observed: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Pods of it that still exist, those that are ending included.
    pub pods: usize,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the ReplicaSet of the present template.
    Create {
        /// Its name.
        name: String,
        /// Its `spec.replicas`.
        replicas: i32,
        /// Its revision.
        revision: i64,
    },
    /// An older ReplicaSet has the present template again: it becomes the newest revision.
    Revise {
        /// Its name.
        name: String,
        /// Its new revision.
        revision: i64,
    },
    /// Change `spec.replicas`.
    Scale {
        /// Its name.
        name: String,
        /// From how many.
        from: i32,
        /// To how many.
        to: i32,
    },
    /// `minReadySeconds` changed, which is no change of the template.
    SetMinReady {
        /// The ReplicaSet's name.
        name: String,
        /// Its new `spec.minReadySeconds`.
        seconds: i64,
    },
    /// Remove an emptied ReplicaSet that is beyond the history limit.
    Delete {
        /// Its name.
        name: String,
    },
}

/// The next steps. The sets' changes wake the controller again for those after.
pub fn plan(desired: &Desired, sets: &[Set]) -> Vec<Action> {
    let newest = sets.iter().map(|s| s.revision).max().unwrap_or(0);
    let new = current(desired, sets);
    let old: Vec<&Set> = sets
        .iter()
        .filter(|s| Some(s.name.as_str()) != new.map(|n| n.name.as_str()))
        .collect();
    let mut actions = Vec::new();
    if let Some(new) = new.filter(|new| new.min_ready != desired.min_ready) {
        actions.push(Action::SetMinReady {
            name: new.name.clone(),
            seconds: desired.min_ready,
        });
    }
    if desired.paused {
        actions.extend(scale_paused(desired, sets, new));
        return actions;
    }
    if let Some(new) = new
        && (new.revision < newest || new.revision == 0)
    {
        let revision = newest.max(old.iter().map(|s| s.revision).max().unwrap_or(0)) + 1;
        actions.push(Action::Revise {
            name: new.name.clone(),
            revision,
        });
    }
    match desired.strategy {
        Strategy::Recreate => recreate(desired, new, &old, newest, &mut actions),
        Strategy::Rolling {
            max_surge,
            max_unavailable,
        } => {
            rolling(
                desired,
                new,
                &old,
                newest,
                max_surge,
                max_unavailable,
                &mut actions,
            );
        }
    }
    if new.is_some_and(|n| is_complete(desired, n, sets)) {
        clean_up(desired, &old, &mut actions);
    }
    actions
}

/// The ReplicaSet of the present template: the oldest, should there be several.
pub fn current<'a>(desired: &Desired, sets: &'a [Set]) -> Option<&'a Set> {
    sets.iter()
        .filter(|s| s.hash == desired.hash)
        .min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
}

/// Whether the roll-out has reached what is asked for.
pub fn is_complete(desired: &Desired, new: &Set, sets: &[Set]) -> bool {
    let total: i32 = sets.iter().map(|s| s.replicas).sum();
    new.observed
        && new.wanted == desired.replicas
        && new.replicas == desired.replicas
        && total == desired.replicas
        && new.available >= desired.replicas
}

fn scale_paused(desired: &Desired, sets: &[Set], new: Option<&Set>) -> Vec<Action> {
    let active: Vec<&Set> = sets.iter().filter(|s| s.wanted > 0).collect();
    let target = match active.as_slice() {
        [] => new.or_else(|| sets.iter().max_by_key(|s| s.revision)),
        [one] => Some(*one),
        // Amid a roll-out nothing moves while it is paused.
        _ => None,
    };
    target
        .into_iter()
        .flat_map(|set| scale(set, desired.replicas))
        .collect()
}

fn scale(set: &Set, to: i32) -> Option<Action> {
    (set.wanted != to).then(|| Action::Scale {
        name: set.name.clone(),
        from: set.wanted,
        to,
    })
}

fn create(desired: &Desired, replicas: i32, newest: i64) -> Action {
    Action::Create {
        name: super::super::owner::derived_name(&desired.name, &desired.hash),
        replicas,
        revision: newest + 1,
    }
}

fn recreate(
    desired: &Desired,
    new: Option<&Set>,
    old: &[&Set],
    newest: i64,
    actions: &mut Vec<Action>,
) {
    let down: Vec<Action> = old.iter().filter_map(|s| scale(s, 0)).collect();
    if !down.is_empty() {
        actions.extend(down);
        return;
    }
    if old.iter().any(|s| s.pods > 0) {
        return;
    }
    match new {
        None => actions.push(create(desired, desired.replicas, newest)),
        Some(new) => actions.extend(scale(new, desired.replicas)),
    }
}

fn rolling(
    desired: &Desired,
    new: Option<&Set>,
    old: &[&Set],
    newest: i64,
    max_surge: i32,
    max_unavailable: i32,
    actions: &mut Vec<Action>,
) {
    let old_wanted: i32 = old.iter().map(|s| s.wanted).sum();
    let new_wanted = new.map_or(0, |s| s.wanted);
    let most = desired.replicas + max_surge;
    let room = (most - old_wanted - new_wanted).max(0);
    let next = if new_wanted > desired.replicas {
        desired.replicas
    } else {
        new_wanted + room.min(desired.replicas - new_wanted)
    };
    match new {
        None => {
            actions.push(create(desired, next, newest));
            return;
        }
        Some(new) => {
            if let Some(action) = scale(new, next) {
                actions.push(action);
                return;
            }
        }
    }
    let Some(new) = new.filter(|n| n.observed || n.wanted == 0) else {
        // Its status speaks of an earlier spec: judged when it has caught up.
        return;
    };
    scale_down(desired, new, old, max_unavailable, actions);
}

fn scale_down(
    desired: &Desired,
    new: &Set,
    old: &[&Set],
    max_unavailable: i32,
    actions: &mut Vec<Action>,
) {
    let least = desired.replicas - max_unavailable;
    let old_wanted: i32 = old.iter().map(|s| s.wanted).sum();
    let unavailable_new = (new.wanted - new.available).max(0);
    let mut spare = old_wanted + new.wanted - least - unavailable_new;
    let mut oldest_first: Vec<(&Set, i32)> = old
        .iter()
        .filter(|s| s.wanted > 0)
        .map(|s| (*s, s.wanted))
        .collect();
    oldest_first.sort_by(|a, b| (a.0.created, &a.0.name).cmp(&(b.0.created, &b.0.name)));
    // First those that serve nobody: they would only hold up the roll-out.
    for (set, wanted) in &mut oldest_first {
        let broken = (*wanted - set.available).clamp(0, spare.max(0));
        *wanted -= broken;
        spare -= broken;
    }
    let available: i32 = oldest_first
        .iter()
        .map(|(s, wanted)| s.available.min(*wanted))
        .sum::<i32>()
        + new.available;
    let mut healthy = (available - least).max(0);
    for (_, wanted) in &mut oldest_first {
        let gone = (*wanted).min(healthy);
        *wanted -= gone;
        healthy -= gone;
    }
    actions.extend(
        oldest_first
            .into_iter()
            .filter_map(|(set, to)| scale(set, to)),
    );
}

fn clean_up(desired: &Desired, old: &[&Set], actions: &mut Vec<Action>) {
    let mut empty: Vec<&&Set> = old
        .iter()
        .filter(|s| s.wanted == 0 && s.replicas == 0 && s.pods == 0 && s.observed)
        .collect();
    let keep = usize::try_from(desired.history_limit).unwrap_or(0);
    empty.sort_by_key(|s| (s.revision, s.created));
    let beyond = empty.len().saturating_sub(keep);
    actions.extend(empty.into_iter().take(beyond).map(|s| Action::Delete {
        name: s.name.clone(),
    }));
}

/// `maxSurge` and `maxUnavailable` as counts: a share of the surge is rounded up, of the
/// unavailable down; should both be 0, one may be unavailable (`ResolveFenceposts`).
///
/// `None` for a value that is neither a count nor a percentage.
pub fn bounds(replicas: i32, surge: &str, unavailable: &str) -> Option<(i32, i32)> {
    let resolve = |text: &str, up: bool| -> Option<i32> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().ok().filter(|n: &i32| *n >= 0);
        };
        let share = i64::from(replicas) * percent.parse::<i64>().ok().filter(|p| *p >= 0)?;
        i32::try_from(if up { (share + 99) / 100 } else { share / 100 }).ok()
    };
    let (surge, unavailable) = (resolve(surge, true)?, resolve(unavailable, false)?);
    Some(if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable.min(replicas))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn desired(replicas: i32, strategy: Strategy) -> Desired {
        Desired {
            name: "web".into(),
            replicas,
            strategy,
            paused: false,
            history_limit: 1,
            min_ready: 0,
            hash: "new".into(),
        }
    }

    const ROLLING: Strategy = Strategy::Rolling {
        max_surge: 1,
        max_unavailable: 0,
    };

    /// A settled set: every wanted pod runs, `available` of them are available.
    fn set(hash: &str, revision: i64, wanted: i32, available: i32) -> Set {
        Set {
            name: format!("web-{hash}"),
            hash: hash.into(),
            revision,
            wanted,
            min_ready: 0,
            replicas: wanted,
            ready: available,
            available,
            observed: true,
            created: Timestamp::from_second(revision).expect("small"),
            pods: usize::try_from(wanted).expect("not negative"),
        }
    }

    fn scaled(name: &str, from: i32, to: i32) -> Action {
        Action::Scale {
            name: format!("web-{name}"),
            from,
            to,
        }
    }

    fn made(replicas: i32, revision: i64) -> Action {
        Action::Create {
            name: "web-new".into(),
            replicas,
            revision,
        }
    }

    #[rstest]
    #[case::first(2, vec![], vec![made(2, 1)])]
    #[case::settled(2, vec![set("new", 1, 2, 2)], vec![])]
    #[case::scale_up(5, vec![set("new", 1, 2, 2)], vec![scaled("new", 2, 5)])]
    #[case::scale_down(1, vec![set("new", 1, 2, 2)], vec![scaled("new", 2, 1)])]
    #[case::surge_first(2, vec![set("a", 1, 2, 2)], vec![made(1, 2)])]
    #[case::wait_for_it(2, vec![set("a", 1, 2, 2), set("new", 2, 1, 0)], vec![])]
    #[case::then_one_less(2, vec![set("a", 1, 2, 2), set("new", 2, 1, 1)], vec![scaled("a", 2, 1)])]
    #[case::then_next(2, vec![set("a", 1, 1, 1), set("new", 2, 1, 1)], vec![scaled("new", 1, 2)])]
    #[case::last(2, vec![set("a", 1, 1, 1), set("new", 2, 2, 2)], vec![scaled("a", 1, 0)])]
    #[case::broken_old_goes_at_once(2, vec![set("a", 1, 2, 0), set("new", 2, 1, 0)], vec![])]
    #[case::broken_old_goes_when_new_serves(2, vec![set("a", 1, 2, 1), set("new", 2, 1, 1)], vec![scaled("a", 2, 1)])]
    #[case::rolled_back(2, vec![set("new", 1, 0, 0), set("b", 2, 2, 2)],
        vec![Action::Revise { name: "web-new".into(), revision: 3 }, scaled("new", 0, 1)])]
    #[case::history(2, vec![set("a", 1, 0, 0), set("b", 2, 0, 0), set("new", 3, 2, 2)],
        vec![Action::Delete { name: "web-a".into() }])]
    #[case::history_waits_for_the_end(2, vec![set("a", 1, 0, 0), set("b", 2, 0, 0), set("new", 3, 2, 1)], vec![])]
    #[case::zero(0, vec![set("new", 1, 2, 2)], vec![scaled("new", 2, 0)])]
    fn rolling_update(
        #[case] replicas: i32,
        #[case] sets: Vec<Set>,
        #[case] expected: Vec<Action>,
    ) {
        assert_eq!(plan(&desired(replicas, ROLLING), &sets), expected);
    }

    #[test]
    fn a_stale_status_is_not_believed() {
        let mut new = set("new", 2, 1, 1);
        new.observed = false;
        assert_eq!(plan(&desired(2, ROLLING), &[set("a", 1, 2, 2), new]), []);
    }

    #[test]
    fn another_min_ready_is_no_roll_out() {
        let mut desired = desired(2, ROLLING);
        desired.min_ready = 5;
        let settled = [set("new", 1, 2, 2)];
        let expected = Action::SetMinReady {
            name: "web-new".into(),
            seconds: 5,
        };
        assert_eq!(plan(&desired, &settled), [expected]);
    }

    /// Amid a roll-out comes another: its pods come instead of those of the middle one, which
    /// serve nobody yet.
    #[test]
    fn the_newest_template_wins() {
        let one = desired(1, ROLLING);
        let begun = [set("a", 1, 1, 1), set("b", 2, 1, 0)];
        assert_eq!(plan(&one, &begun), [made(0, 3)]);
        let [a, b] = begun.clone();
        let with = |b: Set, new: Set| plan(&one, &[a.clone(), b, new]);
        assert_eq!(with(b, set("new", 3, 0, 0)), [scaled("b", 1, 0)]);
        let ended = set("b", 2, 0, 0);
        assert_eq!(
            with(ended.clone(), set("new", 3, 0, 0)),
            [scaled("new", 0, 1)]
        );
        assert_eq!(with(ended, set("new", 3, 1, 1)), [scaled("a", 1, 0)]);
    }

    #[test]
    fn unavailable_allows_to_go_down_first() {
        let strategy = Strategy::Rolling {
            max_surge: 0,
            max_unavailable: 1,
        };
        let before = [set("a", 1, 3, 3)];
        assert_eq!(plan(&desired(3, strategy), &before), [made(0, 2)]);
        let after = [set("a", 1, 3, 3), set("new", 2, 0, 0)];
        assert_eq!(plan(&desired(3, strategy), &after), [scaled("a", 3, 2)]);
    }

    #[test]
    fn recreate_ends_every_old_pod_before_it_starts_a_new_one() {
        let desired = desired(2, Strategy::Recreate);
        let mut old = set("a", 1, 2, 2);
        assert_eq!(plan(&desired, &[old.clone()]), [scaled("a", 2, 0)]);
        (old.wanted, old.replicas, old.available) = (0, 0, 0);
        assert_eq!(plan(&desired, &[old.clone()]), [], "pods are still ending");
        old.pods = 0;
        assert_eq!(plan(&desired, &[old.clone()]), [made(2, 2)]);
        assert_eq!(plan(&desired, &[old, set("new", 2, 2, 2)]), []);
    }

    #[test]
    fn paused_scales_and_makes_nothing_new() {
        let mut desired = desired(4, ROLLING);
        desired.paused = true;
        assert_eq!(plan(&desired, &[set("a", 1, 2, 2)]), [scaled("a", 2, 4)]);
        assert_eq!(plan(&desired, &[set("a", 1, 2, 2), set("b", 2, 1, 1)]), []);
    }

    #[rstest]
    #[case(4, "25%", "25%", Some((1, 1)))]
    #[case(2, "25%", "25%", Some((1, 0)))]
    #[case(1, "25%", "25%", Some((1, 0)))]
    #[case(10, "0", "0%", Some((0, 1)))]
    #[case(10, "3", "100%", Some((3, 10)))]
    #[case(10, "x", "1", None)]
    #[case(10, "-1", "1", None)]
    fn fence_posts(
        #[case] n: i32,
        #[case] surge: &str,
        #[case] down: &str,
        #[case] expected: Option<(i32, i32)>,
    ) {
        assert_eq!(bounds(n, surge, down), expected);
    }

    /// Whatever the bounds: following the plan, with sets that settle at random, ends in the
    /// wanted state and never leaves the bounds.
    #[rstest]
    #[case(1, 1, 0)]
    #[case(4, 1, 1)]
    #[case(5, 0, 2)]
    #[case(3, 3, 3)]
    fn a_whole_roll_out_stays_within_its_bounds(
        #[case] n: i32,
        #[case] surge: i32,
        #[case] down: i32,
    ) {
        let desired = desired(
            n,
            Strategy::Rolling {
                max_surge: surge,
                max_unavailable: down,
            },
        );
        let mut sets = vec![set("a", 1, n, n)];
        for _ in 0..100 {
            let actions = plan(&desired, &sets);
            if actions.is_empty() && sets.iter().all(|s| s.available == s.wanted) {
                break;
            }
            for action in actions {
                match action {
                    Action::Create {
                        replicas, revision, ..
                    } => sets.push(set("new", revision, replicas, 0)),
                    Action::Scale { name, to, .. } => {
                        let set = sets.iter_mut().find(|s| s.name == name).expect("known");
                        set.wanted = to;
                        set.replicas = to;
                        set.available = set.available.min(to);
                    }
                    Action::Revise { .. } | Action::SetMinReady { .. } | Action::Delete { .. } => {}
                }
                let wanted: i32 = sets.iter().map(|s| s.wanted).sum();
                let available: i32 = sets.iter().map(|s| s.available).sum();
                assert!(wanted <= n + surge, "{sets:?}");
                assert!(available >= n - down, "{sets:?}");
            }
            if let Some(lagging) = sets.iter_mut().find(|s| s.available < s.wanted) {
                lagging.available += 1;
            }
        }
        let end: Vec<(&str, i32)> = sets
            .iter()
            .map(|s| (s.hash.as_str(), s.available))
            .collect();
        assert_eq!(end, [("a", 0), ("new", n)]);
    }
}
