//! The programs of the reference application in each language: what they need, how
//! they are started, and one of them running.

use crate::contract::api::Api;
use crate::environments;
use crate::project::{build_folder, checkout};
use crate::{find_tool, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use telemetry::testing::{TestDatabase, free_port};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Longest wait for a program to start or to end; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Implementation {
    Rust,
    Python,
    Node,
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Node => "node",
        })
    }
}

/// Which half of the contract it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// api1 and api2.
    Write,
    /// api3.
    Read,
}

/// Why a program cannot be started here.
#[derive(Debug)]
pub enum Unready {
    /// A tool is missing on this machine.
    Missing(&'static str),
    /// It could not be installed.
    Failed(String),
}

/// How a program is started.
#[derive(Debug, Clone)]
pub struct Program {
    words: Vec<OsString>,
    folder: PathBuf,
    /// What it stamps rows with unless told otherwise.
    pub name: &'static str,
    /// Where it listens unless told otherwise.
    pub port: u16,
}

impl Program {
    /// Installs what it needs.
    ///
    /// # Errors
    /// [`Unready`].
    pub async fn prepare(implementation: Implementation, side: Side) -> Result<Self, Unready> {
        let seed = checkout().join("services/seed");
        let (name, port) = match (side, implementation) {
            (Side::Read, _) => ("api3", 8080),
            (Side::Write, Implementation::Node) => ("api2", 3000),
            (Side::Write, _) => ("api1", 5000),
        };
        let folder = seed.join(name);
        match implementation {
            Implementation::Rust => {
                let program = build_folder().join(name);
                if !program.is_file() {
                    return Err(Unready::Failed(format!(
                        "{} is missing; `cargo build --workspace` makes it",
                        program.display()
                    )));
                }
                Ok(Self {
                    words: vec![program.into()],
                    folder: checkout(),
                    name,
                    port,
                })
            }
            Implementation::Python => {
                find_tool("python3").ok_or(Unready::Missing("python3"))?;
                let python = environments::python(&folder.join("requirements.txt"))
                    .await
                    .map_err(Unready::Failed)?;
                Ok(Self {
                    words: vec![python.into(), "-m".into(), "app".into()],
                    folder,
                    name,
                    port,
                })
            }
            Implementation::Node => {
                let node = find_tool("node").ok_or(Unready::Missing("node"))?;
                find_tool("npm").ok_or(Unready::Missing("npm"))?;
                environments::node(&folder).await.map_err(Unready::Failed)?;
                Ok(Self {
                    words: vec![node.into(), "src/main.js".into()],
                    folder,
                    name,
                    port,
                })
            }
        }
    }

    /// A command with this environment and nothing else but the PATH.
    pub fn command(&self, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end, which must come by itself: exit status and standard error.
    pub async fn fails(&self, environment: &[(&str, &str)]) -> (ExitStatus, String) {
        let output = tokio::time::timeout(PATIENCE, self.command(environment).output())
            .await
            .expect("it ends by itself")
            .expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status, said)
    }

    /// Runs a script of its language, in its folder and on this database.
    pub async fn script(&self, script: &str, database: &TestDatabase) -> (ExitStatus, String) {
        let config = database.config("").database;
        let port = config.port.to_string();
        let flags: &[&str] = if self.words.iter().any(|word| word == "-m") {
            &["-c"]
        } else {
            &["--input-type=module", "-e"]
        };
        let mut words: Vec<OsString> = vec![self.words[0].clone()];
        words.extend(flags.iter().map(OsString::from));
        words.push(script.into());
        let script = Self {
            words,
            ..self.clone()
        };
        script
            .fails(&[
                ("DB_HOST", &config.host),
                ("DB_PORT", &port),
                ("DB_USER", &config.user),
                ("DB_PASSWORD", config.password.reveal()),
                ("DB_NAME", &config.name),
            ])
            .await
    }

    /// Starts it on a free port and this database; `more` is added to its environment.
    pub async fn start(&self, database: &TestDatabase, more: &[(&str, &str)]) -> Service {
        let config = database.config("").database;
        let (port, db_port) = (free_port().to_string(), config.port.to_string());
        let mut environment = vec![
            ("DB_HOST", config.host.as_str()),
            ("DB_PORT", &db_port),
            ("DB_USER", &config.user),
            ("DB_PASSWORD", config.password.reveal()),
            ("DB_NAME", &config.name),
            ("PORT", &port),
        ];
        environment.extend(more);
        let mut child = self
            .command(&environment)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
        let log = Arc::new(Mutex::new(String::new()));
        let pipe = child.stderr.take().expect("it was asked for");
        let reading = tokio::spawn({
            let log = log.clone();
            async move {
                let mut lines = BufReader::new(pipe).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let mut service = Service {
            api: Api::new(format!("http://127.0.0.1:{port}")),
            child,
            log,
            reading: Some(reading),
        };
        service.wait_until_alive().await;
        service
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Service {
    /// Asks it.
    pub api: Api,
    child: Child,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Service {
    async fn wait_until_alive(&mut self) {
        let alive = until(PATIENCE, Duration::from_millis(10), async || {
            let ended = self.child.try_wait().ok().flatten();
            let alive = self.api.try_get("/healthz").await.is_some();
            (alive || ended.is_some()).then_some(alive)
        })
        .await;
        assert_eq!(alive, Some(true), "it does not start: {}", self.log());
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("it is ours to end");
        }
    }

    /// Waits for its end: exit status and all that it logged.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end: {}", self.log()))
            .expect("it is our child");
        if let Some(reading) = self.reading.take() {
            let _ = reading.await;
        }
        (status, self.log())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
