//! A state folder belongs to who owns the project, also when root runs devenv in it:
//! else that user could not run `up` there afterwards.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat},
    io::Errno,
};

/// What is in these is written by pods and installs, which run as the owner.
const THEIR_OWN: [&CStr; 2] = [c"run", c"venvs"];

/// Gives what root made in `folder` to `owner`, if this process is root. What belongs to
/// somebody else stays theirs.
///
/// The owner may change the folder meanwhile, so no symbolic link is followed, and a file
/// that has a second name somewhere else is left alone.
pub(super) fn hand_over(folder: &Path, owner: (u32, u32)) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() || owner.0 == 0 {
        return Ok(());
    }
    let owner = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let top = openat(
        CWD,
        folder,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let is_folder = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let mut folders: Vec<OwnedFd> = Vec::new();
    let take = |fd: OwnedFd, folders: &mut Vec<OwnedFd>, enter: bool| -> Result<(), Errno> {
        let stat = fstat(&fd)?;
        if stat.st_uid == 0 && (is_folder(&stat) || stat.st_nlink == 1) {
            give(fd.as_fd(), owner)?;
        }
        if is_folder(&stat) && enter {
            folders.push(fd);
        }
        Ok(())
    };
    take(top, &mut folders, true)?;
    let mut at_top = true;
    while let Some(folder) = folders.pop() {
        let listed = openat(
            &folder,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for entry in Dir::new(listed)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&folder, name, flags, Mode::empty()) {
                Ok(fd) => take(fd, &mut folders, !(at_top && THEIR_OWN.contains(&name)))?,
                // Gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        at_top = false;
    }
    Ok(())
}

fn give(fd: BorrowedFd<'_>, (uid, gid): (Uid, Gid)) -> Result<(), Errno> {
    chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    const USER: u32 = 54321;

    #[test]
    fn what_root_made_is_the_owners_and_nothing_beyond_it() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (folder, beyond) = (dir.path().join("state"), dir.path().join("beyond"));
        for made in ["data/cloudsql", "run/pod", "venvs/a"] {
            fs::create_dir_all(folder.join(made)).unwrap();
        }
        fs::write(&beyond, "root's").unwrap();
        fs::write(folder.join("store.redb"), "x").unwrap();
        fs::write(folder.join("data/cloudsql/x"), "x").unwrap();
        fs::write(folder.join("theirs"), "x").unwrap();
        std::os::unix::fs::chown(folder.join("theirs"), Some(777), Some(777)).unwrap();
        symlink(&beyond, folder.join("link")).unwrap();
        symlink(dir.path(), folder.join("folder-link")).unwrap();
        fs::hard_link(&beyond, folder.join("second-name")).unwrap();

        hand_over(&folder, (USER, USER)).unwrap();

        let uid = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for given in [
            ".",
            "data",
            "data/cloudsql/x",
            "store.redb",
            "run",
            "venvs",
            "link",
        ] {
            assert_eq!(uid(&folder.join(given)), USER, "{given}");
        }
        for kept in ["run/pod", "venvs/a", "second-name"] {
            assert_eq!(uid(&folder.join(kept)), 0, "{kept}");
        }
        assert_eq!(uid(&folder.join("theirs")), 777);
        assert_eq!((uid(&beyond), uid(dir.path())), (0, 0));
    }

    #[test]
    fn roots_own_project_stays_roots() {
        let dir = tempfile::tempdir().unwrap();
        let before = fs::metadata(dir.path()).unwrap().uid();
        hand_over(dir.path(), (0, 0)).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().uid(), before);
    }
}
