//! Checks a [`Node`] tree against a Rust type, with every mistake and where it stands.
//!
//! serde stops at the first mismatch. Here a value that doesn't fit is noted, then left
//! out, and the rest is tried again, so that all mismatches of an object come at once.
//! Keys that the type doesn't have are noted together with those it does have: derived
//! and generated `Deserialize` implementations hand over their field names.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::node::{Data, Entry, Node, Path, Step};
use crate::problem::Draft;
use crate::source::{Sources, Span};

/// What came of reading a tree as a `T`.
#[derive(Debug)]
pub(crate) struct Checked<T> {
    /// The value, read without the parts that didn't fit; nothing if the root didn't.
    pub value: Option<T>,
    pub mismatches: Vec<Mismatch>,
    pub unknown: Vec<Unknown>,
}

impl<T> Checked<T> {
    /// Only the findings.
    pub(crate) fn findings(self) -> Checked<()> {
        Checked {
            value: self.value.map(|_| ()),
            mismatches: self.mismatches,
            unknown: self.unknown,
        }
    }
}

/// A value of the wrong type or outside the accepted range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mismatch {
    pub path: Path,
    pub span: Span,
    /// `the string "two"`.
    pub found: String,
    /// `an integer`; empty if only `message` is known.
    pub expected: String,
    /// What the type itself said, if it was no plain mismatch.
    pub message: Option<String>,
    /// The words that would have been accepted, where there are few.
    pub choices: &'static [&'static str],
    /// What was written, if it was text.
    pub written: Option<String>,
}

/// A key that the type doesn't have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unknown {
    pub path: Path,
    pub key: String,
    pub span: Span,
    pub known: &'static [&'static str],
}

/// After so many mismatches in one object, more would not help anybody.
const MAX_MISMATCHES: usize = 50;

/// Reads `node` as a `T`.
pub(crate) fn check<'n, T: serde::Deserialize<'n>>(node: &'n Node) -> Checked<T> {
    let mut mismatches = Vec::new();
    let mut skip = HashSet::new();
    loop {
        let run = Run {
            unknown: RefCell::default(),
            skip: &skip,
        };
        let reader = Reader {
            node,
            run: &run,
            path: Path::default(),
        };
        let outcome = T::deserialize(reader);
        let unknown = run.unknown.into_inner();
        let error = match outcome {
            Ok(value) => {
                return Checked {
                    value: Some(value),
                    mismatches,
                    unknown,
                };
            }
            Err(error) => error,
        };
        let place = error.place.unwrap_or(ErrorPlace {
            id: id(node),
            path: Path::default(),
            span: node.span,
            found: node.described(),
            written: None,
        });
        let at_root = place.id == id(node);
        let new = skip.insert(place.id);
        mismatches.push(Mismatch {
            path: place.path,
            span: place.span,
            found: error.found.unwrap_or(place.found),
            expected: error.expected,
            message: error.message,
            choices: error.choices,
            written: place.written,
        });
        if at_root || !new || mismatches.len() >= MAX_MISMATCHES {
            return Checked {
                value: None,
                mismatches,
                unknown,
            };
        }
    }
}

/// Nodes don't move while they are read: the address names one.
fn id(node: &Node) -> usize {
    std::ptr::from_ref(node) as usize
}

struct Run<'s> {
    unknown: RefCell<Vec<Unknown>>,
    skip: &'s HashSet<usize>,
}

#[derive(Debug)]
struct ErrorPlace {
    id: usize,
    path: Path,
    span: Span,
    found: String,
    written: Option<String>,
}

#[derive(Debug)]
pub(crate) struct ReadError {
    place: Option<ErrorPlace>,
    found: Option<String>,
    expected: String,
    message: Option<String>,
    choices: &'static [&'static str],
}

impl ReadError {
    fn expected(text: impl Into<String>) -> Self {
        Self {
            place: None,
            found: None,
            expected: text.into(),
            message: None,
            choices: &[],
        }
    }

    /// The innermost value that an error passes is the one it is about.
    fn at(mut self, node: &Node, path: &Path) -> Self {
        if self.place.is_none() {
            self.place = Some(ErrorPlace {
                id: id(node),
                path: path.clone(),
                span: node.span,
                found: node.described(),
                written: node.as_str().map(str::to_owned),
            });
        }
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => f.write_str(message),
            None => write!(f, "expected {}", self.expected),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        Self {
            message: Some(msg.to_string()),
            ..Self::expected("")
        }
    }

    fn invalid_type(_: Unexpected<'_>, exp: &dyn Expected) -> Self {
        Self::expected(plain_words(&exp.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, exp: &dyn Expected) -> Self {
        // The value fits the type but not its range; `found` comes from the node.
        Self::expected(plain_words(&exp.to_string()))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self {
            choices: expected,
            ..Self::expected(crate::names::one_of(expected.iter().copied()))
        }
    }
}

/// serde and k8s-openapi speak of Rust types; people of YAML.
fn plain_words(expected: &str) -> String {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer".into(),
        "u8" | "u32" | "u64" | "usize" => "a whole number from 0".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "f32" | "f64" => "a number".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        "IntOrString" => "an integer or a string".into(),
        "Quantity" => "a quantity such as \"500m\" or \"128Mi\"".into(),
        "Time" | "MicroTime" => "a time such as \"2026-01-31T12:00:00Z\"".into(),
        other => other.into(),
    }
}

struct Reader<'n, 'r> {
    node: &'n Node,
    run: &'r Run<'r>,
    path: Path,
}

impl<'n> Reader<'n, '_> {
    fn mismatch(&self, expected: &str) -> ReadError {
        ReadError::expected(expected).at(self.node, &self.path)
    }
}

impl<'n, 'r> Deserializer<'n> for Reader<'n, 'r> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let (node, path) = (self.node, self.path.clone());
        match &node.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(b) => visitor.visit_bool(*b),
            Data::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), _, _) => visitor.visit_i64(i),
                (None, Some(u), _) => visitor.visit_u64(u),
                (None, None, Some(f)) => visitor.visit_f64(f),
                _ => return Err(self.mismatch("a 64-bit number")),
            },
            Data::String(s) => visitor.visit_borrowed_str(s),
            Data::Seq(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                reader: &self,
            }),
            Data::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                current: None,
                reader: &self,
                known: None,
            }),
        }
        .map_err(|e: ReadError| e.at(node, &path))
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let (node, path) = (self.node, self.path.clone());
        visitor
            .visit_newtype_struct(self)
            .map_err(|e: ReadError| e.at(node, &path))
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let (node, path) = (self.node, self.path.clone());
        let Data::Map(entries) = &node.data else {
            return Err(self.mismatch("a mapping"));
        };
        visitor
            .visit_map(Entries {
                entries: entries.iter(),
                current: None,
                reader: &self,
                known: Some(fields),
            })
            .map_err(|e: ReadError| e.at(node, &path))
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let (node, path) = (self.node, self.path.clone());
        let Some(word) = node.as_str() else {
            return Err(self.mismatch(&crate::names::one_of(variants.iter().copied())));
        };
        visitor
            .visit_enum(IntoDeserializer::<ReadError>::into_deserializer(word))
            .map_err(|e| e.at(node, &path))
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Items<'n, 'r, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
    reader: &'p Reader<'n, 'r>,
}

impl<'n> SeqAccess<'n> for Items<'n, '_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let run = self.reader.run;
        for (index, node) in self.items.by_ref() {
            if run.skip.contains(&id(node)) {
                continue;
            }
            let path = self.reader.path.index(index);
            return seed
                .deserialize(Reader {
                    node,
                    run,
                    path: path.clone(),
                })
                .map(Some)
                .map_err(|e| e.at(node, &path));
        }
        Ok(None)
    }
}

struct Entries<'n, 'r, 'p> {
    entries: std::slice::Iter<'n, Entry>,
    current: Option<&'n Entry>,
    reader: &'p Reader<'n, 'r>,
    known: Option<&'static [&'static str]>,
}

impl<'n> MapAccess<'n> for Entries<'n, '_, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        for entry in self.entries.by_ref() {
            if self.reader.run.skip.contains(&id(&entry.value)) {
                continue;
            }
            // Go reads null into a struct's field as the field's absence.
            if self.known.is_some_and(|k| k.contains(&entry.key.as_str())) && entry.value.is_null()
            {
                continue;
            }
            if let Some(known) = self.known
                && !known.contains(&entry.key.as_str())
            {
                self.reader.run.unknown.borrow_mut().push(Unknown {
                    path: self.reader.path.key(&entry.key),
                    key: entry.key.clone(),
                    span: entry.key_span,
                    known,
                });
                continue;
            }
            self.current = Some(entry);
            let key: de::value::BorrowedStrDeserializer<'n, ReadError> =
                de::value::BorrowedStrDeserializer::new(&entry.key);
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = self.reader.path.key(&entry.key);
        seed.deserialize(Reader {
            node: &entry.value,
            run: self.reader.run,
            path: path.clone(),
        })
        .map_err(|e| e.at(&entry.value, &path))
    }
}

impl Mismatch {
    /// The message: `root` names the whole, for a mismatch of the root itself.
    pub(crate) fn draft(&self, code: &'static str, root: &str, sources: &Sources) -> Draft {
        let what = if self.path.0.is_empty() {
            root.to_owned()
        } else {
            format!("`{}`", self.path)
        };
        let message = match &self.message {
            Some(said) => format!("{what} can't be read: {said}"),
            None => format!("{what} is {}", self.found),
        };
        let mut draft = Draft::error(code, self.span, message);
        if !self.expected.is_empty() {
            draft = draft.expected(self.expected.clone());
        }
        draft.maybe_help(self.help(sources.text(self.span)))
    }

    /// What the person most probably has to do, where that can be told.
    /// `source` is the value's own text.
    fn help(&self, source: &str) -> Option<String> {
        let plain = !source.is_empty() && !source.contains(['"', '\'', '\n', '\\']);
        let scalar =
            self.found.starts_with("the number ") || self.found.starts_with("the boolean ");
        if self.expected == "a string" && scalar && plain {
            // `yes` looks like text: say how it was read.
            let looks_like_text = self.found.starts_with("the boolean ")
                && !matches!(source.to_ascii_lowercase().as_str(), "true" | "false");
            return Some(if looks_like_text {
                format!(
                    "Kubernetes reads the unquoted {source} as a boolean; quote it: \"{source}\""
                )
            } else {
                // Around what was written (`010`), not around what it means (8).
                format!("quote it: \"{source}\"")
            });
        }
        // A mapping where a list belongs is most often a forgotten dash.
        let key = self.path.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        match (self.expected.as_str(), self.found.as_str(), key) {
            ("a list", "a mapping", Some(key)) => {
                return Some(format!("begin each element of `{key}` with \"- \""));
            }
            ("a mapping", "a list", Some(key)) => {
                return Some(format!("`{key}` is a single mapping: remove the \"- \""));
            }
            ("a list", found, _) if found.starts_with("the string ") => {
                let text = self.written.as_deref().unwrap_or("");
                return Some(format!("write a list, even for one element: [{text:?}]"));
            }
            _ => {}
        }
        let written = self.written.as_deref()?;
        if !self.choices.is_empty() {
            return crate::names::did_you_mean(written, self.choices.iter().copied());
        }
        let number = self.expected.contains("integer") || self.expected.contains("number");
        if (number && written.parse::<f64>().is_ok())
            || (self.expected == "a boolean" && matches!(written, "true" | "false"))
        {
            return Some(format!("write it without quotes: {written}"));
        }
        None
    }
}
