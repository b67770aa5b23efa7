//! What git ignores.
//!
//! As git does it: the nearest `.gitignore` that says something about a name wins, then
//! those above it up to the repository's root, then `.git/info/exclude`, then the
//! user's own `core.excludesFile`. Below an ignored folder nothing counts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};

/// The rules that hold in one folder: its own and, through `above`, all others.
#[derive(Debug)]
pub(crate) struct Rules {
    above: Option<Arc<Rules>>,
    /// The strongest first.
    own: Vec<Gitignore>,
}

impl Rules {
    /// Nothing is ignored.
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self {
            above: None,
            own: Vec::new(),
        })
    }

    /// The rules that hold in `folder`, whose entries `has_gitignore` and `has_git` tell
    /// of, below a folder with the rules `above`.
    pub(crate) fn of(
        above: &Arc<Self>,
        folder: &Path,
        has_gitignore: bool,
        has_git: bool,
    ) -> Arc<Self> {
        if !has_gitignore && !has_git {
            return above.clone();
        }
        let mut own = Vec::new();
        if has_gitignore {
            own.push(read(folder, &folder.join(".gitignore")));
        }
        if has_git {
            if let Some(exclude) = exclude_file(folder) {
                own.push(read(folder, &exclude));
            }
            own.push(GitignoreBuilder::new(folder).build_global().0);
        }
        own.retain(|rules| !rules.is_empty());
        // Another repository begins here: what holds above it doesn't hold within.
        let above = (!has_git).then(|| above.clone());
        Arc::new(Self { above, own })
    }

    /// The rules that `folder` inherits, and the files they were read from (whether
    /// they exist or not). They end at the repository's root, or where there is none at
    /// `root`.
    pub(crate) fn above(folder: &Path, root: &Path) -> (Arc<Self>, Vec<PathBuf>) {
        let is_git = |folder: &Path| folder.join(".git").exists();
        let mut chain = Vec::new();
        let mut in_git = is_git(folder);
        let mut ancestors = folder.ancestors().skip(1);
        while !in_git && let Some(ancestor) = ancestors.next() {
            chain.push(ancestor);
            in_git = is_git(ancestor);
        }
        if !in_git {
            chain.retain(|a| a.starts_with(root));
        }
        let mut rules = Self::none();
        let mut files = Vec::new();
        for above in chain.into_iter().rev() {
            let own = above.join(".gitignore");
            rules = Self::of(&rules, above, own.is_file(), is_git(above));
            files.push(own);
            files.extend(exclude_file(above));
        }
        (rules, files)
    }

    /// Whether git ignores `path`, an entry of the folder that these rules belong to.
    pub(crate) fn ignores(&self, path: &Path, is_dir: bool) -> bool {
        let mut rules = Some(self);
        while let Some(at) = rules {
            for own in &at.own {
                match own.matched(path, is_dir) {
                    Match::None => {}
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                }
            }
            rules = at.above.as_deref();
        }
        false
    }
}

fn read(folder: &Path, file: &Path) -> Gitignore {
    let mut builder = GitignoreBuilder::new(folder);
    // git skips the lines that it doesn't understand as well.
    if let Some(e) = builder.add(file) {
        tracing::debug!(file = %file.display(), error = %e, "not all of it counts");
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// `info/exclude` of the repository at `folder`, which may be a worktree or submodule.
pub(crate) fn exclude_file(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    let dir = if git.is_file() {
        let text = fs::read_to_string(&git).ok()?;
        let dir = folder.join(text.strip_prefix("gitdir:")?.trim());
        match fs::read_to_string(dir.join("commondir")) {
            Ok(common) => dir.join(common.trim()),
            Err(_) => dir,
        }
    } else if git.is_dir() {
        git
    } else {
        return None;
    };
    Some(dir.join("info/exclude"))
}

#[cfg(test)]
mod tests;
