//! Files that outlive their maker, and how what is left is shown.

use super::Kind;
use std::fmt;
use std::fs;
use std::path::Path;

/// Everything that only something running needs, by path: a project's `.devenv/run`, and
/// the folders of its end-to-end runs.
pub fn run_files(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(&state.join("run"), &mut found);
    let runs = fs::read_dir(state.join("runs"));
    for run in runs.into_iter().flatten().flatten() {
        if run.path().is_dir() {
            walk(&run.path(), &mut found);
            found.push(run.path().display().to_string());
        }
    }
    found
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
    }
}

/// Entries of the folders for temporary things that name devenv or what it runs;
/// the project itself may lie there.
pub fn temporary_files(project: &Path) -> Vec<String> {
    let mut folders = vec![
        std::env::temp_dir(),
        "/tmp".into(),
        "/var/tmp".into(),
        "/run".into(),
        "/dev/shm".into(),
        "/run/netns".into(),
    ];
    folders.extend(std::env::var_os("XDG_RUNTIME_DIR").map(Into::into));
    folders.sort();
    folders.dedup();
    folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.path() != project)
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            ["devenv", "netd", "cloudsql", "mysqld", "mariadb"]
                .iter()
                .any(|mark| name.contains(mark))
        })
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// What is left, to be read by a person.
#[derive(Debug, Clone)]
pub struct Left(Vec<(Kind, String, String)>);

impl Left {
    pub(super) fn new(items: Vec<(Kind, String, String)>) -> Self {
        Self(items)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something of this kind is left.
    pub fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(k, _, _)| *k == kind)
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} left behind:", self.0.len())?;
        for (kind, identity, about) in &self.0 {
            write!(f, "\n  {kind:?} {identity}")?;
            if !about.is_empty() {
                write!(f, " ({about})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Left {}
