//! What of a Compose project is one checkout's own. Two checkouts of a repository have
//! projects of the same name, and what one has made is not the other's to remove.

use bollard::models::ContainerInspectResponse;

use super::error::is_not_found;
use super::ps::{is_one_off, label};
use super::{Engine, EngineError, Told, labels};
use crate::project::Project;

/// Some services of a project, with their networks and volumes, as one folder runs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The project's name.
    pub project: String,
    /// The folder of its file.
    pub working_dir: String,
    /// The services.
    pub services: Vec<String>,
    /// Their networks' names, without those that the file calls external.
    pub networks: Vec<String>,
    /// Their volumes' names, without those that the file calls external.
    pub volumes: Vec<String>,
}

impl Share {
    /// All of `project`, which [`Project::only`] may have made smaller.
    pub fn of(project: &Project) -> Self {
        let networks = project.networks.values().filter(|n| !n.external);
        let volumes = project.volumes.values().filter(|v| !v.external);
        Self {
            project: project.name.clone(),
            working_dir: project.working_dir.display().to_string(),
            services: project.services.keys().cloned().collect(),
            networks: networks.map(|n| n.name.clone()).collect(),
            volumes: volumes.map(|v| v.name.clone()).collect(),
        }
    }

    fn has(&self, container: &ContainerInspectResponse) -> bool {
        let service = label(container, labels::SERVICE);
        service.is_some_and(|s| self.services.iter().any(|own| own == s)) && !is_one_off(container)
    }
}

impl Engine {
    /// The folder of another checkout that runs a service of `share`, or has data of it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn other_owner(&self, share: &Share) -> Result<Option<String>, EngineError> {
        let is_other = |dir: &str| dir != share.working_dir;
        for container in self.inspected(&share.project).await? {
            let dir = label(&container, labels::WORKING_DIR);
            if share.has(&container)
                && let Some(dir) = dir.filter(|dir| is_other(dir))
            {
                return Ok(Some(dir.to_owned()));
            }
        }
        for volume in &share.volumes {
            let dir = self.folder_of_volume(volume).await?.flatten();
            if let Some(dir) = dir.filter(|dir| is_other(dir)) {
                return Ok(Some(dir));
            }
        }
        Ok(None)
    }

    /// The outer `None`: there is no such volume; the inner: it says nothing.
    async fn folder_of_volume(&self, name: &str) -> Result<Option<Option<String>>, EngineError> {
        match self.docker.inspect_volume(name).await {
            Ok(found) => Ok(Some(found.labels.get(labels::WORKING_DIR).cloned())),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(EngineError::of(e, format!("looking at the volume {name}"))),
        }
    }

    /// Stops and removes what is `share`'s, and nothing of another folder or service: its
    /// containers, its networks where nobody else is on them, and with `volumes` the
    /// volumes that were made for it.
    ///
    /// # Errors
    /// The first thing that can't be done.
    pub async fn take_down(
        &self,
        share: &Share,
        volumes: bool,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        for container in self.inspected(&share.project).await? {
            let is_own = label(&container, labels::WORKING_DIR) == Some(&share.working_dir);
            if is_own && share.has(&container) {
                self.remove(&container, told).await?;
            }
        }
        for network in &share.networks {
            match self.remove_network(&share.project, network, told).await {
                Err(EngineError::NetworkUsed { .. }) => {}
                removed => removed?,
            }
        }
        if volumes {
            for volume in &share.volumes {
                let folder = self.folder_of_volume(volume).await?.flatten();
                if folder.as_ref() == Some(&share.working_dir) {
                    self.remove_volume(volume.clone(), told).await?;
                }
            }
        }
        Ok(())
    }
}
