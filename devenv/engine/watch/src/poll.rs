//! Looking again and again, where nobody tells of changes.

use std::{
    collections::{BTreeMap, HashMap},
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

/// A round takes no more than this share of one processor's time…
const CPU_SHARE: u32 = 100;
/// …and waits for the filesystem no more than this share of the time.
const WAIT_SHARE: u32 = 10;

/// What a round found out about one name.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) folder: Key,
    pub(crate) name: OsString,
    pub(crate) is_dir: bool,
    pub(crate) what: What,
}

/// Times, size and mode of a file; `None` of a folder, whose entries tell.
type Stamp = Option<(i64, i64, u64, u32)>;
type Snapshot = HashMap<OsString, Stamp>;

#[derive(Debug)]
struct Folder {
    key: Key,
    /// Only these names; everything where there is none.
    only: Option<Vec<OsString>>,
    seen: Snapshot,
    /// Not asked for again since the last sweep.
    stale: bool,
}

impl Folder {
    fn look(&self, path: &Path) -> Snapshot {
        look(path, self.only.as_deref()).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct State {
    folders: BTreeMap<Arc<Path>, Folder>,
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

    /// From now on changes of the folder are found, or of one `name` in it. A folder
    /// that is polled already keeps what was seen of it.
    pub(crate) fn add(&self, path: &Arc<Path>, key: Key, name: Option<&OsStr>) {
        let mut state = self.lock();
        if let Some(folder) = state.folders.get_mut(path) {
            let fresh = std::mem::replace(&mut folder.stale, false);
            let (key_before, wide) = (folder.key, folder.only.is_none());
            folder.key = key;
            let known = match (&mut folder.only, name) {
                // The first since a sweep says anew what is wanted.
                (only, name) if fresh => {
                    *only = name.map(|n| vec![n.to_owned()]);
                    wide && key == key_before
                }
                (Some(names), Some(name)) => {
                    if !names.iter().any(|n| n == name) {
                        names.push(name.to_owned());
                    }
                    false
                }
                (only @ Some(_), None) => {
                    *only = None;
                    false
                }
                (None, _) => true,
            };
            if !known {
                let now = folder.look(path);
                for (name, stamp) in now {
                    folder.seen.entry(name).or_insert(stamp);
                }
            }
            return;
        }
        let mut folder = Folder {
            key,
            only: name.map(|n| vec![n.to_owned()]),
            seen: Snapshot::new(),
            stale: false,
        };
        folder.seen = folder.look(path);
        state.folders.insert(path.clone(), folder);
        self.changed.notify_all();
    }

    pub(crate) fn remove(&self, key: Key) {
        self.lock().folders.retain(|_, f| f.key != key);
    }

    /// Begins to say anew what is polled; [`Polls::sweep`] ends it.
    pub(crate) fn mark(&self) {
        for folder in self.lock().folders.values_mut() {
            folder.stale = true;
        }
    }

    /// Drops what wasn't added since [`Polls::mark`].
    pub(crate) fn sweep(&self) {
        self.lock().folders.retain(|_, f| !f.stale);
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
                let cpu = cpu_time().saturating_sub(cpu) * CPU_SHARE;
                pause = polls.interval.max(cpu).max(wall.elapsed() * WAIT_SHARE);
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
        let paths: Vec<Arc<Path>> = self.lock().folders.keys().cloned().collect();
        let mut found = Vec::new();
        for path in paths {
            let only = match self.lock().folders.get(&path) {
                Some(folder) => folder.only.clone(),
                None => continue,
            };
            // Not under the lock: a server may take its time.
            let now = look(&path, only.as_deref());
            let mut state = self.lock();
            let Some(folder) = state.folders.get_mut(&path) else {
                continue;
            };
            // Widened meanwhile: the next round sees all of it.
            if folder.only != only {
                continue;
            }
            let now = match now {
                Ok(now) => now,
                Err(e) if e.kind() == io::ErrorKind::NotFound => Snapshot::new(),
                // A server that doesn't answer has deleted nothing.
                Err(e) => {
                    tracing::debug!(folder = %path.display(), error = %e, "not looked at");
                    continue;
                }
            };
            let before = std::mem::take(&mut folder.seen);
            compare(folder.key, &before, &now, &mut found);
            folder.seen = now;
        }
        found
    }
}

fn look(path: &Path, only: Option<&[OsString]>) -> io::Result<Snapshot> {
    let names: Vec<OsString> = match only {
        Some(names) => names.to_vec(),
        None => fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<io::Result<_>>()?,
    };
    let mut snapshot = Snapshot::with_capacity(names.len());
    for name in names {
        if name == ".git" || name == ".devenv" {
            continue;
        }
        let file = path.join(&name);
        let stat = fs::metadata(&file).or_else(|_| fs::symlink_metadata(&file));
        let Ok(stat) = stat else { continue };
        let stamp = (!stat.is_dir()).then(|| {
            let mtime = (stat.mtime(), stat.mtime_nsec());
            (mtime.0, mtime.1, stat.len(), stat.mode())
        });
        snapshot.insert(name, stamp);
    }
    Ok(snapshot)
}

fn compare(folder: Key, before: &Snapshot, now: &Snapshot, found: &mut Vec<Found>) {
    let mut tell = |name: &OsString, stamp: &Stamp, what| {
        found.push(Found {
            folder,
            name: name.clone(),
            is_dir: stamp.is_none(),
            what,
        });
    };
    for (name, stamp) in before {
        // A folder in place of a file, or the other way round, is gone and came.
        if now.get(name).is_none_or(|n| n.is_none() != stamp.is_none()) {
            // With all that was in it, as if it were moved: once it is forgotten nobody
            // looks for what was in it.
            tell(name, stamp, What::Gone { moved: true });
        }
    }
    for (name, stamp) in now {
        match before.get(name) {
            Some(old) if old == stamp => {}
            Some(old) if old.is_some() && stamp.is_some() => tell(name, stamp, What::Changed),
            _ => tell(name, stamp, What::Came { new: true }),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
