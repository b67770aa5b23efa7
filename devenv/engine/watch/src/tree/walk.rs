//! The walk that sets the watches.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{Hook, Key, Name, Seen, Start, Tree};
use crate::{
    rules::{Rules, exclude_file},
    scope::{Id, Scopes},
};

/// A folder that is yet to be visited.
struct Ahead {
    start: Start,
    silent: bool,
}

/// For whom a folder is new.
struct New {
    /// The folder's, which may be another than it was.
    key: Key,
    ids: Arc<[Id]>,
    /// The watch has not ended and begun again: then what changed in between would not
    /// have been told.
    watched: bool,
}

/// What is yet to be visited.
#[derive(Default)]
struct Plan {
    folders: Vec<Ahead>,
    /// What may be anything: the starts, and behind them symlinks, so that a folder goes
    /// by its plain name where it has one.
    any: VecDeque<Start>,
}

impl Tree {
    /// Watches what there is and all that counts in it; `seen` hears of the files.
    pub(crate) fn walk(&mut self, scopes: &Scopes, starts: Vec<Start>, seen: Seen<'_>) {
        let mut plan = Plan {
            any: starts.into(),
            ..Plan::default()
        };
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(mut ahead) = plan.folders.pop() {
                if !ahead.silent && self.mount_points.contains(&*ahead.start.path) {
                    ahead.silent = self.is_silent(&ahead.start.path);
                }
                self.visit(scopes, &ahead, &mut plan, seen);
            } else if let Some(start) = plan.any.pop_front() {
                self.hook_links(&start.path);
                match fs::metadata(&start.path) {
                    Ok(stat) if stat.is_dir() => {
                        let silent = self.is_silent(&start.path);
                        plan.folders.push(Ahead { start, silent });
                    }
                    Ok(_) => self.visit_file(&start, seen),
                    Err(e) => {
                        tracing::trace!(path = %start.path.display(), error = %e, "not there");
                    }
                }
            } else {
                return;
            }
        }
    }

    /// A file that is an input, or one that a symlink leads to.
    fn visit_file(&mut self, start: &Start, seen: Seen<'_>) {
        // What it was told of by before, and will be from now on.
        let hook = Hook::Link(start.path.clone(), start.scopes.clone());
        let key = match fs::canonicalize(&start.path) {
            Ok(real) if start.path.is_symlink() => self.hook(&real, hook, true),
            _ => start.path.parent().and_then(|folder| {
                let silent = self.is_silent(folder);
                self.place(&folder.into(), start.path.file_name(), true, silent)
            }),
        };
        let Some(key) = key else { return };
        if self.before.files.get(&start.path) != Some(&key) {
            seen(start.path.to_path_buf(), &start.scopes);
        }
        self.names.files.insert(start.path.clone(), key);
    }

    fn visit(&mut self, scopes: &Scopes, ahead: &Ahead, plan: &mut Plan, seen: Seen<'_>) {
        let path = &ahead.start.path;
        // The watch first, the listing after: what comes in between is told twice.
        let Some(key) = self.place(path, None, true, ahead.silent) else {
            return;
        };
        if let Some(old) = self.names.folders.get(path).copied()
            && old != key
        {
            self.forget(path);
        }
        let Some(New { key, ids, watched }) = self.who_is_new(key, ahead) else {
            return;
        };
        let listing = Listing::of(path);
        let mut rules = ahead.start.above.clone();
        if scopes.any_follows_git(&ids) {
            // The watch first, here as well.
            if listing.git
                && let Some(file) = exclude_file(path)
            {
                self.hook_rules(&file, &ids);
            }
            rules = Rules::of(&rules, path, listing.gitignore, listing.git);
        }
        let child = |name: &OsString, is_dir: bool| {
            let path = path.join(name);
            // git takes a symlink for a file, whatever it leads to.
            let scopes = scopes.counting(&ids, &path, is_dir, &rules);
            (!scopes.is_empty()).then(|| Start {
                path: path.into(),
                scopes,
                above: rules.clone(),
                linked: ahead.start.linked || !is_dir,
            })
        };
        let folders = listing.dirs.iter().filter_map(|name| child(name, true));
        plan.folders.extend(folders.map(|start| Ahead {
            start,
            silent: ahead.silent,
        }));
        let links = listing.links.iter().filter_map(|name| child(name, false));
        plan.any.extend(links);
        if !watched || self.before.folders.get(path) != Some(&key) {
            for name in &listing.files {
                let file = path.join(name);
                let ids = scopes.counting(&ids, &file, false, &rules);
                if !ids.is_empty() {
                    seen(file, &ids);
                }
            }
        }
        self.names.folders.insert(path.clone(), key);
        let folder = self.folders.entry(key).or_default();
        folder.names.push(Name {
            path: path.clone(),
            scopes: ids,
            rules,
            linked: ahead.start.linked,
        });
    }

    /// Those for whom a folder counts and who don't reach it by another name already.
    /// `None`: there are none.
    fn who_is_new(&mut self, mut key: Key, ahead: &Ahead) -> Option<New> {
        let (path, ids) = (&ahead.start.path, &ahead.start.scopes);
        let names = self.folders.get(&key).into_iter().flat_map(|f| &f.names);
        let left: Vec<Arc<Path>> = names
            // The plain name is better. And where folders are polled, the new name of one
            // that was moved may be found before the old one is missed.
            .filter(|name| (name.linked && !ahead.start.linked) || !same(&name.path, path))
            .map(|name| name.path.clone())
            .collect();
        for name in &left {
            self.forget(name);
        }
        if !left.is_empty() {
            // The watch has ended with the last name.
            key = self.place(path, None, true, ahead.silent)?;
        }
        let names = self.folders.get(&key).map(|f| f.names.as_slice());
        let reached = |id: &Id| names.is_some_and(|n| n.iter().any(|n| n.scopes.contains(id)));
        let new: Arc<[Id]> = if names.is_none_or(<[Name]>::is_empty) {
            ids.clone()
        } else {
            ids.iter().copied().filter(|id| !reached(id)).collect()
        };
        if new.len() < ids.len()
            && let Some(folder) = self.folders.get_mut(&key)
        {
            folder.spare_names |= folder.names.iter().any(|name| name.path != *path);
        }
        (!new.is_empty()).then_some(New {
            key,
            ids: new,
            watched: left.is_empty(),
        })
    }
}

/// Whether both names lead to the same folder.
fn same(a: &Path, b: &Path) -> bool {
    let node = |path: &Path| fs::metadata(path).map(|s| (s.dev(), s.ino())).ok();
    a == b || node(a) == node(b)
}

/// What a folder holds.
#[derive(Default)]
struct Listing {
    dirs: Vec<OsString>,
    links: Vec<OsString>,
    files: Vec<OsString>,
    gitignore: bool,
    git: bool,
}

impl Listing {
    /// What can be read of it: a folder may vanish or be closed to us at any time.
    fn of(path: &Path) -> Self {
        let mut listing = Self::default();
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) => {
                tracing::debug!(folder = %path.display(), error = %e, "can't list it");
                return listing;
            }
        };
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name();
            listing.gitignore |= name == ".gitignore";
            listing.git |= name == ".git";
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => listing.dirs.push(name),
                Ok(kind) if kind.is_symlink() => listing.links.push(name),
                _ => listing.files.push(name),
            }
        }
        listing
    }
}
