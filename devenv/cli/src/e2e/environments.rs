//! Fresh systems for end-to-end runs: each in a supervisor of its own, tied to this
//! process, so that it ends with it in whatever way that ends.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::Stdio,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use devenv_e2e::environment::{Environment, Provider};
use devenv_engine::{
    event::{Event, Report},
    state::{RunGuard, StateDir},
};
use devenv_platform::{Endpoints, cloudsql::NAMESPACE};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::{
    commands::{IsolationArgs, KEEP},
    error::CliError,
    project::{self, Project},
};

/// How long a system may take to go down in order before it is killed.
const DOWN: Duration = Duration::from_secs(30);

/// How systems are brought up.
#[derive(Debug, Clone)]
pub struct How {
    /// The project's folder.
    pub root: PathBuf,
    /// `-n`.
    pub namespace: Option<String>,
    /// The profile of devenv.toml.
    pub profile: Option<String>,
    /// How long workloads may take to get ready.
    pub timeout: Duration,
    /// How pods are kept apart.
    pub isolation: IsolationArgs,
    /// Whether saved files are reloaded.
    pub watch: bool,
    /// Whether systems are left up.
    pub keep: bool,
}

/// Brings systems up and takes them down.
#[derive(Debug)]
pub struct Fresh {
    how: How,
    id: String,
    state: StateDir,
    made: AtomicU32,
    running: Mutex<HashMap<String, Held>>,
}

/// A running system.
#[derive(Debug)]
struct Held {
    /// Ends when its stdin does: with this, with this process, or before.
    supervisor: Child,
    guard: RunGuard,
}

impl Fresh {
    /// For the run `id` of `project`.
    pub fn new(how: How, id: &str, project: &Project) -> Self {
        Self {
            how,
            id: id.to_owned(),
            state: project.state.clone(),
            made: AtomicU32::new(0),
            running: Mutex::default(),
        }
    }

    /// The systems that are left up, by their names.
    pub fn kept(&self) -> Vec<String> {
        if !self.how.keep {
            return Vec::new();
        }
        let runs = self.state.runs();
        let ids = runs.iter().filter_map(|r| r.run_id());
        ids.filter(|id| id.starts_with(&self.id))
            .map(str::to_owned)
            .collect()
    }

    /// The first system of a run bears its name; others count on.
    fn next_name(&self) -> String {
        match self.made.fetch_add(1, Ordering::Relaxed) {
            0 => self.id.clone(),
            n => format!("{}-{}", self.id, n + 1),
        }
    }

    async fn start(&self, name: &str) -> Result<Environment, CliError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| CliError::Io { what, source }
        };
        let guard = self.state.begin_run(name)?;
        let log_path = guard.state().log();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(io("write the supervisor's log"))?;
        let exe = std::env::current_exe().map_err(io("find this program's own file"))?;
        let mut command = Command::new(exe);
        command.arg("-C").arg(&self.how.root).args(["--run", name]);
        if let Some(n) = &self.how.namespace {
            command.args(["-n", n]);
        }
        command
            .args(["supervise", "--tied"])
            .args(["--timeout", &self.how.timeout.as_secs().to_string()])
            .args((!self.how.watch).then_some("--no-watch"))
            .args(self.how.profile.iter().flat_map(|p| ["--profile", p]))
            .args(["--isolation", self.how.isolation.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut supervisor = command.spawn().map_err(io("start the supervisor"))?;
        let Some(stdout) = supervisor.stdout.take() else {
            return Err(CliError::SupervisorGone(log_path));
        };
        let mut events = BufReader::new(stdout).lines();
        let endpoints = loop {
            let line = events
                .next_line()
                .await
                .map_err(io("read the supervisor's events"))?;
            let Some(line) = line else {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                return Err(CliError::Reported(Report {
                    output: Some(log),
                    ..Report::of(&CliError::SupervisorGone(log_path), None, 1)
                }));
            };
            match serde_json::from_str::<Event>(&line) {
                Ok(Event::Ready { endpoints, .. }) => break *endpoints,
                Ok(Event::Failed { report }) => {
                    // Its pods are gone; what is left of it goes with the guard.
                    let _ = supervisor.wait().await;
                    return Err(CliError::Reported(report));
                }
                _ => {}
            }
        };
        let environment = environment(name, &endpoints, self.how.profile.clone()).await?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(name.to_owned(), Held { supervisor, guard });
        Ok(environment)
    }
}

#[async_trait]
impl Provider for Fresh {
    async fn fresh(&self) -> Result<Environment, String> {
        let name = self.next_name();
        self.start(&name).await.map_err(|e| in_words(&e))
    }

    async fn discard(&self, environment: Environment) {
        let held = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.remove(&environment.name)
        };
        let Some(Held {
            mut supervisor,
            guard,
        }) = held
        else {
            return;
        };
        let Some(mut tie) = supervisor.stdin.take() else {
            return;
        };
        if self.how.keep && tie.write_all(format!("{KEEP}\n").as_bytes()).await.is_ok() {
            let _ = tie.flush().await;
            guard.leave();
            return;
        }
        drop(tie);
        if tokio::time::timeout(DOWN, supervisor.wait()).await.is_err() {
            // The kernel ends all that it runs with it.
            let _ = supervisor.kill().await;
        }
    }
}

/// The system that is up already.
pub struct Attached {
    project: Project,
}

impl Attached {
    /// To the system of `project`.
    pub fn new(project: &Project) -> Self {
        Self {
            project: project.clone(),
        }
    }
}

#[async_trait]
impl Provider for Attached {
    async fn fresh(&self) -> Result<Environment, String> {
        let attach = async {
            let endpoints = self.project.endpoints()?;
            let profile = endpoints.profile.clone();
            environment("attached", &endpoints, profile).await
        };
        attach.await.map_err(|e: CliError| in_words(&e))
    }

    async fn discard(&self, _: Environment) {}
}

async fn environment(
    name: &str,
    endpoints: &Endpoints,
    profile: Option<String>,
) -> Result<Environment, CliError> {
    let client = project::client(&endpoints.kubeconfig).await?;
    let database = match &endpoints.database {
        Some(facts) => {
            Some(project::database_url(client.clone(), &endpoints.namespace, facts).await?)
        }
        None => None,
    };
    Ok(Environment {
        name: name.to_owned(),
        target: "local".to_owned(),
        profile,
        namespace: endpoints.namespace.clone(),
        ingress: endpoints.ingress.clone(),
        cloud_run: endpoints.cloud_run.clone(),
        database,
        kubeconfig: endpoints.kubeconfig.clone(),
        client,
        exact_split: true,
        faults: true,
        database_workload: endpoints
            .database
            .as_ref()
            .map(|_| (NAMESPACE.to_owned(), "cloudsql".to_owned())),
    })
}

/// An error with its causes and what mends it, as one text.
fn in_words(e: &CliError) -> String {
    let report = e.report();
    let mut text = report.message.clone();
    for cause in &report.causes {
        text.push_str("\n  ");
        text.push_str(cause);
    }
    for more in [&report.output, &report.help].into_iter().flatten() {
        text.push('\n');
        text.push_str(more);
    }
    text
}
