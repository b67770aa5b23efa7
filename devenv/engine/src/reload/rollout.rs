//! Follows a workload from the patch of its template until the new version serves.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use devenv_model::Object;
use devenv_platform::trouble::pod_trouble;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::record::{Budget, Save};
use crate::{
    live::{Live, Rolling},
    workload::{Facts, NotReady, belongs, explain, key_of},
};

/// How long a new version may take before it is told that it isn't ready. It is
/// followed on: what only waits for a slow start gets ready all the same.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a new version that is ready may take to get into its Service's rotation and
/// to answer: what takes longer has no Service, or nothing to say to a plain request.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// How long the old pods may take to get out of it.
const OUT_OF_ROTATION: Duration = Duration::from_secs(2);

/// What a rollout has come to so far.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The new version serves.
    Done(Budget),
    /// Something is wrong with the new pods; the old ones serve. The rollout goes on.
    Stuck(NotReady, Budget),
}

/// Follows `rolling` and tells `progress` until the new version serves.
pub(crate) async fn follow(
    live: &Arc<Live>,
    rolling: &Rolling,
    save: Save,
    budget: Budget,
    mut progress: impl FnMut(Progress),
) {
    let mut changes = live.observer.changes();
    let topology = live.topology();
    let key = key_of(&rolling.object, &topology.project().namespace);
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    let mut impatient = false;
    let mut told = None;
    loop {
        let seen = look(live, rolling, &key);
        let mut budget = budget;
        budget.started = seen.started.map(|t| save.ms(t));
        if let Some(ready) = seen.ready {
            budget.ready = Some(save.ms(ready));
            budget.first_byte = first_byte(live, &rolling.object, seen.new.first())
                .await
                .map(|t| save.ms(t));
            alone(live, rolling).await;
            progress(Progress::Done(budget));
            return;
        }
        let trouble = seen.new.iter().find_map(|p| pod_trouble(p));
        if let Some(reason) = trouble.or_else(|| impatient.then(String::new))
            && told.as_ref() != Some(&reason)
        {
            let pods: Vec<Pod> = seen.new.iter().map(|p| (**p).clone()).collect();
            let why = explain(&live.client, &rolling.object, seen.facts.as_ref(), &pods).await;
            told = Some(reason);
            progress(Progress::Stuck(why, budget));
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = &mut patience, if !impatient => impatient = true,
        }
    }
}

struct Seen {
    facts: Option<Facts>,
    /// The new pods, those that are ready first.
    new: Vec<Arc<Pod>>,
    started: Option<Instant>,
    /// Since when the rollout is complete.
    ready: Option<Instant>,
}

fn look(live: &Live, rolling: &Rolling, key: &str) -> Seen {
    let observed = live.observer.look();
    let facts = observed.workloads.get(key).cloned();
    let mut new: Vec<_> = observed
        .pods
        .iter()
        .filter(|(uid, p)| !rolling.old.contains(*uid) && belongs(&rolling.object, &p.pod))
        .filter(|(_, p)| p.pod.metadata.deletion_timestamp.is_none())
        .map(|(_, p)| p.clone())
        .collect();
    new.sort_by_key(|p| (p.ready.is_none(), p.ready));
    let complete = facts
        .as_ref()
        .is_some_and(|f| f.observed >= rolling.generation && f.ready());
    // The moment is that of its last pod; a rollback may need no new one.
    let ready = complete.then(|| new.iter().filter_map(|p| p.ready).max());
    Seen {
        facts,
        started: new.iter().filter_map(|p| p.started).min(),
        ready: ready.map(|at| at.unwrap_or_else(Instant::now)),
        new: new.into_iter().map(|p| p.pod).collect(),
    }
}

/// When a new pod, in its Service's rotation, answered the request that its own
/// readiness probe makes. Nothing for pods without an HTTP probe.
async fn first_byte(live: &Arc<Live>, object: &Object, pod: Option<&Arc<Pod>>) -> Option<Instant> {
    let pod = pod?;
    let address = address(pod)?;
    let (port, path) = probed(pod)?;
    let behind_a_service = is_selected(live, object, pod);
    let ask = async {
        let mut changes = live.observer.changes();
        while behind_a_service && !live.observer.look().serves(address) {
            wait(&mut changes).await?;
        }
        let mut stream = live
            .target
            .connect(SocketAddrV4::new(address, port))
            .await
            .ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: devenv\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.ok()?;
        Some(Instant::now())
    };
    tokio::time::timeout(FIRST_BYTE, ask).await.ok().flatten()
}

/// Waits until no Service sends requests to the pods of before. They are told of by other
/// objects than the workload, and may be out of rotation a moment later than it is
/// complete; one that is deaf to SIGTERM answers until then.
async fn alone(live: &Live, rolling: &Rolling) {
    let mut changes = live.observer.changes();
    let old: Vec<Ipv4Addr> = {
        let observed = live.observer.look();
        let pods = rolling.old.iter().filter_map(|uid| observed.pods.get(uid));
        pods.filter_map(|p| address(&p.pod)).collect()
    };
    let out = async {
        while old.iter().any(|a| live.observer.look().serves(*a)) {
            if wait(&mut changes).await.is_none() {
                return;
            }
        }
        // What sends requests hears of it later than we do on a busy machine.
        for address in &old {
            live.target.unrouted(*address).await;
        }
    };
    // Whatever keeps them in: the new version serves, which is what is told.
    let _ = tokio::time::timeout(OUT_OF_ROTATION, out).await;
}

fn address(pod: &Pod) -> Option<Ipv4Addr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

async fn wait(changes: &mut watch::Receiver<u64>) -> Option<()> {
    changes.changed().await.ok()
}

/// Port and path of the first readiness probe that is a plain HTTP request.
fn probed(pod: &Pod) -> Option<(u16, String)> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find_map(|c| {
        let probe = c.readiness_probe.as_ref().or(c.liveness_probe.as_ref())?;
        let get = probe.http_get.as_ref().filter(|g| is_plain(g))?;
        let path = get.path.clone().filter(|p| p.starts_with('/'));
        Some((number(c, &get.port)?, path.unwrap_or_else(|| "/".into())))
    })
}

fn is_plain(get: &HTTPGetAction) -> bool {
    let plain = |s: &String| s.eq_ignore_ascii_case("http");
    get.host.is_none() && get.scheme.as_ref().is_none_or(plain)
}

fn number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok(),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.filter(|p| p.name.as_ref() == Some(name));
            named
                .map(|p| p.container_port)
                .find_map(|n| u16::try_from(n).ok())
        }
    }
}

/// Whether a Service of the project sends requests to such a pod.
fn is_selected(live: &Live, object: &Object, pod: &Pod) -> bool {
    let topology = live.topology();
    let labels: &BTreeMap<String, String> = pod.labels();
    topology
        .of_kind("v1", "Service")
        .filter(|s| s.namespace() == object.namespace())
        .filter_map(|s| s.value()["spec"]["selector"].as_object().cloned())
        .any(|selector| {
            let holds = |(k, v): (&String, &serde_json::Value)| {
                labels.get(k).map(String::as_str) == v.as_str()
            };
            !selector.is_empty() && selector.iter().all(holds)
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case(json!({"httpGet": {"path": "/readyz", "port": 5000}}), Some((5000, "/readyz")))]
    #[case(json!({"httpGet": {"port": "http"}}), Some((8080, "/")))]
    #[case(json!({"httpGet": {"port": "https", "scheme": "HTTPS"}}), None)]
    #[case(json!({"httpGet": {"port": 80, "host": "example.com"}}), None)]
    #[case(json!({"tcpSocket": {"port": 80}}), None)]
    fn what_is_asked(#[case] probe: Value, #[case] expected: Option<(u16, &str)>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{
                "name": "c", "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": probe,
            }]},
        }))
        .unwrap();
        let expected = expected.map(|(port, path)| (port, path.to_owned()));
        assert_eq!(probed(&pod), expected);
    }
}
