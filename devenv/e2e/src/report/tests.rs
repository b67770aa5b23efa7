use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::outcome::{Mismatch, Place};

fn place(line: u32) -> Place {
    Place {
        file: "tests/e2e/ingest.toml".into(),
        line,
    }
}

fn good_step(name: &str, started_ms: u64) -> StepReport {
    StepReport {
        kind: "http".to_owned(),
        name: name.to_owned(),
        place: place(12),
        outcome: Outcome::Passed,
        started_ms,
        ms: 12,
        mismatches: Vec::new(),
        seen: Some("201 Created\n{\"api\":\"api1\"}".to_owned()),
        logs: BTreeMap::new(),
        screenshots: Vec::new(),
        split: None,
    }
}

fn bad_step(started_ms: u64) -> StepReport {
    StepReport {
        outcome: Outcome::Failed,
        place: place(14),
        mismatches: vec![
            Mismatch {
                what: "status".to_owned(),
                expected: "201".to_owned(),
                got: "503".to_owned(),
            },
            Mismatch {
                what: "$.api".to_owned(),
                expected: "one of \"api1\", \"api2\"".to_owned(),
                got: "\"a & b\"\nand more, 100%".to_owned(),
            },
        ],
        logs: BTreeMap::from([(
            "api1".to_owned(),
            vec![
                "\u{1b}[31mERROR\u{1b}[0m pool timed out\u{0}".to_owned(),
                "::error ::not a command <script>alert(1)</script> ```".to_owned(),
            ],
        )]),
        screenshots: vec!["ingest/failed.png".into()],
        split: Some(BTreeMap::from([
            ("api1".to_owned(), 750),
            ("api2".to_owned(), 250),
        ])),
        ..good_step("POST /api", started_ms)
    }
}

fn attempt(started_ms: u64, steps: Vec<StepReport>) -> Attempt {
    Attempt {
        started_ms,
        ms: 250,
        steps,
    }
}

fn test(name: &str, outcome: Outcome, attempts: Vec<Attempt>) -> TestReport {
    TestReport {
        name: name.to_owned(),
        place: place(10),
        outcome,
        attempts,
        reason: None,
        again: format!("devenv test e2e --filter '{name}'"),
    }
}

/// One of each outcome, and a suite that could not run.
fn report() -> RunReport {
    let mut missing_step = good_step("open the page", 1600);
    missing_step.kind = "browser".to_owned();
    missing_step.outcome = Outcome::Missing;
    missing_step.mismatches = vec![Mismatch {
        what: "chromium".to_owned(),
        expected: "a browser".to_owned(),
        got: "none in PATH; apt-get install chromium chromium-driver".to_owned(),
    }];
    let mut unsupported = test("pause", Outcome::Unsupported, Vec::new());
    unsupported.reason = Some("kind does not honour devenv.dev/fault".to_owned());
    let mut skipped = test("local only", Outcome::Skipped, Vec::new());
    skipped.reason = Some("its targets are local".to_owned());
    RunReport {
        id: "a1b2c3".to_owned(),
        started: "2026-11-24T18:00:00Z".parse().unwrap(),
        ms: 2_000,
        ready_ms: 900,
        target: "local".to_owned(),
        profile: Some("seed".to_owned()),
        suites: vec![
            SuiteReport {
                name: "broken".to_owned(),
                file: "tests/e2e/broken.toml".into(),
                environment: "a1b2c3-2".to_owned(),
                started_ms: 0,
                ms: 10,
                tests: Vec::new(),
                error: Some("no environment: port 3306 is taken".to_owned()),
            },
            SuiteReport {
                name: "ingest".to_owned(),
                file: "tests/e2e/ingest.toml".into(),
                environment: "a1b2c3".to_owned(),
                started_ms: 900,
                ms: 1_100,
                tests: vec![
                    test(
                        "a good record is taken",
                        Outcome::Passed,
                        vec![attempt(900, vec![good_step("POST /api", 900)])],
                    ),
                    test(
                        "a bad one is not",
                        Outcome::Failed,
                        vec![
                            attempt(1_000, vec![bad_step(1_000)]),
                            attempt(1_250, vec![good_step("first", 1_250), bad_step(1_262)]),
                        ],
                    ),
                    test(
                        "now and then",
                        Outcome::Flaky,
                        vec![
                            attempt(1_500, vec![bad_step(1_500)]),
                            attempt(1_550, vec![good_step("POST /api", 1_550)]),
                        ],
                    ),
                    test(
                        "the page",
                        Outcome::Missing,
                        vec![attempt(1_600, vec![missing_step])],
                    ),
                    unsupported,
                    skipped,
                ],
                error: None,
            },
        ],
    }
}

/// Every text in it is `mark`.
fn hostile(mark: &str) -> RunReport {
    let value = serde_json::to_value(report()).unwrap();
    fn replace(value: serde_json::Value, key: &str, mark: &str) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(_) if matches!(key, "outcome" | "started") => value,
            Value::String(_) => Value::String(mark.to_owned()),
            Value::Array(all) => {
                Value::Array(all.into_iter().map(|v| replace(v, key, mark)).collect())
            }
            Value::Object(all) => Value::Object(
                all.into_iter()
                    .map(|(k, v)| {
                        let v = replace(v, &k, mark);
                        let named = matches!(k.as_str(), "api1" | "api2");
                        (if named { format!("{mark}{k}") } else { k }, v)
                    })
                    .collect(),
            ),
            other => other,
        }
    }
    serde_json::from_value(replace(value, "", mark)).unwrap()
}

#[test]
fn counts() {
    let counts = Counts::of(&report());
    assert_eq!((counts.tests(), counts.run()), (6, 4));
    insta::assert_snapshot!(counts, @"6 tests: 2 passed (1 flaky), 1 failed, 1 missing something, 1 unsupported here, 1 skipped; 1 suite could not run");
}

#[test]
fn text_of_failures() {
    let report = report();
    let mut out = String::new();
    for suite in &report.suites {
        out.extend(text::suite_error(suite, &text::Styles::plain()));
        for test in &suite.tests {
            out.push_str(&text::line(&suite.name, test, &text::Styles::plain()));
            out.push('\n');
        }
        for test in told(suite) {
            out.push_str(&text::failure(suite, test, &text::Styles::plain()));
        }
    }
    out.push_str(&text::summary(&report, &text::Styles::plain()));
    insta::assert_snapshot!(out);
}

#[test]
fn colours_add_nothing_but_colours() {
    let report = report();
    let suite = &report.suites[1];
    let plain = text::failure(suite, &suite.tests[1], &text::Styles::plain());
    let colored = text::failure(suite, &suite.tests[1], &text::Styles::colored());
    assert!(colored.contains("\u{1b}[31m"));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
}

#[test]
fn junit_as_ci_reads_it() {
    insta::assert_snapshot!(junit::render(&report()).unwrap());
}

/// The library's reader takes it, whatever the texts are.
#[rstest]
#[case::usual(report())]
#[case::markup(hostile("]]><script>&amp;\"'<!--"))]
#[case::control(hostile("\u{0}\u{1b}[31m\u{b}\u{fffe}\u{ffff}\r\n\t\u{7f}"))]
fn junit_is_xml(#[case] report: RunReport) {
    let xml = junit::render(&report).unwrap();
    let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    assert_eq!(read.test_suites.len(), 2);
    assert_eq!((read.failures, read.errors, read.skipped), (1, 2, 2));
    let forbidden = |c: &char| !matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert_eq!(xml.chars().find(forbidden), None);
}

#[test]
fn json_is_the_report() {
    let text = json::render(&report()).unwrap();
    let read: RunReport = serde_json::from_str(&text).unwrap();
    assert_eq!(json::render(&read).unwrap(), text);
}

#[test]
fn github_annotations() {
    insta::assert_snapshot!(github::annotations(&report(), Path::new("shop")));
}

/// A newline begins a new command, and so does nothing else.
#[test]
fn github_commands_can_not_be_forged() {
    let mark = "a\r\n::set-output name=x::y\n%0A::error::z, file=b";
    let out = github::annotations(&hostile(mark), Path::new(""));
    for line in out.lines() {
        assert!(
            line.starts_with("::error file=") || line.starts_with("::warning file="),
            "{line}"
        );
        let properties = line.split("::").nth(1).unwrap();
        assert_eq!(properties.matches(',').count(), 2, "{properties}");
    }
    assert_eq!(out.lines().count(), 4);
}

#[test]
fn github_summary() {
    insta::assert_snapshot!(github::summary(&report()));
}

#[test]
fn github_summary_stays_within_its_limit_and_its_blocks_are_whole() {
    let mut report = report();
    let suite = report.suites[1].clone();
    report.suites = vec![suite; 25];
    for suite in &mut report.suites {
        for test in &mut suite.tests {
            for attempt in &mut test.attempts {
                for step in &mut attempt.steps {
                    step.seen = Some("long </details>\n\n```\n".repeat(1_000));
                }
            }
        }
    }
    let out = github::summary(&report);
    assert!(out.len() < 1024 * 1024, "{}", out.len());
    assert_eq!(
        out.matches("<details><summary>").count(),
        out.matches("\n````\n\n</details>\n").count()
    );
    assert!(out.ends_with("more are in the other reports of this run.\n"));
}

#[test]
fn html_of_a_run() {
    let pictures = BTreeMap::from([(PathBuf::from("ingest/failed.png"), b"png".to_vec())]);
    let html = html::render(&report(), &pictures);
    assert!(html.contains("src=\"data:image/png;base64,cG5n\""));
    let body = &html[html.find("<body>").unwrap()..];
    insta::assert_snapshot!(body.replace("><", ">\n<"));
}

/// No tag but ours: the marks are shown as text.
#[rstest]
#[case("<script>alert(1)</script>")]
#[case("\"><img src=x onerror=alert(1)>")]
#[case("' onmouseover='alert(1)")]
#[case("</style></title></pre><svg onload=alert(1)>")]
fn html_is_escaped(#[case] mark: &str) {
    let tags = |html: &str| {
        html.split('<')
            .map(|part| part.split(['>', ' ', '=']).next().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    let pictures = BTreeMap::new();
    let hostile = html::render(&hostile(mark), &pictures);
    let harmless = html::render(&self::hostile("harmless"), &pictures);
    assert_eq!(tags(&hostile), tags(&harmless));
    assert!(!hostile.contains("<script") && !hostile.contains("<img"));
    assert_eq!(
        hostile.matches('"').count(),
        harmless.matches('"').count(),
        "no attribute ends early"
    );
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/a1b2c3");
    let paths = write_all(&report(), &run, &Format::ALL).unwrap();
    assert_eq!(paths.len(), 4);
    let text = std::fs::read_to_string(&paths[0]).unwrap();
    assert_eq!(text, json::render(&report()).unwrap());
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&run),
        ["junit.xml", "report.html", "report.json", "summary.md"]
    );

    // A path that no JSON can hold: nothing changes, nothing is left behind.
    let mut unwritable = report();
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    unwritable.suites[0].file = bytes.into();
    unwritable.id = "another".to_owned();
    let formats = [Format::Junit, Format::Json];
    let error = write_all(&unwritable, &run, &formats).unwrap_err();
    assert!(error.to_string().contains("JSON"), "{error}");
    assert_eq!(names(&run).len(), 4);
    assert!(
        !std::fs::read_to_string(run.join("junit.xml"))
            .unwrap()
            .contains("another")
    );

    // The folder is a file.
    let error = write_all(&report(), &paths[0], &Format::ALL).unwrap_err();
    assert!(error.to_string().contains("report.json"), "{error}");
}

#[test]
fn pictures_are_read_from_the_run_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir_all(run.join("ingest")).unwrap();
    std::fs::write(run.join("ingest/failed.png"), "picture").unwrap();
    let mut report = report();
    let step = &mut report.suites[1].tests[1].attempts[0].steps[0];
    step.screenshots.push("../secret".into());
    step.screenshots.push(dir.path().join("secret"));
    let found: Vec<_> = pictures(&report, &run).into_keys().collect();
    assert_eq!(found, [PathBuf::from("ingest/failed.png")]);
}
