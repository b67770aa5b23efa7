use devenv_compose::{LogOptions, Progress, Stream};
use futures_util::StreamExt;

use crate::support::{TestProject, engine, free_port};

/// A job that writes, a server that waits for it and serves what it wrote, and a client
/// that reaches the server by its name.
const THREE: &str = r#"
services:
  job:
    image: IMAGE
    command: sh -c 'echo "hello $$WHO" > /data/index.html'
    environment: {WHO: world}
    volumes: [data:/data]
  web:
    image: IMAGE
    command: [httpd, -f, -p, "80", -h, /data]
    init: true
    stop_grace_period: 1s
    volumes: [data:/data]
    depends_on: {job: {condition: service_completed_successfully}}
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "-", "http://127.0.0.1/"], interval: 200ms, retries: 50}
    networks: {default: {aliases: [site]}}
  client:
    image: IMAGE
    command: sh -c 'wget -q -O - http://web/ && wget -q -O - http://site/ && echo err >&2 && exec sleep 3600'
    stop_grace_period: 0s
    depends_on: {web: {condition: service_healthy}}
volumes:
  data:
"#;

#[tokio::test]
async fn up_is_done_in_order_and_once() {
    let Some(engine) = engine().await else { return };
    let project = TestProject::new(&engine, THREE);
    let told = project.up().await.unwrap();
    let started: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Progress::Started(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let want = ["job", "web", "client"].map(|s| project.container(s));
    assert_eq!(started, want, "{told:?}");
    let states = project.states().await;
    let states: Vec<_> = states
        .iter()
        .map(|(s, state, health)| (s.as_str(), state.as_str(), health.as_deref()))
        .collect();
    let want = [
        ("client", "running", None),
        ("job", "exited", None),
        ("web", "running", Some("healthy")),
    ];
    assert_eq!(states, want);

    // What the client wrote: both names lead to the server, which serves the job's file.
    let options = LogOptions {
        services: vec!["client".into()],
        follow: true,
        ..LogOptions::default()
    };
    let lines = engine.logs(&project.name, &options).await.unwrap();
    let mut lines: Vec<_> = lines
        .take(3)
        .map(|line| line.unwrap())
        .map(|line| (line.stream == Stream::Stderr, line.text))
        .collect()
        .await;
    lines.sort();
    let hello = || (false, "hello world".to_owned());
    assert_eq!(lines, [hello(), hello(), (true, "err".into())]);

    let ids = project.ids().await;
    let again = project.up().await.unwrap();
    let changed = again.iter().any(|event| {
        !matches!(
            event,
            Progress::Unchanged(_) | Progress::Healthy(_) | Progress::Waiting { .. }
        )
    });
    assert!(!changed, "{again:?}");
    assert_eq!(project.ids().await, ids);

    project.down(false).await.unwrap();
    assert_eq!(project.left().await, [0, 0, 1], "the volume stays");
    project.down(true).await.unwrap();
    assert_eq!(project.left().await, [0, 0, 0]);
    project.down(true).await.unwrap();
}

const TWO: &str = r#"
services:
  a:
    image: IMAGE
    command: [sleep, "3600"]
    stop_grace_period: 0s
    environment: {VALUE: "one"}
    volumes: [kept:/kept, /anonymous]
  b:
    image: IMAGE
    stop_grace_period: 0s
volumes:
  kept: {labels: {of: test}}
"#;

#[tokio::test]
async fn what_has_changed_is_made_anew_and_keeps_its_volumes() {
    let Some(engine) = engine().await else { return };
    let project = TestProject::new(&engine, TWO);
    project.up().await.unwrap();
    let before = project.ids().await;
    let mounts = async |container: &str| {
        let none = None::<bollard::query_parameters::InspectContainerOptions>;
        let found = engine.docker().inspect_container(container, none).await;
        let mut names: Vec<_> = found
            .unwrap()
            .mounts
            .unwrap_or_default()
            .into_iter()
            .filter_map(|m| Some((m.destination?, m.name?)))
            .collect();
        names.sort();
        names
    };
    let volumes = mounts(&project.container("a")).await;
    assert_eq!(volumes.len(), 2);

    project.write(&TWO.replace("\"one\"", "\"two\""));
    let told = project.up().await.unwrap();
    assert!(
        told.contains(&Progress::Recreated(project.container("a"))),
        "{told:?}"
    );
    assert!(
        told.contains(&Progress::Unchanged(project.container("b"))),
        "{told:?}"
    );
    let after = project.ids().await;
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
    assert_eq!(mounts(&project.container("a")).await, volumes);

    // A service that has gone is told, and left alone.
    let (head, rest) = TWO.split_once("  b:").unwrap();
    let (_, declared) = rest.split_once("volumes:").unwrap();
    project.write(&format!("{head}volumes:{declared}"));
    let told = project.up().await.unwrap();
    let orphans = Progress::Orphans(vec![project.container("b")]);
    assert!(told.contains(&orphans), "{told:?}");
    assert_eq!(project.ids().await.len(), 2);

    // All volumes go with the project, the nameless one that was inherited too.
    project.down(true).await.unwrap();
    for (_, name) in volumes {
        assert!(
            engine.docker().inspect_volume(&name).await.is_err(),
            "{name}"
        );
    }
    project.up().await.unwrap();

    // A network that was removed behind its back is no reason to fail.
    let docker = engine.docker();
    project.down(false).await.unwrap();
    project.up().await.unwrap();
    for id in project.ids().await {
        docker.stop_container(&id, None).await.unwrap();
    }
    docker
        .remove_network(&format!("{}_default", project.name))
        .await
        .unwrap();
    let told = project.up().await.unwrap();
    assert!(
        told.contains(&Progress::Recreated(project.container("a"))),
        "{told:?}"
    );
}

#[tokio::test]
async fn everything_that_the_engine_is_asked_for_arrives() {
    let Some(engine) = engine().await else { return };
    let port = free_port();
    let text = r#"
services:
  all:
    image: IMAGE
    entrypoint: [sh, -c]
    command: ["exec sleep 3600"]
    environment: [A=1, B]
    ports: ["127.0.0.1:PORT:80", "53/udp"]
    volumes:
      - ./made:/made:ro
      - {type: tmpfs, target: /mem, tmpfs: {size: 1m}}
      - data:/data
    tmpfs: /scratch:size=64k
    networks: [one, two]
    user: "1000:1000"
    working_dir: /tmp
    stop_signal: SIGKILL
    stop_grace_period: 1s
    mem_limit: 64m
    deploy: {resources: {limits: {cpus: "0.5", pids: 50}}}
    init: true
    cap_add: [NET_ADMIN]
    cap_drop: [CHOWN]
    shm_size: 1m
    extra_hosts: [elsewhere=192.0.2.1]
    ulimits: {nofile: {soft: 100, hard: 200}}
    hostname: somebody
    container_name: NAME
    read_only: true
    restart: on-failure:2
    labels: {mine: "yes"}
    healthcheck: {disable: true}
networks:
  one: {ipam: {config: [{subnet: 10.254.77.0/28}]}, labels: {l: n}}
  two: {internal: true}
volumes:
  data: {name: VOLUME}
"#;
    let project = TestProject::new(&engine, "services: {}");
    let name = format!("{}-own", project.name);
    let text = text
        .replace("PORT", &port.to_string())
        .replace("NAME", &name)
        .replace("VOLUME", &format!("{}-vol", project.name));
    project.write(&text);
    project.up().await.unwrap();
    let none = None::<bollard::query_parameters::InspectContainerOptions>;
    let found = engine
        .docker()
        .inspect_container(&name, none)
        .await
        .unwrap();
    let config = found.config.unwrap();
    let host = found.host_config.unwrap();
    assert_eq!(config.user.as_deref(), Some("1000:1000"));
    assert_eq!(config.hostname.as_deref(), Some("somebody"));
    assert_eq!(config.working_dir.as_deref(), Some("/tmp"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGKILL"));
    assert_eq!(config.stop_timeout, Some(1));
    assert_eq!(config.entrypoint.unwrap(), ["sh", "-c"]);
    assert!(config.env.unwrap().contains(&"A=1".to_owned()));
    assert_eq!(config.labels.unwrap()["mine"], "yes");
    assert_eq!(host.memory, Some(64 << 20));
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.pids_limit, Some(50));
    assert_eq!(host.init, Some(true));
    assert_eq!(host.shm_size, Some(1 << 20));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.extra_hosts.unwrap(), ["elsewhere:192.0.2.1"]);
    assert_eq!(host.restart_policy.unwrap().maximum_retry_count, Some(2));
    assert!(host.cap_add.unwrap()[0].ends_with("NET_ADMIN"));
    assert!(host.cap_drop.unwrap()[0].ends_with("CHOWN"));
    let limit = &host.ulimits.unwrap()[0];
    assert_eq!((limit.soft, limit.hard), (Some(100), Some(200)));
    let mut networks: Vec<_> = found
        .network_settings
        .unwrap()
        .networks
        .unwrap()
        .into_keys()
        .collect();
    networks.sort();
    assert_eq!(
        networks,
        ["one", "two"].map(|n| format!("{}_{n}", project.name))
    );
    let mut targets: Vec<_> = found
        .mounts
        .unwrap()
        .into_iter()
        .filter_map(|m| Some((m.destination?, m.rw?)))
        .collect();
    targets.sort();
    assert_eq!(
        targets,
        [("/data", true), ("/made", false), ("/mem", true)].map(|(t, rw)| (t.to_owned(), rw))
    );
    let ps = engine.ps(&project.name).await.unwrap();
    assert!(
        ps[0]
            .ports
            .iter()
            .any(|p| p.host_port == port && p.target == "80/tcp" && p.host_ip == "127.0.0.1"),
        "{:?}",
        ps[0].ports
    );
}

#[tokio::test]
async fn an_up_that_was_cut_off_anywhere_is_taken_up_again() {
    let Some(engine) = engine().await else { return };
    let project = TestProject::new(&engine, TWO);
    // Each time one event further, until one runs to its end.
    for cut in 1.. {
        // Something to make anew, every time.
        project.write(&TWO.replace("\"one\"", &format!("\"{cut}\"")));
        let (seen_tx, mut seen_rx) = tokio::sync::mpsc::unbounded_channel();
        let told = move |event| {
            let _ = seen_tx.send(event);
        };
        let file = project.load();
        let cut_off = tokio::select! {
            done = engine.up(&file, &told) => {
                done.unwrap();
                false
            }
            () = async {
                for _ in 0..cut {
                    if seen_rx.recv().await.is_none() {
                        std::future::pending::<()>().await;
                    }
                }
            } => true,
        };
        project.up().await.unwrap();
        let states = project.states().await;
        assert_eq!(states.len(), 2, "after {cut} events: {states:?}");
        assert!(states.iter().all(|(_, state, _)| state == "running"));
        if !cut_off {
            break;
        }
    }
}

/// A service is stopped and started again; who watches sees each change at the next look.
#[tokio::test]
async fn a_service_is_stopped_and_started_and_watched() {
    let Some(engine) = engine().await else { return };
    let project = TestProject::new(
        &engine,
        "services:\n  db: {image: IMAGE, command: [sleep, '3600'], init: true, restart: unless-stopped, stop_grace_period: 1s}\n  other: {image: IMAGE, init: true, stop_grace_period: 1s}\n",
    );
    project.up().await.unwrap();
    let mut changes = Box::pin(engine.changes(&project.name).await.unwrap());
    let mut until = async |want: &str| {
        loop {
            let states = project.states().await;
            let db = states.iter().find(|(service, ..)| service == "db");
            if db.is_some_and(|(_, state, _)| state == want) {
                return states;
            }
            changes.next().await.expect("goes on").expect("a change");
        }
    };
    engine.stop(&project.name, "db").await.unwrap();
    let states = until("exited").await;
    assert_eq!(states[1].1, "running", "the other one goes on");
    engine
        .stop(&project.name, "db")
        .await
        .expect("it is so already");
    engine.start(&project.name, "db").await.unwrap();
    until("running").await;
    engine
        .start(&project.name, "db")
        .await
        .expect("it is so already");
    assert_eq!(project.ids().await.len(), 2, "nothing was made anew");
}
