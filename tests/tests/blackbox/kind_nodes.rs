//! A node that is not ready: named, with what to do, while the system is up and when it comes
//! up.

use super::kind::{IN_KIND, SEEN, UP, main_job, up};
use devenv_tests::containers::{self, docker, everything, new_since};
use devenv_tests::project::{Project, kill};
use devenv_tests::until;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

const NODE: &str = "devenv-bb-kind-node-control-plane";
/// Kubernetes takes a node for lost that has not been heard of for 40 s; here for half of that.
const SOONER: &str = "kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    controllerManager:
      extraArgs:
        node-monitor-grace-period: 20s
";
const SHORTLY: Duration = Duration::from_millis(200);

fn kubelet(word: &str) {
    let done = docker(&["exec", NODE, "systemctl", word, "kubelet"]);
    done.unwrap_or_else(|e| panic!("{word}: {e}"));
}

/// What `devenv status` says of the node, once it `says` or no longer does.
async fn told(project: &Project, says: bool) -> Option<Value> {
    let mut last = Value::Null;
    let found = until(SEEN, SHORTLY, async || {
        last = project.status().await;
        let all = last["troubles"].as_array().cloned().unwrap_or_default();
        let what = format!("Node {NODE}");
        let trouble = all.into_iter().find(|trouble| trouble["what"] == *what);
        (trouble.is_some() == says).then_some(trouble)
    });
    let found = found.await;
    found.unwrap_or_else(|| panic!("expected {says}: {last:#}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of its own, for two and a half minutes: cargo xtask soak kind"]
async fn a_node_that_is_not_ready_is_named() {
    let Some(mut project) = containers::reference_for_kind("bb-kind-node") else {
        return;
    };
    let before = everything();
    let file = "kind/cluster.yaml";
    let known = fs::read_to_string(project.path().join(file)).expect("there");
    project.write(file, &format!("{known}{SOONER}"));
    up(&project, &[]).await;
    let begin = Instant::now();
    kubelet("stop");
    // What runs serves, until Kubernetes takes the node for lost.
    main_job(&project, ["api1", "api2"], 500).await;
    let trouble = told(&project, true).await.expect("a trouble");
    println!("told after {:.1?}: {trouble:#}", begin.elapsed());
    let report = trouble["report"].to_string();
    let help = format!("docker exec {NODE} journalctl -u kubelet -n 50");
    for said in [
        "it is not ready",
        "Kubelet stopped posting node status",
        &help,
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
    let text = project.run(&["status"]).await;
    assert!(text.stdout.contains(&help), "{text}");

    // Whoever waits for it is told what for.
    for words in [&["up", "-d", "--timeout=2s"][..], &["reload", "api1"]] {
        let run = project.run_within(SEEN, words).await;
        println!("{words:?} after {:.1?}: {}", run.took, run.stderr);
        assert_eq!(run.code, Some(1), "{run}");
        let said = format!("the node {NODE} is not ready");
        assert!(run.stderr.contains(&said), "{run}");
    }

    let begin = Instant::now();
    kubelet("start");
    told(&project, false).await;
    println!("ready again after {:.1?}", begin.elapsed());
    let ready = until(SEEN, SHORTLY, async || {
        (project.status().await["ready"] == true).then_some(())
    });
    assert!(ready.await.is_some(), "{:#}", project.status().await);
    main_job(&project, ["api1", "api2"], 100).await;

    // A cluster that is there already, and whose node does not get ready.
    kubelet("stop");
    told(&project, true).await;
    kill(project.supervisor().expect("it runs"));
    project.set_variable("DEVENV_KIND_READY_TIMEOUT", "10");
    let late = project.run_within(UP, &IN_KIND).await;
    println!("up after {:.1?}: {}", late.took, late.stderr);
    assert_eq!(late.code, Some(1), "{late}");
    let said = format!("the node {NODE} is not ready after 10 s: Kubelet stopped");
    for said in [said.as_str(), &help] {
        assert!(late.stderr.contains(said), "{said}: {late}");
    }
    project.down(&["-v"]).await;
    assert_eq!(new_since(&before), [""; 0], "after down -v");
}
