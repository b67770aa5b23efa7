//! A container's root: a private tmpfs in which the host's directories appear
//! read-only, with /etc as an overlay, private /tmp, /run and /dev, the pod's
//! /proc, and what the specification puts on top.
//!
//! Host paths are opened as detached mounts before anything is covered; then
//! the new root is entered, and everything after that uses plain paths in it.
//! The old root hangs at [`OLD_ROOT`] until the end.

mod binds;
mod overlay;
mod place;

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::pivot_root,
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    error::{Cause, Context, Failure},
    memory,
    readonly::{make_read_only, remount_read_only},
    spec::{Bind, ContainerSpec},
    wire::Site,
};
use binds::{Cover, Source};
use overlay::Layer;

const NONE: Option<&str> = None;
/// Where the old root hangs while the new one is furnished.
const OLD_ROOT: &str = "/.host";
/// Folder of the run directory that the scratch tmpfs covers.
pub(crate) const MOUNT_POINT: &str = "root";
/// Host directories that a container gets its own of.
const PRIVATE: [&str; 6] = ["proc", "dev", "etc", "tmp", "run", "lost+found"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What there is to know of a new root.
pub(crate) struct Entered {
    /// The roots of the file systems in memory that the container writes to.
    pub memory: Vec<OwnedFd>,
    /// What the container has to do without.
    pub warnings: Vec<String>,
}

/// Makes the container's root and moves this process into it.
pub(crate) fn enter(
    site: &Site,
    spec: &ContainerSpec,
    user: (u32, u32),
) -> Result<Entered, Failure> {
    unshare(CloneFlags::CLONE_NEWNS).step("make the container's mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .step("keep the container's mounts apart")?;
    let mut root = Root::new(site, user, &spec.hidden)?;
    let sources = spec
        .binds
        .iter()
        .map(Source::open)
        .collect::<Result<Vec<_>, _>>()?;
    let host = host_directories()?;
    root.mount_tmpfs()?;
    root.add_host(host)?;
    root.add_private_directories()?;
    root.pivot()?;
    root.hide_in("/".as_ref(), "/".as_ref())
        .step("hide a directory from a container")?;
    let begin = on_the_host(&spec.cwd, &spec.binds, &sources);
    for (bind, source) in spec.binds.iter().zip(&sources) {
        root.add_bind(bind, source, &begin)?;
    }
    for file in &spec.files {
        root.add_file(file)
            .map_err(|failure| failure.about_file(file))?;
    }
    root.seal_covers()?;
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).step("let go of the host's root")?;
    fs::remove_dir(OLD_ROOT).step("let go of the host's root")?;
    Ok(Entered {
        memory: root.memory,
        warnings: root.warnings,
    })
}

/// The host's path for a path of the container.
fn on_the_host(path: &Path, binds: &[Bind], sources: &[Source]) -> PathBuf {
    let mut shown = binds.iter().zip(sources).rev();
    shown
        .find_map(|(bind, source)| Some(source.path.join(path.strip_prefix(&bind.target).ok()?)))
        .unwrap_or_else(|| path.to_owned())
}

/// A copy of the mounts at and below `path`, attached nowhere yet.
fn detached(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags)?)
}

fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, target, flags)?)
}

/// An entry of the host's `/` that containers see.
enum HostEntry {
    Directory(String, OwnedFd),
    /// With its target, such as `bin` → `usr/bin`.
    Link(String, PathBuf),
}

fn host_directories() -> Result<Vec<HostEntry>, Failure> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/").step("read the host's root")? {
        let entry = entry.step("read the host's root")?;
        // A name that is not UTF-8 is no directory a program relies on.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if PRIVATE.contains(&name.as_str()) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().step("read the host's root")?;
        if kind.is_symlink() {
            let target = fs::read_link(&path).step("read a link in the host's root")?;
            entries.push(HostEntry::Link(name, target));
        } else if kind.is_dir() {
            let mount = detached(&path)
                .cause(|| Cause::Step(format!("show {} in a container", path.display())))?;
            entries.push(HostEntry::Directory(name, mount));
        }
    }
    Ok(entries)
}

struct Root {
    /// Mount point of the scratch tmpfs, in terms of the old root.
    scratch: PathBuf,
    /// Where the new root is at the moment: `scratch/root`, then `/`.
    root: PathBuf,
    privileged: bool,
    user: (u32, u32),
    /// Device numbers of the writable file systems that were made here, where
    /// mount points and files may be made without touching the host.
    own: HashSet<u64>,
    /// [`ContainerSpec::hidden`], as far as there is such a directory, without links.
    hidden: Vec<PathBuf>,
    covers: Vec<Cover>,
    layers: Vec<Layer>,
    warnings: Vec<String>,
    /// [`Entered::memory`].
    memory: Vec<OwnedFd>,
    /// Numbers overlays and files in scratch.
    next: u32,
}

impl Root {
    fn new(site: &Site, user: (u32, u32), hidden: &[PathBuf]) -> Result<Root, Failure> {
        let scratch = site.run_dir.join(MOUNT_POINT);
        let root = scratch.join("root");
        let mut present = Vec::new();
        for path in hidden {
            match fs::canonicalize(path) {
                Ok(path) => present.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).step("find a directory that is to be hidden"),
            }
        }
        Ok(Root {
            scratch,
            root,
            privileged: site.privileged,
            user,
            own: HashSet::new(),
            hidden: present,
            covers: Vec::new(),
            layers: Vec::new(),
            warnings: Vec::new(),
            memory: Vec::new(),
            next: 0,
        })
    }

    fn mount_tmpfs(&mut self) -> Result<(), Failure> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for path in [self.scratch.clone(), self.root.clone()] {
            make_dir(&path, 0o755).step("make a mount point for the container's root")?;
            mount(
                Some("pod"),
                path.as_path(),
                Some("tmpfs"),
                flags,
                Some("mode=0755"),
            )
            .step("mount the container's root")?;
            self.keep(&path).step("hold the container's root")?;
        }
        self.remember(&self.root.clone())
    }

    /// Holds a file system in memory that the container writes to.
    fn keep(&mut self, path: &Path) -> io::Result<()> {
        self.memory.push(memory::open(path)?);
        Ok(())
    }

    /// Notes that the file system at `path` is ours to write to.
    fn remember(&mut self, path: &Path) -> Result<(), Failure> {
        let device = fs::metadata(path)
            .step("look at a mount of the container")?
            .dev();
        self.own.insert(device);
        Ok(())
    }

    fn add_host(&mut self, entries: Vec<HostEntry>) -> Result<(), Failure> {
        let mut targets = Vec::new();
        for entry in entries {
            match entry {
                HostEntry::Link(name, target) => symlink(target, self.root.join(name))
                    .step("make a link in the container's root")?,
                HostEntry::Directory(name, mount) => {
                    let target = self.root.join(&name);
                    let cause = || Cause::Step(format!("show /{name} in a container"));
                    make_dir(&target, 0o755).cause(cause)?;
                    attach(&mount, &target).cause(cause)?;
                    targets.push(target);
                }
            }
        }
        // Before anything of ours is mounted below them.
        make_read_only(&targets).step("make the host read-only in a container")
    }

    fn add_private_directories(&mut self) -> Result<(), Failure> {
        let data = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let inert = data | MsFlags::MS_NOEXEC;
        self.add_mount("tmp", "tmpfs", data, Some("mode=1777"))?;
        self.add_mount("run", "tmpfs", data, Some("mode=0755"))?;
        for name in ["tmp", "run"] {
            let path = self.root.join(name);
            self.keep(&path)
                .cause(|| Cause::Step(format!("hold the container's /{name}")))?;
        }
        // Programs of any user keep their sockets and locks there.
        for (path, mode) in [("run/lock", 0o1777), ("run/user", 0o755)] {
            make_dir(&self.root.join(path), mode).step("furnish the container's /run")?;
        }
        let (uid, gid) = self.user;
        self.give(&self.root.join("run")).cause(|| {
            Cause::Step(format!(
                "give the container's /run to user {uid} and group {gid}"
            ))
        })?;
        make_dir(&self.root.join("etc"), 0o755).step("make the container's /etc")?;
        self.overlay(Path::new("/etc"), &self.root.join("etc"))
            .step("mount an overlay as the container's /etc")?;
        self.add_mount("proc", "proc", inert, None)?;
        if self.privileged {
            self.protect_proc()?;
        }
        self.add_devices().step("make the container's /dev")?;
        self.add_mount("dev/shm", "tmpfs", inert, Some("mode=1777"))?;
        let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        self.add_mount(
            "dev/pts",
            "devpts",
            terminals,
            Some("newinstance,ptmxmode=0666,mode=0620"),
        )
    }

    fn add_mount(
        &mut self,
        name: &str,
        kind: &str,
        flags: MsFlags,
        options: Option<&str>,
    ) -> Result<(), Failure> {
        let target = self.root.join(name);
        let cause = || Cause::Step(format!("mount the container's /{name}"));
        make_dir(&target, 0o755).cause(cause)?;
        mount(Some(kind), &target, Some(kind), flags, options).cause(cause)?;
        if kind == "tmpfs" {
            self.remember(&target)
        } else {
            Ok(())
        }
    }

    /// As the machine's root a container could change kernel settings here,
    /// core_pattern among them. In a user namespace the kernel refuses by itself.
    fn protect_proc(&self) -> Result<(), Failure> {
        for name in ["sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"] {
            let path = self.root.join("proc").join(name);
            if path.exists() {
                mount(Some(&path), &path, NONE, MsFlags::MS_BIND, NONE)
                    .and_then(|()| {
                        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                        remount_read_only(&path, flags)
                    })
                    .cause(|| Cause::Step(format!("protect /proc/{name} in a container")))?;
            }
        }
        Ok(())
    }

    fn add_devices(&mut self) -> io::Result<()> {
        let dev = self.root.join("dev");
        make_dir(&dev, 0o755)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("dev"), &dev, Some("tmpfs"), flags, Some("mode=0755"))?;
        self.own.insert(fs::metadata(&dev)?.dev());
        for name in DEVICES {
            let target = dev.join(name);
            fs::write(&target, "")?;
            let source = Path::new("/dev").join(name);
            mount(Some(&source), &target, NONE, MsFlags::MS_BIND, NONE)?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            symlink(target, dev.join(name))?;
        }
        Ok(())
    }

    fn pivot(&mut self) -> Result<(), Failure> {
        let step = "enter the container's root";
        std::env::set_current_dir(&self.root).step(step)?;
        make_dir(&self.root.join(&OLD_ROOT[1..]), 0o700).step(step)?;
        pivot_root(".", &OLD_ROOT[1..]).step(step)?;
        std::env::set_current_dir("/").step(step)?;
        self.scratch = under_old_root(&self.scratch);
        self.root = PathBuf::from("/");
        Ok(())
    }

    /// In a user namespace everything belongs to the one user there is.
    fn give(&self, path: &Path) -> io::Result<()> {
        if self.privileged {
            chown(path, Some(self.user.0), Some(self.user.1))
        } else {
            Ok(())
        }
    }

    fn is_own(&self, path: &Path) -> io::Result<bool> {
        Ok(self.own.contains(&fs::symlink_metadata(path)?.dev()))
    }

    /// A path in scratch that nothing else uses.
    fn in_scratch(&mut self, stem: &str) -> PathBuf {
        self.next += 1;
        self.scratch.join(format!("{stem}-{}", self.next))
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    // The umask has no say in it.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn under_old_root(path: &Path) -> PathBuf {
    Path::new(OLD_ROOT).join(path.strip_prefix("/").unwrap_or(path))
}
