//! The record: its twelve fields, their bounds, and how they are stored.

use super::{Clause, clauses, record};
use devenv_tests::contract::program::Implementation;
use devenv_tests::contract::stage::{Stage, stamp};
use serde_json::{Value, json};
use sqlx::Row;

pub const CLAUSES: &[Clause] = clauses![
    a_record_is_stored_as_it_was_sent,
    an_array_gives_its_ids_in_its_order,
    an_array_is_all_or_nothing,
    an_array_holds_one_to_a_thousand,
    unknown_fields_are_ignored_and_named,
    the_names_of_unknown_fields_are_bounded,
    every_missing_field_is_named,
    a_bad_field_is_named_alone,
    the_bounds_themselves_are_good,
    errors_of_an_array_carry_the_index,
    an_answer_names_a_thousand_bad_fields_and_counts_the_rest,
    hora_keeps_the_wall_clock,
    hora_is_nothing_else,
    numbers_come_back_to_the_last_place,
];

const FIELDS: [&str; 12] = [
    "total_ram",
    "ram_libre",
    "uso_ram",
    "porcentaje_ram",
    "porcentaje_cpu_uso",
    "porcentaje_cpu_libre",
    "procesos_corriendo",
    "total_procesos",
    "procesos_durmiendo",
    "procesos_zombie",
    "procesos_parados",
    "hora",
];

fn with(field: &str, value: Value) -> Value {
    let mut record = record(1);
    record[field] = value;
    record
}

async fn a_record_is_stored_as_it_was_sent(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let reply = api.post_json(&record(7)).await;
    let id = reply.ids()[0];
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(
        reply.json(),
        json!({"ids": [id], "api": stamp(implementation)}),
        "nothing else is in the answer"
    );
    let row = sqlx::query(
        "SELECT *, CAST(hora AS CHAR) AS hora, \
         CAST(ABS(TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP(6))) AS SIGNED) AS age \
         FROM records WHERE id = ?",
    )
    .bind(id)
    .fetch_one(&mut stage.database.connect().await)
    .await
    .unwrap();
    let sent = record(7);
    for field in &FIELDS[..6] {
        assert_eq!(
            Some(row.get::<f64, _>(field)),
            sent[field].as_f64(),
            "{field}"
        );
    }
    for field in &FIELDS[6..11] {
        let stored = u64::from(row.get::<u32, _>(field));
        assert_eq!(Some(stored), sent[field].as_u64(), "{field}");
    }
    // The last column of that name is the text.
    let hora: String = row.get(row.len() - 2);
    assert_eq!(hora, sent["hora"]);
    assert_eq!(row.get::<String, _>("api"), stamp(implementation));
    assert!(row.get::<i64, _>("age") < 60, "created_at is UTC");
    assert_eq!(stage.database.rows().await, 1);
}

async fn an_array_gives_its_ids_in_its_order(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let array: Vec<Value> = (0..1000).map(|n| record(10_000 + n)).collect();
    let ids = api.post_json(&json!(array)).await.ids();
    assert_eq!(ids.len(), 1000);
    let rows: Vec<(i64, u32)> = sqlx::query_as("SELECT id, total_procesos FROM records")
        .fetch_all(&mut stage.database.connect().await)
        .await
        .unwrap();
    let expected: Vec<(i64, u32)> = ids.into_iter().zip(10_000..).collect();
    assert_eq!(rows, expected);
}

async fn an_array_is_all_or_nothing(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let mut array: Vec<Value> = (0..1000).map(record).collect();
    array[998]["uso_ram"] = json!("4096");
    array[999].as_object_mut().unwrap().remove("hora");
    let errors = api.post_json(&json!(array)).await.errors();
    let named: Vec<_> = errors.iter().map(|(at, f, _)| (*at, f.as_str())).collect();
    assert_eq!(named, [(Some(998), "uso_ram"), (Some(999), "hora")]);
    assert_eq!(stage.database.rows().await, 0);
}

async fn an_array_holds_one_to_a_thousand(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let many: Vec<Value> = (0..1001).map(record).collect();
    for (body, message) in [
        (
            json!(many),
            "the array holds 1001 records; expected 1 to 1000",
        ),
        (json!([]), "the array holds 0 records; expected 1 to 1000"),
        (
            json!("text"),
            "the body is a string; expected a record (an object) or an array of records",
        ),
        (
            Value::Null,
            "the body is null; expected a record (an object) or an array of records",
        ),
    ] {
        let errors = api.post_json(&body).await.errors();
        assert_eq!(errors, [(None, String::new(), message.to_owned())]);
    }
    assert_eq!(api.post_json(&json!([record(1)])).await.ids().len(), 1);
    assert_eq!(stage.database.rows().await, 1);
}

async fn unknown_fields_are_ignored_and_named(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let mut noisy = record(1);
    for (field, value) in [
        ("zona", json!({"a": [1, null]})),
        ("maquina", json!("vm-1")),
        ("ñandú", json!(1)),
        ("id", json!(5)),
        ("__proto__", json!(1)),
    ] {
        noisy[field] = value;
    }
    let reply = api.post_json(&json!([noisy, record(2)])).await;
    let ids = reply.ids();
    let message = "is no field of a record and was ignored";
    let warnings = ["__proto__", "id", "maquina", "zona", "ñandú"]
        .map(|field| json!({"field": field, "message": message}));
    assert_eq!(
        reply.json(),
        json!({"ids": ids, "api": stamp(implementation), "warnings": warnings})
    );
    assert_eq!(stage.database.rows().await, 2);
}

async fn the_names_of_unknown_fields_are_bounded(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let mut noisy = record(1);
    for n in 0..40 {
        noisy[format!("{n:02}{}", "ñ".repeat(100))] = json!(n);
    }
    let reply = api.post_json(&noisy).await.json();
    let warnings = reply["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 32);
    assert_eq!(warnings[31]["field"], format!("31{}", "ñ".repeat(62)));
}

async fn every_missing_field_is_named(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let expected = FIELDS.map(|field| (None, field.to_owned(), "is missing".to_owned()));
    assert_eq!(api.post_json(&json!({})).await.errors(), expected);
}

async fn a_bad_field_is_named_alone(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    const AMOUNT: &str = "expected a number of 0 or more";
    const PERCENT: &str = "expected a number from 0 to 100";
    const COUNT: &str = "expected an integer from 0 to 4294967295";
    const CLOCK: &str = "expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339";
    for (field, value, is, expected) in [
        ("total_ram", json!(-0.1), "-0.1", AMOUNT),
        ("total_ram", json!("8192"), "the string \"8192\"", AMOUNT),
        ("ram_libre", Value::Null, "null", AMOUNT),
        ("uso_ram", json!({}), "an object", AMOUNT),
        ("porcentaje_ram", json!(100.01), "100.01", PERCENT),
        (
            "porcentaje_ram",
            json!(1e21),
            "1000000000000000000000",
            PERCENT,
        ),
        ("porcentaje_cpu_uso", json!(-1), "-1", PERCENT),
        (
            "porcentaje_cpu_uso",
            json!("50"),
            "the string \"50\"",
            PERCENT,
        ),
        ("porcentaje_cpu_libre", json!(true), "a boolean", PERCENT),
        ("procesos_corriendo", json!(1.5), "1.5", COUNT),
        ("procesos_corriendo", json!(-1), "-1", COUNT),
        (
            "total_procesos",
            json!(4_294_967_296_u64),
            "4294967296",
            COUNT,
        ),
        ("total_procesos", json!(2e300), "2e+300", COUNT),
        ("procesos_durmiendo", json!(false), "a boolean", COUNT),
        ("procesos_zombie", json!("1"), "the string \"1\"", COUNT),
        ("procesos_parados", json!([1]), "an array", COUNT),
        ("hora", json!(1_740_000_000), "1740000000", CLOCK),
        ("hora", json!("ayer"), "the string \"ayer\"", CLOCK),
    ] {
        let errors = api.post_json(&with(field, value)).await.errors();
        let message = format!("is {is}; {expected}");
        assert_eq!(errors, [(None, field.to_owned(), message)]);
    }
    let long = "ñ".repeat(41);
    let errors = api.post_json(&with("hora", json!(long))).await.errors();
    let message = format!("is the string \"{}\"…; {CLOCK}", "ñ".repeat(40));
    assert_eq!(errors, [(None, "hora".to_owned(), message)]);
    assert_eq!(stage.database.rows().await, 0);
}

async fn the_bounds_themselves_are_good(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let good = [
        ("total_ram", json!(0)),
        ("ram_libre", json!(8192)),
        ("uso_ram", json!(1e300)),
        ("porcentaje_ram", json!(0)),
        ("porcentaje_ram", json!(100)),
        ("porcentaje_cpu_uso", json!(100.0)),
        ("procesos_zombie", json!(0)),
        ("procesos_zombie", json!(4_294_967_295_u64)),
        // An integer, as some senders write it.
        ("procesos_parados", json!(5.0)),
    ];
    let records: Vec<Value> = good.into_iter().map(|(f, v)| with(f, v)).collect();
    assert_eq!(api.post_json(&json!(records)).await.ids().len(), 9);
}

async fn errors_of_an_array_carry_the_index(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let array = json!([
        record(1),
        with("uso_ram", json!("x")),
        7,
        [],
        with("hora", json!("")),
        with("procesos_zombie", Value::Null)
    ]);
    let errors = api.post_json(&array).await.errors();
    let named: Vec<_> = errors.iter().map(|(at, f, _)| (*at, f.as_str())).collect();
    assert_eq!(
        named,
        [
            (Some(1), "uso_ram"),
            (Some(2), ""),
            (Some(3), ""),
            (Some(4), "hora"),
            (Some(5), "procesos_zombie")
        ]
    );
    assert_eq!(errors[1].2, "is a number; expected a record (an object)");
}

async fn an_answer_names_a_thousand_bad_fields_and_counts_the_rest(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let reply = api.post_json(&json!(vec![json!({}); 100])).await;
    assert_eq!(reply.errors().len(), 1000);
    assert_eq!(reply.json()["errors_omitted"], 200);
}

async fn hora_keeps_the_wall_clock(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let forms = [
        ("2025-03-01 12:30:59", "2025-03-01 12:30:59"),
        ("2024-02-29 00:00:00", "2024-02-29 00:00:00"),
        ("1000-01-01 00:00:00", "1000-01-01 00:00:00"),
        ("9999-12-31 23:59:59", "9999-12-31 23:59:59"),
        ("2025-03-01T12:30:59Z", "2025-03-01 12:30:59"),
        ("2025-03-01t12:30:59z", "2025-03-01 12:30:59"),
        ("2025-12-31T23:59:59.999999-06:00", "2025-12-31 23:59:59"),
        ("2025-03-01 12:30:59+05:30", "2025-03-01 12:30:59"),
        ("2016-12-31T23:59:60Z", "2016-12-31 23:59:59"),
    ];
    let records: Vec<Value> = forms
        .iter()
        .map(|(sent, _)| with("hora", json!(sent)))
        .collect();
    let ids = api.post_json(&json!(records)).await.ids();
    let page = api.get("/api/records").await.json();
    for (id, (_, clock)) in ids.iter().zip(forms) {
        let records = page["records"].as_array().unwrap();
        let record = records.iter().find(|r| r["id"] == *id).unwrap();
        assert_eq!(record["hora"], clock);
    }
}

async fn hora_is_nothing_else(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let forms = [
        "",
        "2025-03-01",
        "2025-02-29 00:00:00",
        "2025-13-01 00:00:00",
        "2025-03-01 24:00:00",
        "2025-03-01 12:60:00",
        "2025-03-01 12:30:60",
        "2025/03/01 12:30:59",
        "0999-03-01 12:30:59",
        "2025-03-01T12:30:59",
        "2025-03-01T12:30:59.Z",
        "2025-03-01T12:30:59+24:00",
        "2025-03-01T12:30:59 Z",
        "2025-03-01 12:30:5\u{ff19}",
        " 2025-03-01 12:30:59",
        "2025-03-01 12:30:59 ",
        "2025-03-01 12:30:59\n",
        "+025-03-01 12:30:59",
    ];
    let records: Vec<Value> = forms.iter().map(|sent| with("hora", json!(sent))).collect();
    let errors = api.post_json(&json!(records)).await.errors();
    let indices: Vec<_> = errors.iter().filter_map(|(at, ..)| *at).collect();
    assert_eq!(indices, (0..forms.len() as u64).collect::<Vec<_>>());
}

async fn numbers_come_back_to_the_last_place(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for number in [
        0.1 + 0.2,
        1.0 / 3.0,
        99_999.999_999_999_99,
        9_007_199_254_740_993.0,
        123_456_789.123_456_79,
        f64::MIN_POSITIVE,
        1e-7,
        f64::MAX,
    ] {
        // serde_json, here and in the Rust services, is in a hurry: a number that it
        // reads may be its neighbour.
        let same =
            |other: f64| other == number || [number.next_up(), number.next_down()].contains(&other);
        // One at a time, and as an array: the two ways of writing.
        let sent = with("total_ram", json!(number));
        let one = api.post_json(&sent).await.ids();
        let two = api.post_json(&json!([sent, sent])).await.ids();
        let stored: Vec<f64> = sqlx::query_scalar("SELECT total_ram FROM records WHERE id >= ?")
            .bind(one[0])
            .fetch_all(&mut stage.database.connect().await)
            .await
            .unwrap();
        assert_eq!(stored.len(), 3);
        assert!(
            stored.iter().all(|stored| same(*stored)),
            "{number}: {stored:?}"
        );
        if implementation != Implementation::Rust {
            assert_eq!(stored, [number; 3]);
        }
        let page = api.get("/api/records?limit=3").await.json();
        for (at, id) in [two[1], two[0], one[0]].into_iter().enumerate() {
            let record = &page["records"][at];
            assert_eq!(record["id"], id);
            let shown = record["total_ram"].as_f64().unwrap();
            assert!(
                (shown - stored[0]).abs() <= stored[0] * f64::EPSILON,
                "{shown}: {stored:?}"
            );
        }
    }
}
