//! Discovery, lists and tables.

use super::*;

#[tokio::test]
async fn lists_in_chunks_are_of_one_moment() {
    let running = Running::start().await;
    for i in 0..5 {
        let labels = json!({"half": if i % 2 == 0 { "even" } else { "odd" }});
        create(
            &running,
            MAPS,
            json!({"metadata": {"name": format!("c{i}"), "labels": labels}}),
        )
        .await;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, first) = ask(&running, "GET", &format!("{MAPS}?limit=2"), JSON, "").await;
    assert_eq!(names(&first), ["c0", "c1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    running
        .store
        .delete(&kinds::CONFIG_MAP, "default", "c3")
        .unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = format!("{MAPS}?limit=10&continue={token}");
    let (_, rest) = ask(&running, "GET", &next, JSON, "").await;
    assert_eq!(names(&rest), ["c2", "c3", "c4"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert_eq!(rest["metadata"].get("continue"), None);
    // A token works once; after that the server offers to go on with what is there.
    let (code, expired) = ask(&running, "GET", &next, JSON, "").await;
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")));
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = ask(
        &running,
        "GET",
        &format!("{MAPS}?continue={token}"),
        JSON,
        "",
    )
    .await;
    assert_eq!(names(&rest), ["c2", "c4"]);
    let (_, even) = ask(
        &running,
        "GET",
        "/api/v1/configmaps?labelSelector=half+in+(even)",
        JSON,
        "",
    )
    .await;
    assert_eq!(names(&even), ["c0", "c2", "c4"]);
    let (_, gone) = ask(
        &running,
        "DELETE",
        &format!("{MAPS}?labelSelector=half%3Deven"),
        JSON,
        "",
    )
    .await;
    assert_eq!(names(&gone), ["c0", "c2", "c4"]);
    let (_, left) = ask(&running, "GET", MAPS, JSON, "").await;
    assert_eq!(names(&left), ["c1"]);
}

#[tokio::test]
async fn tables_define_their_columns_once() {
    let running = Running::start().await;
    let table = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    create(
        &running,
        MAPS,
        json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}}),
    )
    .await;
    let (_, list) = json_of(send(&running, "GET", MAPS, &table, "").await).await;
    assert_eq!(list["kind"], "Table");
    assert_eq!(list["columnDefinitions"][0]["name"], "Name");
    assert_eq!(
        list["rows"][0]["cells"].cells()[..2],
        [json!("a"), json!(2)]
    );
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let mut watch = send(&running, "GET", &format!("{MAPS}?watch=true"), &table, "")
        .await
        .into_body();
    create(&running, MAPS, json!({"metadata": {"name": "b"}})).await;
    let seen = lines(&mut watch, 2).await;
    assert!(seen[0]["object"]["columnDefinitions"].is_array());
    assert!(seen[1]["object"]["columnDefinitions"].is_null());
    let partial = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let (_, list) = json_of(send(&running, "GET", MAPS, &partial, "").await).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test]
async fn discovery_in_both_forms_agrees() {
    let running = Running::start().await;
    let aggregated = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let response = send(&running, "GET", path, &aggregated, "").await;
        assert_eq!(
            response.headers()["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        let (_, list) = json_of(response).await;
        for group in list["items"].cells() {
            for resource in group["versions"][0]["resources"].cells() {
                found.push(format!(
                    "{}/{}",
                    group["metadata"]["name"].as_str().unwrap_or_default(),
                    resource["resource"].as_str().unwrap()
                ));
            }
        }
    }
    let mut plain = Vec::new();
    let (_, groups) = ask(&running, "GET", "/apis", JSON, "").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let groups = groups["groups"].cells().iter().map(|g| {
        let version = text(&g["preferredVersion"]["groupVersion"]);
        (text(&g["name"]), format!("/apis/{version}"))
    });
    for (group, path) in std::iter::once((String::new(), "/api/v1".to_owned())).chain(groups) {
        let (_, list) = ask(&running, "GET", &path, JSON, "").await;
        for resource in list["resources"].cells() {
            let name = resource["name"].as_str().unwrap();
            if !name.contains('/') {
                plain.push(format!("{group}/{name}"));
            }
        }
    }
    assert_eq!(found, plain);
    assert_eq!(found.len(), kinds::ALL.len() + kinds::MEASURED.len());
    let (_, version) = ask(&running, "GET", "/version", JSON, "").await;
    assert_eq!(
        (version["major"].as_str(), version["minor"].as_str()),
        (Some("1"), Some("34"))
    );
}
