//! The places in a container's root where something is put: found or made, with
//! a private overlay where the directory is read-only; and the files put there.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags, statvfs, statx};

use super::{NONE, Root, make_dir};
use crate::{
    error::{Cause, Context, Failure},
    spec::FileMount,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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

impl Root {
    pub(super) fn add_file(&mut self, file: &FileMount) -> Result<(), Failure> {
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

    /// The place to mount something at, made where it is missing. The answer
    /// has no symbolic links in it.
    pub(super) fn mount_point(&mut self, path: &Path, kind: Kind) -> io::Result<PathBuf> {
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
}

impl Failure {
    /// A step on the way to a file, said in terms of the file.
    pub(super) fn about_file(self, file: &FileMount) -> Failure {
        Failure {
            cause: Cause::File {
                path: file.path.clone(),
            },
            errno: self.errno,
        }
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
