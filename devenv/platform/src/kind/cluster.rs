//! The cluster itself: made by the `kind` program, found again, started, stopped, removed.
//!
//! It outlives devenv, as kind clusters do. What remembers it is a file of the state folder,
//! written before anything is made.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions, StopContainerOptions,
};
use devenv_compose::{Engine, EngineError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use super::error::KindError;
use crate::cloudsql::engine::which;
use crate::process::{self, KillGroup, Process};
use crate::trace;

/// In a system's state folder: which cluster is its own.
const TRACE: &str = "kind.json";
/// Kind's own label of a node's container.
const CLUSTER_LABEL: &str = "io.x-k8s.kind.cluster";
/// The network that all kind clusters of an engine share.
pub const NETWORK: &str = "kind";
/// How long a node may take to end its pods, in seconds.
const STOP: i32 = 20;

/// What is known of a system's cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Its name.
    pub cluster: String,
    /// The engine that it is on.
    pub host: String,
    /// The digest of its configuration.
    pub config: String,
    /// The ports of Cloud Run services on this machine.
    pub cloud_run: Vec<u16>,
    /// `kind create` came to its end.
    pub complete: bool,
    /// The shared network was not there before.
    pub made_network: bool,
}

impl Trace {
    /// That of the system with this state folder.
    pub fn read(state_dir: &Path) -> Option<Self> {
        trace::read(&state_dir.join(TRACE))
    }

    /// Notes it.
    pub fn write(&self, state_dir: &Path) -> Result<(), KindError> {
        let path = state_dir.join(TRACE);
        let written = trace::write(&path, self);
        written.map_err(|source| KindError::Io {
            what: "write",
            path,
            source,
        })
    }

    fn forget(state_dir: &Path) -> Result<(), KindError> {
        let path = state_dir.join(TRACE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KindError::Io {
                what: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }
}

/// A node's container.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name, which is the node's, too.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// When it was last started, as the engine writes it (RFC 3339).
    pub started_at: String,
}

/// The nodes of a cluster, by name; none: there is no such cluster.
///
/// # Errors
/// When the engine does not answer.
pub async fn nodes(docker: &Docker, cluster: &str) -> Result<Vec<Node>, EngineError> {
    let doing = "looking for the kind cluster";
    let label = format!("{CLUSTER_LABEL}={cluster}");
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
        ..ListContainersOptions::default()
    };
    let listed = docker.list_containers(Some(options)).await;
    let listed = listed.map_err(|e| EngineError::of(e, doing))?;
    let mut nodes = Vec::new();
    for id in listed.into_iter().filter_map(|c| c.id) {
        let none = None::<InspectContainerOptions>;
        match docker.inspect_container(&id, none).await {
            Ok(found) => nodes.extend(node(found)),
            // Gone meanwhile.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => {}
            Err(e) => return Err(EngineError::of(e, doing)),
        }
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

fn node(found: ContainerInspectResponse) -> Option<Node> {
    let state = found.state.unwrap_or_default();
    Some(Node {
        id: found.id?,
        name: found.name?.trim_start_matches('/').to_owned(),
        running: state.running.unwrap_or(false),
        started_at: state.started_at.unwrap_or_default(),
    })
}

/// The `kind` program.
#[derive(Debug, Clone)]
pub struct Kind {
    program: PathBuf,
}

impl Kind {
    /// The one in PATH, with the `docker` program that it uses.
    ///
    /// # Errors
    /// [`KindError::NoProgram`].
    pub fn find() -> Result<Self, KindError> {
        let program = which("kind").ok_or(KindError::NoProgram {
            program: "kind",
            why: "it makes the cluster of --target kind",
            help: "sudo apt-get install kind (Debian 13, Ubuntu 25.04 or newer); else \
                   https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
                .to_owned(),
        })?;
        if which("docker").is_none() {
            return Err(KindError::NoProgram {
                program: "docker",
                why: "kind makes nodes with it",
                help: "sudo apt-get install docker.io (Debian 12) or docker-cli".to_owned(),
            });
        }
        Ok(Self { program })
    }

    /// Makes a cluster; its kubeconfig is written to `kubeconfig` and nowhere else. Nodes are
    /// not waited for.
    ///
    /// # Errors
    /// What kind says.
    pub async fn create(
        &self,
        name: &str,
        config: &Value,
        config_file: &Path,
        kubeconfig: &Path,
    ) -> Result<(), KindError> {
        // JSON is YAML.
        let written = fs::write(config_file, config.to_string());
        written.map_err(|source| KindError::Io {
            what: "write",
            path: config_file.to_owned(),
            source,
        })?;
        let (config, kubeconfig) = (text(config_file), text(kubeconfig));
        let args = ["create", "cluster", "--name", name, "--config", &config];
        let args = args.into_iter().chain(["--kubeconfig", &kubeconfig]);
        self.run(args.collect()).await.map(drop)
    }

    /// Writes the kubeconfig of a cluster that is there.
    ///
    /// # Errors
    /// What kind says.
    pub async fn export(&self, name: &str, kubeconfig: &Path) -> Result<(), KindError> {
        let kubeconfig = text(kubeconfig);
        let args = ["export", "kubeconfig", "--name", name, "--kubeconfig"];
        let args = args.into_iter().chain([kubeconfig.as_str()]).collect();
        self.run(args).await.map(drop)
    }

    async fn run(&self, args: Vec<&str>) -> Result<String, KindError> {
        let said = |said: String| KindError::Command {
            command: format!("kind {}", args.join(" ")),
            said,
        };
        let child = Command::new(&self.program)
            .args(&args)
            .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that the clients of the engine that it starts end with it.
            .process_group(0)
            .spawn()
            .map_err(|e| said(e.to_string()))?;
        let mut group = KillGroup::of(child.id());
        let output = child.wait_with_output().await;
        group.has_ended();
        let output = output.map_err(|e| said(e.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(said(text(&output.stderr))),
        }
    }
}

/// Ends a `kind` that makes this cluster for a devenv that was killed. Left to itself it would
/// clean up after its failure some day, by the cluster's name, and take a new one for its own.
pub async fn end_maker(cluster: &str) {
    for pid in process::with_words(&["kind", "create", "cluster", "--name", cluster]) {
        let maker = Process::of(pid);
        drop(KillGroup::of(Some(pid)));
        // Of another group, if somebody made it by hand.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        if let Some(maker) = maker {
            maker.ended().await;
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Whether the network that kind clusters share is there.
///
/// # Errors
/// When the engine does not answer.
pub async fn has_network(docker: &Docker) -> Result<bool, EngineError> {
    let none = None::<InspectNetworkOptions>;
    match docker.inspect_network(NETWORK, none).await {
        Ok(_) => Ok(true),
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(false),
        Err(e) => Err(EngineError::of(e, "looking for kind's network")),
    }
}

/// Starts the nodes that are stopped.
///
/// # Errors
/// What the engine says.
pub async fn start(docker: &Docker, nodes: &[Node]) -> Result<(), EngineError> {
    for node in nodes.iter().filter(|node| !node.running) {
        let none = None::<StartContainerOptions>;
        let started = docker.start_container(&node.id, none).await;
        started.map_err(|e| EngineError::of(e, "starting the kind node"))?;
    }
    Ok(())
}

async fn stop(docker: &Docker, nodes: &[Node]) -> Result<(), EngineError> {
    let all = nodes.iter().filter(|node| node.running).map(async |node| {
        let options = StopContainerOptions {
            t: Some(STOP),
            ..StopContainerOptions::default()
        };
        match docker.stop_container(&node.id, Some(options)).await {
            // Stopped already.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 304 | 404,
                ..
            })
            | Ok(()) => Ok(()),
            Err(e) => Err(EngineError::of(e, "stopping the kind node")),
        }
    });
    futures_util::future::try_join_all(all).await.map(drop)
}

/// Removes nodes and what they keep, as `kind delete cluster` does.
///
/// # Errors
/// What the engine says.
pub async fn delete(docker: &Docker, nodes: &[Node]) -> Result<(), EngineError> {
    for node in nodes {
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            ..RemoveContainerOptions::default()
        };
        match docker.remove_container(&node.id, Some(options)).await {
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            })
            | Ok(()) => {}
            Err(e) => return Err(EngineError::of(e, "removing the kind node")),
        }
    }
    Ok(())
}

/// Whether the system with this state folder has a cluster.
pub fn has_cluster(state_dir: &Path) -> bool {
    Trace::read(state_dir).is_some()
}

/// Stops the cluster of the system with this state folder, if it has one, or removes it with
/// all that is in it (`volumes`). Nobody may run that system.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn take_down(state_dir: &Path, volumes: bool) -> Result<(), KindError> {
    let Some(trace) = Trace::read(state_dir) else {
        return Ok(());
    };
    let engine = match Engine::connect(Some(&trace.host)).await {
        Ok(engine) => engine,
        // An engine that does not run runs no nodes.
        Err(e) if e.is_missing() && !volumes => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let docker = engine.docker();
    let nodes = nodes(docker, &trace.cluster).await?;
    if !volumes && trace.complete && !nodes.is_empty() {
        return Ok(stop(docker, &nodes).await?);
    }
    // Half a cluster is of no use to anybody.
    let nodes = match trace.complete {
        true => nodes,
        false => {
            end_maker(&trace.cluster).await;
            self::nodes(docker, &trace.cluster).await?
        }
    };
    delete(docker, &nodes).await?;
    Trace::forget(state_dir)?;
    if trace.made_network {
        // In use by another cluster that came later: then it stays.
        let _ = docker.remove_network(NETWORK).await;
    }
    Ok(())
}
