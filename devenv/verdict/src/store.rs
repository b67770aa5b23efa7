//! The folder with a project's verdicts.

use std::{
    fs::{self, DirEntry, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    coverage::tree_hash,
    envelope::Envelope,
    keys::{PublicKey, SigningKey},
    owner,
    verdict::{SCHEMA, Verdict},
};

/// The name of the folder in the project's state folder.
const FOLDER: &str = "verdicts";
/// So many are kept; the oldest go first.
const KEPT: usize = 50;
/// A larger file is no verdict.
const MAX_BYTES: u64 = 256 << 20;
/// What the names of files begin with that are being written.
const PART: &str = ".part-";
/// After this time nobody is writing them any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Why verdicts can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

/// A project's verdicts: `.devenv/verdicts/TREE.json`, where `TREE` is the hash of the
/// tree that each is about. A later verdict on the same tree takes the place of an
/// earlier one.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A file that can't be used as a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// A verdict that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its file.
    pub file: PathBuf,
    /// The verdict.
    pub verdict: Verdict,
    /// The keys whose signature is right.
    pub signed_by: Vec<PublicKey>,
    /// What the keys are called whose signature is wrong.
    pub wrong_signatures: Vec<String>,
}

/// What became of a verdict that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is in this file.
    Written(PathBuf),
    /// It is on a part of the suites that went well, and there is one on all of them for
    /// the same tree in this file, which stays.
    Kept(PathBuf),
}

impl Store {
    /// In a project's state folder (`.devenv`); made when the first verdict is saved.
    pub fn in_state(state: &Path) -> Self {
        Self {
            folder: state.join(FOLDER),
        }
    }

    /// Where the verdicts are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a verdict on this tree is, if there is one.
    pub fn file_of(&self, tree: &str) -> PathBuf {
        self.folder.join(format!("{tree}.json"))
    }

    /// Signs a verdict and writes it: whole or, whatever happens, not at all.
    ///
    /// # Errors
    /// When the folder or the file can't be written.
    pub fn save(&self, verdict: &Verdict, key: &SigningKey) -> Result<Saved, StoreError> {
        let path = self.file_of(&verdict.coverage.tree);
        if verdict.partial.is_some()
            && !fails(verdict)
            && read(&path).is_ok_and(|s| s.verdict.partial.is_none())
        {
            return Ok(Saved::Kept(path));
        }
        let made = owner::missing(&self.folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(io_error("make", &self.folder))?;
        for folder in &made {
            owner::hand_over(folder).map_err(io_error("give to its owner", folder))?;
        }
        self.write(&path, verdict, key)
            .map_err(io_error("write", &path))?;
        self.tidy().map_err(io_error("tidy", &self.folder))?;
        Ok(Saved::Written(path))
    }

    fn write(&self, path: &Path, verdict: &Verdict, key: &SigningKey) -> io::Result<()> {
        let envelope = Envelope::seal(&serde_json::to_vec(verdict)?, key);
        // Nobody but its owner may read it, as tempfile makes them.
        let mut file = tempfile::Builder::new()
            .prefix(PART)
            .tempfile_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(&envelope)?)?;
        file.write_all(b"\n")?;
        owner::hand_over(file.path())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // The new name as well survives a power failure.
        File::open(&self.folder)?.sync_all()
    }

    /// Removes the oldest verdicts beyond the number to keep, and what was left by whoever
    /// was killed while writing.
    fn tidy(&self) -> io::Result<()> {
        let mut verdicts: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(modified) = entry.metadata().and_then(|m| m.modified()) else {
                continue;
            };
            let age = SystemTime::now().duration_since(modified);
            let name = entry.file_name();
            if is_verdict(&entry) {
                verdicts.push((modified, entry.path()));
            } else if name.to_string_lossy().starts_with(PART) && age.is_ok_and(|a| a > ABANDONED) {
                remove(&entry.path())?;
            }
        }
        verdicts.sort();
        let beyond = verdicts.len().saturating_sub(KEPT);
        for (_, path) in verdicts.drain(..beyond) {
            remove(&path)?;
        }
        Ok(())
    }

    /// All verdicts, the newest first, and the files that are none.
    ///
    /// # Errors
    /// When the folder can't be listed; that it isn't there means that there are none.
    pub fn all(&self) -> Result<(Vec<Stored>, Vec<Damaged>), StoreError> {
        let listed = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            other => other.map_err(io_error("list", &self.folder))?,
        };
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for entry in listed {
            let entry = entry.map_err(io_error("list", &self.folder))?;
            if !is_verdict(&entry) {
                continue;
            }
            let file = entry.path();
            match read(&file) {
                Ok(stored) => all.push(stored),
                Err(why) => damaged.push(Damaged { file, why }),
            }
        }
        all.sort_by(|a, b| (b.verdict.ended, &b.file).cmp(&(a.verdict.ended, &a.file)));
        damaged.sort_by(|a, b| a.file.cmp(&b.file));
        Ok((all, damaged))
    }
}

fn is_verdict(entry: &DirEntry) -> bool {
    entry.path().extension().is_some_and(|e| e == "json")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether something that ran did not go well.
fn fails(verdict: &Verdict) -> bool {
    use devenv_e2e::outcome::Outcome::{Failed, Missing};
    verdict.suites.iter().any(|s| s.error.is_some())
        || verdict.tests(&[Failed, Missing]).next().is_some()
}

/// Only to see which it is before the rest is read.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

/// Reads a file, and says for people what is wrong with it.
fn read(path: &Path) -> Result<Stored, String> {
    let meta = fs::metadata(path).map_err(|e| format!("it can't be read: {e}"))?;
    if !meta.is_file() {
        return Err("it is no file".into());
    }
    if meta.len() > MAX_BYTES {
        return Err(format!(
            "it has {} bytes, too many for a verdict",
            meta.len()
        ));
    }
    let bytes = fs::read(path).map_err(|e| format!("it can't be read: {e}"))?;
    let envelope: Envelope =
        serde_json::from_slice(&bytes).map_err(|e| format!("it is no signed verdict: {e}"))?;
    let opened = envelope.open().map_err(|e| e.to_string())?;
    let versioned: Versioned =
        serde_json::from_slice(&opened.payload).map_err(|e| format!("it is no verdict: {e}"))?;
    if versioned.schema != SCHEMA {
        return Err(format!(
            "it is of format {}, and this devenv reads {SCHEMA}",
            versioned.schema
        ));
    }
    let verdict: Verdict =
        serde_json::from_slice(&opened.payload).map_err(|e| format!("it is no verdict: {e}"))?;
    if tree_hash(&verdict.coverage.inputs) != verdict.coverage.tree {
        return Err("its tree's hash is not that of its inputs".into());
    }
    Ok(Stored {
        file: path.to_owned(),
        verdict,
        signed_by: opened.signed_by,
        wrong_signatures: opened.wrong,
    })
}
