//! Images of containers: each is built by the engine, which knows by itself what has not
//! changed. What is saved after that is laid over it, where its Dockerfile only copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use devenv_model::{ContainerBuild, ImageSource};
use devenv_platform::{
    ContainerEngine,
    containers::{BuildFailed, Built, Files},
};

use super::{BuildError, seconds};
use crate::{
    event::{Bus, Event},
    lockfiles,
    prints::{Hash, Prints},
};

/// What makes them, and what was made.
#[derive(Debug)]
pub(super) struct Containers {
    engine: ContainerEngine,
    project: String,
    /// By the image's name in devenv.toml.
    made: Mutex<BTreeMap<String, Made>>,
}

/// The files of an image, as they were looked at.
type Inputs = BTreeMap<PathBuf, Hash>;

/// What was made of an image.
#[derive(Debug, Clone)]
struct Made {
    /// What runs from now on.
    now: Built,
    /// The last that its Dockerfile made, and of what.
    base: Built,
    build: Option<ContainerBuild>,
    inputs: Inputs,
    /// What has changed since then, be it as it was again: nobody knows which of its
    /// states the build has seen.
    changed: BTreeSet<PathBuf>,
}

/// How the next version of an image comes about.
#[derive(Debug)]
pub(super) enum Plan {
    /// Its Dockerfile is built.
    Build,
    /// This is laid over what was built last.
    LayOver(Files),
}

impl Made {
    /// What has changed since it was built; `None` where the build itself has.
    fn changed(&self, image: &ImageSource, inputs: &Inputs) -> Option<BTreeSet<PathBuf>> {
        if image.container != self.build {
            return None;
        }
        let mut changed = self.changed.clone();
        let both = self.inputs.iter().chain(inputs);
        let differ = both.filter(|(file, _)| self.inputs.get(*file) != inputs.get(*file));
        changed.extend(differ.map(|(file, _)| file.clone()));
        // Editors write beside a file and rename: what came and went is nowhere.
        changed.retain(|file| inputs.contains_key(file) || self.inputs.contains_key(file));
        Some(changed)
    }
}

impl Containers {
    pub(super) fn new(engine: &ContainerEngine, project: &str) -> Self {
        Self {
            engine: engine.clone(),
            project: project.to_owned(),
            made: Mutex::default(),
        }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<String, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last that was made of an image.
    pub(super) fn last(&self, image: &str) -> Option<Built> {
        self.made().get(image).map(|made| made.now.clone())
    }

    /// The next version of this image is built, whatever has changed.
    pub(super) fn forget(&self, image: &str) {
        if let Some(made) = self.made().get_mut(image) {
            made.build = None;
        }
    }

    /// Whether the next version of `image` takes over what commands of this machine make
    /// of its source.
    pub(super) fn wants_commands(&self, image: &ImageSource, prints: &Prints) -> bool {
        let Some(build) = image.container.as_ref().filter(|b| b.sync_builds) else {
            return false;
        };
        let made = self.made();
        let changed = made.get(&image.name);
        let changed = changed.and_then(|made| made.changed(image, &prints.inputs(image)));
        changed.is_some_and(|changed| !changed.iter().any(|file| build.decides(file)))
    }

    /// How the next version of `image` comes about, as `prints` saw its files.
    ///
    /// # Errors
    /// When its files can't be looked at.
    pub(super) fn plan(&self, image: &ImageSource, prints: &Prints) -> Result<Plan, BuildError> {
        let inputs = prints.inputs(image);
        let changed = {
            let made = self.made();
            let made = made.get(&image.name);
            made.and_then(|made| made.changed(image, &inputs))
        };
        let (Some(build), Some(changed)) = (&image.container, changed) else {
            return Ok(Plan::Build);
        };
        // What a Dockerfile fetches by it.
        if !build.sync_builds && changed.iter().any(|file| lockfiles::decides(file)) {
            return Ok(Plan::Build);
        }
        let watched = |path: &Path| {
            let mut below = inputs.range(path.to_owned()..);
            below.next().is_some_and(|(file, _)| file.starts_with(path))
        };
        let files = Files::of(build, changed.iter().map(PathBuf::as_path), watched);
        let files = files.map_err(|source| BuildError::Sources {
            image: image.name.clone(),
            source,
        })?;
        Ok(files.map_or(Plan::Build, Plan::LayOver))
    }

    /// Makes images side by side, each as planned; returns those that are others than
    /// before, for the report.
    ///
    /// # Errors
    /// What failed first.
    pub(super) async fn make(
        &self,
        plans: Vec<(&ImageSource, Plan)>,
        prints: &Mutex<Prints>,
        bus: &Bus,
    ) -> Result<Vec<String>, BuildError> {
        let make = plans.into_iter().map(async |(image, plan)| {
            let started = Instant::now();
            let inputs = {
                let prints = prints.lock().unwrap_or_else(PoisonError::into_inner);
                prints.inputs(image)
            };
            let before = self.made().get(&image.name).cloned();
            let (made, how) = match (plan, before.clone()) {
                (Plan::LayOver(files), Some(mut made)) => {
                    let how = files_laid_over(files.len());
                    let base = &made.base;
                    let laid = self.engine.lay_over(&self.project, image, base, files);
                    made.now = laid.await?;
                    if let Some(changed) = made.changed(image, &inputs) {
                        made.changed = changed;
                    }
                    (made, how)
                }
                _ => (self.build(image, inputs, bus).await?, String::new()),
            };
            let took = seconds(started.elapsed());
            let same = before.is_some_and(|before| before.now.run == made.now.run);
            self.made().insert(image.name.clone(), made);
            Ok::<_, BuildError>((!same).then(|| format!("{}{how} ({took})", image.name)))
        });
        let made = futures_util::future::try_join_all(make).await?;
        Ok(made.into_iter().flatten().collect())
    }

    async fn build(
        &self,
        image: &ImageSource,
        inputs: Inputs,
        bus: &Bus,
    ) -> Result<Made, BuildFailed> {
        let told = |line| {
            let source = image.name.clone();
            bus.emit(Event::Output { source, line });
        };
        let built = self.engine.build(&self.project, image, &told).await?;
        Ok(Made {
            now: built.clone(),
            base: built,
            build: image.container.clone(),
            inputs,
            changed: BTreeSet::new(),
        })
    }
}

fn files_laid_over(count: usize) -> String {
    match count {
        1 => ": 1 file".to_owned(),
        n => format!(": {n} files"),
    }
}

#[cfg(test)]
mod tests {
    use devenv_cluster::RunSpec;

    use super::*;
    use crate::testing::image;

    fn inputs(files: &[(&str, u8)]) -> Inputs {
        let files = files.iter();
        files
            .map(|(name, hash)| (PathBuf::from(name), [*hash; 32]))
            .collect()
    }

    #[test]
    fn what_has_changed_since_the_build_is_known_for_good() {
        let image = image("a", Path::new("/p"));
        let built = Built {
            run: RunSpec::default(),
            entrypoint: 0,
            layer: None,
        };
        let mut made = Made {
            now: built.clone(),
            base: built,
            build: image.container.clone(),
            inputs: inputs(&[("/p/a", 1), ("/p/b", 1), ("/p/c", 1)]),
            changed: BTreeSet::new(),
        };
        let changed = |made: &Made, now: &[(&str, u8)]| {
            let changed = made.changed(&image, &inputs(now));
            changed.expect("the build is the same")
        };
        let set = |names: &[&str]| -> BTreeSet<PathBuf> { names.iter().map(Into::into).collect() };
        let now = [("/p/a", 2), ("/p/b", 1), ("/p/new", 1), ("/p/a.tmp~", 1)];
        made.changed = changed(&made, &now);
        let expected = set(&["/p/a", "/p/a.tmp~", "/p/c", "/p/new"]);
        assert_eq!(made.changed, expected);
        // As it was again, or never there: the image may have either.
        let now = [("/p/a", 1), ("/p/b", 1), ("/p/c", 1)];
        assert_eq!(changed(&made, &now), set(&["/p/a", "/p/c"]));
        // Another Dockerfile.
        let mut other = image.clone();
        other.container = Some(ContainerBuild {
            dockerfile: "/p/Dockerfile".into(),
            context: "/p".into(),
            target: None,
            args: BTreeMap::new(),
            sync: Vec::new(),
            sync_builds: false,
        });
        assert_eq!(made.changed(&other, &inputs(&now)), None);
    }
}
