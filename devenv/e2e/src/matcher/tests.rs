use rstest::rstest;
use serde_json::{Value, json};

use super::*;

#[rstest]
#[case(json!(201), json!(201), true)]
#[case(json!(1), json!(1.0), true)]
#[case(json!("1"), json!(1), false)]
#[case(json!(null), json!(null), true)]
#[case(json!({}), json!({}), true)]
#[case(json!({}), json!({"a": 1}), false)]
#[case(json!({"a": {"gt": 1}}), json!({"a": 2}), true)]
#[case(json!({"a": {"gt": 1}}), json!({"a": 2, "b": 1}), false)]
#[case(json!([1, {"type": "string"}]), json!([1, "x"]), true)]
#[case(json!([1, 2]), json!([1]), false)]
#[case(json!({"eq": {"gt": 1}}), json!({"gt": 1}), true)]
#[case(json!({"ne": 1}), json!(2), true)]
#[case(json!({"ne": 1}), json!(1.0), false)]
#[case(json!({"in": ["a", "b"]}), json!("b"), true)]
#[case(json!({"in": []}), json!("b"), false)]
#[case(json!({"not_in": [1]}), json!(1), false)]
#[case(json!({"gt": 1, "le": 3}), json!(3), true)]
#[case(json!({"gt": 1, "le": 3}), json!(1), false)]
#[case(json!({"ge": 9007199254740993_i64}), json!(9007199254740992_i64), false)]
#[case(json!({"lt": "2026-01-02"}), json!("2026-01-01"), true)]
#[case(json!({"lt": 5}), json!("4"), false)]
#[case(json!({"matches": "^a.c"}), json!("abcd"), true)]
#[case(json!({"matches": "b"}), json!("abc"), true)]
#[case(json!({"matches": "^5"}), json!(503), true)]
#[case(json!({"contains": "b"}), json!("abc"), true)]
#[case(json!({"contains": 2}), json!([1, 2]), true)]
#[case(json!({"contains": 2}), json!("12"), false)]
#[case(json!({"length": 2}), json!("ñé"), true)]
#[case(json!({"length": {"ge": 1}}), json!([]), false)]
#[case(json!({"length": 1}), json!(1), false)]
#[case(json!({"type": "integer"}), json!(1.0), true)]
#[case(json!({"type": "integer"}), json!(1.5), false)]
#[case(json!({"type": "object"}), json!([]), false)]
#[case(json!({"exists": true}), json!(null), true)]
#[case(json!({"exists": false}), json!(null), false)]
#[case(json!({"approx": {"of": 0.5, "by": 0.05}}), json!(0.55), true)]
#[case(json!({"approx": {"of": 0.5, "by": 0.05}}), json!(0.56), false)]
#[case(json!({"all": {"gt": 0}}), json!([1, 2]), true)]
#[case(json!({"all": {"gt": 0}}), json!([1, 0]), false)]
#[case(json!({"all": {"gt": 0}}), json!(1), false)]
#[case(json!({"any": {"length": 1}}), json!([[], [1]]), true)]
#[case(json!({"any": 1}), json!([]), false)]
fn accepts(#[case] written: Value, #[case] got: Value, #[case] want: bool) {
    let matcher = Matcher::new(&written).unwrap();
    assert_eq!(matcher.accepts(Some(&got)), want, "{written} on {got}");
}

#[rstest]
#[case(json!({"exists": false}), true)]
#[case(json!({"exists": true}), false)]
#[case(json!({"ne": 1}), false)]
#[case(json!(null), false)]
fn what_is_not_there_matches_only_its_absence(#[case] written: Value, #[case] want: bool) {
    assert_eq!(Matcher::new(&written).unwrap().accepts(None), want);
}

#[test]
fn words() {
    let written = json!({
        "api": {"in": ["api1", "api2"]},
        "ids": {"length": 1, "all": {"type": "integer"}},
        "share": {"approx": {"of": 0.5, "by": 0.05}},
        "gone": {"exists": false},
        "name": {"matches": "^[a-z]+$"},
        "there": "x",
        "n": {"gt": 1, "le": 2},
    });
    let got = json!({
        "api": "api3", "ids": [1, "x"], "share": 0.9, "gone": 1, "name": "A", "n": 3, "more": []
    });
    let mut said: Vec<String> = mismatches(&written, "$", Some(&got))
        .into_iter()
        .map(|m| format!("{}: expected {}, got {}", m.what, m.expected, m.got))
        .collect();
    // A table of JSON may have an order or not, as other crates ask of its library.
    said.sort();
    insta::assert_snapshot!(said.join("\n"), @r#"
    $.api: expected one of "api1", "api2", got "api3"
    $.gone: expected nothing there, got 1
    $.ids[1]: expected of type integer, got "x"
    $.more: expected nothing there, got []
    $.n: expected at most 2, got 3
    $.name: expected text that matches /^[a-z]+$/, got "A"
    $.share: expected 0.5 ± 0.05, got 0.9
    $.there: expected "x", got nothing there
    length of $.ids: expected 1, got 2
    "#);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let written = json!({
        "in": {"in": 1},
        "gt": {"x": {"gt": null}},
        "matches": [{"matches": "("}],
        "type": {"x": {"type": "text"}},
        "mixed": [{"eq": 1, "foo": 2}],
        "near": [{"contians": "x"}, {"not-in": [1]}],
        "approx": [{"approx": {"of": 1}}],
        "length": [{"length": [1]}],
        "exists": [{"exists": "yes"}],
    });
    let mut said: Vec<String> = written
        .as_object()
        .unwrap()
        .values()
        .flat_map(|written| Matcher::check(written).unwrap_err())
        .map(|bad| {
            format!(
                "{}: {} | {} | {}",
                bad.path,
                bad.message,
                bad.expected.unwrap_or_default(),
                bad.help.unwrap_or_default()
            )
            .trim_end()
            .to_owned()
        })
        .collect();
    // A table of JSON may have an order or not, as other crates ask of its library.
    said.sort();
    insta::assert_snapshot!(said.join("\n"), @r#"
    .in: "in" is 1 | a list of values |
    .x.gt: "gt" is null | a number, or text to compare with |
    .x.type: "type" is "text" | one of string, number, integer, boolean, array, object, null |
    [0].approx: "approx" is {"of":1} | two numbers: { of = 0.5, by = 0.05 } |
    [0].contians: "contians" is no operator of a matcher | one of eq, ne, in, not_in, gt, ge, lt, le, matches, contains, length, type, exists, approx, all, any | did you mean "contains"? To expect a table with this key, write { eq = { contians = … } }
    [0].exists: "exists" is "yes" | true or false |
    [0].foo: "foo" stands among operators and is none | one of eq, ne, in, not_in, gt, ge, lt, le, matches, contains, length, type, exists, approx, all, any |
    [0].length: "length" is [1] | a number or a matcher for one |
    [0].matches: "(" is no regular expression: unclosed group |  |
    [1].not-in: "not-in" is no operator of a matcher | one of eq, ne, in, not_in, gt, ge, lt, le, matches, contains, length, type, exists, approx, all, any | did you mean "not_in"? To expect a table with this key, write { eq = { not-in = … } }
    "#);
}

#[rstest]
#[case(json!({"length": "${n}"}))]
#[case(json!({"in": "${apis}"}))]
#[case(json!({"approx": {"of": "${n}", "by": 1}}))]
fn variables_are_known_later(#[case] written: Value) {
    Matcher::check(&written).unwrap();
    assert!(Matcher::new(&written).is_err());
}
