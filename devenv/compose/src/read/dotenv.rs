//! `.env` and `env_file`: lines of `KEY=VALUE`, as the Compose specification says.

use std::ops::Range;

use super::interpolate::{TemplateError, Variables};

/// A line that can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Where in the file.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
}

/// The variables of a file, in its order. Values may use variables of `lookup`, which
/// wins, and of the lines above. A line with only a key takes its value from `lookup`.
pub(super) fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Broken> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find(|c: char| !c.is_whitespace()) {
        let begin = at + begin;
        let line_end = end_of_line(text, begin);
        if text[begin..].starts_with('#') {
            at = line_end;
            continue;
        }
        let broken = |message: String| Broken {
            at: begin..begin + text[begin..line_end].trim_end().len(),
            message,
        };
        let line = &text[begin..line_end];
        let stripped = match line.strip_prefix("export") {
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
            _ => line,
        };
        let begin_key = line_end - stripped.len();
        let separator = stripped.find(['=', ':']);
        let key = stripped[..separator.unwrap_or(stripped.len())].trim_end();
        if let Some(bad) = key
            .chars()
            .find(|c| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '-' | '[' | ']'))
        {
            return Err(broken(format!("{bad:?} can't stand in a variable's name")));
        }
        if key.is_empty() {
            return Err(broken("a value without a variable's name".into()));
        }
        let Some(separator) = separator else {
            if let Some(value) = lookup(key) {
                set(&mut out, key, value);
            }
            at = line_end;
            continue;
        };
        let rest = &stripped[separator + 1..];
        let value_at = begin_key + separator + 1 + (rest.len() - rest.trim_start().len());
        let (value, next) = match text[value_at..]
            .chars()
            .next()
            .filter(|_| value_at < line_end)
        {
            Some(quote @ ('\'' | '"')) => {
                let (value, next) = quoted(text, value_at, quote)
                    .ok_or_else(|| broken(format!("the quote {quote} is never closed")))?;
                if !text[next..end_of_line(text, next)].trim_start().is_empty()
                    && !text[next..end_of_line(text, next)]
                        .trim_start()
                        .starts_with('#')
                {
                    return Err(broken("something follows the closing quote".into()));
                }
                (value, end_of_line(text, next))
            }
            _ => {
                let value = &text[value_at.min(line_end)..line_end];
                let value = value.split_once(" #").map_or(value, |(v, _)| v);
                (Value::Text(value.trim_end().to_owned()), line_end)
            }
        };
        let value = match value {
            Value::Literal(value) => value,
            Value::Text(value) => {
                let both = |name: &str| {
                    lookup(name).or_else(|| {
                        let (_, value) = out.iter().find(|(k, _)| k == name)?;
                        Some(value.clone())
                    })
                };
                let mut variables = Variables {
                    lookup: &both,
                    unset: Vec::new(),
                };
                variables
                    .fill(&value)
                    .map_err(|e: TemplateError| broken(e.to_string()))?
            }
        };
        set(&mut out, key, value);
        at = next;
    }
    Ok(out)
}

enum Value {
    Literal(String),
    /// With variables.
    Text(String),
}

fn set(out: &mut Vec<(String, String)>, key: &str, value: String) {
    match out.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value,
        None => out.push((key.into(), value)),
    }
}

fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |i| at + i)
}

/// The value that begins with a quote at `at`, and where what follows it begins.
fn quoted(text: &str, at: usize, quote: char) -> Option<(Value, usize)> {
    let mut raw = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            let value = match quote {
                '\'' => Value::Literal(raw),
                _ => Value::Text(unescaped(&raw)),
            };
            return Some((value, at + 1 + i + 1));
        }
        if c == '\\' {
            let (_, next) = chars.next()?;
            if next != quote {
                raw.push('\\');
            }
            raw.push(next);
        } else {
            raw.push(c);
        }
    }
    None
}

fn unescaped(raw: &str) -> String {
    let mut out = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('\\') => out.push('\\'),
            // A dollar that is meant as one.
            Some('$') => out.push_str("$$"),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(text: &str) -> Result<Vec<(String, String)>, Broken> {
        parse(text, &|name| (name == "OUT").then(|| "outside".to_owned()))
    }

    #[rstest]
    #[case("A=1\n\n# c\nB = two words # c\n", &[("A", "1"), ("B", "two words")])]
    #[case("export A=1\r\nB:2", &[("A", "1"), ("B", "2")])]
    #[case("A='$X # \\' y'\nB=\"a\\nb $$ \\$X ${OUT}\"", &[("A", "$X # ' y"), ("B", "a\nb $ $X outside")])]
    #[case("A=1\nA=2\nB=${A}${NO:-d}", &[("A", "2"), ("B", "2d")])]
    #[case("OUT\nNO\nA=", &[("OUT", "outside"), ("A", "")])]
    #[case("A=\"two\nlines\" # c\nB=x#y", &[("A", "two\nlines"), ("B", "x#y")])]
    #[case("A=\nB=1", &[("A", ""), ("B", "1")])]
    #[case("exported=1", &[("exported", "1")])]
    fn reads(#[case] text: &str, #[case] want: &[(&str, &str)]) {
        let want: Vec<_> = want
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        assert_eq!(read(text).unwrap(), want);
    }

    #[rstest]
    #[case("A=1\nB C=2", 4..9, "' ' can't stand in a variable's name")]
    #[case("=2", 0..2, "a value without a variable's name")]
    #[case("A='x", 0..4, "the quote ' is never closed")]
    #[case("A='x' y", 0..7, "something follows the closing quote")]
    #[case("A=${B:?must be}", 0..15, "the variable B has no value: must be")]
    fn refuses(#[case] text: &str, #[case] at: Range<usize>, #[case] message: &str) {
        let message = message.to_owned();
        assert_eq!(read(text), Err(Broken { at, message }));
    }
}
