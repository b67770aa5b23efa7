//! The machine's own kubectl against the project's API.

use devenv_tests::project::{Project, output_of};
use devenv_tests::record::record;
use devenv_tests::{find_tool, skip};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

async fn kubectl(project: &Project, arguments: &[&str]) -> String {
    let kubeconfig = project.kubeconfig().to_string_lossy().into_owned();
    let words = [&["--kubeconfig", &kubeconfig][..], arguments].concat();
    let program = find_tool("kubectl").unwrap();
    output_of(&program, &words, &BTreeMap::new(), LIMIT)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", project.supervisor_log()))
}

/// A table's header, and its rows by column.
type Table = (Vec<String>, Vec<BTreeMap<String, String>>);

/// The tables of `get a,b,c`: header and rows, cut at the header's columns (two or
/// more spaces apart; a header may have one space in it).
fn tables(text: &str) -> Vec<Table> {
    let mut found: Vec<Table> = Vec::new();
    let mut starts: Vec<usize> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with("NAME ") {
            starts = columns(line);
            found.push((cut(line, &starts), vec![]));
        } else if let Some((header, rows)) = found.last_mut() {
            rows.push(header.iter().cloned().zip(cut(line, &starts)).collect());
        }
    }
    found
}

fn columns(header: &str) -> Vec<usize> {
    let bytes = header.as_bytes();
    (0..bytes.len())
        .filter(|&i| bytes[i] != b' ' && (i == 0 || (i > 2 && &bytes[i - 3..i] == b"   ")))
        .collect()
}

fn cut(line: &str, starts: &[usize]) -> Vec<String> {
    starts
        .iter()
        .enumerate()
        .map(|(i, &from)| {
            let to = starts
                .get(i + 1)
                .copied()
                .unwrap_or(line.len())
                .min(line.len());
            line.get(from.min(to)..to)
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .collect()
}

#[test]
fn tables_are_cut_at_their_columns() {
    let text = "NAME         READY   NOMINATED NODE   AGE\npod/api1-x   1/1     <none>           3s\n\nNAME        TYPE\nservice/a   ClusterIP\n";
    let tables = tables(text);
    assert_eq!(tables.len(), 2);
    assert_eq!(tables[0].0, ["NAME", "READY", "NOMINATED NODE", "AGE"]);
    assert_eq!(tables[0].1[0]["NOMINATED NODE"], "<none>");
    assert_eq!(tables[1].1[0]["TYPE"], "ClusterIP");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_the_usual_columns_and_the_address_answers() {
    if find_tool("kubectl").is_none() {
        return skip("there is no kubectl here");
    }
    let project = Project::reference();
    project.up().await;
    let text = kubectl(
        &project,
        &["get", "ingress,svc,pods", "-n", "so1-fase2", "-o", "wide"],
    )
    .await;
    println!("{text}");
    let tables = tables(&text);
    let [(ingress, ingresses), (service, services), (pod, pods)] = &tables[..] else {
        panic!("three tables are expected:\n{text}");
    };
    assert_eq!(
        ingress,
        &["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]
    );
    assert_eq!(
        service,
        &[
            "NAME",
            "TYPE",
            "CLUSTER-IP",
            "EXTERNAL-IP",
            "PORT(S)",
            "AGE",
            "SELECTOR"
        ]
    );
    assert_eq!(
        pod,
        &[
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED NODE",
            "READINESS GATES"
        ]
    );
    for name in ["telemetry", "telemetry-canary"] {
        let row = ingresses
            .iter()
            .find(|row| row["NAME"] == format!("ingress.networking.k8s.io/{name}"))
            .unwrap_or_else(|| panic!("{name}:\n{text}"));
        assert_eq!(row["CLASS"], "nginx");
        assert!(row["ADDRESS"].starts_with("127."), "{row:?}");
        assert_eq!(row["PORTS"], "80");
    }
    for (name, port) in [
        ("api1-service", "5000/TCP"),
        ("api2-service", "3000/TCP"),
        ("api3-service", "8080/TCP"),
        ("cloudsql", "3306/TCP"),
    ] {
        let row = services
            .iter()
            .find(|row| row["NAME"] == format!("service/{name}"))
            .unwrap_or_else(|| panic!("{name}:\n{text}"));
        assert_eq!(row["TYPE"], "ClusterIP");
        assert!(row["CLUSTER-IP"].starts_with("10.96."), "{row:?}");
        assert_eq!(row["EXTERNAL-IP"], "<none>");
        assert_eq!(row["PORT(S)"], port);
        assert_eq!(row["SELECTOR"] == "<none>", name == "cloudsql", "{row:?}");
    }
    for name in ["api1", "api2", "api3"] {
        let row = pods
            .iter()
            .find(|row| row["NAME"].starts_with(&format!("pod/{name}-")))
            .unwrap_or_else(|| panic!("{name}:\n{text}"));
        assert_eq!(row["READY"], "1/1");
        assert_eq!(row["STATUS"], "Running");
        assert_eq!(row["RESTARTS"], "0");
        assert!(row["IP"].starts_with("10.244."), "{row:?}");
        assert_eq!(row["NODE"], "devenv");
    }

    let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let address = kubectl(
        &project,
        &["get", "ingress", "telemetry", "-n", "so1-fase2", "-o", path],
    )
    .await;
    if !low_ports_allowed() {
        return skip("port 80 is not allowed to this user, so the bare address cannot answer");
    }
    let url = format!("http://{address}/api");
    let body = record(2048.0).to_string();
    let words = [
        "-sS",
        "-X",
        "POST",
        "-H",
        "content-type: application/json",
        "--data",
        &body,
        "-w",
        "\n%{http_code}",
        &url,
    ];
    let answer = output_of(Path::new("curl"), &words, &BTreeMap::new(), LIMIT)
        .await
        .unwrap();
    assert!(answer.ends_with("\n201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_describe_and_a_rollout_work() {
    if find_tool("kubectl").is_none() {
        return skip("there is no kubectl here");
    }
    let project = Project::reference();
    project.up().await;
    let described = kubectl(
        &project,
        &["describe", "deployment", "api1", "-n", "so1-fase2"],
    )
    .await;
    assert!(described.contains("1 desired"), "{described}");
    assert!(described.contains("api1"), "{described}");
    kubectl(
        &project,
        &["logs", "deployment/api1", "-n", "so1-fase2", "--tail=5"],
    )
    .await;
    // The context's default namespace is the project's.
    let pods = kubectl(&project, &["get", "pods", "-o", "name"]).await;
    assert!(pods.contains("pod/api2-"), "{pods}");

    let victim = pods
        .lines()
        .find(|line| line.starts_with("pod/api2-"))
        .unwrap();
    kubectl(&project, &["delete", victim, "--wait=true"]).await;
    kubectl(
        &project,
        &["rollout", "status", "deployment/api2", "--timeout=20s"],
    )
    .await;
    let after = kubectl(&project, &["get", "pods", "-o", "name"]).await;
    assert!(!after.contains(victim), "{after}");
    assert!(after.contains("pod/api2-"), "{after}");
}

fn low_ports_allowed() -> bool {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    nix::unistd::geteuid().is_root()
        || first.is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|port| port <= 80))
}
