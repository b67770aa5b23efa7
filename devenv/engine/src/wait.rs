//! Waits until every workload is ready, and says why one isn't.

use std::{collections::BTreeMap, time::Duration};

use devenv_model::Object;
use kube::Client;

use crate::{
    event::{Bus, Event},
    observe::Observer,
    workload::{Facts, NotReady, explain, is_followed, key_of, reason_of},
};

/// Waits for the Deployments and Cloud Run services among `objects`.
///
/// Follows watches, so it returns as soon as the last one is ready. After `timeout`
/// it returns what is not.
pub(crate) async fn until_ready(
    client: &Client,
    observer: &Observer,
    namespace: &str,
    objects: &[Object],
    timeout: Duration,
    bus: &Bus,
) -> Result<(), Vec<NotReady>> {
    let wanted: BTreeMap<String, &Object> = objects
        .iter()
        .filter(|o| is_followed(o))
        .map(|o| (key_of(o, namespace), o))
        .collect();
    let mut told: BTreeMap<&str, (Option<Facts>, Option<String>)> = BTreeMap::new();
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    let mut changes = observer.changes();
    loop {
        let mut late = 0;
        {
            let observed = observer.look();
            for (key, object) in &wanted {
                let facts = observed.workloads.get(key);
                let ready = facts.is_some_and(Facts::ready);
                late += usize::from(!ready);
                let pods = observed.pods.values().map(|p| &*p.pod);
                let reason = (!ready).then(|| reason_of(object, pods)).flatten();
                // Pods of an earlier run wait for their image until now.
                let reason = reason.filter(|r| !r.starts_with("ErrImageNeverPull"));
                let now = (facts.cloned(), reason);
                if told.get(key.as_str()) != Some(&now) {
                    tell(bus, object, now.0.as_ref(), now.1.clone());
                    told.insert(key, now);
                }
            }
        }
        if late == 0 {
            return Ok(());
        }
        tokio::select! {
            () = &mut deadline => break,
            // An observer that ended sees no more changes; the deadline comes then.
            Ok(()) = changes.changed() => {}
        }
    }
    let (facts, pods) = {
        let observed = observer.look();
        (observed.workloads.clone(), observed.all_pods())
    };
    let mut late = Vec::new();
    for (key, object) in &wanted {
        let facts = facts.get(key);
        if !facts.is_some_and(Facts::ready) {
            late.push(explain(client, object, facts, &pods).await);
        }
    }
    Err(late)
}

fn tell(bus: &Bus, object: &Object, facts: Option<&Facts>, reason: Option<String>) {
    bus.emit(Event::Workload {
        kind: object.kind().to_owned(),
        name: object.name().to_owned(),
        ready: facts.map_or(0, |f| f.available),
        wanted: facts.map_or(1, |f| f.wanted),
        reason,
    });
}
