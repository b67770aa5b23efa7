//! The reference application for pods in containers, from images that can be built where
//! no registry can be asked; and what a Docker Engine has.

use crate::editing::{newest_reload, reload_after, save, set_version};
use crate::paced::{Body, Pace, Paced};
use crate::project::{Project, Services, copy_folder};
use crate::until;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian with Python, Node.js and npm, made by `cargo xtask needs`.
pub const BASE: &str = "devenv-test/base:1";
/// Debian's MySQL, with the official image's variables.
pub const MYSQL: &str = "devenv-test/mysql:9-3";

/// The reference application with its services built, whose images build on [`BASE`]:
/// those of Rust programs hold this workspace's own builds, those of the seed are built
/// by their Dockerfiles. Nothing, said, where there is no engine or image.
pub fn reference() -> Option<Project> {
    for image in [BASE, MYSQL] {
        if docker(&["image", "inspect", image]).is_err() {
            crate::skip(&format!(
                "no Docker Engine with the image {image}; see `cargo xtask needs`"
            ));
            return None;
        }
    }
    let project = Project::copy(Services::Prebuilt);
    let path = project.path().to_owned();
    project.configure(|config| {
        let images = config["image"].as_table_mut().expect("images");
        for (name, image) in images.iter_mut() {
            let image = image.as_table_mut().expect("[image.NAME] is a table");
            let context = format!("offline/{name}");
            let program = image["run"][0].as_str().expect("a program");
            into_context(&path, program, &path.join(&context));
            let args = [("BASE", BASE), ("PROGRAM", "program")];
            image.insert("args".into(), table(&args));
            image.insert("context".into(), context.into());
            image.insert(
                "dockerfile".into(),
                "tests/offline/binary/Dockerfile".into(),
            );
        }
        let seed = config["profile"]["seed"]["image"]
            .as_table_mut()
            .expect("images");
        for (_, image) in seed.iter_mut() {
            let image = image.as_table_mut().expect("[image.NAME] is a table");
            image.insert("args".into(), table(&[("BASE", BASE)]));
        }
    });
    let page = path.join("services/frontend/web/dist");
    copy_folder(&page, &path.join("offline/frontend/files/dist"));
    // Nobody else's database is to be taken for the test's.
    let name = compose_project(&project);
    let env = format!("MYSQL_IMAGE={MYSQL}\nCOMPOSE_PROJECT_NAME={name}\n");
    project.write("compose/.env", &env);
    Some(project)
}

/// The reference application for a kind cluster of its own, on the node that can be made where
/// no registry can be asked. Nothing, said, where there is no kind or no node.
pub fn reference_for_kind(name: &str) -> Option<Project> {
    let kind = std::env::var_os("DEVENV_TEST_KIND").map(PathBuf::from);
    let node = std::env::var("DEVENV_TEST_KIND_NODE").ok();
    let (Some(kind), Some(node)) = (kind, node) else {
        crate::skip("no kind with a node's image; see `cargo xtask needs`");
        return None;
    };
    let mut project = reference()?;
    let folder = kind.parent().unwrap_or(&kind).to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).expect("folders without colons");
    project.set_variable("PATH", path);
    project.set_variable("DEVENV_KIND_NODE_IMAGE", node);
    // What a test that was killed has left: nobody else has a cluster of this name.
    let cluster = format!("devenv-{name}");
    let label = format!("label=io.x-k8s.kind.cluster={cluster}");
    let left = docker(&["ps", "-aq", "--filter", &label]).expect("the engine answers");
    for container in left.lines() {
        docker(&["rm", "-fv", container]).expect("the engine removes it");
    }
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = port.local_addr().expect("it is bound").port();
    // Kubernetes tells a pod to end and its proxies that it does at the same moment: as in
    // production, it answers until all of them have heard of it.
    for api in ["api1", "api2", "api3"] {
        let file = project.path().join(format!("kind/base/{api}.yaml"));
        let text = fs::read_to_string(&file).expect("the Deployment");
        let image = format!("          image: {api}\n");
        assert!(text.contains(&image), "{api}: {text}");
        let hook = "          lifecycle: {preStop: {exec: {command: [sleep, \"3\"]}}}\n";
        fs::write(&file, text.replace(&image, &format!("{image}{hook}"))).expect("written");
    }
    project.configure(|config| {
        config["project"]["name"] = name.into();
        let ingress = [("http_port".to_owned(), i64::from(port).into())];
        let ingress: toml::Table = ingress.into_iter().collect();
        config.insert("ingress".into(), ingress.into());
    });
    Some(project)
}

/// The name of the Compose project of a project.
///
/// # Panics
/// When its folder has no name.
pub fn compose_project(project: &Project) -> String {
    let folder = project.path().file_name().expect("a folder has a name");
    format!("devenv-test-{}", folder.to_string_lossy().to_lowercase())
}

fn table(pairs: &[(&str, &str)]) -> toml::Value {
    let pairs = pairs.iter();
    let pairs = pairs.map(|(key, value)| ((*key).to_owned(), toml::Value::from(*value)));
    toml::Value::Table(pairs.collect())
}

fn into_context(project: &Path, program: &str, context: &Path) {
    fs::create_dir_all(context.join("files")).expect("a folder in the copy");
    // The folder must be there for COPY, and git keeps no empty one.
    fs::write(context.join("files/.keep"), "").expect("a file in the copy");
    fs::copy(project.join(program), context.join("program")).expect("a program is copied");
}

/// What the client of the engine prints.
///
/// # Errors
/// What it says when it fails.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What the engine knows an image by.
///
/// # Panics
/// When it has no such image.
pub fn image_id(image: &str) -> String {
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", image]);
    let id = id.unwrap_or_else(|e| panic!("{image}: {e}"));
    id.trim().to_owned()
}

/// What the engine knows the images by that a system of the project `name` runs, by the names
/// of its manifests and its Compose file.
pub fn image_ids(name: &str) -> BTreeMap<String, String> {
    let built = |api: &str| image_id(&format!("devenv/{name}-{api}:latest"));
    let own = ["api1", "api2", "api3", "frontend"].map(|api| (api.to_owned(), built(api)));
    own.into_iter()
        .chain([(MYSQL.to_owned(), image_id(MYSQL))])
        .collect()
}

/// Waits until the running system tells of exactly those images that are built now.
async fn tells_its_images(project: &Project) {
    let mut told = serde_json::Value::Null;
    let same = until(SEEN, Duration::from_millis(100), async || {
        let status = project.status().await;
        let endpoints = &status["endpoints"];
        let name = endpoints["project"].as_str().unwrap_or_default();
        let digest = |id| serde_json::json!({"digest": id});
        let ids = image_ids(name).into_iter();
        let expected: BTreeMap<_, _> = ids.map(|(image, id)| (image, digest(id))).collect();
        told = endpoints["images"].clone();
        (told == serde_json::json!(expected)).then_some(())
    });
    let same = same.await;
    assert!(same.is_some(), "{told:#}");
}

/// All containers, networks and volumes of the engine, by kind and name.
///
/// # Panics
/// When the engine does not answer.
pub fn everything() -> BTreeSet<String> {
    let lists = [
        ("container", &["ps", "-a", "--format", "{{.Names}}"][..]),
        ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ("volume", &["volume", "ls", "--format", "{{.Name}}"]),
    ];
    let mut found = BTreeSet::new();
    for (kind, words) in lists {
        let listed = docker(words).expect("the engine answers");
        found.extend(listed.lines().map(|name| format!("{kind} {name}")));
    }
    found
}

/// What is on the engine and was not there `before`.
pub fn new_since(before: &BTreeSet<String>) -> Vec<String> {
    everything().difference(before).cloned().collect()
}

/// The seed's APIs that take records, the file that gives each its version, and what stands
/// before it.
const SEED: [(&str, &str, &str); 2] = [
    ("Python", "services/seed/api1/app/__init__.py", "VERSION = "),
    ("NodeJS", "services/seed/api2/src/main.js", "version: "),
];
/// How long an edit may take to be seen.
const SEEN: Duration = Duration::from_secs(120);

/// Gives the seed's APIs the version from which [`edits_lose_nothing`] counts.
pub fn prepare_edits(project: &Project) {
    for (_, file, marker) in SEED {
        set_version(&project.path().join(file), marker, 0);
    }
}

/// So many edits of each of the seed's APIs, under so many requests a second, then a save
/// whose image can't be built, and the next good one: no request fails, and every version
/// answers.
///
/// # Panics
/// When that is not so.
pub async fn edits_lose_nothing(project: &Project, rate: u32, edits: u32, prefix: &str) {
    tells_its_images(project).await;
    let ingress = format!("{}/api", project.ingress().await);
    let pace = Pace { rate, at_once: 64 };
    let name = project.status().await["endpoints"]["project"].clone();
    let image = format!("devenv/{}-api2:latest", name.as_str().expect("its name"));
    let built = || docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
    let at_up = built();
    let mut load = Paced::start(&ingress, Body::Record, pace, prefix);
    for n in 1..=edits {
        for (api, file, marker) in SEED {
            load.until_calm(SEEN).await;
            load.saving(api, n);
            set_version(&project.path().join(file), marker, n);
            load.until_seen(api, n, SEEN).await;
        }
    }
    // What was saved is laid over the image; this one has to be built.
    assert_eq!(built(), at_up, "{image}");
    let dockerfile = project.path().join("services/seed/api2/Dockerfile");
    let good = fs::read_to_string(&dockerfile).expect("the Dockerfile");
    let known = newest_reload(project).await;
    let wrong = format!("{good}RUN echo this is wrong && exit 7\n");
    save(&dockerfile, &wrong, true);
    let failed = reload_after(project, known, SEEN, |r| r["outcome"] == "build-failed").await;
    let said = failed["error"].to_string();
    assert!(said.contains("this is wrong"), "{failed:#}");
    save(&dockerfile, &good, true);
    let mended = until(SEEN, Duration::from_millis(50), async || {
        let troubles = project.status().await["troubles"].as_array().map(Vec::len);
        (troubles == Some(0)).then_some(())
    });
    assert!(mended.await.is_some(), "{:#}", project.status().await);
    let seen = load.stop().await;
    println!(
        "{} answers, the slowest after {:.0?}",
        seen.answers, seen.longest
    );
    seen.assert_whole(&SEED.iter().map(|(api, ..)| (*api, edits)).collect());
    // Asked for, images are built as their Dockerfiles say, with all that was saved.
    let asked = project.run_within(SEEN, &["reload", "api1", "api2"]).await;
    assert!(asked.ok(), "{asked}");
    assert_ne!(built(), at_up, "{image}");
    tells_its_images(project).await;
}
