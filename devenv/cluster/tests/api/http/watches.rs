//! Watches: where they begin, what they tell, how they end.

use super::*;

#[tokio::test]
async fn watches_follow_a_selection() {
    let running = Running::start().await;
    let map = |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app}}});
    create(&running, MAPS, map("a", "web")).await;
    create(&running, MAPS, map("b", "db")).await;
    let path = format!("{MAPS}?watch=1&labelSelector=app%3Dweb");
    let mut watch = send(&running, "GET", &path, &[], "").await.into_body();
    let label = |app: &str| json!({"metadata": {"labels": {"app": app}}}).to_string();
    ask(
        &running,
        "PATCH",
        &format!("{MAPS}/b"),
        MERGE,
        &label("web"),
    )
    .await;
    ask(
        &running,
        "PATCH",
        &format!("{MAPS}/a"),
        MERGE,
        r#"{"data":{"k":"v"}}"#,
    )
    .await;
    let (_, left) = ask(&running, "PATCH", &format!("{MAPS}/a"), MERGE, &label("db")).await;
    ask(&running, "DELETE", &format!("{MAPS}/b"), JSON, "").await;
    let seen = lines(&mut watch, 5).await;
    let told: Vec<(&str, &str)> = seen
        .iter()
        .map(|e| {
            (
                e["type"].as_str().unwrap(),
                e["object"]["metadata"]["name"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("ADDED", "a"),
            ("ADDED", "b"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
            ("DELETED", "b")
        ]
    );
    assert_eq!(
        seen[3]["object"]["metadata"]["labels"]["app"], "web",
        "as it was when last selected"
    );
    assert_eq!(
        seen[3]["object"]["metadata"]["resourceVersion"],
        left["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn watches_begin_with_what_is_there_and_mark_its_end() {
    let running = Running::start().await;
    let made = create(&running, MAPS, json!({"metadata": {"name": "a"}})).await;
    let rv = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = send(&running, "GET", &path, &[], "").await.into_body();
    let seen = lines(&mut watch, 2).await;
    assert_eq!(seen[0]["type"], "ADDED");
    assert_eq!(
        seen[1],
        json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
            "resourceVersion": rv, "creationTimestamp": null,
            "annotations": {"k8s.io/initial-events-end": "true"}}}})
    );
    // From a number: only what came after.
    let mut watch = send(
        &running,
        "GET",
        &format!("{MAPS}?watch=1&resourceVersion={rv}"),
        &[],
        "",
    )
    .await
    .into_body();
    create(&running, MAPS, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        lines(&mut watch, 1).await[0]["object"]["metadata"]["name"],
        "b"
    );
    // The server's end is the watch's end.
    running.server.shutdown().await;
    assert!(watch.frame().await.is_none());
}

#[tokio::test]
async fn watches_from_too_long_ago_end_with_410() {
    let running = Running::start().await;
    create(&running, MAPS, json!({"metadata": {"name": "a"}})).await;
    for i in 0..devenv_cluster::store::RING {
        running
            .store
            .update(&kinds::CONFIG_MAP, "default", "a", |v| {
                v["data"] = json!({"k": i.to_string()});
                Ok(())
            })
            .unwrap();
    }
    let mut watch = send(
        &running,
        "GET",
        &format!("{MAPS}?watch=1&resourceVersion=1"),
        &[],
        "",
    )
    .await
    .into_body();
    let seen = lines(&mut watch, 1).await;
    assert_eq!(
        (seen[0]["type"].as_str(), seen[0]["object"]["code"].as_i64()),
        (Some("ERROR"), Some(410))
    );
    assert_eq!(seen[0]["object"]["reason"], "Expired");
    assert!(watch.frame().await.is_none());
    let (code, _) = ask(
        &running,
        "GET",
        &format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact"),
        JSON,
        "",
    )
    .await;
    assert_eq!(code, 410);
}

#[tokio::test]
async fn watches_end_when_they_said_they_would() {
    let running = Running::start().await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
    let mut watch = send(&running, "GET", &path, &[], "").await.into_body();
    let end = tokio::time::timeout(Duration::from_secs(5), watch.frame())
        .await
        .expect("an end in time");
    assert!(end.is_none());
}
