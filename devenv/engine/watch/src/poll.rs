//! Looking again and again, where nobody tells of changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{inotify::What, tree::Key};

/// The pause after a round is so many times the processor time that the round took…
const PER_CPU_TIME: u32 = 100;
/// …and so many times what it took on the clock: a server is to have its rest too.
const PER_TIME: u32 = 3;

/// What a round found out about one name.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) folder: Key,
    pub(crate) name: OsString,
    pub(crate) is_dir: bool,
    pub(crate) what: What,
}

/// What tells that something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    File {
        modified: (i64, i64),
        size: u64,
        mode: u32,
    },
    /// A folder's entries tell; but one in place of another is another, and the old
    /// one's number may be given to the next folder that is made.
    Folder { device: u64, inode: u64 },
}

impl Stamp {
    fn of(stat: &fs::Metadata) -> Self {
        if stat.is_dir() {
            Self::Folder {
                device: stat.dev(),
                inode: stat.ino(),
            }
        } else {
            Self::File {
                modified: (stat.mtime(), stat.mtime_nsec()),
                size: stat.len(),
                mode: stat.mode(),
            }
        }
    }

    fn is_dir(self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    /// Whether `now` is the same thing, be it with other contents.
    fn is_still(self, now: Self) -> bool {
        self == now || !(self.is_dir() || now.is_dir())
    }
}

type Snapshot = HashMap<OsString, Stamp>;

/// Which names in a folder matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    all: bool,
    some: BTreeSet<OsString>,
}

impl Wanted {
    fn add(&mut self, name: Option<&OsStr>) {
        match name {
            Some(name) => {
                self.some.insert(name.to_owned());
            }
            None => self.all = true,
        }
    }

    fn covers(&self, name: &OsStr) -> bool {
        self.all || self.some.contains(name)
    }
}

#[derive(Debug)]
struct Folder {
    /// One of its names.
    path: Arc<Path>,
    wanted: Wanted,
    /// What was asked for since [`Polls::mark`].
    anew: Wanted,
    seen: Snapshot,
}

#[derive(Debug, Default)]
struct State {
    folders: BTreeMap<Key, Folder>,
    stop: bool,
}

/// The folders that are polled, and the thread that does it.
#[derive(Debug)]
pub(crate) struct Polls {
    state: Mutex<State>,
    changed: Condvar,
    interval: Duration,
}

impl Polls {
    pub(crate) fn new(interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            interval,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on changes in the folder are found, or those of one `name` in it. What
    /// was seen of it already is remembered.
    pub(crate) fn add(&self, key: Key, path: &Arc<Path>, name: Option<&OsStr>) {
        let mut state = self.lock();
        let folder = state.folders.entry(key).or_insert_with(|| Folder {
            path: path.clone(),
            wanted: Wanted::default(),
            anew: Wanted::default(),
            seen: Snapshot::new(),
        });
        folder.path = path.clone();
        folder.anew.add(name);
        let before = folder.wanted.clone();
        folder.wanted.add(name);
        if folder.wanted != before {
            for (name, stamp) in look(path, &folder.wanted).unwrap_or_default() {
                folder.seen.entry(name).or_insert(stamp);
            }
        }
        self.changed.notify_all();
    }

    /// The folder goes by this name now.
    pub(crate) fn moved(&self, key: Key, path: &Arc<Path>) {
        if let Some(folder) = self.lock().folders.get_mut(&key) {
            folder.path = path.clone();
        }
    }

    pub(crate) fn remove(&self, key: Key) {
        self.lock().folders.remove(&key);
    }

    /// Begins to say anew what is polled; [`Polls::sweep`] ends it.
    pub(crate) fn mark(&self) {
        for folder in self.lock().folders.values_mut() {
            folder.anew = Wanted::default();
        }
    }

    /// Drops what wasn't asked for since [`Polls::mark`].
    pub(crate) fn sweep(&self) {
        self.lock().folders.retain(|_, folder| {
            folder.wanted = std::mem::take(&mut folder.anew);
            let wanted = &folder.wanted;
            folder.seen.retain(|name, _| wanted.covers(name));
            *wanted != Wanted::default()
        });
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Polls on a thread of its own, which rests as long as there is nothing to poll.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        mut tell: impl FnMut(Vec<Found>) + Send + 'static,
    ) -> io::Result<()> {
        let polls = self.clone();
        let thread = thread::Builder::new().name("devenv-poll".to_owned());
        thread.spawn(move || {
            let mut pause = polls.interval;
            while polls.rest(pause) {
                let (cpu, wall) = (cpu_time(), Instant::now());
                let found = polls.round();
                if !found.is_empty() {
                    tell(found);
                }
                let cpu = cpu_time().saturating_sub(cpu) * PER_CPU_TIME;
                pause = polls.interval.max(cpu).max(wall.elapsed() * PER_TIME);
            }
        })?;
        Ok(())
    }

    /// Waits until there is something to poll, and then `pause`. False: no more.
    fn rest(&self, pause: Duration) -> bool {
        let idle = |s: &mut State| !s.stop && s.folders.is_empty();
        let running = |s: &mut State| !s.stop;
        let state = self.changed.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, pause, running);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Looks at every folder once.
    fn round(&self) -> Vec<Found> {
        let keys: Vec<Key> = self.lock().folders.keys().copied().collect();
        let mut found = Vec::new();
        for key in keys {
            let (path, wanted) = match self.lock().folders.get(&key) {
                Some(folder) => (folder.path.clone(), folder.wanted.clone()),
                None => continue,
            };
            // Not under the lock: a server may take its time.
            let now = match look(&path, &wanted) {
                Ok(now) => now,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Snapshot::new(),
                // A server that doesn't answer has deleted nothing.
                Err(e) => {
                    tracing::debug!(folder = %path.display(), error = %e, "not looked at");
                    continue;
                }
            };
            let mut state = self.lock();
            // Something else is wanted meanwhile: that is for the next round.
            if let Some(folder) = state.folders.get_mut(&key)
                && folder.path == path
                && folder.wanted == wanted
            {
                let before = std::mem::replace(&mut folder.seen, now);
                compare(key, &before, &folder.seen, &mut found);
            }
        }
        // What is gone first: a folder that was moved is there under its new name, too.
        found.sort_by_key(|f| !matches!(f.what, What::Gone { .. }));
        found
    }
}

fn look(path: &Path, wanted: &Wanted) -> io::Result<Snapshot> {
    let mut names: Vec<OsString> = wanted.some.iter().cloned().collect();
    if wanted.all {
        names = fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<io::Result<_>>()?;
    }
    let mut snapshot = Snapshot::with_capacity(names.len());
    for name in names {
        let file = path.join(&name);
        let stat = fs::metadata(&file).or_else(|_| fs::symlink_metadata(&file));
        let Ok(stat) = stat else { continue };
        snapshot.insert(name, Stamp::of(&stat));
    }
    Ok(snapshot)
}

fn compare(folder: Key, before: &Snapshot, now: &Snapshot, found: &mut Vec<Found>) {
    let mut tell = |name: &OsString, stamp: Stamp, what| {
        found.push(Found {
            folder,
            name: name.clone(),
            is_dir: stamp.is_dir(),
            what,
        });
    };
    for (name, old) in before {
        // One in place of another is gone and came.
        if now.get(name).is_none_or(|new| !old.is_still(*new)) {
            // With all that was in it, as if it were moved: once it is forgotten nobody
            // looks for what was in it.
            tell(name, *old, What::Gone { moved: true });
        }
    }
    for (name, new) in now {
        match before.get(name) {
            Some(old) if old == new => {}
            Some(old) if old.is_still(*new) => tell(name, *new, What::Changed),
            _ => tell(name, *new, What::Came { new: true }),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests;
