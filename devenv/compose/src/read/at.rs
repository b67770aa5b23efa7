//! Walking the tree: values of the wanted kind, or a problem at their place.

use std::collections::BTreeMap;
use std::time::Duration;

use devenv_model::tree::{Data, Files, Node, Noted, Span, closest, one_of};

use super::units;

/// A value and the keys that lead to it.
#[derive(Clone)]
pub(super) struct At<'n> {
    pub node: &'n Node,
    /// Where the key stands: the place of a problem with what has no place of its own.
    pub key: Span,
    pub path: String,
}

impl<'n> At<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            key: node.span,
            path: String::new(),
        }
    }

    /// The value at `key`; one that is null counts as not there, as for Compose.
    pub(super) fn get(&self, key: &str) -> Option<At<'n>> {
        self.all()
            .find(|(k, at)| *k == key && !at.node.is_null())
            .map(|(_, at)| at)
    }

    /// The entries of a mapping, null ones too; none if it is none.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'n str, At<'n>)> {
        let path = self.path.clone();
        self.node.entries().iter().map(move |entry| {
            let at = At {
                node: &entry.value,
                key: entry.key_span,
                path: if path.is_empty() {
                    entry.key.clone()
                } else {
                    format!("{path}.{}", entry.key)
                },
            };
            (entry.key.as_str(), at)
        })
    }

    fn items(&self) -> impl Iterator<Item = At<'n>> {
        let path = self.path.clone();
        self.node
            .items()
            .iter()
            .enumerate()
            .map(move |(i, node)| At {
                node,
                key: node.span,
                path: format!("{path}[{i}]"),
            })
    }

    /// Where a problem with the value is shown: a mapping or list by its key.
    pub(super) fn span(&self) -> Span {
        match self.node.data {
            Data::Map(_) | Data::Seq(_) | Data::Null => self.key,
            _ => self.node.span,
        }
    }
}

/// What a mapping may hold.
pub(super) struct Keys {
    /// What it is, with its article: `a service`.
    pub of: &'static str,
    pub known: &'static [&'static str],
    /// Keys of the specification that devenv can't run.
    pub unsupported: &'static [&'static str],
}

/// Reads values and notes what is wrong with them.
pub(super) struct Reader<'f> {
    pub files: &'f mut Files,
}

impl Reader<'_> {
    pub(super) fn error(&mut self, at: &At<'_>, message: impl Into<String>) -> Noted<'_> {
        self.files.error("compose::value", at.span(), message)
    }

    /// What devenv leaves to the real Compose.
    pub(super) fn unsupported(&mut self, span: Span, what: &str) {
        self.files
            .error(
                "compose::unsupported",
                span,
                format!("{what} is not supported by devenv"),
            )
            .help("run it with `docker compose`, or leave it out");
    }

    fn wrong(&mut self, at: &At<'_>, expected: &str) {
        let found = at.node.described();
        self.error(at, format!("`{}` is {found}", at.path))
            .expected(expected);
    }

    /// Checks that it is a mapping, and that every key is one.
    pub(super) fn keys(&mut self, at: &At<'_>, keys: &Keys) -> bool {
        if !self.mapping(at) {
            return false;
        }
        for (key, inner) in at.all() {
            if key.starts_with("x-") || keys.known.contains(&key) {
                continue;
            }
            if keys.unsupported.contains(&key) {
                self.unsupported(inner.key, &format!("`{}`", inner.path));
                continue;
            }
            let all = || keys.known.iter().chain(keys.unsupported).copied();
            let noted = self
                .files
                .error(
                    "compose::unknown-key",
                    inner.key,
                    format!("`{}` is no key of {}", inner.path, keys.of),
                )
                .expected(one_of(keys.known.iter().copied()));
            if let Some(meant) = closest(key, all()) {
                noted.help(format!("did you mean {meant:?}?"));
            }
        }
        true
    }

    pub(super) fn mapping(&mut self, at: &At<'_>) -> bool {
        let fits = matches!(at.node.data, Data::Map(_));
        if !fits {
            self.wrong(at, "a mapping");
        }
        fits
    }

    /// The elements of a list.
    pub(super) fn list<'n>(&mut self, at: &At<'n>) -> Vec<At<'n>> {
        if !matches!(at.node.data, Data::Seq(_)) {
            self.wrong(at, "a list");
        }
        at.items().collect()
    }

    pub(super) fn text(&mut self, at: &At<'_>) -> Option<String> {
        let text = at.node.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(at, "a string");
        }
        text
    }

    pub(super) fn text_at(&mut self, at: &At<'_>, key: &str) -> Option<String> {
        self.text(&at.get(key)?)
    }

    /// Text, or a number or boolean as Go prints it.
    pub(super) fn scalar(&mut self, at: &At<'_>) -> Option<String> {
        match &at.node.data {
            Data::String(text) => Some(text.clone()),
            Data::Bool(b) => Some(b.to_string()),
            Data::Number(n) => Some(match n.as_f64() {
                Some(f) if n.is_f64() => go_float(f),
                _ => n.to_string(),
            }),
            _ => {
                self.wrong(at, "a string, number or boolean");
                None
            }
        }
    }

    pub(super) fn scalar_at(&mut self, at: &At<'_>, key: &str) -> Option<String> {
        self.scalar(&at.get(key)?)
    }

    /// A boolean, or the text of one: what variables leave.
    pub(super) fn boolean(&mut self, at: &At<'_>) -> Option<bool> {
        let read = match &at.node.data {
            Data::Bool(b) => Some(*b),
            Data::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Some(true),
                "false" | "n" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if read.is_none() {
            self.wrong(at, "true or false");
        }
        read
    }

    pub(super) fn boolean_at(&mut self, at: &At<'_>, key: &str) -> Option<bool> {
        self.boolean(&at.get(key)?)
    }

    /// An integer that fits, or the text of one.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, at: &At<'_>, expected: &str) -> Option<T> {
        let read = match &at.node.data {
            Data::Number(n) => n.as_i64(),
            Data::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let read = read.and_then(|n| T::try_from(n).ok());
        if read.is_none() {
            self.wrong(at, expected);
        }
        read
    }

    pub(super) fn number(&mut self, at: &At<'_>) -> Option<f32> {
        let text = self.scalar(at)?;
        // Compose keeps 32 bits of it.
        let read = text
            .trim()
            .parse()
            .ok()
            .filter(|n: &f32| n.is_finite() && *n >= 0.0);
        if read.is_none() {
            self.wrong(at, "a number from 0, such as 0.5");
        }
        read
    }

    pub(super) fn bytes_at(&mut self, at: &At<'_>, key: &str) -> Option<u64> {
        let at = at.get(key)?;
        let text = self.scalar(&at)?;
        let read = units::bytes(&text);
        if read.is_none() {
            self.wrong(&at, "a size such as \"512m\" or \"1gb\"");
        }
        read
    }

    pub(super) fn duration_at(&mut self, at: &At<'_>, key: &str) -> Option<Duration> {
        let at = at.get(key)?;
        let text = self.scalar(&at)?;
        let read = units::duration(&text);
        if read.is_none() {
            self.wrong(&at, "a duration such as \"10s\" or \"1m30s\"");
        }
        read
    }

    /// A list of texts; numbers are taken as such.
    pub(super) fn texts_at(&mut self, at: &At<'_>, key: &str) -> Vec<String> {
        let Some(at) = at.get(key) else {
            return Vec::new();
        };
        let items = self.list(&at);
        items.iter().filter_map(|item| self.scalar(item)).collect()
    }

    /// A text or a list of texts.
    pub(super) fn text_or_list_at(&mut self, at: &At<'_>, key: &str) -> Vec<String> {
        match at.get(key) {
            Some(at) if at.node.as_str().is_some() => self.text(&at).into_iter().collect(),
            _ => self.texts_at(at, key),
        }
    }

    /// A mapping, or a list of `KEY=VALUE`. What has no value is `None`.
    pub(super) fn pairs(&mut self, at: &At<'_>) -> BTreeMap<String, Option<String>> {
        let mut out = BTreeMap::new();
        match &at.node.data {
            Data::Map(_) => {
                for (key, value) in at.all() {
                    let value = match value.node.is_null() {
                        true => None,
                        false => self.scalar(&value),
                    };
                    out.insert(key.to_owned(), value);
                }
            }
            Data::Seq(_) => {
                for item in at.items() {
                    let Some(text) = self.scalar(&item) else {
                        continue;
                    };
                    match text.split_once('=') {
                        Some((key, value)) => out.insert(key.to_owned(), Some(value.to_owned())),
                        None => out.insert(text, None),
                    };
                }
            }
            _ => self.wrong(at, "a mapping, or a list of \"KEY=VALUE\""),
        }
        out
    }

    /// [`Self::pairs`] where a key without a value has an empty one.
    pub(super) fn labels_at(&mut self, at: &At<'_>, key: &str) -> BTreeMap<String, String> {
        let Some(at) = at.get(key) else {
            return BTreeMap::new();
        };
        let pairs = self.pairs(&at);
        pairs
            .into_iter()
            .map(|(k, v)| (k, v.unwrap_or_default()))
            .collect()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = self.scalar(at)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.error(at, format!("`{}` is {text:?}", at.path))
            .expected(one_of(all.iter().copied()))
            .did_you_mean(&text, all);
        None
    }

    /// A command: a list, or a line that is split into words.
    pub(super) fn command_at(&mut self, at: &At<'_>, key: &str) -> Option<Vec<String>> {
        let at = at.get(key)?;
        let Some(line) = at.node.as_str() else {
            let items = self.list(&at);
            return Some(items.iter().filter_map(|item| self.scalar(item)).collect());
        };
        match units::words(line) {
            Ok(words) => Some(words),
            Err(units::WordsError::Open(quote)) => {
                self.error(
                    &at,
                    format!("`{}`: the quote {quote} is never closed", at.path),
                )
                .help("write the command as a list: [\"program\", \"argument\"]");
                None
            }
            Err(units::WordsError::Shell(c)) => {
                self.error(
                    &at,
                    format!(
                        "`{}` holds an unquoted {c:?}: no shell reads the line, and Compose leaves out what follows",
                        at.path
                    ),
                )
                .help("run a shell: [\"sh\", \"-c\", \"…\"]");
                None
            }
        }
    }
}

/// Go's `%v`: the shortest form, with an exponent where it is large or small.
fn go_float(f: f64) -> String {
    let exponent = if f == 0.0 {
        0
    } else {
        f.abs().log10().floor() as i32
    };
    if !(-4..21).contains(&exponent) {
        let text = format!("{f:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let number: i32 = exponent.parse().unwrap_or(0);
        let sign = if number < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", number.abs());
    }
    f.to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case(1.0, "1")]
    #[case(0.1, "0.1")]
    #[case(1e21, "1e+21")]
    #[case(1e20, "100000000000000000000")]
    #[case(0.00001, "1e-05")]
    #[case(-2.5e-7, "-2.5e-07")]
    #[case(0.0, "0")]
    fn floats_are_printed_as_go_does(#[case] f: f64, #[case] want: &str) {
        assert_eq!(super::go_float(f), want);
    }
}
