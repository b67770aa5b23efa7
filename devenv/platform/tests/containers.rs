//! Images built by a real Docker Engine, by both of its builders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use devenv_model::{Command, ContainerBuild, ImageSource, Origin, Reload, SyncPath};
use devenv_platform::ContainerEngine;
use devenv_platform::containers::{Built, Files};
use futures_util::TryStreamExt;
use rstest::rstest;

/// The engine; nothing, said, where there is none.
async fn engine() -> Option<ContainerEngine> {
    match ContainerEngine::connect().await {
        Ok(engine) => Some(engine),
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
            println!("skipped: {error}");
            None
        }
    }
}

fn source(dir: &Path, dockerfile: &str) -> ImageSource {
    fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
    ImageSource {
        name: format!("test-{}", std::process::id()),
        source: dir.to_owned(),
        watch: Vec::new(),
        ignore: Vec::new(),
        install: None,
        build: None,
        run: Command::Argv(vec!["x".into()]),
        entrypoint: 1,
        debug: None,
        reload: Reload::Restart,
        workdir: dir.to_owned(),
        image_workdir: None,
        env: BTreeMap::new(),
        python: None,
        container: Some(ContainerBuild {
            dockerfile: dir.join("Dockerfile"),
            context: dir.to_owned(),
            target: None,
            args: BTreeMap::from([("GREETING".to_owned(), "hola".to_owned())]),
            sync: Vec::new(),
            sync_builds: false,
        }),
        inferred: Vec::new(),
        origin: Origin {
            file: "devenv.toml".into(),
            line: 7,
            column: 1,
        },
    }
}

/// A static busybox is in the context, so that steps can run without a base image.
fn with_busybox(dir: &Path) {
    fs::copy("/bin/busybox", dir.join("busybox"))
        .expect("a static busybox: install busybox-static");
}

const GOOD: &str = r#"
FROM scratch AS base
ARG GREETING
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo building NONCE; echo $GREETING > /greeting"]
FROM base
WORKDIR /srv
ENV A=b
USER 1234
STOPSIGNAL SIGQUIT
COPY data data
ENTRYPOINT ["/bin/busybox", "cat"]
CMD ["/greeting"]
"#;

#[rstest]
#[case::buildkit(true)]
#[case::classic(false)]
#[tokio::test]
async fn an_image_is_built_and_looked_at(#[case] buildkit: bool) {
    let Some(engine) = engine().await else { return };
    let engine = engine.with_buildkit(buildkit);
    let dir = tempfile::tempdir().expect("a folder");
    with_busybox(dir.path());
    fs::create_dir(dir.path().join("data")).expect("made");
    fs::write(dir.path().join("data/kept"), "1").expect("written");
    fs::write(dir.path().join("data/left-out"), "1").expect("written");
    fs::write(dir.path().join(".dockerignore"), "data/left-out\n").expect("written");
    // One that no cache has.
    let nonce = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    let nonce = nonce.as_nanos().to_string();
    let source = source(dir.path(), &GOOD.replace("NONCE", &nonce));
    let lines = Mutex::new(Vec::new());
    let told = |line: String| lines.lock().expect("not poisoned").push(line);
    let built = engine.build("p", &source, &told).await;
    let lines = || lines.lock().expect("not poisoned").clone();
    let built = built.unwrap_or_else(|e| panic!("{e}: {:?}\n{:#?}", e.output(), lines()));
    assert!(
        lines()
            .iter()
            .any(|line| *line == format!("building {nonce}")),
        "{:#?}",
        lines()
    );
    assert_eq!(built.entrypoint, 2);
    assert_eq!(built.run.argv, ["/bin/busybox", "cat", "/greeting"]);
    assert_eq!(built.run.cwd, Path::new("/srv"));
    assert!(
        built.run.env.contains(&("A".into(), "b".into())),
        "{:?}",
        built.run.env
    );
    let image = built.run.container.as_ref().expect("of an engine");
    assert_eq!(image.user.as_deref(), Some("1234"));
    assert_eq!(image.stop_signal.as_deref(), Some("SIGQUIT"));

    // What is left out changes nothing, and what counts does.
    fs::write(dir.path().join("data/left-out"), "2").expect("written");
    let again = engine.build("p", &source, &told).await.expect("built");
    assert_eq!(again.run, built.run);
    fs::write(dir.path().join("data/kept"), "2").expect("written");
    let other = engine.build("p", &source, &told).await.expect("built");
    assert_ne!(other.run, built.run);
}

/// What a container of this image prints.
async fn run(engine: &ContainerEngine, image: &str, argv: &[&str]) -> String {
    let docker = engine.engine().docker();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(argv.iter().map(|a| (*a).to_owned()).collect()),
        network_disabled: Some(true),
        ..ContainerCreateBody::default()
    };
    let made = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await
        .expect("made");
    let started = docker.start_container(&made.id, None::<StartContainerOptions>);
    started.await.expect("started");
    // What it says is whole once it has ended.
    let none = None::<WaitContainerOptions>;
    let ended: Result<Vec<_>, _> = docker.wait_container(&made.id, none).try_collect().await;
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true);
    let lines: Vec<_> = docker
        .logs(&made.id, Some(options.build()))
        .try_collect()
        .await
        .expect("logs");
    let force = RemoveContainerOptionsBuilder::new().force(true).v(true);
    docker
        .remove_container(&made.id, Some(force.build()))
        .await
        .expect("removed");
    let said: String = lines.iter().map(ToString::to_string).collect();
    ended.unwrap_or_else(|error| panic!("{error}: {said}"));
    said
}

#[tokio::test]
async fn what_is_saved_is_laid_over_an_image() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().expect("a folder");
    with_busybox(dir.path());
    for (file, text) in [("data/deep/kept", "1"), ("data/other", "1")] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    let mut source = source(dir.path(), GOOD);
    let build = source.container.as_mut().expect("a Dockerfile");
    build.sync = vec![SyncPath {
        from: dir.path().join("data"),
        to: "/srv/data".to_owned(),
    }];
    let build = build.clone();
    let base = engine.build("p", &source, &|_| ()).await.expect("built");
    let mut expected = base.run.clone();
    let changed = ["data/deep/kept", "data/new/file"].map(|file| {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, "saved").expect("written");
        path
    });
    let files = || {
        let changed = changed.iter().map(std::path::PathBuf::as_path);
        let files = Files::of(&build, changed, |_| true).expect("read");
        files.expect("nothing to build")
    };
    let laid = engine.lay_over("p", &source, &base, &files()).await;
    let laid = laid.expect("laid over");
    assert!(laid.layer.is_none(), "the engine has it");
    let id = laid.run.container.as_ref().expect("an image").id.clone();
    let show = "cd /srv/data; /bin/busybox cat deep/kept other new/file";
    let said = run(&engine, &id, &["/bin/busybox", "sh", "-c", show]).await;
    assert_eq!(said, "saved1saved");
    // All else is as it was built.
    expected.container.clone_from(&laid.run.container);
    assert_eq!(laid.run, expected);
    let user = |built: &Built| built.run.container.as_ref().and_then(|c| c.user.clone());
    assert_eq!(user(&laid).as_deref(), Some("1234"));

    // For nodes it is a layer, and another image whenever it is another one.
    let nodes = engine.clone().for_nodes();
    let laid = nodes.lay_over("p", &source, &base, &files()).await;
    let laid = laid.expect("laid over");
    let layer = laid.layer.as_ref().expect("a layer");
    let id = |built: &Built| built.run.container.as_ref().map(|c| c.id.clone());
    assert_eq!(Some(&layer.base), id(&base).as_ref());
    assert_ne!(id(&laid), id(&base));
    fs::write(&changed[0], "saved again").expect("written");
    let again = nodes.lay_over("p", &source, &base, &files()).await;
    assert_ne!(id(&again.expect("laid over")), id(&laid));
}

#[rstest]
#[case::buildkit(true)]
#[case::classic(false)]
#[tokio::test]
async fn a_step_that_fails_is_told_with_what_it_said(#[case] buildkit: bool) {
    let Some(engine) = engine().await else { return };
    let engine = engine.with_buildkit(buildkit);
    let dir = tempfile::tempdir().expect("a folder");
    with_busybox(dir.path());
    let broken = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo what is wrong; exit 7\"]\n";
    let source = source(dir.path(), broken);
    let error = engine
        .build("p", &source, &|_| ())
        .await
        .expect_err("it fails");
    assert!(
        error.output().is_some_and(|o| o.contains("what is wrong")),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(said.contains(&source.name) && said.contains('7'), "{said}");
}

#[tokio::test]
async fn without_a_dockerfile_the_way_to_one_is_told() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let mut source = source(dir.path(), GOOD);
    source.container = None;
    let error = engine
        .build("p", &source, &|_| ())
        .await
        .expect_err("nothing to build");
    let said = error.to_string();
    assert!(
        said.starts_with("devenv.toml:7:1: ") && said.contains("dockerfile = "),
        "{said}"
    );
}
