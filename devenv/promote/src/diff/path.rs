//! Where a field is.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Where a field is in its object.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

/// One step on the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An item of a list, by what tells it from the others: names and values in the order
    /// of names.
    Item(Vec<(String, String)>),
    /// An item of a list without such a thing, by its number from 0.
    Index(usize),
}

impl Path {
    pub(super) fn with(&self, segment: Segment) -> Self {
        let mut all = self.0.clone();
        all.push(segment);
        Self(all)
    }

    pub(super) fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    /// The names of fields on the way, items left out.
    pub(super) fn fields(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|segment| match segment {
                Segment::Field(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The last field's name.
    pub(super) fn last(&self) -> &str {
        self.fields().last().copied().unwrap_or_default()
    }

    pub(super) fn starts_with(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl Segment {
    /// An item by values, which are compared as text.
    pub(super) fn item(mut pairs: Vec<(String, String)>) -> Self {
        pairs.sort();
        Self::Item(pairs)
    }
}

/// The text by which an item's key is compared.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            match segment {
                // Keys of maps may have dots and slashes.
                Segment::Field(name) if name.contains(['.', '/', '[']) => write!(f, "[{name}]")?,
                Segment::Field(name) if index == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Item(pairs) => {
                    let values: Vec<&str> = pairs.iter().map(|(_, v)| v.as_str()).collect();
                    write!(f, "[{}]", values.join("/"))?;
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
