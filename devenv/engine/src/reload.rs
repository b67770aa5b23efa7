//! Hot reload: from a saved file to a new version that serves.
//!
//! The watcher tells whose files have changed. Images go to their [`lane`], which
//! builds them and patches the template of their workloads; manifests, devenv.toml and
//! migrations are taken over here ([`project`]). A [`rollout`] is followed until the
//! new version serves, and what came of it is written to the [`journal`].

mod journal;
mod lane;
mod project;
mod record;
mod rollout;
mod rollouts;
pub(crate) mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use devenv_model::{ImageSource, Loaded, MADE, Topology};
use devenv_watch::{Changes, Input, Mode, Options, WatchError, Watcher};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
};
use tokio_util::task::TaskTracker;

pub(crate) use journal::Journal;
pub use journal::{Trouble, Written};
pub use record::{Budget, Outcome, Reload};

use crate::{
    control::Control,
    event::Event,
    live::{Live, used_sources},
    prints::Hint,
};
use lane::{Dirty, Saves};
use project::Saved;
use record::Save;
use rollouts::Rollouts;

/// Whose files changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Image(String),
    Project,
    Migrations,
}

/// What is watched for a topology; `inputs` are the files that loading it read, which
/// are known also where it could not be loaded.
pub(crate) fn inputs(topology: Option<&Topology>, inputs: &[PathBuf]) -> Vec<Input<Owner>> {
    let mut all = vec![Input {
        owner: Owner::Project,
        paths: inputs.to_vec(),
        ignore: Vec::new(),
        gitignore: false,
    }];
    let Some(topology) = topology else { return all };
    if let Some(folder) = topology.cloud_sql().and_then(|c| c.migrations.clone()) {
        all.push(Input {
            owner: Owner::Migrations,
            paths: vec![folder],
            ignore: Vec::new(),
            gitignore: false,
        });
    }
    all.extend(used_sources(topology).into_iter().map(|image| {
        Input {
            owner: Owner::Image(image.name.clone()),
            paths: image.watch.clone(),
            ignore: MADE
                .iter()
                .map(|m| (*m).to_owned())
                .chain(image.ignore.iter().cloned())
                .collect(),
            gitignore: true,
        }
    }));
    all
}

/// Something that was asked for, with where the answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    /// Builds and rolls what these names stand for, images or workloads, changed or not;
    /// all that is reloaded where there is none. The answer is the images' names.
    Images(BTreeSet<String>, oneshot::Sender<BTreeSet<String>>),
    /// Reads the project's files and applies what they say, changed or not.
    Project(oneshot::Sender<()>),
}

/// Reads the project's files.
pub(crate) type Load = Arc<dyn Fn() -> Loaded + Send + Sync>;

/// Reloads until it is dropped.
#[derive(Debug)]
pub(crate) struct Reloader {
    live: Arc<Live>,
    task: JoinHandle<()>,
    rollouts: Arc<Rollouts>,
    tracker: TaskTracker,
    control: Option<Control>,
}

impl Reloader {
    /// Begins to reload; `watcher` has been watching since before the first build, so
    /// that no save is lost.
    pub fn start(live: Arc<Live>, watcher: Watcher<Owner>, load: Load) -> Self {
        let tracker = TaskTracker::new();
        let rollouts = Arc::new(Rollouts::new(&tracker));
        let (requests_tx, requests_rx) = mpsc::channel(16);
        let work = Work {
            lanes: Lanes::new(&live, &rollouts, &tracker),
            live,
            load,
            rollouts: rollouts.clone(),
        };
        let control = Control::start(&work.live, requests_tx, &tracker);
        if let Err(e) = &control {
            work.live.bus.emit(Event::Warning {
                message: format!("`devenv reload` can't reach this system: {e}"),
            });
        }
        Self {
            live: work.live.clone(),
            task: tokio::spawn(work.run(watcher, requests_rx)),
            rollouts,
            tracker,
            control: control.ok(),
        }
    }

    /// Stops; builds under way are given up. What was applied stays. When this returns,
    /// nothing of it holds the system any more.
    pub async fn stop(self) {
        drop(self.control);
        self.task.abort();
        // How it ended does not count.
        let _ = self.task.await;
        self.rollouts.stop();
        self.tracker.close();
        self.tracker.wait().await;
        self.live.debugs.stop().await;
    }
}

struct Work {
    live: Arc<Live>,
    load: Load,
    rollouts: Arc<Rollouts>,
    lanes: Lanes,
}

impl Work {
    async fn run(mut self, mut watcher: Watcher<Owner>, mut requests: mpsc::Receiver<Request>) {
        if let Mode::Polling { why } = watcher.mode() {
            self.live.bus.emit(Event::Warning {
                message: format!("changes are looked for at intervals: {why}"),
            });
        }
        // What was saved between the first look and the last watch.
        let now = Save::new(None, Instant::now());
        self.lanes.save_all(&self.live, &Hint::All, now);
        loop {
            tokio::select! {
                changes = watcher.next() => match changes {
                    Some(changes) => self.changed(&mut watcher, changes).await,
                    None => {
                        self.live.bus.emit(Event::Warning {
                            message: "files are no longer watched: devenv down && devenv up".to_owned(),
                        });
                        return;
                    }
                },
                request = requests.recv() => match request {
                    Some(request) => self.asked(&mut watcher, request).await,
                    None => return,
                },
            }
        }
    }

    async fn changed(&mut self, watcher: &mut Watcher<Owner>, changes: Changes<Owner>) {
        let save = Save::new(changes.saved, changes.detected);
        let saved = |files: BTreeSet<PathBuf>| Saved {
            files,
            save,
            forced: false,
        };
        let mut saves = Saves::new();
        let (mut project, mut migrations) = (None, None);
        for (owner, files) in changes.owners {
            match owner {
                Owner::Project => project = Some(files),
                Owner::Migrations => migrations = Some(files),
                Owner::Image(name) => {
                    let dirty = Dirty {
                        hint: Hint::Paths(files.clone()),
                        files,
                        save,
                        forced: false,
                        objects: false,
                    };
                    saves.insert(name, dirty);
                }
            }
        }
        if changes.rescan {
            project.get_or_insert_default();
            migrations.get_or_insert_default();
        }
        // The schema first: a new version may need it.
        if let Some(files) = migrations {
            project::migrate(&self.live, &saved(files)).await;
        }
        if let Some(files) = project {
            self.take_over(watcher, &saved(files)).await;
        }
        if changes.rescan {
            self.lanes.save_all(&self.live, &Hint::All, save);
        }
        self.lanes.save(saves);
    }

    async fn asked(&mut self, watcher: &mut Watcher<Owner>, request: Request) {
        let save = Save::new(None, Instant::now());
        // Who asked may have gone before the answer.
        match request {
            Request::Project(answer) => {
                let saved = Saved {
                    files: BTreeSet::new(),
                    save,
                    forced: true,
                };
                self.take_over(watcher, &saved).await;
                project::migrate(&self.live, &saved).await;
                let _ = answer.send(());
            }
            Request::Images(names, answer) => {
                let images = named(&self.live.topology(), &names);
                let _ = answer.send(images.clone());
                self.lanes.save_some(&Hint::All, save, true, images);
            }
        }
    }

    async fn take_over(&mut self, watcher: &mut Watcher<Owner>, saved: &Saved) {
        let load = self.load.clone();
        let Ok(loaded) = tokio::task::spawn_blocking(move || load()).await else {
            return;
        };
        let read = loaded.inputs.clone();
        project::warn(&self.live, &loaded.problems);
        let saves = project::apply(&self.live, &self.rollouts, loaded, saved).await;
        let topology = self.live.topology();
        if let Err(e) = watcher.set(inputs(Some(&topology), &read)) {
            self.live.bus.emit(Event::Warning {
                message: watch_warning(&e),
            });
        }
        if let Some(saves) = saves {
            // Other commands may be other lanes; what they build now is given up.
            self.lanes.renew(&self.live, &self.rollouts);
            self.lanes.save(saves);
        }
    }
}

/// The image sources that `names` stand for: their own names, and those of workloads.
fn named(topology: &Topology, names: &BTreeSet<String>) -> BTreeSet<String> {
    let of_workloads = topology
        .objects()
        .iter()
        .filter(|o| names.contains(o.name()))
        .flat_map(|o| o.images())
        .filter_map(|image| topology.image_source(image));
    let of_workloads: BTreeSet<&str> = of_workloads.map(|s| s.name.as_str()).collect();
    used_sources(topology)
        .into_iter()
        .map(|s| s.name.clone())
        .filter(|s| names.is_empty() || names.contains(s) || of_workloads.contains(s.as_str()))
        .collect()
}

/// What can't be watched.
pub(crate) fn watch_warning(e: &WatchError) -> String {
    let mut text = format!("saved files are not noticed: {e}");
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// The watcher of a project.
pub(crate) fn watch(
    root: &std::path::Path,
    topology: &Topology,
) -> Result<Watcher<Owner>, WatchError> {
    let inputs = inputs(Some(topology), topology.inputs());
    Watcher::start(root, inputs, Options::default())
}

/// The lanes' tasks, and which image belongs to which.
struct Lanes {
    tracker: TaskTracker,
    lanes: Vec<Lane>,
}

struct Lane {
    images: BTreeSet<String>,
    saves_tx: mpsc::UnboundedSender<Saves>,
    task: AbortHandle,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lanes {
    fn new(live: &Arc<Live>, rollouts: &Arc<Rollouts>, tracker: &TaskTracker) -> Self {
        let mut lanes = Self {
            tracker: tracker.clone(),
            lanes: Vec::new(),
        };
        lanes.renew(live, rollouts);
        lanes
    }

    /// Those of the topology that runs now. A lane that stays the same works on.
    fn renew(&mut self, live: &Arc<Live>, rollouts: &Arc<Rollouts>) {
        let topology = live.topology();
        let sources: Vec<&ImageSource> = used_sources(&topology);
        let wanted = lane::lanes(&sources);
        self.lanes.retain(|lane| wanted.contains(&lane.images));
        for images in wanted {
            if self.lanes.iter().any(|l| l.images == images) {
                continue;
            }
            let (saves_tx, saves_rx) = mpsc::unbounded_channel();
            let run = lane::run(live.clone(), rollouts.clone(), saves_rx);
            self.lanes.push(Lane {
                images,
                saves_tx,
                task: self.tracker.spawn(run).abort_handle(),
            });
        }
    }

    fn save(&self, saves: Saves) {
        let mut by_lane: BTreeMap<usize, Saves> = BTreeMap::new();
        for (name, dirty) in saves {
            if let Some(n) = self.lanes.iter().position(|l| l.images.contains(&name)) {
                by_lane.entry(n).or_default().insert(name, dirty);
            }
        }
        for (n, saves) in by_lane {
            // A lane that ended is of a system that goes down.
            let _ = self.lanes[n].saves_tx.send(saves);
        }
    }

    /// All of a topology.
    fn save_all(&self, live: &Live, hint: &Hint, save: Save) {
        let topology = live.topology();
        let names = used_sources(&topology).into_iter().map(|s| s.name.clone());
        self.save_some(hint, save, false, names.collect());
    }

    fn save_some(&self, hint: &Hint, save: Save, forced: bool, names: BTreeSet<String>) {
        let dirty = Dirty {
            hint: hint.clone(),
            files: BTreeSet::new(),
            save,
            forced,
            objects: false,
        };
        self.save(names.into_iter().map(|n| (n, dirty.clone())).collect());
    }
}
