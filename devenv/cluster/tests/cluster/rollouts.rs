//! Changes of a workload's template under requests.

use std::time::{Duration, Instant};

use devenv_cluster::kinds;
use serde_json::{Value, json};

use crate::load::{Load, server};
use crate::rig::Rig;

/// How many times each workload is changed.
const ROUNDS: u32 = 30;
/// No request is held for longer.
const BOUND: Duration = Duration::from_secs(30);

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
}

/// Changes the version again and again under load.
async fn changed(rig: &Rig, what: &str, replicas: i64, bound: Duration) {
    let load = Load::start(rig.ingress, 8);
    load.replies(16).await;
    let mut times = Vec::new();
    for version in 2..=ROUNDS + 1 {
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
    report.check(what, ROUNDS + 1, bound);
}

pub async fn rolling(mode: &'static str) {
    let rig = Rig::start().await;
    rig.app(mode, 2, json!({})).await;
    changed(&rig, &format!("rolling update, {mode}"), 2, BOUND).await;
    let stats = rig.cluster.ingress_stats();
    let web = stats
        .services
        .iter()
        .find(|s| s.service == "web")
        .expect("there");
    println!("{} held", web.held);
    rig.stop().await;
}

pub async fn recreate() {
    let rig = Rig::start().await;
    rig.app("exit", 2, json!({"strategy": {"type": "Recreate"}}))
        .await;
    changed(&rig, "recreate", 2, BOUND).await;
    let stats = rig.cluster.ingress_stats();
    let web = stats
        .services
        .iter()
        .find(|s| s.service == "web")
        .expect("there");
    assert!(web.held >= u64::from(ROUNDS), "{} held", web.held);
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
    // From the first moment on: whoever asks waits for the first instance.
    rig.until(&kinds::SERVICE, "web", "made", |s| s.is_some())
        .await;
    let load = Load::start(rig.cluster.knative_addrs()[0], 8);
    load.replies(16).await;
    for version in 2..=ROUNDS + 1 {
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
    load.stop().await.check("revisions", ROUNDS + 1, BOUND);
    rig.stop().await;
}
