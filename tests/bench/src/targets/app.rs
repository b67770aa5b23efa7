//! The reference application with the seed's APIs and one machine program, in images that
//! can be built where no registry can be asked.

use crate::project::{Project, copy};
use crate::{Failure, checkout};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the images build on; made by `cargo xtask needs`.
const BASE: &str = "devenv-test/base:1";

/// What is edited, in the order of [`Containers::save`].
pub const LANGUAGES: [&str; 3] = ["Python", "Node.js", "a built program"];

const SEEN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// What all of this needs.
pub struct Tools {
    /// The real kind,
    pub kind: PathBuf,
    /// the image of its nodes,
    pub node: String,
    /// and that of a MySQL.
    pub mysql: String,
}

impl Tools {
    /// # Errors
    /// What is missing.
    pub fn find() -> Result<Self, Failure> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                format!("{name} is not set: `cargo xtask bench` does so where `cargo xtask needs` has made what the tests of kind need")
            })
        };
        Ok(Self {
            kind: variable("DEVENV_TEST_KIND")?.into(),
            node: variable("DEVENV_TEST_KIND_NODE")?,
            mysql: variable("DEVENV_TEST_MYSQL_IMAGE")?,
        })
    }

    /// PATH with kind in it.
    pub fn path(&self) -> Result<std::ffi::OsString, Failure> {
        let own = self.kind.parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(
            own.into_iter().chain(std::env::split_paths(&path)),
        )?)
    }
}

/// One copy.
pub struct Containers {
    project: Project,
}

impl Containers {
    pub fn new(tools: &Tools, name: &'static str) -> Result<Self, Failure> {
        let mut project = Project::new()?;
        project.set("PATH", tools.path()?);
        project.set("DEVENV_KIND_NODE_IMAGE", tools.node.clone().into());
        let checkout = checkout();
        for folder in ["services/seed", "compose", "tests/offline/binary"] {
            copy(&checkout.join(folder), &project.path().join(folder))?;
        }
        let env = format!("MYSQL_IMAGE={}\nCOMPOSE_PROJECT_NAME={name}\n", tools.mysql);
        fs::write(project.path().join("compose/.env"), env)?;
        configure(project.path(), name)?;
        Ok(Self { project })
    }

    pub fn path(&self) -> &Path {
        self.project.path()
    }

    /// `devenv up -d` until all is ready.
    pub fn up(&self, words: &[&str]) -> Result<Duration, Failure> {
        let up = ["up", "-d", "--profile", "seed", "--timeout", "5m"];
        Ok(self.project.run(&[&up[..], words].concat())?.1)
    }

    /// `devenv down`; what is there stays for the next `up`.
    pub fn stop(&self) -> Result<Duration, Failure> {
        Ok(self.project.run(&["down"])?.1)
    }

    /// `devenv down -v`.
    pub fn down(&self) {
        self.project.down();
    }

    /// Saves a file of that language's service; how long until its new version answered.
    pub fn save(&self, language: usize) -> Result<Duration, Failure> {
        let (file, comment) = [
            ("services/seed/api1/app/__main__.py", "#"),
            ("services/seed/api2/src/main.js", "//"),
            ("services/api3/edited", "//"),
        ][language];
        let known = self.project.reloads()?.len();
        let path = self.path().join(file);
        let mut source = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        writeln!(source, "{comment} {:?}", Instant::now())?;
        drop(source);
        let deadline = Instant::now() + SEEN;
        while Instant::now() < deadline {
            let new = self.project.reloads()?.into_iter().skip(known);
            let answered = |r: &Value| r["ms"]["first_byte"].as_u64();
            if let Some(ms) = new.clone().find_map(|r| answered(&r)) {
                return Ok(Duration::from_millis(ms));
            }
            if let Some(bad) = new.clone().find(|r| !r["error"].is_null()) {
                return Err(format!("{file}: {bad}").into());
            }
            std::thread::sleep(LOOK);
        }
        Err(format!("{file}: no new version answered within {SEEN:?}").into())
    }

    /// Has api2's image built and rolled out, its source changed.
    pub fn rebuild(&self) -> Result<Duration, Failure> {
        Ok(self.project.run(&["reload", "api2"])?.1)
    }
}

/// The images of the copy: the seed's as their Dockerfiles make them, the others of the
/// optimised programs; api3's is laid over by what a build makes.
fn configure(project: &Path, name: &str) -> Result<(), Failure> {
    let file = project.join("devenv.toml");
    let mut config: toml::Table = fs::read_to_string(&file)?.parse()?;
    let table = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        toml::Value::Table(pairs.map(|(k, v)| ((*k).to_owned(), (*v).into())).collect())
    };
    let at = |config: &mut toml::Table, path: &[&str]| -> Result<toml::Table, Failure> {
        let mut value = config.get(path[0]).cloned();
        for key in &path[1..] {
            value = value.and_then(|v| v.get(key).cloned());
        }
        let table = value.and_then(|v| v.as_table().cloned());
        table.ok_or_else(|| format!("devenv.toml has no [{}]", path.join(".")).into())
    };
    let mut own = at(&mut config, &["project"])?;
    own.insert("name".into(), name.into());
    config.insert("project".into(), own.into());
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let ingress = [("http_port".to_owned(), i64::from(port).into())];
    config.insert("ingress".into(), toml::Table::from_iter(ingress).into());

    let mut images = at(&mut config, &["image"])?;
    for (name, image) in &mut images {
        let image = image.as_table_mut().ok_or("[image.NAME] is no table")?;
        let context = project.join("offline").join(name);
        fs::create_dir_all(context.join("files"))?;
        fs::write(context.join("files/.keep"), "")?;
        fs::copy(project.join("bin").join(name), context.join("program"))?;
        image.insert(
            "args".into(),
            table(&[("BASE", BASE), ("PROGRAM", "program")]),
        );
        image.insert("context".into(), format!("offline/{name}").into());
        image.insert(
            "dockerfile".into(),
            "tests/offline/binary/Dockerfile".into(),
        );
    }
    copy(
        &project.join("services/frontend/web/dist"),
        &project.join("offline/frontend/files/dist"),
    )?;
    let program = images
        .get_mut("api3")
        .and_then(toml::Value::as_table_mut)
        .ok_or("devenv.toml has no [image.api3]")?;
    fs::write(project.join("services/api3/edited"), "")?;
    let build = "cp offline/api3/program made && cat services/api3/edited >> made";
    program.insert("build".into(), build.into());
    program.insert("run".into(), vec!["./made"].into());
    program.insert("sync".into(), table(&[("made", "/app/program")]));
    config.insert("image".into(), images.into());

    let mut profile = at(&mut config, &["profile", "seed"])?;
    let seed = profile.get_mut("image").and_then(toml::Value::as_table_mut);
    let seed = seed.ok_or("devenv.toml has no [profile.seed.image]")?;
    seed.remove("api3");
    for (_, image) in seed.iter_mut() {
        let image = image.as_table_mut().ok_or("[image.NAME] is no table")?;
        image.insert("args".into(), table(&[("BASE", BASE)]));
        // Of the programs that the same images are without the profile.
        image.insert("build".into(), false.into());
    }
    let profiles = toml::Table::from_iter([("seed".to_owned(), profile.into())]);
    config.insert("profile".into(), profiles.into());
    fs::write(file, config.to_string())?;
    Ok(())
}

/// A program's stdout, where it succeeds.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{command:?} ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
