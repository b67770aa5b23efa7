//! The folders that are watched, and who reads them.
//!
//! A folder is known by what the kernel calls it, so that one which several names lead
//! to (symlinks) is watched once and told of by each of its names. An owner reaches a
//! folder by one name only, the first that was found, the plain one before one through
//! a symlink: that ends loops, and keeps the walk linear in the number of folders.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::io::Errno;

use crate::{
    filesystem,
    inotify::{Queue, Refused},
    poll::Polls,
    rules::Rules,
    scope::{Id, Scopes},
};

/// What a folder is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Its inotify watch.
    Watch(i32),
    /// Its device and inode, where it has no watch.
    Node(u64, u64),
}

/// One of the names of a folder.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) path: Arc<Path>,
    /// Who reads the folder by this name.
    pub(crate) scopes: Arc<[Id]>,
    /// What git ignores in it.
    pub(crate) rules: Arc<Rules>,
}

/// What one entry of a folder means, beside what the folder's readers make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hook {
    /// It is an input.
    Top(Arc<Path>),
    /// It leads to an input.
    Way,
    /// It says what git ignores for these.
    Rules(Arc<Path>, Arc<[Id]>),
    /// It is what the symlink `0` leads to, a file that these read.
    Link(Arc<Path>, Arc<[Id]>),
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) names: Vec<Name>,
    pub(crate) hooks: Vec<(OsString, Hook)>,
}

/// Where a walk begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) path: PathBuf,
    pub(crate) scopes: Arc<[Id]>,
    /// The rules of the folder that it is in.
    pub(crate) above: Arc<Rules>,
}

/// A folder, or symlink to anything, that a walk has yet to visit.
struct Ahead {
    path: Arc<Path>,
    scopes: Arc<[Id]>,
    above: Arc<Rules>,
    silent: bool,
}

/// Hears of a file that a walk came by, and who reads it.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(PathBuf, &Arc<[Id]>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    queue: Option<Queue>,
    polls: Arc<Polls>,
    stop: Arc<AtomicBool>,
    mount_points: HashSet<PathBuf>,
    folders: HashMap<Key, Folder>,
    /// The names of all folders that somebody reads.
    paths: BTreeMap<Arc<Path>, Key>,
    /// Files that are inputs or symlinks, with the folder of what a symlink leads to.
    files: BTreeMap<Arc<Path>, Option<Key>>,
    /// Why there is no queue.
    no_queue: Option<Errno>,
    /// The limit of watches was met.
    full: bool,
    /// Filesystems that don't tell of changes, each with one folder on it.
    silent: BTreeMap<&'static str, PathBuf>,
}

impl Tree {
    /// Watches nothing yet. Without a queue everything will be polled.
    pub(crate) fn new(
        root: PathBuf,
        queue: Result<Queue, Option<Errno>>,
        polls: Arc<Polls>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let no_queue = queue.as_ref().err().copied().flatten();
        Self {
            root,
            queue: queue.ok(),
            polls,
            stop,
            mount_points: HashSet::new(),
            folders: HashMap::new(),
            paths: BTreeMap::new(),
            files: BTreeMap::new(),
            no_queue,
            full: false,
            silent: BTreeMap::new(),
        }
    }

    pub(crate) fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    pub(crate) fn folder(&self, key: Key) -> Option<&Folder> {
        self.folders.get(&key)
    }

    /// Whether this is a folder that somebody reads, or a file that is an input.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.paths.contains_key(path) || self.files.contains_key(path)
    }

    /// Watches everything anew: what is there and what the rules say may both be
    /// otherwise than before. `seen` hears of the files in folders that weren't watched.
    /// What is watched before and after is watched all the time.
    pub(crate) fn rebuild(&mut self, scopes: &Scopes, mut seen: Option<Seen<'_>>) {
        let before = std::mem::take(&mut self.folders);
        let paths = std::mem::take(&mut self.paths);
        let files = std::mem::take(&mut self.files);
        let knew = |path: &Path| paths.contains_key(path) || files.contains_key(path);
        self.silent.clear();
        self.full = false;
        self.mount_points = filesystem::mount_points();
        self.polls.mark();
        let mut starts = Vec::new();
        for top in scopes.tops() {
            self.hook_way(&top);
            starts.push(self.start(scopes, &top));
        }
        let mut new = |path: PathBuf, ids: &Arc<[Id]>| {
            let old = knew(&path) || path.parent().is_some_and(knew);
            if let (Some(seen), false) = (seen.as_mut(), old) {
                seen(path, ids);
            }
        };
        self.walk(scopes, starts, &mut new);
        self.polls.sweep();
        if let Some(seen) = &mut seen {
            for top in scopes.tops() {
                if knew(&top) && !self.knows(&top) {
                    let ids = scopes.at(&top);
                    seen(top, &ids);
                }
            }
        }
        if let Some(queue) = &self.queue {
            for key in before.into_keys() {
                if let (Key::Watch(watch), false) = (key, self.folders.contains_key(&key)) {
                    queue.unwatch(watch);
                }
            }
        }
    }

    /// Where to begin for an input, with the rules that it inherits. Those are watched
    /// too.
    pub(crate) fn start(&mut self, scopes: &Scopes, top: &Path) -> Start {
        let ids = scopes.at(top);
        let mut above = Rules::none();
        if scopes.any_follows_git(&ids) && !top.is_file() {
            let (rules, files) = Rules::above(top, &self.root);
            above = rules;
            for file in files {
                let hook = Hook::Rules(file.clone().into(), ids.clone());
                self.hook(&file, hook, true);
            }
        }
        Start {
            path: top.to_owned(),
            scopes: ids,
            above,
        }
    }

    /// Watches what there is and all that counts in it; `seen` hears of the files.
    pub(crate) fn walk(&mut self, scopes: &Scopes, starts: Vec<Start>, seen: Seen<'_>) {
        let mut plain: Vec<Ahead> = Vec::new();
        // What may be anything: the starts, and behind them symlinks, so that a folder
        // goes by its plain name where it has one.
        let mut any: VecDeque<Ahead> = starts
            .into_iter()
            .map(|start| Ahead {
                path: start.path.into(),
                scopes: start.scopes,
                above: start.above,
                silent: false,
            })
            .collect();
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(mut ahead) = plain.pop() {
                if !ahead.silent && self.mount_points.contains(&*ahead.path) {
                    ahead.silent = self.is_silent(&ahead.path);
                }
                self.visit(scopes, &ahead, &mut plain, &mut any, seen);
            } else if let Some(mut ahead) = any.pop_front() {
                match fs::metadata(&ahead.path) {
                    Ok(stat) if stat.is_dir() => {
                        ahead.silent = self.is_silent(&ahead.path);
                        plain.push(ahead);
                    }
                    Ok(_) => self.visit_file(&ahead, seen),
                    Err(e) => {
                        tracing::trace!(path = %ahead.path.display(), error = %e, "not there");
                    }
                }
            } else {
                return;
            }
        }
    }

    /// A file that is an input, or one that a symlink leads to.
    fn visit_file(&mut self, ahead: &Ahead, seen: Seen<'_>) {
        seen(ahead.path.to_path_buf(), &ahead.scopes);
        if !ahead.path.is_symlink() {
            self.files.insert(ahead.path.clone(), None);
            return;
        }
        let real = fs::canonicalize(&ahead.path).ok();
        let key = real.and_then(|real| {
            let hook = Hook::Link(ahead.path.clone(), ahead.scopes.clone());
            self.hook(&real, hook, true)
        });
        self.files.insert(ahead.path.clone(), key);
    }

    /// A folder.
    fn visit(
        &mut self,
        scopes: &Scopes,
        ahead: &Ahead,
        plain: &mut Vec<Ahead>,
        any: &mut VecDeque<Ahead>,
        seen: Seen<'_>,
    ) {
        let path = &ahead.path;
        // The watch first, the listing after: what comes in between is told twice.
        let Some(key) = self.place(path, None, true, ahead.silent) else {
            return;
        };
        let folder = self.folders.entry(key).or_default();
        let readers = || folder.names.iter().flat_map(|n| n.scopes.iter());
        let ids: Arc<[Id]> = if folder.names.is_empty() {
            ahead.scopes.clone()
        } else {
            let ids = ahead.scopes.iter().copied();
            ids.filter(|id| !readers().any(|r| r == id)).collect()
        };
        if ids.is_empty() {
            return;
        }
        let listing = Listing::of(path);
        let mut rules = ahead.above.clone();
        if scopes.any_follows_git(&ids) {
            rules = Rules::of(&rules, path, listing.gitignore, listing.git);
        }
        let child = |name: &OsString, is_dir| {
            let path = path.join(name);
            // git takes a symlink for a file, whatever it leads to.
            let scopes = scopes.counting(&ids, &path, is_dir, &rules);
            (!scopes.is_empty()).then(|| Ahead {
                path: path.into(),
                scopes,
                above: rules.clone(),
                silent: ahead.silent,
            })
        };
        plain.extend(listing.dirs.iter().filter_map(|name| child(name, true)));
        any.extend(listing.links.iter().filter_map(|name| child(name, false)));
        for name in &listing.files {
            let file = path.join(name);
            let ids = scopes.counting(&ids, &file, false, &rules);
            if !ids.is_empty() {
                seen(file, &ids);
            }
        }
        if let Some(old) = self.paths.insert(path.clone(), key)
            && old != key
        {
            self.forget_name(old, path);
        }
        self.folders.entry(key).or_default().names.push(Name {
            path: path.clone(),
            scopes: ids,
            rules,
        });
    }

    /// Hooks every folder on the way from the root to `top`, as far as there are any:
    /// a folder that is moved, made or replaced by another is noticed wherever it is.
    fn hook_way(&mut self, top: &Path) {
        let is_dir = top.is_dir();
        let within = top.starts_with(&self.root) && self.root.is_dir();
        let mut way: Vec<&Path> = Vec::new();
        for path in top.ancestors() {
            let Some(folder) = path.parent() else { break };
            way.push(path);
            if folder == self.root || (!within && folder.is_dir()) {
                break;
            }
        }
        for path in way.into_iter().rev() {
            let hook = if path == top {
                Hook::Top(top.into())
            } else {
                Hook::Way
            };
            let contents = path == top && !is_dir;
            if self.hook(path, hook, contents).is_none() {
                return;
            }
        }
    }

    /// Hooks one name in a folder.
    fn hook(&mut self, path: &Path, hook: Hook, contents: bool) -> Option<Key> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        let silent = self.is_silent(folder);
        let key = self.place(&folder.into(), Some(name), contents, silent)?;
        let hooks = &mut self.folders.entry(key).or_default().hooks;
        if !hooks.iter().any(|(n, h)| n == name && *h == hook) {
            hooks.push((name.to_owned(), hook));
        }
        Some(key)
    }

    /// Makes sure that what happens in a folder (to one `name`, or to all) is heard of.
    fn place(
        &mut self,
        path: &Arc<Path>,
        name: Option<&OsStr>,
        contents: bool,
        silent: bool,
    ) -> Option<Key> {
        let mut key = None;
        if let Some(queue) = &self.queue
            && !self.full
        {
            match queue.watch(path, contents) {
                Ok(watch) => key = Some(Key::Watch(watch)),
                Err(Refused::Limit) => self.full = true,
                Err(Refused::Gone) => return None,
                Err(Refused::Other(e)) => {
                    tracing::warn!(folder = %path.display(), error = %e, "can't watch it");
                    return None;
                }
            }
        }
        let watched = key.is_some();
        let key = match key {
            Some(key) => key,
            None => {
                let stat = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
                Key::Node(stat.dev(), stat.ino())
            }
        };
        if silent || !watched {
            self.polls.add(path, key, name);
        }
        Some(key)
    }

    fn is_silent(&mut self, path: &Path) -> bool {
        let name = filesystem::silent(path);
        if let Some(name) = name {
            let known = self.silent.entry(name);
            known.or_insert_with(|| path.to_owned());
        }
        name.is_some()
    }

    /// Whatever went by this name, and all that was in it, isn't watched by this name
    /// any more.
    pub(crate) fn forget(&mut self, path: &Path) {
        let below = |p: &Arc<Path>| p.starts_with(path);
        let range = (std::ops::Bound::Included(path), std::ops::Bound::Unbounded);
        let paths = self.paths.range::<Path, _>(range);
        let paths: Vec<_> = paths
            .map(|(p, k)| (p.clone(), *k))
            .take_while(|(p, _)| below(p))
            .collect();
        let files = self.files.range::<Path, _>(range);
        let files: Vec<_> = files
            .map(|(p, k)| (p.clone(), *k))
            .take_while(|(p, _)| below(p))
            .collect();
        for (path, key) in paths {
            self.paths.remove(&path);
            self.forget_name(key, &path);
        }
        for (path, key) in files {
            self.files.remove(&path);
            if let Some(key) = key
                && let Some(folder) = self.folders.get_mut(&key)
            {
                folder
                    .hooks
                    .retain(|(_, hook)| !matches!(hook, Hook::Link(p, _) if *p == path));
                self.let_go(key);
            }
        }
    }

    fn forget_name(&mut self, key: Key, path: &Path) {
        if let Some(folder) = self.folders.get_mut(&key) {
            folder.names.retain(|name| &*name.path != path);
            self.let_go(key);
        }
    }

    /// Ends the watch of a folder that nobody cares for.
    fn let_go(&mut self, key: Key) {
        let Some(folder) = self.folders.get(&key) else {
            return;
        };
        if folder.names.is_empty() && folder.hooks.is_empty() {
            self.folders.remove(&key);
            self.polls.remove(key);
            if let (Key::Watch(watch), Some(queue)) = (key, &self.queue) {
                queue.unwatch(watch);
            }
        }
    }

    /// The kernel has ended this watch. True: inputs have to be looked for anew.
    pub(crate) fn ended(&mut self, watch: i32) -> bool {
        let key = Key::Watch(watch);
        let Some(folder) = self.folders.remove(&key) else {
            return false;
        };
        self.polls.remove(key);
        for name in folder.names {
            if self.paths.get(&name.path) == Some(&key) {
                self.paths.remove(&name.path);
            }
        }
        !folder.hooks.is_empty()
    }

    /// Why not everything is heard of at once, and what mends it; `None`: everything is.
    pub(crate) fn why_polling(&self, forced: bool) -> Option<String> {
        let limit = |name: &str, suggested: u64| {
            let now = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
            let now = now
                .ok()
                .and_then(|n| n.trim().parse::<u64>().ok())
                .unwrap_or_default();
            let new = suggested.max(now.saturating_mul(2));
            format!(
                "(fs.inotify.{name} = {now}); run `sudo sysctl fs.inotify.{name}={new}` and start again"
            )
        };
        let mut whys = Vec::new();
        if forced {
            whys.push("polling was asked for".to_owned());
        }
        match self.no_queue {
            Some(Errno::MFILE) => whys.push(format!(
                "this user's programs have all the inotify instances that are allowed {}",
                limit("max_user_instances", 1024),
            )),
            Some(e) => whys.push(format!("inotify can't be used: {e}")),
            None => {}
        }
        if self.full {
            whys.push(format!(
                "this user's programs have all the inotify watches that are allowed {}",
                limit("max_user_watches", 524_288),
            ));
        }
        for (name, path) in &self.silent {
            whys.push(format!(
                "{} is on {name}, which doesn't tell of changes made elsewhere; \
                 a copy on a local disk is watched without polling",
                path.display(),
            ));
        }
        (!whys.is_empty()).then(|| whys.join("; "))
    }
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
