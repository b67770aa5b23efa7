//! What a pod may use, where it may write, and how it ends; as root and as an
//! ordinary user.

use std::os::unix::fs::PermissionsExt;

use devenv_cluster::{Access, Bind, RunSpec, kinds};
use serde_json::{Value, json};

use crate::rig::Rig;

/// A memory kill is told as one; where this machine can't limit, that is told.
pub async fn out_of_memory() {
    let rig = Rig::start().await;
    let hungry = "import sys; memory = bytearray(200 << 20); print('had it')";
    rig.pod(
        "hungry",
        json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": "c", "image": "web", "command": ["python3", "-c", hungry],
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            }],
        }),
    );
    rig.until(&kinds::POD, "hungry", "ended", |p| {
        p.is_some_and(|p| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
    })
    .await;
    let pod = rig.get(&kinds::POD, "hungry").expect("there");
    let ended = &pod.value()["status"]["containerStatuses"][0]["state"]["terminated"];
    let said = rig.events();
    let missing = said
        .iter()
        .find(|event| event.contains("LimitsNotEnforced"));
    match missing {
        None => assert_eq!(
            (&ended["reason"], &ended["exitCode"]),
            (&json!("OOMKilled"), &json!(137)),
            "{ended}"
        ),
        Some(event) => {
            assert!(event.contains(": \"limits of "), "{event}");
            assert_eq!(ended["reason"], "Completed");
        }
    }
    rig.stop().await;
}

/// Programs write beside their code, and the host has none of it.
pub async fn overlaid() {
    let rig = Rig::start().await;
    let root = rig.dir.path().join("project");
    std::fs::create_dir_all(root.join("svc")).expect("made");
    std::fs::create_dir_all(root.join(".state/venvs/a")).expect("made");
    std::fs::write(root.join("svc/main"), "source").expect("written");
    std::fs::write(root.join(".state/venvs/a/lib"), "lib").expect("written");
    let bind = |source: &std::path::Path, target: &std::path::Path, access| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
    };
    let venvs = root.join(".state/venvs");
    let script = "cat main && echo more >> main && mkdir cache && touch cache/x /app/y && cat main && ls /app && cat ../.state/venvs/a/lib";
    let run = RunSpec {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        cwd: root.join("svc"),
        binds: vec![
            bind(&root, &root, Access::Overlay),
            bind(&root.join("svc"), "/app".as_ref(), Access::Overlay),
            bind(&venvs, &venvs, Access::ReadOnly),
        ],
        ..RunSpec::default()
    };
    rig.cluster.images().set("writer", run);
    rig.pod(
        "writer",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "writer"}]}),
    );
    let log = rig.until_ended("writer").await;
    assert_eq!(log, "sourcesourcemore\ncache\nmain\ny\nlib\n");
    let left: Vec<_> = std::fs::read_dir(root.join("svc"))
        .expect("there")
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        std::fs::read(root.join("svc/main")).expect("there"),
        b"source"
    );
    rig.stop().await;
}

/// A hook leaves word for its container, in memory that a sidecar shares, and the
/// sidecar ends last: each tells the host what it saw.
pub async fn ends_in_order() {
    let rig = Rig::start().await;
    let out = rig.dir.path().join("out");
    std::fs::create_dir(&out).expect("made");
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o777)).expect("opened");
    let trap = |name: &str, on_term: &str| {
        let script = format!(
            "trap '{on_term}; echo {name} >> /out/ended; exit 0' TERM; touch /cache/{name}; while :; do sleep 0.01; done"
        );
        json!(["sh", "-c", script])
    };
    let mounts =
        json!([{"name": "cache", "mountPath": "/cache"}, {"name": "out", "mountPath": "/out"}]);
    let started =
        |name: &str| json!({"exec": {"command": ["test", "-e", format!("/cache/{name}")]}});
    let hook = json!({"exec": {"command": ["sh", "-c", "df --output=fstype,size /cache | tail -1 > /cache/note"]}});
    rig.pod(
        "orderly",
        json!({
            "terminationGracePeriodSeconds": 20,
            "volumes": [
                {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "out", "hostPath": {"path": out}},
            ],
            "initContainers": [{
                "name": "side", "image": "web", "restartPolicy": "Always", "volumeMounts": mounts,
                "command": trap("side", "cat /cache/note >> /out/ended"), "startupProbe": started("side"),
            }],
            "containers": [{
                "name": "c", "image": "web", "volumeMounts": mounts, "readinessProbe": started("main"),
                "command": trap("main", "test -e /cache/note || echo no hook >> /out/ended"),
                "lifecycle": {"preStop": hook},
            }],
        }),
    );
    let ready = |p: &Value| p["status"]["conditions"][2]["status"] == "True";
    rig.until(&kinds::POD, "orderly", "ready", |p| p.is_some_and(ready))
        .await;
    rig.cluster
        .store()
        .mark_deleted(&kinds::POD, "default", "orderly", 20)
        .expect("marked");
    rig.until(&kinds::POD, "orderly", "gone", |p| p.is_none())
        .await;
    let ended = std::fs::read_to_string(out.join("ended")).expect("written");
    let words: Vec<_> = ended.split_whitespace().collect();
    assert_eq!(
        words,
        ["main", "tmpfs", "1024", "side"],
        "{:#?}",
        rig.events()
    );
    rig.stop().await;
}

/// A program that writes gets ENOSPC while the annotation says so, and then writes again.
pub async fn full_disk() {
    let rig = Rig::start().await;
    // The shell's own word for what it got stands in its log.
    let script = "while :; do \
        if said=$(LC_ALL=C dd if=/dev/zero bs=64k count=1 status=none 2>&1 >> /tmp/log); \
        then now=room; else now=${said##*: }; fi; \
        [ \"$now\" = \"$before\" ] || echo \"$now\"; before=$now; sleep 0.01; done";
    rig.pod(
        "writer",
        json!({"containers": [{"name": "c", "image": "web", "command": ["sh", "-c", script]}]}),
    );
    let annotate = |fault: Value| {
        let annotated = rig
            .cluster
            .store()
            .update(&kinds::POD, "default", "writer", |pod| {
                pod["metadata"]["annotations"] = json!({"devenv.dev/fault": fault});
                Ok(())
            });
        annotated.expect("annotated");
    };
    rig.until_logged("writer", "room\n").await;
    let fault = r#"[{"kind":"fill-disk"}]"#;
    annotate(json!(fault));
    rig.until(&kinds::POD, "writer", "full", |pod| {
        let conditions = pod.map(|pod| &pod["status"]["conditions"]);
        let mut all = conditions.and_then(Value::as_array).into_iter().flatten();
        all.any(|c| {
            c["type"] == "devenv.dev/Fault" && c["status"] == "True" && c["message"] == fault
        })
    })
    .await;
    let full = "room\nNo space left on device\n";
    rig.until_logged("writer", full).await;
    annotate(Value::Null);
    rig.until_logged("writer", &format!("{full}room\n")).await;
    rig.stop().await;
}
