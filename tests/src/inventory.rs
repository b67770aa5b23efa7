//! What a machine has, before and after: the one check that nothing is left.
//!
//! An [`Inventory`] is taken before devenv runs, and [`Inventory::nothing_left`]
//! compares until nothing is more than it was. Other programs run on the same
//! machine, so a [`Scope`] says what is devenv's:
//! - a process that names the project in its working directory, root, command,
//!   environment or program, that runs the devenv binary, or whose ancestor does;
//! - everything that [`Scope::learn`] saw under a living supervisor: those
//!   processes by id and start time, their namespaces, cgroups and sockets. What
//!   hides its origin (a daemon that left its folder, cleared its environment and
//!   its parent) is found by this;
//! - network links, mounts, routes and packet filter rules of the host: every new
//!   one, because devenv makes none there.

mod kernel;
mod leftovers;
mod processes;

pub use leftovers::Left;
pub use processes::{Process, find_processes, processes_of};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The kinds of things that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A living process; a zombie is nobody's leftover.
    Process,
    /// A network, mount, PID, IPC, UTS, user or cgroup namespace that somebody holds.
    Namespace,
    /// A listening TCP socket, a bound UDP one, or a named Unix one.
    Socket,
    /// A network link of the host.
    Link,
    /// A mount in the host's mount namespace.
    Mount,
    /// A cgroup's directory.
    Cgroup,
    /// A packet filter rule or a route of the host.
    Rule,
    /// A System V shared memory segment, semaphore set or message queue.
    Ipc,
    /// A file in the project's `.devenv/run`.
    RunFile,
    /// A file in a folder for temporary things that names devenv.
    TemporaryFile,
}

/// What counts as devenv's.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(crate) project: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) sockets: BTreeSet<SocketAddr>,
    pub(crate) processes: BTreeSet<(u32, u64)>,
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) cgroups: BTreeSet<String>,
    without: BTreeSet<Kind>,
}

impl Scope {
    /// The scope of one project and one devenv binary.
    pub fn new(project: &Path, binary: &Path) -> Self {
        // What /proc shows has no symbolic links in it.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Self {
            project: real(project),
            binary: real(binary),
            addresses: BTreeSet::new(),
            sockets: BTreeSet::new(),
            processes: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            cgroups: BTreeSet::new(),
            without: BTreeSet::new(),
        }
    }

    /// Every listener on this address is devenv's, whoever holds it.
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.insert(address);
        self
    }

    /// Leaves a kind out. After SIGKILL nobody is there to tidy `.devenv/run`.
    pub fn without(mut self, kind: Kind) -> Self {
        self.without.insert(kind);
        self
    }

    /// Learns what a living process and all below it have: call it as long as
    /// devenv runs and before it is killed.
    pub fn learn(&mut self, pid: u32) {
        let all = processes::read_all();
        let family = processes::family(&all, pid);
        let own = processes::namespaces_of("self");
        let own_cgroups = processes::cgroups_of("self");
        let sockets = kernel::sockets();
        for process in family {
            self.processes.insert((process.pid, process.start));
            let name = process.pid.to_string();
            self.namespaces
                .extend(processes::namespaces_of(&name).difference(&own).cloned());
            self.cgroups.extend(
                processes::cgroups_of(&name)
                    .difference(&own_cgroups)
                    .cloned(),
            );
            let held = processes::socket_inodes(process.pid);
            self.sockets.extend(
                sockets
                    .iter()
                    .filter(|socket| held.contains(&socket.inode))
                    .filter_map(|socket| socket.address),
            );
        }
    }
}

/// What there is, as far as it is devenv's.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Kind and identity, to what a person wants to know of it.
    items: BTreeMap<(Kind, String), String>,
}

impl Inventory {
    /// Looks around. What cannot be read (another user's process, a tool that is
    /// not installed) is not in it.
    pub fn take(scope: &Scope) -> Self {
        let mut items = BTreeMap::new();
        let mut add = |kind: Kind, identity: String, about: String| {
            if !scope.without.contains(&kind) {
                items.insert((kind, identity), about);
            }
        };
        let all = processes::read_all();
        let ours = processes::ours(&all, scope);
        let mut inodes = BTreeSet::new();
        for process in &ours {
            add(
                Kind::Process,
                format!("{}@{}", process.pid, process.start),
                process.to_string(),
            );
            inodes.extend(processes::socket_inodes(process.pid));
        }
        for (namespace, holders) in processes::namespaces(&all) {
            let held_by_ours = ours.iter().any(|process| holders.contains(&process.pid));
            if held_by_ours || scope.namespaces.contains(&namespace) {
                add(Kind::Namespace, namespace, format!("held by {holders:?}"));
            }
        }
        for socket in kernel::sockets() {
            let addressed = socket.address.is_some_and(|address| {
                scope.addresses.contains(&address.ip()) || scope.sockets.contains(&address)
            });
            let in_project = socket.name.contains(&*scope.project.to_string_lossy());
            if addressed || in_project || inodes.contains(&socket.inode) {
                add(
                    Kind::Socket,
                    format!("{} #{}", socket.name, socket.inode),
                    String::new(),
                );
            }
        }
        for link in kernel::links() {
            add(Kind::Link, link, String::new());
        }
        for mount in kernel::mounts() {
            add(Kind::Mount, mount, String::new());
        }
        for cgroup in kernel::cgroups() {
            if cgroup.contains("devenv") || scope.cgroups.contains(&cgroup) {
                add(Kind::Cgroup, cgroup, String::new());
            }
        }
        for rule in kernel::rules() {
            add(Kind::Rule, rule, String::new());
        }
        for (identity, creator) in kernel::ipc() {
            let known = scope.processes.iter().any(|(pid, _)| *pid == creator);
            if known || ours.iter().any(|process| process.pid == creator) {
                add(Kind::Ipc, identity, format!("made by process {creator}"));
            }
        }
        for file in leftovers::run_files(&scope.project.join(".devenv")) {
            add(Kind::RunFile, file, String::new());
        }
        for file in leftovers::temporary_files(&scope.project) {
            add(Kind::TemporaryFile, file, String::new());
        }
        Self { items }
    }

    /// What `self` has that was not there `before`.
    pub fn more_than(&self, before: &Self) -> Left {
        Left::new(
            self.items
                .iter()
                .filter(|(key, _)| !before.items.contains_key(*key))
                .map(|((kind, identity), about)| (*kind, identity.clone(), about.clone()))
                .collect(),
        )
    }

    /// Whether something of this kind is in it whose identity contains `text`.
    pub fn has(&self, kind: Kind, text: &str) -> bool {
        self.items.iter().any(|((k, identity), about)| {
            *k == kind && (identity.contains(text) || about.contains(text))
        })
    }

    /// Looks again and again until nothing is more than in `self`, and answers
    /// after how long that was.
    ///
    /// # Errors
    /// What is still left when the time is over.
    pub async fn nothing_left(&self, scope: &Scope, limit: Duration) -> Result<Duration, Left> {
        let start = Instant::now();
        loop {
            let left = Self::take(scope).more_than(self);
            if left.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() >= limit {
                return Err(left);
            }
            // Nothing announces the end of all these things together.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
