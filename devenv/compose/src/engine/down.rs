//! `down`: nothing stays, but the volumes if they shall.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, Network};
use bollard::query_parameters::{
    InspectNetworkOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions,
    RemoveVolumeOptions, StopContainerOptions,
};

use super::error::{is_conflict, is_not_found, said};
use super::ps::{label, name_of};
use super::{Engine, EngineError, Progress, Told, labels};

/// What a container that is asked to stop gets beyond its own grace period before the
/// engine counts as gone.
const MARGIN: Duration = Duration::from_secs(60);

impl Engine {
    /// Stops and removes all containers of a project, whoever made them, those first that
    /// nobody depends on; then its networks and, if `volumes`, its volumes. What isn't
    /// there any more is no error, and what the file calls external is never touched.
    ///
    /// # Errors
    /// The first thing that can't be done.
    pub async fn down(
        &self,
        project: &str,
        volumes: bool,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        let containers = self.inspected(project).await?;
        let nameless = nameless_volumes(&containers);
        for container in dependents_first(containers) {
            self.remove(&container, told).await?;
        }
        self.remove_networks(project, told).await?;
        if volumes {
            for name in nameless {
                self.remove_volume(name, told).await?;
            }
            for name in self.labelled_volumes(project).await? {
                self.remove_volume(name, told).await?;
            }
        }
        Ok(())
    }

    /// Stops a container, with its own grace period, and removes it.
    pub(super) async fn remove(
        &self,
        container: &ContainerInspectResponse,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        let id = container.id.as_deref().unwrap_or_default();
        let name = name_of(container).to_owned();
        if container.state.as_ref().and_then(|s| s.running) == Some(true) {
            let grace = container.config.as_ref().and_then(|c| c.stop_timeout);
            let grace = Duration::from_secs(grace.and_then(|s| s.try_into().ok()).unwrap_or(10));
            let patient = self.docker.clone().with_timeout(grace + MARGIN);
            let none = None::<StopContainerOptions>;
            match patient.stop_container(id, none).await {
                Ok(()) => told(Progress::Stopped(name.clone())),
                Err(e) if is_not_found(&e) || is_conflict(&e) => {}
                Err(e) => return Err(EngineError::of(e, format!("stopping {name}"))),
            }
        }
        let options = RemoveContainerOptions {
            force: true,
            ..RemoveContainerOptions::default()
        };
        match self.docker.remove_container(id, Some(options)).await {
            Ok(()) => {}
            Err(e) if is_not_found(&e) || is_conflict(&e) => {}
            Err(e) => return Err(EngineError::of(e, format!("removing {name}"))),
        }
        told(Progress::Removed(name));
        Ok(())
    }

    async fn remove_networks(&self, project: &str, told: Told<'_>) -> Result<(), EngineError> {
        for network in self.networks_of(project).await? {
            self.remove_one(network, told).await?;
        }
        Ok(())
    }

    /// Removes the network of this name, if it is the project's.
    pub(super) async fn remove_network(
        &self,
        project: &str,
        name: &str,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        let all = self.networks_of(project).await?;
        match all.into_iter().find(|n| n.name.as_deref() == Some(name)) {
            Some(network) => self.remove_one(network, told).await,
            None => Ok(()),
        }
    }

    async fn networks_of(&self, project: &str) -> Result<Vec<Network>, EngineError> {
        let options = ListNetworksOptions {
            filters: Some(labels::filter(project)),
        };
        let found = self.docker.list_networks(Some(options)).await;
        found.map_err(|e| EngineError::of(e, "listing networks"))
    }

    async fn remove_one(&self, network: Network, told: Told<'_>) -> Result<(), EngineError> {
        let (Some(id), Some(name)) = (network.id, network.name) else {
            return Ok(());
        };
        match self.docker.remove_network(&id).await {
            Ok(()) => told(Progress::Removed(name)),
            Err(e) if is_not_found(&e) => {}
            Err(e) => {
                let users = self.users_of(&id).await;
                return Err(match users.is_empty() {
                    false => EngineError::NetworkUsed { name, users },
                    true => EngineError::of(e, format!("removing the network {name}")),
                });
            }
        }
        Ok(())
    }

    async fn users_of(&self, network: &str) -> Vec<String> {
        let none = None::<InspectNetworkOptions>;
        let found = self.docker.inspect_network(network, none).await;
        let containers = found.ok().and_then(|n| n.containers).unwrap_or_default();
        let mut names: Vec<String> = containers.into_values().filter_map(|c| c.name).collect();
        names.sort();
        names
    }

    async fn labelled_volumes(&self, project: &str) -> Result<Vec<String>, EngineError> {
        let options = ListVolumesOptions {
            filters: Some(labels::filter(project)),
        };
        let found = self.docker.list_volumes(Some(options)).await;
        let found = found.map_err(|e| EngineError::of(e, "listing volumes"))?;
        let volumes = found.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|v| v.name).collect())
    }

    pub(super) async fn remove_volume(
        &self,
        name: String,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        let none = None::<RemoveVolumeOptions>;
        match self.docker.remove_volume(&name, none).await {
            Ok(()) => told(Progress::Removed(name)),
            Err(e) if is_not_found(&e) => {}
            Err(e) if is_conflict(&e) => {
                let message = said(e).map(|(_, message)| message).unwrap_or_default();
                return Err(EngineError::VolumeUsed { name, message });
            }
            Err(e) => return Err(EngineError::of(e, format!("removing the volume {name}"))),
        }
        Ok(())
    }
}

/// The volumes of containers that nobody named: they have no labels to be found by. The
/// engine's own `rm -v` would leave those that a container has inherited.
fn nameless_volumes(containers: &[ContainerInspectResponse]) -> BTreeSet<String> {
    let digest = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    containers
        .iter()
        .flat_map(|c| c.mounts.iter().flatten())
        .filter_map(|mount| mount.name.clone())
        .filter(|name| digest(name))
        .collect()
}

/// By their labels: the file may have changed since, or be gone.
fn dependents_first(containers: Vec<ContainerInspectResponse>) -> Vec<ContainerInspectResponse> {
    let mut left: BTreeMap<String, (ContainerInspectResponse, BTreeSet<String>)> = containers
        .into_iter()
        .map(|c| {
            let on = label(&c, labels::DEPENDS_ON).unwrap_or_default();
            let on = on.split(',').filter_map(|d| d.split(':').next());
            let on = on.filter(|d| !d.is_empty()).map(Into::into).collect();
            (name_of(&c).to_owned(), (c, on))
        })
        .collect();
    let mut out = Vec::new();
    while !left.is_empty() {
        let needed: BTreeSet<String> = left.values().flat_map(|(_, on)| on.clone()).collect();
        let free = left.iter().find(|(_, (c, _))| {
            let service = label(c, labels::SERVICE).unwrap_or_default();
            !needed.contains(service)
        });
        // Labels may lie in a circle: then any comes first.
        let next = free.or_else(|| left.iter().next());
        let Some(name) = next.map(|(name, _)| name.clone()) else {
            break;
        };
        out.extend(left.remove(&name).map(|(c, _)| c));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[("a", "b:service_healthy:false"), ("b", "c:service_started:true"), ("c", "")], &["a", "b", "c"])]
    #[case(&[("a", ""), ("b", "a:service_started:false"), ("c", "a:x:y,b:x:y")], &["c", "b", "a"])]
    #[case(&[("a", "b:x:y"), ("b", "a:x:y")], &["a", "b"])]
    #[case(&[("a", "gone:x:y")], &["a"])]
    fn order(#[case] containers: &[(&str, &str)], #[case] want: &[&str]) {
        let containers = containers
            .iter()
            .map(|(name, on)| {
                let labels = serde_json::json!({labels::SERVICE: name, labels::DEPENDS_ON: on});
                let whole =
                    serde_json::json!({"Name": format!("/{name}"), "Config": {"Labels": labels}});
                serde_json::from_value(whole).unwrap()
            })
            .collect();
        let got = dependents_first(containers);
        let got: Vec<&str> = got.iter().map(name_of).collect();
        assert_eq!(got, want);
    }
}
