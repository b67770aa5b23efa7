//! From source to something that runs: each image's install and build commands, run
//! as the owner of the checkout, and skipped while nothing they read has changed.

mod containers;
mod environment;
mod error;
mod run;

pub use error::BuildError;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use devenv_model::{Command, ImageSource, PythonEnv, PythonKind};
use devenv_platform::{
    ContainerEngine,
    containers::Built,
    host::{Host, HostCommand},
};

use containers::Containers;

use crate::{
    event::{Bus, Event},
    ledger::Ledger,
    lockfiles,
    prints::{Hint, Prints},
    state::{BuildLock, StateDir},
    venv::{self, Venv, VenvError},
};

/// Builds images. Dropping what one of its methods returns gives the build up and ends
/// its processes.
#[derive(Debug)]
pub struct Builder {
    host: Host,
    ledger: Ledger,
    prints: Arc<Mutex<Prints>>,
    state_dir: PathBuf,
    owner: (u32, u32),
    /// The virtual environments of Python images, as they were last made, by name.
    venvs: Mutex<BTreeMap<String, Venv>>,
    /// Where pods run in containers: what makes their images.
    containers: Option<Containers>,
    /// Held while any of the lanes builds.
    lock: tokio::sync::Mutex<Weak<BuildLock>>,
    /// Of every command.
    environment: Vec<(String, String)>,
    bus: Bus,
}

/// One command and the images that want it: four services of one Cargo workspace
/// name the same command, and it is run once.
struct Job<'a> {
    stage: Stage,
    command: &'a Command,
    dir: PathBuf,
    images: Vec<&'a ImageSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Install,
    Build,
}

impl Builder {
    /// For the project in `root`, whose state folder is `state_dir`.
    pub fn new(root: &Path, state_dir: &Path, host: Host, owner: (u32, u32), bus: &Bus) -> Self {
        Self {
            host,
            ledger: Ledger::open(state_dir),
            prints: Arc::new(Mutex::new(Prints::new(root))),
            state_dir: state_dir.to_owned(),
            owner,
            venvs: Mutex::default(),
            containers: None,
            lock: tokio::sync::Mutex::default(),
            environment: environment::of_builds(owner),
            bus: bus.clone(),
        }
    }

    /// Builds images of containers, with `engine` and for the project of this name.
    pub fn with_containers(mut self, engine: Option<&ContainerEngine>, project: &str) -> Self {
        self.containers = engine.map(|engine| Containers::new(engine, project));
        self
    }

    /// The image of a container that `image` was last built to; `None` where it runs from
    /// its source.
    pub fn container(&self, image: &ImageSource) -> Option<Built> {
        self.containers.as_ref()?.last(&image.name)
    }

    /// Whether programs run in the folders of their sources.
    pub fn in_place(&self) -> bool {
        self.containers.is_none()
    }

    fn prints(&self) -> MutexGuard<'_, Prints> {
        self.prints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the sources of `images` again; returns each one's digest by name.
    ///
    /// # Errors
    /// When a source can't be read.
    pub async fn look(
        &self,
        images: &[&ImageSource],
        hint: &Hint,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        let prints = self.prints.clone();
        let images: Vec<ImageSource> = images.iter().map(|i| (*i).clone()).collect();
        let hint = hint.clone();
        let look = move || {
            let mut prints = prints.lock().unwrap_or_else(PoisonError::into_inner);
            let mut digests = BTreeMap::new();
            for image in &images {
                let unreadable = |source| BuildError::Sources {
                    image: image.name.clone(),
                    source,
                };
                prints.refresh(image, &hint).map_err(unreadable)?;
                digests.insert(image.name.clone(), prints.digest(image));
            }
            Ok(digests)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(done) => done,
            // Only when devenv ends.
            Err(e) => Err(BuildError::Sources {
                image: String::new(),
                source: std::io::Error::other(e),
            }),
        }
    }

    /// Installs whatever has changed of the images in `wanted`, then builds what has
    /// changed of those in `built`, as [`Builder::look`] saw them; returns what was run,
    /// for the report. `all` are the project's: a command that several of them share is
    /// known by the inputs of all.
    ///
    /// # Errors
    /// What failed first; what it printed is with it.
    pub async fn build(
        &self,
        all: &[&ImageSource],
        wanted: &BTreeSet<&str>,
        built: &BTreeSet<&str>,
    ) -> Result<Vec<String>, BuildError> {
        // Where the engine builds as well: two builds of one image side by side would make two
        // images of it, while the second one finds what the first has made.
        let _lock = self.lock().await?;
        if let Some(containers) = &self.containers {
            return self.build_containers(containers, all, wanted).await;
        }
        let ran = self.run_commands(all, wanted, built).await?;
        for image in all.iter().filter(|i| wanted.contains(i.name.as_str())) {
            check_program(image)?;
        }
        Ok(ran)
    }

    async fn build_containers(
        &self,
        containers: &Containers,
        all: &[&ImageSource],
        wanted: &BTreeSet<&str>,
    ) -> Result<Vec<String>, BuildError> {
        let wanted = all.iter().filter(|i| wanted.contains(i.name.as_str()));
        let wanted: Vec<&ImageSource> = wanted.copied().collect();
        let here = wanted.iter().filter(|i| containers.wants_commands(i));
        let here: BTreeSet<&str> = here.map(|i| i.name.as_str()).collect();
        let mut ran = Vec::new();
        if !here.is_empty() {
            ran = self.run_commands(all, &here, &here).await?;
        }
        let mut plans = Vec::new();
        for image in wanted {
            let inputs = self.prints().inputs(image);
            plans.push((image, containers.plan(image, inputs).await?));
        }
        ran.extend(containers.make(plans, &self.bus).await?);
        Ok(ran)
    }

    /// The next version of this image is built as its Dockerfile says, whatever has changed.
    pub fn anew(&self, image: &ImageSource) {
        if let Some(containers) = &self.containers {
            containers.forget(&image.name);
        }
    }

    /// Runs the commands of the images in `wanted` that have to be run again.
    async fn run_commands(
        &self,
        all: &[&ImageSource],
        wanted: &BTreeSet<&str>,
        built: &BTreeSet<&str>,
    ) -> Result<Vec<String>, BuildError> {
        let mut ran = Vec::new();
        let pythons = all.iter().filter(|i| wanted.contains(i.name.as_str()));
        let venvs = pythons.map(|image| self.make_venv(image));
        for done in futures_util::future::join_all(venvs).await {
            ran.extend(done?);
        }
        // An install is a build's precondition, so all of them come first.
        for (stage, names) in [(Stage::Install, wanted), (Stage::Build, built)] {
            let runs = jobs(all, stage, names)
                .into_iter()
                .map(|job| self.run_if_changed(job));
            for done in futures_util::future::join_all(runs).await {
                ran.extend(done?);
            }
        }
        Ok(ran)
    }

    /// Keeps other processes from building in this project's folders meanwhile.
    async fn lock(&self) -> Result<Arc<BuildLock>, BuildError> {
        let mut held = self.lock.lock().await;
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        let waiting = || {
            let message = "another devenv builds in this project's folders; waiting for it";
            let message = message.to_owned();
            self.bus.emit(Event::Warning { message });
        };
        let lock = Arc::new(StateDir::build_lock(&self.state_dir, waiting).await?);
        *held = Arc::downgrade(&lock);
        // What the other one built is built.
        self.ledger.refresh();
        Ok(lock)
    }

    /// Whether the install of `image`, as [`Builder::look`] saw it, would run again.
    pub fn wants_install(&self, all: &[&ImageSource], image: &ImageSource) -> bool {
        let wanted = BTreeSet::from([image.name.as_str()]);
        let venv = Venv::plan(&self.state_dir, image, &self.environment);
        // One that can't be made is told by the attempt.
        let no_venv = venv.map_or(true, |v| v.is_some_and(|v| !v.steps().is_empty()));
        no_venv
            || jobs(all, Stage::Install, &wanted).iter().any(|job| {
                let (key, print) = self.print(job);
                !self.ledger.knows(&key, &print)
            })
    }

    /// The virtual environment that `image` was last built with.
    pub fn venv(&self, image: &ImageSource) -> Option<PathBuf> {
        let venvs = self.venvs.lock().unwrap_or_else(PoisonError::into_inner);
        venvs.get(&image.name).map(|v| v.path().to_owned())
    }

    /// The project's state folder, where virtual environments are.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// User and group of the checkout.
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// Where the package debugpy is for a Python image: in its own virtual environment,
    /// or in one beside it that is made for that, once.
    ///
    /// # Errors
    /// When it can't be installed.
    pub async fn debugpy(&self, image: &ImageSource) -> Result<PathBuf, BuildError> {
        let own = self.venv(image);
        if let Some(found) = own.and_then(|v| venv::package(&v, "debugpy")) {
            return Ok(found);
        }
        let beside = beside(image);
        self.make_venv(&beside).await?;
        let made = self.venv(&beside).unwrap_or_default();
        venv::package(&made, "debugpy").ok_or_else(|| BuildError::Venv {
            image: beside.name,
            source: Box::new(VenvError::Incomplete {
                image: image.name.clone(),
                path: made,
            }),
        })
    }

    /// Removes the virtual environments that no image was built with, nor debugged in.
    /// For when no pod runs yet.
    pub fn prune(&self, images: &[&ImageSource]) {
        // Beside containers none was made or looked at.
        if self.containers.is_some() {
            return;
        }
        let venvs = self.venvs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used: BTreeSet<PathBuf> = venvs.values().map(|v| v.path().to_owned()).collect();
        let debuggers = images.iter().map(|image| beside(image));
        used.extend(debuggers.filter_map(|debugger| {
            let venv = Venv::plan(&self.state_dir, &debugger, &self.environment);
            Some(venv.ok()??.path().to_owned())
        }));
        venv::prune(&self.state_dir, &used);
    }

    async fn make_venv(&self, image: &ImageSource) -> Result<Option<String>, BuildError> {
        let failed = |source| BuildError::Venv {
            image: image.name.clone(),
            source: Box::new(source),
        };
        let venv = Venv::plan(&self.state_dir, image, &self.environment).map_err(failed)?;
        let Some(venv) = venv else {
            return Ok(None);
        };
        let mut ran = None;
        if !venv.steps().is_empty() {
            let started = Instant::now();
            venv.prepare(self.owner).map_err(failed)?;
            for step in venv.steps() {
                let text = Command::Argv(step.argv.clone()).to_string();
                run::run(&self.host, step.clone(), &text, &image.name, &self.bus).await?;
            }
            venv.finish().map_err(failed)?;
            let files = image.python.iter().flat_map(|p| &p.files);
            let names: Vec<_> = files
                .filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned()))
                .collect();
            let took = seconds(started.elapsed());
            ran = Some(format!("{}: {} ({took})", image.name, names.join(", ")));
        }
        let mut venvs = self.venvs.lock().unwrap_or_else(PoisonError::into_inner);
        venvs.insert(image.name.clone(), venv);
        Ok(ran)
    }

    /// The environment of a job: with the virtual environment of its image active.
    fn environment(&self, job: &Job<'_>) -> Vec<(String, String)> {
        let venvs = self.venvs.lock().unwrap_or_else(PoisonError::into_inner);
        let venv = job.images.iter().find_map(|i| venvs.get(&i.name));
        venv.map_or_else(
            || self.environment.clone(),
            |v| v.activate(&self.environment),
        )
    }

    /// The name of a job in the ledger, and the hash of what it reads.
    fn print(&self, job: &Job<'_>) -> (String, String) {
        let command = job.command.to_string();
        let dir = job.dir.display().to_string();
        let prints = self.prints();
        let mut files = job.images.iter().flat_map(|i| prints.files(i));
        let locks_decide = job.stage == Stage::Install && lockfiles::any(&mut files);
        let counts = |f: &Path| !locks_decide || lockfiles::decides(f);
        let print = prints.of(&[&command, &dir], &job.images, counts);
        (format!("{:?} {command} in {dir}", job.stage), print)
    }

    async fn run_if_changed(&self, job: Job<'_>) -> Result<Option<String>, BuildError> {
        let (key, print) = self.print(&job);
        let made = || job.images.iter().all(|i| check_program(i).is_ok());
        if self.ledger.knows(&key, &print) && (job.stage == Stage::Install || made()) {
            return Ok(None);
        }
        let started = Instant::now();
        // What it made so far is about to be overwritten.
        self.ledger.forget(&key);
        let names: Vec<&str> = job.images.iter().map(|i| i.name.as_str()).collect();
        let command = HostCommand {
            argv: job.command.argv(),
            env: self.environment(&job),
            cwd: job.dir.clone(),
        };
        let text = job.command.to_string();
        run::run(&self.host, command, &text, &names.join(", "), &self.bus).await?;
        self.ledger.record(&key, &print);
        Ok(Some(format!(
            "{} ({})",
            job.command,
            seconds(started.elapsed())
        )))
    }
}

/// The debugger of Python, in a version that is known to work as it is started.
const DEBUGPY: &str = "debugpy==1.8.22";

/// A stand-in for a Python image whose virtual environment holds the debugger alone, for
/// the same interpreter: what the program imports stays as production has it.
fn beside(image: &ImageSource) -> ImageSource {
    let own = image.python.as_ref();
    ImageSource {
        name: format!("{}.debugpy", image.name),
        python: Some(PythonEnv {
            kind: PythonKind::Requirements,
            dir: own.map_or_else(|| image.workdir.clone(), |p| p.dir.clone()),
            files: Vec::new(),
            requirements: Vec::new(),
            packages: vec![DEBUGPY.to_owned()],
            project: false,
            version: own.and_then(|p| p.version.clone()),
        }),
        ..image.clone()
    }
}

/// The commands of this stage that some image in `wanted` needs.
fn jobs<'a>(all: &[&'a ImageSource], stage: Stage, wanted: &BTreeSet<&str>) -> Vec<Job<'a>> {
    let mut jobs: BTreeMap<(PathBuf, String), Job<'a>> = BTreeMap::new();
    for image in all {
        let command = match stage {
            Stage::Install => image.install.as_ref(),
            Stage::Build => image.build.as_ref(),
        };
        let Some(command) = command else { continue };
        let dir = image.workdir.clone();
        jobs.entry((dir.clone(), command.to_string()))
            .or_insert_with(|| Job {
                stage,
                command,
                dir,
                images: Vec::new(),
            })
            .images
            .push(image);
    }
    let needed = |j: &Job<'_>| j.images.iter().any(|i| wanted.contains(i.name.as_str()));
    jobs.into_values().filter(needed).collect()
}

fn check_program(image: &ImageSource) -> Result<(), BuildError> {
    let argv = image.run.argv();
    let Some(program) = argv.first().filter(|p| p.contains('/')) else {
        return Ok(());
    };
    // Without the `.` that `./run.sh` would leave in the middle.
    let program: PathBuf = image.workdir.join(program).components().collect();
    if program.exists() {
        return Ok(());
    }
    let hint = match &image.build {
        Some(b) => format!("; `{b}` should have made it"),
        None => format!(
            "; say in devenv.toml how it is made: [image.{}] build = …",
            image.name
        ),
    };
    Err(BuildError::NoProgram {
        origin: image.origin.to_string(),
        image: image.name.clone(),
        program,
        hint,
    })
}

fn seconds(d: Duration) -> String {
    if d < Duration::from_secs(1) {
        format!("{} ms", d.as_millis())
    } else {
        format!("{:.1} s", d.as_secs_f64())
    }
}
