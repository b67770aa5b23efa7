use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::suite::{spec::HttpSpec, value::Text};

fn vars() -> Vars {
    let mut vars = Vars::written([
        ("api1".to_owned(), json!("Python")),
        ("base".to_owned(), json!("http://${host}/x")),
        ("host".to_owned(), json!("h:1")),
        ("both".to_owned(), json!(["${api1}", 2])),
        ("loop".to_owned(), json!("${pool}")),
        ("pool".to_owned(), json!("a${loop}")),
    ]);
    vars.set("id", json!(7));
    vars.set("row", json!({"a": [1]}));
    vars.set("sly", json!("${api1}"));
    vars
}

#[rstest]
#[case("", "")]
#[case("plain $ and { and }", "plain $ and { and }")]
#[case("a ${api1} b", "a Python b")]
#[case("${base}/${id}", "http://h:1/x/7")]
#[case("$${api1}", "${api1}")]
#[case("$$${api1}", "$${api1}")]
#[case("${row}", "{\"a\":[1]}")]
#[case("${sly}", "${api1}")]
#[case("ñ${api1}ñ", "ñPythonñ")]
fn texts(#[case] text: &str, #[case] want: &str) {
    assert_eq!(vars().text(text).unwrap(), want);
}

#[rstest]
#[case(json!("${id}"), json!(7))]
#[case(json!("${id} "), json!("7 "))]
#[case(json!(["${both}", 1.5, null, true]), json!([["Python", 2], 1.5, null, true]))]
#[case(json!({"${api1}": {"n": "${id}"}}), json!({"Python": {"n": 7}}))]
#[case(json!({TEXT_KEY: "${id}"}), json!("7"))]
#[case(json!("${sly}"), json!("${api1}"))]
fn values(#[case] value: Value, #[case] want: Value) {
    assert_eq!(vars().value(&value).unwrap(), want);
}

#[rstest]
#[case("${nobody}", VarError::Unknown("nobody".into()))]
#[case("${loop}", VarError::Cycle("loop".into()))]
#[case("${", VarError::Malformed("nothing closes it"))]
#[case("${a b}", VarError::Malformed("what follows is no name"))]
#[case("${}", VarError::Malformed("what follows is no name"))]
fn refused(#[case] text: &str, #[case] want: VarError) {
    assert_eq!(vars().text(text).unwrap_err(), want);
}

#[test]
fn a_specs_texts_stay_text_and_its_values_keep_their_type() {
    let spec = HttpSpec {
        url: "${id}".into(),
        headers: [("x".to_owned(), Text::from("${id}"))].into(),
        json: Some(json!({"n": "${id}"})),
        timeout: Some(crate::suite::value::Time(std::time::Duration::from_millis(
            1500,
        ))),
        ..HttpSpec::default()
    };
    let filled = vars().fill(&spec).unwrap();
    assert_eq!(filled.url.as_str(), "7");
    assert_eq!(filled.headers["x"].as_str(), "7");
    assert_eq!(filled.json, Some(json!({"n": 7})));
    assert_eq!(filled.timeout, spec.timeout);
}

#[test]
fn each_use_of_uuid_is_a_new_one() {
    let value = vars().value(&json!(["${uuid}", "${uuid}"])).unwrap();
    assert_ne!(value[0], value[1]);
}

#[test]
fn a_secret_is_not_in_the_debug_form() {
    let mut vars = Vars::default();
    vars.set("DATABASE_URL", json!("mysql://u:hunter2@h/d"));
    assert!(!format!("{vars:?}").contains("hunter2"));
}

#[test]
fn two_sides_get_the_same_identifiers() {
    let mut left = vars();
    left.seed_uuids(7);
    let mut right = vars();
    right.seed_uuids(7);
    let three = |vars: &Vars| vars.text("${uuid} ${uuid} ${uuid}").unwrap();
    let first = three(&left);
    assert_eq!(first, three(&right));
    assert_ne!(first, three(&left), "each use has its own");
    let mut ids: Vec<&str> = first.split(' ').collect();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()));
    right.seed_uuids(8);
    assert_ne!(first, three(&right));
}
