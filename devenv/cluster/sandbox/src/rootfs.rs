//! A container's root: a private tmpfs in which the host's directories appear
//! read-only, with /etc as an overlay, private /tmp, /run and /dev, the pod's
//! /proc, and what the specification puts on top.
//!
//! Host paths are opened as detached mounts before anything is covered; then
//! the new root is entered, and everything after that uses plain paths in it.
//! The old root hangs at [`OLD_ROOT`] until the end.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::pivot_root,
};
use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, statvfs, statx,
    },
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    error::{Cause, Context, Failure},
    readonly::{make_read_only, remount_read_only},
    spec::{Bind, ContainerSpec, FileMount},
    wire::Site,
};

const NONE: Option<&str> = None;
/// Where the old root hangs while the new one is furnished.
const OLD_ROOT: &str = "/.host";
/// Folder of the run directory that the scratch tmpfs covers.
pub(crate) const MOUNT_POINT: &str = "root";
/// Host directories that a container gets its own of.
const PRIVATE: [&str; 6] = ["proc", "dev", "etc", "tmp", "run", "lost+found"];
/// How a directory that covers a hidden one is mounted.
const COVER: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Makes the container's root and moves this process into it.
pub(crate) fn enter(site: &Site, spec: &ContainerSpec, user: (u32, u32)) -> Result<(), Failure> {
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
    root.hide_in("/".as_ref(), "/".as_ref())?;
    for (bind, source) in spec.binds.iter().zip(sources) {
        root.add_bind(bind, source)?;
    }
    for file in &spec.files {
        root.add_file(file)
            .map_err(|failure| failure.about_file(file))?;
    }
    root.seal_covers()?;
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).step("let go of the host's root")?;
    fs::remove_dir(OLD_ROOT).step("let go of the host's root")
}

impl Failure {
    /// A step on the way to a file, said in terms of the file.
    fn about_file(self, file: &FileMount) -> Failure {
        Failure {
            cause: Cause::File {
                path: file.path.clone(),
            },
            errno: self.errno,
        }
    }

    fn about_bind(self, bind: &Bind) -> Failure {
        let (from, target) = (bind.source.clone(), bind.target.clone());
        Failure {
            cause: Cause::Bind { from, target },
            errno: self.errno,
        }
    }
}

/// A host path as a detached mount.
struct Source {
    /// Without links.
    path: PathBuf,
    mount: OwnedFd,
    is_dir: bool,
}

impl Source {
    fn open(bind: &Bind) -> Result<Source, Failure> {
        let path = &bind.source;
        fs::metadata(path)
            .and_then(|metadata| {
                Ok(Source {
                    path: fs::canonicalize(path)?,
                    mount: detached(path)?,
                    is_dir: metadata.is_dir(),
                })
            })
            .step("open the source of a bind")
            .map_err(|failure| failure.about_bind(bind))
    }
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
    /// What covers them, by place and device number.
    covers: Vec<(PathBuf, u64)>,
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
            next: 0,
        })
    }

    fn mount_tmpfs(&mut self) -> Result<(), Failure> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for path in [&self.scratch, &self.root] {
            make_dir(path, 0o755).step("make a mount point for the container's root")?;
            mount(
                Some("pod"),
                path.as_path(),
                Some("tmpfs"),
                flags,
                Some("mode=0755"),
            )
            .step("mount the container's root")?;
        }
        self.remember(&self.root.clone())
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

    fn add_bind(&mut self, bind: &Bind, source: Source) -> Result<(), Failure> {
        let kind = if source.is_dir {
            Kind::Directory
        } else {
            Kind::File
        };
        let target = self
            .mount_point(&bind.target, kind)
            .and_then(|target| {
                attach(&source.mount, &target)?;
                if bind.read_only {
                    make_read_only(std::slice::from_ref(&target))?;
                }
                Ok(target)
            })
            .step("bind")
            .map_err(|failure| failure.about_bind(bind))?;
        self.hide_in(&source.path, &target)
    }

    /// Covers what is to be hidden in the host's directory `source`, which
    /// appears at `target`.
    fn hide_in(&mut self, source: &Path, target: &Path) -> Result<(), Failure> {
        let inside = self.hidden.iter().filter_map(|hidden| {
            let rest = hidden.strip_prefix(source).ok()?;
            (!rest.as_os_str().is_empty()).then(|| target.join(rest))
        });
        for place in inside.collect::<Vec<_>>() {
            // The container has its own /tmp and /run, where it is not.
            if place.is_dir() {
                self.cover(&place)
                    .step("hide a directory from a container")?;
            }
        }
        Ok(())
    }

    /// Puts an empty directory over `place`, writable until it is sealed:
    /// mount points may be needed in it.
    fn cover(&mut self, place: &Path) -> io::Result<()> {
        let (kind, mode) = (Some("tmpfs"), Some("mode=0755"));
        mount(Some("hidden"), place, kind, COVER, mode)?;
        let device = fs::metadata(place)?.dev();
        self.own.insert(device);
        self.covers.push((place.to_owned(), device));
        Ok(())
    }

    fn seal_covers(&self) -> Result<(), Failure> {
        for (place, device) in &self.covers {
            // A bind may have come over it.
            if fs::metadata(place).is_ok_and(|found| found.dev() == *device) {
                remount_read_only(place, COVER).step("seal a hidden directory")?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &FileMount) -> Result<(), Failure> {
        let step = "place a file";
        let target = self.mount_point(&file.path, Kind::File).step(step)?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        // A file of our own can be filled in place. Anything else (a mounted
        // file, a file of the host) is covered by one from scratch.
        let own = self.is_own(parent).step(step)? && !is_mount_point(&target).step(step)?;
        let place = if own {
            target.clone()
        } else {
            self.in_scratch("file")
        };
        self.write(&place, file).step(step)?;
        if !own {
            mount(Some(&place), &target, NONE, MsFlags::MS_BIND, NONE).step(step)?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, file: &FileMount) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Never readable by others, not even before its mode is set.
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        out.write_all(&file.contents)?;
        self.give(path)?;
        out.set_permissions(Permissions::from_mode(file.mode))
    }

    /// In a user namespace everything belongs to the one user there is.
    fn give(&self, path: &Path) -> io::Result<()> {
        if self.privileged {
            chown(path, Some(self.user.0), Some(self.user.1))
        } else {
            Ok(())
        }
    }

    /// The place to mount something at, made where it is missing. The answer
    /// has no symbolic links in it.
    fn mount_point(&mut self, path: &Path, kind: Kind) -> io::Result<PathBuf> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = self.directory(parent)?;
        let place = parent.join(name);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink()) {
            // /etc/resolv.conf → /run/systemd/… must not lead elsewhere. Links
            // of the host, such as /var/run, are followed.
            if self.is_own(&parent)? {
                fs::remove_file(&place)?;
            } else if let Ok(target) = fs::canonicalize(&place) {
                return kind.check(target);
            }
        }
        if fs::symlink_metadata(&place).is_ok() {
            return kind.check(place);
        }
        self.make_writable(&parent)?;
        match kind {
            Kind::Directory => make_dir(&place, 0o755)?,
            Kind::File => drop(
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&place)?,
            ),
        }
        Ok(place)
    }

    /// `mkdir --parents`, with an overlay where the deepest existing directory
    /// is read-only. (There and not higher: copying up a directory of root is
    /// not allowed to an ordinary user.) Returns the path without links.
    fn directory(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut current = PathBuf::from("/");
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::RootDir => continue,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            let next = current.join(name);
            current = match fs::canonicalize(&next) {
                Ok(found) => Kind::Directory.check(found)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_writable(&current)?;
                    make_dir(&next, 0o755)?;
                    next
                }
                Err(error) => return Err(error),
            };
        }
        Ok(current)
    }

    fn make_writable(&mut self, dir: &Path) -> io::Result<()> {
        if statvfs(dir)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            self.overlay(dir, dir)?;
        }
        Ok(())
    }

    fn is_own(&self, path: &Path) -> io::Result<bool> {
        Ok(self.own.contains(&fs::symlink_metadata(path)?.dev()))
    }

    /// Covers `target` with a private, writable copy of `lower`.
    fn overlay(&mut self, lower: &Path, target: &Path) -> io::Result<()> {
        let upper = self.in_scratch("upper");
        let work = self.in_scratch("work");
        let mode = fs::metadata(lower)?.permissions().mode() & 0o7777;
        make_dir(&upper, mode)?;
        make_dir(&work, 0o700)?;
        // By descriptor, because paths would need quoting.
        let open = |path: &Path| {
            rustix::fs::open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let (lower, upper, work) = (open(lower)?, open(&upper)?, open(&work)?);
        let options = format!(
            "lowerdir=/proc/self/fd/{},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}",
            lower.as_raw_fd(),
            upper.as_raw_fd(),
            work.as_raw_fd(),
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("overlay"),
            target,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )?;
        self.own.insert(fs::metadata(target)?.dev());
        // An overlay has its lower directory without what is mounted in it.
        let uncovered = |(place, _): &&(PathBuf, u64)| place.starts_with(target);
        let again: Vec<_> = self.covers.iter().filter(uncovered).cloned().collect();
        again.iter().try_for_each(|(place, _)| self.cover(place))
    }

    /// A path in scratch that nothing else uses.
    fn in_scratch(&mut self, stem: &str) -> PathBuf {
        self.next += 1;
        self.scratch.join(format!("{stem}-{}", self.next))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

impl Kind {
    fn check(self, path: PathBuf) -> io::Result<PathBuf> {
        match (self, fs::metadata(&path)?.is_dir()) {
            (Kind::Directory, false) => Err(io::ErrorKind::NotADirectory.into()),
            (Kind::File, true) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(path),
        }
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
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
