//! Whole projects in `tests/fixtures`: valid ones load as kubectl would render them,
//! broken ones say everything that is wrong. Each broken project's messages are one snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use devenv_model::{CloudSqlEngine, Command, LoadOptions, Loaded, Topology};
use serde_json::{Value, json};

fn fixtures(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(which)
}

fn load(root: &Path) -> Loaded {
    Topology::load(root, &LoadOptions::default())
}

/// All messages, with this checkout's own path left out.
fn rendered(root: &Path, loaded: &Loaded) -> String {
    let root = root.canonicalize().unwrap();
    let text: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    text.join("\n").replace(root.to_str().unwrap(), "[project]")
}

#[track_caller]
fn valid(root: &Path, options: &LoadOptions) -> Topology {
    let loaded = Topology::load(root, options);
    let text = rendered(root, &loaded);
    let (topology, warnings) = loaded
        .into_result()
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(warnings.is_empty(), "{text}");
    topology
}

#[test]
fn broken_projects_say_everything_that_is_wrong() {
    let mut seen = 0;
    let mut names: Vec<_> = fs::read_dir(fixtures("invalid"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    for root in names {
        let name = root.file_name().unwrap().to_str().unwrap().to_owned();
        let loaded = load(&root);
        assert!(loaded.topology.is_none(), "{name} must not load");
        assert!(loaded.problems.iter().any(|p| p.is_error()), "{name}");
        for p in &loaded.problems {
            // A renderer slices the text with this span.
            let text = p.place.source().text();
            assert!(text.get(p.place.span()).is_some(), "{name}: {p}");
            assert_eq!(
                p.place.source().line_column(p.place.span().start),
                (p.line(), p.column()),
                "{name}: {p}"
            );
        }
        let order: Vec<_> = loaded.problems.iter().map(|p| p.place.origin()).collect();
        assert!(order.is_sorted(), "{name}");
        insta::assert_snapshot!(name, rendered(&root, &loaded));
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} broken projects");
}

/// What loads, and is told what is different here.
#[test]
fn fields_that_are_not_emulated_are_warned_about() {
    let root = fixtures("warned/not-emulated");
    let loaded = load(&root);
    let text = rendered(&root, &loaded);
    assert!(loaded.topology.is_some(), "{text}");
    insta::assert_snapshot!("not-emulated", text);
}

/// Limits, a read-only root and dropped capabilities are what every good manifest has:
/// this project's own must start without a word.
#[test]
fn the_reference_system_loads_without_a_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    valid(&root, &LoadOptions::default());
}

/// The objects by kind and name.
fn by_name(topology: &Topology) -> BTreeMap<String, Value> {
    topology
        .objects()
        .iter()
        .map(|o| (o.to_string(), o.value().clone()))
        .collect()
}

/// The order of ports means nothing, and kustomize's depends on which of them name a
/// protocol.
fn sort_ports(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "ports"
                    && let Value::Array(ports) = value
                {
                    ports.sort_by_key(ToString::to_string);
                }
                sort_ports(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_ports),
        _ => {}
    }
}

/// `kubectl-kustomize.yaml` is what `kubectl kustomize` (v5.5.0) made of the same folder.
#[test]
fn kustomize_gives_what_kubectl_gives() {
    for name in ["telemetry", "kustomize"] {
        let root = fixtures("valid").join(name);
        // Warnings are fine: kustomize itself puts a selector into Knative Services.
        let valid = |options: &LoadOptions| {
            let loaded = Topology::load(&root, options);
            let text = rendered(&root, &loaded);
            loaded.topology.unwrap_or_else(|| panic!("{text}"))
        };
        let ours = valid(&LoadOptions::default());
        let options = LoadOptions {
            config: Some("rendered.toml".into()),
            ..LoadOptions::default()
        };
        // `[image]` and `[cloudsql]` are the same there; only the manifests differ.
        let theirs = valid(&options);
        let (ours, theirs) = (by_name(&ours), by_name(&theirs));
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            theirs.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (object, value) in &theirs {
            let (mut ours, mut theirs) = (ours[object].clone(), value.clone());
            sort_ports(&mut ours);
            sort_ports(&mut theirs);
            assert_eq!(ours, theirs, "{name}: {object}");
        }
    }
}

#[test]
fn the_topology_is_what_the_project_says() {
    let root = fixtures("valid/telemetry").canonicalize().unwrap();
    let t = valid(&root, &LoadOptions::default());
    assert_eq!(t.project().name, "so1-fase2");
    assert_eq!(t.project().namespace, "so1-fase2");
    assert_eq!(t.project().root, root);
    assert_eq!(t.config_path(), root.join("devenv.toml"));
    assert_eq!(t.ingress().http_port, 8081);

    let order: Vec<String> = t.objects().iter().map(ToString::to_string).collect();
    assert_eq!(
        order,
        [
            "Namespace so1-fase2",
            "ConfigMap so1-fase2/telemetry-config",
            "Service so1-fase2/cloudsql",
            "Service so1-fase2/api1-service",
            "Service so1-fase2/api2-service",
            "Deployment so1-fase2/api1",
            "Deployment so1-fase2/api2",
            "Cloud Run service so1-fase2/frontend",
            "Ingress so1-fase2/telemetry",
            "Ingress so1-fase2/telemetry-canary",
        ]
    );

    let sql = t.cloud_sql().unwrap();
    assert_eq!(sql.engine, Some(CloudSqlEngine::Local));
    assert_eq!(sql.compose, None);
    assert_eq!(
        sql.migrations.as_deref(),
        Some(root.join("services/api1/migrations").as_path())
    );

    let api1 = t.image_source("registry.example.com/x/api1:v9").unwrap();
    assert_eq!(api1.source, root.join("services/api1"));
    assert_eq!(api1.workdir, root);
    assert_eq!(api1.env["RUST_LOG"], "info");
    assert_eq!(api1.run, Command::Argv(vec!["target/debug/api1".into()]));
    let api2 = t.image_source("localhost:5000/api2:dev").unwrap();
    assert_eq!(api2.workdir, api2.source, "workdir defaults to source");
    assert_eq!(api2.run.argv(), ["sh", "-c", "node server.js"]);
    assert!(
        t.image_source("frontend").is_none(),
        "the key names the registry"
    );

    let images: Vec<&str> = t.workload_images().into_keys().collect();
    assert_eq!(
        images,
        [
            "api1",
            "localhost:5000/api2:dev",
            "localhost:5000/frontend:dev"
        ]
    );
    let frontend: Vec<_> = t.cloud_run().map(|o| o.name()).collect();
    assert_eq!(frontend, ["frontend"]);
    let service: devenv_model::knative::Service = t.cloud_run().next().unwrap().typed().unwrap();
    assert_eq!(
        service
            .spec
            .unwrap()
            .template
            .unwrap()
            .spec
            .unwrap()
            .container_concurrency,
        Some(80)
    );
}

#[test]
fn every_value_knows_where_it_was_written_even_after_patches() {
    let t = valid(&fixtures("valid/telemetry"), &LoadOptions::default());
    let find = |kind: &str, name: &str| {
        t.objects()
            .iter()
            .find(|o| o.kind() == kind && o.name() == name)
            .unwrap()
    };
    let at = |kind: &str, name: &str, path: &str| {
        t.position(find(kind, name), path).map(|o| o.to_string())
    };
    let api1 = find("Deployment", "api1");
    assert_eq!(api1.origin().to_string(), "kind/base/api1.yaml:1:1");
    for (kind, name, path, want) in [
        (
            "Deployment",
            "api1",
            "spec.template.spec.containers[0].image",
            "kind/base/api1.yaml:19:18",
        ),
        // The second document of a file, and an item of a List.
        (
            "Service",
            "api1-service",
            "spec.ports[0].targetPort",
            "kind/base/api1.yaml:50:19",
        ),
        (
            "Service",
            "api2-service",
            "spec.ports[0].port",
            "kind/base/api2.yaml:33:17",
        ),
        (
            "Ingress",
            "telemetry",
            "spec.rules[0].http.paths[0].backend.service.name",
            "kind/base/ingress.yaml:14:23",
        ),
        // Changed by a patch file, an inline patch, the namespace, an image.
        (
            "Deployment",
            "api1",
            "spec.replicas",
            "kind/overlay/more-replicas.yaml:6:13",
        ),
        (
            "Ingress",
            "telemetry-canary",
            "metadata.annotations[\"nginx.ingress.kubernetes.io/canary-weight\"]",
            "kind/overlay/kustomization.yaml:19:16",
        ),
        (
            "Deployment",
            "api2",
            "spec.template.spec.containers[0].env[0].value",
            "kind/overlay/kustomization.yaml:32:28",
        ),
        (
            "Deployment",
            "api2",
            "spec.template.spec.containers[0].env[2].value",
            "kind/base/api2.yaml:22:26",
        ),
        (
            "Deployment",
            "api2",
            "metadata.namespace",
            "kind/overlay/kustomization.yaml:1:12",
        ),
        (
            "Deployment",
            "api2",
            "spec.template.spec.containers[0].image",
            "kind/overlay/kustomization.yaml:7:13",
        ),
    ] {
        assert_eq!(
            at(kind, name, path).as_deref(),
            Some(want),
            "{kind} {name} {path}"
        );
    }
    assert_eq!(at("Deployment", "api1", "spec.nothing"), None);
    assert_eq!(at("Deployment", "api1", "spec..x"), None);
}

#[test]
fn options_and_defaults_fill_in_what_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("Mi_Proyecto");
    fs::create_dir_all(root.join("m")).unwrap();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    fs::write(root.join("m/c.json"), object.to_string()).unwrap();
    fs::write(
        root.join("devenv.toml"),
        "\u{feff}[project]\nmanifests = [\"m\"]\n",
    )
    .unwrap();
    let t = valid(&root, &LoadOptions::default());
    assert_eq!(t.project().name, "mi-proyecto");
    assert_eq!(t.objects()[0].namespace(), Some("mi-proyecto"));
    assert_eq!(
        t.objects()[0].value()["metadata"]["namespace"],
        "mi-proyecto"
    );
    assert!(t.cloud_sql().is_none());
    let options = LoadOptions {
        namespace: Some("staging".into()),
        ..LoadOptions::default()
    };
    let t = valid(&root, &options);
    assert_eq!(t.objects()[0].namespace(), Some("staging"));
}
