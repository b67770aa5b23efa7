//! A cluster's start, end, and start again.

use std::time::{Duration, Instant};

use devenv_cluster::kinds;
use serde_json::json;

use crate::rig::{Rig, processes};

pub async fn goes_on() {
    let rig = Rig::start().await;
    rig.deployment(
        "web",
        2,
        json!({"readinessProbe": {"tcpSocket": {"port": 5000}}}),
    );
    rig.until_available("web", 2).await;
    // What the controller made lacks no default: a client's change of a label is no change of the spec.
    let pod = rig.pods("web").remove(0);
    let mut again = pod.value().clone();
    devenv_cluster::api::defaults::apply(&kinds::POD, &mut again);
    assert_eq!(&again, pod.value());
    let before: Vec<String> = rig.pods("web").iter().map(|p| p.uid().to_owned()).collect();
    let (dir, version) = (rig.dir.clone(), rig.cluster.store().resource_version());
    rig.stop().await;
    assert_eq!(processes(dir.path()), [""; 0], "nothing is left of it");

    let begin = Instant::now();
    let rig = Rig::start_in(dir).await;
    println!("cluster with an old store started in {:?}", begin.elapsed());
    assert!(rig.cluster.store().resource_version() > version);
    rig.until(&kinds::DEPLOYMENT, "web", "served by new pods", |d| {
        d.is_some_and(|d| d["status"]["availableReplicas"] == 2)
            && rig.pods("web").len() == 2
            && rig
                .pods("web")
                .iter()
                .all(|p| !before.contains(&p.uid().to_owned()))
    })
    .await;
    assert_eq!(rig.pods("web").len(), 2);
    rig.stop().await;
}

pub async fn ends_in_order() {
    let rig = Rig::start().await;
    let host = rig.dir.path().join("data");
    let pod = |name: &str, role: &str| {
        let code = format!(
            "import signal,time,sys\ndef end(*a):\n  time.sleep(0.2); open('/data/order','a').write('{name} '); sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\nopen('/data/{name}','w')\nsignal.pause()"
        );
        rig.create(
            &kinds::POD,
            json!({
                "metadata": {"name": name, "namespace": "default", "labels": {"devenv.dev/role": role}},
                "spec": {
                    "volumes": [{"name": "data", "hostPath": {"path": host, "type": "DirectoryOrCreate"}}],
                    "containers": [{"name": "c", "image": "web", "command": ["python3", "-c", code],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        "readinessProbe": {"exec": {"command": ["test", "-f", format!("/data/{name}")]}}}],
                },
            }),
        );
    };
    pod("db", "database");
    pod("app", "workload");
    for name in ["db", "app"] {
        rig.until(&kinds::POD, name, "ready", |p| {
            p.is_some_and(|p| p["status"]["containerStatuses"][0]["ready"] == true)
        })
        .await;
    }
    let (begin, _dir) = (Instant::now(), rig.dir.clone());
    rig.stop().await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        std::fs::read_to_string(host.join("order")).expect("written"),
        "app db "
    );
}
