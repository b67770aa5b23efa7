//! The main job: telemetry through the 50/50 Ingress into the database.

use devenv_tests::inventory::Inventory;
use devenv_tests::project::Project;
use devenv_tests::record::record;
use devenv_tests::{database, proven};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

/// 10,000 records by 32 users: every one accepted, exactly as many rows more, and
/// the split exact over whole blocks.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_records_are_ten_thousand_rows_split_evenly() {
    let project = Project::reference();
    let before = Inventory::take(&project.scope());
    let up = project.up().await;
    println!("up -d took {:.2?}", up.took);
    let ingress = project.ingress().await;
    assert!(
        up.stdout.contains(&ingress),
        "`up -d` prints where it is reached: {up}"
    );
    let url = project.url("database").await;
    let (_, last) = database::by_api(&url, 0).await.unwrap();

    let words = [
        "traffic",
        "--requests",
        "10000",
        "--concurrency",
        "32",
        "-o",
        "json",
    ];
    let run = project.run_within(Duration::from_secs(120), &words).await;
    assert!(run.ok(), "{run}");
    let report = run.json();
    println!("traffic: {report}");
    assert_eq!(report["requests"], 10_000, "{run}");
    assert_eq!(report["failures"], 0, "{run}");
    assert_eq!(report["by_status"], json!({ "201": 10_000 }), "{run}");
    for quantile in ["p50", "p90", "p99", "max"] {
        assert!(
            report["latency_ms"][quantile].is_number(),
            "{quantile}: {run}"
        );
    }

    let (rows, _) = database::by_api(&url, last).await.unwrap();
    assert_eq!(rows.values().sum::<u64>(), 10_000, "{rows:?}");
    let [one, two] = ["api1", "api2"].map(|api| rows.get(api).copied().unwrap_or(0));
    assert!(one.abs_diff(two) <= 2, "{rows:?}");
    proven("local, process", "rust", "10,000 records, half and half");
    // What the client was told is what the database has.
    let told: BTreeMap<String, u64> = serde_json::from_value(report["by_api"].clone()).unwrap();
    assert_eq!(told, rows);

    let scope = project.scope_of_all().await;
    project.down(&[]).await;
    let took = before.nothing_left(&scope, Duration::from_secs(5)).await;
    println!(
        "nothing left {:.2?} after down",
        took.unwrap_or_else(|left| panic!("{left}"))
    );
}

/// A browser sends OPTIONS before every POST: a split that merely alternates would
/// send all its POSTs to one side.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_alternates_options_and_post_reaches_both_sides() {
    let project = Project::reference();
    project.up().await;
    let url = format!("{}/api", project.ingress().await);
    let client = client();
    let mut posts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let preflight = client
            .request(Method::OPTIONS, &url)
            .header("Origin", "http://page.example")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type")
            .send()
            .await
            .unwrap();
        assert!(preflight.status().is_success(), "{preflight:?}");
        let answer = client
            .post(&url)
            .json(&record(1024.0))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let answer: Value = answer.json().await.unwrap();
        *posts
            .entry(answer["api"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    println!("POSTs: {posts:?}");
    for api in ["api1", "api2"] {
        // 100 fair coins show fewer than 25 heads once in ten million times.
        assert!(posts.get(api).copied().unwrap_or(0) >= 25, "{posts:?}");
    }
}

/// What a client may rely on when it sends something else than a good record.
#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_with_problem_details_through_the_ingress() {
    let project = Project::reference();
    project.up().await;
    let base = project.ingress().await;
    let client = client();
    let post = |body: &str, kind: &str| {
        client
            .post(format!("{base}/api"))
            .header("content-type", kind)
            .body(body.to_owned())
            .send()
    };
    let mut bad = record(1.0);
    bad["uso_ram"] = json!("12");
    bad["porcentaje_ram"] = json!(101);
    let huge = format!("[{}]", "1,".repeat(600_000));
    for (body, kind, status) in [
        ("{", "application/json", 400),
        (&bad.to_string(), "application/json", 422),
        ("{}", "text/plain", 415),
        (&huge, "application/json", 413),
    ] {
        let answer = post(body, kind).await.unwrap();
        let said = (
            answer.status().as_u16(),
            answer.headers().get("content-type").cloned(),
        );
        let text = answer.text().await.unwrap();
        assert_eq!(said.0, status, "{text}");
        assert_eq!(said.1.unwrap(), "application/problem+json", "{text}");
        if status == 422 {
            let problem: Value = serde_json::from_str(&text).unwrap();
            let named: Vec<&str> = problem["errors"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|error| error["field"].as_str())
                .collect();
            assert!(
                named.contains(&"uso_ram") && named.contains(&"porcentaje_ram"),
                "{text}"
            );
        }
    }
    let lost = client.get(format!("{base}/nowhere")).send().await.unwrap();
    assert_eq!(lost.status(), 404);
}
