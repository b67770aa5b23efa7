//! YAML (and with it JSON) into [`Node`] trees, the way Kubernetes reads it: plain
//! scalars after YAML 1.1 (see [`scalar`]), merge keys, anchors within a document.
//!
//! Everything that would be read differently than it looks, or that could exhaust the
//! machine, is an error with a position: keys given twice, unknown tags, nesting beyond
//! [`MAX_DEPTH`], aliases that expand to more than [`MAX_NODES`] values.

mod scalar;
mod text;

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span as YamlSpan, Tag};

use crate::names::listed;
use crate::node::{Data, Entry, MAX_DEPTH, Node, shortened};
use crate::problem::Draft;
use crate::source::{Span, floor};
pub(crate) use scalar::Reader;
use scalar::{Scalar, resolve};
pub(crate) use text::Text;

/// How many values one file may hold, aliases expanded.
const MAX_NODES: usize = 200_000;

/// Reads all documents; empty ones are left out. A document with a syntax error is
/// reported and skipped, the ones after it are still read.
pub(crate) fn parse(text: &Text<'_>, problems: &mut Vec<Draft>) -> Vec<Node> {
    // The parser itself allows a few more levels, so that our own message comes first.
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH + 8,
        block_nesting_limit: MAX_DEPTH + 8,
        simple_key_max_lookahead: 4096,
    };
    let mut parser = Parser::new_from_str_with_options(text.text, options);
    let mut documents = Vec::new();
    let mut budget = MAX_NODES;
    loop {
        let mut builder = Builder {
            text,
            problems: &mut *problems,
            budget: &mut budget,
            stack: Vec::new(),
            anchors: HashMap::new(),
            started: false,
            done: None,
        };
        let outcome = builder.document(&mut parser);
        let (done, started) = (builder.done.take(), builder.started);
        match outcome {
            Ok(Read::Document) => documents.extend(done.filter(|n| !n.is_null())),
            Ok(Read::End) => return documents,
            Err(stop) => {
                // A document that seems to end and is then followed by something that
                // can't be read was not understood either (` a: 1` above `b: 2`).
                if !started {
                    documents.pop();
                }
                let whole_file = stop == Stop::File;
                if whole_file || !matches!(parser.proceed_next_document(), Ok(true)) {
                    return documents;
                }
            }
        }
    }
}

enum Read {
    Document,
    End,
}

/// Why reading stopped; the problem has been reported.
#[derive(PartialEq)]
enum Stop {
    Document,
    File,
}

enum Frame {
    Seq {
        items: Vec<Node>,
        start: Range<usize>,
        anchor: usize,
    },
    Map {
        entries: Vec<Entry>,
        seen: HashMap<String, Span>,
        /// The mappings that `<<` names, in order of precedence.
        merged: Vec<Node>,
        key: Option<Key>,
        start: Range<usize>,
        anchor: usize,
    },
}

enum Key {
    Named(String, Span),
    Merge(Span),
    /// Reported already: its value is read and dropped.
    Broken,
}

/// An anchored value: with its size and depth, which an alias to it adds.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

struct Builder<'p, 't> {
    text: &'p Text<'t>,
    problems: &'p mut Vec<Draft>,
    budget: &'p mut usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    /// The beginning of a document has been seen.
    started: bool,
    done: Option<Node>,
}

type StrParser<'t> = Parser<'t, granit_parser::StrInput<'t>>;

impl<'t> Builder<'_, 't> {
    fn document(&mut self, parser: &mut StrParser<'t>) -> Result<Read, Stop> {
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|e| self.syntax_error(&e))?;
            let range = span.byte_range().unwrap_or(0..0);
            match event {
                Event::DocumentStart(..) => self.started = true,
                Event::DocumentEnd => return Ok(Read::Document),
                Event::StreamEnd => return Ok(Read::End),
                Event::Scalar(value, style, anchor, tag) => {
                    self.scalar(&value, style, anchor, tag.as_deref(), &span, range)?;
                }
                Event::Alias(id) => self.alias(id, range)?,
                Event::SequenceStart(_, anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "seq", &span);
                    self.open(Frame::Seq {
                        items: Vec::new(),
                        start: range,
                        anchor,
                    })?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "map", &span);
                    self.open(Frame::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        merged: Vec::new(),
                        key: None,
                        start: range,
                        anchor,
                    })?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(range.end)?,
                _ => {}
            }
        }
        Ok(Read::End)
    }

    fn syntax_error(&mut self, error: &granit_parser::ScanError) -> Stop {
        let offset = error.marker().byte_offset().unwrap_or(0);
        let span = self.text.span(offset..offset);
        let kind = error.info();
        if kind.contains("recursion limit") {
            return self.too_deep(offset..offset);
        }
        let line_start = self.text.text[..floor(self.text.text, offset)]
            .rfind('\n')
            .map_or(0, |i| i + 1);
        let line = self.text.text[line_start..].lines().next().unwrap_or("");
        let indent_has_tab = line
            .chars()
            .take_while(|c| c.is_whitespace())
            .any(|c| c == '\t');
        let help = if indent_has_tab && kind.contains("tab") {
            "YAML does not allow tabs for indentation: use spaces"
        } else if line.contains("{{") || line.contains("{%") {
            "this looks like a template (Helm, Jinja): devenv reads plain manifests, so render it first"
        } else if line.trim_start().starts_with(['@', '`', '%']) || line.contains(": @") {
            "quote a value that begins with a special character"
        } else if kind.contains("mapping values") || line.matches(": ").count() > 1 {
            "quote a value that contains \": \", and check the indentation of this line"
        } else {
            "check the indentation, brackets and quotes of this line and the one before it"
        };
        self.problems.push(
            Draft::error("yaml::syntax", span, format!("this is not YAML: {kind}")).help(help),
        );
        Stop::Document
    }

    fn spend(&mut self, nodes: usize, at: Range<usize>) -> Result<(), Stop> {
        if let Some(left) = self.budget.checked_sub(nodes) {
            *self.budget = left;
            return Ok(());
        }
        self.problems.push(
            Draft::error(
                "yaml::too-big",
                self.text.span(at),
                format!("with this the file holds more than {MAX_NODES} values, aliases expanded"),
            )
            .help("write the repeated parts out, or split the file"),
        );
        Err(Stop::File)
    }

    fn too_deep(&mut self, at: Range<usize>) -> Stop {
        self.problems.push(
            Draft::error(
                "yaml::too-deep",
                self.text.span(at),
                format!("more than {MAX_DEPTH} levels of nesting"),
            )
            .help(format!(
                "nothing of {} nests this deep: look for a bracket or indentation that was never closed",
                self.text.reader.name()
            )),
        );
        Stop::Document
    }

    fn open(&mut self, frame: Frame) -> Result<(), Stop> {
        let at = match &frame {
            Frame::Seq { start, .. } | Frame::Map { start, .. } => start.clone(),
        };
        self.spend(1, at.clone())?;
        if let Some(Frame::Map { key: None, .. }) = self.stack.last() {
            // A list or mapping where a key belongs: `? [a]` or `{a}: b`, most often an
            // unquoted `{{ template }}`.
            let line = self.text.text[at.start.min(self.text.text.len())..]
                .lines()
                .next()
                .unwrap_or("");
            let help = if line.contains('}') {
                "quote the value if it holds braces; a template (Helm, Jinja) must be rendered first"
            } else {
                "write the key as a plain word"
            };
            self.problems.push(
                Draft::error(
                    "yaml::key-not-scalar",
                    self.text.span(at),
                    "a list or mapping stands where a key must stand",
                )
                .help(help),
            );
            return Err(Stop::Document);
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self, end: usize) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        match frame {
            Frame::Seq {
                items,
                start,
                anchor,
            } => {
                let span = self.collection_span(&start, end);
                self.add(Node::new(Data::Seq(items), span), anchor, start)
            }
            Frame::Map {
                mut entries,
                mut seen,
                merged,
                start,
                anchor,
                ..
            } => {
                for map in merged {
                    for entry in map.entries() {
                        if !seen.contains_key(&entry.key) {
                            seen.insert(entry.key.clone(), entry.key_span);
                            entries.push(entry.clone());
                        }
                    }
                }
                let span = self.collection_span(&start, end);
                self.add(Node::new(Data::Map(entries), span), anchor, start)
            }
        }
    }

    /// A collection is shown by the rest of its first line: nobody wants a page underlined.
    fn collection_span(&self, start: &Range<usize>, end: usize) -> Span {
        let text = self.text.text;
        let from = floor(text, start.start);
        let line = text[from..].lines().next().unwrap_or("").trim_end();
        let shown = line.find(" #").map_or(line, |i| line[..i].trim_end());
        self.text
            .span(from..(from + shown.len()).min(end.max(from)))
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: &YamlSpan,
        range: Range<usize>,
    ) -> Result<(), Stop> {
        self.spend(1, range.clone())?;
        let plain = style == ScalarStyle::Plain;
        let shown = self.text.span(range.clone());
        let resolved = match tag {
            None if plain => resolve(value, self.text.reader),
            None => Scalar::String,
            Some(tag) => self.tagged(value, tag, span),
        };
        if let Some(Frame::Map { key: None, .. }) = self.stack.last() {
            return self.key(value, &resolved, plain && tag.is_none(), shown);
        }
        let data = match resolved {
            Scalar::String => Data::String(value.into()),
            Scalar::Null => Data::Null,
            Scalar::Bool(b) => Data::Bool(b),
            Scalar::Number(n) => Data::Number(n),
            Scalar::NotJson => {
                self.problems.push(
                    Draft::error(
                        "yaml::number",
                        shown,
                        format!(
                            "{value} is a number that {} can't hold",
                            self.text.reader.name()
                        ),
                    )
                    .expected("a 64-bit number")
                    .help(format!("quote it if it is text: \"{value}\"")),
                );
                Data::String(value.into())
            }
        };
        self.add(Node::new(data, shown), anchor, range)
    }

    fn tagged(&mut self, value: &str, tag: &Tag, span: &YamlSpan) -> Scalar {
        let resolved = resolve(value, self.text.reader);
        let fits = match tag.core_suffix() {
            Some("str") => return Scalar::String,
            // The non-specific tag `!` also means: text as it stands.
            None if tag.handle() == "!" && tag.suffix().is_empty() => return Scalar::String,
            None if tag.handle().is_empty() && tag.suffix() == "!" => return Scalar::String,
            Some("int") => matches!(&resolved, Scalar::Number(n) if !n.is_f64()),
            Some("float") => matches!(&resolved, Scalar::Number(_)),
            Some("bool") => matches!(&resolved, Scalar::Bool(_)),
            Some("null") => matches!(&resolved, Scalar::Null),
            _ => {
                self.unknown_tag(tag, span);
                return Scalar::String;
            }
        };
        if fits {
            return resolved;
        }
        let shown = self.text.span(span.byte_range().unwrap_or(0..0));
        self.problems.push(Draft::error(
            "yaml::tag-mismatch",
            shown,
            format!(
                "{} is not what its tag {} says",
                shortened(value),
                tag.original()
            ),
        ));
        Scalar::String
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, wanted: &str, span: &YamlSpan) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(wanted)
        {
            self.unknown_tag(tag, span);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: &YamlSpan) {
        let at = span.tag_span().unwrap_or(*span);
        let shown = self.text.span(at.byte_range().unwrap_or(0..0));
        self.problems.push(
            Draft::error(
                "yaml::unknown-tag",
                shown,
                format!(
                    "the tag {} means nothing to {}",
                    tag.original(),
                    self.text.reader.name()
                ),
            )
            .expected(format!(
                "no tag, or one of {}",
                listed(["!!str", "!!int", "!!float", "!!bool", "!!null"])
            ))
            .help("remove the tag; quote the value if it is text"),
        );
    }

    fn key(&mut self, value: &str, resolved: &Scalar, plain: bool, span: Span) -> Result<(), Stop> {
        let name = match resolved {
            Scalar::String if plain && value == "<<" => None,
            Scalar::String => Some(value.to_owned()),
            Scalar::Number(n) => Some(n.to_string()),
            Scalar::Bool(b) => Some(b.to_string()),
            Scalar::Null | Scalar::NotJson => {
                self.problems.push(
                    Draft::error(
                        "yaml::key-not-string",
                        span,
                        format!(
                            "{} can't be a key",
                            if value.is_empty() { "nothing" } else { value }
                        ),
                    )
                    .help(format!("quote it: \"{value}\"")),
                );
                self.set_key(Key::Broken);
                return Ok(());
            }
        };
        let Some(name) = name else {
            self.set_key(Key::Merge(span));
            return Ok(());
        };
        if name != value {
            self.problems.push(
                Draft::warning(
                    "yaml::key-not-string",
                    span,
                    format!(
                        "{} reads the unquoted key {value} as {name:?}",
                        self.text.reader.name()
                    ),
                )
                .help(format!("quote it: \"{value}\"")),
            );
        }
        let Some(Frame::Map { seen, key, .. }) = self.stack.last_mut() else {
            return Ok(());
        };
        if let Some(&first) = seen.get(&name) {
            *key = Some(Key::Broken);
            self.problems.push(
                Draft::error(
                    "yaml::duplicate-key",
                    span,
                    format!(
                        "the key {} is given twice in the same mapping",
                        shortened(&name)
                    ),
                )
                .related(first, "first given at")
                .help(match self.text.reader {
                    Reader::Compose => "keep one of the two",
                    _ => "keep one of the two: Kubernetes would silently take the last",
                }),
            );
        } else {
            seen.insert(name.clone(), span);
            *key = Some(Key::Named(name, span));
        }
        Ok(())
    }

    fn set_key(&mut self, new: Key) {
        if let Some(Frame::Map { key, .. }) = self.stack.last_mut() {
            *key = Some(new);
        }
    }

    fn alias(&mut self, id: usize, range: Range<usize>) -> Result<(), Stop> {
        let span = self.text.span(range.clone());
        let Some(target) = self.anchors.get(&id) else {
            // The parser resolves names; only an alias inside its own anchor has no value yet.
            self.problems.push(
                Draft::error("yaml::recursive-alias", span, "this alias contains itself")
                    .help("write the value out"),
            );
            return Err(Stop::Document);
        };
        let (nodes, depth) = (target.nodes, target.depth);
        if self.stack.len() + depth > MAX_DEPTH {
            return Err(self.too_deep(range));
        }
        self.spend(nodes, range.clone())?;
        let Some(node) = self.anchors.get(&id).map(|a| a.node.clone()) else {
            return Ok(());
        };
        if let Some(Frame::Map { key: None, .. }) = self.stack.last() {
            let resolved = match &node.data {
                Data::String(_) => Scalar::String,
                Data::Number(n) => Scalar::Number(n.clone()),
                Data::Bool(b) => Scalar::Bool(*b),
                _ => Scalar::Null,
            };
            let name = node.as_str().unwrap_or("").to_owned();
            return self.key(&name, &resolved, false, span);
        }
        self.add(node, 0, range)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, at: Range<usize>) -> Result<(), Stop> {
        if anchor != 0 {
            let (nodes, depth) = node.measure();
            // The copy kept for aliases counts too: anchors may nest.
            self.spend(nodes, at)?;
            let node = node.clone();
            self.anchors.insert(anchor, Anchored { node, nodes, depth });
        }
        match self.stack.last_mut() {
            None => self.done = Some(node),
            Some(Frame::Seq { items, .. }) => items.push(node),
            Some(Frame::Map {
                entries,
                merged,
                key,
                ..
            }) => match key.take() {
                Some(Key::Named(key, key_span)) => entries.push(Entry {
                    key,
                    key_span,
                    value: node,
                }),
                Some(Key::Merge(span)) => {
                    let maps = match node.data {
                        Data::Seq(items) => items,
                        _ => vec![node],
                    };
                    if maps.iter().any(|m| !matches!(m.data, Data::Map(_))) {
                        self.problems.push(
                            Draft::error(
                                "yaml::merge",
                                span,
                                "`<<` merges something that is no mapping",
                            )
                            .expected("an alias of a mapping, or a list of such aliases"),
                        );
                    } else {
                        merged.extend(maps);
                    }
                }
                Some(Key::Broken) | None => {}
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
