//! Control groups: the kernel's limits for the pods of a project, and what they use.
//!
//! ```text
//! <the supervisor's own group>/devenv-<project>/   made by the supervisor
//!   └─ 3-web-7d9f/                                 a pod, by cluster-net
//!      └─ main.1/                                  a container's run, by pod-init
//! ```
//!
//! Version 1 has such a tree for each controller, version 2 one for all. What
//! makes a group removes it when its processes are dead; the janitor removes
//! the project's when the cluster is. Where it could not, because it was killed
//! too, a record in the run directory leads the next start to what is left.

mod find;
mod limits;
mod usage;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub(crate) use find::make_project;

use crate::spec::Limits;

/// How long dead processes may keep their group.
const PATIENCE: Duration = Duration::from_millis(500);
/// Name of the record in the run directory.
const RECORD: &str = "cgroups";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
    /// Counts CPU time, and limits nothing. A controller of version 1 only: in
    /// version 2 every group counts.
    Accounting,
}

impl Controller {
    const ALL: [Controller; 4] = [
        Controller::Cpu,
        Controller::Memory,
        Controller::Pids,
        Controller::Accounting,
    ];
    /// Those that limits need.
    const LIMITING: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

    fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Accounting => "cpuacct",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A group's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dir {
    version: Version,
    controllers: Vec<Controller>,
    path: PathBuf,
}

/// A group in each hierarchy that has one of our controllers; in none, where
/// this machine does not allow it, and then everything here does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    dirs: Vec<Dir>,
}

impl Group {
    /// Makes a group in this one.
    pub fn make_child(&self, name: &str) -> io::Result<Group> {
        let mut child = Group::default();
        for dir in &self.dirs {
            let made = self.make_child_in(dir, name);
            match made {
                Ok(made) => child.dirs.push(made),
                Err(error) => {
                    child.remove();
                    return Err(error);
                }
            }
        }
        Ok(child)
    }

    fn make_child_in(&self, dir: &Dir, name: &str) -> io::Result<Dir> {
        if dir.version == Version::V2 {
            find::enable(&dir.path, &dir.controllers)?;
        }
        let path = dir.path.join(name);
        fs::create_dir(&path)?;
        Ok(Dir {
            path,
            ..dir.clone()
        })
    }

    /// Sets limits; what could not be set is said in sentences.
    pub fn limit(&self, limits: &Limits) -> Vec<String> {
        let mut refused = Vec::new();
        for dir in &self.dirs {
            for controller in &dir.controllers {
                for setting in limits::settings(dir.version, *controller, limits) {
                    let path = dir.path.join(setting.file);
                    if setting.optional && !path.exists() {
                        continue;
                    }
                    if let Err(error) = fs::write(&path, &setting.value) {
                        refused.push(format!(
                            "its {} limit is not enforced: cannot set {} to {} ({error})",
                            controller.name(),
                            path.display(),
                            setting.value
                        ));
                    }
                }
            }
        }
        refused
    }

    /// Moves this process into the group.
    pub fn join(&self) -> io::Result<()> {
        self.dirs
            .iter()
            .try_for_each(|dir| fs::write(dir.path.join("cgroup.procs"), "0"))
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        let memory = |dir: &&Dir| dir.controllers.contains(&Controller::Memory);
        self.dirs.iter().filter(memory).any(|dir| {
            let file = match dir.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            fs::read_to_string(dir.path.join(file)).is_ok_and(|text| limits::oom_kills(&text) > 0)
        })
    }

    /// Removes the group; true when it is gone. One that something is still dying in
    /// can't go yet.
    pub fn remove(&self) -> bool {
        // Each hierarchy is tried, also when another one's group stays.
        let left = self.dirs.iter().filter(|d| remove_tree(&d.path).is_err());
        left.count() == 0
    }

    /// Removes the group when its processes, which are dead or dying, have left
    /// it; true when it is gone.
    pub fn remove_patiently(&self) -> bool {
        let begin = Instant::now();
        self.dirs.iter().all(|dir| {
            loop {
                match remove_tree(&dir.path) {
                    Ok(()) => return true,
                    // The kernel tells nobody when a group of version 1 is empty.
                    Err(_) if begin.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(1)),
                    Err(_) => return false,
                }
            }
        })
    }

    /// The project's group that was last made with this run directory, or what
    /// is left of it.
    pub fn recorded(run_dir: &Path) -> Group {
        let text = fs::read_to_string(run_dir.join(RECORD)).unwrap_or_default();
        let mut group = limits::from_text(&text);
        group.dirs.retain(|dir| dir.path.is_dir());
        group
    }

    /// Removes the project's group and its record.
    pub fn forget(&self, run_dir: &Path) {
        if self.remove_patiently() {
            // Without a group there may be no record either.
            let _ = fs::remove_file(run_dir.join(RECORD));
        }
    }
}

/// Notes a group that is about to be made, so that a SIGKILL leaves none that
/// nobody knows.
fn record(run_dir: &Path, dir: &Dir) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(run_dir.join(RECORD))?;
    file.write_all(limits::to_line(dir).as_bytes())
}

/// Groups have files that go with them, so only directories are removed.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
