//! Tells who is concerned when files change.
//!
//! A [`Watcher`] is given [`Input`]s: for each owner the files and folders that it
//! reads. From then on [`Watcher::next`] returns what has changed for whom, a burst of
//! events at a time: one save is one [`Changes`], and a checkout of ten thousand files
//! is one as well.
//!
//! What counts is what a build would read: nothing that git ignores (if the owner says
//! so), no editor's backup or swap file, no temporary file that came and went within a
//! burst. Reading a file is no change of it.
//!
//! # How it works
//!
//! A thread reads one inotify queue and keeps a watch on every folder that counts; at
//! rest it sleeps in poll(2). Events go to an inbox that waits for the end of the burst
//! on the caller's clock. Where the kernel can't tell (a server's filesystem, no more
//! watches), another thread looks again and again; [`Watcher::mode`] says so.

mod filesystem;
mod inbox;
mod inotify;
mod links;
mod poll;
mod rules;
mod scope;
mod scratch;
mod tree;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use crate::{
    inbox::Inbox,
    inotify::Queue,
    poll::Polls,
    scope::{Scope, Scopes},
    tree::Tree,
    worker::{Order, Orders, Shared, Worker},
};

/// What one owner reads: files and folders, and what among them does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input<O> {
    /// Who is told. Several inputs may have the same owner, and several owners the same
    /// paths.
    pub owner: O,
    /// Files and folders, relative to the watcher's root or absolute. They may be
    /// symlinks, and need not exist yet.
    pub paths: Vec<PathBuf>,
    /// Patterns as in a `.gitignore` file that lies in each folder of `paths`. One that
    /// begins with `!` lets count what git ignores.
    pub ignore: Vec<String>,
    /// Whether what git ignores doesn't count: by `.gitignore` there, above and below,
    /// `.git/info/exclude` and `core.excludesFile`, in a repository or not.
    pub gitignore: bool,
}

/// What changed in one burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<O> {
    /// Whom it concerns, with the paths as they named them: the path of the input,
    /// joined to the root, and what follows. A folder that was moved away is one path.
    pub owners: BTreeMap<O, BTreeSet<PathBuf>>,
    /// When the last of the files that are still there was saved: its ctime, which is
    /// the mtime unless it was moved into place or had its mode changed.
    pub saved: Option<SystemTime>,
    /// When the first event of the burst arrived.
    pub detected: Instant,
    /// Paths are missing: anything may have changed for anybody.
    pub rescan: bool,
}

/// How a [`Watcher`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A burst is over when nothing has happened for this long.
    pub quiet: Duration,
    /// And after this time even if something goes on happening. One of dozens of paths,
    /// as of a checkout, may take some seconds.
    pub max: Duration,
    /// More changed paths than this are not listed: [`Changes::rescan`] is set.
    pub max_paths: usize,
    /// How often to look where polling is needed; less often where a look takes long,
    /// so that it costs less than 1 % of a processor.
    pub poll: Duration,
    /// Polls everywhere.
    pub always_poll: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(10),
            max: Duration::from_millis(100),
            max_paths: 50_000,
            poll: Duration::from_millis(500),
            always_poll: false,
        }
    }
}

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The kernel tells of them.
    Events,
    /// Some or all are looked for at intervals.
    Polling {
        /// Where, why, and what mends it.
        why: String,
    },
}

/// Why there is no watcher.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A pattern of [`Input::ignore`] that git wouldn't understand either.
    #[error("can't read the ignore pattern `{pattern}`")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
    /// The root has no absolute path: there is no current folder.
    #[error("can't make {} an absolute path", path.display())]
    Root {
        /// The root as it was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread, or no file descriptor for it.
    #[error("can't start to watch files")]
    Start(#[source] io::Error),
}

/// Watches files until it is dropped.
#[derive(Debug)]
pub struct Watcher<O> {
    root: PathBuf,
    shared: Arc<Shared>,
    polls: Arc<Polls>,
    orders: Orders,
    owners: Mutex<Owners<O>>,
    /// How many sets of inputs were given.
    given: AtomicU64,
    taken: watch::Receiver<u64>,
}

/// Inside, owners are numbers: their place in the list.
#[derive(Debug)]
struct Owners<O> {
    list: Vec<O>,
    numbers: BTreeMap<O, u32>,
}

impl<O: Ord + Clone + Send + 'static> Watcher<O> {
    /// Starts to watch `inputs`, and returns before every folder has its watch:
    /// [`Watcher::ready`] waits for that. Relative paths are in `root`; `.gitignore`
    /// files above it count only if they are in its repository.
    ///
    /// Paths that don't exist are no error. Where the kernel can't tell of changes, they
    /// are polled for.
    ///
    /// # Errors
    /// When a pattern can't be read, or there is no thread to be had.
    pub fn start(root: &Path, inputs: Vec<Input<O>>, options: Options) -> Result<Self, WatchError> {
        let start = |e: rustix::io::Errno| WatchError::Start(e.into());
        let root = std::path::absolute(root).map_err(|source| WatchError::Root {
            path: root.to_owned(),
            source,
        })?;
        let root = plain(&root);
        let (orders, rx) = Orders::new().map_err(start)?;
        let (taken_tx, taken) = watch::channel(0);
        let polls = Polls::new(options.poll);
        let forced = options.always_poll;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            inbox: Inbox::new(options),
            mode: Mutex::new(Mode::Events),
            stop: stop.clone(),
            taken: taken_tx,
        });
        let queue = if forced {
            Err(None)
        } else {
            Queue::new().map_err(Some)
        };
        let worker = Worker::new(
            Tree::new(root.clone(), queue, polls.clone(), stop),
            shared.clone(),
            rx,
            orders.clone(),
            forced,
        );
        let watcher = Self {
            root,
            shared,
            polls,
            orders: orders.clone(),
            owners: Mutex::new(Owners {
                list: Vec::new(),
                numbers: BTreeMap::new(),
            }),
            given: AtomicU64::new(0),
            taken,
        };
        watcher.set(inputs)?;
        let found = move |found| orders.send(Order::Found(found));
        watcher.polls.spawn(found).map_err(WatchError::Start)?;
        let thread = thread::Builder::new().name("devenv-watch".to_owned());
        let thread = thread.spawn(|| worker.run());
        thread.map_err(WatchError::Start)?;
        Ok(watcher)
    }

    /// Waits until every folder of the inputs given so far has its watch: a change from
    /// then on is told of, whatever happens. Before it, one may be missed.
    pub async fn ready(&self) {
        let given = self.given.load(Ordering::SeqCst);
        let mut taken = self.taken.clone();
        // An error means that the watcher has ended; `next` says so.
        let _ = taken.wait_for(|taken| *taken >= given).await;
    }

    /// The next burst of changes, once it is over; those that came while nobody asked
    /// are one. `None`: watching has failed, and the log says why.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Changes<O>> {
        let burst = self.shared.inbox.next().await?;
        let owners = self.lock_owners();
        let named = burst.owners.into_iter();
        let named = named.map(|(number, paths)| (owners.list[number as usize].clone(), paths));
        Some(Changes {
            owners: named.collect(),
            saved: burst.saved,
            detected: burst.detected.into_std(),
            rescan: burst.rescan,
        })
    }

    /// Watches these inputs instead of those before. What both contain is watched all
    /// the time, and changes that were not yet told of will be.
    ///
    /// # Errors
    /// When a pattern can't be read; then the inputs stay as they were.
    pub fn set(&self, inputs: Vec<Input<O>>) -> Result<(), WatchError> {
        let mut scopes = Vec::new();
        let mut owners = self.lock_owners();
        for input in inputs {
            let owner = owners.number(&input.owner);
            for path in input.paths {
                let top = plain(&self.root.join(path));
                scopes.push(Scope::new(owner, top, &input.ignore, input.gitignore)?);
            }
        }
        // Under the lock, so that two callers are counted in the order of their orders.
        self.given.fetch_add(1, Ordering::SeqCst);
        self.orders.send(Order::Set(Scopes::new(scopes)));
        Ok(())
    }

    /// How changes are noticed.
    pub fn mode(&self) -> Mode {
        let mode = self.shared.mode.lock();
        mode.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock_owners(&self) -> MutexGuard<'_, Owners<O>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O> Drop for Watcher<O> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.orders.ring();
        self.polls.stop();
    }
}

impl<O: Ord + Clone> Owners<O> {
    fn number(&mut self, owner: &O) -> u32 {
        if let Some(number) = self.numbers.get(owner) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).expect("fewer than 2^32 owners");
        self.list.push(owner.clone());
        self.numbers.insert(owner.clone(), number);
        number
    }
}

/// Without `.` and `..`. A symlink is kept unless `..` follows it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if plain.is_symlink()
                    && let Ok(real) = fs::canonicalize(&plain)
                {
                    plain = real;
                }
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
