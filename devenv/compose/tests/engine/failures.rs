use devenv_compose::{Engine, EngineError};

use crate::support::{IMAGE, TestProject, engine, free_port};

/// The error of an `up`, as it is said, without what differs from run to run.
async fn said(project: &TestProject) -> (EngineError, String) {
    let error = project.up().await.expect_err("it can't come up");
    let origin = project.file().display().to_string();
    let text = error
        .to_string()
        .replace(&origin, "compose.yaml")
        .replace(&project.name, "PROJECT");
    (error, text)
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let error = Engine::connect(Some(&host)).await.unwrap_err();
    assert!(error.is_missing());
    assert!(
        error.to_string().contains("its socket is not there"),
        "{error}"
    );
    assert!(error.help().unwrap().contains("systemctl start docker"));

    // A socket that a dead engine has left.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = Engine::connect(Some(&host)).await.unwrap_err();
    assert!(error.is_missing());
    assert!(error.to_string().contains("nobody listens"), "{error}");

    let error = Engine::connect(Some("ssh://x")).await.unwrap_err();
    assert!(
        error.is_missing() && error.help().unwrap().contains("DOCKER_HOST"),
        "{error}"
    );
}

#[tokio::test]
async fn a_check_that_fails_and_a_process_that_ends_speak_for_themselves() {
    let Some(engine) = engine().await else { return };
    let project = TestProject::new(
        &engine,
        r#"
services:
  sick:
    image: IMAGE
    stop_grace_period: 0s
    healthcheck: {test: ["CMD-SHELL", "echo table is missing; exit 1"], interval: 100ms, retries: 2}
"#,
    );
    let (_, text) = said(&project).await;
    assert_eq!(
        text,
        "compose.yaml:4:3: service sick is unhealthy: table is missing"
    );

    project.write("services: {ends: {image: IMAGE, command: [sh, -c, 'echo no config; exit 3']}}");
    let (_, text) = said(&project).await;
    assert_eq!(
        text,
        "compose.yaml:2:12: service ends ended with exit code 3; it wrote last:\n  no config"
    );

    project.write("services: {loop: {image: IMAGE, restart: always, command: [sh, -c, 'exit 4'], healthcheck: {test: 'true'}}}");
    let (_, text) = said(&project).await;
    assert!(
        text.contains("ended with exit code 4 again and again"),
        "{text}"
    );

    project.write("services: {a: {image: IMAGE, depends_on: {b: {condition: service_healthy}}}, b: {image: IMAGE, stop_grace_period: 0s}}");
    let (error, text) = said(&project).await;
    assert!(matches!(error, EngineError::NoHealthcheck { .. }), "{text}");
}

#[tokio::test]
async fn an_image_that_can_t_be_had_is_named() {
    let Some(engine) = engine().await else { return };
    // A registry that is not there: nothing listens on the port.
    let registry = free_port();
    let project = TestProject::new(
        &engine,
        &format!("services: {{a: {{image: \"127.0.0.1:{registry}/none:1\"}}}}"),
    );
    let (error, text) = said(&project).await;
    assert!(
        text.starts_with("compose.yaml:2:12: the image 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("can't be pulled"), "{text}");
    assert!(error.help().unwrap().contains("docker pull"));

    project.write("services: {a: {image: none, pull_policy: never}}");
    let (_, text) = said(&project).await;
    assert!(text.contains("`pull_policy: never` forbids"), "{text}");
    assert_eq!(
        project.left().await,
        [0, 0, 0],
        "nothing is made without the images"
    );
}

#[tokio::test]
async fn a_taken_port_is_named_with_who_has_it() {
    let Some(engine) = engine().await else { return };
    let port = free_port();
    let text = format!(
        "services: {{web: {{image: IMAGE, stop_grace_period: 0s, ports: ['127.0.0.1:{port}:80']}}}}"
    );
    let first = TestProject::new(&engine, &text);
    first.up().await.unwrap();
    let second = TestProject::new(&engine, &text);
    let (error, text) = said(&second).await;
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(
        text.contains(&format!("the container {}", first.container("web"))),
        "{text}"
    );
    assert!(error.help().is_some());

    // When the port is free, the next `up` goes on.
    first.down(true).await.unwrap();
    second.up().await.unwrap();
    second.down(true).await.unwrap();

    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (error, text) = said(&second).await;
    let EngineError::PortTaken {
        address, holder, ..
    } = error
    else {
        panic!("{text}")
    };
    assert_eq!(address, format!("127.0.0.1:{port}"));
    assert_eq!(holder, None, "no container has it");
}

#[tokio::test]
async fn names_of_others_are_left_to_them() {
    let Some(engine) = engine().await else { return };
    let first = TestProject::new(&engine, "services: {}");
    let taken = format!("{}-taken", first.name);
    let network = format!("networks: {{default: {{name: {taken}}}}}");
    let volume = format!("volumes: {{v: {{name: {taken}}}}}");
    let service = format!(
        "services: {{a: {{image: {IMAGE}, stop_grace_period: 0s, container_name: {taken}}}}}"
    );
    first.write(&format!("{service}\n{network}\n{volume}"));
    first.up().await.unwrap();

    let second = TestProject::new(&engine, "services: {}");
    let plain = format!("services: {{a: {{image: {IMAGE}, stop_grace_period: 0s}}}}");
    for (text, what) in [
        (service, "the container"),
        (format!("{plain}\n{network}"), "the network"),
        (format!("{plain}\n{volume}"), "the volume"),
    ] {
        second.write(&text);
        let (error, text) = said(&second).await;
        let EngineError::NameTaken {
            what: said,
            name,
            holder,
            ..
        } = &error
        else {
            panic!("{text}")
        };
        assert_eq!((*said, name), (what, &taken));
        assert!(holder.contains(&first.name), "{text}");
    }

    second.write(&format!(
        "{plain}\nnetworks: {{default: {{name: {taken}-none, external: true}}}}"
    ));
    let (error, text) = said(&second).await;
    assert!(matches!(error, EngineError::NoExternal { .. }), "{text}");

    // What is external is used, and outlives the project.
    second.write(&format!(
        "{plain}\nnetworks: {{default: {{name: {taken}, external: true}}}}\nvolumes: {{v: {{name: {taken}, external: true}}}}"
    ));
    second.up().await.unwrap();
    second.down(true).await.unwrap();
    assert_eq!(first.left().await, [1, 1, 1]);
    second.up().await.unwrap();
    let error = first.down(true).await.unwrap_err();
    let EngineError::NetworkUsed { users, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(users, &[second.container("a")]);
    second.down(true).await.unwrap();
}
