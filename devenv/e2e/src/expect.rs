//! Whether an answer is as expected.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::{
    capture::{Answer, json_path},
    matcher::{Matcher, mismatches, shortened},
    outcome::Mismatch,
    suite::spec::Expect,
};

/// Everything about an answer that is not as expected. `folder` is the suite's, `took`
/// what the step took. `shares`, `rows` and their like are for the steps that have them.
pub fn check(expect: &Expect, answer: &Answer, took: Duration, folder: &Path) -> Vec<Mismatch> {
    let mut out = Vec::new();
    if let Some(status) = &expect.status {
        let got = answer.status.map(Value::from);
        out.extend(mismatches(status, "status", got.as_ref()));
    }
    for (name, written) in &expect.headers {
        let got = answer.headers.get(&name.to_ascii_lowercase());
        out.extend(header(written, name, got));
    }
    out.extend(check_json(expect, answer.json.as_ref()));
    let text = |text: &Option<String>| text.clone().map(Value::String);
    for (what, written, got) in [
        ("body", &expect.body, text(&answer.body)),
        ("stdout", &expect.stdout, text(&answer.body)),
        ("stderr", &expect.stderr, text(&answer.stderr)),
        ("exit", &expect.exit, answer.exit.map(Value::from)),
    ] {
        if let Some(written) = written {
            out.extend(mismatches(written, what, got.as_ref()));
        }
    }
    if let Some(schema) = &expect.schema {
        out.extend(check_schema(&folder.join(schema.as_str()), answer));
    }
    if let Some(within) = expect.within
        && took > within.0
    {
        out.push(Mismatch {
            what: "time".into(),
            expected: format!("within {within}"),
            got: format!("{} ms", took.as_millis()),
        });
    }
    out
}

/// What is not as expected about a value by `expect.json`.
pub fn check_json(expect: &Expect, json: Option<&Value>) -> Vec<Mismatch> {
    let mut out = Vec::new();
    for (path, written) in &expect.json {
        match json_path(path) {
            Ok(query) => {
                let got = json.and_then(|json| query.find(json));
                let mut found = mismatches(written, path, got.as_ref());
                if json.is_none() {
                    for mismatch in &mut found {
                        mismatch.got = "no JSON".into();
                    }
                }
                out.extend(found);
            }
            Err(why) => out.push(Mismatch {
                what: path.clone(),
                expected: "a JSON path".into(),
                got: why,
            }),
        }
    }
    out
}

/// A header is text; a matcher for numbers sees the number that it spells.
fn header(written: &Value, name: &str, got: Option<&String>) -> Vec<Mismatch> {
    let what = format!("header {name}");
    let text = got.cloned().map(Value::String);
    let found = mismatches(written, &what, text.as_ref());
    let number = got.and_then(|text| serde_json::from_str::<serde_json::Number>(text).ok());
    if let (false, Some(number), Ok(matcher)) = (found.is_empty(), number, Matcher::new(written))
        && matcher.accepts(Some(&Value::Number(number)))
    {
        return Vec::new();
    }
    found
}

/// A validator for the JSON Schema in a file. Nothing is fetched: a `$ref` leads to
/// another place in the file.
///
/// # Errors
/// Why the file is no schema, for people.
pub fn validator(path: &Path) -> Result<jsonschema::Validator, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let schema: Value =
        serde_json::from_str(&text).map_err(|e| format!("this is not JSON: {e}"))?;
    jsonschema::validator_for(&schema).map_err(|e| format!("this is no JSON Schema: {e}"))
}

fn check_schema(path: &Path, answer: &Answer) -> Vec<Mismatch> {
    const SHOWN: usize = 10;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let one = |what: String, got: String| Mismatch {
        what,
        expected: format!("as {file} says"),
        got,
    };
    let validator = match validator(path) {
        Ok(validator) => validator,
        Err(why) => return vec![one("schema".into(), why)],
    };
    let Some(json) = &answer.json else {
        return vec![one("$".into(), "no JSON".into())];
    };
    validator
        .iter_errors(json)
        .take(SHOWN)
        .map(|error| {
            let place = error.instance_path().to_string();
            one(format!("${place}"), shortened(&error.to_string(), 300))
        })
        .collect()
}
