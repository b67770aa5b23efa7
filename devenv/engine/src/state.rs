//! The state folder of a project: who runs it, and where it is to be found.

mod owner;
mod runs;

pub use runs::{BuildLock, RunGuard};

use std::{
    fs, io,
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use devenv_platform::{Endpoints, address};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// Written into every state folder, so that a folder of another tool with the same
/// name (cachix's devenv) is told apart.
const MARKER: &str = ".devenv-gke-state";

/// Why the state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file in it.
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
    /// Another supervisor runs this project.
    #[error("this project is already up (supervisor pid {})", .0.pid)]
    Running(Holder),
    /// Somebody removed it under a running system.
    #[error("the state folder {} was removed while the system ran", .0.display())]
    Lost(PathBuf),
}

/// The supervisor that holds a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Seconds since 1970 when it started.
    pub since: i64,
}

/// A project's state folder, `.devenv` (or `.devenv-gke` beside another tool's), or the
/// one of a run below it: a system of its own beside the project's, gone when it ends.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    base: PathBuf,
    run: Option<String>,
    path: PathBuf,
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

impl StateDir {
    /// The state folder of the project in `root`; made only by [`Self::create`].
    pub fn of(root: &Path) -> Self {
        let usual = root.join(".devenv");
        let foreign = root.join("devenv.nix").exists()
            || (usual.exists() && !usual.join(MARKER).exists() && !is_empty(&usual));
        let path = if foreign {
            root.join(".devenv-gke")
        } else {
            usual
        };
        Self {
            root: root.to_owned(),
            base: path.clone(),
            run: None,
            path,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The project's own, whose builds and virtual environments all runs share.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The run that it is of; `None`: it is the project's own.
    pub fn run_id(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// What the supervisor in the background says.
    pub fn log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// Makes it: private, ignored by git from within, and the project's owner's, also
    /// when root makes it.
    pub fn create(&self) -> Result<(), StateError> {
        let mut dir = fs::DirBuilder::new();
        dir.recursive(true).mode(0o700);
        for folder in [self.path.clone(), self.path.join("run")] {
            dir.create(&folder).map_err(io_error("make", &folder))?;
        }
        for (name, text) in [(MARKER, "made by devenv\n"), (".gitignore", "*\n")] {
            let file = self.path.join(name);
            if !file.exists() {
                fs::write(&file, text).map_err(io_error("write", &file))?;
            }
        }
        self.hand_over()
    }

    /// Gives what root made in it to the owner of the project's folder.
    fn hand_over(&self) -> Result<(), StateError> {
        address::owner_of(&self.root)
            .and_then(|owner| owner::hand_over(&self.base, owner))
            .map_err(io_error("give to the project's owner", &self.base))
    }

    /// Takes the project for this process, until the lock is dropped or the process
    /// ends in any way: the kernel holds it.
    pub fn lock(&self) -> Result<ProjectLock, StateError> {
        self.create()?;
        let path = self.path.join("supervisor.lock");
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                return Err(StateError::Running(read_holder(&mut file)));
            }
            Err(e) => return Err(io_error("lock", &path)(e.into())),
        }
        let me = Holder {
            pid: std::process::id(),
            since: jiff::Timestamp::now().as_second(),
        };
        let text = serde_json::to_string(&me).unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(io_error("write", &path))?;
        // What the last supervisor said of itself is no longer true. The log is this
        // one's from now on; another `up`, which only finds the lock taken, leaves it.
        if let Ok(log) = fs::OpenOptions::new().write(true).open(self.log()) {
            log.set_len(0).map_err(io_error("empty", &self.log()))?;
        }
        remove(&self.path.join("endpoints.json"))?;
        self.clear_run()?;
        Ok(ProjectLock {
            file,
            path,
            state: self.clone(),
            since: me.since,
        })
    }

    /// Who runs the project now, if anybody.
    pub fn holder(&self) -> Option<Holder> {
        let mut file = fs::File::open(self.path.join("supervisor.lock")).ok()?;
        // Asked without taking it, so that a look never keeps an `up` out.
        let mut lock = whole_file();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
        (i32::from(lock.l_type) != nix::libc::F_UNLCK).then(|| read_holder(&mut file))
    }

    /// Publishes where the system is; its existence means «ready».
    pub fn publish(&self, endpoints: &Endpoints) -> Result<(), StateError> {
        let path = self.path.join("endpoints.json");
        let part = self.path.join("endpoints.json.part");
        let text = serde_json::to_string_pretty(endpoints).unwrap_or_default();
        fs::write(&part, text).map_err(io_error("write", &part))?;
        // Before it is ready, so that a SIGKILL afterwards leaves the owner in charge.
        self.hand_over()?;
        fs::rename(&part, &path).map_err(io_error("write", &path))
    }

    /// Where the running system is; `None` before it is ready.
    pub fn endpoints(&self) -> Option<Endpoints> {
        serde_json::from_slice(&fs::read(self.path.join("endpoints.json")).ok()?).ok()
    }

    /// Forgets what only a running supervisor may claim.
    pub fn withdraw(&self) -> Result<(), StateError> {
        remove(&self.path.join("endpoints.json"))?;
        remove(&self.path.join("kubeconfig"))
    }

    /// Empties what only a running system needs: logs of pods, mount points, the
    /// statements that make the database's accounts.
    pub fn clear_run(&self) -> Result<(), StateError> {
        let run = self.path.join("run");
        if run.exists() {
            fs::remove_dir_all(&run).map_err(io_error("remove", &run))?;
        }
        match fs::create_dir(&run) {
            // The whole folder is gone: there is nothing to clear.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error("make", &run)),
        }
    }

    /// Throws everything away: `down --volumes`. Says whether there was anything.
    pub fn delete(&self) -> Result<bool, StateError> {
        if !self.path.join(MARKER).exists() {
            return Ok(false);
        }
        fs::remove_dir_all(&self.path).map_err(io_error("remove", &self.path))?;
        Ok(true)
    }
}

/// The project, taken. Dropping it takes back what only a running supervisor may
/// claim, and then lets the next one in.
#[derive(Debug)]
pub struct ProjectLock {
    file: fs::File,
    path: PathBuf,
    state: StateDir,
    since: i64,
}

impl ProjectLock {
    /// Seconds since 1970 when it was taken.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// Resolves when the lock's file is removed, and the state folder with it: the
    /// system has nothing to stand on any more, and `devenv down` can't find it.
    ///
    /// Where the kernel can't tell, it never does.
    pub async fn lost(&self) -> StateError {
        match self.removed().await {
            Ok(()) => StateError::Lost(self.state.path.clone()),
            Err(e) => {
                tracing::debug!(error = %e, "the state folder can't be watched");
                std::future::pending().await
            }
        }
    }

    async fn removed(&self) -> io::Result<()> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // An unlinked file that is still open only changes its count of links.
        inotify::add_watch(&inotify, &self.path, WatchFlags::ATTRIB)?;
        #[expect(
            deprecated,
            reason = "its unsafe successor is for types whose descriptor may change"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let mut buffer = [0; 512];
        while self.file.metadata()?.nlink() > 0 {
            let mut ready = inotify.readable().await?;
            // What it says does not count: the loop looks for itself.
            match rustix::io::read(inotify.get_ref(), &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl Drop for ProjectLock {
    fn drop(&mut self) {
        // Best effort: the next supervisor does the same before it begins.
        let _ = self.state.withdraw();
        let _ = self.state.clear_run();
        if self.state.path.exists() {
            let _ = self.state.hand_over();
        }
    }
}

/// The holder as it wrote itself down; pid 0 in the instant before it did.
fn read_holder(file: &mut fs::File) -> Holder {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).is_ok();
    let holder = if read {
        serde_json::from_str(&text).ok()
    } else {
        None
    };
    holder.unwrap_or(Holder { pid: 0, since: 0 })
}

/// A write lock of the open file (not of the process: a thread or a library that
/// opens the file again doesn't lose it).
fn whole_file() -> nix::libc::flock {
    nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut d| d.next().is_none())
}

fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_kernel_forgets_it() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path());
        assert_eq!(state.holder(), None);
        let lock = state.lock().unwrap();
        let me = std::process::id();
        assert_eq!(state.holder().unwrap().pid, me);
        assert!(matches!(state.lock(), Err(StateError::Running(h)) if h.pid == me));
        drop(lock);
        assert_eq!(state.holder(), None);
        state.lock().unwrap();
    }

    #[tokio::test]
    async fn a_removed_folder_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path());
        let lock = state.lock().unwrap();
        let mut lost = Box::pin(lock.lost());
        // A touch is no removal.
        fs::File::open(&lock.path).unwrap();
        fs::set_permissions(&lock.path, fs::metadata(&lock.path).unwrap().permissions()).unwrap();
        tokio::select! {
            e = &mut lost => panic!("{e}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
        fs::remove_dir_all(state.path()).unwrap();
        let e = tokio::time::timeout(std::time::Duration::from_secs(5), &mut lost).await;
        drop(lost);
        assert!(matches!(e, Ok(StateError::Lost(_))), "{e:?}");
        drop(lock);
        assert!(!state.path().exists(), "it is not made again");
    }

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".devenv")).unwrap();
        fs::write(root.path().join(".devenv/gc"), "nix").unwrap();
        let state = StateDir::of(root.path());
        assert!(state.path().ends_with(".devenv-gke"));
        state.create().unwrap();
        assert!(state.delete().unwrap());
        assert!(!state.delete().unwrap());
        assert!(root.path().join(".devenv/gc").exists());
        assert!(!state.path().exists());
    }

    #[test]
    fn ready_means_published() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::of(root.path());
        let _lock = state.lock().unwrap();
        assert_eq!(state.endpoints(), None);
        let e = Endpoints {
            kubernetes: "https://127.70.0.1:6443".into(),
            ..Endpoints::default()
        };
        state.publish(&e).unwrap();
        assert_eq!(state.endpoints(), Some(e));
        state.withdraw().unwrap();
        assert_eq!(state.endpoints(), None);
    }
}
