//! What is edited: a service in each language, in a project of devenv's and in a copy
//! beside it for all others.

use super::poll::Answers;
use crate::project::{Project, copy_file};
use crate::{Failure, checkout, kept};
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// After an edit, until the old pods are gone.
const ROLLED: Duration = Duration::from_secs(60);

const PYTHON: &str = r#"from fastapi import FastAPI, Response

VERSION = "0.0.0"

app = FastAPI()


@app.get("/python")
async def hello(response: Response) -> dict[str, str]:
    response.headers["X-Service-Version"] = VERSION
    return {"hello": "world"}
"#;

/// `watchfiles` is what `uvicorn --reload` is recommended with.
const REQUIREMENTS: &str = "fastapi\nuvicorn\nuvloop\nhttptools\nwatchfiles\n";

const NODE: &str = r#"import express from "express";

const VERSION = "0.0.0";

const app = express();
app.get("/node", (request, response) => {
  response.set("X-Service-Version", VERSION).json({ hello: "world" });
});
app.listen(Number(process.env.PORT));
"#;

/// A language and its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// FastAPI on uvicorn.
    Python,
    /// Express.
    Node,
    /// The reference application's api1, in the workspace's dev profile.
    Rust,
}

impl App {
    pub const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Rust];

    /// The image's and the workload's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Rust => "rust",
        }
    }

    pub fn bench(self) -> &'static str {
        match self {
            Self::Python => "reload of Python (FastAPI, uvicorn)",
            Self::Node => "reload of Node.js (Express)",
            Self::Rust => "reload of Rust (services/api1, dev profile)",
        }
    }

    pub fn goal(self) -> &'static str {
        match self {
            Self::Python => "at most 1.2 times, under 800 ms, and faster than each other tool",
            Self::Node => "at most 1.2 times, under 400 ms, and faster than each other tool",
            Self::Rust => "under 2000 ms, and faster than each other tool",
        }
    }

    /// What is asked; needs no database.
    pub fn path(self) -> &'static str {
        match self {
            Self::Python => "/python",
            Self::Node => "/node",
            Self::Rust => "/healthz",
        }
    }

    /// The folder that a person would work in, from the project's.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Python => "bench/python",
            Self::Node => "bench/node",
            Self::Rust => ".",
        }
    }

    fn source(self) -> &'static str {
        match self {
            Self::Python => "bench/python/main.py",
            Self::Node => "bench/node/main.js",
            Self::Rust => "services/api1/src/main.rs",
        }
    }

    fn marker(self) -> &'static str {
        match self {
            Self::Python | Self::Node => "VERSION = \"",
            Self::Rust => "const VERSION: &str = \"",
        }
    }

    /// What has to be built by hand before a start.
    pub const BUILD: &str = "cargo build --quiet --locked -p api1 --target-dir target";

    pub fn build(self, workshop: &Workshop) -> Result<(), Failure> {
        if self != Self::Rust {
            return Ok(());
        }
        let status = Command::new("sh")
            .args(["-c", Self::BUILD])
            .current_dir(workshop.bare_folder())
            .stdin(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", Self::BUILD).into())
        }
    }

    /// The command by which people run it, in [`Self::folder`].
    pub fn command(self, workshop: &Workshop, port: u16) -> Vec<String> {
        match self {
            Self::Python => {
                let words =
                    ["-m", "uvicorn", "main:app", "--port", &port.to_string()].map(str::to_owned);
                [workshop.python.to_string_lossy().into_owned()]
                    .into_iter()
                    .chain(words)
                    .collect()
            }
            Self::Node => ["node", "main.js"].map(str::to_owned).to_vec(),
            Self::Rust => vec!["target/debug/api1".to_owned()],
        }
    }

    /// Starts it by hand.
    pub fn start(self, workshop: &Workshop, edited: &Edited) -> Result<Hand, Failure> {
        let port = free_port()?;
        let words = self.command(workshop, port);
        let child = prepared(&words, &edited.folder(), port).spawn()?;
        let answers = Answers::on(port, self.path());
        Ok(Hand { child, answers })
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A command with the environment that the services want.
pub fn prepared(words: &[String], folder: &Path, port: u16) -> Command {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .current_dir(folder)
        .env("PORT", port.to_string())
        .envs(ENVIRONMENT)
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// api1 wants to know where its database is, and starts without it.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("DB_HOST", "127.0.0.1"),
    ("DB_USER", "nobody"),
    ("DB_PASSWORD", "none"),
];

pub fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A service that was started by hand; it is killed when this goes away.
pub struct Hand {
    child: Child,
    answers: Answers,
}

impl Hand {
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A source file, saved with one version after the other.
pub struct Edited {
    root: PathBuf,
    app: App,
    saves: usize,
}

impl Edited {
    pub fn new(root: &Path, app: App) -> Self {
        let root = root.to_path_buf();
        Self {
            root,
            app,
            saves: 0,
        }
    }

    /// Where its service is run.
    pub fn folder(&self) -> PathBuf {
        self.root.join(self.app.folder())
    }

    /// How often it was saved.
    pub fn saves(&self) -> usize {
        self.saves
    }

    /// The version that it has now.
    pub fn version(&self) -> String {
        // Far from those that the sources come with.
        format!("{}.0.0", 100 + self.saves)
    }

    /// Writes the next version; the moment when that was done, and the version.
    pub fn save(&mut self) -> Result<(Instant, String), Failure> {
        let file = self.root.join(self.app.source());
        let text = fs::read_to_string(&file)?;
        let marker = self.app.marker();
        let (head, tail) = text
            .split_once(marker)
            .ok_or_else(|| format!("{}: no {marker}", file.display()))?;
        let (_, tail) = tail.split_once('"').ok_or("the version is not closed")?;
        self.saves += 1;
        let version = self.version();
        fs::write(&file, format!("{head}{marker}{version}\"{tail}"))?;
        Ok((Instant::now(), version))
    }
}

/// The two folders with all services, the first of them up.
pub struct Workshop {
    project: Project,
    bare: tempfile::TempDir,
    /// The interpreter of the virtual environment that devenv made: all use it.
    python: PathBuf,
    /// Where devenv's ingress listens.
    pub ingress: SocketAddr,
}

impl Workshop {
    pub fn new() -> Result<Self, Failure> {
        // Always the same folders: cargo knows a package by its path.
        let bare = Project::folder("bb-bench-bare")?;
        let project = Project::within(Project::folder("bb-bench-reload")?)?;
        for (folder, name) in [(project.path(), "reload"), (bare.path(), "bare")] {
            fill(folder)?;
            // Across file systems nothing is kept, and all is compiled.
            let _ = fs::rename(kept(name)?.join("target"), folder.join("target"));
        }
        write(project.path())?;
        let mut workshop = Self {
            project,
            bare,
            python: PathBuf::new(),
            ingress: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        workshop.project.run(&["up", "-d", "--timeout", "30m"])?;
        let url = workshop.project.run(&["url", "ingress"])?.0;
        let authority = url
            .trim()
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let with_port = match authority.rsplit_once(':') {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:80"),
        };
        workshop.ingress = with_port
            .parse()
            .map_err(|error| format!("{url}: {error}"))?;
        workshop.python = venv(&workshop.project.path().join(".devenv/venvs"))?;
        // The same dependencies in the same profile need not be compiled twice.
        if !workshop.bare_folder().join("target").exists() {
            let folders = [workshop.devenv_folder(), workshop.bare_folder()];
            let mut copy = Command::new("cp");
            copy.arg("-a")
                .args(folders.map(|folder| folder.join("target")));
            copy.status()?;
        }
        App::Rust.build(&workshop)?;
        let words = ["ci", "--no-audit", "--no-fund"].map(str::to_owned);
        let npm = [vec!["npm".to_owned()], words.to_vec()].concat();
        let status =
            prepared(&npm, &workshop.bare_folder().join(App::Node.folder()), 0).status()?;
        if !status.success() {
            return Err(format!("npm ci: {status}").into());
        }
        Ok(workshop)
    }

    pub fn devenv_folder(&self) -> &Path {
        self.project.path()
    }

    pub fn bare_folder(&self) -> &Path {
        self.bare.path()
    }

    /// The reloads of one service that went well.
    pub fn reloads(&self, app: App) -> Result<Vec<Value>, Failure> {
        let mut all = self.project.reloads()?;
        all.retain(|r| r["what"] == app.name() && r["outcome"] == "reloaded");
        Ok(all)
    }

    /// Waits until the reload of the last save is over, so that its end does not take
    /// from what is measured next.
    pub fn until_rolled(&self, edited: &Edited) -> Result<(), Failure> {
        let start = Instant::now();
        while self.reloads(edited.app)?.len() < edited.saves() {
            if start.elapsed() > ROLLED {
                return Err(format!("the reload of {} is not over", edited.app).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.project.down();
        for (folder, name) in [(self.project.path(), "reload"), (self.bare.path(), "bare")] {
            if let Ok(kept) = kept(name) {
                let _ = fs::rename(folder.join("target"), kept.join("target"));
            }
        }
    }
}

/// The interpreter in the one virtual environment.
fn venv(folder: &Path) -> Result<PathBuf, Failure> {
    let found = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path().join("bin/python"))
        .find(|python| python.is_file());
    found.ok_or_else(|| format!("no virtual environment in {}", folder.display()).into())
}

/// The workspace, as git knows it, and the two small services.
fn fill(folder: &Path) -> Result<(), Failure> {
    let checkout = checkout();
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&checkout)
        .output()?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    for file in String::from_utf8(output.stdout)?.split_terminator('\0') {
        if checkout.join(file).is_file() {
            copy_file(&checkout, folder, file)?;
        }
    }
    for app in [App::Python, App::Node] {
        fs::create_dir_all(folder.join(app.folder()))?;
    }
    fs::write(folder.join(App::Python.source()), PYTHON)?;
    fs::write(folder.join("bench/python/requirements.txt"), REQUIREMENTS)?;
    fs::write(folder.join(App::Node.source()), NODE)?;
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        let from = checkout.join("services/seed/api2").join(file);
        fs::copy(from, folder.join(App::Node.folder()).join(file))?;
    }
    Ok(())
}

/// What makes it a project of devenv's.
fn write(folder: &Path) -> Result<(), Failure> {
    let build = App::BUILD;
    let config = format!(
        r#"[project]
name = "reload"
namespace = "reload"
manifests = ["bench/k8s"]

[image.python]
source = "bench/python"
run = ["python", "-m", "uvicorn", "main:app", "--host", "0.0.0.0", "--port", "5000"]

[image.node]
source = "bench/node"
run = ["node", "main.js"]

[image.rust]
source = "services/api1"
workdir = "."
watch = ["services/api1", "services/telemetry", "Cargo.toml", "Cargo.lock"]
build = "{build}"
run = ["target/debug/api1"]
"#
    );
    fs::write(folder.join("devenv.toml"), config)?;
    fs::create_dir_all(folder.join("bench/k8s"))?;
    let services = App::ALL.map(|app| (app.name(), app.path()));
    let manifests = manifests("reload", &services);
    fs::write(folder.join("bench/k8s/app.yaml"), manifests)?;
    Ok(())
}

/// Deployments behind an Ingress, each with the path that it is probed at.
pub fn manifests(namespace: &str, services: &[(&str, &str)]) -> String {
    let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    let mut env = "{name: PORT, value: \"5000\"}".to_owned();
    for (name, value) in ENVIRONMENT {
        let _ = write!(env, ", {{name: {name}, value: {value}}}");
    }
    let mut paths = String::new();
    for (name, path) in services {
        let _ = write!(
            text,
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: {name}
        image: {name}
        ports: [{{containerPort: 5000}}]
        env: [{env}]
        readinessProbe: {{httpGet: {{path: {path}, port: 5000}}, periodSeconds: 5}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 5000}}]
"
        );
        let _ = writeln!(
            paths,
            "      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}"
        );
    }
    text + "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bench}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
" + &paths
}
