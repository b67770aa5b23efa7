//! A supervisor in the background: how it is started, and what it says until it is ready.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use devenv_engine::{event::Event, state::StateDir};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{commands::PodArgs, error::CliError};

/// What it is to hold up.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The project's folder.
    pub root: PathBuf,
    /// `-n`.
    pub namespace: Option<String>,
    /// The profile of devenv.toml.
    pub profile: Option<String>,
    /// How long workloads may take to get ready.
    pub timeout: Duration,
    /// Whether saved files are reloaded.
    pub watch: bool,
    /// What pods are and how they are kept apart.
    pub pods: PodArgs,
}

/// A supervisor's process. It goes on when this is dropped.
#[derive(Debug)]
pub struct Supervisor {
    /// The process; with its stdin where it is tied to that.
    pub process: Child,
    /// What it says beside its events.
    pub log: PathBuf,
    events: Lines<BufReader<ChildStdout>>,
}

impl Launch {
    /// Starts it for the system with this state folder, which exists; of a run it is tied
    /// to its stdin.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, state: &StateDir) -> Result<Supervisor, CliError> {
        let path = state.log();
        // Whoever gets the lock empties it; until then it may be another's.
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io("write the supervisor's log"))?;
        let exe = std::env::current_exe().map_err(io("find this program's own file"))?;
        let mut process = self.command(&exe, state.run_id(), log).spawn();
        let stdout = process.as_mut().ok().and_then(|p| p.stdout.take());
        let process = process.map_err(io("start the supervisor"))?;
        let Some(stdout) = stdout else {
            return Err(CliError::SupervisorGone(path));
        };
        Ok(Supervisor {
            process,
            log: path,
            events: BufReader::new(stdout).lines(),
        })
    }

    fn command(&self, exe: &Path, run: Option<&str>, log: fs::File) -> Command {
        let mut command = Command::new(exe);
        command
            .arg("-C")
            .arg(&self.root)
            .args(self.namespace.iter().flat_map(|n| ["-n", n]))
            .args(run.into_iter().flat_map(|r| ["--run", r]))
            .arg("supervise")
            .args(run.map(|_| "--tied"))
            .args(["--timeout", &self.timeout.as_secs().to_string()])
            .args((!self.watch).then_some("--no-watch"))
            .args(self.profile.iter().flat_map(|p| ["--profile", p]))
            .args(self.pods.arguments())
            .stdin(run.map_or_else(Stdio::null, |_| Stdio::piped()))
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }
}

impl Supervisor {
    /// The next event; `None` when there are no more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            let line = self.events.next_line().await;
            let Some(line) = line.map_err(io("read the supervisor's events"))? else {
                return Ok(None);
            };
            if let Ok(event) = serde_json::from_str(&line) {
                return Ok(Some(event));
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn ended(&mut self) -> Result<(), CliError> {
        let ended = self.process.wait().await;
        ended.map(drop).map_err(io("wait for the supervisor"))
    }
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> CliError + use<> {
    let what = what.to_owned();
    move |source| CliError::Io { what, source }
}
