//! The folders that are watched, and who reads them.
//!
//! A folder is known by what the kernel calls it, so that one which several names lead
//! to (symlinks) is watched once and told of by each of its names. An owner reaches a
//! folder by one name only, the plain one if there is one, else the first that was found:
//! that ends loops, and keeps the walk linear in the number of folders. Where that name
//! goes and another is left, everything is looked for anew.

mod walk;
mod why;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs,
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use rustix::io::Errno;

use crate::{
    filesystem,
    inotify::{Queue, Refused},
    links,
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
    /// It leads through a symlink below the input.
    pub(crate) linked: bool,
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
    /// There are more names, which weren't needed.
    spare_names: bool,
    pub(crate) hooks: BTreeMap<OsString, Vec<Hook>>,
}

pub(crate) type Folders = HashMap<Key, Folder>;

/// Where a walk begins, or goes on.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) path: Arc<Path>,
    /// For whom it counts.
    pub(crate) scopes: Arc<[Id]>,
    /// The rules of the folder that it is in.
    pub(crate) above: Arc<Rules>,
    /// It leads through a symlink below the input.
    pub(crate) linked: bool,
}

/// Hears of a file that a walk came by, and who reads it.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(PathBuf, &Arc<[Id]>);

/// By which names what was known.
#[derive(Debug, Default)]
struct Names {
    /// Folders that somebody reads.
    folders: BTreeMap<Arc<Path>, Key>,
    /// Files that are inputs or symlinks, with the folder that tells of them.
    files: BTreeMap<Arc<Path>, Key>,
}

impl Names {
    fn knows(&self, path: &Path) -> bool {
        self.folders.contains_key(path) || self.files.contains_key(path)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    queue: Option<Queue>,
    polls: Arc<Polls>,
    stop: Arc<AtomicBool>,
    mount_points: HashSet<PathBuf>,
    folders: Folders,
    names: Names,
    /// A folder has lost the name that it went by, and may have another.
    lost_name: bool,
    /// What was known before, while everything is watched anew.
    before: Names,
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
            folders: Folders::new(),
            names: Names::default(),
            lost_name: false,
            before: Names::default(),
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

    /// Whether only a rebuild can tell by which names folders can be reached.
    pub(crate) fn lost_name(&self) -> bool {
        self.lost_name
    }

    /// Watches everything anew: what is there and what the rules say may both be
    /// otherwise than before. `seen` hears of the files that were not watched, and of
    /// inputs that are gone. What is watched before and after is watched all the time.
    ///
    /// What isn't any more is returned: the queue may hold events of it, and
    /// [`Tree::end`] ends its watches.
    pub(crate) fn rebuild(&mut self, scopes: &Scopes, seen: Seen<'_>) -> Folders {
        let mut watched = std::mem::take(&mut self.folders);
        self.before = std::mem::take(&mut self.names);
        self.silent.clear();
        self.full = false;
        self.mount_points = filesystem::mount_points();
        self.polls.mark();
        let tops = scopes.tops();
        let starts = tops.iter().map(|top| self.start(scopes, top)).collect();
        self.walk(scopes, starts, seen);
        self.polls.sweep();
        self.lost_name = false;
        let before = std::mem::take(&mut self.before);
        for top in tops {
            if before.knows(&top) && !self.names.knows(&top) {
                let ids = scopes.at(&top);
                seen(top, &ids);
            }
        }
        watched.retain(|key, _| !self.folders.contains_key(key));
        watched
    }

    /// Ends the watches of folders that a rebuild has left out.
    pub(crate) fn end(&self, left_out: Folders) {
        for key in left_out.into_keys() {
            // It may have come back while its events were read.
            if let (Key::Watch(watch), Some(queue)) = (key, &self.queue)
                && !self.folders.contains_key(&key)
            {
                queue.unwatch(watch);
            }
        }
    }

    /// Where to begin for an input. What leads to it and the rules that it inherits are
    /// watched from now on.
    pub(crate) fn start(&mut self, scopes: &Scopes, top: &Path) -> Start {
        self.hook_way(top);
        let ids = scopes.at(top);
        let mut above = Rules::none();
        if scopes.any_follows_git(&ids) && !top.is_file() {
            let (rules, files) = Rules::above(top, &self.root);
            above = rules;
            for file in files {
                self.hook_rules(&file, &ids);
            }
        }
        Start {
            path: top.into(),
            scopes: ids,
            above,
            linked: false,
        }
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
                break;
            }
        }
        self.hook_links(top);
    }

    /// Hooks what `path` leads through and to, if it leads through symlinks: one of them
    /// may be turned elsewhere, and what they lead to may be yet to come.
    fn hook_links(&mut self, path: &Path) {
        let (links, end) = links::followed(path);
        for link in &links {
            if link != path {
                self.hook(link, Hook::Way, false);
            }
        }
        if !links.is_empty() && !end.exists() {
            self.hook(&end, Hook::Way, false);
        }
    }

    /// Hooks a file that says what git ignores for `ids`. Its folder may be yet to come:
    /// `git init` makes `.git` first, `.git/info` after.
    fn hook_rules(&mut self, file: &Path, ids: &Arc<[Id]>) {
        let hook = || Hook::Rules(file.into(), ids.clone());
        if self.hook(file, hook(), true).is_none()
            && let Some(folder) = file.parent()
        {
            self.hook(folder, Hook::Way, false);
            // It may have come just before that.
            self.hook(file, hook(), true);
        }
    }

    /// Hooks one name in a folder.
    fn hook(&mut self, path: &Path, hook: Hook, contents: bool) -> Option<Key> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        let silent = self.is_silent(folder);
        let key = self.place(&folder.into(), Some(name), contents, silent)?;
        let hooks = &mut self.folders.entry(key).or_default().hooks;
        let hooks = hooks.entry(name.to_owned()).or_default();
        if !hooks.contains(&hook) {
            hooks.push(hook);
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
            self.polls.add(key, path, name);
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
        for (path, key) in below(&self.names.folders, path) {
            self.names.folders.remove(&path);
            self.forget_name(key, &path);
        }
        for (path, key) in below(&self.names.files, path) {
            self.names.files.remove(&path);
            let Some(folder) = self.folders.get_mut(&key) else {
                continue;
            };
            folder.hooks.retain(|_, hooks| {
                hooks.retain(|hook| !matches!(hook, Hook::Link(p, _) if *p == path));
                !hooks.is_empty()
            });
            self.let_go(key);
        }
    }

    fn forget_name(&mut self, key: Key, path: &Path) {
        let Some(folder) = self.folders.get_mut(&key) else {
            return;
        };
        folder.names.retain(|name| &*name.path != path);
        self.lost_name |= folder.spare_names;
        if let Some(other) = folder.names.first() {
            self.polls.moved(key, &other.path);
        }
        self.let_go(key);
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
            if self.names.folders.get(&name.path) == Some(&key) {
                self.names.folders.remove(&name.path);
            }
        }
        !folder.hooks.is_empty()
    }
}

/// What is at or below `path`: in this order they lie together.
fn below(names: &BTreeMap<Arc<Path>, Key>, path: &Path) -> Vec<(Arc<Path>, Key)> {
    let from = names.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
    from.map(|(name, key)| (name.clone(), *key))
        .take_while(|(name, _)| name.starts_with(path))
        .collect()
}
