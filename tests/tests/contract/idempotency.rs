//! `Idempotency-Key`: once, however often it comes.

use super::{Clause, clauses, record};
use devenv_tests::contract::program::{Implementation, Side};
use devenv_tests::contract::stage::{Stage, stamp};
use devenv_tests::until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::Row;
use std::time::Duration;
use tokio::task::JoinSet;

pub const CLAUSES: &[Clause] = clauses![
    a_repeat_is_given_the_first_answer,
    what_is_kept_is_what_others_read,
    the_answer_names_who_took_the_first,
    another_body_is_422,
    keys_are_printable_and_short,
    keys_differ_in_case_and_not_in_blanks_around,
    a_refused_body_does_not_use_its_key_up,
    many_at_once_make_one_row,
    a_duplicate_waits_for_the_first,
    a_duplicate_takes_over_when_the_first_dies,
    old_keys_are_removed,
];

async fn a_repeat_is_given_the_first_answer(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let array = json!([record(1), record(2), record(3)]);
    for (body, rows) in [(record(1), 1), (array, 4)] {
        let key = format!("repeat {rows}");
        let first = api.post_keyed(&body, &key).await;
        first.ids();
        assert_eq!(first.header("idempotency-replayed"), "");
        for _ in 0..3 {
            let again = api.post_keyed(&body, &key).await;
            assert_eq!((again.status, again.json()), (201, first.json()));
            assert_eq!(again.header("idempotency-replayed"), "true");
        }
        assert_eq!(stage.database.rows().await, rows);
    }
}

async fn what_is_kept_is_what_others_read(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    // Spaces and an unknown field: the hash is of the bytes, not of what they mean.
    let body = format!(" [{}, {}]\n", record(1), record(2)).replace("{\"", "{\"x\":1, \"");
    let posting = api.posting(body.clone()).header("idempotency-key", "kept");
    let ids = api.send(posting).await.ids();
    let row = sqlx::query(
        "SELECT `key`, body_sha256, api, CAST(ids AS CHAR) AS ids, \
         CAST(ABS(TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP(6))) AS SIGNED) AS age \
         FROM idempotency",
    )
    .fetch_one(&mut stage.database.connect().await)
    .await
    .unwrap();
    assert_eq!(row.get::<String, _>("key"), "kept");
    assert_eq!(
        row.get::<String, _>("body_sha256"),
        hex::encode(Sha256::digest(body))
    );
    assert_eq!(row.get::<String, _>("api"), stamp(implementation));
    let kept: Vec<i64> = serde_json::from_str(row.get("ids")).unwrap();
    assert_eq!(kept, ids);
    assert!(row.get::<i64, _>("age") < 60, "created_at is UTC");
}

/// Puts an answer there as another API would have.
async fn keep(stage: &Stage, key: &str, body: &str, ids: &str) {
    sqlx::query(
        "INSERT INTO idempotency (`key`, body_sha256, api, ids) VALUES (?, ?, 'elsewhere', ?)",
    )
    .bind(key)
    .bind(hex::encode(Sha256::digest(body)))
    .bind(ids)
    .execute(&mut stage.database.connect().await)
    .await
    .unwrap();
}

async fn the_answer_names_who_took_the_first(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let body = record(1);
    // As the databases give JSON back: with and without blanks.
    for (key, ids) in [("dense", "[7,9]"), ("loose", "[7, 9]")] {
        keep(stage, key, &body.to_string(), ids).await;
        let reply = api.post_keyed(&body, key).await;
        assert_eq!(reply.json(), json!({"ids": [7, 9], "api": "elsewhere"}));
    }
    assert_eq!(stage.database.rows().await, 0);
}

async fn another_body_is_422(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    api.post_keyed(&record(1), "used").await.ids();
    let same_but_for_a_blank = format!("{} ", record(1));
    for body in [record(2).to_string(), same_but_for_a_blank] {
        let posting = api.posting(body).header("idempotency-key", "used");
        let errors = api.send(posting).await.errors();
        let message = "was used with another body".to_owned();
        assert_eq!(errors, [(None, "Idempotency-Key".to_owned(), message)]);
    }
    assert_eq!(stage.database.rows().await, 1);
}

async fn keys_are_printable_and_short(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let good = ["a", "with blank", "~!\"#,;'", &"x".repeat(64)].map(str::to_owned);
    for key in &good {
        api.post_keyed(&record(1), key).await.ids();
    }
    for key in [
        &b"x".repeat(65)[..],
        b"",
        b"   ",
        b"tab\tbed",
        "ñ".as_bytes(),
    ] {
        let posting = api.posting(record(1).to_string());
        let errors = api
            .send(posting.header("idempotency-key", key))
            .await
            .errors();
        let message = "expected 1 to 64 printable ASCII characters".to_owned();
        assert_eq!(errors, [(None, "Idempotency-Key".to_owned(), message)]);
    }
    let twice = api.posting(record(1).to_string());
    let twice = twice
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    let errors = api.send(twice).await.errors();
    assert_eq!(errors[0].2, "is there twice");
    assert_eq!(stage.database.rows().await, good.len() as i64);
}

async fn keys_differ_in_case_and_not_in_blanks_around(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let first = api.post_keyed(&record(1), "Key").await.ids();
    assert_eq!(api.post_keyed(&record(1), " Key ").await.ids(), first);
    assert_ne!(api.post_keyed(&record(1), "KEY").await.ids(), first);
}

async fn a_refused_body_does_not_use_its_key_up(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    api.post_keyed(&json!({}), "later").await.problem(422);
    let reply = api.post_keyed(&record(8), "later").await;
    reply.ids();
    assert_eq!(reply.header("idempotency-replayed"), "");
}

async fn many_at_once_make_one_row(stage: &mut Stage, implementation: Implementation) {
    // Two processes: what one process knows must not be what keeps the promise.
    let other = stage.another(implementation, Side::Write, &[]).await;
    let apis = [stage.write(implementation).await, other.api.clone()];
    for round in 0..8 {
        let mut all = JoinSet::new();
        for n in 0..50 {
            let api = apis[n % 2].clone();
            all.spawn(async move { api.post_keyed(&record(round), &format!("r{round}")).await });
        }
        let replies = all.join_all().await;
        let first = replies[0].json();
        let mut fresh = 0;
        for reply in &replies {
            assert_eq!((reply.status, reply.json()), (201, first.clone()));
            fresh += usize::from(reply.header("idempotency-replayed").is_empty());
        }
        assert_eq!(fresh, 1);
        assert_eq!(stage.database.rows().await, i64::from(round) + 1);
    }
}

/// A transaction elsewhere that has the key and is not over.
async fn hold(stage: &Stage, key: &'static str, body: &Value) -> sqlx::MySqlConnection {
    let mut holder = stage.database.connect().await;
    // MySQL prepares no such statement.
    sqlx::raw_sql("START TRANSACTION")
        .execute(&mut holder)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO idempotency (`key`, body_sha256, api, ids) VALUES (?, ?, 'elsewhere', '[5]')",
    )
    .bind(key)
    .bind(hex::encode(Sha256::digest(body.to_string())))
    .execute(&mut holder)
    .await
    .unwrap();
    holder
}

/// Waits until somebody waits for a lock.
async fn somebody_waits(stage: &Stage) {
    // More often than ten times a second the server shows what it showed before.
    let every = Duration::from_millis(150);
    let waiting = until(Duration::from_secs(30), every, async || {
        let waits = sqlx::query_scalar::<_, i64>(
            "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        );
        let root = &mut stage.database.connect_as_root().await;
        (waits.fetch_one(root).await.unwrap() > 0).then_some(())
    });
    assert!(waiting.await.is_some(), "nobody waits for the key");
}

async fn a_duplicate_waits_for_the_first(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let body = record(9);
    let mut holder = hold(stage, "held", &body).await;
    let waiting = tokio::spawn({
        let body = body.clone();
        async move { api.post_keyed(&body, "held").await }
    });
    somebody_waits(stage).await;
    assert!(!waiting.is_finished());
    sqlx::query("COMMIT").execute(&mut holder).await.unwrap();
    let reply = waiting.await.unwrap();
    assert_eq!(reply.json(), json!({"ids": [5], "api": "elsewhere"}));
    assert_eq!(stage.database.rows().await, 0);
}

async fn a_duplicate_takes_over_when_the_first_dies(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let body = record(9);
    let holder = hold(stage, "held", &body).await;
    let waiting = tokio::spawn(async move { api.post_keyed(&body, "held").await });
    somebody_waits(stage).await;
    drop(holder);
    let reply = waiting.await.unwrap();
    reply.ids();
    assert_eq!(reply.json()["api"], stamp(implementation));
    assert_eq!(stage.database.rows().await, 1);
}

/// A day is too long to wait for, and so are the ten minutes between two looks: the
/// program's own code is called, in its own language.
async fn old_keys_are_removed(stage: &mut Stage, implementation: Implementation) {
    let program = stage.program(implementation, Side::Write).await;
    for (key, hours) in [("old", 25), ("older", 48), ("young", 23)] {
        keep(stage, key, "", "[]").await;
        sqlx::query(
            "UPDATE idempotency SET created_at = UTC_TIMESTAMP(6) - INTERVAL ? HOUR WHERE `key` = ?",
        )
        .bind(hours)
        .bind(key)
        .execute(&mut stage.database.connect().await)
        .await
        .unwrap();
    }
    let config = stage.database.config("x").database;
    let script = match implementation {
        Implementation::Rust => {
            let db = telemetry::Db::new(&config);
            assert_eq!(telemetry::write::prune(&db).await.unwrap(), 2);
            None
        }
        Implementation::Python => Some(
            "import asyncio, os\n\
             from app.config import Config\n\
             from app.service import Service\n\
             from app.write import prune\n\
             async def main():\n    \
                 service = Service.of(Config.from_env(os.environ))\n    \
                 assert await prune(service.db) == 2\n    \
                 await service.db.close(10)\n\
             asyncio.run(main())",
        ),
        Implementation::Node => Some(
            "import { prune } from './src/write.js';\n\
             import { readConfig } from './src/service/config.js';\n\
             import { createService } from './src/service/life.js';\n\
             const { db } = createService(readConfig({ apiName: 'x', port: 1 }));\n\
             if (await prune(db) !== 2) process.exit(1);\n\
             await db.close(10_000);\n\
             process.exit(0);",
        ),
    };
    if let Some(script) = script {
        let (status, said) = program.script(script, &stage.database).await;
        assert!(status.success(), "{said}");
    }
    let left: Vec<String> = sqlx::query_scalar("SELECT `key` FROM idempotency")
        .fetch_all(&mut stage.database.connect().await)
        .await
        .unwrap();
    assert_eq!(left, ["young"]);
}
