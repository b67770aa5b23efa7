//! Several implementations on one database.

use super::live::counted;
use super::{Checking, record, write_old_rows, write_rows};
use devenv_tests::contract::program::Implementation::{self, Node, Python, Rust};
use devenv_tests::contract::socket::{Socket, Transport};
use devenv_tests::contract::stage::{Stage, stamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;

type Pair = for<'a> fn(&'a mut Stage, Implementation, Implementation) -> Checking<'a>;
type Alone = for<'a> fn(&'a mut Stage) -> Checking<'a>;

/// Between two write sides, each in both directions.
pub const PAIRS: &[(&str, Pair)] = &[
    ("a_key_is_shared", |stage, first, second| {
        Box::pin(a_key_is_shared(stage, first, second))
    }),
    ("a_page_is_the_same", |stage, first, second| {
        Box::pin(a_page_is_the_same(stage, first, second))
    }),
];

/// Between all write sides.
pub const ALL: &[(&str, Alone)] = &[("many_at_once_make_one_row", |stage| {
    Box::pin(many_at_once_make_one_row(stage))
})];

/// Between the read sides: what the real socket.io says is what must be said.
pub const READERS: &[(&str, Alone)] = &[
    ("pages_are_told_the_same", |stage| {
        Box::pin(pages_are_told_the_same(stage))
    }),
    ("plain_requests_are_answered_the_same", |stage| {
        Box::pin(plain_requests_are_answered_the_same(stage))
    }),
];

async fn a_key_is_shared(stage: &mut Stage, first: Implementation, second: Implementation) {
    let apis = [stage.write(first).await, stage.write(second).await];
    for (from, to, took) in [(0, 1, first), (1, 0, second)] {
        for (n, body) in [record(1), json!([record(2), record(3)])]
            .iter()
            .enumerate()
        {
            let key = format!("{from}{n}");
            let reply = apis[from].post_keyed(body, &key).await;
            let again = apis[to].post_keyed(body, &key).await;
            assert_eq!(again.json(), reply.json());
            assert_eq!(again.json()["api"], stamp(took));
            assert_eq!(again.header("idempotency-replayed"), "true");
            apis[to].post_keyed(&record(9), &key).await.problem(422);
        }
    }
    assert_eq!(stage.database.rows().await, 6);
}

/// Numbers of JSON by their value: 4000 and 4000.0 are the same.
fn by_value(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.into_iter().map(by_value).collect(),
        Value::Object(all) => all.into_iter().map(|(k, v)| (k, by_value(v))).collect(),
        other => other,
    }
}

async fn a_page_is_the_same(stage: &mut Stage, first: Implementation, second: Implementation) {
    let (one, other) = (stage.write(first).await, stage.write(second).await);
    one.post_json(&json!([record(1), record(2)])).await.ids();
    other.post_json(&record(3)).await.ids();
    for query in [
        "",
        "?limit=2",
        "?limit=2&after=2",
        "?after=1",
        "?limit=x&after=y",
    ] {
        let path = format!("/api/records{query}");
        let (a, b) = (one.get(&path).await, other.get(&path).await);
        assert_eq!(a.status, b.status);
        assert_eq!(by_value(a.json()), by_value(b.json()), "{path}");
    }
}

async fn many_at_once_make_one_row(stage: &mut Stage) {
    let mut apis = Vec::new();
    for implementation in [Rust, Python, Node] {
        apis.push(stage.write(implementation).await);
    }
    for round in 0..12 {
        let mut all = JoinSet::new();
        for n in 0..48 {
            let api = apis[n % 3].clone();
            all.spawn(async move { api.post_keyed(&record(round), &format!("r{round}")).await });
        }
        let replies = all.join_all().await;
        let first = replies[0].json();
        let fresh = replies
            .iter()
            .filter(|reply| {
                assert_eq!((reply.status, reply.json()), (201, first.clone()));
                reply.header("idempotency-replayed").is_empty()
            })
            .count();
        assert_eq!(fresh, 1);
        assert_eq!(stage.database.rows().await, i64::from(round) + 1);
    }
}

async fn pages_are_told_the_same(stage: &mut Stage) {
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "api1", 3).await;
    write_rows(&mut rows, "api2", 1).await;
    let mut told = Vec::new();
    for reader in [Rust, Node] {
        let api = stage.read(reader).await;
        let mut socket = Socket::connect(&api, Transport::WebSocket).await;
        let mut handshake = socket.open.clone();
        handshake.as_object_mut().unwrap().remove("sid");
        let update = socket
            .event_where("metrics-update", |u| u["total"] == 4)
            .await;
        let split = socket
            .event_where("split-update", |s| s["by_api"]["api1"] == 3)
            .await;
        let mut answers = Vec::new();
        for data in [
            json!({"limit": 2}),
            json!({"limit": 501}),
            json!({}),
            json!(null),
            json!({"limit": null}),
            json!({"limit": 0}),
            json!({"limit": -1}),
            json!({"limit": 1.5}),
            json!({"limit": "3"}),
        ] {
            answers.push(socket.request_metrics(data).await);
        }
        told.push(by_value(json!([handshake, update, split, answers])));
    }
    assert_eq!(told[0], told[1]);
}

async fn plain_requests_are_answered_the_same(stage: &mut Stage) {
    let mut rows = stage.database.connect().await;
    write_old_rows(&mut rows, "api1", 1).await;
    write_rows(&mut rows, "api1", 2).await;
    write_rows(&mut rows, "api2", 1).await;
    let (rust, node) = (stage.read(Rust).await, stage.read(Node).await);
    for api in [&rust, &node] {
        counted(api, 4).await;
    }
    for (method, path) in [
        ("GET", "/api3/records?limit=3"),
        ("GET", "/api3/records?limit=501"),
        ("GET", "/api3/stats"),
        ("GET", "/api3/stats?window_s=60"),
        ("GET", "/api3/stats?window_s=3600"),
        ("GET", "/api3/stats?window_s=0"),
        ("GET", "/api3/stats?window_s=86401"),
        ("GET", "/api3"),
        ("PUT", "/api3/stats"),
    ] {
        let (a, b) = (rust.call(method, path).await, node.call(method, path).await);
        assert_eq!(a.status, b.status, "{path}");
        assert_eq!(a.header("content-type"), b.header("content-type"), "{path}");
        assert_eq!(by_value(a.json()), by_value(b.json()), "{path}");
    }
}
