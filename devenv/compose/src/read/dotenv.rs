//! `.env` and `env_file`: lines of `KEY=VALUE`, as the Compose specification says.

use std::ops::Range;

use super::interpolate::Variables;

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
        let (key, value_at) = key(line).map_err(broken)?;
        let Some(value_at) = value_at else {
            if let Some(value) = lookup(key) {
                set(&mut out, key, value);
            }
            at = line_end;
            continue;
        };
        let (value, next) = value(text, begin + value_at, line_end).map_err(broken)?;
        let value = match value {
            Value::Literal(value) => value,
            Value::Text(value) => fill(&value, lookup, &out).map_err(broken)?,
        };
        set(&mut out, key, value);
        at = next;
    }
    Ok(out)
}

/// The variable's name, and where in the line its value begins, if it has one.
fn key(line: &str) -> Result<(&str, Option<usize>), String> {
    let stripped = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let separator = stripped.find(['=', ':']);
    let key = stripped[..separator.unwrap_or(stripped.len())].trim_end();
    let stands = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    if let Some(bad) = key.chars().find(|c| !stands(*c)) {
        return Err(format!("{bad:?} can't stand in a variable's name"));
    }
    if key.is_empty() {
        return Err("a value without a variable's name".into());
    }
    let value = separator.map(|at| stripped[at + 1..].trim_start());
    Ok((key, value.map(|value| line.len() - value.len())))
}

/// The value that begins at `at`, on the line that ends at `line_end`, and where what
/// follows it begins. Within quotes it may go on over more lines.
fn value(text: &str, at: usize, line_end: usize) -> Result<(Value, usize), String> {
    let line = &text[at..line_end];
    let Some(quote @ ('\'' | '"')) = line.chars().next() else {
        let value = line.split_once(" #").map_or(line, |(value, _)| value);
        return Ok((Value::Text(value.trim_end().to_owned()), line_end));
    };
    let (value, next) =
        quoted(text, at, quote).ok_or_else(|| format!("the quote {quote} is never closed"))?;
    let end = end_of_line(text, next);
    let rest = text[next..end].trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("something follows the closing quote".into());
    }
    Ok((value, end))
}

/// The value with its variables, from `lookup` and the lines above.
fn fill(
    value: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    above: &[(String, String)],
) -> Result<String, String> {
    let both = |name: &str| {
        lookup(name).or_else(|| {
            let (_, value) = above.iter().find(|(k, _)| k == name)?;
            Some(value.clone())
        })
    };
    let mut variables = Variables {
        lookup: &both,
        unset: Vec::new(),
    };
    variables.fill(value).map_err(|e| e.to_string())
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
