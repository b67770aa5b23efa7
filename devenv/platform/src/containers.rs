//! Images for pods that run in containers: built by a Docker Engine from the Dockerfiles
//! that production's images are built from.

mod build;
mod context;
mod ignored;
mod sync;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bollard::query_parameters::PruneImagesOptionsBuilder;
use devenv_cluster::pod::docker::RUNTIME_FOLDER;
use devenv_cluster::pod::docker::sweep;
use devenv_cluster::{ContainerImage, Containers, RunSpec};
use devenv_compose::{Engine, EngineError};
use devenv_model::ImageSource;

pub use build::BuildFailed;
pub use context::Stamps;
pub use sync::{Files, Layer};

use crate::{
    cloudsql, kind, shared,
    target::{ImageFact, TargetError},
};

/// A Docker Engine that builds and runs the project's images.
#[derive(Debug, Clone)]
pub struct ContainerEngine {
    engine: Engine,
    /// Whether it builds with BuildKit; otherwise with the builder of before.
    buildkit: bool,
    /// Whether images are brought from it to nodes, which take a layer alone.
    nodes: bool,
}

/// An image as it was built: how its program is run, and of which words its ENTRYPOINT is.
#[derive(Debug, Clone)]
pub struct Built {
    /// How it runs.
    pub run: RunSpec,
    /// [`crate::BuiltImage::entrypoint`].
    pub entrypoint: usize,
    /// Where the engine has no such image: what has to be laid over one that it has.
    pub layer: Option<Arc<Layer>>,
}

/// The first version of the API of engines whose daemon has BuildKit in it.
const BUILDKIT_SINCE: (u32, u32) = (1, 39);

impl ContainerEngine {
    /// The engine that `DOCKER_HOST` names, or the one of this machine.
    ///
    /// # Errors
    /// [`EngineError::Missing`] when none answers.
    pub async fn connect() -> Result<Self, EngineError> {
        let host = std::env::var("DOCKER_HOST").ok();
        let engine = Engine::connect(host.as_deref()).await?;
        let version = engine.docker().version().await.unwrap_or_default();
        // Podman speaks the API and builds in its own way.
        let is_docker = version
            .components
            .iter()
            .flatten()
            .any(|component| component.name == "Engine");
        let since = |text: &str| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?) >= BUILDKIT_SINCE)
        };
        let new_enough = version.api_version.as_deref().and_then(since);
        Ok(Self {
            engine,
            buildkit: is_docker && new_enough.unwrap_or(false),
            nodes: false,
        })
    }

    /// Builds for nodes of a cluster: what is laid over an image is left to who brings it
    /// there.
    #[must_use]
    pub fn for_nodes(mut self) -> Self {
        self.nodes = true;
        self
    }

    /// Whether it builds with BuildKit, whatever it has.
    #[must_use]
    pub fn with_buildkit(mut self, buildkit: bool) -> Self {
        self.buildkit = buildkit;
        self
    }

    /// The engine itself.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine for a cluster's pods.
    pub fn for_pods(&self) -> Containers {
        Containers {
            docker: self.engine.docker().clone(),
            host: self.engine.host().to_owned(),
        }
    }

    /// Builds the image of `source` as it lies there now. `told` gets what the build says,
    /// line by line. What has not changed comes out of the engine's cache.
    ///
    /// # Errors
    /// [`BuildFailed`] with what it said.
    pub async fn build(
        &self,
        project: &str,
        source: &ImageSource,
        told: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Built, BuildFailed> {
        let tag = tag_of(project, &source.name);
        let id = build::run(
            self.engine.docker(),
            self.buildkit,
            (project, &tag),
            source,
            told,
        )
        .await?;
        self.look_at(source, &id).await
    }

    /// The files that decide what [`ContainerEngine::build`] makes of `source`, as they are.
    ///
    /// # Errors
    /// [`BuildFailed`] when they can't be looked at.
    pub async fn files(&self, source: &ImageSource) -> Result<Stamps, BuildFailed> {
        // Nobody asks where nothing is laid over what is made of them.
        let build = source.container.clone().filter(|b| !b.sync.is_empty());
        let Some(build) = build else {
            return Ok(Stamps::new());
        };
        let list = move || context::Context::of(&build)?.files(&build);
        let listed = tokio::task::spawn_blocking(list).await;
        let listed = listed.map_err(std::io::Error::other).flatten();
        listed.map_err(|error| BuildFailed::Context {
            image: source.name.clone(),
            source: error,
        })
    }

    /// Lays `files` over `base`, which [`ContainerEngine::build`] made of `source`.
    ///
    /// # Errors
    /// [`BuildFailed`] when a file can't be read, or the engine refuses.
    pub async fn lay_over(
        &self,
        project: &str,
        source: &ImageSource,
        base: &Built,
        files: &Files,
    ) -> Result<Built, BuildFailed> {
        let below = base.run.container.as_ref().map(|c| c.id.clone());
        let (Some(below), false) = (below, files.is_empty()) else {
            return Ok(base.clone());
        };
        let unreadable = |error| BuildFailed::Context {
            image: source.name.clone(),
            source: error,
        };
        if !self.nodes {
            let context = files.context(&below).map_err(unreadable)?;
            let id = build::lay_over(self.engine.docker(), project, source, context).await?;
            return self.look_at(source, &id).await;
        }
        let layer = files.layer(&below).map_err(unreadable)?;
        let mut built = base.clone();
        if let Some(image) = &mut built.run.container {
            // The nodes' images are named by it; the engine never sees it.
            let (id, _) = kind::digest_of(format!("{below}\n{}", layer.digest).as_bytes())
                .map_err(unreadable)?;
            Arc::make_mut(image).id = id;
        }
        built.layer = Some(Arc::new(layer));
        Ok(built)
    }

    /// What the engine has under this name now.
    pub async fn image(&self, name: &str) -> ImageFact {
        match self.engine.docker().inspect_image(name).await {
            Ok(found) => match found.id {
                Some(id) => ImageFact::Digest(id),
                None => ImageFact::Unknown("the engine does not tell its id".to_owned()),
            },
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => ImageFact::Unknown(format!("the engine has no image {name}")),
            Err(error) => ImageFact::Unknown(error.to_string()),
        }
    }

    /// Removes what builds of a project have replaced and no container runs.
    pub async fn prune(&self, project: &str) {
        let label = format!("{}={project}", sweep::PROJECT);
        let filters = HashMap::from([("dangling", vec!["true"]), ("label", vec![label.as_str()])]);
        let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
        if let Err(error) = self.engine.docker().prune_images(Some(options)).await {
            // They take room, and nothing else.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "images that were replaced are left"
            );
        }
    }

    /// How the program of an image runs.
    async fn look_at(&self, source: &ImageSource, id: &str) -> Result<Built, BuildFailed> {
        let found = self.engine.docker().inspect_image(id).await;
        let found = found.map_err(|error| BuildFailed::engine(&source.name, error))?;
        let config = found.config.unwrap_or_default();
        let entrypoint = config.entrypoint.unwrap_or_default();
        let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
        let env = config.env.unwrap_or_default();
        Ok(Built {
            entrypoint: entrypoint.len(),
            layer: None,
            run: RunSpec {
                argv: entrypoint
                    .into_iter()
                    .chain(config.cmd.unwrap_or_default())
                    .collect(),
                cwd: filled(config.working_dir)
                    .unwrap_or_else(|| "/".into())
                    .into(),
                workdir: None,
                env: env
                    .iter()
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                binds: Vec::new(),
                container: Some(Arc::new(ContainerImage {
                    id: found.id.unwrap_or_else(|| id.to_owned()),
                    user: filled(config.user),
                    stop_signal: filled(config.stop_signal),
                })),
            },
        })
    }
}

/// Removes the containers that a killed system left, whose state is in `state_dir`, if it
/// had any; returns how many there were. Nobody may run that system.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn sweep_leftovers(state_dir: &Path) -> Result<usize, TargetError> {
    // Made by the runtime before its first container, and gone when it ends in order.
    let traces = state_dir.join(RUNTIME_FOLDER);
    if !traces.exists() {
        return Ok(0);
    }
    let engine = ContainerEngine::connect().await?;
    let label = sweep::of_system(state_dir);
    let swept = sweep::containers(engine.engine.docker(), &label).await;
    let swept = swept.map_err(|e| TargetError::Leftovers(e.full()))?;
    let removed = std::fs::remove_dir_all(&traces);
    removed.map_err(|source| TargetError::Io {
        what: "remove",
        path: traces,
        source,
    })?;
    Ok(swept)
}

/// Whether a system with this state folder has, or may have, something on an engine.
pub fn has_leftovers(state_dir: &Path) -> bool {
    state_dir.join(RUNTIME_FOLDER).exists()
        || kind::has_cluster(state_dir)
        || shared::has_namespace(state_dir)
        || cloudsql::has_container(state_dir)
}

/// Removes everything that a killed system, whose state is in `state_dir`, left on an
/// engine: pods, and its database's container; with `volumes` the data, too. A kind cluster is
/// stopped, or removed with `volumes`; so are the workloads of a namespace on a cluster that others
/// use, and the namespace.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn remove_all(state_dir: &Path, volumes: bool) -> Result<usize, TargetError> {
    let swept = sweep_leftovers(state_dir).await?;
    kind::take_down(state_dir, volumes).await?;
    shared::take_down(state_dir, volumes).await?;
    cloudsql::remove_container(state_dir, volumes).await?;
    Ok(swept)
}

/// What the engine calls the last that was built of an image of devenv.toml.
pub fn tag_of(project: &str, image: &str) -> String {
    format!("devenv/{project}-{}:latest", legal(image))
}

/// A part of an image's name, as the distribution spec has it: lower case letters, digits
/// and single separators.
fn legal(name: &str) -> String {
    let mut made = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => made.push(c),
            _ if made.is_empty() || made.ends_with('-') => {}
            _ => made.push('-'),
        }
    }
    made.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal() {
        for (name, expected) in [
            ("api1", "api1"),
            ("Registry.io/My_App", "registry-io-my-app"),
            ("--x--", "x"),
        ] {
            assert_eq!(legal(name), expected);
        }
    }
}
