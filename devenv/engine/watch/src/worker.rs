//! The thread that watches: reads events, finds whose they are, keeps the tree of
//! watches as the folders are.

mod events;

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tokio::sync::watch;

use self::events::{Writing, look};
use crate::{
    Mode,
    inbox::{Inbox, Kind},
    inotify::Told,
    poll::Found,
    scope::{Id, Scopes},
    scratch::is_scratch,
    tree::{Folders, Key, Tree},
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
    scopes: Arc<Scopes>,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    bell: Orders,
    forced: bool,
    /// What the mode was told by; nothing yet.
    reasons: Option<(bool, usize)>,
    /// Something that the tree was built on has changed.
    stale: bool,
    /// Events were lost.
    lost: bool,
    /// Not before this the tree is built again, so that nobody can keep us busy.
    rested: Instant,
}

/// What a rebuild has left out.
#[derive(Debug, Default)]
struct LeftOut {
    folders: Folders,
    /// Who read them.
    scopes: Arc<Scopes>,
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
            scopes: Arc::default(),
            shared,
            orders,
            bell,
            forced,
            reasons: None,
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
        // What came together is told of together, however long it takes to sort out.
        self.shared.inbox.hold(true);
        // First what happened under the old inputs, then the new ones.
        self.read(&LeftOut::default());
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
        self.tell_mode();
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
        let scopes = std::mem::replace(&mut self.scopes, Arc::new(scopes));
        let folders = self.tree.rebuild(&self.scopes, &mut |_, _| {});
        self.stale = false;
        self.leave(LeftOut { folders, scopes });
        self.tell_mode();
        self.shared.taken.send_modify(|n| *n += 1);
    }

    /// Builds the tree of watches anew for the same inputs.
    fn rebuild(&mut self) {
        let start = Instant::now();
        let (shared, scopes) = (&self.shared, self.scopes.clone());
        let mut seen = |path: PathBuf, ids: &Arc<[Id]>| {
            if !path.file_name().is_some_and(is_scratch) {
                let touch = look(&path, Kind::Changed, Writing::No);
                shared.inbox.touch(&path, &scopes.owners(ids), touch);
            }
        };
        let folders = self.tree.rebuild(&scopes, &mut seen);
        // Told of only now: who looks at everything from here on misses nothing.
        if self.lost {
            self.shared.inbox.lost();
        }
        (self.stale, self.lost) = (false, false);
        self.leave(LeftOut { folders, scopes });
        let took = start.elapsed().max(Duration::from_millis(1));
        self.rested = Instant::now() + took * 4;
    }

    /// Takes leave of folders that a rebuild has left out: what happened in them while
    /// it went on is in the queue.
    fn leave(&mut self, left_out: LeftOut) {
        self.read(&left_out);
        self.tree.end(left_out.folders);
    }

    fn tell_mode(&mut self) {
        let reasons = Some(self.tree.reasons());
        if self.reasons == reasons {
            return;
        }
        self.reasons = reasons;
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
    fn read(&mut self, left_out: &LeftOut) {
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
                        let key = Key::Watch(watch);
                        if self.tree.folder(key).is_none()
                            && let Some(folder) = left_out.folders.get(&key)
                        {
                            self.last_event(&left_out.scopes, folder, &name, is_dir, what);
                        } else {
                            self.event(key, &name, is_dir, what, true);
                        }
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
}

#[cfg(test)]
mod tests;
