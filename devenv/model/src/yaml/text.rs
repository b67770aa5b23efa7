//! The text that is parsed, and where its parts stand in a file.

use std::ops::Range;

use super::Reader;
use crate::source::{SourceFile, Span};

/// Where a text that is parsed came from: a whole file, or a block in another file
/// (an inline patch), whose positions are then those in that file.
#[derive(Clone, Debug)]
pub(crate) struct Text<'t> {
    pub file: u32,
    pub text: &'t str,
    pub reader: Reader,
    /// For every line of `text` where it begins there and where in the file; empty for a
    /// whole file.
    pub lines: Vec<(usize, usize)>,
    /// Where everything is said to stand if the lines can't be found again.
    pub fallback: Option<Span>,
}

impl<'t> Text<'t> {
    pub(crate) fn whole(file: u32, text: &'t str, reader: Reader) -> Self {
        Self {
            file,
            text,
            reader,
            lines: Vec::new(),
            fallback: None,
        }
    }

    /// The text of a scalar in `source`. A literal block keeps its lines, so each can be
    /// found again behind its indentation; other styles give the scalar's own position.
    pub(crate) fn embedded(
        source: &SourceFile,
        scalar: Span,
        text: &'t str,
        reader: Reader,
    ) -> Self {
        let first = source.line_index(scalar.start as usize);
        let mut lines = Vec::new();
        // The span may begin at the indicator or at the content: look for the first line.
        for from in first..first + 3 {
            let found: Option<Vec<(usize, usize)>> = text
                .split('\n')
                .enumerate()
                .map(|(i, line)| {
                    let begins = line.as_ptr() as usize - text.as_ptr() as usize;
                    let raw = source.line_text(from + i);
                    let start = source.line_start(from + i)?;
                    let lead = raw.len().checked_sub(line.len())?;
                    let blank = raw.get(..lead)?.chars().all(|c| c == ' ');
                    (blank && raw.ends_with(line)).then_some((begins, start + lead))
                })
                .collect();
            if let Some(found) = found {
                lines = found;
                break;
            }
        }
        let fallback = lines.is_empty().then_some(scalar);
        Self {
            file: scalar.file,
            text,
            reader,
            lines,
            fallback,
        }
    }

    pub(super) fn span(&self, range: Range<usize>) -> Span {
        if let Some(span) = self.fallback {
            return span;
        }
        if self.lines.is_empty() {
            return Span::new(self.file, range);
        }
        let place = |offset: usize| {
            let offset = offset.min(self.text.len());
            let line = self.lines.partition_point(|&(begins, _)| begins <= offset);
            let (begins, place) = self.lines[line.max(1) - 1];
            place + (offset - begins)
        };
        Span::new(self.file, place(range.start)..place(range.end))
    }
}
