//! Fresh systems for end-to-end runs: each in a supervisor of its own, tied to this
//! process, so that it ends with it in whatever way that ends.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use devenv_e2e::environment::{DatabaseControl, DatabaseSwitch, Environment, Provider};
use devenv_engine::{
    IngressController, UpError,
    event::{Event, Report},
    state::{RunGuard, StateDir},
};
use devenv_platform::{
    DatabaseFacts, Endpoints, Images, TargetError,
    cloudsql::{ContainerServer, NAMESPACE},
    containers,
};
use tokio::io::AsyncWriteExt;

use crate::{
    commands::KEEP,
    e2e::images::Ran,
    error::{CliError, exit},
    project::{self, Project},
    render,
    supervisor::{Launch, Supervisor},
};

/// How long a system may take to go down in order before it is killed.
const DOWN: Duration = Duration::from_secs(30);

/// Brings systems up and takes them down.
#[derive(Debug)]
pub struct Fresh {
    launch: Launch,
    /// Whether systems are left up.
    keep: bool,
    id: String,
    state: StateDir,
    made: AtomicU32,
    running: Mutex<HashMap<String, Held>>,
    ran: Mutex<Ran>,
}

/// A running system.
#[derive(Debug)]
struct Held {
    /// Ends when its stdin does: with this, with this process, or before.
    supervisor: Supervisor,
    guard: RunGuard,
}

impl Fresh {
    /// For the run `id` of `project`.
    pub fn new(launch: Launch, keep: bool, id: &str, project: &Project) -> Self {
        Self {
            launch,
            keep,
            id: id.to_owned(),
            state: project.state.clone(),
            made: AtomicU32::new(0),
            running: Mutex::default(),
            ran: Mutex::default(),
        }
    }

    /// The systems that are left up, by their names.
    pub fn kept(&self) -> Vec<String> {
        if !self.keep {
            return Vec::new();
        }
        let runs = self.state.runs();
        let ids = runs.iter().filter_map(|r| r.run_id());
        ids.filter(|id| id.starts_with(&self.id))
            .map(str::to_owned)
            .collect()
    }

    /// The images that its systems ran.
    pub fn ran(&self) -> Ran {
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        ran.clone()
    }

    fn saw(&self, images: &Images) {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        ran.saw(images);
    }

    /// The first system of a run bears its name; others count on.
    fn next_name(&self) -> String {
        match self.made.fetch_add(1, Ordering::Relaxed) {
            0 => self.id.clone(),
            n => format!("{}-{}", self.id, n + 1),
        }
    }

    /// The folder of the project that is brought up.
    pub fn root(&self) -> &Path {
        &self.launch.root
    }

    /// Brings a system up.
    ///
    /// # Errors
    /// Why there is none; nothing is left of it then.
    pub async fn bring_up(&self) -> Result<Environment, CliError> {
        self.start(&self.next_name()).await
    }

    /// Takes all of them down again, or leaves them up where that was asked for.
    pub async fn end(&self) {
        let held: Vec<Held> = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.drain().map(|(_, held)| held).collect()
        };
        for held in held {
            self.take_down(held).await;
        }
    }

    async fn take_down(&self, held: Held) {
        let Held {
            mut supervisor,
            guard,
        } = held;
        // What it ran in the end, before it forgets.
        if let Some(endpoints) = guard.state().endpoints() {
            self.saw(&endpoints.images);
        }
        let Some(mut tie) = supervisor.process.stdin.take() else {
            return;
        };
        if self.keep && tie.write_all(format!("{KEEP}\n").as_bytes()).await.is_ok() {
            let _ = tie.flush().await;
            guard.leave();
            return;
        }
        drop(tie);
        if tokio::time::timeout(DOWN, supervisor.ended())
            .await
            .is_err()
        {
            // The kernel ends all that it runs with it.
            let _ = supervisor.process.kill().await;
        }
        clean(guard.state()).await;
    }

    async fn start(&self, name: &str) -> Result<Environment, CliError> {
        clean_dead(&self.state).await;
        let guard = self.state.begin_run(name)?;
        let mut supervisor = self.launch.start(guard.state())?;
        let endpoints = loop {
            match supervisor.next().await? {
                Some(Event::Ready { endpoints, .. }) => break *endpoints,
                Some(Event::Failed { report }) => {
                    // Its pods are gone; what is left of it goes with the guard.
                    supervisor.ended().await?;
                    clean(guard.state()).await;
                    return Err(CliError::Reported(report));
                }
                Some(_) => {}
                None => {
                    clean(guard.state()).await;
                    let gone = CliError::SupervisorGone(supervisor.log.clone());
                    return Err(CliError::Reported(Report {
                        output: fs::read_to_string(&supervisor.log).ok(),
                        ..Report::of(&gone, None, exit::FAILED)
                    }));
                }
            }
        };
        self.saw(&endpoints.images);
        let environment = environment(name, &endpoints, self.launch.profile.clone()).await?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(name.to_owned(), Held { supervisor, guard });
        Ok(environment)
    }
}

#[async_trait]
impl Provider for Fresh {
    async fn fresh(&self) -> Result<Environment, String> {
        self.bring_up().await.map_err(|e| in_words(&e))
    }

    async fn discard(&self, environment: Environment) {
        let held = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.remove(&environment.name)
        };
        if let Some(held) = held {
            self.take_down(held).await;
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

    fn is_shared(&self) -> bool {
        true
    }
}

/// Removes what killed runs have left on a container engine, before their folders go.
pub async fn clean_dead(state: &StateDir) {
    for dead in state.dead_runs() {
        clean(&dead).await;
    }
}

/// Removes what a run's supervisor has left on a container engine, if it was killed.
async fn clean(run: &StateDir) {
    if let Err(error) = containers::remove_all(run.path(), true).await {
        render::say(&format!(
            "warning: {error}; `docker ps -a` shows what is left of it"
        ));
    }
}

/// How the database is stopped.
async fn control(
    endpoints: &Endpoints,
    facts: &DatabaseFacts,
) -> Result<DatabaseControl, CliError> {
    if facts.compose_project.is_none() {
        let name = "cloudsql".to_owned();
        return Ok(DatabaseControl::Deployment(NAMESPACE.to_owned(), name));
    }
    // Beside its kubeconfig, where it remembers what it has on an engine.
    let state_dir = endpoints.kubeconfig.parent().unwrap_or(Path::new("."));
    let server = ContainerServer::of(state_dir).await;
    let server = server.map_err(|e| UpError::from(TargetError::from(e)))?;
    let server = server.ok_or(CliError::NotUp)?;
    Ok(DatabaseControl::Switch(Arc::new(Container(server))))
}

/// The database's container.
struct Container(ContainerServer);

#[async_trait]
impl DatabaseSwitch for Container {
    async fn stop(&self) -> Result<(), String> {
        self.0.stop().await.map_err(|e| e.to_string())
    }

    async fn start(&self) -> Result<(), String> {
        self.0.start().await.map_err(|e| e.to_string())
    }
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
        target: endpoints.target.to_string(),
        runtime: Some(endpoints.runtime.to_string()),
        profile,
        namespace: endpoints.namespace.clone(),
        ingress: endpoints.ingress.clone(),
        cloud_run: endpoints.cloud_run.clone(),
        database,
        kubeconfig: endpoints.kubeconfig.clone(),
        client,
        // ingress-nginx deals at random.
        exact_split: endpoints.ingress_controller != Some(IngressController::Nginx),
        // Without namespaces nobody stands between pods and Services.
        faults: endpoints.sandboxed,
        database_control: match &endpoints.database {
            None => None,
            Some(facts) => Some(control(endpoints, facts).await?),
        },
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
