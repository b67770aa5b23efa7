use serde_json::{Value, json};

use super::*;
use crate::source::{SourceFile, Sources};

fn read(text: &str) -> (Vec<Value>, Vec<Draft>) {
    let mut problems = Vec::new();
    let nodes = parse(&Text::whole(0, text, Reader::Kubernetes), &mut problems);
    (nodes.iter().map(Node::to_json).collect(), problems)
}

#[track_caller]
fn clean(text: &str) -> Vec<Value> {
    let (values, problems) = read(text);
    assert!(problems.is_empty(), "{problems:?}");
    values
}

fn codes(text: &str) -> Vec<&'static str> {
    read(text).1.iter().map(|p| p.code).collect()
}

#[test]
fn documents_and_empty_ones() {
    assert_eq!(
        clean("---\n# only a comment\n---\na: 1\n---\n---\n~\n...\n---\nb: 2\n"),
        [json!({"a": 1}), json!({"b": 2})]
    );
    assert!(clean("").is_empty());
    assert!(clean("# nothing\n").is_empty());
}

#[test]
fn block_scalars_quotes_and_line_ends() {
    assert_eq!(
        clean("a: |\n  x\n   y\nb: >-\n  one\n  two\nc: 'it''s'\nd: \"t\\tab\"\n"),
        [json!({"a": "x\n y\n", "b": "one two", "c": "it's", "d": "t\tab"})]
    );
    assert_eq!(clean("a: 1\r\nb: x\r\n"), [json!({"a": 1, "b": "x"})]);
    // Quoted and block scalars are text, whatever they look like.
    assert_eq!(
        clean("a: \"yes\"\nb: '010'\nc: |-\n  null\n"),
        [json!({"a": "yes", "b": "010", "c": "null"})]
    );
}

#[test]
fn json_with_tabs_is_yaml_enough() {
    assert_eq!(
        clean("{\n\t\"a\": [1, true, null],\n\t\"b\": \"\\/\\u00e9\"\n}\n"),
        [json!({"a": [1, true, null], "b": "/é"})]
    );
}

#[test]
fn anchors_aliases_and_merges() {
    assert_eq!(
        clean("x: &x {a: 1, b: 2}\nw:\n  <<: *x\n  b: 3\nz: *x\n"),
        [json!({"x": {"a": 1, "b": 2}, "w": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2}})]
    );
    assert_eq!(
        clean("p: &p {a: 1}\nq: &q {a: 2, c: 3}\nr: {<<: [*p, *q], d: 4}\n"),
        [json!({"p": {"a": 1}, "q": {"a": 2, "c": 3}, "r": {"a": 1, "c": 3, "d": 4}})]
    );
    // A quoted "<<" is a key like any other.
    assert_eq!(clean("\"<<\": 1\n"), [json!({"<<": 1})]);
    assert_eq!(codes("a: {<<: 1}\n"), ["yaml::merge"]);
    assert_eq!(codes("a: *nothing\n"), ["yaml::syntax"]);
    assert_eq!(codes("a: &a [*a]\n"), ["yaml::recursive-alias"]);
}

#[test]
fn an_anchor_belongs_to_its_document() {
    assert_eq!(codes("a: &a 1\n---\nb: *a\n"), ["yaml::syntax"]);
}

#[test]
fn keys_are_strings_as_kubernetes_makes_them() {
    let (values, problems) = read("on: 1\n010: 2\n\"no\": 3\n");
    assert_eq!(values, [json!({"true": 1, "8": 2, "no": 3})]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(codes("~: 1\n"), ["yaml::key-not-string"]);
    assert_eq!(codes("[a]: 1\n"), ["yaml::key-not-scalar"]);
}

#[test]
fn tags() {
    assert_eq!(
        clean("a: !!str 5\nb: !!int \"5\"\nc: !!float 1\nd: ! 5\n"),
        [json!({"a": "5", "b": 5, "c": 1, "d": "5"})]
    );
    assert_eq!(codes("a: !!binary aGk=\n"), ["yaml::unknown-tag"]);
    assert_eq!(codes("a: !Ref b\n"), ["yaml::unknown-tag"]);
    assert_eq!(codes("a: !!bool maybe\n"), ["yaml::tag-mismatch"]);
    assert_eq!(codes("a: !!set {b}\n"), ["yaml::unknown-tag"]);
}

#[test]
fn a_duplicate_key_names_both_places_and_reading_goes_on() {
    let text = "a: 1\nb: 2\na: 3\nb: 4\n";
    let (values, problems) = read(text);
    assert_eq!(values, [json!({"a": 1, "b": 2})]);
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].span.start, 10);
    assert_eq!(problems[0].related[0].0.start, 0);
}

#[test]
fn a_broken_document_does_not_hide_the_next() {
    let (values, problems) = read("a: [\n---\nb: 1\n---\n c: 2\nd: 3\n---\ne: 4\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(values, [json!({"b": 1}), json!({"e": 4})]);
}

#[test]
fn an_embedded_block_points_into_its_file() {
    let outer = "x:\n  - patch: |-\n      - op: add\n        path: /é\n\n        value: y\n";
    let mut sources = Sources::default();
    let file = sources.add(SourceFile::new("k.yaml", outer.into()));
    let mut problems = Vec::new();
    let root = parse(&Text::whole(file, outer, Reader::Kustomize), &mut problems).remove(0);
    let patch = &root.get("x").unwrap().items()[0].get("patch").unwrap();
    let source = sources.file(file).clone();
    let text = Text::embedded(
        &source,
        patch.span,
        patch.as_str().unwrap(),
        Reader::Kustomize,
    );
    let inner = parse(&text, &mut problems).remove(0);
    assert!(problems.is_empty(), "{problems:?}");
    let at = |key: &str| {
        sources
            .origin(inner.items()[0].get(key).unwrap().span)
            .to_string()
    };
    assert_eq!(at("op"), "k.yaml:3:13");
    assert_eq!(at("value"), "k.yaml:6:16");
    assert_eq!(
        sources.text(inner.items()[0].get("path").unwrap().span),
        "/é"
    );
}
