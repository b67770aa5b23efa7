//! The tools that people use for the same.

use super::app::{App, Edited, Workshop, free_port, prepared};
use super::poll::Answers;
use crate::{Failure, kept};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WATCHEXEC: &str = "watchexec-cli@2.8.0";
const NODEMON: &str = "nodemon@3.1.14";

/// Those that this machine has or got.
pub struct Tools {
    watchexec: Option<PathBuf>,
    nodemon: Option<PathBuf>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'t> {
    Watchexec(&'t PathBuf),
    Nodemon(&'t PathBuf),
    Uvicorn,
}

impl Tools {
    /// Installs into the build folder what is not there yet; says what can't be had.
    pub fn install() -> Result<Self, Failure> {
        let folder = kept("peers")?;
        let (cargo_root, npm_root) = (folder.join("cargo"), folder.join("npm"));
        let watchexec = cargo_root.join("bin/watchexec");
        let nodemon = npm_root.join("node_modules/nodemon/bin/nodemon.js");
        let mut cargo = Command::new("cargo");
        // How fast a tool that waits is compiled is not what is measured.
        cargo
            .args([
                "install", "--quiet", "--locked", "--debug", WATCHEXEC, "--root",
            ])
            .arg(&cargo_root)
            .env_remove("CARGO_TARGET_DIR");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", NODEMON, "--prefix"])
            .arg(&npm_root);
        Ok(Self {
            watchexec: obtained(watchexec, &mut cargo),
            nodemon: obtained(nodemon, &mut npm),
        })
    }

    /// Those that are used for such a service.
    pub fn of(&self, app: App) -> Vec<Peer<'_>> {
        let watchexec = self.watchexec.as_ref().map(Peer::Watchexec);
        let other = match app {
            App::Python => Some(Peer::Uvicorn),
            App::Node => self.nodemon.as_ref().map(Peer::Nodemon),
            App::Rust => None,
        };
        watchexec.into_iter().chain(other).collect()
    }
}

fn obtained(program: PathBuf, install: &mut Command) -> Option<PathBuf> {
    if program.is_file() {
        return Some(program);
    }
    eprintln!("installing {}", program.display());
    match install.stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() && program.is_file() => Some(program),
        Ok(status) => {
            eprintln!("left out, {install:?}: {status}");
            None
        }
        Err(error) => {
            eprintln!("left out, {install:?}: {error}");
            None
        }
    }
}

impl Peer<'_> {
    pub fn name(self) -> &'static str {
        match self {
            Self::Watchexec(_) => "watchexec --restart",
            Self::Nodemon(_) => "nodemon",
            Self::Uvicorn => "uvicorn --reload (watchfiles)",
        }
    }

    /// Starts the service under it, in the folder beside devenv's.
    pub fn start(self, workshop: &Workshop, app: App, edited: &Edited) -> Result<Running, Failure> {
        let port = free_port()?;
        let own = app.command(workshop, port);
        let path = |file: &PathBuf| file.to_string_lossy().into_owned();
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let all = match (self, app) {
            (Self::Watchexec(program), App::Rust) => {
                let line = format!("{} && exec {}", App::BUILD, own.join(" "));
                let watched = ["-w", "services/api1", "-w", "services/telemetry"];
                let rest = words(&["--", "sh", "-c", &line]);
                [
                    vec![path(program)],
                    words(&["-q", "-r", "--shell=none"]),
                    words(&watched),
                    rest,
                ]
                .concat()
            }
            (Self::Watchexec(program), _) => {
                let options = words(&["-q", "-r", "-w", ".", "--shell=none", "--"]);
                [vec![path(program)], options, own].concat()
            }
            (Self::Nodemon(program), _) => {
                let options = [path(program), "--quiet".to_owned(), "main.js".to_owned()];
                [vec!["node".to_owned()], options.to_vec()].concat()
            }
            (Self::Uvicorn, _) => [own, words(&["--reload"])].concat(),
        };
        let mut command = prepared(&all, &edited.folder(), port);
        let child = command.process_group(0).spawn()?;
        let answers = Answers::on(port, app.path());
        Ok(Running { child, answers })
    }
}

/// A tool and what it runs; both end when this goes away.
pub struct Running {
    child: Child,
    answers: Answers,
}

impl Running {
    pub fn answers(&self) -> &Answers {
        &self.answers
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, kill, killpg};
        use nix::unistd::Pid;
        let Ok(id) = i32::try_from(self.child.id()).map(Pid::from_raw) else {
            return;
        };
        // Asked first, as it ends what it runs, which may have a group of its own.
        let _ = kill(id, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = killpg(id, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
