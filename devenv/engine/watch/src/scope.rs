//! Which paths count for whom.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};

use crate::{WatchError, rules::Rules};

/// A place in [`Scopes`].
pub(crate) type Id = u32;

/// One path of one input.
#[derive(Debug)]
pub(crate) struct Scope {
    owner: u32,
    top: PathBuf,
    ignore: Gitignore,
    git: bool,
}

impl Scope {
    /// Reads the patterns, which are relative to `top`.
    pub(crate) fn new(
        owner: u32,
        top: PathBuf,
        patterns: &[String],
        git: bool,
    ) -> Result<Self, WatchError> {
        let mut builder = GitignoreBuilder::new(&top);
        for pattern in patterns {
            builder
                .add_line(None, pattern)
                .map_err(|source| WatchError::Pattern {
                    pattern: pattern.clone(),
                    source,
                })?;
        }
        let ignore = builder.build().map_err(|source| WatchError::Pattern {
            pattern: patterns.join("\n"),
            source,
        })?;
        Ok(Self {
            owner,
            top,
            ignore,
            git,
        })
    }
}

/// All of them, found by path.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    list: Vec<Scope>,
    tops: HashMap<PathBuf, Arc<[Id]>>,
}

impl Scopes {
    pub(crate) fn new(list: Vec<Scope>) -> Self {
        let mut tops: HashMap<PathBuf, Vec<Id>> = HashMap::new();
        for (id, scope) in (0..).zip(&list) {
            tops.entry(scope.top.clone()).or_default().push(id);
        }
        let tops = tops.into_iter().map(|(top, ids)| (top, ids.into()));
        Self {
            tops: tops.collect(),
            list,
        }
    }

    /// Every path that is given as an input, a folder before what is in it.
    pub(crate) fn tops(&self) -> Vec<PathBuf> {
        let mut tops: Vec<_> = self.tops.keys().cloned().collect();
        tops.sort();
        tops
    }

    /// Who was given exactly this path.
    pub(crate) fn at(&self, top: &Path) -> Arc<[Id]> {
        self.tops.get(top).cloned().unwrap_or_default()
    }

    /// Whether any of these follows `.gitignore`.
    pub(crate) fn any_follows_git(&self, ids: &[Id]) -> bool {
        ids.iter().any(|id| self.list[*id as usize].git)
    }

    /// Those of `active`, for whom the folder counts, for whom `path`, an entry of it,
    /// counts too; and those who were given it. `rules` are the folder's.
    pub(crate) fn counting(
        &self,
        active: &Arc<[Id]>,
        path: &Path,
        is_dir: bool,
        rules: &Rules,
    ) -> Arc<[Id]> {
        let given = self.tops.get(path);
        let never = path.file_name().is_some_and(is_never_read);
        let mut by_git = None;
        let mut counts = |id: &Id| {
            let scope = &self.list[*id as usize];
            match scope.ignore.matched(path, is_dir) {
                _ if never => false,
                Match::Ignore(_) => false,
                Match::Whitelist(_) => true,
                Match::None => {
                    !scope.git || !*by_git.get_or_insert_with(|| rules.ignores(path, is_dir))
                }
            }
        };
        if given.is_none() && active.iter().all(&mut counts) {
            return active.clone();
        }
        let mut ids: Vec<Id> = active.iter().copied().filter(|id| counts(id)).collect();
        ids.extend(given.into_iter().flat_map(|given| given.iter().copied()));
        ids.sort_unstable();
        ids.dedup();
        ids.into()
    }

    /// Whose they are; each owner once.
    pub(crate) fn owners(&self, ids: &[Id]) -> Vec<u32> {
        let mut owners: Vec<u32> = ids.iter().map(|id| self.list[*id as usize].owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

/// What is no source whatever the rules say: git's own files and devenv's.
fn is_never_read(name: &OsStr) -> bool {
    name == ".git" || name == ".devenv"
}

#[cfg(test)]
mod tests;
