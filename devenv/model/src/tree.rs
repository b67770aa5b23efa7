//! A YAML file of a project that is neither manifest nor `devenv.toml`, as a tree in
//! which every key and value knows its place: for crates that read a format of their own
//! and want to speak of it in the words that manifests get.

use std::ops::Range;

pub use crate::document::Noted;
use crate::names;
pub use crate::node::{Data, Entry, Node};
use crate::problem::{Draft, Problem, Severity, finish};
use crate::reading::MAX_FILE_BYTES;
pub use crate::source::Span;
use crate::source::{Origin, SourceFile, Sources};
use crate::yaml::{self, Reader, Text};

/// Files that are read together, and what is wrong with them so far.
#[derive(Debug, Default)]
pub struct Files {
    sources: Sources,
    problems: Vec<Draft>,
}

impl Files {
    /// Reads YAML as Compose does (go-yaml v3: `yes` and `on` are text, merge keys are
    /// merged). `name` is the path to show in messages. Nothing when the file holds
    /// nothing that can be read; the problems say why.
    pub fn compose(&mut self, name: &str, text: &str) -> Option<Node> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (file, text) = self.add(name, text)?;
        let source = self.sources.file(file).clone();
        let before = self.problems.len();
        let whole = Text::whole(file, source.text(), Reader::Compose);
        let mut documents = yaml::parse(&whole, &mut self.problems).into_iter();
        let first = documents.next();
        if let Some(second) = documents.next() {
            self.error(
                "yaml::documents",
                second.span,
                "a second document begins here",
            )
            .help("put everything into one document: remove the line \"---\"");
        }
        if first.is_none() && self.problems.len() == before {
            self.error(
                "yaml::empty",
                Span::new(file, 0..text.min(1)),
                "the file is empty",
            );
        }
        first
    }

    /// Keeps a file of another format, so that problems can point into it.
    /// Its positions are made by [`Files::place`]. Nothing when it is too large.
    pub fn other(&mut self, name: &str, text: &str) -> Option<FileId> {
        self.add(name, text).map(|(file, _)| FileId(file))
    }

    /// A byte range of a file.
    pub fn place(&self, file: FileId, range: Range<usize>) -> Span {
        Span::new(file.0, range)
    }

    /// What is written there.
    pub fn text(&self, span: Span) -> &str {
        self.sources.text(span)
    }

    /// File, line and column.
    pub fn origin(&self, span: Span) -> Origin {
        self.sources.origin(span)
    }

    /// Notes that something is wrong.
    pub fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Noted<'_> {
        self.note(Draft::error(code, span, message))
    }

    /// Notes what is probably a mistake.
    pub fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Noted<'_> {
        self.note(Draft::warning(code, span, message))
    }

    /// Whether anything is wrong that is more than a warning.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// All that is wrong, sorted by place.
    pub fn problems(self) -> Vec<Problem> {
        finish(self.problems, &self.sources)
    }

    fn note(&mut self, draft: Draft) -> Noted<'_> {
        self.problems.push(draft);
        let last = self.problems.len() - 1;
        Noted(&mut self.problems[last])
    }

    /// The file's number and length.
    fn add(&mut self, name: &str, text: &str) -> Option<(u32, usize)> {
        let fits = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= MAX_FILE_BYTES);
        let kept = if fits { text.to_owned() } else { String::new() };
        let file = self.sources.add(SourceFile::new(name, kept));
        if !fits {
            self.error("file::size", Span::new(file, 0..0), "the file is too large")
                .expected(format!("at most {MAX_FILE_BYTES} bytes"));
            return None;
        }
        Some((file, text.len()))
    }
}

/// A file in [`Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u32);

/// `"a"`, or `one of "a" and "b"`.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    names::one_of(words)
}

/// The candidate that `word` was most probably meant to be, if one is near enough.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names::closest(word, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_is_read_as_go_yaml_v3_does() {
        let mut files = Files::default();
        let root = files
            .compose("c.yaml", "a: yes\nb: &b {x: 1}\nc: {<<: *b, y: 2}\n")
            .unwrap();
        assert_eq!(root.get("a").unwrap().as_str(), Some("yes"));
        assert_eq!(root.get("c").unwrap().entries().len(), 2);
        assert!(!files.has_errors());
    }

    #[test]
    fn what_is_wrong_is_said_in_composes_name() {
        let mut files = Files::default();
        files.compose("c.yaml", "a: !reset null\na: .inf\n---\nb: 1\n");
        let said: Vec<String> = files.problems().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        c.yaml:1:4: error[yaml::unknown-tag]: the tag !reset means nothing to Compose
          expected: no tag, or one of "!!str", "!!int", "!!float", "!!bool" and "!!null"
          help: remove the tag; quote the value if it is text
        c.yaml:2:1: error[yaml::duplicate-key]: the key "a" is given twice in the same mapping
          first given at: c.yaml:1:1
          help: keep one of the two
        c.yaml:2:4: error[yaml::number]: .inf is a number that Compose can't hold
          expected: a 64-bit number
          help: quote it if it is text: ".inf"
        c.yaml:4:1: error[yaml::documents]: a second document begins here
          help: put everything into one document: remove the line "---"
        "#);
    }

    #[test]
    fn an_empty_file_is_said() {
        let mut files = Files::default();
        assert!(files.compose("c.yaml", "# nothing\n").is_none());
        assert_eq!(files.problems()[0].code, "yaml::empty");
    }
}
