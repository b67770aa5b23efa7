//! A directory whose files change all at once, in the kubelet's own layout.
//!
//! The files lie in a folder named after the time, `..2026_01_31_08_00_00.123456789`;
//! the link `..data` leads there, and each name in the directory is a link through
//! `..data`. An update fills another folder and renames a new `..data` over the old
//! one: a reader sees the old files or the new ones, and a program that watches the
//! directory sees the rename, which is what it waits for. Source: kubelet's
//! `AtomicWriter`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::payload::{Content, Files};

/// The link to the folder whose files are shown.
pub(super) const DATA: &str = "..data";
/// Its successor, until it is renamed.
const NEXT: &str = "..data_tmp";

/// Makes `dir` show exactly these files, owned by `owner`; true when it did not before.
pub(super) fn write(dir: &Path, files: &Files, owner: Option<(u32, u32)>) -> io::Result<bool> {
    make_dir(dir)?;
    give(dir, owner)?;
    let data = dir.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(name) => Some(dir.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && holds(old, files)
    {
        return Ok(false);
    }
    let name = new_name();
    let new = dir.join(&name);
    if let Err(error) = fill(&new, files, owner) {
        // What is shown stays; the half-written folder must not.
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    let next = dir.join(NEXT);
    remove(&next)?;
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    link_names(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn new_name() -> OsString {
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
    format!("{stamp}.{}", rand::random::<u32>()).into()
}

/// Whether a folder has these files and no others.
fn holds(folder: &Path, files: &Files) -> bool {
    let same = |(path, content): (&PathBuf, &Content)| {
        let path = folder.join(path);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == content.mode)
            && fs::read(&path).is_ok_and(|bytes| bytes == content.bytes)
    };
    files.iter().all(same) && count(folder).is_ok_and(|count| count == files.len())
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

fn fill(folder: &Path, files: &Files, owner: Option<(u32, u32)>) -> io::Result<()> {
    make_dir(folder)?;
    give(folder, owner)?;
    for (path, content) in files {
        let mut parent = folder.to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            make_dir(&parent)?;
            give(&parent, owner)?;
        }
        let path = folder.join(path);
        // Never readable by others, not even before its mode is set.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&content.bytes)?;
        give(&path, owner)?;
        file.set_permissions(Permissions::from_mode(content.mode))?;
    }
    Ok(())
}

/// Links for the first part of each path; those of files that are gone go.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let names: BTreeSet<&OsStr> = files
        .keys()
        .filter_map(|path| match path.components().next()? {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    for name in &names {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let own = name.as_encoded_bytes().starts_with(b"..");
        if !own && !names.contains(name.as_os_str()) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o755).create(path) {
        // The umask has no say in it.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        other => other,
    }
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match owner {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str, u32)]) -> Files {
        all.iter()
            .map(|(path, text, mode)| {
                let bytes = text.as_bytes().to_vec();
                ((*path).into(), Content { bytes, mode: *mode })
            })
            .collect()
    }

    /// What a reader finds: names in the directory and what they hold.
    fn shown(dir: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).expect("there") {
            let name = entry.expect("readable").file_name();
            let name = name.into_string().expect("text");
            if !name.starts_with("..") {
                let text =
                    fs::read_to_string(dir.join(&name)).unwrap_or_else(|_| "a folder".into());
                found.push((name, text));
            }
        }
        found.sort();
        found
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        all.iter().map(own).collect()
    }

    #[test]
    fn the_kubelets_layout() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("v");
        let first = files(&[("a", "1", 0o644), ("deep/er/b", "2", 0o400)]);
        assert!(write(&dir, &first, None).expect("written"));
        assert_eq!(shown(&dir), pairs(&[("a", "1"), ("deep", "a folder")]));
        let link = |name: &str| fs::read_link(dir.join(name)).expect("a link");
        assert_eq!(link("a"), Path::new("..data/a"));
        let folder = link(DATA).into_os_string().into_string().expect("text");
        let digits = folder.bytes().filter(u8::is_ascii_digit).count();
        assert!(folder.starts_with("..2") && digits > 14, "{folder}");
        let mode = |path: &str| {
            let found = fs::metadata(dir.join(path)).expect("there");
            found.permissions().mode() & 0o777
        };
        assert_eq!(
            (mode("deep/er/b"), mode("deep"), mode("")),
            (0o400, 0o755, 0o755)
        );
    }

    #[test]
    fn only_what_changed_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let one = files(&[("a", "1", 0o644), ("b", "1", 0o644)]);
        assert!(write(dir, &one, None).expect("written"));
        let before = fs::read_link(dir.join(DATA)).expect("a link");
        assert!(!write(dir, &one, None).expect("nothing to do"));
        assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), before);
        for other in [
            files(&[("a", "2", 0o644), ("c", "1", 0o644)]),
            files(&[("a", "2", 0o600), ("c", "1", 0o644)]),
            files(&[("a", "2", 0o600)]),
            files(&[]),
        ] {
            assert!(write(dir, &other, None).expect("written"));
        }
        assert_eq!(shown(dir), []);
        let left = fs::read_dir(dir).expect("there").count();
        assert_eq!(left, 2, "`..data` and its folder");
    }

    /// Both files are of the same update, whenever they are read through one `..data`.
    #[test]
    fn readers_see_one_version() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().to_owned();
        let version = |n: usize| {
            let text = n.to_string();
            files(&[("a", &text, 0o644), ("b", &text, 0o644)])
        };
        write(&dir, &version(0), None).expect("written");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let folder = dir.join(fs::read_link(dir.join(DATA)).expect("always there"));
                    let read = |name: &str| fs::read_to_string(folder.join(name));
                    // A folder that is being removed shows nothing rather than a mixture.
                    if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                        assert_eq!(a, b);
                    }
                }
            });
            for n in 1..500 {
                write(&dir, &version(n), None).expect("written");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(shown(&dir), pairs(&[("a", "499"), ("b", "499")]));
    }
}
