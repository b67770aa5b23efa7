//! What callers ask for and what they are told: plain data.

use std::{fmt, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A pod: its place in the network and the files that all of its containers share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodSpec {
    /// Host name inside the pod, 1 to 64 bytes.
    pub hostname: String,
    /// Address in the pod range 10.244.0.0/16. The caller keeps it unique.
    pub ip: Ipv4Addr,
    /// Placed in every container before the container's own files; the usual
    /// ones are `/etc/resolv.conf` and `/etc/hosts`. `/etc/hostname` is made here.
    pub files: Vec<FileMount>,
    /// For all of its containers together.
    pub limits: Limits,
    /// Directories that its containers share in memory.
    pub tmpfs: Vec<Tmpfs>,
}

/// A host directory that a pod finds empty, with a file system in memory of its
/// own, which goes with the pod. Containers see it where a [`Bind`] shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Most bytes in it; half of the machine's memory if not given.
    pub size: Option<u64>,
}

/// A container of a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique among the running containers of the pod.
    pub name: String,
    /// Program and arguments; a program without a slash is looked up in the
    /// `PATH` of [`env`](Self::env).
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory inside the container. It must exist there.
    pub cwd: PathBuf,
    /// Host files and directories to show, in this order.
    pub binds: Vec<Bind>,
    /// Files with given contents, placed after the binds.
    pub files: Vec<FileMount>,
    /// User and group id; without it the owner of the checkout.
    pub run_as: Option<(u32, u32)>,
    /// Host directories that are empty and read-only wherever the container
    /// would see them: where the host has them, and in a bind of a directory
    /// above. A bind of one itself, or of something in it, shows that.
    pub hidden: Vec<PathBuf>,
    /// Runs in the root of this running container instead of in one of its
    /// own (an exec probe); [`binds`](Self::binds), [`files`](Self::files) and
    /// [`hidden`](Self::hidden) are that container's then. It ends with that
    /// container at the latest.
    pub within: Option<String>,
    /// For this container; what runs [`within`](Self::within) one shares its.
    pub limits: Limits,
}

/// What the kernel lets a container have, where control groups can be made
/// ([`Netd::limits_missing`](crate::Netd::limits_missing)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time at most, in thousandths of a CPU; what wants more is throttled.
    pub cpu: Option<u64>,
    /// Weight against others when the CPUs are busy, in thousandths of a CPU.
    pub cpu_request: Option<u64>,
    /// Memory at most, in bytes, with what is in memory file systems; what
    /// wants more is killed.
    pub memory: Option<u64>,
    /// Processes and threads at most; no more can be started.
    pub pids: Option<u64>,
}

/// A host file or directory shown inside a container. Which sources are
/// allowed is the caller's decision.
///
/// A mount point that is missing below a read-only directory is made in a
/// private overlay of that directory. Below a writable bind it is made in the
/// bind's source, as container runtimes do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside the container.
    pub target: PathBuf,
    /// What writes do there.
    pub access: Access,
}

/// What a container's writes to a [`Bind`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// They are refused, in the mounts below too.
    ReadOnly,
    /// They change the host's files.
    ReadWrite,
    /// They stay in the container and are lost when it ends, as in the writable
    /// layer of a container's image; the host's files never change. A single
    /// file is shown read-only.
    ///
    /// Overlays of one container whose sources lie in one another are one
    /// layer: what is written through one is seen through the other. Inside,
    /// what the host changes later is seen or not, as overlayfs has it; inotify
    /// does not tell it. A container that starts afterwards sees it.
    ///
    /// Where the kernel refuses an overlay, the directory is shown read-only
    /// and [`Container::warnings`](crate::Container::warnings) says so.
    Overlay,
}

/// A file with given contents, owned by the container's user and private to
/// the container (a ConfigMap or Secret key, `/etc/hosts`).
#[derive(Clone, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// The bytes of the file.
    pub contents: Vec<u8>,
    /// Permission bits such as `0o644`.
    pub mode: u32,
}

/// Leaves the contents out: they may be a Secret.
impl fmt::Debug for FileMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMount")
            .field("path", &self.path)
            .field("bytes", &self.contents.len())
            .field("mode", &format_args!("{:o}", self.mode))
            .finish()
    }
}

/// A program that runs with the host's files and network, such as a build, but
/// dies with the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostProcess {
    /// Program and arguments; a program without a slash is looked up in the
    /// `PATH` of [`env`](Self::env).
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// User and group id; without it the owner of the checkout.
    pub run_as: Option<(u32, u32)>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this code (0..=255).
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Something that happened in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodEvent {
    /// The main process of a container was reaped and everything else that it
    /// had left running is dead, so its ports are free.
    Exited {
        /// [`ContainerSpec::name`].
        container: String,
        /// How the main process ended.
        exit: Exit,
        /// Whether one of its processes was killed for want of memory.
        out_of_memory: bool,
    },
    /// The pod and all of its processes are dead. Nothing follows.
    PodGone,
}
