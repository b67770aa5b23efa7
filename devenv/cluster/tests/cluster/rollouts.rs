//! Changes of a workload's template under requests.

use std::time::{Duration, Instant};

use devenv_cluster::{api, kinds};
use serde_json::{Value, json};

use crate::http::get;
use crate::load::{Load, server};
use crate::rig::Rig;

/// How many times each workload is changed, unless `DEVENV_ROUNDS` says otherwise.
const ROUNDS: u32 = 30;
/// No request is held for longer.
const BOUND: Duration = Duration::from_secs(30);

fn rounds() -> u32 {
    std::env::var("DEVENV_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

impl Rig {
    /// A Deployment of the first version, behind an Ingress, available.
    async fn app(&self, mode: &str, replicas: i64, spec: Value) {
        let mut all = json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [server(1, mode)]}},
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        let metadata = json!({"name": "web", "namespace": "default"});
        self.create(
            &kinds::DEPLOYMENT,
            json!({"metadata": metadata, "spec": all}),
        );
        self.service("web", 5000);
        self.ingress("web", 5000);
        self.until_available("web", replicas).await;
    }

    fn edit(&self, change: impl Fn(&mut Value)) {
        let store = self.cluster.store();
        store
            .update(&kinds::DEPLOYMENT, "default", "web", |deployment| {
                change(&mut deployment["spec"]);
                // As the API does.
                api::defaults::apply(&kinds::DEPLOYMENT, deployment);
                Ok(())
            })
            .expect("updated");
    }

    fn set_version(&self, version: u32) {
        self.edit(|spec| {
            spec["template"]["spec"]["containers"][0]["env"][0]["value"] =
                json!(version.to_string());
        });
    }

    /// What the Deployment's condition Progressing says.
    async fn until_progressing(&self, reason: &str) {
        self.until(&kinds::DEPLOYMENT, "web", reason, |deployment| {
            deployment.is_some_and(|d| {
                let status = &d["status"];
                status["observedGeneration"] == d["metadata"]["generation"]
                    && status["conditions"].as_array().is_some_and(|all| {
                        all.iter()
                            .any(|c| c["type"] == "Progressing" && c["reason"] == reason)
                    })
            })
        })
        .await;
    }

    /// Names of the ReplicaSets by the version that they run.
    fn sets(&self) -> Vec<(String, String)> {
        let (sets, _) = self
            .cluster
            .store()
            .list(&kinds::REPLICA_SET, Some("default"));
        let mut sets: Vec<(String, String)> = sets
            .iter()
            .map(|set| {
                let container = &set.value()["spec"]["template"]["spec"]["containers"][0];
                let version = container["env"][0]["value"].as_str().unwrap_or_default();
                (version.to_owned(), set.name().to_owned())
            })
            .collect();
        sets.sort();
        sets
    }

    fn held(&self) -> u64 {
        let stats = self.cluster.ingress_stats();
        stats.services.iter().map(|s| s.held).sum()
    }
}

/// Changes the version again and again under load; returns how many requests were held
/// meanwhile. The first ones may be: a pod is ready a moment before its endpoint is known.
async fn changed(rig: &Rig, what: &str, replicas: i64, bound: Duration) -> u64 {
    let load = Load::start(rig.ingress, 8);
    load.replies(16).await;
    let held = rig.held();
    let mut times = Vec::new();
    for version in 2..=rounds() + 1 {
        load.begins(version);
        let begin = Instant::now();
        rig.set_version(version);
        rig.until_available("web", replicas).await;
        times.push(begin.elapsed());
        load.is_alone(version).await;
    }
    let report = load.stop().await;
    times.sort();
    println!(
        "{what}: median {:?}, longest {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    report.check(what, rounds() + 1, bound);
    rig.held() - held
}

pub async fn rolling(mode: &'static str) {
    let rig = Rig::start().await;
    rig.app(mode, 2, json!({})).await;
    let held = changed(&rig, &format!("rolling update, {mode}"), 2, BOUND).await;
    assert_eq!(held, 0, "there was always a ready pod");
    rig.stop().await;
}

pub async fn recreate() {
    let rig = Rig::start().await;
    rig.app("exit", 2, json!({"strategy": {"type": "Recreate"}}))
        .await;
    let held = changed(&rig, "recreate", 2, BOUND).await;
    assert!(held >= u64::from(rounds()), "{held} held");
    rig.stop().await;
}

pub async fn knative() {
    let rig = Rig::start().await;
    let service = |version: u32| {
        let mut container = server(version, "exit");
        container["ports"] = json!([{"containerPort": 5000}]);
        json!({"template": {"spec": {"containers": [container]}}})
    };
    let metadata = json!({"name": "web", "namespace": "default"});
    rig.create(
        &kinds::KNATIVE_SERVICE,
        json!({"metadata": metadata, "spec": service(1)}),
    );
    // Once it has its address, whoever asks waits for the first instance.
    rig.until(&kinds::KNATIVE_SERVICE, "web", "given its address", |k| {
        k.is_some_and(|k| k["status"]["url"].is_string())
    })
    .await;
    let load = Load::start(rig.cluster.knative_addrs()[0], 8);
    load.replies(16).await;
    for version in 2..=rounds() + 1 {
        load.begins(version);
        rig.cluster
            .store()
            .update(&kinds::KNATIVE_SERVICE, "default", "web", |k| {
                k["spec"] = service(version);
                Ok(())
            })
            .expect("updated");
        let revision = format!("web-{version:05}");
        rig.until(
            &kinds::KNATIVE_SERVICE,
            "web",
            "serving the revision",
            |k| k.is_some_and(|k| k["status"]["latestReadyRevisionName"] == revision.as_str()),
        )
        .await;
        load.is_alone(version).await;
    }
    load.stop().await.check("revisions", rounds() + 1, BOUND);
    rig.stop().await;
}

/// A version that never gets ready leaves the old one serving, however long; going back to that
/// takes its ReplicaSet again, and the next good version gets through.
pub async fn never_ready() {
    let rig = Rig::start().await;
    rig.app("exit", 1, json!({"progressDeadlineSeconds": 1}))
        .await;
    let load = Load::start(rig.ingress, 4);
    load.replies(16).await;
    rig.edit(|spec| {
        let mut container = server(2, "exit");
        container["readinessProbe"] = json!({"tcpSocket": {"port": 5001}});
        spec["template"]["spec"]["containers"] = json!([container]);
    });
    rig.until_progressing("ProgressDeadlineExceeded").await;
    load.replies(16).await;
    let before = rig.sets();
    assert_eq!(before.len(), 2);
    // `kubectl rollout undo` writes the template of the revision before.
    rig.edit(|spec| spec["template"]["spec"]["containers"] = json!([server(1, "exit")]));
    rig.until_available("web", 1).await;
    rig.until_progressing("NewReplicaSetAvailable").await;
    assert_eq!(
        rig.sets(),
        before,
        "no third ReplicaSet is made for the first template"
    );
    load.begins(2);
    rig.set_version(2);
    rig.until_available("web", 1).await;
    load.is_alone(2).await;
    load.stop().await.check("never ready", 2, BOUND);
    rig.stop().await;
}

/// A template that is changed again before its pods are ready: they never serve, and they do not
/// hold up those of the newest.
pub async fn overtaken() {
    let rig = Rig::start().await;
    rig.app("exit", 2, json!({"revisionHistoryLimit": 2})).await;
    let load = Load::start(rig.ingress, 4);
    load.replies(16).await;
    for round in 0..rounds() / 3 {
        let version = 2 + round;
        rig.edit(|spec| {
            let mut container = server(9_999, "ignore");
            container["env"]
                .as_array_mut()
                .expect("a list")
                .push(json!({"name": "DELAY", "value": format!("6{round}")}));
            spec["template"]["spec"]["containers"] = json!([container]);
        });
        rig.until(&kinds::DEPLOYMENT, "web", "amid a roll-out", |d| {
            d.is_some_and(|d| d["status"]["updatedReplicas"] == 1)
        })
        .await;
        load.begins(version);
        rig.edit(|spec| {
            spec["template"]["spec"]["containers"] = json!([server(version, "exit")]);
        });
        rig.until_available("web", 2).await;
        load.is_alone(version).await;
    }
    load.stop()
        .await
        .check("overtaken", 1 + rounds() / 3, BOUND);
    // Of the old ReplicaSets the youngest two are kept.
    rig.until(&kinds::REPLICA_SET, "web", "tidied up", |_| {
        rig.sets().len() <= 3
    })
    .await;
    rig.stop().await;
}

/// Who asks is held only while there is something to wait for.
pub async fn held_or_not() {
    let rig = Rig::start().await;
    rig.app("exit", 1, json!({"strategy": {"type": "Recreate"}}))
        .await;
    assert_eq!(get(rig.ingress, "/").await, Ok((200, "1".into())));
    let until_empty = || async {
        rig.until(&kinds::ENDPOINT_SLICE, "web-devenv", "empty", |slice| {
            slice.is_some_and(|s| s["endpoints"] == json!([]))
        })
        .await;
    };
    rig.edit(|spec| spec["replicas"] = json!(0));
    until_empty().await;
    rig.until_refused("scaled to 0").await;

    // Scaled up again: held from the first moment on.
    rig.edit(|spec| spec["replicas"] = json!(1));
    rig.until_held().await;

    // A crash loop.
    rig.edit(|spec| {
        spec["template"]["spec"]["containers"][0]["command"] = json!(["false"]);
    });
    rig.until_refused("a crash loop").await;
    rig.edit(|spec| spec["template"]["spec"]["containers"] = json!([server(2, "exit")]));
    rig.until_held().await;

    // Not ready within its deadline.
    rig.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(1);
        spec["template"]["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"] =
            json!(5001);
    });
    rig.until_progressing("ProgressDeadlineExceeded").await;
    rig.until_refused("too late").await;
    rig.edit(|spec| spec["template"]["spec"]["containers"] = json!([server(3, "exit")]));
    rig.until_held().await;
    rig.stop().await;
}

impl Rig {
    /// Until requests are refused without being held for long. The proxy follows the objects by
    /// a moment, in which it may hold one: that one is let go with the rest.
    async fn until_refused(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let before = self.held();
            let reply = get(self.ingress, "/").await;
            if reply.as_ref().is_ok_and(|(status, _)| *status == 503) && self.held() == before {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {reply:?}");
        }
    }

    /// One request right now: it is held, if need be, and answered.
    async fn until_held(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let reply = loop {
            let before = self.held();
            match get(self.ingress, "/").await {
                // The proxy has not heard of the change yet.
                Ok((503, _)) if self.held() == before && Instant::now() < deadline => {}
                reply => break reply,
            }
        };
        assert_eq!(reply.map(|(status, _)| status), Ok(200));
    }
}

/// The real kubectl's `rollout`, if there is one.
pub async fn kubectl() {
    let rig = Rig::start().await;
    rig.app("exit", 2, json!({})).await;
    let kubeconfig = rig.dir.path().join(".devenv/kubeconfig");
    let rollout = |arguments: &'static str| {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("rollout")
            .args(arguments.split(' '));
        async move { command.output().await }
    };
    if let Err(error) = rollout("history deploy/web").await {
        assert!(
            std::env::var("CI").is_err(),
            "CI must have kubectl: {error}"
        );
        println!("skipped: {error}");
        return rig.stop().await;
    }
    let said = |arguments: &'static str| {
        let output = rollout(arguments);
        async move {
            let output = output.await.expect("it runs");
            let both = [output.stdout, output.stderr].concat();
            (
                output.status.code(),
                String::from_utf8_lossy(&both).into_owned(),
            )
        }
    };
    let load = Load::start(rig.ingress, 4);
    load.begins(2);
    rig.set_version(2);
    let (code, text) = said("status deploy/web --timeout=60s").await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.ends_with("deployment \"web\" successfully rolled out\n"),
        "{text}"
    );
    assert_eq!(rig.sets().len(), 2);

    // Nothing moves while it is paused, and what was changed meanwhile comes with the resume.
    assert_eq!(said("pause deploy/web").await.0, Some(0));
    rig.until_progressing("DeploymentPaused").await;
    rig.set_version(1);
    rig.until_progressing("DeploymentPaused").await;
    load.is_alone(2).await;
    assert_eq!(said("resume deploy/web").await.0, Some(0));
    rig.until_available("web", 2).await;
    load.is_alone(1).await;
    assert_eq!(rig.sets().len(), 2, "the first ReplicaSet is used again");

    let (code, text) = said("undo deploy/web").await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = said("status deploy/web --timeout=60s").await;
    assert_eq!(code, Some(0), "{text}");
    load.is_alone(2).await;

    let before: Vec<String> = rig
        .pods("web")
        .iter()
        .map(|p| p.name().to_owned())
        .collect();
    assert_eq!(said("restart deploy/web").await.0, Some(0));
    let (code, text) = said("status deploy/web --timeout=60s").await;
    assert_eq!(code, Some(0), "{text}");
    let alive = rig.pods("web").into_iter().filter(|p| !p.is_deleting());
    assert!(
        alive
            .into_iter()
            .all(|p| !before.contains(&p.name().to_owned()))
    );
    let (_, history) = said("history deploy/web").await;
    assert_eq!(
        history
            .lines()
            .filter(|l| l.starts_with(char::is_numeric))
            .count(),
        3,
        "{history}"
    );

    // The message and the exit code of a roll-out that does not get ready.
    rig.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(1);
        spec["template"]["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"] =
            json!(5001);
    });
    let (code, text) = said("status deploy/web --timeout=60s").await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Waiting for deployment \"web\" rollout to finish: 1 out of 2 new replicas have been updated..."),
        "{text}"
    );
    assert!(
        text.ends_with("error: deployment \"web\" exceeded its progress deadline\n"),
        "{text}"
    );
    load.stop().await.check("kubectl rollout", 2, BOUND);
    rig.stop().await;
}

/// Counts and percentages, `minReadySeconds`: at no moment more pods than allowed are wanted, or
/// fewer available.
pub async fn bounds() {
    let rig = Rig::start().await;
    rig.app("exit", 3, json!({})).await;
    let load = Load::start(rig.ingress, 4);
    let rolling = |surge: Value, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let cases = [
        (rolling(json!(0), json!(1)), 0, 3, 2),
        (rolling(json!("50%"), json!(0)), 0, 5, 3),
        (rolling(json!("100%"), json!("34%")), 0, 6, 2),
        (rolling(json!(1), json!("67%")), 1, 4, 1),
    ];
    let mut version = 1;
    for (strategy, min_ready, most, least) in cases {
        version += 1;
        load.begins(version);
        let mut watch = rig
            .cluster
            .store()
            .watch(&[&kinds::REPLICA_SET], None)
            .expect("watched");
        rig.edit(|spec| {
            spec["strategy"] = strategy.clone();
            spec["minReadySeconds"] = json!(min_ready);
        });
        rig.set_version(version);
        let done = async {
            rig.until_available("web", 3).await;
            rig.until_progressing("NewReplicaSetAvailable").await;
        };
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                event = watch.next() => { event.expect("open"); }
                () = &mut done => break,
            }
            let (sets, _) = rig
                .cluster
                .store()
                .list(&kinds::REPLICA_SET, Some("default"));
            let sum = |of: &dyn Fn(&Value) -> i64| sets.iter().map(|s| of(s.value())).sum::<i64>();
            let wanted = sum(&|s| s["spec"]["replicas"].as_i64().unwrap_or(0));
            // A set that is told to shrink counts what it keeps.
            let available = sum(&|s| {
                let wanted = s["spec"]["replicas"].as_i64().unwrap_or(0);
                let available = s["status"]["availableReplicas"].as_i64().unwrap_or(0);
                available.min(wanted)
            });
            assert!(wanted <= most, "{strategy}: {wanted} wanted");
            assert!(available >= least, "{strategy}: {available} available");
        }
        load.is_alone(version).await;
    }
    load.stop().await.check("bounds", version, BOUND);
    rig.stop().await;
}

/// The only pod is killed again and again: what may be repeated waits for its next start.
pub async fn killed() {
    let rig = Rig::start().await;
    rig.app("exit", 1, json!({})).await;
    let load = Load::of(rig.ingress, 4, &["GET"]);
    load.replies(16).await;
    for round in 1..=rounds() / 6 {
        rig.set_version(round + 1);
        load.begins(round + 1);
        rig.until_available("web", 1).await;
        load.is_alone(round + 1).await;
        let pods = rig.pods("web");
        let pod = pods.iter().find(|p| !p.is_deleting()).expect("there");
        rig.kill(pod.name());
        rig.until(&kinds::POD, pod.name(), "restarted and ready", |p| {
            p.is_some_and(|p| {
                let container = &p["status"]["containerStatuses"][0];
                container["restartCount"] == 1 && container["ready"] == true
            })
        })
        .await;
        load.replies(16).await;
    }
    assert!(rig.held() > 0);
    load.stop().await.check("killed", 1 + rounds() / 6, BOUND);
    rig.stop().await;
}
