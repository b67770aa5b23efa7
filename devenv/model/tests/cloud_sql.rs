//! The Service that stands for Cloud SQL: which of its ports is the database's, and which
//! Services can't stand for it.

use std::fs;

use devenv_model::{LoadOptions, Loaded, Topology};
use rstest::rstest;

const CONFIG: &str = "[project]\nname = \"p\"\nmanifests = [\"db.yaml\"]\n[cloudsql]\n";

/// A project with these manifests.
fn load(manifests: &str) -> Loaded {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("devenv.toml"), CONFIG).unwrap();
    fs::write(root.path().join("db.yaml"), manifests).unwrap();
    Topology::load(root.path(), &LoadOptions::default())
}

/// The Service `cloudsql` with this spec.
fn service(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cloudsql, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn messages(loaded: &Loaded) -> String {
    let all: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    all.join("\n")
}

#[rstest]
#[case::unnamed("ports: [{port: 3306}]", 3306)]
#[case::named(
    "ports: [{name: mysql, port: 3306, targetPort: 3306, protocol: TCP}]",
    3306
)]
#[case::another("ports: [{port: 13306, targetPort: 3306}]", 13306)]
#[case::mysqls_own_of_several("ports: [{name: admin, port: 33062}, {name: sql, port: 3306}]", 3306)]
#[case::the_first_of_several("ports: [{name: a, port: 5001}, {name: b, port: 5000}]", 5001)]
#[case::not_a_datagrams(
    "ports: [{name: a, port: 3306, protocol: UDP}, {name: b, port: 3307}]",
    3307
)]
#[case::headless("clusterIP: None, ports: [{port: 3306}]", 3306)]
fn the_databases_port(#[case] spec: &str, #[case] want: u16) {
    let loaded = load(&service("p", spec));
    assert_eq!(messages(&loaded), "");
    assert_eq!(loaded.topology.unwrap().cloud_sql().unwrap().port, want);
}

#[test]
fn a_service_of_the_same_name_elsewhere_says_nothing() {
    let elsewhere = service("default", "ports: [{port: 3306}]");
    let own = service("p", "ports: [{port: 3307}]");
    let loaded = load(&format!("{elsewhere}---\n{own}"));
    assert_eq!(loaded.topology.unwrap().cloud_sql().unwrap().port, 3307);
}

#[rstest]
#[case::datagrams(
    "ports: [{port: 3306, protocol: UDP}]",
    "db.yaml:4:15: error[cloudsql::no-port]: Service cloudsql stands for Cloud SQL, and has no port for TCP that could lead there"
)]
#[case::headless_without_ports("clusterIP: None", "db.yaml:4:7: error[cloudsql::no-port]")]
#[case::elsewhere(
    "type: ExternalName, externalName: db.example.com",
    "db.yaml:4:14: error[cloudsql::external-name]"
)]
#[case::elsewhere_with_a_port(
    "type: ExternalName, externalName: db.example.com, ports: [{port: 3306}]",
    "db.yaml:4:14: error[cloudsql::external-name]"
)]
// One of the general rules, said once.
#[case::no_ports(
    "clusterIP: ''",
    "db.yaml:4:7: error[manifest::missing-field]: Service cloudsql has no ports"
)]
#[case::selector(
    "selector: {app: db}, ports: [{port: 3306}]",
    "error[cloudsql::selector]"
)]
fn what_cannot_stand_for_cloud_sql(#[case] spec: &str, #[case] want: &str) {
    let loaded = load(&service("p", spec));
    let text = messages(&loaded);
    assert!(text.contains(want), "{text}");
    let errors = loaded.problems.iter().filter(|p| p.is_error()).count();
    assert_eq!(errors, 1, "{text}");
    assert!(loaded.topology.is_none());
}

/// What the message about a missing Service suggests is a good one.
#[test]
fn the_suggested_service_loads() {
    let missing = load("");
    let error = |p: &&devenv_model::Problem| p.code == "cloudsql::no-service";
    let problem = missing.problems.iter().find(error).unwrap();
    let loaded = load(problem.help.as_ref().unwrap());
    assert_eq!(messages(&loaded), "");
    assert_eq!(loaded.topology.unwrap().cloud_sql().unwrap().port, 3306);
}
