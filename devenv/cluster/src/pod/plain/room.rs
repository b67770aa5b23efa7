//! A pod's folder: the files of its mounts, and its temporary files.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use crate::pod::volumes::File;

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    owner: (u32, u32),
}

impl Room {
    /// A folder that is made when something is put there. What an earlier run left in it goes.
    pub(super) fn new(dir: PathBuf, owner: (u32, u32)) -> Room {
        let room = Room { dir, owner };
        room.clear();
        room
    }

    /// Makes a container's files anew, for `user`, and returns where its `/` is.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn put(
        &self,
        container: &str,
        files: &[File],
        user: (u32, u32),
    ) -> io::Result<PathBuf> {
        let root = self.files(container);
        remove(&root)?;
        self.make_dir(&root, user)?;
        for file in files {
            let path = below(&root, &file.path);
            if let Some(parent) = path.parent() {
                self.make_dir(parent, user)?;
            }
            let mut made = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            made.write_all(&file.contents)?;
            made.set_permissions(fs::Permissions::from_mode(file.mode))?;
            give(&path, user)?;
        }
        Ok(root)
    }

    /// Where the `/` of a container's files is.
    pub(super) fn files(&self, container: &str) -> PathBuf {
        self.dir.join(container).join("files")
    }

    /// An empty folder for a container's temporary files.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn temporary(&self, container: &str, user: (u32, u32)) -> io::Result<PathBuf> {
        let dir = self.dir.join(container).join("tmp");
        remove(&dir)?;
        self.make_dir(&dir, user)?;
        Ok(dir)
    }

    /// Makes the folders that are missing; those below the pod's own belong to `user`.
    fn make_dir(&self, dir: &Path, user: (u32, u32)) -> io::Result<()> {
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.exists()).collect();
        while let Some(dir) = missing.pop() {
            fs::DirBuilder::new().mode(0o700).create(dir)?;
            let is_shared = self.dir.starts_with(dir);
            give(dir, if is_shared { self.owner } else { user })?;
            if is_shared && user != self.owner {
                // Another user passes through, and cannot list.
                fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
            }
        }
        Ok(())
    }

    /// Removes it.
    pub(super) fn clear(&self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), error = &error as &dyn std::error::Error, "a pod's folder could not be removed");
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A path of the container as one below `root`.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    let normal = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    normal.fold(root.to_owned(), |path, name| path.join(name))
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_made_anew_and_go_with_the_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let me = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let path = dir.path().join("plain/10.244.0.2");
        let room = Room::new(path.clone(), me);
        let file = |path: &str, mode| File {
            path: path.into(),
            contents: b"x".to_vec(),
            mode,
        };
        let both = [file("/etc/cm/a", 0o444), file("/etc/../../b", 0o400)];
        let root = room.put("c", &both, me).expect("made");
        let mode = |p: &Path| fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&root.join("etc/cm/a")), 0o444);
        assert_eq!(mode(&root.join("etc/b")), 0o400);
        assert_eq!(mode(&root), 0o700);
        let again = room.put("c", &both[..1], me).expect("made again");
        assert!(again == root && !root.join("etc/b").exists());
        let temporary = room.temporary("c", me).expect("made");
        fs::write(temporary.join("x"), "x").expect("written");
        assert!(!room.temporary("c", me).expect("made").join("x").exists());
        drop(room);
        assert!(!path.exists() && path.parent().expect("one").exists());
    }
}
