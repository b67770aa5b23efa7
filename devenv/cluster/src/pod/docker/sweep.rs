//! Whose containers are whose, and how they are removed.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::{failed, is_gone};
use crate::pod::runtime::RuntimeError;

/// On everything that devenv makes on an engine: the project.
pub const PROJECT: &str = "dev.devenv.project";
/// The folder with the state of the system that it belongs to: no two systems share it.
pub const SYSTEM: &str = "dev.devenv.system";

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The project's name, for people.
    pub project: String,
    /// The folder with its state.
    pub system: String,
}

impl Owner {
    /// The system of `project` with its state in `state_dir`.
    pub fn new(project: &str, state_dir: &Path) -> Owner {
        Owner {
            project: project.to_owned(),
            system: state_dir.display().to_string(),
        }
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (PROJECT.to_owned(), self.project.clone()),
            (SYSTEM.to_owned(), self.system.clone()),
        ])
    }
}

/// Kills and removes every container of the system with its state in `state_dir`, with the volumes that have no name.
/// Returns how many there were.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn containers(docker: &Docker, state_dir: &Path) -> Result<usize, RuntimeError> {
    let filter = format!("{SYSTEM}={}", state_dir.display());
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&HashMap::from([("label", vec![filter.as_str()])]))
        .build();
    let mut removed = 0;
    // Until there are none: one may have been on its way when its maker was killed.
    loop {
        let found = docker.list_containers(Some(options.clone())).await;
        let found = found.map_err(failed("look for containers of an earlier system"))?;
        if found.is_empty() {
            return Ok(removed);
        }
        removed += found.len();
        let ids = found.into_iter().filter_map(|c| c.id);
        let gone = ids.map(async |id| remove(docker, &id).await);
        futures_util::future::try_join_all(gone).await?;
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
