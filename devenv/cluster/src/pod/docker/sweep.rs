//! Whose containers are whose, and how they are removed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::{failed, is_gone};
use crate::pod::runtime::RuntimeError;

/// How long containers may take to go.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// On everything that devenv makes on an engine: the project.
pub const PROJECT: &str = "dev.devenv.project";
/// The folder with the state of the system that it belongs to: no two systems share it.
pub const SYSTEM: &str = "dev.devenv.system";

/// Which start of that system it belongs to.
pub const GENERATION: &str = "dev.devenv.generation";

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The project's name, for people.
    pub project: String,
    /// The folder with its state.
    pub system: String,
    /// This start of it.
    pub generation: String,
}

impl Owner {
    /// A new start of the system of `project` with its state in `state_dir`.
    pub fn new(project: &str, state_dir: &Path) -> Owner {
        Owner {
            project: project.to_owned(),
            system: state_dir.display().to_string(),
            generation: uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    /// The label of everything of this system, whichever start of it.
    pub(super) fn of_system(&self) -> String {
        of_system(Path::new(&self.system))
    }

    /// The label of everything of this start alone.
    pub(super) fn of_generation(&self) -> String {
        format!("{GENERATION}={}", self.generation)
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (PROJECT.to_owned(), self.project.clone()),
            (SYSTEM.to_owned(), self.system.clone()),
            (GENERATION.to_owned(), self.generation.clone()),
        ])
    }
}

/// The label of everything of the system with its state in `state_dir`.
pub fn of_system(state_dir: &Path) -> String {
    format!("{SYSTEM}={}", state_dir.display())
}

/// Kills and removes every container with this label, and the volumes of theirs that have
/// no name. Returns how many there were.
///
/// # Errors
/// When the engine does not answer or refuses, or does not get one out of the way.
pub async fn containers(docker: &Docker, label: &str) -> Result<usize, RuntimeError> {
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&HashMap::from([("label", vec![label])]))
        .build();
    let deadline = Instant::now() + LIMIT;
    let mut removed = HashSet::new();
    loop {
        let found = docker.list_containers(Some(options.clone())).await;
        let found = found.map_err(failed("look for containers of an earlier system"))?;
        let ids: Vec<String> = found.into_iter().filter_map(|c| c.id).collect();
        if ids.is_empty() {
            return Ok(removed.len());
        }
        if Instant::now() > deadline {
            return Err(RuntimeError::Other(format!(
                "the Docker Engine does not remove {}; docker rm -f does, or starting it anew",
                ids.join(", ")
            )));
        }
        let gone = ids.iter().map(|id| remove(docker, id));
        futures_util::future::try_join_all(gone).await?;
        removed.extend(ids);
        // What is on its way out already is gone a moment later.
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills and removes a container; one that is gone is well.
pub(super) async fn remove(docker: &Docker, container: &str) -> Result<(), RuntimeError> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(container, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(failed(format!("remove the container {container}"))(error)),
    }
}

/// Sends a signal, by number or name, to a container's PID 1.
pub(super) async fn signal(
    docker: &Docker,
    container: &str,
    signal: &str,
) -> Result<(), RuntimeError> {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    let sent = docker.kill_container(container, Some(options)).await;
    sent.map_err(failed(format!("send signal {signal} to {container}")))
}
