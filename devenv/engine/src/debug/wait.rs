//! Waiting for the debugged version of a workload.

use std::{sync::Arc, time::Duration};

use devenv_model::Object;
use devenv_platform::trouble::pod_trouble;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::{DebugError, named, template::Plan, tunnel::Debugged};
use crate::{
    live::{Live, Rolling},
    workload::{belongs, explain, key_of},
};

/// How long the debugged version may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may fail before that is taken for the answer.
const TROUBLE: Duration = Duration::from_secs(10);
/// How often a port is tried that nothing tells of.
const PACE: Duration = Duration::from_millis(25);

/// Waits until a rollout is complete, and the debugger listens where there is to be one.
/// A program that waits for its client gets ready only after that.
pub(super) async fn until(
    live: &Arc<Live>,
    object: &Object,
    rolling: Option<&Rolling>,
    debug: Option<(&Plan, &Debugged)>,
) -> Result<(), DebugError> {
    let topology = live.topology();
    let key = key_of(object, &topology.project().namespace);
    let generation = rolling.map_or(0, |r| r.generation);
    let old = rolling.map(|r| r.old.clone()).unwrap_or_default();
    let mut changes = live.observer.changes();
    let deadline = Instant::now() + PATIENCE;
    let mut troubled: Option<Instant> = None;
    loop {
        let (facts, new) = {
            let observed = live.observer.look();
            let is_new = |uid: &String, pod: &Pod| !old.contains(uid) && belongs(object, pod);
            let pods = observed.pods.iter();
            let new: Vec<Pod> = pods
                .filter(|(uid, p)| is_new(uid, &p.pod))
                .map(|(_, p)| (*p.pod).clone())
                .collect();
            (observed.workloads.get(&key).cloned(), new)
        };
        let ready = facts
            .as_ref()
            .is_some_and(|f| f.observed >= generation && f.ready());
        let tried = debug.filter(|(plan, _)| ready || plan.wait);
        let done = match tried {
            Some((_, debugged)) => debugged.listens(live).await,
            None => ready && debug.is_none(),
        };
        if done {
            return Ok(());
        }
        let now = Instant::now();
        let trouble = new.iter().find_map(pod_trouble);
        troubled = trouble.and(troubled.or(Some(now)));
        let end = troubled.map_or(deadline, |since| deadline.min(since + TROUBLE));
        if now < end {
            // Nothing tells that a program begins to listen.
            let next = if tried.is_some() { now + PACE } else { end };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            continue;
        }
        return Err(match debug {
            Some((plan, _)) if ready => DebugError::Silent {
                workload: named(object),
                debugger: plan.debugger.name(),
                port: plan.port,
                waited: PATIENCE,
            },
            _ => DebugError::NotReady(explain(&live.client, object, facts.as_ref(), &new).await),
        });
    }
}
