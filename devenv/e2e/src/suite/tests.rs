use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

fn said(text: &str) -> String {
    let folder = TempDir::new().unwrap();
    match parse(
        folder.path(),
        Path::new("tests/e2e/s.toml"),
        text.to_owned(),
    ) {
        Ok(_) => "no problem".into(),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        }
    }
}

#[test]
fn a_whole_suite() {
    let text = r#"
description = "what it proves"
workloads = ["api1", "api2"]
parallel = true
targets = ["local", "kube:prod"]
profiles = ["default", "seed"]
timeout = "90s"
[vars]
api1 = "api1"
base = "${INGRESS_URL}/api"
[profile.seed.vars]
api1 = "Python"

[[test]]
name = "one"
retries = 2
[[test.step]]
name = "taken"
http = { method = "POST", url = "${base}", headers = { Idempotency-Key = "${uuid}" }, json = { n = 1 }, timeout = "1m 30s" }
expect = { status = 201, json = { "$.api" = { in = ["${api1}"] } }, within = "500ms" }
capture = { id = "$.ids[0]" }
poll = { within = "5s" }
[[test.step]]
sql = { query = "SELECT 1 AS n WHERE ? = 1 -- $${literal}", args = ["${id}"] }
expect = { rows = [{ n = 1 }], row_count = 1 }
[[test.step]]
socketio = { open = "s", url = "${API3_URL}", transport = "polling" }
[[test.step]]
split = { requests = 10, url = "${base}", by = "$.api" }
expect = { shares = { "${api1}" = 0.5, api2 = 0.5 }, block = 2 }
[[test.step]]
browser = { type = { into = "input", text = "x" }, for = "5s" }
[[test.step]]
load = { start = "l", url = "${base}", acknowledged = { ids = "$.ids" } }
[[test.step]]
fault = { delay = { from = "deployment/api3", to = "service/cloudsql", by = "200ms" }, until = "f" }
[[test.step]]
load = { stop = "l", lost = "SELECT id FROM records WHERE id IN (${ids})" }
[[test.step]]
kubectl = { args = ["get", "pods"] }
[[test.step]]
exec = { command = "true" }
"#;
    let suite = parse(
        Path::new("/p"),
        Path::new("tests/e2e/write.toml"),
        text.into(),
    )
    .unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(suite.name, "write");
    assert_eq!(suite.timeout, Duration::from_secs(90));
    assert_eq!(suite.profile_vars["seed"]["api1"], "Python");
    let test = &suite.tests[0];
    assert_eq!(
        (test.name.as_str(), test.place.line, test.retries),
        ("one", 14, Some(2))
    );
    let kinds: Vec<&str> = test.steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(
        kinds,
        [
            "http", "sql", "socketio", "split", "browser", "load", "fault", "load", "kubectl",
            "exec"
        ]
    );
    assert_eq!(test.steps[0].place.to_string(), "tests/e2e/write.toml:17");
    let Action::Http(http) = &test.steps[0].action else {
        panic!("{:?}", test.steps[0].action)
    };
    assert_eq!(http.timeout, Some(Time(Duration::from_secs(90))));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = r#"
descripton = "x"
targets = ["locl"]
timeout = "soon"
[vars]
a = "${b}"
b = "${a}"
[profile.seed.vars]
only = "1"

[[test]]
name = "one"
[[test.step]]
http = { url = "/api", jsn = 1, body = "a", body_file = "b" }
expect = { statsu = 200, rows = [], json = { "$.a[" = 1, "$.b" = { contians = 1 }, "$.c" = { in = 1 } }, schema = "no.json" }
capture = { uuid = "$", x = "id" }
[[test.step]]
exec = { command = "echo ${only} ${late} ${INGRES_URL}", stdin = "${" }
[[test.step]]
exec = { command = 1 }
sql = { query = "SELECT 1" }
capture = { late = "$" }

[[test]]
name = "one"
[[test.step]]
name = "nothing"
[[test.step]]
fault = { pause = "api1", cut = { from = "deployment/a", to = "service/b" } }
[[test.step]]
fault = { pause = "api1" }
[[test.step]]
socketio = { event = "e", data = 1 }
[[test.step]]
split = { url = "${INGRESS_URL}", by = "api" }
expect = { shares = { a = 0.9 } }
[[test.step]]
load = { start = "l", lost = "SELECT 1" }
"#;
    insta::assert_snapshot!(said(text));
}

#[test]
fn rules_for_comparing_are_checked() {
    let text = "[compare]\nignore = [\"$.ids\", \"header:etag\", \"$.a[\", \"ids\"]\nheaders = [\"ETag\", \"a b\"]\nignoer = []\n\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = { command = \"true\" }\n";
    insta::assert_snapshot!(said(text), @r#"
    tests/e2e/s.toml:2:35: error[suite::compare]: "$.a[" is no JSON path: expected selector
      expected: a JSON path such as "$.ids", "header:NAME", "body" or "status"
    tests/e2e/s.toml:2:43: error[suite::compare]: "ids" is no place in an answer
      expected: a JSON path such as "$.ids", "header:NAME", "body" or "status"
    tests/e2e/s.toml:3:20: error[suite::compare]: "a b" is no header's name
    tests/e2e/s.toml:4:1: error[toml::unknown-key]: a suite has no key `compare.ignoer`
      expected: one of "ignore" and "headers"
      help: did you mean "ignore"?
    "#);
}

#[test]
fn what_is_no_toml_or_no_suite() {
    let all: Vec<String> = ["[[test]\nname = 1", "", "[[test]]\n", "vars = 1\n[[test]]"]
        .iter()
        .map(|text| format!("--- {text:?}\n{}", said(text)))
        .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn suites_are_found_by_name_and_their_problems_together() {
    let folder = TempDir::new().unwrap();
    assert!(
        load(folder.path(), &Known::default())
            .unwrap()
            .suites
            .is_empty(),
        "no folder is no error"
    );
    let e2e = folder.path().join(FOLDER);
    fs::create_dir_all(&e2e).unwrap();
    let good = "[[test]]\nname = \"t\"\n[[test.step]]\nexec = { command = \"true\" }\n";
    for (name, text) in [
        ("b.toml", good),
        ("a.toml", good),
        ("x.json", "{}"),
        ("bad.toml", "x"),
    ] {
        fs::write(e2e.join(name), text).unwrap();
    }
    let found = load(folder.path(), &Known::default()).unwrap();
    let names: Vec<&str> = found.suites.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(found.problems.len(), 1);
    assert_eq!(found.problems[0].file(), "tests/e2e/bad.toml");
}

#[test]
fn the_schema_takes_what_is_a_suite_and_refuses_what_is_none() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let suite =
        |step: serde_json::Value| serde_json::json!({"test": [{"name": "t", "step": [step]}]});
    let http = serde_json::json!({"url": "http://x"});
    assert!(validator.is_valid(&suite(serde_json::json!({
        "http": http, "expect": {"status": {"in": [200, 201]}, "json": {"$.a": 1}},
        "poll": {"within": "5s"}
    }))));
    assert!(validator.is_valid(&suite(serde_json::json!({"exec": {"command": "true"}}))));
    for bad in [
        serde_json::json!({"htp": http}),
        serde_json::json!({"http": {"ulr": "x"}}),
        serde_json::json!({"http": http, "exec": {"command": "true"}}),
        serde_json::json!({"name": "does nothing"}),
    ] {
        assert!(!validator.is_valid(&suite(bad.clone())), "{bad}");
    }
}
