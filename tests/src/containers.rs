//! The reference application for pods in containers, from images that can be built where
//! no registry can be asked; and what a Docker Engine has.

use crate::project::{Project, Services, copy_folder};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Debian with Python, Node.js and npm, made by `cargo xtask needs`.
pub const BASE: &str = "devenv-test/base:1";
/// Debian's MySQL, with the official image's variables.
pub const MYSQL: &str = "devenv-test/mysql:9";

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
