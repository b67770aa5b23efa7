//! What events mean.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Worker;
use crate::{
    inbox::{Kind, Touch},
    inotify::What,
    scope::{Id, Scopes},
    scratch::is_scratch,
    tree::{Folder, Hook, Key, Name, Start},
};

impl Worker {
    /// Something happened to an entry of a folder.
    pub(super) fn event(&mut self, key: Key, name: &OsStr, is_dir: bool, what: What, closes: bool) {
        let Some(folder) = self.tree.folder(key) else {
            return;
        };
        let hooks: Vec<Hook> = folder.hooks.get(name).cloned().unwrap_or_default();
        let names = folder.names.clone();
        for hook in hooks {
            self.hooked(hook, is_dir, what, closes);
        }
        for folder in names {
            self.named(&folder, name, is_dir, what, closes);
        }
    }

    /// Something happened to an entry of a folder before it was left out.
    pub(super) fn last_event(
        &self,
        scopes: &Scopes,
        folder: &Folder,
        name: &OsStr,
        is_dir: bool,
        what: What,
    ) {
        if is_dir && what != (What::Gone { moved: true }) {
            return;
        }
        let tell = |path: &Path, ids: &[Id]| {
            let kind = match what {
                What::Gone { .. } => Kind::Gone,
                What::Came { new: true } => Kind::Born,
                _ => Kind::Changed,
            };
            let touch = look(path, kind, Writing::No);
            self.shared.inbox.touch(path, &scopes.owners(ids), touch);
        };
        for hook in folder.hooks.get(name).into_iter().flatten() {
            match hook {
                Hook::Top(path) => tell(path, &scopes.at(path)),
                Hook::Rules(path, ids) | Hook::Link(path, ids) => tell(path, ids),
                Hook::Way => {}
            }
        }
        for folder in folder.names.iter().filter(|_| !is_scratch(name)) {
            let path = folder.path.join(name);
            let ids = scopes.counting(&folder.scopes, &path, is_dir, &folder.rules);
            tell(&path, &ids);
        }
    }

    /// Something happened to an entry of a folder that is read.
    fn named(&mut self, folder: &Name, name: &OsStr, is_dir: bool, what: What, closes: bool) {
        let path = folder.path.join(name);
        let appears = matches!(what, What::Came { .. } | What::Gone { .. });
        if (name == ".gitignore" && what != What::Writing) || (name == ".git" && appears) {
            self.stale |= self.scopes.any_follows_git(&folder.scopes);
        }
        if appears {
            self.tree.forget(&path);
        }
        let ids = self
            .scopes
            .counting(&folder.scopes, &path, is_dir, &folder.rules);
        if ids.is_empty() {
            return;
        }
        let scratch = is_scratch(name);
        if let What::Came { new } = what
            && (is_dir || (!scratch && path.is_symlink()))
        {
            let start = Start {
                path: path.as_path().into(),
                scopes: ids.clone(),
                above: folder.rules.clone(),
                linked: folder.linked || !is_dir,
            };
            self.enter(start, new, closes);
        }
        // A folder that moves takes with it what is in it, and nothing else tells.
        let moved = is_dir && what == (What::Gone { moved: true });
        if moved || (!is_dir && !scratch) {
            self.changed(&path, &ids, what, closes);
        }
    }

    /// Something happened to a name that matters beside what its folder is.
    fn hooked(&mut self, hook: Hook, is_dir: bool, what: What, closes: bool) {
        let appears = matches!(what, What::Came { .. } | What::Gone { .. });
        match hook {
            Hook::Way => self.stale |= appears,
            Hook::Rules(path, ids) => {
                self.stale |= what != What::Writing;
                self.changed(&path, &ids, what, closes);
            }
            Hook::Link(path, ids) => self.changed(&path, &ids, what, closes),
            Hook::Top(top) => {
                if appears {
                    self.tree.forget(&top);
                }
                if let What::Came { new } = what {
                    let start = self.tree.start(&self.scopes, &top);
                    self.enter(start, new, closes);
                }
                // By what it was, not by what is there by now.
                if !is_dir || what == (What::Gone { moved: true }) {
                    self.changed(&top, &self.scopes.at(&top), what, closes);
                }
            }
        }
    }

    /// Watches what has appeared, and tells of the files in it.
    fn enter(&mut self, start: Start, new: bool, closes: bool) {
        let kind = if new { Kind::Born } else { Kind::Changed };
        // In a new folder a file may have been made before there was a watch, and be
        // written to after.
        let writing = if new && closes {
            Writing::IfEmpty
        } else {
            Writing::No
        };
        let (shared, scopes) = (&self.shared, &self.scopes);
        let mut seen = |path: PathBuf, ids: &Arc<[Id]>| {
            if !path.file_name().is_some_and(is_scratch) {
                let touch = look(&path, kind, writing);
                shared.inbox.touch(&path, &scopes.owners(ids), touch);
            }
        };
        self.tree.walk(scopes, vec![start], &mut seen);
    }

    /// `closes`: who writes to the file is heard of when he closes it.
    fn changed(&self, path: &Path, ids: &[Id], what: What, closes: bool) {
        match what {
            What::Came { new: true } if closes => {
                self.touch(path, ids, Kind::Born, Writing::IfEmpty);
            }
            What::Came { new: true } => self.touch(path, ids, Kind::Born, Writing::No),
            What::Came { new: false } => self.touch(path, ids, Kind::Changed, Writing::No),
            What::Gone { .. } => self.touch(path, ids, Kind::Gone, Writing::No),
            What::Changed => self.touch(path, ids, Kind::Changed, Writing::No),
            What::Writing if self.shared.inbox.is_writing(path) => {}
            What::Writing => self.touch(path, ids, Kind::Changed, Writing::Yes),
        }
    }

    fn touch(&self, path: &Path, ids: &[Id], kind: Kind, writing: Writing) {
        let owners = self.scopes.owners(ids);
        self.shared
            .inbox
            .touch(path, &owners, look(path, kind, writing));
    }
}

/// Whether the file will be closed by one who writes to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Writing {
    Yes,
    No,
    /// It was just created; one who writes begins with nothing.
    IfEmpty,
}

/// Adds what the filesystem says about a file that has changed.
pub(super) fn look(path: &Path, kind: Kind, writing: Writing) -> Touch {
    let stat = match kind {
        Kind::Gone => None,
        _ => fs::metadata(path)
            .or_else(|_| fs::symlink_metadata(path))
            .ok(),
    };
    let empty = || stat.as_ref().is_some_and(|s| s.is_file() && s.len() == 0);
    Touch {
        kind,
        writing: match writing {
            Writing::Yes => true,
            Writing::No => false,
            Writing::IfEmpty => empty(),
        },
        at: stat.as_ref().and_then(changed_at),
    }
}

/// When it became what it is: ctime, because a file that is moved into place or made
/// executable keeps its mtime.
fn changed_at(stat: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(stat.ctime().try_into().ok()?);
    let nanos = Duration::from_nanos(stat.ctime_nsec().try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + nanos)
}
