//! Writes that do more than store what was sent.

use super::*;

#[tokio::test]
async fn dry_runs_store_nothing() {
    let running = Running::start().await;
    create(
        &running,
        MAPS,
        json!({"metadata": {"name": "a"}, "data": {"k": "1"}}),
    )
    .await;
    let before = running.store.resource_version();
    let one = format!("{MAPS}/a?dryRun=All");
    let (code, would) = ask(&running, "PATCH", &one, MERGE, r#"{"data":{"k":"2"}}"#).await;
    assert_eq!((code, would["data"]["k"].as_str()), (200, Some("2")));
    let all = format!("{MAPS}?dryRun=All");
    let (code, would) = ask(&running, "POST", &all, JSON, r#"{"metadata":{"name":"b"}}"#).await;
    assert_eq!((code, would["metadata"]["uid"].is_string()), (201, true));
    assert_eq!(ask(&running, "DELETE", &one, JSON, "").await.0, 200);
    assert_eq!(running.store.resource_version(), before);
}

#[tokio::test]
async fn service_addresses_survive_updates_and_are_freed() {
    let running = Running::start().await;
    let services = "/api/v1/namespaces/default/services";
    let made = create(
        &running,
        services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."));
    let one = format!("{services}/s");
    let (_, put) = ask(
        &running,
        "PUT",
        &one,
        JSON,
        r#"{"metadata":{"name":"s"},"spec":{"ports":[{"port":81}]}}"#,
    )
    .await;
    assert_eq!(
        (
            put["spec"]["clusterIP"].as_str(),
            put["spec"]["ports"][0]["targetPort"].as_i64()
        ),
        (Some(ip.as_str()), Some(81))
    );
    let (code, _) = ask(
        &running,
        "PATCH",
        &one,
        MERGE,
        r#"{"spec":{"clusterIP":"10.96.9.9"}}"#,
    )
    .await;
    assert_eq!(code, 422);
    let asked =
        json!({"metadata": {"name": "t"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
            .to_string();
    let (code, taken) = ask(&running, "POST", services, JSON, &asked).await;
    assert_eq!(code, 422, "{taken}");
    assert!(
        taken["message"]
            .as_str()
            .unwrap()
            .contains("already allocated")
    );
    ask(&running, "DELETE", &one, JSON, "").await;
    assert_eq!(ask(&running, "POST", services, JSON, &asked).await.0, 201);
    let (_, external) = ask(&running, "PATCH", &format!("{services}/t"), MERGE, r#"{"spec":{"type":"ExternalName","externalName":"e.org","clusterIP":null,"clusterIPs":null}}"#).await;
    assert_eq!(external["spec"].get("clusterIP"), None);
    let (_, back) = ask(
        &running,
        "PATCH",
        &format!("{services}/t"),
        MERGE,
        r#"{"spec":{"type":"ClusterIP"}}"#,
    )
    .await;
    assert!(
        back["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10.96.")
    );
}

#[tokio::test]
async fn pods_end_gracefully_and_namespaces_wait_for_their_contents() {
    let running = Running::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "devenv", "containers": [{"name": "c", "image": "i"}]}});
    create(&running, pods, pod).await;
    let (_, marked) = ask(&running, "DELETE", &format!("{pods}/p"), JSON, "").await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let (_, shorter) = ask(
        &running,
        "DELETE",
        &format!("{pods}/p?gracePeriodSeconds=1"),
        JSON,
        "",
    )
    .await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 1);
    ask(
        &running,
        "DELETE",
        &format!("{pods}/p"),
        JSON,
        r#"{"gracePeriodSeconds":0}"#,
    )
    .await;
    assert_eq!(
        ask(&running, "GET", &format!("{pods}/p"), JSON, "").await.0,
        404
    );
    create(
        &running,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "x"}}),
    )
    .await;
    let (_, ending) = ask(&running, "DELETE", "/api/v1/namespaces/x", JSON, "").await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    let (code, refused) = ask(
        &running,
        "POST",
        "/api/v1/namespaces/x/configmaps",
        JSON,
        r#"{"metadata":{"name":"a"}}"#,
    )
    .await;
    assert_eq!(
        (code, refused["details"]["causes"][0]["reason"].as_str()),
        (403, Some("NamespaceTerminating"))
    );
}

#[tokio::test]
async fn what_an_orphaning_deletion_leaves_has_no_owner() {
    let running = Running::start().await;
    let owner = create(&running, MAPS, json!({"metadata": {"name": "owner"}})).await;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]});
    create(
        &running,
        MAPS,
        json!({"metadata": {"name": "owned", "ownerReferences": [reference]}}),
    )
    .await;
    let (_, done) = ask(
        &running,
        "DELETE",
        &format!("{MAPS}/owner?propagationPolicy=Orphan"),
        JSON,
        "",
    )
    .await;
    assert_eq!(
        (done["status"].as_str(), &done["details"]["uid"]),
        (Some("Success"), &owner["metadata"]["uid"])
    );
    let (_, owned) = ask(&running, "GET", &format!("{MAPS}/owned"), JSON, "").await;
    assert_eq!(owned["metadata"]["ownerReferences"], json!([]));
}
