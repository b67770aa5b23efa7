//! `GET /api/records`: newest first, page by page.

use super::{Clause, clauses, record, write_rows};
use devenv_tests::contract::program::Implementation;
use devenv_tests::contract::stage::{Stage, stamp};
use serde_json::{Value, json};

pub const CLAUSES: &[Clause] = clauses![
    an_empty_table_is_one_empty_page,
    a_record_has_all_fields_and_where_it_came_from,
    a_walk_sees_each_row_once_newest_first,
    rows_that_come_meanwhile_shift_nothing,
    pages_have_a_default_and_a_bound,
    bad_parameters_are_named,
];

fn ids(page: &Value) -> Vec<i64> {
    let records = page["records"].as_array().unwrap();
    records.iter().map(|r| r["id"].as_i64().unwrap()).collect()
}

async fn an_empty_table_is_one_empty_page(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let reply = api.get("/api/records").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.json(), json!({"records": [], "next_after": null}));
}

async fn a_record_has_all_fields_and_where_it_came_from(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let sent = record(7);
    let id = api.post_json(&sent).await.ids()[0];
    let page = api.get("/api/records").await.json();
    let mut shown = page["records"][0].as_object().unwrap().clone();
    assert_eq!(shown.remove("id"), Some(json!(id)));
    assert_eq!(shown.remove("api"), Some(json!(stamp(implementation))));
    // UTC, RFC 3339 with microseconds.
    let created = shown.remove("created_at").unwrap();
    let created = created.as_str().unwrap();
    assert_eq!(
        created.len(),
        "2025-03-01T12:30:59.123456Z".len(),
        "{created}"
    );
    let stored: String =
        sqlx::query_scalar("SELECT DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') FROM records")
            .fetch_one(&mut stage.database.connect().await)
            .await
            .unwrap();
    assert_eq!(created, stored);
    let sent = sent.as_object().unwrap();
    assert_eq!(shown.len(), sent.len(), "{shown:?}");
    for (field, value) in sent {
        let same = match value.as_f64() {
            // 4000 and 4000.0 are the same number of JSON.
            Some(number) => shown[field].as_f64() == Some(number),
            None => &shown[field] == value,
        };
        assert!(same, "{field}: {value} and {}", shown[field]);
    }
}

async fn a_walk_sees_each_row_once_newest_first(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "elsewhere", 25).await;
    // A hole in the middle, as rolled back transactions leave.
    sqlx::query("DELETE FROM records WHERE id BETWEEN 10 AND 12")
        .execute(&mut rows)
        .await
        .unwrap();
    for limit in [1, 7, 11, 22, 23] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let after_it = after.map_or(String::new(), |after: i64| format!("&after={after}"));
            let page = api
                .get(&format!("/api/records?limit={limit}{after_it}"))
                .await;
            let page = page.json();
            assert!(ids(&page).len() <= limit, "{page}");
            seen.extend(ids(&page));
            after = page["next_after"].as_i64();
            if after.is_none() {
                break;
            }
            assert_eq!(after, seen.last().copied());
        }
        let expected: Vec<i64> = (1..=25)
            .rev()
            .filter(|id| !(10..=12).contains(id))
            .collect();
        assert_eq!(seen, expected, "limit {limit}");
    }
}

async fn rows_that_come_meanwhile_shift_nothing(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let mut rows = stage.database.connect().await;
    write_rows(&mut rows, "elsewhere", 6).await;
    let first = api.get("/api/records?limit=3").await.json();
    write_rows(&mut rows, "elsewhere", 5).await;
    let after = &first["next_after"];
    let second = api
        .get(&format!("/api/records?limit=3&after={after}"))
        .await;
    let second = second.json();
    assert_eq!((ids(&first), ids(&second)), (vec![6, 5, 4], vec![3, 2, 1]));
    assert_eq!(second["next_after"], Value::Null);
}

async fn pages_have_a_default_and_a_bound(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let many: Vec<Value> = (0..1000).map(record).collect();
    api.post_json(&json!(many)).await.ids();
    api.post_json(&record(1)).await.ids();
    for (query, length) in [
        ("", 100),
        ("?limit=1", 1),
        ("?limit=1000", 1000),
        // Of a name that is there twice the last one counts.
        ("?limit=5&limit=3", 3),
        ("?limit=%32&other=x", 2),
    ] {
        let page = api.get(&format!("/api/records{query}")).await.json();
        assert_eq!(ids(&page).len(), length, "{query}");
    }
    let past = api
        .get("/api/records?after=9223372036854775807&limit=1")
        .await;
    assert_eq!(ids(&past.json()), [1001]);
    let before = api.get("/api/records?after=1").await.json();
    assert_eq!(before, json!({"records": [], "next_after": null}));
}

async fn bad_parameters_are_named(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let limit = ("limit", "expected a whole number from 1 to 1000");
    let after = ("after", "expected the id of a record");
    for (query, named) in [
        ("limit=0", vec![limit]),
        ("limit=1001", vec![limit]),
        ("limit=ten", vec![limit]),
        ("limit=", vec![limit]),
        ("limit=1.5", vec![limit]),
        ("limit=99999999999999999999", vec![limit]),
        ("after=-1", vec![after]),
        ("after=9223372036854775808", vec![after]),
        ("limit=0&after=x", vec![limit, after]),
    ] {
        let errors = api.get(&format!("/api/records?{query}")).await.errors();
        let expected: Vec<_> = named
            .into_iter()
            .map(|(field, message)| (None, field.to_owned(), message.to_owned()))
            .collect();
        assert_eq!(errors, expected, "{query}");
    }
}
