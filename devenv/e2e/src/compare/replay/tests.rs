//! Two real servers on loopback.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path as Segment, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    compare::{ROUNDS, text},
    environment::Environment,
    plan::{Selection, plan},
    report::text::Styles,
    suite,
};

/// A small application, and how one side of it is not like the other.
#[derive(Clone, Default)]
struct App {
    made: Arc<AtomicU64>,
    names: Vec<&'static str>,
    /// Whose turn it is first.
    first: u64,
    first_id: u64,
    broken: bool,
}

async fn create(State(app): State<App>, headers: HeaderMap, body: String) -> Response {
    if app.broken {
        return (StatusCode::INTERNAL_SERVER_ERROR, "oh").into_response();
    }
    let n = app.made.fetch_add(1, Ordering::Relaxed);
    let key = headers.get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    let json = json!({
        "ids": [app.first_id + n],
        // Two requests a round: each of them meets every backend.
        "api": app.names[(n / 2 + app.first) as usize % app.names.len()],
        "key": key,
        "got": serde_json::from_str::<Value>(&body).unwrap_or_default(),
    });
    (StatusCode::CREATED, Json(json)).into_response()
}

async fn read(State(app): State<App>, Segment(id): Segment<u64>) -> Response {
    let made = app.first_id..app.first_id + app.made.load(Ordering::Relaxed);
    match made.contains(&id) {
        true => Json(json!({ "found": true })).into_response(),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn page() -> Response {
    ([(header::CONTENT_TYPE, "text/html")], "<p>\n").into_response()
}

impl App {
    fn named(names: &[&'static str]) -> Self {
        Self {
            names: names.to_vec(),
            ..Self::default()
        }
    }

    async fn side(self, label: &str) -> Side {
        let router = Router::new()
            .route("/api", post(create))
            .route("/api/{id}", get(read))
            .route("/page", get(page))
            .with_state(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        side(label, &url)
    }
}

fn side(label: &str, url: &str) -> Side {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let mut environment = Environment::at(kube::Client::try_from(config).unwrap());
    environment.ingress = Some(url.to_owned());
    environment.database = Some("mysql://u:geheim@h/d".to_owned());
    Side {
        label: label.to_owned(),
        environment: Arc::new(environment),
    }
}

const SUITE: &str = r#"
[compare]
ignore = ["$.nobody"]

[[test]]
name = "made and read"
[[test.step]]
http = { method = "POST", url = "${INGRESS_URL}/api", headers = { Idempotency-Key = "${uuid}" }, json = { a = "${uuid}" } }
expect = { status = 999 }
capture = { id = "$.ids[0]" }
[[test.step]]
sql = { query = "SELECT 1" }
capture = { from_sql = "$[0]" }
[[test.step]]
http = { url = "${INGRESS_URL}/api/${id}" }

[[test]]
name = "others"
[[test.step]]
split = { requests = 1000, method = "POST", url = "${INGRESS_URL}/api", by = "$.api" }
expect = { shares = { x = 1.0 } }
[[test.step]]
http = { url = "${INGRESS_URL}/page" }
[[test.step]]
http = { url = "${INGRESS_URL}/page" }
poll = { within = "1s" }
[[test.step]]
sql = { query = "SELECT 1" }
capture = { from_sql = "$[0]" }
[[test.step]]
http = { url = "${INGRESS_URL}/${from_sql}" }
"#;

async fn compared(left: &Side, right: &Side, suite: &str, rounds: u32) -> Comparison {
    let file = Path::new("tests/e2e/shadow.toml");
    let suite = suite::parse(Path::new("/p"), file, suite.to_owned());
    let suite = suite.unwrap_or_else(|problems| panic!("{problems:?}"));
    let options = Options {
        rounds,
        run: "r".into(),
        run_dir: "/p/run".into(),
    };
    let planned = plan(vec![suite], &Selection::default());
    compare(&planned, left, right, &options).await.unwrap()
}

/// The lines of the differences.
fn lines(comparison: &Comparison) -> Vec<String> {
    let lines = comparison.differences.iter().map(|d| {
        format!(
            "{}: {}: {} → {} ({} of {})",
            d.request, d.place, d.left, d.right, d.count, d.of
        )
    });
    lines.collect()
}

#[tokio::test]
async fn equal_sides_have_no_difference() {
    let left = App::named(&["x", "y"]).side("main").await;
    let right = App {
        first: 1,
        ..App::named(&["x", "y"])
    };
    let right = right.side("this tree").await;
    let out = compared(&left, &right, SUITE, ROUNDS).await;
    assert_eq!(lines(&out), [""; 0]);
    assert!(out.same());
    assert_eq!(out.pairs, 4 * u64::from(ROUNDS));
    let names: Vec<&str> = out.requests.iter().map(|r| r.request.as_str()).collect();
    assert_eq!(names, ["POST /api", "GET /api/${id}", "GET /page"]);
    assert!(out.requests.iter().all(|r| r.latency.is_some()));
    assert_eq!(
        out.notes,
        [
            "steps that are not replayed: 1 polling http, 2 sql",
            "tests/e2e/shadow.toml:30 was not sent: there is no variable `from_sql`",
            "tests/e2e/shadow.toml: nothing is there that `ignore` names with \"$.nobody\"",
        ]
    );
}

#[tokio::test]
async fn a_backend_with_another_name_is_told_and_captures_are_each_sides_own() {
    let left = App::named(&["x", "y"]).side("main").await;
    let right = App {
        first_id: 1000,
        ..App::named(&["x", "z"])
    };
    let right = right.side("this tree").await;
    let out = compared(&left, &right, SUITE, ROUNDS).await;
    assert_eq!(
        lines(&out),
        [
            "POST /api: $.api: \"y\" → \"z\" (20 of 40)",
            "POST /api: $.ids[0]: 0 → 1000 (40 of 40)",
        ]
    );
    let ignoring = SUITE.replace("\"$.nobody\"", "\"$.ids\", \"$.api\"");
    let out = compared(&left, &right, &ignoring, ROUNDS).await;
    assert!(out.same(), "{:?}", lines(&out));
}

#[tokio::test]
async fn a_side_that_fails_and_one_that_does_not_answer() {
    let left = App::named(&["x"]).side("main").await;
    let broken = App {
        broken: true,
        ..App::named(&["x"])
    };
    let right = broken.side("this tree").await;
    let out = compared(&left, &right, SUITE, 2).await;
    assert_eq!(
        lines(&out)[0],
        "POST /api: status: 201 → 500 (4 of 4)",
        "{:?}",
        lines(&out)
    );
    // Nobody listens there: it was bound a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = side(
        "gone",
        &format!("http://{}", listener.local_addr().unwrap()),
    );
    drop(listener);
    let out = compared(&left, &gone, SUITE, 2).await;
    assert_eq!(
        lines(&out)[0],
        "POST /api: answer: an answer → no connection (4 of 4)"
    );
    let out = compared(&gone, &gone, SUITE, 5).await;
    assert!(!out.same());
    assert_eq!(
        lines(&out)[0],
        "POST /api: answer: no connection → no connection (6 of 6)",
        "it is given up: {:?}",
        lines(&out)
    );
}

#[tokio::test]
async fn what_sends_nothing_compares_nothing() {
    let left = App::named(&["x"]).side("main").await;
    let suite = "[[test]]\nname = \"t\"\n[[test.step]]\nsql = { query = \"SELECT 1\" }\n";
    let out = compared(&left, &left, suite, 2).await;
    assert_eq!((out.pairs, out.same()), (0, false));
    let said = text::render(&out, &Styles::plain());
    assert!(said.contains("nothing was compared"), "{said}");
}

#[tokio::test]
async fn secrets_are_not_shown_and_the_report_names_each_difference() {
    let left = App::named(&["geheim"]).side("main (1a2b3c4)").await;
    let right = App::named(&["z"]).side("this tree").await;
    let mut out = compared(&left, &right, SUITE, 1).await;
    out.requests.clear();
    insta::assert_snapshot!(text::render(&out, &Styles::plain()), @r#"
    POST /api: $.api: "***" → "z" (2 of 2)
        tests/e2e/shadow.toml:7, tests/e2e/shadow.toml:19

    steps that are not replayed: 1 polling http, 2 sql
    tests/e2e/shadow.toml:30 was not sent: there is no variable `from_sql`
    tests/e2e/shadow.toml: nothing is there that `ignore` names with "$.nobody"
    1 difference: main (1a2b3c4) → this tree, 4 requests to each in 1 round
    "#);
}
