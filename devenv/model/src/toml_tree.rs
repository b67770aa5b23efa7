//! TOML into a [`Node`] tree with positions.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::node::{Data, Entry, Node, shortened};
use crate::problem::Draft;
use crate::source::{Span, floor};

/// Reads a TOML document; nothing if it isn't one. Every syntax error is reported, but
/// only one per line, and of those that follow from a list left open only the first.
pub(crate) fn parse(file: u32, text: &str, problems: &mut Vec<Draft>) -> Option<Node> {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|e| e.span().map_or(0, |s| s.start));
    let broken = !errors.is_empty();
    let (mut last_line, mut in_array) = (0, false);
    for error in errors {
        let range = error.span().unwrap_or(0..0);
        let before = &text[..floor(text, range.start)];
        let line = before.matches('\n').count() + 1;
        let said = error.message().lines().next().unwrap_or("syntax error");
        let array = said.contains("array");
        if line == last_line || (array && in_array) {
            continue;
        }
        last_line = line;
        in_array |= array;
        problems.push(
            Draft::error(
                "toml::syntax",
                Span::new(file, range),
                format!("this is not TOML: {said}"),
            )
            .maybe_help(help(said, text.lines().nth(line - 1).unwrap_or(""))),
        );
    }
    if broken {
        return None;
    }
    let range = table.span();
    let mut reader = Reader { file, problems };
    Some(Node::new(
        reader.table(table.into_inner()),
        Span::new(file, range.start..range.start),
    ))
}

fn help(message: &str, line: &str) -> Option<String> {
    if message.contains("duplicate key") {
        return Some("keep one of the two, or merge the sections".into());
    }
    if let Some((key, value)) = line.split_once(':')
        && !line.contains('=')
        && !key.contains('"')
    {
        return Some(format!(
            "TOML writes `key = value`: {} = {}",
            key.trim(),
            value.trim()
        ));
    }
    if message.contains("array") {
        return Some(
            "is the \"[\" before it closed with \"]\", and is there a comma between the elements?"
                .into(),
        );
    }
    if message.contains("string values must be quoted") {
        return Some("put the value in double quotes".into());
    }
    None
}

struct Reader<'p> {
    file: u32,
    problems: &'p mut Vec<Draft>,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Data {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| Entry {
                key_span: Span::new(self.file, key.span()),
                key: key.into_inner().into_owned(),
                value: self.value(value),
            })
            .collect();
        // The map sorts by key; people read from the top.
        entries.sort_by_key(|e| e.key_span);
        Data::Map(entries)
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let span = Span::new(self.file, value.span());
        let data = match value.into_inner() {
            DeValue::String(s) => Data::String(s.into_owned()),
            DeValue::Boolean(b) => Data::Bool(b),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(n) => Data::Number(n.into()),
                Err(_) => self.bad_number(i.as_str(), span),
            },
            DeValue::Float(f) => match f.as_str().parse().ok().and_then(Number::from_f64) {
                Some(n) => Data::Number(n),
                None => self.bad_number(f.as_str(), span),
            },
            DeValue::Datetime(d) => Data::String(d.to_string()),
            DeValue::Array(items) => {
                Data::Seq(items.into_iter().map(|item| self.value(item)).collect())
            }
            DeValue::Table(table) => self.table(table),
        };
        Node::new(data, span)
    }

    fn bad_number(&mut self, text: &str, span: Span) -> Data {
        self.problems.push(
            Draft::error(
                "toml::number",
                span,
                format!("{} is out of range", shortened(text)),
            )
            .expected("a 64-bit number"),
        );
        Data::Null
    }
}
