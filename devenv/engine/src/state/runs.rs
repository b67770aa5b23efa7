//! Systems beside the project's own: each has a folder below `runs/` in the project's
//! state folder, and nothing of it stays when it ends. Whoever made a run holds its
//! folder, and so does its supervisor; a folder that nobody holds is what a killed run
//! left behind, and goes with the next one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use devenv_platform::containers;

use super::{StateDir, StateError, io_error};

/// Below the project's state folder.
const RUNS: &str = "runs";
/// In a run's folder: locked by whoever made the run.
const OWNER: &str = "owner.lock";

/// A run's folder, held. The kernel lets it go when the process ends in any way.
#[derive(Debug)]
pub struct RunGuard {
    state: StateDir,
    /// `None`: somebody else goes on with it.
    lock: Option<fs::File>,
}

/// The right to build: processes of one project take turns, since they build in the same
/// folders.
#[derive(Debug)]
pub struct BuildLock {
    _file: fs::File,
}

impl StateDir {
    /// The state folder of the run `id` of this project.
    pub fn of_run(&self, id: &str) -> Self {
        Self {
            root: self.root.clone(),
            base: self.base.clone(),
            run: Some(id.to_owned()),
            path: self.base.join(RUNS).join(id),
        }
    }

    /// The runs that somebody holds, in the order of their names.
    pub fn runs(&self) -> Vec<Self> {
        let mut runs = self.folders();
        runs.retain(Self::is_held);
        runs
    }

    /// The runs that nobody holds: killed ones left them.
    pub fn dead_runs(&self) -> Vec<Self> {
        let mut runs = self.folders();
        runs.retain(|run| !run.is_held());
        runs
    }

    /// Makes a run, and holds it; what killed ones left is removed.
    ///
    /// # Errors
    /// When a folder can't be made or removed.
    pub fn begin_run(&self, id: &str) -> Result<RunGuard, StateError> {
        self.create()?;
        let _turn = self.turn()?;
        for run in self.folders().iter().filter(|r| !r.is_held()) {
            run.remove_all()?;
        }
        let state = self.of_run(id);
        state.create()?;
        let path = state.path.join(OWNER);
        let lock = open(&path).map_err(io_error("open", &path))?;
        lock.lock().map_err(io_error("lock", &path))?;
        Ok(RunGuard {
            state,
            lock: Some(lock),
        })
    }

    /// Removes this run's folder, unless somebody holds it still. For a supervisor whose
    /// maker is gone, and for `down`.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub fn end_run(&self) -> Result<(), StateError> {
        if self.run.is_none() {
            return Ok(());
        }
        let _turn = self.turn()?;
        if self.is_held() {
            return Ok(());
        }
        self.remove_all()
    }

    /// Waits for the right to build in the project's folders; calls `waiting` if another
    /// process has it.
    ///
    /// # Errors
    /// When the lock's file can't be used.
    pub async fn build_lock(base: &Path, waiting: impl FnOnce()) -> Result<BuildLock, StateError> {
        let path = base.join("build.lock");
        let file = open(&path).map_err(io_error("open", &path))?;
        if file.try_lock().is_ok() {
            return Ok(BuildLock { _file: file });
        }
        waiting();
        let wait = move || file.lock().map(|()| file);
        let file = match tokio::task::spawn_blocking(wait).await {
            Ok(done) => done.map_err(io_error("lock", &path))?,
            Err(e) => return Err(io_error("lock", &path)(io::Error::other(e))),
        };
        Ok(BuildLock { _file: file })
    }

    fn folders(&self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(self.base.join(RUNS)) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|e| e.file_name());
        let mut names: Vec<String> = names.filter_map(|n| n.into_string().ok()).collect();
        names.retain(|n| !n.ends_with(".lock"));
        names.sort_unstable();
        names.iter().map(|n| self.of_run(n)).collect()
    }

    /// Whether its maker or its supervisor lives.
    fn is_held(&self) -> bool {
        let owned = fs::File::open(self.path.join(OWNER))
            .is_ok_and(|f| matches!(f.try_lock(), Err(fs::TryLockError::WouldBlock)));
        owned || self.holder().is_some()
    }

    /// Making and removing runs takes turns among processes: a folder that is being made
    /// is not taken for one that was left.
    fn turn(&self) -> Result<fs::File, StateError> {
        let folder = self.base.join(RUNS);
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let path = folder.join("turn.lock");
        let file = open(&path).map_err(io_error("open", &path))?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }

    fn remove_all(&self) -> Result<(), StateError> {
        // What it has on a container engine is found by that: it goes first.
        if containers::has_leftovers(&self.path) {
            return Ok(());
        }
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &self.path)(e)),
            _ => Ok(()),
        }
    }
}

impl RunGuard {
    /// The run's state folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Leaves it to its supervisor: `devenv down --run` ends it.
    pub fn leave(mut self) {
        self.lock = None;
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        let Some(lock) = self.lock.take() else {
            return;
        };
        drop(lock);
        if let Err(e) = self.state.end_run() {
            tracing::warn!(error = %e, "the next run removes what is left of this one");
        }
    }
}

fn open(path: &PathBuf) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MARKER;

    fn exists(state: &StateDir) -> bool {
        state.path().join(MARKER).exists()
    }

    #[test]
    fn a_run_is_gone_when_nobody_holds_it() {
        let root = tempfile::tempdir().unwrap();
        let project = StateDir::of(root.path());
        let a = project.begin_run("a").unwrap();
        let b = project.begin_run("b").unwrap();
        assert!(exists(a.state()) && exists(b.state()));
        assert_eq!(project.runs().len(), 2);
        let at = a.state().clone();
        drop(a);
        assert!(!exists(&at));
        assert_eq!(project.runs().len(), 1);
        // What a killed one left.
        let left = project.of_run("left");
        left.create().unwrap();
        assert_eq!(project.runs().len(), 1, "nobody holds it");
        let c = project.begin_run("c").unwrap();
        assert!(!exists(&left) && exists(b.state()) && exists(c.state()));
    }

    #[test]
    fn its_supervisor_holds_a_run_as_well() {
        let root = tempfile::tempdir().unwrap();
        let project = StateDir::of(root.path());
        let run = project.begin_run("kept").unwrap();
        let state = run.state().clone();
        let supervisor = state.lock().unwrap();
        run.leave();
        project.begin_run("other").unwrap();
        assert!(exists(&state));
        assert_eq!(project.runs()[0].run_id(), Some("kept"));
        drop(supervisor);
        state.end_run().unwrap();
        assert!(!exists(&state));
        // The project's own state is no run.
        project.end_run().unwrap();
        assert!(exists(&project));
    }

    #[tokio::test]
    async fn builds_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::build_lock(dir.path(), || panic!("nobody builds"));
        let first = first.await.unwrap();
        let mut told = false;
        let mut second = Box::pin(StateDir::build_lock(dir.path(), || told = true));
        tokio::select! {
            biased;
            _ = &mut second => panic!("both build"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        second.await.unwrap();
        assert!(told);
    }
}
