//! Which commands have succeeded with which inputs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// What succeeded last, kept in the state folder. A lost or damaged one only costs
/// a build.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Mutex<BTreeMap<String, String>>,
}

impl Ledger {
    /// Reads it.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("builds.json");
        let ledger = Self {
            path,
            entries: Mutex::default(),
        };
        ledger.refresh();
        ledger
    }

    /// Reads it again, in case another process of this project wrote it.
    pub fn refresh(&self) {
        let read = fs::read(&self.path).ok();
        let read = read.and_then(|t| serde_json::from_slice(&t).ok());
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = read.unwrap_or_default();
    }

    /// Whether `key` last succeeded with exactly this fingerprint.
    pub fn knows(&self, key: &str, print: &str) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).is_some_and(|known| known == print)
    }

    /// Forgets a success: what it made is about to be overwritten.
    pub fn forget(&self, key: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.remove(key).is_some() {
            self.write(&entries);
        }
    }

    /// Remembers a success.
    pub fn record(&self, key: &str, print: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(key.to_owned(), print.to_owned());
        self.write(&entries);
    }

    fn write(&self, entries: &BTreeMap<String, String>) {
        let part = self.path.with_extension("part");
        let text = serde_json::to_vec_pretty(entries).unwrap_or_default();
        if let Err(e) = fs::write(&part, text).and_then(|()| fs::rename(&part, &self.path)) {
            tracing::warn!(error = %e, "can't remember what was built; it will be built again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_survives_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path()).record("k", "p");
        assert!(Ledger::open(dir.path()).knows("k", "p"));
        assert!(!Ledger::open(dir.path()).knows("k", "q"));
        Ledger::open(dir.path()).forget("k");
        assert!(!Ledger::open(dir.path()).knows("k", "p"));
        Ledger::open(dir.path()).record("k", "p");
        fs::write(dir.path().join("builds.json"), "{").unwrap();
        assert!(!Ledger::open(dir.path()).knows("k", "p"));
    }
}
