//! The thread that watches: reads events, finds whose they are, keeps the tree of
//! watches as the folders are.

use std::{
    ffi::OsStr,
    fs,
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tokio::sync::watch;

use crate::{
    Mode,
    inbox::{Inbox, Kind, Touch},
    inotify::{Told, What},
    poll::Found,
    scope::{Id, Scopes},
    scratch::is_scratch,
    tree::{Hook, Key, Name, Start, Tree},
};

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Watch these instead.
    Set(Scopes),
    /// Polling found changes.
    Found(Vec<Found>),
}

/// The way to tell the thread something.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    tx: mpsc::Sender<Order>,
    bell: Arc<OwnedFd>,
}

impl Orders {
    pub(crate) fn new() -> Result<(Self, mpsc::Receiver<Order>), Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (tx, rx) = mpsc::channel();
        let bell = Arc::new(bell);
        Ok((Self { tx, bell }, rx))
    }

    /// An order to a thread that has ended is in vain, and no error.
    pub(crate) fn send(&self, order: Order) {
        if self.tx.send(order).is_ok() {
            self.ring();
        }
    }

    pub(crate) fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// What the thread shares with its [`crate::Watcher`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    pub(crate) mode: Mutex<Mode>,
    pub(crate) stop: Arc<AtomicBool>,
    /// How many sets of inputs have been taken over.
    pub(crate) taken: watch::Sender<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Worker {
    tree: Tree,
    scopes: Scopes,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    bell: Orders,
    forced: bool,
    /// Something that the tree was built on has changed.
    stale: bool,
    /// Events were lost.
    lost: bool,
    /// Not before this the tree is built again, so that nobody can keep us busy.
    rested: Instant,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.inbox.close();
        self.shared.taken.send_replace(u64::MAX);
    }
}

impl Worker {
    /// `forced`: the tree has no queue because polling was asked for.
    pub(crate) fn new(
        tree: Tree,
        shared: Arc<Shared>,
        orders: mpsc::Receiver<Order>,
        bell: Orders,
        forced: bool,
    ) -> Self {
        Self {
            tree,
            scopes: Scopes::default(),
            shared,
            orders,
            bell,
            forced,
            stale: false,
            lost: false,
            rested: Instant::now(),
        }
    }

    /// Watches until it is told to stop.
    pub(crate) fn run(mut self) {
        while !self.stopping() {
            if let Err(e) = self.wait() {
                tracing::error!(error = %e, "can't wait for changes of files any more");
                return;
            }
            self.turn();
        }
    }

    /// Handles all that has come.
    fn turn(&mut self) {
        // First what happened under the old inputs, then the new ones.
        self.read();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Set(scopes) => self.set(scopes),
                Order::Found(found) => {
                    for f in found {
                        self.event(f.folder, &f.name, f.is_dir, f.what, false);
                    }
                }
            }
        }
        self.stale |= self.tree.lost_name();
        if (self.stale || self.lost) && Instant::now() >= self.rested {
            self.rebuild();
        }
        self.shared.inbox.hold(self.stale || self.lost);
        self.shared.inbox.announce();
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Sleeps until there are events or orders, or it is time to build the tree anew.
    fn wait(&self) -> Result<(), Errno> {
        let due = (self.stale || self.lost)
            .then(|| self.rested.saturating_duration_since(Instant::now()));
        let due = due.map(|d| {
            Timespec::try_from(d).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        let mut fds = vec![PollFd::new(&self.bell.bell, PollFlags::IN)];
        if let Some(queue) = self.tree.queue() {
            fds.push(PollFd::new(queue.fd(), PollFlags::IN));
        }
        match poll(&mut fds, due.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        let mut count = [0; 8];
        match rustix::io::read(&self.bell.bell, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes over new inputs.
    fn set(&mut self, scopes: Scopes) {
        self.scopes = scopes;
        self.tree.rebuild(&self.scopes, &mut |_, _| {});
        self.stale = false;
        self.tell_mode();
        self.shared.taken.send_modify(|n| *n += 1);
    }

    /// Builds the tree of watches anew for the same inputs.
    fn rebuild(&mut self) {
        let start = Instant::now();
        let (shared, scopes) = (&self.shared, &self.scopes);
        let mut seen = |path: PathBuf, ids: &Arc<[Id]>| {
            let owners = scopes.owners(ids);
            let touch = look(&path, Kind::Changed, Writing::IfEmpty);
            shared.inbox.touch(&path, &owners, touch);
        };
        self.tree.rebuild(scopes, &mut seen);
        // Told of only now: who looks at everything from here on misses nothing.
        if self.lost {
            self.shared.inbox.lost();
        }
        (self.stale, self.lost) = (false, false);
        self.tell_mode();
        let took = start.elapsed().max(Duration::from_millis(1));
        self.rested = Instant::now() + took * 4;
    }

    fn tell_mode(&self) {
        let mode = match self.tree.why_polling(self.forced) {
            Some(why) => Mode::Polling { why },
            None => Mode::Events,
        };
        let mut told = self
            .shared
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *told != mode {
            if let Mode::Polling { why } = &mode {
                tracing::warn!(why, "not every change of a file is seen at once");
            }
            *told = mode;
        }
    }

    /// Reads all events that wait.
    fn read(&mut self) {
        // They are copied out of the kernel's buffer, because reading borrows the
        // queue and handling adds to it.
        let mut batch = Vec::new();
        loop {
            let Some(queue) = self.tree.queue() else {
                return;
            };
            let more = queue.read(&mut batch);
            for told in batch.drain(..) {
                match told {
                    Told::Lost => self.lost = true,
                    Told::Ended { watch } => self.stale |= self.tree.ended(watch),
                    Told::Name {
                        watch,
                        name,
                        is_dir,
                        what,
                    } => {
                        self.event(Key::Watch(watch), &name, is_dir, what, true);
                    }
                }
            }
            match more {
                Ok(true) if !self.stopping() => {}
                Ok(_) => return,
                Err(e) => {
                    tracing::error!(error = %e, "can't read events of files");
                    self.lost = true;
                    return;
                }
            }
        }
    }

    /// Something happened to an entry of a folder.
    fn event(&mut self, key: Key, name: &OsStr, is_dir: bool, what: What, closes: bool) {
        let Some(folder) = self.tree.folder(key) else {
            return;
        };
        let hooks: Vec<Hook> = folder.hooks.get(name).cloned().unwrap_or_default();
        let names = folder.names.clone();
        for hook in hooks {
            self.hooked(hook, is_dir, what, closes);
        }
        for folder in names {
            self.named(&folder, name, is_dir, what, closes);
        }
    }

    /// Something happened to an entry of a folder that is read.
    fn named(&mut self, folder: &Name, name: &OsStr, is_dir: bool, what: What, closes: bool) {
        let path = folder.path.join(name);
        let appears = matches!(what, What::Came { .. } | What::Gone { .. });
        if (name == ".gitignore" && what != What::Writing) || (name == ".git" && appears) {
            self.stale |= self.scopes.any_follows_git(&folder.scopes);
        }
        if appears && self.tree.knows(&path) {
            // A folder takes with it what is in it, and nothing else tells.
            if is_dir && what == (What::Gone { moved: true }) {
                self.touch(&path, &folder.scopes, Kind::Gone, Writing::No);
            }
            self.tree.forget(&path);
        }
        let ids = self
            .scopes
            .counting(&folder.scopes, &path, is_dir, &folder.rules);
        if ids.is_empty() {
            return;
        }
        if let What::Came { new } = what
            && (is_dir || path.is_symlink())
        {
            let start = Start {
                path: path.as_path().into(),
                scopes: ids.clone(),
                above: folder.rules.clone(),
                linked: folder.linked || !is_dir,
            };
            self.enter(start, new);
        }
        if !is_dir && !is_scratch(name) {
            self.changed(&path, &ids, what, closes);
        }
    }

    /// Something happened to a name that matters beside what its folder is.
    fn hooked(&mut self, hook: Hook, is_dir: bool, what: What, closes: bool) {
        let appears = matches!(what, What::Came { .. } | What::Gone { .. });
        match hook {
            Hook::Way => self.stale |= appears,
            Hook::Rules(path, ids) => {
                self.stale |= what != What::Writing;
                self.changed(&path, &ids, what, closes);
            }
            Hook::Link(path, ids) => self.changed(&path, &ids, what, closes),
            Hook::Top(top) => {
                if appears {
                    self.tree.forget(&top);
                }
                if let What::Came { new } = what {
                    let start = self.tree.start(&self.scopes, &top);
                    self.enter(start, new);
                }
                // By what it was, not by what is there by now.
                if !is_dir || what == (What::Gone { moved: true }) {
                    self.changed(&top, &self.scopes.at(&top), what, closes);
                }
            }
        }
    }

    /// Watches what has appeared, and tells of the files in it.
    fn enter(&mut self, start: Start, new: bool) {
        let kind = if new { Kind::Born } else { Kind::Changed };
        let (shared, scopes) = (&self.shared, &self.scopes);
        let mut seen = |path: PathBuf, ids: &Arc<[Id]>| {
            if !path.file_name().is_some_and(is_scratch) {
                // It may have been made before there was a watch, and be written after.
                let owners = scopes.owners(ids);
                shared
                    .inbox
                    .touch(&path, &owners, look(&path, kind, Writing::IfEmpty));
            }
        };
        self.tree.walk(scopes, vec![start], &mut seen);
    }

    /// `closes`: who writes to the file is heard of when he closes it.
    fn changed(&self, path: &Path, ids: &[Id], what: What, closes: bool) {
        match what {
            What::Came { new: true } if closes => {
                self.touch(path, ids, Kind::Born, Writing::IfEmpty);
            }
            What::Came { new: true } => self.touch(path, ids, Kind::Born, Writing::No),
            What::Came { new: false } => self.touch(path, ids, Kind::Changed, Writing::No),
            What::Gone { .. } => self.touch(path, ids, Kind::Gone, Writing::No),
            What::Changed => self.touch(path, ids, Kind::Changed, Writing::No),
            What::Writing if self.shared.inbox.is_writing(path) => {}
            What::Writing => self.touch(path, ids, Kind::Changed, Writing::Yes),
        }
    }

    fn touch(&self, path: &Path, ids: &[Id], kind: Kind, writing: Writing) {
        let owners = self.scopes.owners(ids);
        self.shared
            .inbox
            .touch(path, &owners, look(path, kind, writing));
    }
}

/// Whether the file will be closed by one who writes to it.
#[derive(Debug, Clone, Copy)]
enum Writing {
    Yes,
    No,
    /// It was just created; one who writes begins with nothing.
    IfEmpty,
}

/// Adds what the filesystem says about a file that has changed.
fn look(path: &Path, kind: Kind, writing: Writing) -> Touch {
    let stat = match kind {
        Kind::Gone => None,
        _ => fs::metadata(path)
            .or_else(|_| fs::symlink_metadata(path))
            .ok(),
    };
    let empty = || stat.as_ref().is_some_and(|s| s.is_file() && s.len() == 0);
    Touch {
        kind,
        writing: match writing {
            Writing::Yes => true,
            Writing::No => false,
            Writing::IfEmpty => empty(),
        },
        at: stat.as_ref().and_then(changed_at),
    }
}

/// When it became what it is: ctime, because a file that is moved into place or made
/// executable keeps its mtime.
fn changed_at(stat: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(stat.ctime().try_into().ok()?);
    let nanos = Duration::from_nanos(stat.ctime_nsec().try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + nanos)
}

#[cfg(test)]
mod tests;
