//! Which files are covered, and what they hash to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use devenv_model::MADE;
use ignore::{
    WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use crate::CoverageError;

/// The files that git tracks, also those that a `.gitignore` names.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    files: Vec<PathBuf>,
    /// Why git could not be asked, although there is a repository.
    pub(crate) unknown: Option<String>,
}

impl Tracked {
    /// Those in `root`.
    pub(crate) fn of(root: &Path) -> Self {
        if !root.ancestors().any(|a| a.join(".git").exists()) {
            return Self::default();
        }
        let out = Command::new("git")
            // Nothing of the repository's own configuration runs, and one that belongs to
            // somebody else (under sudo) is read all the same.
            .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"])
            .args(["ls-files", "-z", "--cached"])
            .current_dir(root)
            // A hook of another repository may be what started this process.
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null())
            .output();
        let unknown = match out {
            Ok(out) if out.status.success() => {
                let files = out
                    .stdout
                    .split(|b| *b == 0)
                    .filter(|name| !name.is_empty())
                    .map(|name| root.join(std::ffi::OsStr::from_bytes(name)))
                    .collect();
                return Self {
                    files,
                    unknown: None,
                };
            }
            Ok(out) => String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            Err(e) => e.to_string(),
        };
        Self {
            files: Vec::new(),
            unknown: Some(unknown),
        }
    }
}

/// The files and symbolic links at or below `at`: those that git tracks, and those that
/// neither a `.gitignore` nor [`MADE`] leaves out. What `ignore` names (as in a
/// `.gitignore` in `at`) is left out in any case.
pub(crate) fn list(
    at: &Path,
    ignore: &[String],
    tracked: &Tracked,
) -> Result<Vec<PathBuf>, CoverageError> {
    let walk_error = |source: ignore::Error| CoverageError::Walk {
        path: at.to_owned(),
        source,
    };
    let made = patterns(at, MADE.iter().copied()).map_err(walk_error)?;
    let own = patterns(at, ignore.iter().map(String::as_str)).map_err(walk_error)?;
    let mut files = Vec::new();
    if fs::symlink_metadata(at).is_ok_and(|m| m.is_symlink()) {
        files.push(at.to_owned());
    }
    let also_own = own.clone();
    let walk = WalkBuilder::new(at)
        .hidden(false)
        // As git sees it: also without a repository, and without what only other tools
        // read.
        .require_git(false)
        .ignore(false)
        .filter_entry(move |e| {
            let is_dir = e.file_type().is_some_and(|t| t.is_dir());
            // Package managers link such a folder to where they really keep it.
            let leads_to_dir = is_dir || (e.path_is_symlink() && e.path().is_dir());
            e.depth() == 0
                || !(made.matched(e.path(), leads_to_dir).is_ignore()
                    || also_own.matched(e.path(), is_dir).is_ignore())
        })
        .build();
    for entry in walk {
        match entry {
            Ok(e) => {
                if e.file_type().is_some_and(|t| t.is_file() || t.is_symlink()) {
                    files.push(e.into_path());
                }
            }
            // It has just gone, or was never there.
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(walk_error(e)),
        }
    }
    files.extend(
        tracked
            .files
            .iter()
            .filter(|f| f.starts_with(at))
            .filter(|f| *f == at || !own.matched_path_or_any_parents(f, false).is_ignore())
            .cloned(),
    );
    Ok(files)
}

fn patterns<'p>(
    at: &Path,
    lines: impl Iterator<Item = &'p str>,
) -> Result<Gitignore, ignore::Error> {
    let mut builder = GitignoreBuilder::new(at);
    for line in lines {
        builder.add_line(None, line)?;
    }
    builder.build()
}

fn is_gone(e: &ignore::Error) -> bool {
    match e {
        ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } => is_gone(err),
        _ => e
            .io_error()
            .is_some_and(|e| e.kind() == io::ErrorKind::NotFound),
    }
}

/// What a file is and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    sort: &'static str,
    hash: [u8; 32],
}

impl Print {
    /// Both in one hash.
    pub(crate) fn material(&self) -> [u8; 32] {
        let mut sha = Sha256::new();
        sha.update(self.sort);
        sha.update(self.hash);
        sha.finalize().into()
    }
}

impl std::fmt::Display for Print {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sha256:{}", self.sort, hex::encode(self.hash))
    }
}

/// The prints of files, in their order, made by as many threads as the machine has
/// processors; nothing for what went away meanwhile and for what holds no data (sockets,
/// pipes, devices, submodules).
pub(crate) fn prints(paths: &[PathBuf]) -> Result<Vec<Option<Print>>, CoverageError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, path)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            paths.get(at).map(|p| (at, p))
        } {
            match print(path) {
                Ok(print) => done.push((at, print)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(CoverageError::Read {
                        path: path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut all = vec![None; paths.len()];
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(paths.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .map(|w| {
                w.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    for result in results {
        for (at, print) in result? {
            all[at] = print;
        }
    }
    Ok(all)
}

fn print(path: &Path) -> io::Result<Option<Print>> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return link(path).map(Some);
    }
    if !meta.is_file() {
        return Ok(None);
    }
    // Should it have become a link or a pipe since, that is neither followed nor waited
    // for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut sha = Sha256::new();
    feed(&mut sha, file)?;
    Ok(Some(Print {
        sort: if meta.mode() & 0o111 == 0 {
            "file"
        } else {
            "executable"
        },
        hash: sha.finalize().into(),
    }))
}

/// A link is where it leads, and what the file there holds: that may lie anywhere.
fn link(path: &Path) -> io::Result<Print> {
    let target = fs::read_link(path)?;
    let mut sha = Sha256::new();
    let text = target.as_os_str().as_bytes();
    sha.update((text.len() as u64).to_le_bytes());
    sha.update(text);
    if fs::metadata(path).is_ok_and(|m| m.is_file()) {
        feed(&mut sha, File::open(path)?)?;
    }
    Ok(Print {
        sort: "link",
        hash: sha.finalize().into(),
    })
}

fn feed(sha: &mut Sha256, mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sha.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A path as the key of an input: relative to `root` where it lies inside. Bytes that are
/// no UTF-8 and the backslash are written as `\xNN`, so that no two paths share a key.
pub(crate) fn key(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let mut key = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        key.push_str(&chunk.valid().replace('\\', "\\x5c"));
        for byte in chunk.invalid() {
            key.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if key.is_empty() { ".".into() } else { key }
}
