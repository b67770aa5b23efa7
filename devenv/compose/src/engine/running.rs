//! What is there already: stopped, started, and watched.

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{EventsOptions, StartContainerOptions, StopContainerOptions};
use futures_util::{Stream, StreamExt, stream};

use super::error::is_conflict;
use super::ps::{is_one_off, label, name_of};
use super::{Engine, EngineError, labels};

impl Engine {
    /// Stops a service's container and leaves it there, as `docker compose stop NAME` does.
    ///
    /// # Errors
    /// When the engine refuses or does not answer.
    pub async fn stop(&self, project: &str, service: &str) -> Result<(), EngineError> {
        for container in self.of_service(project, service).await? {
            let name = name_of(&container);
            let none = None::<StopContainerOptions>;
            match self.docker.stop_container(name, none).await {
                Err(e) if !is_conflict(&e) => {
                    return Err(EngineError::of(e, format!("stopping {name}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts a service's container again, as `docker compose start NAME` does.
    ///
    /// # Errors
    /// When the engine refuses or does not answer.
    pub async fn start(&self, project: &str, service: &str) -> Result<(), EngineError> {
        for container in self.of_service(project, service).await? {
            let name = name_of(&container);
            let none = None::<StartContainerOptions>;
            match self.docker.start_container(name, none).await {
                Err(e) if !is_conflict(&e) => {
                    return Err(EngineError::of(e, format!("starting {name}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn of_service(
        &self,
        project: &str,
        service: &str,
    ) -> Result<Vec<ContainerInspectResponse>, EngineError> {
        let mut found = self.inspected(project).await?;
        found.retain(|c| label(c, labels::SERVICE) == Some(service) && !is_one_off(c));
        Ok(found)
    }

    /// Tells that a container of the project has started, ended, come, gone, or changed its
    /// health, from now on: whoever looks at [`Engine::ps`] first and then each time misses
    /// nothing. Ends with an error when the engine goes away.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn changes(
        &self,
        project: &str,
    ) -> Result<impl Stream<Item = Result<(), EngineError>> + Send + use<>, EngineError> {
        let doing = "watching containers";
        let mut filters = labels::filter(project);
        let events = ["create", "start", "die", "destroy", "health_status"];
        filters.extend([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), events.map(str::to_owned).to_vec()),
        ]);
        let events = self.docker.events(Some(EventsOptions {
            since: self.time(doing).await?,
            until: None,
            filters: Some(filters),
        }));
        let told = events.map(move |event| match event {
            Ok(_) => Ok(()),
            Err(e) => Err(EngineError::of(e, doing)),
        });
        let gone = stream::once(async move {
            let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            Err(EngineError::of(ended.into(), doing))
        });
        Ok(told.chain(gone))
    }
}
