//! What has changed since the suites last ran, and whether it is time to run them.

use std::collections::BTreeSet;

use devenv_e2e::{plan, suite::Suite};
use devenv_engine::{
    event::Event,
    reload::{Outcome, Reload},
};
use serde::Serialize;

/// What has changed, as far as suites tell it apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Something that no workload has for itself, such as an Ingress or the schema; or
    /// nobody knows what.
    pub everything: bool,
    /// These workloads serve a new version.
    pub workloads: BTreeSet<String>,
    /// These suites say something else now.
    pub suites: BTreeSet<String>,
}

impl Changes {
    /// Anything may have changed.
    pub fn all() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Whether nothing has.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.workloads.extend(other.workloads);
        self.suites.extend(other.suites);
    }

    /// Whether a suite is to run for it.
    pub fn concern(&self, suite: &Suite) -> bool {
        self.everything
            || self.suites.contains(&suite.name)
            || (!self.workloads.is_empty() && plan::concerns(suite, &self.workloads))
    }
}

/// Changes that no run has seen yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// What they are.
    pub changes: Changes,
    /// Workloads whose new version does not serve yet: one save may roll several.
    rolling: BTreeSet<String>,
}

impl Pending {
    /// Takes in what the supervisor tells; `users` says which workloads run an image.
    pub fn happened(&mut self, event: &Event, users: impl FnOnce(&str) -> BTreeSet<String>) {
        match event {
            Event::Rolling { workload } => {
                self.rolling.insert(workload.clone());
            }
            Event::Reload { reload } => self.reloaded(reload, users),
            _ => {}
        }
    }

    fn reloaded(&mut self, reload: &Reload, users: impl FnOnce(&str) -> BTreeSet<String>) {
        match reload.outcome {
            Outcome::Reloaded | Outcome::Synced => {
                let workloads = match &reload.workload {
                    Some(workload) => {
                        self.rolling.remove(workload);
                        let name = workload.rsplit(' ').next().unwrap_or(workload);
                        BTreeSet::from([name.to_owned()])
                    }
                    None => users(&reload.what),
                };
                if workloads.is_empty() {
                    self.changes.everything = true;
                }
                self.changes.workloads.extend(workloads);
            }
            Outcome::Applied => self.changes.everything = true,
            Outcome::NotReady => {
                self.rolling.retain(|w| Some(w) != reload.workload.as_ref());
            }
            // A newer version of the same workload rolls already.
            Outcome::Superseded => {}
            // What serves is what was tested before.
            Outcome::BuildFailed | Outcome::Invalid => {}
        }
    }

    /// Some of what happened was not told.
    pub fn lagged(&mut self) {
        self.rolling.clear();
        self.changes.everything = true;
    }

    /// Whether something waits only for versions that don't serve yet.
    pub fn is_held_up(&self) -> bool {
        !self.changes.is_empty() && !self.rolling.is_empty()
    }

    /// Waits for no rollout any more.
    pub fn hurry(&mut self) {
        self.rolling.clear();
    }

    /// Whether it is time to run suites.
    pub fn is_ready(&self) -> bool {
        !self.changes.is_empty() && self.rolling.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;

    fn reload(what: &str, workload: Option<&str>, outcome: Outcome) -> Event {
        Event::Reload {
            reload: Box::new(Reload {
                number: 1,
                what: what.to_owned(),
                workload: workload.map(str::to_owned),
                files: Vec::new(),
                outcome,
                saved: jiff::Timestamp::UNIX_EPOCH,
                ms: devenv_engine::reload::Budget::default(),
                error: None,
            }),
        }
    }

    fn rolling(workload: &str) -> Event {
        Event::Rolling {
            workload: workload.to_owned(),
        }
    }

    /// The image `web` is run by two workloads.
    fn users(image: &str) -> BTreeSet<String> {
        let of = if image == "web" {
            &["shop", "admin"][..]
        } else {
            &[]
        };
        of.iter().map(|w| (*w).to_owned()).collect()
    }

    fn after(events: &[Event]) -> Pending {
        let mut pending = Pending::default();
        for event in events {
            pending.happened(event, users);
        }
        pending
    }

    const API1: Option<&str> = Some("Deployment api1");
    const API2: Option<&str> = Some("Deployment api2");

    #[rstest]
    #[case::nothing(&[], false, "")]
    #[case::rolling(&[rolling("Deployment api1")], false, "")]
    #[case::reloaded(&[
        rolling("Deployment api1"), reload("api1", API1, Outcome::Reloaded),
    ], true, "api1")]
    #[case::one_of_two(&[
        rolling("Deployment api1"), rolling("Deployment api2"),
        reload("api", API1, Outcome::Reloaded),
    ], false, "api1")]
    #[case::both(&[
        rolling("Deployment api1"), rolling("Deployment api2"),
        reload("api", API1, Outcome::Reloaded), reload("api", API2, Outcome::Reloaded),
    ], true, "api1 api2")]
    #[case::superseded(&[
        rolling("Deployment api1"), rolling("Deployment api1"),
        reload("api1", API1, Outcome::Superseded),
    ], false, "")]
    #[case::superseded_and_reloaded(&[
        rolling("Deployment api1"), rolling("Deployment api1"),
        reload("api1", API1, Outcome::Superseded), reload("api1", API1, Outcome::Reloaded),
    ], true, "api1")]
    #[case::never_ready(&[
        rolling("Deployment api1"), reload("api1", API1, Outcome::NotReady),
    ], false, "")]
    #[case::never_ready_beside_another(&[
        rolling("Deployment api1"), rolling("Deployment api2"),
        reload("api", API2, Outcome::Reloaded), reload("api", API1, Outcome::NotReady),
    ], true, "api2")]
    #[case::ready_at_last(&[
        rolling("Deployment api1"), reload("api1", API1, Outcome::NotReady),
        reload("api1", API1, Outcome::Reloaded),
    ], true, "api1")]
    #[case::build_failed(&[reload("api1", None, Outcome::BuildFailed)], false, "")]
    #[case::invalid(&[reload("project", None, Outcome::Invalid)], false, "")]
    #[case::synced(&[reload("web", None, Outcome::Synced)], true, "admin shop")]
    #[case::synced_by_nobody(&[reload("x", None, Outcome::Synced)], true, "*")]
    #[case::applied(&[reload("project", None, Outcome::Applied)], true, "*")]
    fn when_to_run(#[case] events: &[Event], #[case] ready: bool, #[case] changed: &str) {
        let pending = after(events);
        let mut said: Vec<&str> = Vec::new();
        said.extend(pending.changes.everything.then_some("*"));
        said.extend(pending.changes.workloads.iter().map(String::as_str));
        assert_eq!(
            (pending.is_ready(), said.join(" ").as_str()),
            (ready, changed)
        );
    }

    #[test]
    fn a_rollout_that_nothing_is_heard_of_holds_nothing_up_for_ever() {
        let mut pending = after(&[
            rolling("Deployment api1"),
            rolling("Deployment api2"),
            reload("api", API2, Outcome::Reloaded),
        ]);
        assert!(pending.is_held_up());
        pending.hurry();
        assert!(pending.is_ready() && !pending.is_held_up());
        let mut pending = after(&[rolling("Deployment api1")]);
        pending.lagged();
        assert!(pending.is_ready() && pending.changes.everything);
    }

    fn suite(name: &str, workloads: &str) -> Suite {
        let text = format!(
            "workloads = [{workloads}]\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = {{ command = \"true\" }}\n"
        );
        let file = format!("tests/e2e/{name}.toml");
        devenv_e2e::suite::parse(Path::new("/nowhere"), Path::new(&file), text).unwrap()
    }

    #[rstest]
    #[case::nothing(Changes::default(), "")]
    #[case::everything(Changes::all(), "any api1 both")]
    #[case::a_workload(Changes { workloads: ["api1".into()].into(), ..Changes::default() }, "any api1 both")]
    #[case::another(Changes { workloads: ["api2".into()].into(), ..Changes::default() }, "any both")]
    #[case::a_suite(Changes { suites: ["api1".into()].into(), ..Changes::default() }, "api1")]
    #[case::both(Changes {
        workloads: ["api2".into()].into(), suites: ["api1".into()].into(), everything: false,
    }, "any api1 both")]
    fn which_suites_run(#[case] changes: Changes, #[case] expected: &str) {
        let suites = [
            suite("any", ""),
            suite("api1", "\"api1\""),
            suite("both", "\"api1\", \"api2\""),
        ];
        let run = suites.iter().filter(|s| changes.concern(s));
        let names: Vec<&str> = run.map(|s| s.name.as_str()).collect();
        assert_eq!(names.join(" "), expected);
    }
}
