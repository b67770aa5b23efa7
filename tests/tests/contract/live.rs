//! What pages are told over Socket.IO, and the plain requests beside it.

use super::{Clause, LiveClause, clauses, live_clauses, write_old_rows, write_rows};
use devenv_tests::contract::api::Api;
use devenv_tests::contract::program::{Implementation, Side};
use devenv_tests::contract::socket::{Socket, Transport};
use devenv_tests::contract::stage::Stage;
use devenv_tests::until;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::MySqlConnection;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Over each transport.
pub const TOLD: &[LiveClause] = live_clauses![
    a_page_is_greeted,
    a_page_is_told_of_a_row,
    the_split_is_told_once_a_second,
    every_row_is_counted_once,
    updates_come_at_most_every_250_ms,
    updates_come_once_a_second_at_rest,
    history_is_acknowledged,
    a_row_that_commits_late_is_counted,
    an_emptied_table_starts_again,
    while_the_database_is_away_the_page_is_told_and_stays,
    the_page_is_let_go_when_the_program_stops,
];

/// Without a page, or over both transports.
pub const CLAUSES: &[Clause] = clauses![
    polling_goes_on_as_websocket,
    stats_count_their_window,
    records_are_paged,
    refusals_are_problems,
    without_the_database_it_is_alive_and_not_ready,
    a_page_of_any_origin_may_look_on,
    it_counts_what_it_answers,
];

/// Only a program that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the statistics, which may be a moment old, count all rows.
pub async fn counted(api: &Api, rows: u64) {
    let counted = until(PATIENCE, Duration::from_millis(20), async || {
        let stats = api.get("/api3/stats").await.json();
        (stats["total"] == rows).then_some(())
    });
    assert!(counted.await.is_some(), "{rows} rows are counted");
}

/// The names in an object, in order.
fn members(object: &Value) -> BTreeSet<&str> {
    let members = object.as_object().unwrap_or_else(|| panic!("{object}"));
    members.keys().map(String::as_str).collect()
}

async fn page(stage: &mut Stage, reader: Implementation, transport: Transport) -> Socket {
    Socket::connect(&stage.read(reader).await, transport).await
}

async fn a_page_is_greeted(stage: &mut Stage, reader: Implementation, transport: Transport) {
    let mut socket = page(stage, reader, transport).await;
    assert!(socket.open["sid"].is_string(), "{}", socket.open);
    let empty = socket
        .event_where("metrics-update", |u| u["total"] == 0)
        .await;
    assert_eq!(empty, json!({"record": null, "counts": {}, "total": 0}));
    // It is the first that a page hears of.
    let mut socket = page(stage, reader, transport).await;
    let first = socket.next_event().await;
    assert_eq!(first, Some(("metrics-update".to_owned(), empty)));
    let split = socket.event("split-update").await;
    assert_eq!(split, json!({"window_s": 60, "by_api": {}, "share": {}}));
}

async fn a_page_is_told_of_a_row(stage: &mut Stage, reader: Implementation, transport: Transport) {
    let mut socket = page(stage, reader, transport).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 0)
        .await;
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "api1", 1).await;
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 1)
        .await;
    assert_eq!(update["counts"], json!({"api1": 1}));
    let record = update["record"].as_object().unwrap();
    assert_eq!(
        record.len(),
        15,
        "id, the twelve fields, api, created_at: {update}"
    );
    assert_eq!(record["id"], 1);
    assert_eq!(record["uso_ram"].as_f64(), Some(4000.0));
    assert_eq!(record["procesos_durmiendo"], 98);
    assert_eq!(record["hora"], "2025-03-01 12:30:59");
    assert_eq!(record["api"], "api1");
    let created: String =
        sqlx::query_scalar("SELECT DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') FROM records")
            .fetch_one(&mut rows)
            .await
            .unwrap();
    assert_eq!(record["created_at"], created);
    assert_eq!(members(&update), ["counts", "record", "total"].into());
}

async fn the_split_is_told_once_a_second(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "api1", 3).await;
    write_rows(&mut rows, "api2", 1).await;
    write_old_rows(&mut rows, "long ago", 1).await;
    let mut socket = page(stage, reader, transport).await;
    // Every API that ever wrote is named; the reader may have looked between the rows.
    let split = socket
        .event_where("split-update", |s| s["by_api"]["long ago"].is_number())
        .await;
    let expected = json!({
        "window_s": 60,
        "by_api": {"api1": 3, "api2": 1, "long ago": 0},
        "share": {"api1": 0.75, "api2": 0.25, "long ago": 0.0},
    });
    for part in ["window_s", "by_api"] {
        assert_eq!(split[part], expected[part]);
    }
    for (api, share) in expected["share"].as_object().unwrap() {
        assert_eq!(split["share"][api].as_f64(), share.as_f64(), "{api}");
    }
    let began = Instant::now();
    let mut came = 0_u32;
    while came < 4 {
        socket.event("split-update").await;
        came += 1;
    }
    // A machine that is busy may be late; nobody may be early but by what lay in
    // between.
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

async fn every_row_is_counted_once(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut socket = page(stage, reader, transport).await;
    let writing = |connection: MySqlConnection, api: &'static str| async move {
        let mut connection = connection;
        for _ in 0..100 {
            write_rows(&mut connection, api, 2).await;
        }
    };
    let one = tokio::spawn(writing(stage.database.connect().await, "api1"));
    let other = tokio::spawn(writing(stage.database.connect().await, "api2"));
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 400)
        .await;
    assert_eq!(update["counts"], json!({"api1": 200, "api2": 200}));
    one.await.unwrap();
    other.await.unwrap();
    // And not more often later.
    for _ in 0..3 {
        assert_eq!(socket.event("metrics-update").await["total"], 400);
    }
}

async fn updates_come_at_most_every_250_ms(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut socket = page(stage, reader, transport).await;
    socket.event("metrics-update").await;
    let mut rows = stage.database.connect().await;
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        while began.elapsed() < Duration::from_secs(3) {
            write_rows(&mut rows, "api1", 1).await;
        }
    });
    let mut updates = 0;
    while !writing.is_finished() {
        socket.event("metrics-update").await;
        updates += 1;
    }
    // What was on its way at the beginning, and what came while the end was seen.
    let most = began.elapsed().as_millis() / 250 + 3;
    assert!((3..=most).contains(&updates), "{updates} of at most {most}");
    writing.await.unwrap();
}

async fn updates_come_once_a_second_at_rest(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut socket = page(stage, reader, transport).await;
    let at_rest = socket
        .event_where("metrics-update", |u| u["total"] == 0)
        .await;
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(socket.event("metrics-update").await, at_rest);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

async fn history_is_acknowledged(stage: &mut Stage, reader: Implementation, transport: Transport) {
    let mut socket = page(stage, reader, transport).await;
    assert_eq!(socket.request_metrics(json!({"limit": 5})).await, json!([]));
    write_rows(&mut stage.database.connect().await, "api1", 510).await;
    for (data, length) in [
        (json!({"limit": 3}), 3),
        (json!({"limit": 500}), 500),
        (json!({"limit": 9999}), 500),
        (json!({}), 100),
        (json!({"limit": null}), 100),
    ] {
        let newest = socket.request_metrics(data.clone()).await;
        let newest = newest.as_array().unwrap();
        let ids: Vec<i64> = newest.iter().map(|r| r["id"].as_i64().unwrap()).collect();
        let expected: Vec<i64> = (1..=510).rev().take(length).collect();
        assert_eq!(ids, expected, "{data}");
        assert_eq!(newest[0].as_object().unwrap().len(), 15);
    }
    for limit in [json!(0), json!(-1), json!(1.5), json!("3"), json!([])] {
        let answer = socket.request_metrics(json!({"limit": limit})).await;
        let message = format!("limit is {limit}; expected 1 to 500");
        assert_eq!(answer, json!({"error": {"message": message}}));
    }
}

async fn a_row_that_commits_late_is_counted(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut socket = page(stage, reader, transport).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 0)
        .await;
    let (mut rows, mut late) = (
        stage.database.connect().await,
        stage.database.connect().await,
    );
    // MySQL prepares no such statement.
    sqlx::raw_sql("START TRANSACTION")
        .execute(&mut late)
        .await
        .unwrap();
    write_rows(&mut late, "late", 1).await;
    write_rows(&mut rows, "api1", 1).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 1)
        .await;
    sqlx::query("COMMIT").execute(&mut late).await.unwrap();
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 2)
        .await;
    assert_eq!(update["counts"], json!({"api1": 1, "late": 1}));
    assert_eq!(update["record"]["id"], 2, "the newest is still the newest");
}

async fn an_emptied_table_starts_again(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "api1", 5).await;
    let mut socket = page(stage, reader, transport).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 5)
        .await;
    sqlx::query("TRUNCATE TABLE records")
        .execute(&mut rows)
        .await
        .unwrap();
    let empty = socket
        .event_where("metrics-update", |u| u["total"] == 0)
        .await;
    assert_eq!(empty["record"], Value::Null);
    write_rows(&mut rows, "api2", 1).await;
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 1)
        .await;
    assert_eq!(
        (&update["record"]["id"], &update["counts"]),
        (&json!(1), &json!({"api2": 1}))
    );
}

async fn while_the_database_is_away_the_page_is_told_and_stays(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    write_rows(&mut stage.database.connect().await, "api1", 3).await;
    let mut socket = page(stage, reader, transport).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 3)
        .await;

    stage.database.kill().await;
    let error = socket.event("metrics-error").await;
    assert_eq!(members(&error), ["message", "retry_in_ms"].into());
    assert!(error["message"].is_string() && error["retry_in_ms"].as_u64().unwrap() > 0);
    // It comes again, less and less often.
    let later = socket.event("metrics-error").await;
    assert!(
        later["retry_in_ms"].as_u64() > error["retry_in_ms"].as_u64(),
        "{later}"
    );
    // Whoever comes now is told as well.
    let mut other = page(stage, reader, transport).await;
    other.event("metrics-error").await;
    let answer = other.request_metrics(json!({"limit": 5})).await;
    assert!(answer["error"]["message"].is_string(), "{answer}");
    assert!(answer["error"]["retry_in_ms"].is_u64(), "{answer}");

    stage.database.up().await;
    write_rows(&mut stage.database.connect().await, "api2", 1).await;
    // The same connections go on.
    for socket in [&mut socket, &mut other] {
        let update = socket
            .event_where("metrics-update", |u| u["total"] == 4)
            .await;
        assert_eq!(update["counts"], json!({"api1": 3, "api2": 1}));
    }
}

async fn the_page_is_let_go_when_the_program_stops(
    stage: &mut Stage,
    reader: Implementation,
    transport: Transport,
) {
    let service = stage.another(reader, Side::Read, &[]).await;
    let mut socket = Socket::connect(&service.api, transport).await;
    socket.event("metrics-update").await;
    // A proxy has connections in hand on which nothing came yet.
    let _idle = TcpStream::connect(service.api.address()).await.unwrap();
    service.terminate();
    // Not with a packet that says so (41): a client that the server disconnects on
    // purpose does not come back, and it is to come back to another pod.
    while let Some(packet) = socket.packet().await {
        assert!(!packet.starts_with("41"), "{packet}");
    }
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("WARN"), "in order and at once: {log}");
}

async fn polling_goes_on_as_websocket(stage: &mut Stage, reader: Implementation) {
    let mut socket = page(stage, reader, Transport::Polling).await;
    assert_eq!(socket.open["upgrades"], json!(["websocket"]));
    socket.upgrade().await;
    write_rows(&mut stage.database.connect().await, "api1", 1).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 1)
        .await;
    let newest = socket.request_metrics(json!({"limit": 1})).await;
    assert_eq!(newest[0]["id"], 1);
}

async fn stats_count_their_window(stage: &mut Stage, reader: Implementation) {
    let api = stage.read(reader).await;
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "api1", 3).await;
    write_rows(&mut rows, "api2", 1).await;
    sqlx::query("UPDATE records SET created_at = created_at - INTERVAL 10 MINUTE WHERE id = 1")
        .execute(&mut rows)
        .await
        .unwrap();
    let mut socket = Socket::connect(&api, Transport::WebSocket).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 4)
        .await;
    counted(&api, 4).await;
    for (query, window_s, api1) in [
        ("", 60, 2.0),
        ("?window_s=60", 60, 2.0),
        ("?window_s=3600", 3600, 3.0),
        ("?window_s=86400", 86_400, 3.0),
    ] {
        let stats = api.get(&format!("/api3/stats{query}")).await.json();
        let share = [api1 / (api1 + 1.0), 1.0 / (api1 + 1.0)];
        let expected = json!({
            "total": 4, "counts": {"api1": 3, "api2": 1}, "window_s": window_s,
            "by_api": {"api1": api1 as u64, "api2": 1},
            "share": {"api1": share[0], "api2": share[1]}
        });
        assert_eq!(stats, expected, "{query}");
    }
}

async fn records_are_paged(stage: &mut Stage, reader: Implementation) {
    let api = stage.read(reader).await;
    write_rows(&mut stage.database.connect().await, "api1", 4).await;
    let page = api.get("/api3/records?limit=3").await.json();
    let ids = |page: &Value| -> Vec<Value> {
        let records = page["records"].as_array().unwrap();
        records.iter().map(|record| record["id"].clone()).collect()
    };
    assert_eq!(
        (ids(&page), &page["next_after"]),
        (vec![json!(4), json!(3), json!(2)], &json!(2))
    );
    let page = api.get("/api3/records?limit=500&after=2").await.json();
    assert_eq!(
        (ids(&page), &page["next_after"]),
        (vec![json!(1)], &Value::Null)
    );
}

async fn refusals_are_problems(stage: &mut Stage, reader: Implementation) {
    let api = stage.read(reader).await;
    let window = "expected a whole number of seconds from 1 to 86400";
    let limit = "expected a whole number from 1 to 500";
    for (path, field, message) in [
        ("/api3/stats?window_s=0", "window_s", window),
        ("/api3/stats?window_s=86401", "window_s", window),
        ("/api3/stats?window_s=%zz", "window_s", window),
        ("/api3/records?limit=501", "limit", limit),
        (
            "/api3/records?after=x",
            "after",
            "expected the id of a record",
        ),
    ] {
        let errors = api.get(path).await.errors();
        assert_eq!(
            errors,
            [(None, field.to_owned(), message.to_owned())],
            "{path}"
        );
    }
    for path in ["/api3", "/api3/", "/api3/stats/", "/api/records"] {
        api.get(path).await.problem(404);
    }
    for path in ["/api3/stats", "/api3/records", "/healthz"] {
        let reply = api.call("POST", path).await;
        reply.problem(405);
        assert_eq!(reply.header("allow"), "GET, HEAD, OPTIONS");
    }
    assert_eq!(api.get("/readyz").await.text, "ok\n");
}

async fn without_the_database_it_is_alive_and_not_ready(stage: &mut Stage, reader: Implementation) {
    let api = stage.read(reader).await;
    stage.database.kill().await;
    let away = until(PATIENCE, Duration::from_millis(20), async || {
        (api.get("/api3/stats").await.status == 503).then_some(())
    });
    assert!(away.await.is_some(), "what was known is not shown for long");
    for path in ["/api3/stats", "/api3/records", "/readyz"] {
        let reply = api.get(path).await;
        reply.problem(503);
        assert_eq!(reply.header("retry-after"), "1", "{path}");
    }
    assert_eq!(api.get("/healthz").await.status, 200);
    stage.database.up().await;
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(api.get("/api3/stats").await.status, 200);
}

async fn a_page_of_any_origin_may_look_on(stage: &mut Stage, reader: Implementation) {
    let api = stage.read(reader).await;
    for path in ["/socket.io/?EIO=4&transport=polling", "/api3/records"] {
        let origin = "http://page.example";
        let plain = api.request(Method::GET, path).header("origin", origin);
        let preflight = api
            .request(Method::OPTIONS, path)
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let (plain, preflight) = (api.send(plain).await, api.send(preflight).await);
        assert_eq!((plain.status, preflight.status), (200, 204), "{path}");
        for reply in [plain, preflight] {
            assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
        }
    }
}

async fn it_counts_what_it_answers(stage: &mut Stage, reader: Implementation) {
    let service = stage.another(reader, Side::Read, &[]).await;
    let mut socket = Socket::connect(&service.api, Transport::Polling).await;
    socket.event("metrics-update").await;
    service.api.get("/api3/stats").await.json();
    let metrics = service.api.metrics().await;
    for labels in [
        r#"api="api3",method="GET",route="/socket.io",status="200""#,
        r#"api="api3",method="GET",route="/api3/stats",status="200""#,
    ] {
        let name = format!("telemetry_http_requests_total{{{labels}}}");
        assert!(
            metrics.get(&name).is_some_and(|n| *n >= 1.0),
            "{name}: {metrics:#?}"
        );
    }
}
