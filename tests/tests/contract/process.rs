//! The program: its environment, what it says of itself, and its end.

use super::{Clause, clauses, record};
use devenv_tests::contract::api::Api;
use devenv_tests::contract::program::{Implementation, Side};
use devenv_tests::contract::stage::{Stage, stamp};
use devenv_tests::until;
use reqwest::Method;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub const CLAUSES: &[Clause] = clauses![
    a_bad_environment_is_told_whole,
    a_port_that_is_taken_is_told,
    rows_are_stamped_with_its_own_name_by_default,
    it_is_alive_and_ready,
    what_it_did_is_counted,
    a_page_of_any_origin_may_call,
    only_the_pages_of_the_list_may_call,
    no_page_may_call_by_default,
    what_is_in_flight_when_it_must_stop_is_answered,
    under_load_it_stops_without_losing_a_request,
    its_log_tells_the_beginning_and_the_end_and_no_secret,
];

async fn a_bad_environment_is_told_whole(stage: &mut Stage, implementation: Implementation) {
    let program = stage.program(implementation, Side::Write).await;
    let (name, port) = (program.name, program.port);
    let (status, said) = program
        .fails(&[
            ("DB_PASSWORD", "hunter2"),
            ("DB_PORT", "65536"),
            ("PORT", "0"),
            ("API_NAME", &"x".repeat(33)),
            ("CORS_ORIGIN", "https://ok.example, example.com"),
            ("LOG_LEVEL", "loud"),
        ])
        .await;
    assert_eq!(status.code(), Some(1), "{said}");
    let long = "x".repeat(33);
    assert_eq!(
        said,
        format!(
            "{name}: the environment can't be used:\n  \
             DB_PORT is `65536`; expected a whole number from 1 to 65535 (default 3306)\n  \
             DB_USER is not set; it comes from the Secret cloudsql-credentials\n  \
             PORT is `0`; expected a whole number from 1 to 65535 (default {port})\n  \
             API_NAME is `{long}`; expected at most 32 printable characters\n  \
             CORS_ORIGIN has `example.com`; expected `*` or origins such as \
             https://example.com, separated by commas\n  \
             LOG_LEVEL is `loud`; expected off, error, warn, info, debug, trace, or a filter \
             such as `info,telemetry=debug`\n"
        )
    );
}

async fn a_port_that_is_taken_is_told(stage: &mut Stage, implementation: Implementation) {
    let program = stage.program(implementation, Side::Write).await;
    let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let environment = [("DB_USER", "u"), ("DB_PASSWORD", "p"), ("PORT", &port)];
    let (status, said) = program.fails(&environment).await;
    assert_eq!(status.code(), Some(1), "{said}");
    let expected = format!("{}: can't listen on port {port}; ", program.name);
    assert!(said.contains(&expected), "{said}");
}

async fn rows_are_stamped_with_its_own_name_by_default(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let service = stage.another(implementation, Side::Write, &[]).await;
    let reply = service.api.post_json(&record(1)).await;
    let name = stage.program(implementation, Side::Write).await.name;
    assert_eq!(reply.json()["api"], name);
}

async fn it_is_alive_and_ready(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for path in ["/healthz", "/readyz"] {
        let reply = api.get(path).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, "ok\n"), "{path}");
        assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    }
}

async fn what_it_did_is_counted(stage: &mut Stage, implementation: Implementation) {
    let environment = [("API_NAME", "a\"b\\c"), ("DB_POOL_MAX", "7")];
    let service = stage
        .another(implementation, Side::Write, &environment)
        .await;
    let api = &service.api;
    api.post_keyed(&record(1), "k").await.ids();
    api.post_keyed(&record(1), "k").await.ids();
    let array = serde_json::json!([record(2), record(3)]);
    api.post_json(&array).await.ids();
    api.post("{").await.problem(400);
    api.get("/api/records?limit=1").await.json();
    api.get("/nowhere").await.problem(404);
    api.call("PUT", "/api").await.problem(405);
    let metrics = api.metrics().await;
    let count = |name: &str, labels: &str| {
        let api = r#"api="a\"b\\c""#;
        let labels = if labels.is_empty() {
            format!("{name}{{{api}}}")
        } else {
            format!("{name}{{{api},{labels}}}")
        };
        *metrics
            .get(&labels)
            .unwrap_or_else(|| panic!("no {labels} in {metrics:#?}"))
    };
    let requests = |method: &str, route: &str, status: u16| {
        let labels = format!(r#"method="{method}",route="{route}",status="{status}""#);
        count("telemetry_http_requests_total", &labels)
    };
    assert_eq!(requests("POST", "/api", 201), 3.0);
    assert_eq!(requests("POST", "/api", 400), 1.0);
    assert_eq!(requests("PUT", "/api", 405), 1.0);
    assert_eq!(requests("GET", "/api/records", 200), 1.0);
    assert_eq!(requests("GET", "other", 404), 1.0);
    // A repeat is answered, and inserts nothing.
    assert_eq!(count("telemetry_records_inserted_total", ""), 3.0);
    assert_eq!(count("telemetry_insert_seconds_count", ""), 2.0);
    assert!(count("telemetry_insert_seconds_sum", "") > 0.0);
    let mut below = 0.0;
    for bound in [
        "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
        "10", "+Inf",
    ] {
        let n = count(
            "telemetry_insert_seconds_bucket",
            &format!("le=\"{bound}\""),
        );
        assert!(n >= below, "buckets are cumulative");
        below = n;
    }
    assert_eq!(below, 2.0);
    assert_eq!(count("telemetry_db_connections", r#"state="in_use""#), 0.0);
    assert!(count("telemetry_db_connections", r#"state="idle""#) >= 1.0);
    assert_eq!(count("telemetry_db_connections_max", ""), 7.0);
    assert_eq!(count("telemetry_db_up", ""), 1.0);
}

/// A page's request, and the one that browsers ask with before.
async fn asked_by_a_page(api: &Api, origin: &str) -> [devenv_tests::contract::api::Reply; 2] {
    let plain = api.request(Method::GET, "/api/records");
    let preflight = api
        .request(Method::OPTIONS, "/api")
        .header("access-control-request-method", "POST");
    [
        api.send(plain.header("origin", origin)).await,
        api.send(preflight.header("origin", origin)).await,
    ]
}

const ALLOWED: &str = "access-control-allow-origin";

async fn a_page_of_any_origin_may_call(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let [plain, preflight] = asked_by_a_page(&api, "http://page.example").await;
    assert_eq!((plain.status, preflight.status), (200, 204));
    assert_eq!(
        (plain.header(ALLOWED), preflight.header(ALLOWED)),
        ("*", "*")
    );
    let listed = |reply: &devenv_tests::contract::api::Reply, header: &str, name: &str| {
        let list = reply.header(header).to_owned();
        assert!(list.split(", ").any(|one| one == name), "{header}: {list}");
    };
    listed(&preflight, "access-control-allow-methods", "POST");
    listed(
        &preflight,
        "access-control-allow-headers",
        "Idempotency-Key",
    );
    listed(&preflight, "access-control-allow-headers", "Content-Type");
    listed(&plain, "access-control-expose-headers", "Retry-After");
    // An error is a page's to read as well.
    let bad = api.posting("{").header("origin", "http://page.example");
    assert_eq!(api.send(bad).await.header(ALLOWED), "*");
}

async fn only_the_pages_of_the_list_may_call(stage: &mut Stage, implementation: Implementation) {
    let list = "http://A.example:8080/, https://b.example";
    let environment = [("CORS_ORIGIN", list)];
    let service = stage
        .another(implementation, Side::Write, &environment)
        .await;
    for (origin, allowed) in [
        ("http://a.example:8080", true),
        ("https://b.example", true),
        ("http://b.example", false),
    ] {
        for reply in asked_by_a_page(&service.api, origin).await {
            assert_eq!(reply.header(ALLOWED) == origin, allowed, "{reply:?}");
            assert!(allowed || !reply.headers.contains_key(ALLOWED), "{reply:?}");
            assert_eq!(reply.header("vary").to_lowercase(), "origin");
        }
    }
}

async fn no_page_may_call_by_default(stage: &mut Stage, implementation: Implementation) {
    let service = stage.another(implementation, Side::Write, &[]).await;
    for reply in asked_by_a_page(&service.api, "http://page.example").await {
        assert!(!reply.headers.contains_key(ALLOWED), "{reply:?}");
    }
}

async fn what_is_in_flight_when_it_must_stop_is_answered(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let service = stage.another(implementation, Side::Write, &[]).await;
    // A connection that lies idle, and one whose request the database keeps waiting.
    let mut idle = TcpStream::connect(service.api.address()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut holder = stage.database.connect().await;
    // MySQL prepares no such statement.
    sqlx::raw_sql("LOCK TABLES records WRITE")
        .execute(&mut holder)
        .await
        .unwrap();
    let busy = tokio::spawn({
        let api = service.api.clone();
        async move { api.post_json(&record(1)).await }
    });
    let blocked = until(
        Duration::from_secs(30),
        Duration::from_millis(20),
        async || {
            let waits = sqlx::query_scalar::<_, i64>(
                "SELECT COUNT(*) FROM information_schema.processlist \
             WHERE info LIKE 'INSERT INTO records%' AND state LIKE 'Waiting%'",
            );
            let root = &mut stage.database.connect_as_root().await;
            (waits.fetch_one(root).await.unwrap() > 0).then_some(())
        },
    );
    assert!(blocked.await.is_some(), "the insert reaches the database");

    service.terminate();
    // It says so where a kubelet asks, and lets its callers go.
    let api = service.api.clone();
    let every = Duration::from_millis(5);
    let stopping = until(Duration::from_secs(30), every, async || {
        match api.try_get("/readyz").await {
            Some(reply) => (reply.text == "stopping\n").then_some(Some(reply)),
            // It no longer listens: this machine was too slow to see it linger.
            None => Some(None),
        }
    });
    if let Some(reply) = stopping.await.expect("it stops") {
        assert_eq!((reply.status, reply.header("connection")), (503, "close"));
    }
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest)
        .await
        .expect("the idle connection ends in order");
    assert!(!busy.is_finished());
    sqlx::raw_sql("UNLOCK TABLES")
        .execute(&mut holder)
        .await
        .unwrap();
    busy.await.unwrap().ids();
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(stage.database.rows().await, 1);
}

/// Callers go elsewhere when they are told that it closes, as a proxy does.
async fn under_load_it_stops_without_losing_a_request(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let service = stage.another(implementation, Side::Write, &[]).await;
    let (answered_tx, mut answered) = tokio::sync::watch::channel(0_u32);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (api, answered_tx) = (Api::new(service.api.base.clone()), answered_tx.clone());
        callers.spawn(async move {
            for n in 0.. {
                let reply = api.post_json(&record(caller * 100_000 + n)).await;
                reply.ids();
                answered_tx.send_modify(|n| *n += 1);
                if reply.header("connection") == "close" {
                    return n + 1;
                }
            }
            unreachable!("it stops before the numbers end")
        });
    }
    answered.wait_for(|n| *n >= 200).await.unwrap();
    service.terminate();
    let acknowledged: u32 = callers.join_all().await.into_iter().sum();
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(stage.database.rows().await, i64::from(acknowledged));
}

async fn its_log_tells_the_beginning_and_the_end_and_no_secret(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let environment = [("API_NAME", stamp(implementation)), ("LOG_LEVEL", "debug")];
    let mut service = stage
        .another(implementation, Side::Write, &environment)
        .await;
    service.api.post_json(&record(1)).await.ids();
    assert!(service.is_running());
    service.terminate();
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let line = |word: &str| {
        log.lines()
            .find(|line| line.contains(word))
            .map(str::to_owned)
    };
    let listening = line("listening").unwrap_or_else(|| panic!("{log}"));
    assert!(listening.contains(stamp(implementation)), "{listening}");
    assert!(line("stopping").is_some(), "{log}");
    assert!(line("WARN").is_none() && line("ERROR").is_none(), "{log}");
    let secret = stage.database.config("").database.password;
    assert!(!log.contains(secret.reveal()), "{log}");
    if implementation != Implementation::Rust {
        for line in log.lines() {
            let entry: serde_json::Value = serde_json::from_str(line).expect(line);
            for member in ["time", "severity", "message"] {
                assert!(entry[member].is_string(), "{line}");
            }
        }
    }
}
