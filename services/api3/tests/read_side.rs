//! The read side's contract against a real database.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Service, Socket, event, write};
use telemetry::testing::TestDatabase;

#[tokio::test]
async fn pages_are_told_what_is_new_over_websocket() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let service = Service::start(&database.config("api3")).await;
    let mut rows = database.connect().await;

    // An empty table is no error.
    let mut socket = Socket::connect(service.addr).await;
    let update = socket.event("metrics-update").await;
    assert_eq!(update, json!({"record": null, "counts": {}, "total": 0}));

    // A row is told soon.
    write(&mut rows, "api1", 1).await;
    let written = Instant::now();
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 1)
        .await;
    assert!(
        written.elapsed() < Duration::from_secs(1),
        "{:?}",
        written.elapsed()
    );
    assert_eq!(update["counts"], json!({"api1": 1}));
    assert_eq!(update["record"]["uso_ram"], 4000.0);
    assert_eq!(update["record"]["hora"], "2025-03-01 12:30:59");
    assert_eq!(update["record"]["api"], "api1");

    // Many rows: exact.
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            write(&mut rows, "api1", 2).await;
            write(&mut rows, "api2", 2).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rows
    });
    socket
        .event_where("metrics-update", |u| u["total"] == 401)
        .await;
    let mut rows = writing.await.unwrap();
    let rest = Instant::now();
    let mut updates = 0_u32;
    while rest.elapsed() < Duration::from_millis(2500) {
        socket.event("metrics-update").await;
        updates += 1;
    }
    assert!(
        (2..=4).contains(&updates),
        "once a second at rest, was {updates}"
    );
    let split = socket.event("split-update").await;
    assert_eq!(split["window_s"], 60);
    assert_eq!(split["by_api"], json!({"api1": 201, "api2": 200}));
    assert!((split["share"]["api1"].as_f64().unwrap() - 201.0 / 401.0).abs() < 1e-9);

    // History through an acknowledgement.
    let newest = socket.request_metrics(json!({"limit": 3})).await;
    let ids: Vec<i64> = newest
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted_by(|a, b| a > b));
    assert_eq!(
        socket
            .request_metrics(json!({"limit": 9999}))
            .await
            .as_array()
            .unwrap()
            .len(),
        401
    );
    assert_eq!(
        socket
            .request_metrics(json!({}))
            .await
            .as_array()
            .unwrap()
            .len(),
        100
    );
    assert!(socket.request_metrics(json!({"limit": 0})).await["error"]["message"].is_string());

    // A transaction that commits below rows that were seen.
    let mut late = database.connect().await;
    sqlx::raw_sql("BEGIN").execute(&mut late).await.unwrap();
    write(&mut late, "late", 1).await;
    write(&mut rows, "api1", 1).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 402)
        .await;
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 403)
        .await;
    assert_eq!(update["counts"]["late"], 1);

    // An emptied table starts again at 1.
    sqlx::raw_sql("TRUNCATE TABLE records")
        .execute(&mut rows)
        .await
        .unwrap();
    socket
        .event_where("metrics-update", |u| {
            u["total"] == 0 && u["record"].is_null()
        })
        .await;
    write(&mut rows, "api2", 1).await;
    socket
        .event_where("metrics-update", |u| u["record"]["id"] == 1)
        .await;

    // The end: the page is told to go.
    let closing = tokio::spawn(service.stop());
    while socket.packet().await.is_some() {}
    closing.await.unwrap();
}

#[tokio::test]
async fn updates_are_paced() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let service = Service::start(&database.config("api3")).await;
    let mut socket = Socket::connect(service.addr).await;
    socket.event("metrics-update").await;
    let mut rows = database.connect().await;
    let writing = tokio::spawn(async move {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            write(&mut rows, "api1", 1).await;
        }
    });
    let started = Instant::now();
    let mut updates = 0;
    while !writing.is_finished() {
        socket.event("metrics-update").await;
        updates += 1;
    }
    // One more for each end; each single pause is live.rs's own test.
    let most = started.elapsed().as_millis() / 250 + 2;
    assert!((3..=most).contains(&updates), "{updates} of at most {most}");
    writing.await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn pages_are_told_over_polling_too() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let service = Service::start(&database.config("api3")).await;
    write(&mut database.connect().await, "api1", 1).await;

    let path = "/socket.io/?EIO=4&transport=polling";
    let (status, open) = service.call("GET", path, "").await;
    assert_eq!(status, 200);
    let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
    assert_eq!(
        service.call("POST", &path, "40").await,
        (200, "ok".to_owned())
    );
    let mut seen = Vec::new();
    while !seen.iter().any(|(name, _)| name == "split-update") {
        let (status, text) = service.call("GET", &path, "").await;
        assert_eq!(status, 200);
        for packet in text.split('\u{1e}') {
            if packet == "2" {
                service.call("POST", &path, "3").await;
            }
            seen.extend(event(packet));
        }
    }
    let (_, update) = seen
        .iter()
        .find(|(name, _)| name == "metrics-update")
        .unwrap();
    assert_eq!(update["total"], 1);
    service.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_the_page_is_told_and_stays() {
    let Some(mut database) = TestDatabase::alone().await else {
        return;
    };
    write(&mut database.connect().await, "api1", 3).await;
    let service = Service::start(&database.config("api3")).await;
    let mut socket = Socket::connect(service.addr).await;
    socket
        .event_where("metrics-update", |u| u["total"] == 3)
        .await;

    database.kill().await;
    let killed = Instant::now();
    let error = socket.event("metrics-error").await;
    assert!(
        killed.elapsed() < Duration::from_secs(3),
        "{:?}",
        killed.elapsed()
    );
    assert!(
        error["message"].is_string() && error["retry_in_ms"].as_u64().unwrap() > 0,
        "{error}"
    );
    // Whoever comes now is told as well, and plain requests get 503.
    let mut other = Socket::connect(service.addr).await;
    other.event("metrics-error").await;
    assert!(other.request_metrics(json!({"limit": 5})).await["error"]["message"].is_string());
    for path in ["/api3/stats", "/api3/records", "/readyz"] {
        assert_eq!(service.call("GET", path, "").await.0, 503, "{path}");
    }
    assert_eq!(service.call("GET", "/healthz", "").await.0, 200);

    database.up().await;
    write(&mut database.connect().await, "api2", 1).await;
    // The same connection goes on.
    let update = socket
        .event_where("metrics-update", |u| u["total"] == 4)
        .await;
    assert_eq!(update["counts"], json!({"api1": 3, "api2": 1}));
    other
        .event_where("metrics-update", |u| u["total"] == 4)
        .await;
    service.stop().await;
}

#[tokio::test]
async fn plain_requests_are_answered() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let service = Service::start(&database.config("api3")).await;
    let mut rows = database.connect().await;
    write(&mut rows, "api1", 3).await;
    write(&mut rows, "api2", 1).await;
    sqlx::raw_sql("UPDATE records SET created_at = created_at - INTERVAL 10 MINUTE WHERE id = 1")
        .execute(&mut rows)
        .await
        .unwrap();

    assert_eq!(
        service.json("/api3/stats?window_s=60").await,
        json!({
            "total": 4, "counts": {"api1": 3, "api2": 1}, "window_s": 60,
            "by_api": {"api1": 2, "api2": 1},
            "share": {"api1": 2.0 / 3.0, "api2": 1.0 / 3.0}
        })
    );
    let hour = service.json("/api3/stats?window_s=3600").await;
    assert_eq!(hour["by_api"], json!({"api1": 3, "api2": 1}));
    let page = service.json("/api3/records?limit=3").await;
    assert_eq!(page["records"].as_array().unwrap().len(), 3);
    assert_eq!(page["next_after"], page["records"][2]["id"]);
    for (path, status) in [
        ("/api3/stats?window_s=0", 422),
        ("/api3/records?limit=501", 422),
        ("/api3", 404),
        ("/api3/stats?window_s=%zz", 422),
    ] {
        let (got, text) = service.call("GET", path, "").await;
        assert_eq!(got, status, "{path}: {text}");
    }
    assert_eq!(service.call("POST", "/api3/stats", "").await.0, 405);
    assert_eq!(service.call("GET", "/readyz", "").await.0, 200);
    service.stop().await;
}
