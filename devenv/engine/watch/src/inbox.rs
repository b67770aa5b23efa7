//! What has changed since it was last asked for, and when to tell.
//!
//! The watching thread puts changes in, [`Inbox::next`] takes them out in one piece
//! once a burst is over. Whatever comes while nobody asks is merged, and memory stays
//! bounded: past [`Options::max_paths`] the paths are forgotten and a rescan is asked
//! for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};

use crate::Options;

/// From this many paths on a burst is no save but a checkout or an install: telling of
/// its first tenth would only start work that the rest makes void.
const STORM: usize = 20;
/// The quiet that ends a storm, and the longest one. A busy disk makes it pause.
const STORM_QUIET: Duration = Duration::from_millis(100);
const STORM_MAX: Duration = Duration::from_secs(5);
/// Paths told of so recently count too: a storm may begin slowly, and pause.
const STORM_MEMORY: Duration = Duration::from_millis(500);

/// One change of one path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) kind: Kind,
    /// A program has the file open for writing and will close it.
    pub(crate) writing: bool,
    /// When the file was saved, as its filesystem says.
    pub(crate) at: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name that wasn't there before.
    Born,
    /// The name is gone.
    Gone,
    /// Written, replaced, or with other attributes.
    Changed,
}

/// What changed in one burst, owners by their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) owners: BTreeMap<u32, BTreeSet<PathBuf>>,
    pub(crate) saved: Option<SystemTime>,
    pub(crate) detected: Instant,
    pub(crate) rescan: bool,
}

#[derive(Debug)]
struct Changed {
    owners: Vec<u32>,
    /// Not there before this burst: when it goes again within, nothing has happened.
    born: bool,
    writing: bool,
    at: Option<SystemTime>,
}

/// The time from the first to the last event since the last report.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: Instant,
    last: Instant,
}

impl Span {
    /// When to tell: after some quiet, but never later than the maximum. `wait`: only
    /// then.
    fn due(self, options: &Options, paths: usize, wait: bool) -> Instant {
        let (quiet, max) = if paths >= STORM {
            (options.quiet.max(STORM_QUIET), options.max.max(STORM_MAX))
        } else {
            (options.quiet, options.max)
        };
        let latest = self.first + max;
        if wait {
            latest
        } else {
            latest.min(self.last + quiet)
        }
    }
}

#[derive(Debug, Default)]
struct State {
    paths: HashMap<PathBuf, Changed>,
    /// How many of `paths` are being written.
    writing: usize,
    /// Owners of paths that were forgotten.
    forgotten: BTreeSet<u32>,
    rescan: bool,
    span: Option<Span>,
    /// Some of the paths that were told of, and when.
    recent: Vec<(Instant, PathBuf)>,
    /// More is about to be found out.
    held: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    news: Notify,
    options: Options,
}

impl Inbox {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            state: Mutex::default(),
            news: Notify::new(),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path that belongs to `owners` has changed.
    pub(crate) fn touch(&self, path: &Path, owners: &[u32], touch: Touch) {
        if owners.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.event(Instant::now());
        if state.rescan {
            state.forgotten.extend(owners);
        } else {
            state.touch(path, owners, touch);
            if state.paths.len() > self.options.max_paths {
                state.forget_paths();
            }
        }
    }

    /// Whether this path is known as being written, so that one more write to it is no
    /// news.
    pub(crate) fn is_writing(&self, path: &Path) -> bool {
        self.lock().paths.get(path).is_some_and(|c| c.writing)
    }

    /// Events were lost: anything may have changed.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        state.event(Instant::now());
        state.rescan = true;
    }

    /// While held, a burst is not told of before its maximum.
    pub(crate) fn hold(&self, held: bool) {
        self.lock().held = held;
    }

    /// Wakes who waits for changes: once per batch of events, not per event.
    pub(crate) fn announce(&self) {
        if self.lock().span.is_some() {
            self.news.notify_one();
        }
    }

    /// There will be no more changes.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// The next burst, once it is over; `None` after [`Inbox::close`]. Dropping the
    /// future loses nothing.
    pub(crate) async fn next(&self) -> Option<Burst> {
        loop {
            let (due, wait, closed) = {
                let state = self.lock();
                // A file that was truncated and isn't filled yet would only build into an
                // error.
                let wait = state.writing > 0 || state.held;
                let due = state
                    .span
                    .map(|s| s.due(&self.options, state.weight(s), wait));
                (due, wait, state.closed)
            };
            match due {
                Some(due) if closed || due <= Instant::now() => {
                    let taken = self.lock().take();
                    return taken.map(Taken::told);
                }
                Some(due) if wait => {
                    // News may be that there is nothing more to wait for.
                    let _ = tokio::time::timeout_at(due, self.news.notified()).await;
                }
                // News can only make it later, and would wake us at every event.
                Some(due) => tokio::time::sleep_until(due).await,
                None if closed => return None,
                None => self.news.notified().await,
            }
        }
    }
}

impl State {
    fn event(&mut self, now: Instant) {
        let span = self.span.get_or_insert(Span {
            first: now,
            last: now,
        });
        span.last = now;
    }

    /// How many paths make this burst what it is: with those told of just before, each
    /// once, because a log that is always written to is no storm.
    fn weight(&self, span: Span) -> usize {
        let recent = self.recent.iter().enumerate();
        let before = recent.filter(|(i, (at, path))| {
            span.first.saturating_duration_since(*at) < STORM_MEMORY
                && !self.paths.contains_key(path)
                && !self.recent[..*i].iter().any(|(_, p)| p == path)
        });
        self.paths.len() + before.count()
    }

    fn touch(&mut self, path: &Path, owners: &[u32], touch: Touch) {
        let Some(known) = self.paths.get_mut(path) else {
            let changed = Changed {
                owners: owners.to_vec(),
                born: touch.kind == Kind::Born,
                writing: touch.writing,
                at: touch.at,
            };
            self.paths.insert(path.to_owned(), changed);
            self.writing += usize::from(touch.writing);
            return;
        };
        self.writing -= usize::from(known.writing);
        if known.born && touch.kind == Kind::Gone {
            self.paths.remove(path);
            if self.paths.is_empty() {
                self.span = None;
            }
            return;
        }
        self.writing += usize::from(touch.writing);
        known.writing = touch.writing;
        known.at = touch.at.or(known.at);
        for owner in owners {
            if !known.owners.contains(owner) {
                known.owners.push(*owner);
            }
        }
    }

    fn forget_paths(&mut self) {
        for changed in std::mem::take(&mut self.paths).into_values() {
            self.forgotten.extend(changed.owners);
        }
        self.writing = 0;
        self.rescan = true;
    }

    fn take(&mut self) -> Option<Taken> {
        let detected = self.span.take()?.first;
        self.writing = 0;
        let now = Instant::now();
        self.recent.retain(|(at, _)| now - *at < STORM_MEMORY);
        let room = STORM.saturating_sub(self.recent.len());
        let told = self.paths.keys().take(room).cloned();
        self.recent.extend(told.map(|path| (now, path)));
        Some(Taken {
            detected,
            paths: std::mem::take(&mut self.paths),
            forgotten: std::mem::take(&mut self.forgotten),
            rescan: std::mem::take(&mut self.rescan),
        })
    }
}

/// A burst as it was collected; sorted by owner outside of the lock.
struct Taken {
    paths: HashMap<PathBuf, Changed>,
    forgotten: BTreeSet<u32>,
    rescan: bool,
    detected: Instant,
}

impl Taken {
    fn told(self) -> Burst {
        let forgotten = self.forgotten.into_iter();
        let mut owners: BTreeMap<u32, BTreeSet<PathBuf>> =
            forgotten.map(|owner| (owner, BTreeSet::new())).collect();
        let mut saved = None;
        for (path, changed) in self.paths {
            saved = saved.max(changed.at);
            for owner in changed.owners {
                owners.entry(owner).or_default().insert(path.clone());
            }
        }
        Burst {
            owners,
            saved,
            detected: self.detected,
            rescan: self.rescan,
        }
    }
}

#[cfg(test)]
mod tests;
