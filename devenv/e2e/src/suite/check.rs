//! What types can't say: variables that exist, matchers that make sense, keys that
//! belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use devenv_model::document::Document;
use serde_json::Value;

use super::{KINDS, Known, RawStep, RawSuite, actions, is_for_profile, spec::Expect, value::Text};
use crate::{
    capture::Source,
    matcher::Matcher,
    vars::{BUILT_IN, Piece, VarError, Vars, is_name, pieces},
};

/// Notes everything that is wrong with a suite beyond its types.
pub(super) fn check(
    document: &mut Document,
    suite: &RawSuite,
    folder: &Path,
    known: Option<&Known>,
) {
    if let Some(known) = known {
        check_workloads(document, suite, known);
    }
    if suite.test.is_empty() && !document.has("test") {
        document
            .error("suite::empty", "", "the suite has no test")
            .expected("at least one [[test]] with a [[test.step]]");
    }
    for (i, target) in suite.targets.iter().enumerate() {
        let known = ["local", "kind", "kube"];
        if !known.contains(&target.as_str()) && !target.starts_with("kube:") {
            document
                .error(
                    "suite::target",
                    &format!("targets[{i}]"),
                    format!("there is no target {target:?}"),
                )
                .expected("\"local\", \"kind\", \"kube\" or \"kube:CONTEXT\"")
                .did_you_mean(target, known);
        }
    }
    for (i, rule) in suite.compare.ignore.iter().enumerate() {
        if let Err(why) = Source::parse(rule) {
            document
                .error("suite::compare", &format!("compare.ignore[{i}]"), why)
                .expected("a JSON path such as \"$.ids\", \"header:NAME\", \"body\" or \"status\"");
        }
    }
    for (i, name) in suite.compare.headers.iter().enumerate() {
        if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let why = format!("{name:?} is no header's name");
            document.error("suite::compare", &format!("compare.headers[{i}]"), why);
        }
    }
    let mut names = BTreeMap::new();
    for (t, test) in suite.test.iter().enumerate() {
        let at = format!("test[{t}]");
        // One of the wrong type has been reported already.
        let written = document.value(&format!("{at}.name"));
        if test.name.trim().is_empty() && written.is_none_or(|name| name.is_string()) {
            document
                .error("suite::name", &at, "the test has no name")
                .expected("name = \"what it proves\"");
        } else if let Some(first) = names.insert(test.name.clone(), t) {
            let line = document.origin(&format!("test[{first}]")).line;
            document
                .error(
                    "suite::name",
                    &format!("{at}.name"),
                    format!("there is another test {:?}, at line {line}", test.name),
                )
                .expected("a name of its own, by which it can be run again");
        }
        if test.step.is_empty() && !document.has(&format!("{at}.step")) {
            document
                .error("suite::empty", &at, "the test has no step")
                .expected("at least one [[test.step]]");
        }
        for (s, step) in test.step.iter().enumerate() {
            check_step(document, step, &format!("{at}.step[{s}]"), folder);
        }
    }
    check_variables(document, suite);
}

/// Of another profile nobody knows the workloads here.
fn check_workloads(document: &mut Document, suite: &RawSuite, known: &Known) {
    if !is_for_profile(&suite.profiles, known.profile.as_deref()) {
        return;
    }
    let names = || known.workloads.iter().map(String::as_str);
    for (i, name) in suite.workloads.iter().enumerate() {
        if !known.workloads.contains(name) {
            document
                .error(
                    "suite::workload",
                    &format!("workloads[{i}]"),
                    format!("the project has no workload {name:?}"),
                )
                .expected(format!("one of {}", names().collect::<Vec<_>>().join(", ")))
                .did_you_mean(name, names());
        }
    }
}

fn check_step(document: &mut Document, step: &RawStep, at: &str, folder: &Path) {
    let kinds: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| document.has(&format!("{at}.{kind}")))
        .collect();
    match kinds.as_slice() {
        [kind] => {
            check_expect(document, kind, &step.expect, at, folder);
            actions::check(document, step, at, folder);
        }
        [] => {
            document
                .error("step::kind", at, "the step does nothing")
                .expected(format!("one of {}", KINDS.join(", ")));
        }
        several => {
            document
                .error(
                    "step::kind",
                    at,
                    format!("the step does several things: {}", several.join(", ")),
                )
                .expected("a [[test.step]] for each");
        }
    }
    for (name, source) in &step.capture {
        let path = format!("{at}.capture.{name}");
        if !is_name(name) || BUILT_IN.contains(&name.as_str()) {
            document
                .error(
                    "step::capture",
                    &path,
                    format!("{name:?} can't be captured"),
                )
                .expected(format!(
                    "a name of letters, digits, \"_\" and \"-\", and none of {}",
                    BUILT_IN.join(", ")
                ));
        }
        if let Err(why) = Source::parse(source) {
            document.error("step::capture", &path, why).expected(
                "a JSON path such as \"$.ids[0]\", \"header:NAME\", \"body\" or \"status\"",
            );
        }
    }
    if let Some(poll) = &step.poll
        && poll.every.0.is_zero()
    {
        document
            .error(
                "step::poll",
                &format!("{at}.poll.every"),
                "asks without a pause",
            )
            .expected("at least 1ms");
    }
}

/// What can be expected of each kind of step.
fn known(kind: &str) -> &'static [&'static str] {
    match kind {
        "http" => &["status", "headers", "json", "body", "schema", "within"],
        "hurl" => &["exit", "stdout", "stderr", "within"],
        "sql" => &["rows", "row_count", "affected", "json", "within"],
        "split" => &["status", "shares", "block", "json", "within"],
        "kubectl" | "exec" => &["exit", "stdout", "stderr", "json", "within"],
        "fault" => &["within"],
        _ => &["json", "within"],
    }
}

fn check_expect(document: &mut Document, kind: &str, expect: &Expect, at: &str, folder: &Path) {
    let at = format!("{at}.expect");
    let written = match document.value(&at) {
        Some(Value::Object(map)) => map,
        _ => return,
    };
    let all: &[&str] = &[
        "status",
        "headers",
        "json",
        "body",
        "schema",
        "within",
        "rows",
        "row_count",
        "affected",
        "shares",
        "block",
        "exit",
        "stdout",
        "stderr",
    ];
    for key in written.keys() {
        // What no step has is an unknown key and has been reported.
        if all.contains(&key.as_str()) && !known(kind).contains(&key.as_str()) {
            document
                .error(
                    "step::expect",
                    &format!("{at}.{key}"),
                    format!("{kind} has no {key} to expect anything of"),
                )
                .expected(format!("one of {}", known(kind).join(", ")));
        }
    }
    for (key, value) in [
        ("status", &expect.status),
        ("body", &expect.body),
        ("row_count", &expect.row_count),
        ("affected", &expect.affected),
        ("exit", &expect.exit),
        ("stdout", &expect.stdout),
        ("stderr", &expect.stderr),
    ] {
        if let Some(value) = value {
            check_matcher(document, &format!("{at}.{key}"), value);
        }
    }
    for (name, value) in &expect.headers {
        check_matcher(document, &key(&format!("{at}.headers"), name), value);
    }
    for (path, value) in &expect.json {
        let at = key(&format!("{at}.json"), path);
        if !path.contains("${")
            && let Err(why) = crate::capture::json_path(path)
        {
            document
                .error("step::json-path", &at, why)
                .expected("a JSON path of RFC 9535, such as \"$.ids[0]\"");
        }
        check_matcher(document, &at, value);
    }
    for (i, row) in expect.rows.iter().flatten().enumerate() {
        for (column, value) in row {
            check_matcher(document, &key(&format!("{at}.rows[{i}]"), column), value);
        }
    }
    check_shares(document, &at, &expect.shares);
    if let Some(schema) = &expect.schema {
        check_schema(document, &format!("{at}.schema"), schema, folder);
    }
}

fn check_shares(document: &mut Document, at: &str, shares: &BTreeMap<String, f64>) {
    for (name, share) in shares {
        if !(0.0..=1.0).contains(share) {
            document
                .error(
                    "step::shares",
                    &key(&format!("{at}.shares"), name),
                    format!("the share of {name} is {share}"),
                )
                .expected("a number from 0 to 1");
        }
    }
    let sum: f64 = shares.values().sum();
    if !shares.is_empty() && (sum - 1.0).abs() > 1e-6 {
        document
            .error(
                "step::shares",
                &format!("{at}.shares"),
                format!("the shares add up to {sum}"),
            )
            .expected("1, with every backend that may answer named");
    }
}

fn check_schema(document: &mut Document, at: &str, schema: &Text, folder: &Path) {
    if schema.as_str().contains("${") {
        return;
    }
    if let Err(why) = crate::expect::validator(&folder.join(schema.as_str())) {
        document
            .error("step::schema", at, format!("{}: {why}", schema.as_str()))
            .expected("a JSON Schema in a file, relative to the suite's folder");
    }
}

fn check_matcher(document: &mut Document, at: &str, written: &Value) {
    for bad in Matcher::check(written).err().unwrap_or_default() {
        let mut noted = document.error("step::matcher", &format!("{at}{}", bad.path), bad.message);
        if let Some(expected) = bad.expected {
            noted = noted.expected(expected);
        }
        if let Some(help) = bad.help {
            noted.help(help);
        }
    }
}

/// The path of a key that may hold dots and brackets.
pub(super) fn key(at: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '$'));
    if plain {
        format!("{at}.{name}")
    } else {
        format!("{at}[\"{name}\"]")
    }
}

/// Every variable that is used must be there, in every profile that the suite is for.
fn check_variables(document: &mut Document, suite: &RawSuite) {
    for (at, vars) in std::iter::once(("vars".to_owned(), &suite.vars)).chain(
        suite
            .profile
            .iter()
            .map(|(name, profile)| (key("profile", name) + ".vars", &profile.vars)),
    ) {
        for name in vars.keys() {
            if !is_name(name) || name == "uuid" || name == "run" {
                document
                    .error(
                        "suite::variable",
                        &key(&at, name),
                        format!("{name:?} can't be a variable's name"),
                    )
                    .expected("letters, digits, \"_\" and \"-\", and neither \"uuid\" nor \"run\"");
            }
        }
    }
    let own = own_variables(suite);
    let mut found = Vec::new();
    for written in document.texts() {
        let pieces = match pieces(written.text) {
            Ok(pieces) => pieces,
            Err(error) => {
                found.push((written.path, error.to_string(), None));
                continue;
            }
        };
        let captured = captured_before(suite, &written.path);
        let mut known: BTreeSet<&str> = BUILT_IN.into_iter().collect();
        known.extend(own.iter().map(String::as_str));
        known.extend(captured.iter().copied());
        if written.path.ends_with(".load.lost") || written.path.ends_with(".load.doubled") {
            known.insert("ids");
        }
        for piece in pieces {
            if let Piece::Variable(name) = piece
                && !known.contains(name.as_str())
            {
                let message = format!("there is no variable `{name}`");
                let known: Vec<String> = known.iter().map(|&k| k.to_owned()).collect();
                found.push((written.path.clone(), message, Some((name, known))));
            }
        }
    }
    for (path, message, name) in found {
        let noted = document.error("suite::variable", &path, message);
        let Some((name, known)) = name else { continue };
        if suite.profile.values().any(|p| p.vars.contains_key(&name)) {
            noted.help("only some profiles give it a value: give it one in [vars] too, or name those profiles in `profiles`");
        } else if suite
            .test
            .iter()
            .flat_map(|t| &t.step)
            .any(|s| s.capture.contains_key(&name))
        {
            noted.help("it is captured later, or by another test");
        } else {
            noted.did_you_mean(&name, known.iter().map(String::as_str));
        }
    }
    check_cycles(document, suite);
}

/// The variables that have a value in every profile that the suite is for.
fn own_variables(suite: &RawSuite) -> BTreeSet<String> {
    let mut own: BTreeSet<String> = suite.vars.keys().cloned().collect();
    let of = |name: &String| -> BTreeSet<String> {
        suite
            .profile
            .get(name)
            .map(|profile| profile.vars.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut in_all: Option<BTreeSet<String>> = None;
    for name in &suite.profiles {
        let these = of(name);
        in_all = Some(match in_all {
            None => these,
            Some(before) => before.intersection(&these).cloned().collect(),
        });
    }
    own.extend(in_all.unwrap_or_default());
    own
}

/// What earlier steps of the same test capture. The order of `texts` is the file's.
fn captured_before<'s>(suite: &'s RawSuite, path: &str) -> BTreeSet<&'s str> {
    let index = |rest: &str| -> Option<usize> { rest.split(']').next()?.parse().ok() };
    let place = path.strip_prefix("test[").and_then(|rest| {
        let test = index(rest)?;
        let (_, rest) = rest.split_once("].step[")?;
        Some((test, index(rest)?))
    });
    let Some((test, step)) = place else {
        return BTreeSet::new();
    };
    suite
        .test
        .get(test)
        .into_iter()
        .flat_map(|test| test.step.iter().take(step))
        .flat_map(|step| step.capture.keys().map(String::as_str))
        .collect()
}

fn check_cycles(document: &mut Document, suite: &RawSuite) {
    let mut layers = vec![(suite.vars.clone(), "vars".to_owned())];
    for (name, profile) in &suite.profile {
        let mut vars = suite.vars.clone();
        vars.extend(profile.vars.clone());
        layers.push((vars, key("profile", name) + ".vars"));
    }
    let mut said = BTreeSet::new();
    for (vars, at) in layers {
        let resolved = Vars::written(vars.clone());
        for name in vars.keys() {
            if let Err(VarError::Cycle(cycle)) = resolved.get(name)
                && said.insert(cycle.clone())
            {
                let error = VarError::Cycle(cycle.clone());
                document.error("suite::variable", &key(&at, &cycle), error.to_string());
            }
        }
    }
}
