//! Reading files while loading: each once, bounded, with its problems noted.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::names::closest;
use crate::problem::{Draft, Severity};
use crate::source::{SourceFile, Sources, Span};

/// No file of a project's description is larger; a larger one was named by mistake.
/// It also keeps every byte offset within 32 bits.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;

/// The state of one load.
pub(crate) struct Reading {
    pub root: PathBuf,
    pub sources: Sources,
    pub problems: Vec<Draft>,
    /// Kustomize folders built so far: folders that include each other twice multiply.
    pub builds: usize,
    /// What was asked of the file system; see [`crate::Loaded::inputs`].
    pub inputs: BTreeSet<PathBuf>,
    /// Files already read; nothing for those that couldn't be.
    known: HashMap<PathBuf, Option<u32>>,
}

impl Reading {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            sources: Sources::default(),
            problems: Vec::new(),
            builds: 0,
            inputs: BTreeSet::new(),
            known: HashMap::new(),
        }
    }

    /// The name under which a path is shown.
    pub(crate) fn name(&self, path: &Path) -> String {
        relative(&self.root, path)
    }

    /// Notes that what is loaded depends on a path, whether there is anything or not.
    pub(crate) fn asked(&mut self, path: &Path) -> PathBuf {
        let path = normal(path);
        self.inputs.insert(path.clone());
        path
    }

    /// Reads a file, or says why not at `wanted`, where the file was asked for.
    pub(crate) fn file(&mut self, path: &Path, wanted: Span) -> Option<u32> {
        let path = self.asked(path);
        if let Some(known) = self.known.get(&path) {
            return *known;
        }
        let id = match read_text(&path) {
            Ok(text) => Some(self.add(&path, text)),
            Err(failure) => {
                let draft = self.failure(&path, wanted, failure);
                self.problems.push(draft);
                None
            }
        };
        self.known.insert(path, id);
        id
    }

    /// Reads a file that need not be there. What is wrong with it is no error: the project
    /// may not need it.
    pub(crate) fn optional(&mut self, path: &Path, wanted: Span) -> Option<u32> {
        let path = self.asked(path);
        if !path.is_file() {
            return None;
        }
        let before = self.problems.len();
        let id = self.file(&path, wanted);
        for problem in &mut self.problems[before..] {
            problem.severity = Severity::Warning;
        }
        id
    }

    /// The text of a file that is only looked at; nothing if it can't be read.
    pub(crate) fn peek(&self, path: &Path) -> Option<String> {
        read_text(path).ok()
    }

    /// Keeps a text under a path's name.
    pub(crate) fn add(&mut self, path: &Path, text: String) -> u32 {
        let name = self.name(path);
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        self.sources.add(SourceFile::new(name, text))
    }

    fn failure(&mut self, path: &Path, wanted: Span, failure: Unreadable) -> Draft {
        let name = self.name(path);
        match failure {
            Unreadable::Io(error) => io_draft(&name, path, wanted, &error),
            Unreadable::TooBig(bytes) => {
                Draft::error("file::too-big", wanted, format!("{name} has {bytes} bytes"))
                    .expected(format!("at most {MAX_FILE_BYTES} bytes"))
                    .help("name only the files that describe the system")
            }
            Unreadable::NotAFile => Draft::error(
                "file::unreadable",
                wanted,
                format!("{name} is no regular file"),
            ),
            Unreadable::NotUtf8 { valid, at } => {
                let id = self.add(path, valid);
                Draft::error(
                    "file::not-utf8",
                    Span::new(id, at..at),
                    "the file is not UTF-8 from here on",
                )
                .help("save it as UTF-8")
            }
        }
    }
}

/// A message about a path that can't be opened: with the nearest name beside it.
pub(crate) fn io_draft(name: &str, path: &Path, wanted: Span, error: &io::Error) -> Draft {
    if error.kind() == io::ErrorKind::NotFound {
        return Draft::error("file::missing", wanted, format!("{name} does not exist"))
            .maybe_help(beside(path));
    }
    Draft::error(
        "file::unreadable",
        wanted,
        format!("{name} can't be read: {error}"),
    )
}

fn beside(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let names: Vec<String> = fs::read_dir(path.parent()?)
        .ok()?
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    closest(wanted, names.iter().map(String::as_str)).map(|n| format!("did you mean {n:?}?"))
}

enum Unreadable {
    Io(io::Error),
    TooBig(u64),
    NotAFile,
    NotUtf8 { valid: String, at: usize },
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    let meta = fs::metadata(path).map_err(Unreadable::Io)?;
    // Opening a FIFO would wait for a writer.
    if !meta.is_file() {
        return Err(Unreadable::NotAFile);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|f| f.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(Unreadable::Io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unreadable::TooBig(meta.len().max(bytes.len() as u64)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..at]).into_owned();
        Unreadable::NotUtf8 { valid, at }
    })
}

/// `a/./b/../c` as `a/c`, without asking the file system.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

/// `path` as seen from `root`, with `/`, going up with `..` where it must.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let (root, path) = (normal(root), normal(path));
    let shared = root
        .components()
        .zip(path.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = root.components().count() - shared;
    let mut parts: Vec<String> = vec!["..".into(); up];
    parts.extend(
        path.components()
            .skip(shared)
            .map(|c| c.as_os_str().to_string_lossy().into_owned()),
    );
    if parts.is_empty() {
        ".".into()
    } else {
        parts.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/p", "/p/a/b.yaml", "a/b.yaml")]
    #[case("/p", "/p/a/../b.yaml", "b.yaml")]
    #[case("/p/q", "/p/x/y", "../x/y")]
    #[case("/p", "/p/.", ".")]
    fn shown_from_the_root(#[case] root: &str, #[case] path: &str, #[case] want: &str) {
        assert_eq!(relative(Path::new(root), Path::new(path)), want);
    }
}
