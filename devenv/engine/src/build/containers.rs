//! Images of containers: each is built by the engine, which knows by itself what has not
//! changed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use devenv_model::ImageSource;
use devenv_platform::{ContainerEngine, containers::Built};

use super::{BuildError, seconds};
use crate::event::{Bus, Event};

/// What makes them, and what was made.
#[derive(Debug)]
pub(super) struct Containers {
    engine: ContainerEngine,
    project: String,
    /// By the image's name in devenv.toml.
    built: Mutex<BTreeMap<String, Built>>,
}

impl Containers {
    pub(super) fn new(engine: &ContainerEngine, project: &str) -> Self {
        Self {
            engine: engine.clone(),
            project: project.to_owned(),
            built: Mutex::default(),
        }
    }

    fn built(&self) -> MutexGuard<'_, BTreeMap<String, Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last that was built of an image.
    pub(super) fn last(&self, image: &str) -> Option<Built> {
        self.built().get(image).cloned()
    }

    /// Builds images side by side; returns those that are others than before, for the
    /// report.
    ///
    /// # Errors
    /// What failed first.
    pub(super) async fn build<'a>(
        &self,
        images: impl Iterator<Item = &'a ImageSource>,
        bus: &Bus,
    ) -> Result<Vec<String>, BuildError> {
        let builds = images.map(async |image| {
            let started = Instant::now();
            let told = |line| {
                let source = image.name.clone();
                bus.emit(Event::Output { source, line });
            };
            let made = self.engine.build(&self.project, image, &told).await?;
            let took = seconds(started.elapsed());
            let before = self.built().insert(image.name.clone(), made.clone());
            let same = before.is_some_and(|before| before.run == made.run);
            Ok::<_, BuildError>((!same).then(|| format!("{} ({took})", image.name)))
        });
        let built = futures_util::future::try_join_all(builds).await?;
        Ok(built.into_iter().flatten().collect())
    }
}
