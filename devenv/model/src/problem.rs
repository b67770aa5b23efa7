//! What is wrong with a project: one value per problem, complete enough to be
//! rendered without reading any file again.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::source::{Origin, SourceFile, Sources, Span};

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing can be started until this is mended.
    Error,
    /// Probably a mistake, but the system can run.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// A place in a source file: position for people, byte range for renderers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    source: Arc<SourceFile>,
    span: Range<usize>,
    origin: Origin,
}

impl Place {
    pub(crate) fn new(sources: &Sources, span: Span) -> Self {
        let source = sources.file(span.file).clone();
        let len = source.text().len();
        let (start, end) = (span.start as usize, span.end as usize);
        Self {
            span: start.min(len)..end.min(len).max(start.min(len)),
            origin: sources.origin(span),
            source,
        }
    }

    /// The file with its text.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// Byte range in the file's text; always within it and on character boundaries.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// File, line and column.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// One thing that is wrong, where, what was expected, and how to mend it.
///
/// `Display` gives the compiler-like form that editors and terminals understand:
///
/// ```text
/// kind/base/api1.yaml:4:14: error[manifest::illegal-name]: the message
///   expected: …
///   help: …
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Stable name of this sort of problem, such as `manifest::illegal-name`.
    pub code: &'static str,
    /// What is wrong, naming the object or key.
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// Where it stands.
    pub place: Place,
    /// Other places that belong to it (the first of two duplicates), with what is there.
    pub related: Vec<(Place, String)>,
}

impl Problem {
    /// Path of the file, relative to the project's root.
    pub fn file(&self) -> &str {
        &self.place.origin.file
    }

    /// Line, from 1.
    pub fn line(&self) -> u32 {
        self.place.origin.line
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> u32 {
        self.place.origin.column
    }

    /// Whether the project can't run because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            severity,
            code,
            message,
            ..
        } = self;
        write!(f, "{}: {severity}[{code}]: {message}", self.place.origin)?;
        if let Some(expected) = &self.expected {
            write!(f, "\n  expected: {}", indented(expected))?;
        }
        for (place, what) in &self.related {
            write!(f, "\n  {what}: {}", place.origin)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", indented(help))?;
        }
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// A problem while loading, when the files' texts are still being collected.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub severity: Severity,
    pub code: &'static str,
    pub span: Span,
    pub message: String,
    pub expected: Option<String>,
    pub help: Option<String>,
    pub related: Vec<(Span, String)>,
}

impl Draft {
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            span,
            message: message.into(),
            expected: None,
            help: None,
            related: Vec::new(),
        }
    }

    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    pub(crate) fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(text.into());
        self
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    pub(crate) fn maybe_help(mut self, text: Option<String>) -> Self {
        self.help = text.or(self.help);
        self
    }

    pub(crate) fn related(mut self, span: Span, what: impl Into<String>) -> Self {
        self.related.push((span, what.into()));
        self
    }
}

/// Nobody reads further; what remains is found again by the next load.
const MAX_PROBLEMS: usize = 1000;

/// Turns drafts into problems, sorted by file and position, each said once.
pub(crate) fn finish(mut drafts: Vec<Draft>, sources: &Sources) -> Vec<Problem> {
    if drafts.len() > MAX_PROBLEMS {
        drafts.sort_by_key(|d| (d.severity, d.span));
        drafts.truncate(MAX_PROBLEMS);
    }
    let mut problems: Vec<Problem> = drafts
        .into_iter()
        .map(|d| Problem {
            severity: d.severity,
            code: d.code,
            message: d.message,
            expected: d.expected,
            help: d.help,
            place: Place::new(sources, d.span),
            related: d
                .related
                .into_iter()
                .map(|(span, what)| (Place::new(sources, span), what))
                .collect(),
        })
        .collect();
    problems.sort_by(|a, b| {
        (&a.place.origin, a.severity, a.code, &a.message).cmp(&(
            &b.place.origin,
            b.severity,
            b.code,
            &b.message,
        ))
    });
    // A file that two kustomizations name is read, and found wrong, twice.
    problems.dedup_by(|a, b| {
        a.place.origin == b.place.origin && a.code == b.code && a.message == b.message
    });
    problems
}
