//! The annotation `devenv.dev/fault`.

use super::*;
use crate::controllers::runtime::Key;
use crate::pod::instance::fault::ANNOTATION;
use crate::pod::status::FAULT_CONDITION;

const LONG: Duration = Duration::from_secs(3600);

impl Rig {
    fn annotate(&self, name: &str, fault: Option<&str>) {
        let annotated = self.store.update(&kinds::POD, "default", name, |pod| {
            pod["metadata"]["annotations"] = match fault {
                Some(text) => json!({ANNOTATION: text}),
                None => json!({}),
            };
            Ok(())
        });
        annotated.expect("annotated");
    }

    async fn until_signalled(&self, signal: i32) {
        let line = format!("signal {signal} c");
        while !self.runtime.log().iter().any(|(_, l)| *l == line) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_stopped_and_goes_on() {
    let rig = rig();
    rig.pod("web", json!({}));
    rig.until_ready("web").await;
    rig.annotate("web", Some(r#"[{"kind":"pause"}]"#));
    rig.until_signalled(19).await;
    rig.annotate("web", None);
    rig.until_signalled(18).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_of_the_pod_and_goes_with_it() {
    let rig = rig();
    rig.pod("web", json!({}));
    rig.until_ready("web").await;
    let ip = rig.store.get(&kinds::POD, "default", "web").expect("there");
    let ip: Ipv4Addr = ip.value()["status"]["podIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .expect("an address");
    let key = Key::new("default", "db");
    rig.annotate("web", Some(r#"[{"kind":"cut","service":"db"}]"#));
    while tokio::time::timeout(LONG, rig.faults.path(ip, Some(&key)).open())
        .await
        .is_ok()
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let other = Key::new("default", "other");
    rig.faults.path(ip, Some(&other)).open().await;
    let opened = tokio::spawn(rig.faults.path(ip, Some(&key)).open());
    rig.store
        .delete(&kinds::POD, "default", "web")
        .expect("deleted");
    tokio::time::timeout(LONG, opened)
        .await
        .expect("lifted")
        .expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_said() {
    let rig = rig();
    rig.pod("web", json!({}));
    rig.until_ready("web").await;
    rig.annotate("web", Some("melt"));
    while rig.events("InvalidAnnotation").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The pod's condition: its status, reason and message.
fn condition(pod: Option<&Value>) -> Option<(String, String, String)> {
    let conditions = pod?["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == FAULT_CONDITION)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

const FULL: &str = r#"[{"kind":"fill-disk"}]"#;

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_said_and_lifted() {
    let rig = rig();
    rig.pod("web", json!({}));
    rig.until_ready("web").await;
    rig.annotate("web", Some(FULL));
    let in_force = ("True".into(), "Imposed".into(), FULL.into());
    rig.until("web", "full", |pod| {
        condition(pod) == Some(in_force.clone())
    })
    .await;
    rig.annotate("web", None);
    rig.until("web", "free", |pod| condition(pod).is_none())
        .await;
    let log = rig.runtime.log();
    let full: Vec<_> = log.iter().filter(|(_, l)| l.starts_with("full")).collect();
    assert!(
        matches!(&full[..], [(_, on), (_, off)] if on == "full true" && off == "full false"),
        "{full:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_disk_of_the_machine_is_never_filled() {
    let rig = rig();
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    rig.pod(
        "web",
        json!({
            "containers": [{"name": "c", "image": "web", "volumeMounts": mounts}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }),
    );
    rig.until_ready("web").await;
    rig.annotate("web", Some(FULL));
    rig.until("web", "refused", |pod| {
        condition(pod).is_some_and(|(status, reason, message)| {
            status == "False" && reason == "Unsupported" && message.contains("medium: Memory")
        })
    })
    .await;
    assert!(!rig.runtime.log().iter().any(|(_, l)| l.starts_with("full")));
}
