//! The database goes away and comes back; nobody restarts anything.

use super::{Clause, clauses, record};
use devenv_tests::contract::program::{Implementation, Side};
use devenv_tests::contract::stage::Stage;
use devenv_tests::database::disagreements;
use devenv_tests::loader::Loader;
use serde_json::json;
use std::time::{Duration, Instant};

pub const CLAUSES: &[Clause] = clauses![
    while_the_database_is_away_503_then_201_again,
    a_program_may_start_before_its_database,
    a_crowd_is_answered_while_the_database_is_away,
    who_hangs_up_at_once_is_no_database,
    killed_under_load_every_201_is_exactly_one_row,
];

async fn while_the_database_is_away_503_then_201_again(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let before = api.post_keyed(&record(1), "before").await;
    before.ids();

    stage.database.kill().await;
    for (method, path) in [("GET", "/api/records"), ("GET", "/readyz")] {
        let reply = api.call(method, path).await;
        reply.problem(503);
        assert_eq!(reply.header("retry-after"), "1", "{path}");
    }
    let asked = Instant::now();
    let reply = api.post_keyed(&record(2), "meanwhile").await;
    let problem = reply.problem(503);
    assert_eq!(reply.header("retry-after"), "1");
    assert!(
        !problem["detail"].as_str().unwrap().contains("127.0.0.1"),
        "{problem}"
    );
    // 2 s for a connection, and this machine's own slowness.
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    // What is wrong with the request is still told.
    api.post_json(&json!({})).await.problem(422);
    assert_eq!(api.get("/healthz").await.status, 200);
    let up = |metrics: std::collections::BTreeMap<String, f64>| {
        let found = metrics
            .into_iter()
            .find(|(name, _)| name.starts_with("telemetry_db_up{"));
        found.map(|(_, value)| value)
    };
    assert_eq!(up(api.metrics().await), Some(0.0));

    stage.database.up().await;
    // The first request already: no dead connection is handed out.
    api.post_keyed(&record(2), "meanwhile").await.ids();
    let again = api.post_keyed(&record(1), "before").await;
    assert_eq!(again.json(), before.json());
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(up(api.metrics().await), Some(1.0));
    assert_eq!(stage.database.rows().await, 2);
}

async fn a_program_may_start_before_its_database(
    stage: &mut Stage,
    implementation: Implementation,
) {
    stage.database.kill().await;
    let service = stage.another(implementation, Side::Write, &[]).await;
    service.api.get("/readyz").await.problem(503);
    service.api.post_json(&record(1)).await.problem(503);
    stage.database.up().await;
    service.api.post_json(&record(1)).await.ids();
    assert_eq!(service.api.get("/readyz").await.status, 200);
    let log = service.log();
    let told = log
        .lines()
        .filter(|line| line.contains("the database is away"));
    assert_eq!(told.count(), 1, "once: {log}");
    assert!(log.contains("the database is back"), "{log}");
}

async fn a_crowd_is_answered_while_the_database_is_away(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    stage.database.kill().await;
    // It is known to be away from then on.
    api.post_json(&record(0)).await.problem(503);
    let asked = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..500 {
        let api = api.clone();
        crowd.spawn(async move { api.post_json(&record(n)).await });
    }
    for reply in crowd.join_all().await {
        reply.problem(503);
        assert_eq!(reply.header("retry-after"), "1");
    }
    // Not one after the other.
    assert!(
        asked.elapsed() < Duration::from_secs(30),
        "{:?}",
        asked.elapsed()
    );
    stage.database.up().await;
    api.post_json(&record(1)).await.ids();
}

/// As a proxy does whose database is away: that of a container's port, or Cloud SQL's.
async fn who_hangs_up_at_once_is_no_database(stage: &mut Stage, implementation: Implementation) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let proxy = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let environment = [("DB_PORT", port.as_str())];
    let service = stage
        .another(implementation, Side::Write, &environment)
        .await;
    for n in 0..20 {
        let reply = service.api.post_json(&record(n)).await;
        reply.problem(503);
        assert_eq!(reply.header("retry-after"), "1");
    }
    proxy.abort();
}

/// With keys and tries again exactly one row each, whatever the moment at which the
/// database dies.
async fn killed_under_load_every_201_is_exactly_one_row(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let mut loader = Loader::start(&api.base, "load", 8);
    for _ in 0..3 {
        loader.wait_for(40, Duration::from_secs(60)).await;
        stage.database.kill().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.database.up().await;
    }
    loader.wait_for(40, Duration::from_secs(60)).await;
    let ledger = loader.stop(Duration::from_secs(20)).await;
    let service = stage.service(implementation, Side::Write).await;
    let log = service.map(|service| service.log()).unwrap_or_default();
    assert_eq!(ledger.unexpected, Default::default(), "{log}");
    assert_eq!((ledger.lost, ledger.without_retry_after), (0, 0));
    let url = stage.database.url();
    let found = disagreements(&url, "load", 0, &ledger).await.unwrap();
    assert!(found.is_empty(), "{found:#?}");
}
