//! Any TOML file of a project, read into a type of the caller's: every problem at once,
//! each with its place, in the words that `devenv.toml` gets.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::de::check;
use crate::names::{did_you_mean, one_of};
use crate::node::{Data, Node, Path};
use crate::problem::{Draft, Problem, finish};
use crate::reading::MAX_FILE_BYTES;
use crate::source::{Origin, SourceFile, Sources, Span};
use crate::toml_tree;

/// A TOML file and what is wrong with it so far.
#[derive(Debug)]
pub struct Document {
    sources: Sources,
    tree: Option<Node>,
    problems: Vec<Draft>,
}

/// What is written under a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<'d> {
    /// `test[0].step[2].http.url`; the form that [`Document::error`] takes.
    pub path: String,
    /// The text, without quotes.
    pub text: &'d str,
}

impl Document {
    /// Reads `text`; `name` is the path to show in messages.
    pub fn parse(name: &str, text: String) -> Self {
        let mut sources = Sources::default();
        let mut problems = Vec::new();
        let text = match u64::try_from(text.len()) {
            Ok(bytes) if bytes <= MAX_FILE_BYTES => text,
            _ => {
                problems.push(
                    Draft::error("toml::size", Span::new(0, 0..0), "the file is too large")
                        .expected(format!("at most {MAX_FILE_BYTES} bytes")),
                );
                String::new()
            }
        };
        let file = sources.add(SourceFile::new(name, text));
        let source = sources.file(file).clone();
        let tree = if problems.is_empty() {
            toml_tree::parse(file, source.text(), &mut problems)
        } else {
            None
        };
        Self {
            sources,
            tree,
            problems,
        }
    }

    /// The whole as a `T`, read without the parts that didn't fit; nothing if the root
    /// didn't, or if the file is no TOML. `kind` says what sort of file it is: `a suite`.
    /// Keys that `T` doesn't have are errors.
    pub fn read<T: DeserializeOwned>(&mut self, kind: &str) -> Option<T> {
        let tree = self.tree.as_ref()?;
        // An owned type borrows nothing from the tree.
        let checked = check::<T>(tree);
        for m in &checked.mismatches {
            self.problems
                .push(m.draft("toml::wrong-type", kind, &self.sources));
        }
        for u in &checked.unknown {
            let known = u.known.iter().copied();
            self.problems.push(
                Draft::error(
                    "toml::unknown-key",
                    u.span,
                    format!("{kind} has no key `{}`", u.path),
                )
                .expected(one_of(known.clone()))
                .maybe_help(did_you_mean(&u.key, known)),
            );
        }
        checked.value
    }

    /// The elements of the list at `path`, each as a document of its own whose places are
    /// those in the whole file. Nothing where there is no list.
    pub fn parts(&self, path: &str) -> Vec<Document> {
        let items = self.find(path).map_or(&[][..], Node::items);
        let part = |item: &Node| Document {
            sources: self.sources.clone(),
            tree: Some(item.clone()),
            problems: Vec::new(),
        };
        items.iter().map(part).collect()
    }

    /// Whether anything stands at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The value at `path`, without positions.
    pub fn value(&self, path: &str) -> Option<Value> {
        self.find(path).map(Node::to_json)
    }

    /// Where the key or value at `path` stands: a table is best shown by its key.
    /// What isn't written stands where its nearest enclosing value does.
    pub fn origin(&self, path: &str) -> Origin {
        self.sources.origin(self.span(path))
    }

    /// Every text in the file (no keys), from the top.
    pub fn texts(&self) -> Vec<Written<'_>> {
        let mut out = Vec::new();
        if let Some(tree) = &self.tree {
            collect(tree, &Path::default(), &mut out);
        }
        out
    }

    /// Notes that what stands at `path` is wrong.
    pub fn error(
        &mut self,
        code: &'static str,
        path: &str,
        message: impl Into<String>,
    ) -> Noted<'_> {
        let draft = Draft::error(code, self.span(path), message);
        self.problems.push(draft);
        let last = self.problems.len() - 1;
        Noted(&mut self.problems[last])
    }

    /// All that is wrong, from the top.
    pub fn problems(self) -> Vec<Problem> {
        finish(self.problems, &self.sources)
    }

    fn find(&self, path: &str) -> Option<&Node> {
        Path::parse(path)?.find(self.tree.as_ref()?)
    }

    fn span(&self, path: &str) -> Span {
        let nowhere = Span::new(0, 0..0);
        let (Some(path), Some(tree)) = (Path::parse(path), self.tree.as_ref()) else {
            return nowhere;
        };
        let mut node = tree;
        let mut span = tree.span;
        for step in &path.0 {
            let (next, at) = match step {
                crate::node::Step::Key(key) => match node.entry(key) {
                    Some(entry) if matches!(entry.value.data, Data::Map(_) | Data::Seq(_)) => {
                        (&entry.value, entry.key_span)
                    }
                    Some(entry) => (&entry.value, entry.value.span),
                    None => break,
                },
                crate::node::Step::Index(index) => match node.items().get(*index) {
                    Some(item) => (item, item.span),
                    None => break,
                },
            };
            (node, span) = (next, at);
        }
        span
    }
}

/// A problem that was just noted, to be said more of.
#[derive(Debug)]
pub struct Noted<'d>(pub(crate) &'d mut Draft);

impl Noted<'_> {
    /// What would have been right.
    pub fn expected(self, text: impl Into<String>) -> Self {
        self.0.expected = Some(text.into());
        self
    }

    /// What to do.
    pub fn help(self, text: impl Into<String>) -> Self {
        self.0.help = Some(text.into());
        self
    }

    /// Which of the candidates was probably meant by `word`, if one is near enough.
    pub fn did_you_mean<'a>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        if let Some(help) = did_you_mean(word, candidates) {
            self.0.help = Some(help);
        }
        self
    }
}

fn collect<'d>(node: &'d Node, path: &Path, out: &mut Vec<Written<'d>>) {
    match &node.data {
        Data::String(text) => out.push(Written {
            path: path.to_string(),
            text,
        }),
        Data::Seq(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, &path.index(i), out);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                collect(&entry.value, &path.key(&entry.key), out);
            }
        }
        Data::Null | Data::Bool(_) | Data::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Doc {
        name: String,
        #[serde(rename = "item")]
        items: Vec<Item>,
    }

    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Item {
        url: String,
        count: u32,
    }

    #[test]
    fn every_problem_comes_at_once_and_what_fits_is_read() {
        let text = "name = \"n\"\nnmae = 1\n\n[[item]]\nurl = \"é\"\ncount = \"3\"\n\n[[item]]\ncuont = 1\n";
        let mut document = Document::parse("a/b.toml", text.into());
        let read: Doc = document.read("a test file").unwrap();
        assert_eq!((read.name.as_str(), read.items.len()), ("n", 2));
        assert_eq!((read.items[0].url.as_str(), read.items[0].count), ("é", 0));
        let texts: Vec<_> = document.texts().iter().map(|w| w.path.clone()).collect();
        assert_eq!(texts, ["name", "item[0].url", "item[0].count"]);
        assert_eq!(document.origin("item[0].url").line, 5);
        assert_eq!(
            document.origin("item[1].url").line,
            8,
            "the nearest that is written"
        );
        document
            .error("test::url", "item[0].url", "no address")
            .expected("http://…");
        let said: Vec<String> = document
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        a/b.toml:2:1: error[toml::unknown-key]: a test file has no key `nmae`
          expected: one of "name" and "item"
          help: did you mean "name"?
        a/b.toml:5:7: error[test::url]: no address
          expected: http://…
        a/b.toml:6:9: error[toml::wrong-type]: `item[0].count` is the string "3"
          expected: a whole number from 0
          help: write it without quotes: 3
        a/b.toml:9:1: error[toml::unknown-key]: a test file has no key `item[1].cuont`
          expected: one of "url" and "count"
          help: did you mean "count"?
        "#);
    }

    #[test]
    fn parts_keep_their_places() {
        let text = "[[a.item]]\nurl = \"x\"\n[[a.item]]\ncuont = 1\ncount = 2\n";
        let whole = Document::parse("a/b.toml", text.into());
        let mut parts = whole.parts("a.item");
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].texts()[0].path, "url");
        let second = &mut parts[1];
        assert_eq!(second.read::<Item>("an item").map(|i| i.count), Some(2));
        assert_eq!(second.origin("").line, 3);
        let said: Vec<String> = parts
            .remove(1)
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        a/b.toml:4:1: error[toml::unknown-key]: an item has no key `cuont`
          expected: one of "url" and "count"
          help: did you mean "count"?
        "#);
        for nothing in ["a", "b", "a.item[0].url"] {
            assert!(whole.parts(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_toml_has_its_line() {
        let mut document = Document::parse("x.toml", "a = 1\nb = \n".into());
        assert!(document.read::<Doc>("a test file").is_none());
        assert!(document.texts().is_empty());
        let problems = document.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line(), 2);
    }
}
