//! `up`: what is missing is made, what has changed is made anew, the rest is left alone.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ImageInspect, Mount as EngineMount,
    MountType, NetworkConnectRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectNetworkOptions, ListContainersOptions, RenameContainerOptions,
    StartContainerOptions,
};
use futures_util::future::try_join_all;

use super::error::{is_conflict, is_not_found, said, taken_port};
use super::ps::{is_one_off, label, name_of};
use super::wait::Goal;
use super::{Engine, EngineError, Progress, Told, body, labels};
use crate::project::{Condition, Network, Project, Service, Volume};

impl Engine {
    /// Makes the project run: images, networks, volumes, then the services in the order
    /// of their dependencies, each awaited as `depends_on` says. Returns when all of them
    /// work: healthy where there is a healthcheck.
    ///
    /// It may be called at any time, also after an earlier call was cut off: what runs as
    /// the file says is left alone. No time limit: drop the future to give up.
    ///
    /// # Errors
    /// The first thing that can't be done; what was made until then stays.
    pub async fn up(&self, project: &Project, told: Told<'_>) -> Result<(), EngineError> {
        let found = self.inspected(&project.name).await?;
        let mut images = HashMap::new();
        for service in project.services.values() {
            images.insert(service.name.as_str(), self.image(service, told).await?);
        }
        let mut networks = BTreeMap::new();
        for (key, network) in &project.networks {
            let id = self.ensure_network(project, key, network, told).await?;
            networks.insert(key.as_str(), id);
        }
        for (key, volume) in &project.volumes {
            self.ensure_volume(project, key, volume, told).await?;
        }
        tell_orphans(project, &found, told);
        for service in project.in_order() {
            self.await_dependencies(project, service, told).await?;
            let up = Making {
                project,
                service,
                image: &images[service.name.as_str()],
                networks: &networks,
                told,
            };
            let mine = found
                .iter()
                .filter(|c| label(c, labels::SERVICE) == Some(&service.name) && !is_one_off(c))
                .collect();
            self.ensure_container(&up, mine).await?;
        }
        let works = project.services.values().map(async |service| {
            let container = service.container(&project.name);
            self.wait(service, &container, Goal::Works).await?;
            if service.healthcheck.as_ref().is_some_and(|h| !h.disable) {
                told(Progress::Healthy(container));
            }
            Ok(())
        });
        try_join_all(works).await?;
        Ok(())
    }

    async fn await_dependencies(
        &self,
        project: &Project,
        service: &Service,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        for (name, dependency) in &service.depends_on {
            let Some(other) = project.services.get(name) else {
                continue;
            };
            let (goal, until) = match dependency.condition {
                Condition::Started => continue,
                Condition::Healthy => (Goal::Healthy, "healthy"),
                Condition::CompletedSuccessfully => (Goal::Ended, "ended"),
            };
            let container = other.container(&project.name);
            told(Progress::Waiting {
                container: container.clone(),
                until,
            });
            match self.wait(other, &container, goal).await {
                Err(e) if dependency.required => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Its id.
    async fn ensure_network(
        &self,
        project: &Project,
        key: &str,
        network: &Network,
        told: Told<'_>,
    ) -> Result<String, EngineError> {
        let doing = || format!("making the network {}", network.name);
        let none = None::<InspectNetworkOptions>;
        match self.docker.inspect_network(&network.name, none).await {
            // The engine takes the beginning of an id for a name, too.
            Ok(found) if found.name.as_deref() == Some(&network.name) => {
                let labels = found.labels.unwrap_or_default();
                let whose = labels.get(labels::PROJECT);
                if !network.external && whose != Some(&project.name) {
                    return Err(EngineError::NameTaken {
                        what: "the network",
                        name: network.name.clone(),
                        holder: owner(whose),
                        origin: network.origin.clone(),
                    });
                }
                return Ok(found.id.unwrap_or_default());
            }
            Ok(_) => {}
            Err(e) if is_not_found(&e) => {}
            Err(e) => return Err(EngineError::of(e, doing())),
        }
        if network.external {
            return Err(EngineError::NoExternal {
                what: "network",
                name: network.name.clone(),
                origin: network.origin.clone(),
            });
        }
        let request = body::network(project, key, network);
        let made = self
            .docker
            .create_network(request)
            .await
            .map_err(|e| EngineError::of(e, doing()))?;
        told(Progress::NetworkCreated(network.name.clone()));
        Ok(made.id)
    }

    async fn ensure_volume(
        &self,
        project: &Project,
        key: &str,
        volume: &Volume,
        told: Told<'_>,
    ) -> Result<(), EngineError> {
        let doing = || format!("making the volume {}", volume.name);
        match self.docker.inspect_volume(&volume.name).await {
            Ok(found) => {
                // One without labels was made by hand, for this project: its name says so.
                let whose = found.labels.get(labels::PROJECT);
                if !volume.external && whose.is_some_and(|w| *w != project.name) {
                    return Err(EngineError::NameTaken {
                        what: "the volume",
                        name: volume.name.clone(),
                        holder: owner(whose),
                        origin: volume.origin.clone(),
                    });
                }
                Ok(())
            }
            Err(e) if is_not_found(&e) && volume.external => Err(EngineError::NoExternal {
                what: "volume",
                name: volume.name.clone(),
                origin: volume.origin.clone(),
            }),
            Err(e) if is_not_found(&e) => {
                let request = body::volume(project, key, volume);
                let made = self.docker.create_volume(request).await;
                made.map_err(|e| EngineError::of(e, doing()))?;
                told(Progress::VolumeCreated(volume.name.clone()));
                Ok(())
            }
            Err(e) => Err(EngineError::of(e, doing())),
        }
    }

    /// Leaves one container of the service, as the file says, running.
    async fn ensure_container(
        &self,
        up: &Making<'_>,
        mine: Vec<&ContainerInspectResponse>,
    ) -> Result<(), EngineError> {
        let name = up.service.container(&up.project.name);
        // The one with the name, or else one that an interrupted `up` had not named yet.
        let keep = mine
            .iter()
            .find(|c| name_of(c) == name)
            .or_else(|| mine.first())
            .copied();
        for other in mine.iter().filter(|c| keep.is_none_or(|k| k.id != c.id)) {
            self.remove(other, up.told).await?;
        }
        let Some(old) = keep else {
            self.create(up, &name, Vec::new()).await?;
            (up.told)(Progress::Created(name.clone()));
            return self.start_container(up, &name).await;
        };
        if !up.is_current(old) {
            return self.recreate(up, old, &name).await;
        }
        if name_of(old) != name {
            self.rename(old, &name).await?;
        }
        use ContainerStateStatusEnum as Status;
        match old.state.as_ref().and_then(|s| s.status) {
            Some(Status::RUNNING | Status::RESTARTING) => {
                (up.told)(Progress::Unchanged(name));
                Ok(())
            }
            Some(Status::PAUSED) => {
                let resumed = self.docker.unpause_container(&name).await;
                resumed.map_err(|e| EngineError::of(e, format!("resuming {name}")))?;
                (up.told)(Progress::Started(name));
                Ok(())
            }
            // A job that has done its work is not done again.
            Some(Status::EXITED) if up.is_done(old) => {
                (up.told)(Progress::Unchanged(name));
                Ok(())
            }
            Some(Status::DEAD | Status::REMOVING) => self.recreate(up, old, &name).await,
            _ => self.start_container(up, &name).await,
        }
    }

    /// The new one is made beside the old one, which goes only when that has succeeded.
    async fn recreate(
        &self,
        up: &Making<'_>,
        old: &ContainerInspectResponse,
        name: &str,
    ) -> Result<(), EngineError> {
        let id = old.id.as_deref().unwrap_or_default();
        let beside = format!("{}_{name}", &id[..id.len().min(12)]);
        self.create(up, &beside, up.inherited(old)).await?;
        self.remove(old, up.told).await?;
        let Some(new) = self.inspect(&beside).await? else {
            return Err(EngineError::Refused {
                doing: format!("making {name} anew"),
                message: "somebody removed it".into(),
            });
        };
        self.rename(&new, name).await?;
        (up.told)(Progress::Recreated(name.into()));
        self.start_container(up, name).await
    }

    async fn rename(&self, old: &ContainerInspectResponse, name: &str) -> Result<(), EngineError> {
        let id = old.id.as_deref().unwrap_or_default();
        let options = RenameContainerOptions { name: name.into() };
        let renamed = self.docker.rename_container(id, options).await;
        renamed.map_err(|e| EngineError::of(e, format!("naming {name}")))
    }

    async fn create(
        &self,
        up: &Making<'_>,
        name: &str,
        inherited: Vec<EngineMount>,
    ) -> Result<(), EngineError> {
        let (project, service) = (up.project, up.service);
        let image = up.image.id.as_deref().unwrap_or_default();
        let request = body::container(project, service, image, inherited);
        let mut first = true;
        loop {
            let options = CreateContainerOptions {
                name: Some(name.into()),
                ..CreateContainerOptions::default()
            };
            let made = self.docker.create_container(Some(options), request.clone());
            match made.await {
                Ok(_) => break,
                Err(e) if is_conflict(&e) => {}
                Err(e) => return Err(EngineError::of(e, format!("making {name}"))),
            }
            let holder = self.inspect(name).await?;
            let whose = |key| holder.as_ref().and_then(|c| label(c, key));
            let ours = whose(labels::PROJECT) == Some(&project.name)
                && whose(labels::SERVICE) == Some(&service.name);
            match &holder {
                // An `up` that was cut off had asked for it, and the engine was slow.
                Some(late) if ours && first => self.remove(late, up.told).await?,
                _ => {
                    return Err(EngineError::NameTaken {
                        what: "the container",
                        name: name.into(),
                        holder: owner(whose(labels::PROJECT).map(Into::into).as_ref()),
                        origin: service.origin.clone(),
                    });
                }
            }
            first = false;
        }
        // Older engines take the first network only.
        for (key, attachment) in service.networks.iter().skip(1) {
            let Some(network) = project.networks.get(key) else {
                continue;
            };
            let request = NetworkConnectRequest {
                container: name.into(),
                endpoint_config: Some(body::endpoint(project, service, attachment.as_ref())),
            };
            let joined = self.docker.connect_network(&network.name, request).await;
            joined.map_err(|e| {
                EngineError::of(e, format!("putting {name} on the network {}", network.name))
            })?;
        }
        Ok(())
    }

    async fn start_container(&self, up: &Making<'_>, name: &str) -> Result<(), EngineError> {
        let none = None::<StartContainerOptions>;
        let Err(error) = self.docker.start_container(name, none).await else {
            (up.told)(Progress::Started(name.into()));
            return Ok(());
        };
        let (status_code, message) = said(error).map_err(|source| EngineError::Lost {
            doing: format!("starting {name}"),
            source,
        })?;
        if let Some(address) = taken_port(&message) {
            return Err(EngineError::PortTaken {
                service: up.service.name.clone(),
                holder: self.publishing(&address, name).await,
                address,
                origin: up.service.origin.clone(),
            });
        }
        let error = bollard::errors::Error::DockerResponseServerError {
            status_code,
            message,
        };
        Err(EngineError::of(error, format!("starting {name}")))
    }

    /// The container that publishes the port of `ADDRESS:PORT`, if one does.
    async fn publishing(&self, address: &str, but: &str) -> Option<String> {
        let port: u16 = address.rsplit_once(':')?.1.parse().ok()?;
        let options = None::<ListContainersOptions>;
        let running = self.docker.list_containers(options).await.ok()?;
        running.into_iter().find_map(|c| {
            let publishes = |p: &bollard::models::PortSummary| p.public_port == Some(port);
            let name = c.names?.into_iter().next()?;
            let name = name.trim_start_matches('/');
            let holds = c.ports?.iter().any(publishes) && name != but;
            holds.then(|| format!("the container {name}"))
        })
    }
}

/// What a service's container is made from.
struct Making<'u> {
    project: &'u Project,
    service: &'u Service,
    image: &'u ImageInspect,
    /// The ids of the project's networks.
    networks: &'u BTreeMap<&'u str, String>,
    told: Told<'u>,
}

impl Making<'_> {
    /// Whether a container is what the file, its image and its networks are now.
    fn is_current(&self, container: &ContainerInspectResponse) -> bool {
        label(container, labels::CONFIG_HASH) == Some(&self.service.config_hash())
            && container.image == self.image.id
            && self.is_on_its_networks(container)
    }

    /// A network that was removed and made again has another id.
    fn is_on_its_networks(&self, container: &ContainerInspectResponse) -> bool {
        let on = container.network_settings.as_ref();
        let on = on.and_then(|n| n.networks.as_ref());
        self.service.networks.keys().all(|key| {
            let Some((network, id)) = self
                .project
                .networks
                .get(key)
                .zip(self.networks.get(key.as_str()))
            else {
                return true;
            };
            let endpoint = on.and_then(|on| on.get(&network.name));
            // One that never ran has no id yet: its network is found by name.
            endpoint.is_some_and(|e| {
                e.network_id
                    .as_deref()
                    .is_none_or(|known| known.is_empty() || known == id)
            })
        })
    }

    /// Whether it is a job that others wait for, and has succeeded.
    fn is_done(&self, container: &ContainerInspectResponse) -> bool {
        let waited_for = self.project.services.values().any(|other| {
            other
                .depends_on
                .get(&self.service.name)
                .is_some_and(|d| d.condition == Condition::CompletedSuccessfully)
        });
        let code = container.state.as_ref().and_then(|s| s.exit_code);
        waited_for && code == Some(0)
    }

    /// The volumes without a name that the old container has where the new one wants such.
    fn inherited(&self, old: &ContainerInspectResponse) -> Vec<EngineMount> {
        let image = self.image.config.as_ref().and_then(|c| c.volumes.clone());
        let image = image.unwrap_or_default();
        let wants = |target: &str| {
            let mut mounts = self.service.mounts.iter();
            match mounts.find(|m| m.target == target) {
                Some(mount) => mount.is_anonymous(),
                None => image.iter().any(|v| v == target),
            }
        };
        old.mounts
            .iter()
            .flatten()
            .filter(|m| m.typ.as_deref() == Some("volume"))
            .filter_map(|m| {
                let target = m.destination.clone()?;
                wants(&target).then(|| EngineMount {
                    typ: Some(MountType::VOLUME),
                    source: m.name.clone(),
                    target: Some(target),
                    read_only: m.rw.map(|rw| !rw),
                    ..EngineMount::default()
                })
            })
            .collect()
    }
}

fn tell_orphans(project: &Project, found: &[ContainerInspectResponse], told: Told<'_>) {
    let orphans: Vec<String> = found
        .iter()
        .filter(|c| !is_one_off(c))
        .filter(|c| {
            let service = label(c, labels::SERVICE).unwrap_or_default();
            !project.services.contains_key(service) && !project.disabled.contains(service)
        })
        .map(|c| name_of(c).to_owned())
        .collect();
    if !orphans.is_empty() {
        told(Progress::Orphans(orphans));
    }
}

/// Whose something is, by its label.
fn owner(project: Option<&String>) -> String {
    match project {
        Some(project) => format!("the Compose project {project} has it"),
        None => "it was made without Compose".into(),
    }
}
