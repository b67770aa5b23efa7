//! What an image's inputs are, as a hash: the same tree gives the same one, whenever
//! and wherever it was checked out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use devenv_model::{ImageSource, MADE};
use ignore::{
    WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};
use sha2::{Digest as _, Sha256};

/// The hash of a file.
pub type Hash = [u8; 32];

/// What says that a file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stat {
    fn of(m: &fs::Metadata) -> Self {
        Self {
            inode: m.ino(),
            size: m.len(),
            mode: m.mode(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }

    /// Whether a further write could leave it the same: timestamps advance in steps of
    /// some milliseconds, and some filesystems only in seconds.
    fn is_racy(&self, now: SystemTime) -> bool {
        let secs = u64::try_from(self.modified.0).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        now.duration_since(modified)
            .map_or(true, |age| age < Duration::from_secs(3))
    }
}

/// What may have changed since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hint {
    /// Anything.
    #[default]
    All,
    /// These paths, or something below them.
    Paths(BTreeSet<PathBuf>),
}

impl Hint {
    /// Both.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Paths(mine), Self::Paths(more)) => mine.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// The files of images and their hashes, kept from one look to the next.
#[derive(Debug)]
pub struct Prints {
    root: PathBuf,
    known: HashMap<PathBuf, (Stat, Hash)>,
    images: BTreeMap<String, Inputs>,
}

#[derive(Debug, Clone, Default)]
struct Inputs {
    /// What was asked for: another list of paths is another image.
    watch: Vec<PathBuf>,
    ignore: Vec<String>,
    files: BTreeMap<PathBuf, Hash>,
}

impl Prints {
    /// Of the project in `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
            images: BTreeMap::new(),
        }
    }

    /// Looks at the inputs of `image` again.
    ///
    /// # Errors
    /// When a folder or file can't be read.
    pub fn refresh(&mut self, image: &ImageSource, hint: &Hint) -> io::Result<()> {
        let before = self.images.remove(&image.name);
        let known = before.filter(|i| i.watch == image.watch && i.ignore == image.ignore);
        let inputs = match (hint, known) {
            (Hint::Paths(paths), Some(mut inputs)) => {
                for path in paths {
                    self.look_at(&mut inputs, path)?;
                }
                inputs
            }
            _ => self.all(image)?,
        };
        self.images.insert(image.name.clone(), inputs);
        Ok(())
    }

    fn all(&mut self, image: &ImageSource) -> io::Result<Inputs> {
        let mut inputs = Inputs {
            watch: image.watch.clone(),
            ignore: image.ignore.clone(),
            files: BTreeMap::new(),
        };
        for path in walk(&image.watch, &image.ignore)? {
            if let Some(hash) = self.hash(&path, false)? {
                inputs.files.insert(path, hash);
            }
        }
        Ok(inputs)
    }

    /// A path that changed: gone, a file, or a folder that may hold others now.
    fn look_at(&mut self, inputs: &mut Inputs, path: &Path) -> io::Result<()> {
        let below: Vec<PathBuf> = inputs
            .files
            .range(path.to_owned()..)
            .take_while(|(f, _)| f.starts_with(path))
            .map(|(f, _)| f.clone())
            .collect();
        for file in below {
            inputs.files.remove(&file);
            self.known.remove(&file);
        }
        match fs::metadata(path) {
            Ok(m) if m.is_dir() => {
                // Within its roots, so that what they ignore is ignored.
                for file in walk(&inputs.watch, &inputs.ignore)? {
                    if file.starts_with(path)
                        && let Some(hash) = self.hash(&file, true)?
                    {
                        inputs.files.insert(file, hash);
                    }
                }
            }
            Ok(_) => {
                if let Some(hash) = self.hash(path, true)? {
                    inputs.files.insert(path.to_owned(), hash);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The hash of a file's contents and of whether it can be executed; nothing when it
    /// went away meanwhile.
    fn hash(&mut self, path: &Path, changed: bool) -> io::Result<Option<Hash>> {
        let gone = |e: io::Error| {
            if e.kind() == io::ErrorKind::NotFound {
                Ok(None)
            } else {
                Err(io::Error::new(e.kind(), format!("{}: {e}", path.display())))
            }
        };
        let stat = match fs::metadata(path) {
            Ok(m) if m.is_file() => Stat::of(&m),
            Ok(_) => return Ok(None),
            Err(e) => return gone(e),
        };
        if !changed
            && let Some((known, hash)) = self.known.get(path)
            && *known == stat
        {
            return Ok(Some(*hash));
        }
        let now = SystemTime::now();
        let contents = match fs::read(path) {
            Ok(c) => c,
            Err(e) => return gone(e),
        };
        let mut sha = Sha256::new();
        sha.update([u8::from(stat.mode & 0o111 != 0)]);
        sha.update(&contents);
        let hash: Hash = sha.finalize().into();
        if stat.is_racy(now) {
            self.known.remove(path);
        } else {
            self.known.insert(path.to_owned(), (stat, hash));
        }
        Ok(Some(hash))
    }

    /// The files of an image that was looked at.
    pub fn files(&self, image: &ImageSource) -> impl Iterator<Item = &Path> {
        let inputs = self.images.get(&image.name);
        inputs
            .into_iter()
            .flat_map(|i| i.files.keys().map(PathBuf::as_path))
    }

    /// The files of an image that was looked at, with their hashes.
    pub fn inputs(&self, image: &ImageSource) -> BTreeMap<PathBuf, Hash> {
        let inputs = self.images.get(&image.name);
        inputs.map(|i| i.files.clone()).unwrap_or_default()
    }

    /// The hash of `words` and of those files of `images` that `counts` picks.
    pub fn of(
        &self,
        words: &[&str],
        images: &[&ImageSource],
        counts: impl Fn(&Path) -> bool,
    ) -> String {
        let mut files: BTreeMap<&Path, &Hash> = BTreeMap::new();
        for image in images {
            if let Some(inputs) = self.images.get(&image.name) {
                let some = inputs.files.iter().filter(|(f, _)| counts(f));
                files.extend(some.map(|(f, h)| (f.as_path(), h)));
            }
        }
        let mut sha = Sha256::new();
        let mut part = |bytes: &[u8]| {
            sha.update((bytes.len() as u64).to_le_bytes());
            sha.update(bytes);
        };
        for word in words {
            part(word.as_bytes());
        }
        for (file, hash) in files {
            let name = file.strip_prefix(&self.root).unwrap_or(file);
            part(name.as_os_str().as_encoded_bytes());
            part(hash);
        }
        hex::encode(sha.finalize())
    }

    /// The hash of all that decides how `image` behaves: its files, its commands, its
    /// environment.
    pub fn digest(&self, image: &ImageSource) -> String {
        let text =
            |c: Option<&devenv_model::Command>| c.map(ToString::to_string).unwrap_or_default();
        let workdir = image
            .workdir
            .strip_prefix(&self.root)
            .unwrap_or(&image.workdir);
        let mut words = vec![
            text(image.install.as_ref()),
            text(image.build.as_ref()),
            text(Some(&image.run)),
            workdir.display().to_string(),
        ];
        words.extend(image.env.iter().map(|(k, v)| format!("{k}={v}")));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.of(&words, &[image], |_| true)
    }
}

/// The files at or below `inputs` that neither git nor `ignore` (gitignore patterns,
/// relative to each input) leaves out.
fn walk(inputs: &[PathBuf], ignore: &[String]) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for input in inputs {
        let left_out = matcher(input, ignore);
        let walk = WalkBuilder::new(input)
            .hidden(false)
            .require_git(false)
            .follow_links(true)
            .filter_entry(move |e| {
                let is_dir = e.file_type().is_some_and(|t| t.is_dir());
                e.depth() == 0 || !left_out.matched(e.path(), is_dir).is_ignore()
            })
            .build();
        for entry in walk {
            match entry {
                Ok(e) if e.file_type().is_some_and(|t| t.is_file()) => {
                    files.insert(e.into_path());
                }
                Ok(_) => {}
                // A link in a circle or to nowhere, or a file that has just gone.
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(io::Error::other(e)),
            }
        }
    }
    Ok(files)
}

fn is_passing(e: &ignore::Error) -> bool {
    match e {
        ignore::Error::Loop { .. } => true,
        ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } => {
            is_passing(err)
        }
        _ => e
            .io_error()
            .is_some_and(|e| e.kind() == io::ErrorKind::NotFound),
    }
}

fn matcher(input: &Path, ignore: &[String]) -> Gitignore {
    let mut builder = GitignoreBuilder::new(input);
    for line in MADE
        .iter()
        .copied()
        .chain(ignore.iter().map(String::as_str))
    {
        if let Err(e) = builder.add_line(None, line) {
            tracing::warn!(error = %e, line, "a pattern that can't be used");
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests;
