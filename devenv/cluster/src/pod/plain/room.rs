//! A pod's folder: its containers' temporary files.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

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
    fn temporary_files_are_private_and_go_with_the_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let me = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let path = dir.path().join("plain/10.244.0.2");
        let room = Room::new(path.clone(), me);
        let temporary = room.temporary("c", me).expect("made");
        let mode = fs::metadata(&temporary)
            .expect("there")
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o700);
        fs::write(temporary.join("x"), "x").expect("written");
        assert!(!room.temporary("c", me).expect("made").join("x").exists());
        drop(room);
        assert!(!path.exists() && path.parent().expect("one").exists());
    }
}
