//! Source files as they were read, and positions in them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A file that was read while loading, kept whole so that a message can show the
/// line it speaks of without reading the file again.
#[derive(PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Keeps `text` under `name`, the path shown in messages (relative to the project).
    pub fn new(name: impl Into<Arc<str>>, text: String) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(i, _)| i + 1));
        Self {
            name: name.into(),
            text,
            line_starts,
        }
    }

    /// The path shown in messages, relative to the project's root where it lies inside.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text as read (without a byte order mark).
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column (both from 1, columns in characters) of a byte offset.
    /// An offset past the end gives the end.
    pub fn line_column(&self, offset: usize) -> (u32, u32) {
        let offset = floor(&self.text, offset);
        let line = self.line_starts.partition_point(|&s| s <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text[start..offset].chars().count() + 1;
        (to_u32(line), to_u32(column))
    }

    /// The byte offset where the line (from 0) begins, if there is such a line.
    pub(crate) fn line_start(&self, line: usize) -> Option<usize> {
        self.line_starts.get(line).copied()
    }

    /// The index (from 0) of the line that holds a byte offset.
    pub(crate) fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&s| s <= offset).max(1) - 1
    }

    /// The text of a line (from 0) without its line break.
    pub(crate) fn line_text(&self, line: usize) -> &str {
        let Some(start) = self.line_start(line) else {
            return "";
        };
        let end = self.line_start(line + 1).unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may hold secrets and is long: name and size tell enough.
        f.debug_struct("SourceFile")
            .field("name", &self.name)
            .field("bytes", &self.text.len())
            .finish()
    }
}

/// Where something stands: what a person clicks on in a terminal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Path relative to the project's root.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A byte range in one of the files that were read together. Small and copied freely:
/// every node carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(file: u32, range: Range<usize>) -> Self {
        Self {
            file,
            start: to_u32(range.start),
            end: to_u32(range.end.max(range.start)),
        }
    }
}

/// All files read by one load, in the order of reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    files: Vec<Arc<SourceFile>>,
}

impl Sources {
    pub(crate) fn add(&mut self, file: SourceFile) -> u32 {
        self.files.push(Arc::new(file));
        to_u32(self.files.len() - 1)
    }

    /// The file of a span. Spans are only made for files in here.
    pub(crate) fn file(&self, id: u32) -> &Arc<SourceFile> {
        &self.files[id as usize]
    }

    pub(crate) fn text(&self, span: Span) -> &str {
        self.file(span.file)
            .text()
            .get(span.start as usize..span.end as usize)
            .unwrap_or("")
    }

    pub(crate) fn origin(&self, span: Span) -> Origin {
        let file = self.file(span.file);
        let (line, column) = file.line_column(span.start as usize);
        Origin {
            file: file.name.clone(),
            line,
            column,
        }
    }
}

/// The nearest character boundary at or before `offset`.
pub(crate) fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Files are refused above `reading::MAX_FILE_BYTES`, so offsets and lines fit.
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_offsets_past_the_end_are_the_end() {
        let f = SourceFile::new("a", "añb: 1\r\nc\n".into());
        assert_eq!(f.line_column(0), (1, 1));
        assert_eq!(f.line_column(3), (1, 3), "ñ is one column, two bytes");
        assert_eq!(f.line_column(2), (1, 2), "inside ñ");
        assert_eq!(f.line_column(9), (2, 1));
        assert_eq!(f.line_column(99), (3, 1));
        assert_eq!(f.line_text(0), "añb: 1");
        assert_eq!(f.line_text(7), "");
    }
}
