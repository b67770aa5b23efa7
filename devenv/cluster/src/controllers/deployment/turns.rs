//! Pods that must take turns: where they share this machine's ports, a program
//! that does not heed `PORT` cannot run twice.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::plan::{Desired, Set, Strategy};
use super::{Deployments, template_hash};
use crate::controllers::events::EventType;
use crate::controllers::owner::controller_of;
use crate::kinds;
use crate::store::Object;

/// How soon a roll-out is looked at again: an old pod may begin to listen amid it.
const AGAIN: Duration = Duration::from_millis(250);

impl Deployments {
    /// Makes a roll-out end the old pods first where one of them holds a port that the new ones
    /// need. Returns when to look again.
    pub(super) async fn take_turns(
        &self,
        deployment: &Object,
        desired: &mut Desired,
        sets: &[Set],
    ) -> Option<Duration> {
        let loopback = self.loopback.as_ref()?;
        let is_old = |set: &&Set| set.hash != desired.hash && set.pods > 0;
        if desired.strategy == Strategy::Recreate
            || desired.paused
            || !sets.iter().any(|s| is_old(&s))
        {
            return None;
        }
        for ip in self.old_pods(deployment, desired) {
            if loopback.has_fixed_port(ip).await {
                desired.strategy = Strategy::Recreate;
                self.recorder.record(
                    deployment,
                    "deployment-controller",
                    EventType::Normal,
                    "TakingTurns",
                    "the program does not listen at the port in PORT, and without namespaces its own port is there \
                     once on this machine: the old pods end before the new ones start",
                );
                break;
            }
        }
        Some(AGAIN)
    }

    /// Addresses of the pods whose template is not the present one.
    fn old_pods(&self, deployment: &Object, desired: &Desired) -> Vec<Ipv4Addr> {
        let (pods, _) = self.store.list(&kinds::POD, Some(deployment.namespace()));
        let old: Vec<_> = self
            .owned(deployment)
            .into_iter()
            .filter(|set| template_hash(&set.value()["spec"]["template"]) != desired.hash)
            .collect();
        pods.iter()
            .filter(|pod| {
                controller_of(pod).is_some_and(|(_, _, uid)| old.iter().any(|set| set.uid() == uid))
            })
            .filter_map(|pod| pod.value()["status"]["podIP"].as_str()?.parse().ok())
            .collect()
    }
}
