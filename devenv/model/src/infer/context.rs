//! Where the files of an image come from: the folder that the build was given, and what
//! `COPY` put where.

use std::path::{Path, PathBuf};

use crate::dockerfile::{Copy, Image, Said};
use crate::reading::normal;
use crate::source::Span;

/// The build's context, and the copies from it.
pub(super) struct Context {
    /// The folder that `COPY` reads from; absolute.
    dir: PathBuf,
    copies: Vec<Said<Copy>>,
}

/// What is at a path of the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file or folder of this machine that is there.
    Here(PathBuf),
    /// Copied from another stage or image.
    Made { from: String, span: Span },
    /// Nothing that was copied; made by a command, or part of the base.
    Unknown,
}

impl Context {
    /// Most builds are given the source's own folder. Where only the project's folder has
    /// what is copied, it was that one.
    pub(super) fn of(root: &Path, source: &Path, image: &Image) -> Self {
        let named = || {
            let copies = image.copies.iter().filter(|c| c.value.from.is_none());
            copies
                .flat_map(|c| &c.value.sources)
                .chain(&image.other_sources)
                .filter(|s| !is_whole(s) && !s.contains(['*', '?', '[', '$']) && !s.contains("://"))
        };
        let has_all = |dir: &Path| named().all(|s| dir.join(s.trim_start_matches('/')).exists());
        let of_root = !has_all(source) && has_all(root);
        Self {
            dir: if of_root { root } else { source }.to_owned(),
            copies: image.copies.clone(),
        }
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of this machine whose contents are at `path` of the image.
    pub(super) fn folder_at(&self, path: &str) -> Option<PathBuf> {
        self.copies.iter().rev().find_map(|copy| {
            if copy.value.from.is_some() || copy.value.dest != path {
                return None;
            }
            // The contents of a folder are copied, not the folder.
            let folders = copy.value.sources.iter().rev();
            folders.map(|s| self.source(s)).find(|s| s.is_dir())
        })
    }

    /// What is at `path` of the image; later copies hide earlier ones.
    pub(super) fn find(&self, path: &str) -> Place {
        for copy in self.copies.iter().rev() {
            let Some(rest) = below(path, &copy.value.dest) else {
                continue;
            };
            if let Some(from) = &copy.value.from {
                // A folder that is copied may or may not hold it: exact matches count.
                let exact = rest.is_empty()
                    || copy.value.sources.iter().any(|s| base(s) == rest)
                    || copy
                        .value
                        .sources
                        .iter()
                        .any(|s| s.ends_with('/') || s.contains('*'));
                if exact {
                    return Place::Made {
                        from: from.clone(),
                        span: copy.span,
                    };
                }
                continue;
            }
            for source in copy.value.sources.iter().rev() {
                let here = self.source(source);
                let is_it = rest == base(source) || (rest.is_empty() && !copy.value.into);
                let found = if here.is_dir() {
                    here.join(rest)
                } else if source.contains(['*', '?', '[']) {
                    // `COPY *.py ./` and the like: the file of that name, if it is there.
                    let dir = source.rsplit_once('/').map_or("", |(dir, _)| dir);
                    self.source(dir).join(rest)
                } else if is_it {
                    here
                } else {
                    continue;
                };
                if found.exists() {
                    return Place::Here(normal(&found));
                }
            }
        }
        Place::Unknown
    }

    fn source(&self, written: &str) -> PathBuf {
        normal(&self.dir.join(written.trim_start_matches('/')))
    }
}

fn is_whole(source: &str) -> bool {
    matches!(source, "." | "./" | "/" | "./.")
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

/// What remains of `path` below `dir`; nothing if it lies elsewhere.
fn below<'p>(path: &'p str, dir: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(dir.trim_end_matches('/'))?;
    if rest.is_empty() {
        return Some("");
    }
    rest.strip_prefix('/')
}
