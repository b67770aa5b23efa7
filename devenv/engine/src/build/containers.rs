//! Images of containers: each is built by the engine, which knows by itself what has not
//! changed. What is saved after that is laid over it, where devenv.toml says where it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use devenv_model::{ContainerBuild, ImageSource};
use devenv_platform::{
    ContainerEngine,
    containers::{BuildFailed, Built, Files, Stamps},
};

use super::{BuildError, seconds};
use crate::{
    event::{Bus, Event},
    lockfiles,
    prints::Hash,
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
    /// The files of its context then: some of them are no inputs.
    context: Stamps,
    /// What has changed since then, be it as it was again: nobody knows which of its
    /// states the build has seen.
    changed: BTreeSet<PathBuf>,
}

/// How the next version of an image comes about.
#[derive(Debug)]
enum How {
    /// Its Dockerfile is built.
    Build,
    /// This is laid over what was built last.
    LayOver(Files),
}

/// The same, with what it was concluded from.
#[derive(Debug)]
pub(super) struct Planned {
    how: How,
    inputs: Inputs,
    context: Stamps,
    changed: BTreeSet<PathBuf>,
}

impl Made {
    /// What has changed since it was built; `None` where the build itself has.
    fn changed(
        &self,
        image: &ImageSource,
        inputs: &Inputs,
        context: &Stamps,
    ) -> Option<BTreeSet<PathBuf>> {
        if image.container != self.build {
            return None;
        }
        let mut changed = self.changed.clone();
        let both = self.inputs.iter().chain(inputs);
        let differ = both.filter(|(file, _)| self.inputs.get(*file) != inputs.get(*file));
        changed.extend(differ.map(|(file, _)| file.clone()));
        // Of those that no save is told of, times tell.
        let other = |file: &PathBuf| !inputs.contains_key(file) && !self.inputs.contains_key(file);
        let both = self.context.iter().chain(context);
        let differ =
            both.filter(|(file, _)| other(file) && self.context.get(*file) != context.get(*file));
        changed.extend(differ.map(|(file, _)| file.clone()));
        // Editors write beside a file and rename: what came and went is nowhere.
        changed.retain(|file| {
            !other(file) || self.context.contains_key(file) || context.contains_key(file)
        });
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

    /// Whether the next version of `image` may take over what commands of this machine make
    /// of its source: they run before it is planned.
    pub(super) fn wants_commands(&self, image: &ImageSource) -> bool {
        let made = self.made();
        let build = image.container.as_ref().filter(|b| b.sync_builds);
        build.is_some()
            && made
                .get(&image.name)
                .is_some_and(|m| m.build == image.container)
    }

    /// How the next version of `image` comes about, with its files as `inputs` has them.
    ///
    /// # Errors
    /// When its files can't be looked at.
    pub(super) async fn plan(
        &self,
        image: &ImageSource,
        inputs: Inputs,
    ) -> Result<Planned, BuildError> {
        let context = self.engine.files(image).await?;
        let changed = {
            let made = self.made();
            let made = made.get(&image.name);
            made.and_then(|made| made.changed(image, &inputs, &context))
        };
        let how = match (&image.container, &changed) {
            (Some(build), Some(changed)) => how(image, build, changed, &inputs)?,
            _ => How::Build,
        };
        Ok(Planned {
            how,
            inputs,
            context,
            changed: changed.unwrap_or_default(),
        })
    }

    /// Makes images side by side, each as planned; returns those that are others than
    /// before, for the report.
    ///
    /// # Errors
    /// What failed first.
    pub(super) async fn make(
        &self,
        plans: Vec<(&ImageSource, Planned)>,
        bus: &Bus,
    ) -> Result<Vec<String>, BuildError> {
        let make = plans.into_iter().map(async |(image, plan)| {
            let started = Instant::now();
            let before = self.made().get(&image.name).cloned();
            let laid = match (&plan.how, &before) {
                (How::LayOver(files), Some(made)) => {
                    self.lay_over(image, made, files, &plan.changed).await
                }
                _ => None,
            };
            let (made, how) = match laid {
                Some((made, how)) => (made, how),
                None => (self.build(image, plan, bus).await?, String::new()),
            };
            let took = seconds(started.elapsed());
            let same = before.is_some_and(|before| before.now.run == made.now.run);
            self.made().insert(image.name.clone(), made);
            Ok::<_, BuildError>((!same).then(|| format!("{}{how} ({took})", image.name)))
        });
        let made = futures_util::future::try_join_all(make).await?;
        Ok(made.into_iter().flatten().collect())
    }

    /// `None`: it can't be, as where the image below is gone; then it is built.
    async fn lay_over(
        &self,
        image: &ImageSource,
        made: &Made,
        files: &Files,
        changed: &BTreeSet<PathBuf>,
    ) -> Option<(Made, String)> {
        let laid = self
            .engine
            .lay_over(&self.project, image, &made.base, files);
        match laid.await {
            Ok(now) => {
                let made = Made {
                    now,
                    changed: changed.clone(),
                    ..made.clone()
                };
                Some((made, files_laid_over(files.len())))
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    image = image.name,
                    "it is built, since nothing can be laid over it"
                );
                None
            }
        }
    }

    async fn build(
        &self,
        image: &ImageSource,
        plan: Planned,
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
            inputs: plan.inputs,
            context: plan.context,
            changed: BTreeSet::new(),
        })
    }
}

fn how(
    image: &ImageSource,
    build: &ContainerBuild,
    changed: &BTreeSet<PathBuf>,
    inputs: &Inputs,
) -> Result<How, BuildError> {
    // What a Dockerfile fetches by it; a compiler's is in what it makes.
    let fetches = |file: &PathBuf| {
        lockfiles::decides(file) && !(build.sync_builds && lockfiles::is_linked(file))
    };
    if changed.iter().any(fetches) {
        return Ok(How::Build);
    }
    let is_input = |path: &Path| {
        let mut below = inputs.range(path.to_owned()..);
        below.next().is_some_and(|(file, _)| file.starts_with(path))
    };
    let files = Files::of(build, changed.iter().map(PathBuf::as_path), is_input);
    let files = files.map_err(|source| BuildError::Sources {
        image: image.name.clone(),
        source,
    })?;
    Ok(files.map_or(How::Build, How::LayOver))
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

    fn stamps(files: &[(&str, i64)]) -> Stamps {
        let files = files.iter();
        files
            .map(|(name, at)| (PathBuf::from(name), (*at, 0, 0)))
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
            context: stamps(&[("/p/a", 1), ("/p/other", 1)]),
            changed: BTreeSet::new(),
        };
        let changed = |made: &Made, now: &[(&str, u8)]| {
            let context = stamps(&[("/p/a", 2), ("/p/other", 1)]);
            let changed = made.changed(&image, &inputs(now), &context);
            changed.expect("the build is the same")
        };
        let set = |names: &[&str]| -> BTreeSet<PathBuf> { names.iter().map(Into::into).collect() };
        // An input goes by its contents, all else by its time.
        assert!(changed(&made, &[("/p/a", 1), ("/p/b", 1), ("/p/c", 1)]).is_empty());
        let touched = stamps(&[("/p/a", 1), ("/p/other", 2), ("/p/came", 1)]);
        let same = inputs(&[("/p/a", 1), ("/p/b", 1), ("/p/c", 1)]);
        let found = made.changed(&image, &same, &touched).unwrap();
        assert_eq!(found, set(&["/p/came", "/p/other"]));
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
        let context = Stamps::new();
        assert_eq!(made.changed(&other, &inputs(&now), &context), None);
    }
}
