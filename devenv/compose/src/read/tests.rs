use super::*;
use crate::{Condition, MountKind, Restart};
use rstest::rstest;

fn options(variables: &[(&str, &str)]) -> Options {
    Options {
        environment: variables
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        ..Options::default()
    }
}

fn load_with(files: &[(&str, &str)], mut options: Options) -> Result<Loaded, String> {
    let dir = tempfile::Builder::new()
        .prefix("compose")
        .tempdir()
        .unwrap();
    let root = dir.path().join("project");
    std::fs::create_dir(&root).unwrap();
    for (name, text) in files {
        std::fs::write(root.join(name), text).unwrap();
    }
    options.shown_from = Some(root.clone());
    load(&root.join("compose.yaml"), &options)
        .map_err(|e| e.to_string().replace(root.to_str().unwrap(), "ROOT"))
}

fn read_text(text: &str) -> Result<Loaded, String> {
    load_with(&[("compose.yaml", text)], Options::default())
}

#[test]
fn this_projects_own_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/compose.yaml");
    let loaded = load(&path, &options(&[("DB_PASSWORD", "p")])).unwrap();
    assert!(loaded.warnings.is_empty());
    let project = loaded.project;
    assert_eq!(project.name, "so1-fase2");
    let sql = &project.services["cloudsql"];
    assert_eq!(sql.image, "mysql:8.4");
    assert_eq!(sql.restart, Some(Restart::UnlessStopped));
    assert_eq!(sql.environment["MYSQL_USER"].as_deref(), Some("telemetry"));
    assert_eq!(sql.ports[0].host_ip, "127.0.0.1");
    assert_eq!(sql.ports[0].published, "3306");
    let check = sql.healthcheck.as_ref().unwrap();
    assert!(check.test[1].contains("\"$MYSQL_PASSWORD\""), "{check:?}");
    assert_eq!(project.volumes["cloudsql"].name, "so1-fase2_cloudsql");
    assert_eq!(project.networks["default"].name, "so1-fase2_default");
    assert!(project.services.contains_key("registry"));
}

#[test]
fn this_projects_own_file_without_the_password() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/compose.yaml");
    let error = load(&path, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("compose.yaml:"), "{error}");
    assert!(error.contains("DB_PASSWORD"), "{error}");
}

#[test]
fn every_key_is_read() {
    let text = r#"
name: all
x-common: &common
  init: true
  labels: {team: "${TEAM:-a}"}
services:
  one:
    <<: *common
    image: app:1
    pull_policy: never
    command: sh -c 'exec sleep 1'
    entrypoint: []
    environment: [A=1, "B=x=y", C, D]
    env_file:
      - one.env
      - {path: none.env, required: false}
    ports:
      - 80
      - "127.0.0.1:8000-8001:90-91/udp"
      - {target: 443, published: "8443", host_ip: 127.0.0.1, app_protocol: https}
    volumes:
      - data:/data
      - ./src:/src:ro
      - type: tmpfs
        target: /run
        tmpfs: {size: 1m, mode: 0700}
    networks:
      back: {aliases: [uno], ipv4_address: 10.9.0.5}
      front:
    healthcheck: {test: "true", interval: 1s, timeout: 1m30s, retries: 3, start_period: 5s, start_interval: 100ms}
    depends_on:
      two: {condition: service_healthy, restart: true}
      three: {condition: service_completed_successfully, required: false}
    restart: on-failure:3
    user: "1000"
    working_dir: /src
    stop_signal: SIGINT
    stop_grace_period: 1m
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 100}}}
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    shm_size: 64mb
    tmpfs: /tmp
    extra_hosts: ["a=1.2.3.4", "b:[::1]"]
    ulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}
    hostname: uno
    container_name: the-one
    read_only: "true"
  two:
    image: two
    mem_limit: 1gb
    environment: {X: 1, Y: true, Z: 1.50, N: }
    healthcheck: {disable: true}
  three:
    image: three
    profiles: [extra]
networks:
  back:
    ipam: {config: [{subnet: 10.9.0.0/24}]}
    internal: true
  front: {external: true, name: shared}
volumes:
  data: {labels: [a=b]}
"#;
    let mut given = options(&[("C", "see"), ("Y", "outside")]);
    given.environment.insert("HOME".into(), "/root".into());
    let loaded = load_with(
        &[
            ("compose.yaml", text),
            ("one.env", "A=file\nE=${C}-$F\nF=f\n"),
            (".env", "TEAM=env\nC=lower\n"),
        ],
        given,
    )
    .unwrap();
    assert_eq!(loaded.warnings, vec![]);
    let project = loaded.project;
    let root = project.working_dir.to_str().unwrap().to_owned();
    let shown = format!("{:#?}", project).replace(&root, "ROOT");
    insta::assert_snapshot!(shown);
    assert!(project.disabled.contains("three"));
    let order: Vec<_> = project.in_order().iter().map(|s| s.name.clone()).collect();
    assert_eq!(order, ["two", "one"]);
    let one = &project.services["one"];
    assert_eq!(one.depends_on["two"].condition, Condition::Healthy);
    assert!(matches!(one.mounts[1].kind, MountKind::Bind { .. }));
}

#[test]
fn everything_that_is_wrong_comes_at_once() {
    let text = r#"
name: bad
services:
  web:
    imge: x
    build: .
    restart: allways
    ports: ["x:80", {published: 80}]
    volumes: [nodata:/data, {type: bind, target: /x}, "a:b"]
    networks: [bakc]
    depends_on: [dbb]
    healthcheck: {test: ["true"], interval: 5}
    mem_limit: lots
    stop_grace_period: [1]
    init: maybe
    environment: ${UNSET}
    command: sh -c "a
    env_file: none.env
    ulimits: {nofile: {soft: 1}}
    deploy: {replicas: 2}
  db: {image: "${IMAGE:?say which}", depends_on: [cache]}
  cache: {image: c, depends_on: [db]}
networks:
  back: {driver: bridge, external: true}
volumes:
  data: {nme: x}
secrets: {a: {file: b}}
"#;
    insta::assert_snapshot!(read_text(text).unwrap_err());
}

#[rstest]
#[case::no_services("name: a\n", "there are no `services`")]
#[case::a_list("- a\n", "expected: a mapping")]
#[case::empty("# nothing\n", "the file is empty")]
#[case::syntax("a: [\n", "this is not YAML")]
#[case::twice("services: {a: {image: x}}\nservices: {}\n", "given twice")]
#[case::name(
    "name: Ab\nservices: {a: {image: x}}\n",
    "the project's name is \"Ab\""
)]
#[case::no_image("services: {a: {}}\n", "`services.a` has no image")]
#[case::not_a_service("services: {a: 1}\n", "`services.a` is the number 1")]
#[case::self_circle("services: {a: {image: x, depends_on: [a]}}\n", "in a circle: a → a")]
#[case::tag("services: {a: {image: !reset x}}\n", "means nothing to Compose")]
fn refuses(#[case] text: &str, #[case] want: &str) {
    let error = read_text(text).unwrap_err();
    assert!(error.contains(want), "{error}");
    assert!(error.contains("compose.yaml:"), "{error}");
}

#[rstest]
#[case("", &[], "project")]
#[case("name: n${X:-1}\n", &[], "n1")]
#[case("name: n\n", &[("COMPOSE_PROJECT_NAME", "env")], "env")]
fn the_projects_name(#[case] head: &str, #[case] env: &[(&str, &str)], #[case] want: &str) {
    let text = format!("{head}services: {{a: {{image: \"$COMPOSE_PROJECT_NAME\"}}}}\n");
    let project = load_with(&[("compose.yaml", &text)], options(env))
        .unwrap()
        .project;
    assert_eq!(project.name, want);
    assert_eq!(project.services["a"].image, want);
}

#[rstest]
#[case(&[], "", &["always"])]
#[case(&["x"], "", &["always", "x"])]
#[case(&[], "y, x", &["always", "x", "y"])]
#[case(&["*"], "", &["always", "x", "y"])]
fn profiles(#[case] given: &[&str], #[case] env: &str, #[case] want: &[&str]) {
    let text = "services:\n  always: {image: a}\n  x: {image: a, profiles: [x]}\n  y: {image: a, profiles: [y, z]}\n";
    let mut options = options(&[("COMPOSE_PROFILES", env)]);
    options.profiles = given.iter().map(|p| (*p).into()).collect();
    let project = load_with(&[("compose.yaml", text)], options)
        .unwrap()
        .project;
    assert_eq!(project.services.keys().collect::<Vec<_>>(), want);
}

#[test]
fn an_unset_variable_is_a_warning_with_its_place() {
    let loaded = read_text("services:\n  a:\n    image: x\n    user: \"$WHO\"\n").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].line(), 4);
}

#[test]
fn a_broken_env_file_is_pointed_into() {
    let text = "services: {a: {image: x, env_file: [e.env]}}\n";
    let files = [
        ("compose.yaml", text),
        ("e.env", "A=1\nB C=2\n"),
        (".env", "'x\n"),
    ];
    let error = load_with(&files, Options::default()).unwrap_err();
    assert!(
        error.contains("\ne.env:2:1: error[compose::env-file]"),
        "{error}"
    );
    assert!(
        error.contains(".env:1:1: error[compose::env-file]"),
        "{error}"
    );
}

/// What `docker compose up NAME…` runs: the named ones and what they depend on.
#[rstest::rstest]
#[case::one_alone(&["db"], &["db"], &["default"], &["data"])]
#[case::with_its_dependencies(&["web"], &["api", "db", "web"], &["default", "front"], &["data"])]
#[case::several(&["db", "job"], &["db", "job"], &["default"], &["data", "jobs"])]
#[case::unknown(&["nobody"], &[], &[], &[])]
fn some_services_alone(
    #[case] names: &[&str],
    #[case] services: &[&str],
    #[case] networks: &[&str],
    #[case] volumes: &[&str],
) {
    let text = r#"
name: p
services:
  web: {image: x, depends_on: [api], networks: [front]}
  api: {image: x, depends_on: [db]}
  db: {image: x, volumes: ["data:/d"]}
  job: {image: x, volumes: ["jobs:/d", "/tmp:/t"]}
networks: {front: {}}
volumes: {data: {}, jobs: {}}
"#;
    let loaded = load_with(&[("compose.yaml", text)], options(&[])).unwrap();
    let mut project = loaded.project;
    project.only(names);
    fn keys<T>(map: &BTreeMap<String, T>) -> Vec<&str> {
        map.keys().map(String::as_str).collect()
    }
    assert_eq!(keys(&project.services), services);
    assert_eq!(keys(&project.networks), networks);
    assert_eq!(keys(&project.volumes), volumes);
    assert_eq!(
        project.disabled.len() + project.services.len(),
        4,
        "no orphans"
    );
}
