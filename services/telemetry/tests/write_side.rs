//! The write side's contract, both APIs in this process, against a real
//! database.

mod support;

use std::time::Duration;

use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};
use support::{Service, record};
use telemetry::testing::TestDatabase;
use tokio::task::JoinSet;

#[tokio::test]
async fn records_are_taken_refused_and_read_back() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let api1 = Service::start(&database.config("api1")).await;
    let api2 = Service::start(&database.config("api2")).await;

    assert_eq!(api1.get("/healthz").await.status, 200);
    assert_eq!(api1.get("/readyz").await.status, 200);

    // One record; an unknown field is named, not refused.
    let mut noisy = record(1);
    noisy["maquina"] = json!("vm");
    let reply = api1.post_json(&noisy, None).await;
    let first = reply.ids()[0];
    assert_eq!(reply.json()["api"], "api1");
    assert_eq!(reply.json()["warnings"][0]["field"], "maquina");
    let reply = api2.post_json(&record(2), None).await;
    assert_eq!(reply.json(), json!({"ids": [first + 1], "api": "api2"}));

    // A full array, ids in its order.
    let thousand: Vec<Value> = (0..1000).map(|n| record(10_000 + n)).collect();
    let ids = api2.post_json(&json!(thousand), None).await.ids();
    assert_eq!(ids.len(), 1000);
    for (n, id) in [(0_u32, ids[0]), (999, ids[999])] {
        let mark: u32 = sqlx::query_scalar("SELECT total_procesos FROM records WHERE id = ?")
            .bind(id)
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
        assert_eq!(mark, 10_000 + n);
    }

    // All or nothing.
    let before = database.rows().await;
    assert_eq!(before, 1002);
    let mut bad = thousand.clone();
    bad[998]["uso_ram"] = json!("4096");
    bad[999].as_object_mut().unwrap().remove("hora");
    let problem = api1.post_json(&json!(bad), None).await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "uso_ram");
    assert_eq!(problem["errors"][0]["index"], 998);
    assert_eq!(problem["errors"][1]["field"], "hora");
    let many: Vec<Value> = (0..1001).map(record).collect();
    api1.post_json(&json!(many), None).await.problem(422);
    api1.post_json(&json!([]), None).await.problem(422);

    // The other refusals.
    api1.post("{", None).await.problem(400);
    assert_eq!(
        api1.post_json(&json!({}), None).await.problem(422)["errors"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
    let form = api1
        .request(Method::POST, "/api")
        .header("content-type", "text/plain");
    api1.send(form.body(Full::from(record(1).to_string())).unwrap())
        .await
        .problem(415);
    let reply = api1
        .send(
            api1.request(Method::PUT, "/api")
                .body(Full::default())
                .unwrap(),
        )
        .await;
    reply.problem(405);
    assert_eq!(reply.header("allow"), "POST, OPTIONS");
    api1.get("/api").await.problem(405);
    api1.get("/apix").await.problem(404);
    assert_eq!(database.rows().await, before);

    // The size is counted in bytes: 1 MiB passes, one more does not.
    let mut padded = record(3).to_string();
    padded.push_str(&" ".repeat((1 << 20) - padded.len()));
    api1.post(padded.clone(), None).await.ids();
    padded.push(' ');
    api1.post(padded, None).await.problem(413);
    api1.post(" ".repeat(9 << 20), None).await.problem(413);

    // Pages, newest first.
    let page = api1.get("/api/records?limit=3").await.json();
    let newest = page["records"][0]["id"].as_i64().unwrap();
    assert_eq!(page["records"].as_array().unwrap().len(), 3);
    assert_eq!(page["records"][0]["api"], "api1");
    let mut sent = record(3);
    for (field, value) in sent.as_object_mut().unwrap() {
        assert_eq!(&page["records"][0][field], value, "{field}");
    }
    assert!(
        page["records"][0]["created_at"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    let (mut seen, mut after) = (Vec::new(), newest + 1);
    loop {
        let page = api2
            .get(&format!("/api/records?limit=400&after={after}"))
            .await
            .json();
        seen.extend(
            page["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["id"].as_i64().unwrap()),
        );
        match page["next_after"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen.len() as i64, database.rows().await);
    assert!(seen.is_sorted_by(|a, b| a > b));
    let problem = api1.get("/api/records?limit=0&after=x").await.problem(422);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);

    // CORS, and OPTIONS without it.
    let preflight = api1
        .request(Method::OPTIONS, "/api")
        .header("origin", "http://page.example")
        .header("access-control-request-method", "POST");
    let reply = api1.send(preflight.body(Full::default()).unwrap()).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert!(
        reply
            .header("access-control-allow-headers")
            .contains("Idempotency-Key")
    );
    let reply = api1
        .send(
            api1.request(Method::OPTIONS, "/api")
                .body(Full::default())
                .unwrap(),
        )
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("allow")),
        (204, "POST, OPTIONS")
    );

    // Counters.
    let text = api1.get("/metrics").await.text;
    for line in [
        r#"telemetry_http_requests_total{api="api1",route="/api",method="POST",status="201"} 2"#,
        r#"telemetry_records_inserted_total{api="api1"} 2"#,
        r#"telemetry_insert_seconds_count{api="api1"} 2"#,
        r#"telemetry_db_up{api="api1"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    api1.stop().await;
    api2.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_makes_one_row() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let api1 = std::sync::Arc::new(Service::start(&database.config("api1")).await);
    let api2 = std::sync::Arc::new(Service::start(&database.config("api2")).await);

    // Fifty at once over both APIs, several rounds.
    for round in 0..8 {
        let mut all = JoinSet::new();
        for n in 0..50 {
            let api = if n % 2 == 0 {
                api1.clone()
            } else {
                api2.clone()
            };
            all.spawn(async move {
                api.post_json(&record(round), Some(&format!("round {round}")))
                    .await
            });
        }
        let replies = all.join_all().await;
        let first = replies[0].json();
        let mut fresh = 0;
        for reply in &replies {
            assert_eq!(reply.status, 201, "{reply:?}");
            assert_eq!(reply.json(), first);
            fresh += usize::from(reply.header("idempotency-replayed") != "true");
        }
        assert_eq!(fresh, 1);
        assert_eq!(database.rows().await, i64::from(round) + 1);
    }

    // Later, through the other API, and with an array.
    let array = json!([record(100), record(101), record(102)]);
    let first = api1.post_json(&array, Some("array")).await;
    let again = api2.post_json(&array, Some("array")).await;
    assert_eq!(first.json(), again.json());
    assert_eq!(again.json()["api"], "api1");
    assert_eq!(first.ids().len(), 3);
    assert_eq!(database.rows().await, 11);

    // Another body under the same key; keys differ in case.
    let problem = api2.post_json(&record(7), Some("array")).await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "Idempotency-Key");
    assert_ne!(
        api2.post_json(&array, Some("ARRAY")).await.ids(),
        first.ids()
    );
    assert_eq!(database.rows().await, 14);
    api1.post_json(&record(1), Some(&"x".repeat(65)))
        .await
        .problem(422);

    // A refused body does not use its key up.
    api1.post_json(&json!({}), Some("later")).await.problem(422);
    api1.post_json(&record(8), Some("later")).await.ids();

    // A key held by a transaction that never ends in time: 503, and the
    // request may be sent again.
    let mut holder = database.connect().await;
    sqlx::raw_sql("BEGIN; INSERT INTO idempotency (`key`, body_sha256, api, ids) VALUES ('held', '', 'x', '[]')")
        .execute(&mut holder)
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let api1 = api1.clone();
        async move { api1.post_json(&record(9), Some("held")).await }
    });
    // The holder dies and the waiting one takes over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    drop(holder);
    waiting.await.unwrap().ids();
    assert_eq!(database.rows().await, 16);

    // A day later keys go.
    let db = telemetry::Db::new(&database.config("x").database);
    sqlx::query("UPDATE idempotency SET created_at = created_at - INTERVAL 25 HOUR WHERE `key` LIKE 'round%'")
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(telemetry::write::prune(&db).await.unwrap(), 8);
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM idempotency")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(left, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_concurrent_arrays_are_those_of_their_rows() {
    let Some(database) = TestDatabase::alone().await else {
        return;
    };
    // As on a group of three servers; the harder case.
    database
        .as_root("SET GLOBAL auto_increment_increment = 3")
        .await;
    let api = std::sync::Arc::new(Service::start(&database.config("api1")).await);
    let mut all = JoinSet::new();
    for n in 0..20_u32 {
        let api = api.clone();
        all.spawn(async move {
            let array: Vec<Value> = (0..50).map(|i| record(n * 100 + i)).collect();
            (n, api.post_json(&json!(array), None).await.ids())
        });
    }
    let mut connection = database.connect().await;
    for (n, ids) in all.join_all().await {
        for (i, id) in ids.iter().enumerate() {
            let mark: u32 = sqlx::query_scalar("SELECT total_procesos FROM records WHERE id = ?")
                .bind(id)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(mark, n * 100 + i as u32);
        }
    }
    assert_eq!(database.rows().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_503_then_201_again() {
    let Some(mut database) = TestDatabase::alone().await else {
        return;
    };
    let api = Service::start(&database.config("api1")).await;
    let before = api.post_json(&record(1), Some("before")).await;
    before.ids();

    database.kill().await;
    let started = std::time::Instant::now();
    let reply = api.post_json(&record(2), Some("meanwhile")).await;
    reply.problem(503);
    assert_eq!(reply.header("retry-after"), "1");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(api.get("/healthz").await.status, 200);
    assert_eq!(api.get("/readyz").await.status, 503);
    assert_eq!(api.get("/api/records").await.status, 503);
    assert!(
        api.get("/metrics")
            .await
            .text
            .contains(r#"telemetry_db_up{api="api1"} 0"#)
    );

    database.up().await;
    // The first request already: no dead connection is handed out.
    api.post_json(&record(2), Some("meanwhile")).await.ids();
    assert_eq!(
        api.post_json(&record(1), Some("before")).await.json(),
        before.json()
    );
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(database.rows().await, 2);
    api.stop().await;
}

/// Every 201 is a row, and with keys and retries exactly one, whatever the
/// moment at which the database dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_every_201_is_exactly_one_row() {
    let Some(mut database) = TestDatabase::alone().await else {
        return;
    };
    let api1 = std::sync::Arc::new(Service::start(&database.config("api1")).await);
    let api2 = std::sync::Arc::new(Service::start(&database.config("api2")).await);
    const CLIENTS: u32 = 8;
    let target = 40_u32;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let apis = [api1.clone(), api2.clone()];
        clients.spawn(async move {
            let mut retries = 0_usize;
            for n in 0..target {
                let mark = client * 1000 + n;
                // Each try goes to the next API, as behind the Ingress.
                loop {
                    let api = &apis[(n as usize + retries) % 2];
                    let reply = api
                        .post_json(&record(mark), Some(&format!("k{mark}")))
                        .await;
                    match reply.status.as_u16() {
                        201 => break,
                        503 => {
                            assert_eq!(reply.header("retry-after"), "1");
                            retries += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        _ => panic!("{reply:?}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            retries
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        database.kill().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        database.up().await;
    }
    let retries: usize = clients.join_all().await.iter().sum();
    assert_eq!(database.rows().await, i64::from(CLIENTS * target));
    let distinct: i64 = sqlx::query_scalar("SELECT COUNT(DISTINCT total_procesos) FROM records")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(distinct, i64::from(CLIENTS * target));
    eprintln!("{retries} tries were answered 503");
}
