//! A value tree in which every key and value knows where it was written.
//!
//! Manifests and `devenv.toml` both become this, so that one deserializer and one way
//! of pointing at things serve for all. Patches and overlays mix nodes of several
//! files; each keeps its own position.

use std::fmt;

use serde_json::{Map, Number, Value};

use crate::source::Span;

/// How deep a document may nest, aliases expanded. Kubernetes' own objects stay under 30.
pub(crate) const MAX_DEPTH: usize = 100;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub data: Data,
    /// Its place.
    pub span: Span,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that JSON can hold.
    Number(Number),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the file; no key stands in it twice.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// What it leads to.
    pub value: Node,
}

impl Node {
    pub(crate) fn new(data: Data, span: Span) -> Self {
        Self { data, span }
    }

    pub(crate) fn string(text: impl Into<String>, span: Span) -> Self {
        Self::new(Data::String(text.into()), span)
    }

    /// The entry at `key`, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value at `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entry_mut(key).map(|e| &mut e.value)
    }

    /// The entries of a mapping; of anything else, none.
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; of anything else, none.
    pub fn items(&self) -> &[Node] {
        match &self.data {
            Data::Seq(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn items_mut(&mut self) -> &mut [Node] {
        match &mut self.data {
            Data::Seq(items) => items,
            _ => &mut [],
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(s) => Some(s),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(b) => Some(b),
            _ => None,
        }
    }

    pub(crate) fn as_i64(&self) -> Option<i64> {
        match &self.data {
            Data::Number(n) => n.as_i64(),
            _ => None,
        }
    }

    /// Whether nothing stands here.
    pub fn is_null(&self) -> bool {
        self.data == Data::Null
    }

    /// Follows keys through nested mappings.
    pub(crate) fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The string behind nested keys.
    pub(crate) fn str_at(&self, keys: &[&str]) -> Option<&str> {
        self.at(keys)?.as_str()
    }

    /// Puts `value` at `key`; the position of an existing key stays.
    pub(crate) fn set(&mut self, key: &str, value: Node) {
        let span = value.span;
        if let Some(old) = self.get_mut(key) {
            *old = value;
        } else if let Data::Map(entries) = &mut self.data {
            entries.push(Entry {
                key: key.into(),
                key_span: span,
                value,
            });
        }
    }

    /// The mapping at `key`, made if it isn't there (or is null).
    pub(crate) fn map_at(&mut self, key: &str, span: Span) -> Option<&mut Node> {
        if self.get(key).is_none_or(Node::is_null) {
            self.set(key, Node::new(Data::Map(Vec::new()), span));
        }
        self.get_mut(key).filter(|n| matches!(n.data, Data::Map(_)))
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Node> {
        self.remove_entry(key).map(|e| e.value)
    }

    pub(crate) fn remove_entry(&mut self, key: &str) -> Option<Entry> {
        match &mut self.data {
            Data::Map(entries) => {
                let i = entries.iter().position(|e| e.key == key)?;
                Some(entries.remove(i))
            }
            _ => None,
        }
    }

    pub(crate) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.data {
            Data::Map(entries) => entries.iter_mut().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Adds an entry to a mapping that has no such key.
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Data::Map(entries) = &mut self.data {
            entries.push(entry);
        }
    }

    /// The same value without positions.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(b) => Value::Bool(*b),
            Data::Number(n) => Value::Number(n.clone()),
            Data::String(s) => Value::String(s.clone()),
            Data::Seq(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// How many values this holds (itself included), and how many levels lie below it.
    pub(crate) fn measure(&self) -> (usize, usize) {
        let add = |(nodes, depth): (usize, usize), child: &Node| {
            let (n, d) = child.measure();
            (nodes + n, depth.max(d + 1))
        };
        match &self.data {
            Data::Seq(items) => items.iter().fold((1, 1), add),
            Data::Map(entries) => entries.iter().map(|e| &e.value).fold((1, 1), add),
            _ => (1, 0),
        }
    }

    /// Equal as values, wherever they were written.
    pub(crate) fn same_value(&self, other: &Node) -> bool {
        self.to_json() == other.to_json()
    }

    /// `the string "two"`, `the number 5`, `a list`: for messages.
    pub fn described(&self) -> String {
        match &self.data {
            Data::Null => "null".into(),
            Data::Bool(b) => format!("the boolean {b}"),
            Data::Number(n) => format!("the number {n}"),
            Data::String(s) => format!("the string {}", shortened(s)),
            Data::Seq(_) => "a list".into(),
            Data::Map(_) => "a mapping".into(),
        }
    }
}

/// A string quoted for a message, cut where it is long.
pub(crate) fn shortened(s: &str) -> String {
    const SHOWN: usize = 60;
    if s.chars().count() <= SHOWN {
        format!("{s:?}")
    } else {
        format!("{:?}…", s.chars().take(SHOWN).collect::<String>())
    }
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Where in an object: `spec.rules[0].host`, `metadata.annotations["a.b/c"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub Vec<Step>);

impl Path {
    pub(crate) fn key(&self, key: &str) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Path(steps)
    }

    pub(crate) fn index(&self, index: usize) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Path(steps)
    }

    /// Reads the form that `Display` writes; nothing if it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Path> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix("[\"") {
                let end = inner.find("\"]")?;
                steps.push(Step::Key(inner[..end].into()));
                rest = &inner[end + 2..];
            } else if let Some(inner) = rest.strip_prefix('[') {
                let end = inner.find(']')?;
                steps.push(Step::Index(inner[..end].parse().ok()?));
                rest = &inner[end + 1..];
            } else {
                let inner = rest.strip_prefix('.').unwrap_or(rest);
                let end = inner.find(['.', '[']).unwrap_or(inner.len());
                if end == 0 {
                    return None;
                }
                steps.push(Step::Key(inner[..end].into()));
                rest = &inner[end..];
            }
        }
        Some(Path(steps))
    }

    /// The node at this path.
    pub(crate) fn find<'n>(&self, root: &'n Node) -> Option<&'n Node> {
        self.0.iter().try_fold(root, |node, step| match step {
            Step::Key(key) => node.get(key),
            Step::Index(i) => node.items().get(*i),
        })
    }
}

/// Characters of a key that needs no brackets.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '$')
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(n) => write!(f, "[{n}]")?,
                Step::Key(k) if k.is_empty() || !k.chars().all(is_plain) => {
                    write!(f, "[\"{k}\"]")?;
                }
                Step::Key(k) if i == 0 => f.write_str(k)?,
                Step::Key(k) => write!(f, ".{k}")?,
            }
        }
        Ok(())
    }
}

/// A node together with the path that led to it, so that checks can both point and name.
#[derive(Clone, Debug)]
pub(crate) struct At<'n> {
    pub node: &'n Node,
    pub path: Path,
}

impl<'n> At<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: Path::default(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<At<'n>> {
        self.node.get(key).filter(|n| !n.is_null()).map(|node| At {
            node,
            path: self.path.key(key),
        })
    }

    pub(crate) fn at(&self, keys: &[&str]) -> Option<At<'n>> {
        keys.iter().try_fold(self.clone(), |at, key| at.get(key))
    }

    pub(crate) fn items(&self) -> Vec<At<'n>> {
        self.node
            .items()
            .iter()
            .enumerate()
            .map(|(i, node)| At {
                node,
                path: self.path.index(i),
            })
            .collect()
    }

    /// The elements of the list at `key`; none if there is none.
    pub(crate) fn items_at(&self, key: &str) -> Vec<At<'n>> {
        self.get(key).map(|l| l.items()).unwrap_or_default()
    }

    pub(crate) fn str_at(&self, key: &str) -> Option<&'n str> {
        self.node.get(key)?.as_str()
    }

    pub(crate) fn span(&self) -> Span {
        self.node.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("spec.rules[0].http.paths[12].path")]
    #[case("metadata.annotations[\"nginx.ingress.kubernetes.io/canary\"]")]
    #[case("[0][1].a")]
    #[case("")]
    fn paths_are_read_as_they_are_written(#[case] text: &str) {
        assert_eq!(Path::parse(text).unwrap().to_string(), text);
    }

    #[rstest]
    #[case("a..b")]
    #[case("a[x]")]
    #[case("a[1")]
    #[case("a[\"x")]
    #[case("a.")]
    fn malformed_paths_are_nothing(#[case] text: &str) {
        assert_eq!(Path::parse(text), None);
    }
}
