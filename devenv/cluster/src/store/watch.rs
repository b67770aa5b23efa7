//! Watches: readers of the ring of recent events.

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
};

use tokio::sync::watch as signal;

use super::{Object, Shared, StoreError};
use crate::kinds::{self, KindRef};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It changed, or was marked for deletion.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub change: Change,
    /// The object afterwards; its last state when it was deleted.
    pub object: Arc<Object>,
    /// The object before, unless it is new: tells a selector whether the object left or entered.
    pub previous: Option<Arc<Object>>,
    /// Number of the change, in every event higher than in the one before.
    pub resource_version: u64,
}

/// A place in the order of events. Holds no events itself: a slow reader costs nothing, and is
/// told when what it has not read yet is no longer kept.
pub struct Watch {
    shared: Weak<Shared>,
    newest: signal::Receiver<u64>,
    /// One bit per kind of [`kinds::ALL`].
    kinds: u64,
    seen: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new(
        shared: Weak<Shared>,
        newest: signal::Receiver<u64>,
        kinds: &[KindRef],
        seen: u64,
    ) -> Watch {
        let kinds = kinds
            .iter()
            .fold(0, |bits, kind| bits | 1 << kinds::index(kind));
        Watch {
            shared,
            newest,
            kinds,
            seen,
        }
    }

    /// Everything up to this resourceVersion has been returned or did not concern this watch.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next change; waits for one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the reader was so slow that events it has not seen are no longer
    /// kept: list again. [`StoreError::Closed`] when the store is closed.
    pub async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            // Marked before looking, so that a change during the look wakes us again.
            self.newest.borrow_and_update();
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            if self.newest.changed().await.is_err() {
                return Err(StoreError::Closed);
            }
        }
    }

    /// The next change if there is one already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let Some(shared) = self.shared.upgrade() else {
            return Err(StoreError::Closed);
        };
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = state.floor();
        if self.seen < floor {
            return Err(StoreError::Gone { oldest: floor });
        }
        // Difference of at most RING: it fits, on every platform.
        let skip = (self.seen - floor) as usize;
        for event in state.ring.range(skip.min(state.ring.len())..) {
            self.seen = event.resource_version;
            if self.kinds & (1 << kinds::index(event.object.kind())) != 0 {
                return Ok(Some(event.clone()));
            }
        }
        if state.closed {
            Err(StoreError::Closed)
        } else {
            Ok(None)
        }
    }
}
