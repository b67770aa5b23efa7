//! Whether what a command reads has changed since it last succeeded.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ignore::WalkBuilder;
use sha2::{Digest, Sha256};

/// The files at or below `inputs` that git does not ignore, sorted.
pub fn files(root: &Path, inputs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        let walk = WalkBuilder::new(root.join(input))
            .hidden(false)
            .require_git(false)
            .filter_entry(|e| e.file_name() != ".git" && e.file_name() != "node_modules")
            .build();
        for entry in walk {
            let entry = entry.map_err(io::Error::other)?;
            if entry.file_type().is_some_and(|t| t.is_file()) {
                files.push(entry.into_path());
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The hash of a command and of the files that it reads.
///
/// Names and contents count, times don't: a touch or a fresh checkout of the same
/// tree builds nothing.
pub fn of(root: &Path, command: &str, files: &[PathBuf]) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(command.as_bytes());
    for file in files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(file)
            .as_os_str()
            .as_encoded_bytes();
        let contents = fs::read(file)?;
        for part in [name, &contents] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hex::encode(hash.finalize()))
}

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
        let entries = fs::read(&path)
            .ok()
            .and_then(|t| serde_json::from_slice(&t).ok());
        Self {
            path,
            entries: Mutex::new(entries.unwrap_or_default()),
        }
    }

    /// Whether `key` last succeeded with exactly this fingerprint.
    pub fn knows(&self, key: &str, print: &str) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).is_some_and(|known| known == print)
    }

    /// Remembers a success.
    pub fn record(&self, key: &str, print: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(key.to_owned(), print.to_owned());
        let part = self.path.with_extension("part");
        let text = serde_json::to_vec_pretty(&*entries).unwrap_or_default();
        if let Err(e) = fs::write(&part, text).and_then(|()| fs::rename(&part, &self.path)) {
            tracing::warn!(error = %e, "can't remember what was built; it will be built again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_and_names_count_and_ignored_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |n: &str, t: &str| fs::write(dir.path().join(n), t).unwrap();
        write("a", "1");
        write(".gitignore", "*.log\n");
        let print = |command: &str| {
            let files = files(dir.path(), &[PathBuf::from(".")]).unwrap();
            of(dir.path(), command, &files).unwrap()
        };
        let first = print("make");
        write("x.log", "noise");
        write("a", "1");
        assert_eq!(first, print("make"));
        assert_ne!(first, print("make -j2"));
        write("a", "2");
        let second = print("make");
        assert_ne!(first, second);
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_ne!(second, print("make"));
    }

    #[test]
    fn a_ledger_survives_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(dir.path()).record("k", "p");
        assert!(Ledger::open(dir.path()).knows("k", "p"));
        assert!(!Ledger::open(dir.path()).knows("k", "q"));
        fs::write(dir.path().join("builds.json"), "{").unwrap();
        assert!(!Ledger::open(dir.path()).knows("k", "p"));
    }
}
