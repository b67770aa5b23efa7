//! What suites run against, and who makes it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;

/// A running system, as steps see it.
#[derive(Clone)]
pub struct Environment {
    /// What it is called, for people: `a1b2c3`, `attached`.
    pub name: String,
    /// `local`, `kind` or `kube:CONTEXT`.
    pub target: String,
    /// What pods are on the local target: `process` or `docker`. The variable
    /// `DEVENV_RUNTIME`, by which another devenv does the same.
    pub runtime: Option<String>,
    /// The profile of devenv.toml, if one was asked for.
    pub profile: Option<String>,
    /// The default namespace.
    pub namespace: String,
    /// The Ingress, without a slash at its end. The variable `INGRESS_URL`.
    pub ingress: Option<String>,
    /// Cloud Run services by name. The first is the variable `FRONTEND_URL`.
    pub cloud_run: BTreeMap<String, String>,
    /// `mysql://user:password@host:port/database`, reachable from this process. The
    /// variable `DATABASE_URL`; a secret: reports never show it.
    pub database: Option<String>,
    /// A kubeconfig for it. The variable `KUBECONFIG`.
    pub kubeconfig: PathBuf,
    /// A client for it.
    pub client: kube::Client,
    /// Whether its split is exact over permuted blocks (the local target) or random.
    pub exact_split: bool,
    /// Whether its runtime honours `devenv.dev/fault` annotations.
    pub faults: bool,
    /// How the database is stopped and started, where that can be done.
    pub database_control: Option<DatabaseControl>,
}

/// How a test stops the database, and starts it again.
#[derive(Clone)]
pub enum DatabaseControl {
    /// It is the Deployment of this namespace and name, and stopping it is scaling that to
    /// 0: on the local target `devenv-system` and `cloudsql`.
    Deployment(String, String),
    /// Somebody else runs it, such as a container engine.
    Switch(Arc<dyn DatabaseSwitch>),
}

/// Stops and starts a database that is no workload of the cluster.
#[async_trait]
pub trait DatabaseSwitch: Send + Sync {
    /// Stops it; returns when it has ended.
    ///
    /// # Errors
    /// Why not, in words.
    async fn stop(&self) -> Result<(), String>;
    /// Starts it again.
    ///
    /// # Errors
    /// Why not, in words.
    async fn start(&self) -> Result<(), String>;
}

impl Environment {
    /// One of which nothing is known but its API.
    pub fn at(client: kube::Client) -> Self {
        Self {
            name: String::new(),
            target: String::new(),
            runtime: None,
            profile: None,
            namespace: "default".into(),
            ingress: None,
            cloud_run: BTreeMap::new(),
            database: None,
            kubeconfig: PathBuf::new(),
            client,
            exact_split: false,
            faults: false,
            database_control: None,
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("name", &self.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Makes environments: one for the suites that take turns, one for each that says that
/// it may run beside others.
#[async_trait]
pub trait Provider: Send + Sync {
    /// A fresh environment, ready. A cancelled run drops the future: what was made until
    /// then must end with it.
    ///
    /// # Errors
    /// Why there is none, for people.
    async fn fresh(&self) -> Result<Environment, String>;

    /// Takes it down again, unless it is to be kept or was there before.
    async fn discard(&self, environment: Environment);

    /// Whether it is the same one each time. Then all suites take turns: what one does to
    /// the system, another would take for the system's fault.
    fn is_shared(&self) -> bool {
        false
    }
}
