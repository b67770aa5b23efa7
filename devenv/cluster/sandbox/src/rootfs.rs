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
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Makes the container's root and moves this process into it.
pub(crate) fn enter(site: &Site, spec: &ContainerSpec, user: (u32, u32)) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS).step("make the container's mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .step("keep the container's mounts apart")?;
    let mut root = Root::new(site, user)?;
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
    for (bind, source) in spec.binds.iter().zip(sources) {
        root.add_bind(bind, source)?;
    }
    for file in &spec.files {
        root.add_file(file)
            .map_err(|failure| failure.about_file(file))?;
    }
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
    mount: OwnedFd,
    is_dir: bool,
}

impl Source {
    fn open(bind: &Bind) -> Result<Source, Failure> {
        let path = &bind.source;
        fs::metadata(path)
            .and_then(|metadata| {
                Ok(Source {
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
    /// Numbers overlays and files in scratch.
    next: u32,
}

impl Root {
    fn new(site: &Site, user: (u32, u32)) -> Result<Root, Failure> {
        let scratch = site.run_dir.join(MOUNT_POINT);
        let root = scratch.join("root");
        Ok(Root {
            scratch,
            root,
            privileged: site.privileged,
            user,
            own: HashSet::new(),
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
        for entry in entries {
            match entry {
                HostEntry::Link(name, target) => symlink(target, self.root.join(name))
                    .step("make a link in the container's root")?,
                HostEntry::Directory(name, mount) => {
                    let target = self.root.join(&name);
                    let cause = || Cause::Step(format!("show /{name} in a container"));
                    make_dir(&target, 0o755).cause(cause)?;
                    attach(&mount, &target).cause(cause)?;
                    // Before anything of ours is mounted in there.
                    make_read_only(&target).cause(cause)?;
                }
            }
        }
        Ok(())
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
        self.mount_point(&bind.target, kind)
            .and_then(|target| {
                attach(&source.mount, &target)?;
                if bind.read_only {
                    make_read_only(&target)
                } else {
                    Ok(())
                }
            })
            .step("bind")
            .map_err(|failure| failure.about_bind(bind))
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
        Ok(())
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

/// Makes the mounts at and below `top` read-only, one by one, each with the
/// restrictions it has: in a user namespace the kernel refuses to loosen them.
fn make_read_only(top: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    for (path, flags) in mounts_below(&table, top) {
        match remount_read_only(&path, flags) {
            // Hidden under another mount, so no one can reach it.
            Err(nix::Error::ENOENT | nix::Error::EINVAL | nix::Error::ENOTDIR) if path != top => {}
            other => other?,
        }
    }
    Ok(())
}

fn remount_read_only(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, path, NONE, flags, NONE)
}

/// Mount points at and below `top` with their per-mount flags, from the text
/// of a mountinfo file. Of mounts at one place the last one counts: it covers
/// the others.
fn mounts_below(table: &str, top: &Path) -> Vec<(PathBuf, MsFlags)> {
    let mut found: Vec<(PathBuf, MsFlags)> = Vec::new();
    for line in table.lines() {
        // id parent major:minor root mountpoint options …
        let mut fields = line.split(' ').skip(4);
        let (Some(path), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        let path = unescape(path);
        if path.starts_with(top) {
            found.retain(|(other, _)| *other != path);
            found.push((path, mount_flags(options)));
        }
    }
    found
}

fn mount_flags(options: &str) -> MsFlags {
    options.split(',').fold(MsFlags::empty(), |flags, option| {
        flags
            | match option {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            }
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:20 / /r/usr rw,nosuid,nodev,relatime - tmpfs t rw
31 30 0:21 / /r/usr/a\\040b\\134c ro,noexec,noatime - tmpfs t rw
32 30 0:22 / /r/usr/x rw - tmpfs t rw
33 32 0:23 / /r/usr/x rw,nodev - tmpfs t rw
34 21 0:24 / /r/usr2 rw - tmpfs t rw
";

    #[test]
    fn mounts_are_found_with_their_flags_and_only_the_covering_one() {
        let found = mounts_below(TABLE, Path::new("/r/usr"));
        let expected = [
            (
                "/r/usr",
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME,
            ),
            (
                "/r/usr/a b\\c",
                MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME,
            ),
            ("/r/usr/x", MsFlags::MS_NODEV),
        ];
        let expected: Vec<_> = expected
            .map(|(path, flags)| (PathBuf::from(path), flags))
            .to_vec();
        assert_eq!(found, expected);
    }

    #[rstest::rstest]
    #[case::plain("/a/b", "/a/b")]
    #[case::space("/a\\040b", "/a b")]
    #[case::lone_backslash("/a\\", "/a\\")]
    #[case::not_octal("/a\\09z", "/a\\09z")]
    fn fields_are_unescaped(#[case] field: &str, #[case] path: &str) {
        assert_eq!(unescape(field), PathBuf::from(path));
    }
}
