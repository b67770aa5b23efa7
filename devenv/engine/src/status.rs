//! What runs, how well, and where: `devenv status` as data.

use devenv_model::Topology;
use devenv_platform::{DatabaseFacts, Endpoints, cloudsql, trouble::pod_trouble};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    reload::{Trouble, Written},
    state::{Holder, StateDir},
    usage,
    warnings::{self, Warning},
};

/// The state of a project.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The project's name.
    pub project: String,
    /// Its namespace.
    pub namespace: String,
    /// `down`, `starting` or `up`.
    pub state: &'static str,
    /// Who holds it.
    pub supervisor: Option<Holder>,
    /// Where it is.
    pub endpoints: Option<Endpoints>,
    /// The database.
    pub database: Option<DatabaseStatus>,
    /// What runs.
    pub workloads: Vec<Workload>,
    /// Whether it is up and every workload and the database are ready.
    pub ready: bool,
    /// What keeps the newest saves from serving.
    pub troubles: Vec<Trouble>,
    /// What the cluster warned of since it came up.
    pub warnings: Vec<Warning>,
    /// What devenv.toml does not say about images and was found out, where that was
    /// asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inferred: Vec<Inferred>,
}

/// Something that was found out about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inferred {
    /// The image.
    pub image: String,
    /// The key in `[image.NAME]` that would say it.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What it was found out from.
    pub why: String,
}

/// The database and its process.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseStatus {
    /// What it is and where.
    #[serde(flatten)]
    pub facts: DatabaseFacts,
    /// Whether it runs; a container is healthy, too.
    pub running: bool,
    /// Its server's process, where that is one of this machine.
    pub pid: Option<u32>,
}

/// A Deployment and its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are wanted.
    pub wanted: i32,
    /// Restarts of its containers, together.
    pub restarts: i32,
    /// CPU usage of its pods together in thousandths of a CPU; none where the target does not
    /// tell, or not of all of them.
    pub cpu_milli: Option<u64>,
    /// Their memory (working set) in bytes, likewise.
    pub memory_bytes: Option<u64>,
    /// Its images.
    pub images: Vec<String>,
    /// What keeps it from being ready.
    pub reason: Option<String>,
}

/// How the database is.
async fn database(
    facts: DatabaseFacts,
    state: &StateDir,
    workloads: &[Workload],
) -> DatabaseStatus {
    if let Some(name) = &facts.workload {
        let ready = |w: &Workload| w.name == *name && w.ready > 0;
        return DatabaseStatus {
            running: workloads.iter().any(ready),
            pid: None,
            facts,
        };
    }
    if facts.compose_project.is_some() {
        // An engine that does not answer runs nothing.
        let server = cloudsql::ContainerServer::of(state.path()).await;
        let running = match server {
            Ok(Some(server)) => server.works().await,
            Ok(None) | Err(_) => false,
        };
        return DatabaseStatus {
            facts,
            running,
            pid: None,
        };
    }
    let pid = cloudsql::server_pid(&state.path().join("data").join("cloudsql"));
    DatabaseStatus {
        facts,
        running: pid.is_some(),
        pid,
    }
}

impl Status {
    /// Asks the state folder, and the API where there is one.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn of(
        project: &str,
        namespace: &str,
        state: &StateDir,
        client: Option<Client>,
    ) -> Result<Self, kube::Error> {
        let supervisor = state.holder();
        let endpoints = supervisor.as_ref().and_then(|_| state.endpoints());
        let scope = endpoints.as_ref().map(Endpoints::scope).unwrap_or_default();
        let (workloads, warnings) = match client {
            Some(client) => {
                let since = supervisor.as_ref().map_or(0, |h| h.since);
                tokio::try_join!(
                    workloads(client.clone(), namespace),
                    warnings::since(&client, &scope, since)
                )?
            }
            None => (Vec::new(), Vec::new()),
        };
        let database = match endpoints.as_ref().and_then(|e| e.database.clone()) {
            Some(facts) => Some(database(facts, state, &workloads).await),
            None => None,
        };
        Ok(Self {
            project: project.to_owned(),
            namespace: namespace.to_owned(),
            ready: endpoints.is_some()
                && workloads.iter().all(|w| w.ready >= w.wanted)
                && database.as_ref().is_none_or(|d| d.running),
            state: match (&supervisor, &endpoints) {
                (None, _) => "down",
                (Some(_), None) => "starting",
                (Some(_), Some(_)) => "up",
            },
            supervisor,
            database,
            workloads,
            troubles: match &endpoints {
                // A file that can't be read says nothing; `devenv reloads` tells why.
                Some(_) => Written::read(state.path()).unwrap_or_default().troubles,
                None => Vec::new(),
            },
            endpoints,
            warnings,
            inferred: Vec::new(),
        })
    }

    /// Adds what was found out about the images of `topology`.
    pub fn infer(&mut self, topology: &Topology) {
        let all = topology.images().values();
        self.inferred = all
            .flat_map(|image| {
                image.inferred.iter().map(|found| Inferred {
                    image: image.name.clone(),
                    key: found.key.clone(),
                    value: found.value.clone(),
                    why: found.why.clone(),
                })
            })
            .collect();
    }
}

async fn workloads(client: Client, namespace: &str) -> Result<Vec<Workload>, kube::Error> {
    let all = ListParams::default();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (listed, used) = tokio::join!(
        async { tokio::try_join!(pods.list(&all), deployments.list(&all)) },
        usage::of_pods(&client, namespace),
    );
    let (pods, deployments) = listed?;
    let pods = pods.items;
    let of = |d: Deployment| {
        let selector = d
            .spec
            .as_ref()
            .and_then(|s| s.selector.match_labels.clone())
            .unwrap_or_default();
        let mine: Vec<&Pod> = pods
            .iter()
            .filter(|p| selector.iter().all(|(k, v)| p.labels().get(k) == Some(v)))
            .collect();
        let containers = || {
            mine.iter().flat_map(|p| {
                p.status
                    .iter()
                    .flat_map(|s| s.container_statuses.iter().flatten())
            })
        };
        let used = used.as_ref();
        let used = used.and_then(|used| usage::together(mine.iter().copied(), used));
        let template = d.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        Workload {
            kind: "Deployment".to_owned(),
            name: d.name_any(),
            ready: d
                .status
                .as_ref()
                .and_then(|s| s.ready_replicas)
                .unwrap_or(0),
            wanted: d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
            restarts: containers().map(|c| c.restart_count).sum(),
            cpu_milli: used.map(usage::Usage::milli),
            memory_bytes: used.map(|used| used.memory),
            images: template
                .iter()
                .flat_map(|t| t.containers.iter().filter_map(|c| c.image.clone()))
                .collect(),
            reason: mine
                .iter()
                .filter(|p| p.metadata.deletion_timestamp.is_none())
                .find_map(|p| pod_trouble(p)),
        }
    };
    Ok(deployments.items.into_iter().map(of).collect())
}
