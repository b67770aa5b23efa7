//! The Service that stands for Cloud SQL: which of its ports is the database's, and which
//! Services can't stand for it.

use std::fs;

use devenv_model::{CloudSqlEngine, LoadOptions, Loaded, Topology};
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

/// What `[cloudsql]` says of the container, with a Compose file at the usual place or not.
#[rstest]
#[case::nothing("", false, Ok((None, None)))]
#[case::at_the_usual_place("", true, Ok((None, Some("compose/compose.yaml"))))]
#[case::named("engine = \"container\"\ncompose = \"db.yaml\"", true, Ok((Some(CloudSqlEngine::Container), Some("db.yaml"))))]
#[case::local("engine = \"local\"", true, Ok((Some(CloudSqlEngine::Local), Some("compose/compose.yaml"))))]
#[case::not_there("compose = \"no.yaml\"", true, Err("devenv.toml:5:11"))]
#[case::a_folder("compose = \"compose\"", true, Err("compose is a folder"))]
#[case::outside("compose = \"../compose.yaml\"", true, Err("outside the project"))]
#[case::another_engine("engine = \"docker\"", true, Err("devenv.toml:5:10"))]
fn the_container(
    #[case] config: &str,
    #[case] at_the_usual_place: bool,
    #[case] want: Result<(Option<CloudSqlEngine>, Option<&str>), &str>,
) {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
    write("devenv.toml", &format!("{CONFIG}{config}\n"));
    write("db.yaml", &service("p", "ports: [{port: 3306}]"));
    fs::create_dir(root.path().join("compose")).unwrap();
    if at_the_usual_place {
        write("compose/compose.yaml", "services: {}\n");
    }
    let loaded = Topology::load(root.path(), &LoadOptions::default());
    match want {
        Ok((engine, compose)) => {
            assert_eq!(messages(&loaded), "");
            let topology = loaded.topology.unwrap();
            let sql = topology.cloud_sql().unwrap();
            let shown = sql.compose.as_deref().map(|path| {
                let path = path
                    .strip_prefix(root.path().canonicalize().unwrap())
                    .unwrap();
                path.to_str().unwrap()
            });
            assert_eq!((sql.engine, shown), (engine, compose));
        }
        Err(part) => {
            let said = messages(&loaded);
            assert!(said.contains(part), "{said}");
        }
    }
}
