//! What runs.

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};

use super::error::is_not_found;
use super::{Engine, EngineError, labels};

/// A container of a project, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its service.
    pub service: String,
    /// Its name, without a slash.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its image, as it was asked for.
    pub image: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// `starting`, `healthy` or `unhealthy`; nothing without a healthcheck.
    pub health: Option<String>,
    /// What its process ended with, where it has ended.
    pub exit_code: Option<i64>,
    /// Whether the kernel ended it for want of memory.
    pub oom_killed: bool,
    /// The ports of the host that lead to it.
    pub ports: Vec<Published>,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The host's address.
    pub host_ip: String,
    /// The host's port.
    pub host_port: u16,
    /// The container's: `80/tcp`.
    pub target: String,
}

impl Engine {
    /// The containers of a project, stopped ones too, by service; those of
    /// `docker compose run` are not among them.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn ps(&self, project: &str) -> Result<Vec<Container>, EngineError> {
        let mut out: Vec<Container> = self
            .inspected(project)
            .await?
            .into_iter()
            .filter(|c| !is_one_off(c))
            .map(container)
            .collect();
        out.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        Ok(out)
    }

    /// All containers of a project, one-off ones too.
    pub(super) async fn inspected(
        &self,
        project: &str,
    ) -> Result<Vec<ContainerInspectResponse>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(labels::filter(project)),
            ..ListContainersOptions::default()
        };
        let listed = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|e| EngineError::of(e, "listing containers"))?;
        let mut out = Vec::with_capacity(listed.len());
        for id in listed.into_iter().filter_map(|c| c.id) {
            // One may go while the others are looked at.
            out.extend(self.inspect(&id).await?);
        }
        Ok(out)
    }

    /// A container, if it is there.
    pub(super) async fn inspect(
        &self,
        container: &str,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let none = None::<InspectContainerOptions>;
        match self.docker.inspect_container(container, none).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(EngineError::of(e, format!("looking at {container}"))),
        }
    }
}

/// A label of a container.
pub(super) fn label<'c>(container: &'c ContainerInspectResponse, key: &str) -> Option<&'c str> {
    let labels = container.config.as_ref()?.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

/// Its name, without the engine's slash.
pub(super) fn name_of(container: &ContainerInspectResponse) -> &str {
    let name = container.name.as_deref().unwrap_or_default();
    name.strip_prefix('/').unwrap_or(name)
}

/// Whether `docker compose run` made it.
pub(super) fn is_one_off(container: &ContainerInspectResponse) -> bool {
    label(container, labels::ONE_OFF) == Some("True")
}

fn container(c: ContainerInspectResponse) -> Container {
    let state = c.state.clone().unwrap_or_default();
    let status = state.status.map(|s| s.to_string()).unwrap_or_default();
    let health = state.health.and_then(|h| h.status).and_then(|s| match s {
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
        status => Some(status.to_string()),
    });
    let mut ports = Vec::new();
    let bound = c.network_settings.as_ref().and_then(|n| n.ports.as_ref());
    for (target, bindings) in bound.into_iter().flatten() {
        for binding in bindings.iter().flatten() {
            let port = binding.host_port.as_deref().and_then(|p| p.parse().ok());
            ports.extend(port.map(|host_port| Published {
                host_ip: binding.host_ip.clone().unwrap_or_default(),
                host_port,
                target: target.clone(),
            }));
        }
    }
    ports.sort();
    Container {
        service: label(&c, labels::SERVICE).unwrap_or_default().into(),
        name: name_of(&c).into(),
        exit_code: state
            .exit_code
            .filter(|_| matches!(status.as_str(), "exited" | "dead")),
        oom_killed: state.oom_killed.unwrap_or(false),
        image: c
            .config
            .as_ref()
            .and_then(|config| config.image.clone())
            .unwrap_or_default(),
        id: c.id.unwrap_or_default(),
        state: status,
        health,
        ports,
    }
}
