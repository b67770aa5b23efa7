//! What two answers to the same request have at each of their places.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    capture::{Answer, Source},
    matcher::shortened,
    suite::spec::CompareSpec,
};

/// What stands where nothing is.
const NOTHING: &str = "nothing there";
/// What is shown of a value.
const SHOWN: usize = 120;
/// The greatest whole number below which a double knows all others.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What is compared, and what is not.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Names of headers, in lower case.
    headers: Vec<String>,
    ignore: Vec<Ignore>,
}

#[derive(Debug)]
struct Ignore {
    written: String,
    place: Source,
    used: bool,
}

impl Rules {
    /// Those of a suite, which has been checked.
    pub(super) fn new(spec: &CompareSpec) -> Self {
        let headers = spec.headers.iter().map(|name| name.to_ascii_lowercase());
        let ignore = spec.ignore.iter().filter_map(|written| {
            Some(Ignore {
                written: written.clone(),
                place: Source::parse(written).ok()?,
                used: false,
            })
        });
        Self {
            headers: headers.collect(),
            ignore: ignore.collect(),
        }
    }

    /// The rules that met nothing, as written.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.ignore.iter().filter(|rule| !rule.used);
        unused.map(|rule| rule.written.as_str())
    }

    fn ignores(&mut self, is: impl Fn(&Source) -> bool) -> bool {
        let mut any = false;
        for rule in &mut self.ignore {
            if is(&rule.place) {
                rule.used = true;
                any = true;
            }
        }
        any
    }

    /// The values in `json` that are ignored, by where they are in memory.
    fn ignored<'v>(&mut self, json: &'v Value, out: &mut HashSet<*const Value>) {
        for rule in &mut self.ignore {
            let Source::Json(query) = &rule.place else {
                continue;
            };
            let found: Vec<&'v Value> = query.places(json);
            rule.used |= !found.is_empty();
            out.extend(found.into_iter().map(std::ptr::from_ref));
        }
    }
}

/// A place in two answers, and what each of them has there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `status`, `header content-type`, `body`, `$.records[*].id`: elements of a list are
    /// one place.
    pub place: String,
    /// The same with the element's number.
    pub exact: String,
    /// What is there, so that equal texts mean equal values.
    pub left: String,
    /// The same of the other.
    pub right: String,
    /// What to show instead, where that says more.
    pub shown: Option<(String, String)>,
}

/// Compares two answers place by place: also what is equal is told, so that it can be
/// said of how many.
///
/// Where the status differs, all the rest follows from it and is not looked at. Numbers
/// are equal if they are the same number, however they are written, and the order of an
/// object's keys doesn't count.
pub(super) fn answers(left: &Answer, right: &Answer, rules: &mut Rules) -> Vec<Seen> {
    let mut out = Vec::new();
    let ignores_status = rules.ignores(|place| matches!(place, Source::Status));
    if !ignores_status {
        let status = |answer: &Answer| answer.status.map_or(NOTHING.into(), |s| s.to_string());
        out.push(Seen::at("status", status(left), status(right)));
    }
    if left.status != right.status {
        return out;
    }
    for name in rules.headers.clone() {
        if rules.ignores(|place| matches!(place, Source::Header(header) if *header == name)) {
            continue;
        }
        let value = |answer: &Answer| answer.headers.get(&name).map(|v| Value::from(v.as_str()));
        let [left, right] = [left, right].map(|answer| words(value(answer).as_ref()));
        out.push(Seen::at(&format!("header {name}"), left, right));
    }
    if rules.ignores(|place| matches!(place, Source::Body)) {
        return out;
    }
    if let (Some(left), Some(right)) = (&left.json, &right.json) {
        let mut ignored = HashSet::new();
        rules.ignored(left, &mut ignored);
        rules.ignored(right, &mut ignored);
        let mut walk = Walk { ignored, out };
        walk.at(&Path::root(), Some(left), Some(right));
        return walk.out;
    }
    let text = |answer: &Answer| answer.body.clone().unwrap_or_default();
    out.push(bodies(&text(left), &text(right)));
    out
}

/// Bodies of which one at least is no JSON.
fn bodies(left: &str, right: &str) -> Seen {
    let whole = |text: &str| words(Some(&Value::from(text)));
    let mut seen = Seen::at("body", whole(left), whole(right));
    if left == right {
        return seen;
    }
    let (mut left, mut right) = (left.lines(), right.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (left, right) if left == right => {}
            (left, right) => {
                let line = |line: Option<&str>| match line {
                    Some(line) => {
                        format!("line {number} {}", words(Some(&Value::from(line.trim()))))
                    }
                    None => format!("no line {number}"),
                };
                seen.shown = Some((line(left), line(right)));
                break;
            }
        }
    }
    seen
}

impl Seen {
    pub(super) fn at(place: &str, left: String, right: String) -> Self {
        Self {
            place: place.to_owned(),
            exact: place.to_owned(),
            left,
            right,
            shown: None,
        }
    }
}

/// A place in a JSON value.
#[derive(Clone)]
struct Path {
    place: String,
    exact: String,
}

impl Path {
    fn root() -> Self {
        Self {
            place: "$".into(),
            exact: "$".into(),
        }
    }

    fn key(&self, key: &str) -> Self {
        let mut plain = key.chars();
        let is_plain = plain.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && plain.all(|c| c.is_alphanumeric() || c == '_');
        let step = if is_plain {
            format!(".{key}")
        } else {
            // As RFC 9535 has it, so that it can be copied into an `ignore`.
            format!("['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"))
        };
        Self {
            place: format!("{}{step}", self.place),
            exact: format!("{}{step}", self.exact),
        }
    }

    fn element(&self, index: usize) -> Self {
        Self {
            place: format!("{}[*]", self.place),
            exact: format!("{}[{index}]", self.exact),
        }
    }
}

struct Walk {
    ignored: HashSet<*const Value>,
    out: Vec<Seen>,
}

impl Walk {
    fn at(&mut self, path: &Path, left: Option<&Value>, right: Option<&Value>) {
        let ignored = |value: Option<&Value>| {
            value.is_some_and(|v| self.ignored.contains(&std::ptr::from_ref(v)))
        };
        if ignored(left) || ignored(right) {
            return;
        }
        let mut seen = Seen {
            place: path.place.clone(),
            exact: path.exact.clone(),
            left: kind_or_value(left),
            right: kind_or_value(right),
            shown: None,
        };
        let both = left.zip(right);
        match both {
            Some((Value::Object(left), Value::Object(right))) => {
                self.out.push(seen);
                let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
                for key in keys {
                    self.at(&path.key(key), left.get(key), right.get(key));
                }
            }
            Some((Value::Array(left), Value::Array(right))) => {
                self.out.push(seen);
                // What one has more is told by the lengths.
                for (i, (left, right)) in left.iter().zip(right).enumerate() {
                    self.at(&path.element(i), Some(left), Some(right));
                }
            }
            _ => {
                if seen.left != seen.right {
                    seen.shown = Some((words(left), words(right)));
                }
                self.out.push(seen);
            }
        }
    }
}

/// Objects and arrays are compared by what is in them.
fn kind_or_value(value: Option<&Value>) -> String {
    match value {
        Some(Value::Object(_)) => "an object".into(),
        Some(Value::Array(items)) if items.len() == 1 => "1 element".into(),
        Some(Value::Array(items)) => format!("{} elements", items.len()),
        value => words(value),
    }
}

/// A value as text: equal texts are equal values, also where they are shortened.
fn words(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return NOTHING.into();
    };
    let text = match value {
        Value::Number(number) => match number.as_f64() {
            // A whole number is the same without its ".0".
            Some(whole) if number.is_f64() && whole.fract() == 0.0 && whole.abs() < EXACT => {
                // Adding makes -0 a 0.
                format!("{:.0}", whole + 0.0)
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    };
    let mut short = shortened(&text, SHOWN);
    if short.len() < text.len() {
        let hash = Sha256::digest(text.as_bytes());
        let _ = write!(short, " (sha256 ");
        for byte in hash.iter().take(6) {
            let _ = write!(short, "{byte:02x}");
        }
        short.push(')');
    }
    short
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn answer(json: Value) -> Answer {
        Answer {
            status: Some(200),
            body: Some(json.to_string()),
            headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
            json: Some(json),
            ..Answer::default()
        }
    }

    fn rules(ignore: &[&str], headers: &[&str]) -> Rules {
        let own = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        Rules::new(&CompareSpec {
            ignore: own(ignore),
            headers: own(headers),
        })
    }

    /// What differs, a line each: `exact: left → right`.
    fn differing(left: &Answer, right: &Answer, rules: &mut Rules) -> Vec<String> {
        let seen = answers(left, right, rules).into_iter();
        seen.filter(|seen| seen.left != seen.right)
            .map(|seen| {
                let (left, right) = seen.shown.unwrap_or((seen.left, seen.right));
                format!("{}: {left} → {right}", seen.exact)
            })
            .collect()
    }

    #[rstest]
    #[case(json!({"a": 1, "b": [1, {"c": 2}]}), json!({"b": [1, {"c": 2}], "a": 1}), &[])]
    #[case(json!({"a": 1}), json!({"a": 2}), &["$.a: 1 → 2"])]
    #[case(json!({"a": 1}), json!({"a": "1"}), &["$.a: 1 → \"1\""])]
    #[case(json!({"a": 50.0, "b": -0.0}), json!({"a": 50, "b": 0}), &[])]
    #[case(json!(9007199254740993_u64), json!(9007199254740992_u64), &["$: 9007199254740993 → 9007199254740992"])]
    #[case(json!({"a": null}), json!({}), &["$.a: null → nothing there"])]
    #[case(json!({}), json!({"a": {"b": 1}}), &["$.a: nothing there → {\"b\":1}"])]
    #[case(json!({"a": {"b": 1}}), json!({"a": [1]}), &["$.a: {\"b\":1} → [1]"])]
    #[case(json!({"a": [1, 2, 3]}), json!({"a": [1, 9]}), &["$.a: 3 elements → 2 elements", "$.a[1]: 2 → 9"])]
    #[case(json!({"a": []}), json!({"a": [1]}), &["$.a: 0 elements → 1 element"])]
    #[case(json!({"it's": 1, "a.b": {"c": 1}}), json!({"it's": 2, "a.b": {"c": 2}}), &["$['a.b'].c: 1 → 2", "$['it\\'s']: 1 → 2"])]
    #[case(json!(true), json!(false), &["$: true → false"])]
    fn by_path(#[case] left: Value, #[case] right: Value, #[case] want: &[&str]) {
        let (left, right) = (answer(left), answer(right));
        let mut found = differing(&left, &right, &mut rules(&[], &[]));
        found.sort();
        assert_eq!(found, want);
    }

    #[rstest]
    #[case(&[], 5, &[])]
    #[case(&["$.ids"], 2, &[])]
    #[case(&["$.ids[*]"], 3, &[])]
    #[case(&["$..at"], 4, &[])]
    #[case(&["$.rows[?@.n > 1].at"], 4, &[])]
    #[case(&["$.rows[0]"], 5, &[])]
    #[case(&["$.nobody", "header:etag", "status"], 5, &["$.nobody", "header:etag"])]
    #[case(&["body"], 0, &[])]
    #[case(&["$"], 0, &[])]
    fn what_is_ignored(#[case] ignore: &[&str], #[case] left: usize, #[case] unused: &[&str]) {
        let (a, b) = (
            answer(
                json!({"ids": [1, 2, 3], "x": 1, "rows": [{"n": 1, "at": 0}, {"n": 2, "at": "a"}]}),
            ),
            answer(
                json!({"ids": [4, 5], "x": 2, "rows": [{"n": 1, "at": 0}, {"n": 2, "at": "b"}]}),
            ),
        );
        let mut rules = rules(ignore, &["content-type"]);
        let found = differing(&a, &b, &mut rules);
        assert_eq!(found.len(), left, "{found:?}");
        assert_eq!(rules.unused().collect::<Vec<_>>(), unused);
    }

    #[test]
    fn headers_that_were_asked_for() {
        let left = answer(json!(1));
        let mut right = left.clone();
        right.headers = [("etag".to_owned(), "x".to_owned())].into();
        let found = differing(&left, &right, &mut rules(&[], &["Content-Type"]));
        assert_eq!(
            found,
            ["header content-type: \"application/json\" → nothing there"]
        );
        let both = ["content-type", "etag"];
        let found = differing(&left, &right, &mut rules(&["header:Content-Type"], &both));
        assert_eq!(found, ["header etag: nothing there → \"x\""]);
    }

    #[test]
    fn from_another_status_the_rest_follows() {
        let left = answer(json!({"ids": [1]}));
        let right = Answer {
            status: Some(503),
            ..answer(json!({"title": "away"}))
        };
        let found = differing(&left, &right, &mut rules(&[], &["content-type"]));
        assert_eq!(found, ["status: 200 → 503"]);
        let found = differing(&left, &right, &mut rules(&["status"], &[]));
        assert_eq!(found, [""; 0]);
    }

    #[rstest]
    #[case("a\nb\nc", "a\nx\nc", "body: line 2 \"b\" → line 2 \"x\"")]
    #[case("a", "a\nb", "body: no line 2 → line 2 \"b\"")]
    #[case("a", "{}", "body: line 1 \"a\" → line 1 \"{}\"")]
    #[case("a\n", "a", "body: \"a\\n\" → \"a\"")]
    fn texts(#[case] left: &str, #[case] right: &str, #[case] want: &str) {
        let text = |text: &str| Answer {
            status: Some(200),
            body: Some(text.to_owned()),
            json: serde_json::from_str(text).ok(),
            ..Answer::default()
        };
        let found = differing(&text(left), &text(right), &mut rules(&[], &[]));
        assert_eq!(found, [want]);
        let same = differing(&text(left), &text(left), &mut rules(&[], &[]));
        assert_eq!(same, [""; 0]);
    }

    #[test]
    fn long_values_are_shortened_and_still_told_apart() {
        let long = |end: &str| answer(json!({ "a": format!("{}{end}", "x".repeat(200)) }));
        let found = differing(&long("1"), &long("2"), &mut rules(&[], &[]));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("sha256") && found[0].chars().count() < 400);
        assert!(differing(&long("1"), &long("1"), &mut rules(&[], &[])).is_empty());
    }
}
