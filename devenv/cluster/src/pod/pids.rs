//! Which process of this machine each running container is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The table, by the pod's uid and the container's name. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Pids {
    known: Arc<Mutex<HashMap<(String, String), u32>>>,
}

/// A running container's line of the table, which goes when this is dropped.
#[derive(Debug)]
pub struct Entry {
    pids: Pids,
    key: (String, String),
}

impl Pids {
    /// A container began to run as this process; 0 is none.
    pub fn enter(&self, uid: &str, container: &str, pid: u32) -> Option<Entry> {
        let key = (uid.to_owned(), container.to_owned());
        if pid == 0 {
            return None;
        }
        self.lock().insert(key.clone(), pid);
        Some(Entry {
            pids: self.clone(),
            key,
        })
    }

    /// The process of a container, while it runs.
    pub fn get(&self, uid: &str, container: &str) -> Option<u32> {
        let key = (uid.to_owned(), container.to_owned());
        self.lock().get(&key).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), u32>> {
        // A map is whole after a panic elsewhere.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.pids.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_while_it_runs() {
        let pids = Pids::default();
        assert!(pids.enter("u", "none", 0).is_none());
        let entry = pids.enter("u", "c", 7);
        assert_eq!(pids.get("u", "c"), Some(7));
        assert_eq!(pids.get("u", "other"), None);
        drop(entry);
        assert_eq!(pids.get("u", "c"), None);
    }
}
