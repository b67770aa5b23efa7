//! Words of a Dockerfile's instructions: how `ENV` and `ARG` are taken apart, and how
//! variables are put in, as BuildKit does both.

use std::collections::HashMap;
use std::ops::Range;

/// The pairs of `ENV`: `A=1 B="x y"`, or the old form `A the rest of the line`. Values
/// keep their quotes and variables. A word without `=` has no value.
pub(super) fn pairs(text: &str, escape: char) -> Vec<(String, Option<String>)> {
    let words = split(text, escape);
    let Some(first) = words.first() else {
        return Vec::new();
    };
    if !first.contains('=') {
        let rest = text.trim_start().strip_prefix(first.as_str());
        let rest = rest.unwrap_or("").trim();
        let value = (!rest.is_empty()).then(|| rest.to_owned());
        return vec![(first.clone(), value)];
    }
    words.iter().map(|word| pair(word)).collect()
}

/// The pairs of `ARG`: `A B=default`.
pub(super) fn pairs_of_arg(text: &str, escape: char) -> Vec<(String, Option<String>)> {
    split(text, escape).iter().map(|word| pair(word)).collect()
}

fn pair(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

/// Words between white space; quotes and escaped characters hold a word together, and
/// stay in it.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        word.push(c);
        // Within single quotes nothing is escaped.
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// How deep a default may hold another variable with a default.
const MAX_DEPTH: usize = 16;

/// How long a value may get: `ENV A=$A$A` doubles it with every line.
const MAX_LEN: usize = 4096;

/// The word without quotes and escapes, with its variables replaced. Those that are not
/// set are empty, as in a build, and so are those that would make it too long.
/// `${NAME#…}` and the like stay as written.
pub(super) fn expand(word: &str, escape: char, get: &dyn Fn(&str) -> Option<String>) -> String {
    let chars: Vec<char> = word.chars().collect();
    let expander = Expander {
        escape,
        closing: closing(&chars),
        chars: &chars,
        get,
    };
    let mut out = String::new();
    expander.words(0..chars.len(), 0, &mut out);
    out
}

struct Expander<'e> {
    chars: &'e [char],
    escape: char,
    /// By the index of an opening brace, that of the one that closes it.
    closing: HashMap<usize, usize>,
    get: &'e dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    fn words(&self, range: Range<usize>, depth: usize, out: &mut String) {
        let mut quoted = false;
        let mut i = range.start;
        while i < range.end {
            let c = self.chars[i];
            let next = (i + 1 < range.end).then(|| self.chars[i + 1]);
            i += 1;
            match c {
                '\'' if !quoted => {
                    let rest = &self.chars[i..range.end];
                    let len = rest.iter().position(|c| *c == '\'');
                    let len = len.unwrap_or(rest.len());
                    out.extend(&rest[..len]);
                    i += len + 1;
                }
                '"' => quoted = !quoted,
                c if c == self.escape => match next {
                    // Within double quotes it is kept where it escapes nothing.
                    Some(next) if quoted && !['"', '$', self.escape].contains(&next) => out.push(c),
                    Some(next) => {
                        out.push(next);
                        i += 1;
                    }
                    None => out.push(c),
                },
                '$' => i = self.variable(i..range.end, depth, out),
                c => out.push(c),
            }
        }
    }

    fn name(&self, range: Range<usize>) -> String {
        let rest = &self.chars[range];
        if rest.first().is_some_and(char::is_ascii_digit) {
            return String::new();
        }
        rest.iter().take_while(|c| is_name(**c)).collect()
    }

    /// What follows a `$`; returns where it ends.
    fn variable(&self, range: Range<usize>, depth: usize, out: &mut String) -> usize {
        let start = range.start;
        if self.chars[range.clone()].first() != Some(&'{') {
            let name = self.name(range);
            match name.as_str() {
                "" => out.push('$'),
                name => put(out, (self.get)(name)),
            }
            return start + name.len();
        }
        let Some(&end) = self.closing.get(&start).filter(|end| range.contains(end)) else {
            out.push('$');
            return start;
        };
        let name = self.name(start + 1..end);
        let mut word = start + 1 + name.len()..end;
        let colon = self.chars[word.clone()].first() == Some(&':');
        word.start += usize::from(colon);
        let operator = self.chars[word.clone()].first();
        let value = (self.get)(&name);
        let set = value.as_ref().is_some_and(|v| !colon || !v.is_empty());
        let word = (word.start + 1).min(end)..end;
        match operator {
            _ if name.is_empty() || depth >= MAX_DEPTH => self.raw(start..end, out),
            None if !colon => put(out, value),
            Some('-') if set => put(out, value),
            Some('+') if !set => {}
            Some('-' | '+') => self.words(word, depth + 1, out),
            Some('?') => put(out, value),
            _ => self.raw(start..end, out),
        }
        end + 1
    }

    fn raw(&self, range: Range<usize>, out: &mut String) {
        out.push('$');
        out.extend(&self.chars[range.start..=range.end]);
    }
}

fn put(out: &mut String, value: Option<String>) {
    if let Some(value) = value
        && out.len() + value.len() <= MAX_LEN
    {
        out.push_str(&value);
    }
}

/// Which brace closes which.
fn closing(chars: &[char]) -> HashMap<usize, usize> {
    let mut open = Vec::new();
    let mut closing = HashMap::new();
    for (i, c) in chars.iter().enumerate() {
        match c {
            '{' => open.push(i),
            '}' => {
                if let Some(start) = open.pop() {
                    closing.insert(start, i);
                }
            }
            _ => {}
        }
    }
    closing
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A command of the shell form as one line for a shell: lines that are continued are
/// joined, comments between them dropped.
pub(super) fn joined(text: &str, escape: char) -> String {
    if !text.contains('\n') {
        return text.trim().to_owned();
    }
    let mut out = String::new();
    let mut continued = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if continued && (trimmed.is_empty() || trimmed.starts_with('#')) {
            continue;
        }
        let (part, more) = match trimmed.strip_suffix(escape) {
            Some(part) => (part.trim_end(), true),
            None => (trimmed, false),
        };
        if !out.is_empty() {
            out.push(if continued { ' ' } else { '\n' });
        }
        out.push_str(part);
        continued = more;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("A=1 B=two", &[("A", Some("1")), ("B", Some("two"))])]
    #[case("A=\"x y\" B=a\\ b C='p q'", &[("A", Some("\"x y\"")), ("B", Some("a\\ b")), ("C", Some("'p q'"))])]
    #[case("OLD the  rest", &[("OLD", Some("the  rest"))])]
    #[case("  OLD  x=1 ", &[("OLD", Some("x=1"))])]
    #[case("ALONE", &[("ALONE", None)])]
    #[case("A=1 B", &[("A", Some("1")), ("B", None)])]
    #[case("A=", &[("A", Some(""))])]
    #[case("A=\"unterminated B=2", &[("A", Some("\"unterminated B=2"))])]
    #[case("A=x\\", &[("A", Some("x\\"))])]
    #[case("", &[])]
    fn pairs_in_both_forms(#[case] text: &str, #[case] want: &[(&str, Option<&str>)]) {
        let got = pairs(text, '\\');
        let got: Vec<_> = got
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_deref()))
            .collect();
        assert_eq!(got, want);
    }

    #[rstest]
    #[case("$A", "one")]
    #[case("${A}x$A", "onexone")]
    #[case("\"$A b\"", "one b")]
    #[case("'$A'", "$A")]
    #[case("\\$A", "$A")]
    #[case("\"\\$A \\n \\\"\"", "$A \\n \"")]
    #[case("$NONE-", "-")]
    #[case("${NONE:-two}", "two")]
    #[case("${EMPTY:-two}${EMPTY-three}", "two")]
    #[case("${NONE:-${A}}", "one")]
    #[case("${A:+yes}${NONE:+no}${EMPTY+set}${EMPTY:+no}", "yesset")]
    #[case("${A:?message}", "one")]
    #[case("${A#o}", "${A#o}")]
    #[case("${}", "${}")]
    #[case("${A", "${A")]
    #[case("$", "$")]
    #[case("$1 $$", "$1 $$")]
    #[case("'open", "open")]
    #[case("\"open $A", "open one")]
    #[case("a\\", "a\\")]
    #[case("x'y'z", "xyz")]
    fn variables(#[case] word: &str, #[case] want: &str) {
        let get = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(word, '\\', &get), want);
    }

    #[test]
    fn defaults_within_defaults_end() {
        let deep = "${X:-".repeat(100_000) + &"}".repeat(100_000);
        assert!(expand(&deep, '\\', &|_| None).len() <= deep.len());
        let open = "${X:-".repeat(1_000_000);
        assert_eq!(expand(&open, '\\', &|_| None), open);
    }

    #[test]
    fn values_do_not_grow_without_bound() {
        let long = "x".repeat(MAX_LEN / 2 + 1);
        let got = expand("$A$A$A", '\\', &|_| Some(long.clone()));
        assert_eq!(got, long);
    }

    #[rstest]
    #[case("python main.py \\\n  # why\n\n  --port 1", "python main.py --port 1")]
    #[case("a && \\\r\n b", "a && b")]
    #[case(" a ", "a")]
    fn continued_lines_are_one(#[case] text: &str, #[case] want: &str) {
        assert_eq!(joined(text, '\\'), want);
    }
}
