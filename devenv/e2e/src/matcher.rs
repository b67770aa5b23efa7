//! What a value must be: operators over JSON, and the words for what was expected.

use std::{collections::BTreeMap, fmt};

use regex::Regex;
use serde_json::{Map, Value};

use crate::outcome::Mismatch;

/// The words that make a table a matcher.
pub const OPERATORS: [&str; 16] = [
    "eq", "ne", "in", "not_in", "gt", "ge", "lt", "le", "matches", "contains", "length", "type",
    "exists", "approx", "all", "any",
];
const TYPES: [&str; 7] = [
    "string", "number", "integer", "boolean", "array", "object", "null",
];

/// What a value must be. All its conditions hold at once.
#[derive(Clone, Debug)]
pub struct Matcher(Vec<Condition>);

#[derive(Clone, Debug)]
enum Condition {
    Eq(Value),
    Ne(Value),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Order(Order, Value),
    Matches(Regex),
    Contains(Value),
    Length(Matcher),
    Type(String),
    Exists(bool),
    Approx {
        of: f64,
        by: f64,
    },
    All(Matcher),
    Any(Matcher),
    /// A table, key by key, and no other keys.
    Object(BTreeMap<String, Matcher>),
    /// A list, element by element, of the same length.
    Array(Vec<Matcher>),
    /// Holds a variable: known when the step runs.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Gt,
    Ge,
    Lt,
    Le,
}

/// A matcher that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadMatcher {
    /// Where, within the matcher: `.in`, `[2].length`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// What was probably meant.
    pub help: Option<String>,
}

impl Matcher {
    /// Reads a matcher whose variables have been put in.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(written: &Value) -> Result<Self, Vec<BadMatcher>> {
        read(written, false)
    }

    /// Finds what is wrong with one whose variables are still to come.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(written: &Value) -> Result<(), Vec<BadMatcher>> {
        read(written, true).map(|_| ())
    }

    /// What is not as expected about `got`, which is called `what`.
    pub fn mismatches(&self, what: &str, got: Option<&Value>) -> Vec<Mismatch> {
        let mut out = Vec::new();
        for condition in &self.0 {
            condition.test(what, got, &mut out);
        }
        out
    }

    /// Whether `got` is as expected.
    pub fn accepts(&self, got: Option<&Value>) -> bool {
        self.mismatches("", got).is_empty()
    }
}

/// Reads and applies a matcher in one go; one that makes no sense is a mismatch.
pub fn mismatches(written: &Value, what: &str, got: Option<&Value>) -> Vec<Mismatch> {
    match Matcher::new(written) {
        Ok(matcher) => matcher.mismatches(what, got),
        Err(bad) => bad
            .into_iter()
            .map(|bad| Mismatch {
                what: format!("{what}{}", bad.path),
                expected: bad.expected.unwrap_or_else(|| "a matcher".into()),
                got: bad.message,
            })
            .collect(),
    }
}

fn read(written: &Value, lenient: bool) -> Result<Matcher, Vec<BadMatcher>> {
    let mut reader = Reader {
        lenient,
        bad: Vec::new(),
    };
    let matcher = reader.matcher(written, "");
    if reader.bad.is_empty() {
        Ok(matcher)
    } else {
        Err(reader.bad)
    }
}

struct Reader {
    lenient: bool,
    bad: Vec<BadMatcher>,
}

impl Reader {
    fn refuse(&mut self, path: &str, message: String, expected: Option<String>) {
        self.bad.push(BadMatcher {
            path: path.to_owned(),
            message,
            expected,
            help: None,
        });
    }

    fn matcher(&mut self, written: &Value, path: &str) -> Matcher {
        match written {
            Value::Object(map) if map.keys().any(|k| OPERATORS.contains(&k.as_str())) => {
                Matcher(self.operators(map, path))
            }
            Value::Object(map) => {
                for key in map.keys() {
                    if let Some(near) = nearly(key) {
                        self.bad.push(BadMatcher {
                            path: format!("{path}.{key}"),
                            message: format!("{key:?} is no operator of a matcher"),
                            expected: Some(format!("one of {}", OPERATORS.join(", "))),
                            help: Some(format!(
                                "did you mean {near:?}? To expect a table with this key, write {{ eq = {{ {key} = … }} }}"
                            )),
                        });
                    }
                }
                let fields = map
                    .iter()
                    .map(|(k, v)| (k.clone(), self.matcher(v, &format!("{path}.{k}"))))
                    .collect();
                Matcher(vec![Condition::Object(fields)])
            }
            Value::Array(items) => {
                let items = items
                    .iter()
                    .enumerate()
                    .map(|(i, v)| self.matcher(v, &format!("{path}[{i}]")))
                    .collect();
                Matcher(vec![Condition::Array(items)])
            }
            plain => Matcher(vec![Condition::Eq(plain.clone())]),
        }
    }

    fn operators(&mut self, map: &Map<String, Value>, path: &str) -> Vec<Condition> {
        let mut out = Vec::new();
        for (key, value) in map {
            let at = format!("{path}.{key}");
            if !OPERATORS.contains(&key.as_str()) {
                self.refuse(
                    &at,
                    format!("{key:?} stands among operators and is none"),
                    Some(format!("one of {}", OPERATORS.join(", "))),
                );
                continue;
            }
            if self.lenient && value.as_str().is_some_and(|text| text.contains("${")) {
                out.push(Condition::Later);
                continue;
            }
            out.extend(self.condition(key, value, &at));
        }
        out
    }

    fn condition(&mut self, key: &str, value: &Value, at: &str) -> Option<Condition> {
        let wrong = |expected: &str| {
            (
                format!("{key:?} is {}", shown(value)),
                Some(expected.to_owned()),
            )
        };
        let (message, expected) = match (key, value) {
            ("eq", value) => return Some(Condition::Eq(value.clone())),
            ("ne", value) => return Some(Condition::Ne(value.clone())),
            ("in", Value::Array(items)) => return Some(Condition::In(items.clone())),
            ("not_in", Value::Array(items)) => return Some(Condition::NotIn(items.clone())),
            ("in" | "not_in", _) => wrong("a list of values"),
            ("gt" | "ge" | "lt" | "le", Value::Number(_) | Value::String(_)) => {
                let order = match key {
                    "gt" => Order::Gt,
                    "ge" => Order::Ge,
                    "lt" => Order::Lt,
                    _ => Order::Le,
                };
                return Some(Condition::Order(order, value.clone()));
            }
            ("gt" | "ge" | "lt" | "le", _) => wrong("a number, or text to compare with"),
            ("matches", Value::String(pattern)) => match Regex::new(pattern) {
                Ok(regex) => return Some(Condition::Matches(regex)),
                Err(error) => (
                    format!(
                        "{pattern:?} is no regular expression: {}",
                        last_line(&error)
                    ),
                    None,
                ),
            },
            ("matches", _) => wrong("a regular expression"),
            ("contains", value) => return Some(Condition::Contains(value.clone())),
            ("length", Value::Number(_) | Value::Object(_)) => {
                return Some(Condition::Length(self.matcher(value, at)));
            }
            ("length", _) => wrong("a number or a matcher for one"),
            ("type", Value::String(name)) if TYPES.contains(&name.as_str()) => {
                return Some(Condition::Type(name.clone()));
            }
            ("type", _) => wrong(&format!("one of {}", TYPES.join(", "))),
            ("exists", Value::Bool(wanted)) => return Some(Condition::Exists(*wanted)),
            ("exists", _) => wrong("true or false"),
            ("approx", Value::Object(parts)) => {
                let number = |name: &str| parts.get(name).and_then(Value::as_f64);
                match (number("of"), number("by"), parts.len()) {
                    (Some(of), Some(by), 2) if by >= 0.0 => {
                        return Some(Condition::Approx { of, by });
                    }
                    _ if self.lenient && value.to_string().contains("${") => {
                        return Some(Condition::Later);
                    }
                    _ => wrong("two numbers: { of = 0.5, by = 0.05 }"),
                }
            }
            ("approx", _) => wrong("two numbers: { of = 0.5, by = 0.05 }"),
            ("all", value) => return Some(Condition::All(self.matcher(value, at))),
            ("any", value) => return Some(Condition::Any(self.matcher(value, at))),
            _ => return None,
        };
        self.refuse(at, message, expected);
        None
    }
}

/// The operator that a key was probably meant to be.
fn nearly(key: &str) -> Option<&'static str> {
    let plain = key.to_ascii_lowercase().replace(['-', '_'], "");
    if plain.len() < 4 {
        return None;
    }
    OPERATORS.into_iter().find(|operator| {
        let operator_plain = operator.replace('_', "");
        operator_plain.len() >= 4
            && (plain == operator_plain
                || (plain.len().abs_diff(operator_plain.len()) <= 1
                    && sorted(&plain) == sorted(&operator_plain)))
    })
}

fn sorted(text: &str) -> Vec<char> {
    let mut chars: Vec<char> = text.chars().collect();
    chars.sort_unstable();
    chars
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or("").trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl Condition {
    fn test(&self, what: &str, got: Option<&Value>, out: &mut Vec<Mismatch>) {
        let Some(value) = got else {
            if !matches!(self, Condition::Exists(false)) {
                out.push(Mismatch {
                    what: what.to_owned(),
                    expected: self.to_string(),
                    got: "nothing there".into(),
                });
            }
            return;
        };
        match (self, value) {
            (Condition::Object(fields), Value::Object(map)) => {
                for (key, matcher) in fields {
                    out.extend(matcher.mismatches(&format!("{what}.{key}"), map.get(key)));
                }
                for (key, extra) in map.iter().filter(|(key, _)| !fields.contains_key(*key)) {
                    out.push(Mismatch {
                        what: format!("{what}.{key}"),
                        expected: "nothing there".into(),
                        got: shown(extra),
                    });
                }
                return;
            }
            (Condition::Array(matchers), Value::Array(items)) if matchers.len() == items.len() => {
                for (i, (matcher, item)) in matchers.iter().zip(items).enumerate() {
                    out.extend(matcher.mismatches(&format!("{what}[{i}]"), Some(item)));
                }
                return;
            }
            (Condition::Length(matcher), _) => {
                match length(value) {
                    Some(n) => {
                        let n = Value::from(n);
                        out.extend(matcher.mismatches(&format!("length of {what}"), Some(&n)));
                    }
                    None => out.push(self.mismatch(what, value)),
                }
                return;
            }
            (Condition::All(matcher), Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    out.extend(matcher.mismatches(&format!("{what}[{i}]"), Some(item)));
                }
                return;
            }
            _ => {}
        }
        if !self.holds(value) {
            out.push(self.mismatch(what, value));
        }
    }

    fn mismatch(&self, what: &str, value: &Value) -> Mismatch {
        Mismatch {
            what: what.to_owned(),
            expected: self.to_string(),
            got: shown(value),
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match self {
            Condition::Eq(want) => equal(want, value),
            Condition::Ne(other) => !equal(other, value),
            Condition::In(items) => items.iter().any(|item| equal(item, value)),
            Condition::NotIn(items) => !items.iter().any(|item| equal(item, value)),
            Condition::Order(order, bound) => {
                ordered(value, bound).is_some_and(|found| match order {
                    Order::Gt => found.is_gt(),
                    Order::Ge => found.is_ge(),
                    Order::Lt => found.is_lt(),
                    Order::Le => found.is_le(),
                })
            }
            Condition::Matches(regex) => match value {
                Value::String(text) => regex.is_match(text),
                Value::Number(number) => regex.is_match(&number.to_string()),
                _ => false,
            },
            Condition::Contains(part) => match (value, part) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), part) => items.iter().any(|item| equal(item, part)),
                _ => false,
            },
            Condition::Type(name) => match value {
                Value::Null => name == "null",
                Value::Bool(_) => name == "boolean",
                Value::Number(n) => {
                    name == "number"
                        || (name == "integer"
                            && (n.is_i64()
                                || n.is_u64()
                                || n.as_f64().is_some_and(|f| f.fract() == 0.0)))
                }
                Value::String(_) => name == "string",
                Value::Array(_) => name == "array",
                Value::Object(_) => name == "object",
            },
            Condition::Exists(wanted) => *wanted,
            Condition::Approx { of, by } => value.as_f64().is_some_and(|got| {
                // A number at the very edge is in, however floats round.
                (got - of).abs() <= by + f64::EPSILON * of.abs().max(1.0)
            }),
            Condition::Any(matcher) => value
                .as_array()
                .is_some_and(|items| items.iter().any(|item| matcher.accepts(Some(item)))),
            // Of a matching shape they have been taken apart before.
            Condition::All(_)
            | Condition::Object(_)
            | Condition::Array(_)
            | Condition::Length(_) => false,
            Condition::Later => true,
        }
    }
}

/// Equal as JSON; numbers by their value, so that 1 is 1.0.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a == b || ordered(a, b).is_some_and(|o| o.is_eq()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Numbers by value, texts by their characters; anything else has no order.
fn ordered(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i128(), y.as_i128()) {
            (Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
        },
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        _ => None,
    }
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(map) => Some(map.len()),
        _ => None,
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, condition) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" and ")?;
            }
            condition.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Eq(value) => f.write_str(&shown(value)),
            Condition::Ne(value) => write!(f, "anything but {}", shown(value)),
            Condition::In(items) => write!(f, "one of {}", list(items)),
            Condition::NotIn(items) => write!(f, "none of {}", list(items)),
            Condition::Order(order, bound) => {
                let words = match order {
                    Order::Gt => "more than",
                    Order::Ge => "at least",
                    Order::Lt => "less than",
                    Order::Le => "at most",
                };
                write!(f, "{words} {}", shown(bound))
            }
            Condition::Matches(regex) => write!(f, "text that matches /{regex}/"),
            Condition::Contains(part @ Value::String(_)) => {
                write!(f, "text with {0} in it, or a list with it", shown(part))
            }
            Condition::Contains(part) => write!(f, "a list with {} in it", shown(part)),
            Condition::Length(matcher) => {
                write!(f, "text, a list or an object of length {matcher}")
            }
            Condition::Type(name) => write!(f, "of type {name}"),
            Condition::Exists(true) => f.write_str("something there"),
            Condition::Exists(false) => f.write_str("nothing there"),
            Condition::Approx { of, by } => write!(f, "{of} ± {by}"),
            Condition::All(matcher) => write!(f, "a list of which each is {matcher}"),
            Condition::Any(matcher) => write!(f, "a list of which one is {matcher}"),
            Condition::Object(fields) => {
                f.write_str("{")?;
                for (i, (key, matcher)) in fields.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {matcher}")?;
                }
                f.write_str("}")
            }
            Condition::Array(items) => {
                f.write_str("[")?;
                for (i, matcher) in items.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{matcher}")?;
                }
                f.write_str("]")
            }
            Condition::Later => f.write_str("a variable's value"),
        }
    }
}

fn list(items: &[Value]) -> String {
    items.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A value as JSON, cut where it is long.
pub fn shown(value: &Value) -> String {
    shortened(&value.to_string(), 300)
}

/// Text of at most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
