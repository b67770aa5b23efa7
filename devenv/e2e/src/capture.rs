//! Where in an answer a value is found: a JSON path, a header, the body, the status.

use std::{collections::BTreeMap, fmt};

use jsonpath_rust::{
    parser::{
        model::{JpQuery, Segment, Selector},
        parse_json_path,
    },
    query::js_path_process,
};
use serde_json::Value;

/// What came of a step, as far as it can be expected of and captured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `$`: an answer's body as JSON, rows, an acknowledgement, a script's value.
    pub json: Option<Value>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Headers, their names in lower case; several of a name are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body as text, or what a program printed.
    pub body: Option<String>,
    /// A program's exit code.
    pub exit: Option<i32>,
    /// What a program printed as errors.
    pub stderr: Option<String>,
}

/// Where a value is found.
#[derive(Clone, Debug)]
pub enum Source {
    /// An RFC 9535 path.
    Json(Query),
    /// A header, its name in lower case.
    Header(String),
    /// All of the body.
    Body,
    /// The status.
    Status,
}

/// An RFC 9535 path that has been read.
#[derive(Clone, Debug)]
pub struct Query {
    query: JpQuery,
    single: bool,
}

impl Source {
    /// Reads what a capture says.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "body" => Ok(Source::Body),
            "status" => Ok(Source::Status),
            _ => match text.strip_prefix("header:") {
                Some("") => Err("the header has no name".into()),
                Some(name) => Ok(Source::Header(name.trim().to_ascii_lowercase())),
                None if text.starts_with('$') => json_path(text).map(Source::Json),
                None => Err(format!("{text:?} is no place in an answer")),
            },
        }
    }

    /// The value there.
    pub fn find(&self, answer: &Answer) -> Option<Value> {
        match self {
            Source::Json(query) => query.find(answer.json.as_ref()?),
            Source::Header(name) => answer.headers.get(name).cloned().map(Value::String),
            Source::Body => answer.body.clone().map(Value::String),
            Source::Status => answer.status.map(Value::from),
        }
    }
}

/// Reads a JSON path.
///
/// # Errors
/// What is wrong with it, for people.
pub fn json_path(text: &str) -> Result<Query, String> {
    let query = parse_json_path(text).map_err(|error| {
        let said = error.to_string();
        let line = said.lines().last().unwrap_or_default().trim();
        format!(
            "{text:?} is no JSON path: {}",
            line.trim_start_matches("= ")
        )
    })?;
    let single = query.segments.iter().all(|segment| {
        matches!(
            segment,
            Segment::Selector(Selector::Name(_) | Selector::Index(_))
        )
    });
    Ok(Query { query, single })
}

impl Query {
    /// What is at the path. One that can lead to several values gives their list, which
    /// may be empty; any other gives its value, if there is one.
    pub fn find(&self, json: &Value) -> Option<Value> {
        let found = js_path_process(&self.query, json).unwrap_or_default();
        let mut values = found.into_iter().map(|found| found.val().clone());
        if self.single {
            values.next()
        } else {
            Some(Value::Array(values.collect()))
        }
    }

    /// All values at the path, where they stand.
    pub(crate) fn places<'v>(&self, json: &'v Value) -> Vec<&'v Value> {
        let found = js_path_process(&self.query, json).unwrap_or_default();
        found.into_iter().map(|found| found.val()).collect()
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("$", Some(json!({"ids": [1, 2], "a.b": {"c": "x"}, "n": null})))]
    #[case("$.ids[0]", Some(json!(1)))]
    #[case("$.ids[-1]", Some(json!(2)))]
    #[case("$.ids[9]", None)]
    #[case("$.ids[*]", Some(json!([1, 2])))]
    #[case("$.nobody[*]", Some(json!([])))]
    #[case("$['a.b'].c", Some(json!("x")))]
    #[case("$.n", Some(json!(null)))]
    #[case("$..c", Some(json!(["x"])))]
    #[case("$.ids[?@ > 1]", Some(json!([2])))]
    #[case("header:X-Version", Some(json!("v2")))]
    #[case("header:x-nobody", None)]
    #[case("status", Some(json!(201)))]
    #[case("body", Some(json!("{}")))]
    fn finds(#[case] source: &str, #[case] want: Option<Value>) {
        let answer = Answer {
            json: Some(json!({"ids": [1, 2], "a.b": {"c": "x"}, "n": null})),
            status: Some(201),
            headers: [("x-version".to_owned(), "v2".to_owned())].into(),
            body: Some("{}".into()),
            ..Answer::default()
        };
        assert_eq!(Source::parse(source).unwrap().find(&answer), want);
    }

    #[rstest]
    #[case("ids[0]")]
    #[case("$.ids[")]
    #[case("$.")]
    #[case("header:")]
    #[case("")]
    fn refused(#[case] source: &str) {
        Source::parse(source).unwrap_err();
    }
}
