//! Plain requests: the exact answers, above all the refusals.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::Running;
use devenv_cluster::{api::ApiBody, kinds};

async fn send(
    running: &Running,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> http::Response<ApiBody> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    running.server.service().oneshot(request).await.unwrap()
}

async fn json_of(response: http::Response<ApiBody>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

async fn ask(
    running: &Running,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> (u16, Value) {
    let headers = [("content-type", content_type)];
    let (status, value) =
        json_of(send(running, method, path, &headers, body.to_owned()).await).await;
    (status.as_u16(), value)
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

async fn create(running: &Running, path: &str, value: Value) -> Value {
    let (code, made) = ask(running, "POST", path, JSON, &value.to_string()).await;
    assert_eq!(code, 201, "{made}");
    made
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn refusals_in_the_words_of_kubernetes() {
    let running = Running::start().await;
    create(
        &running,
        MAPS,
        json!({"metadata": {"name": "cx"}, "data": {"k": "1"}}),
    )
    .await;
    let cx = format!("{MAPS}/cx");
    let pods = "/api/v1/namespaces/default/pods";
    let cases: &[(&str, &str, &str, &str, u16, &str, &str)] = &[
        (
            "GET",
            "/api/v1/namespaces/default/pods/nope",
            JSON,
            "",
            404,
            "NotFound",
            "pods \"nope\" not found",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/foos",
            JSON,
            "",
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            "POST",
            "/api/v1/namespaces/nope/configmaps",
            JSON,
            r#"{"metadata":{"name":"a"}}"#,
            404,
            "NotFound",
            "namespaces \"nope\" not found",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"cx"}}"#,
            409,
            "AlreadyExists",
            "configmaps \"cx\" already exists",
        ),
        (
            "PUT",
            &cx,
            JSON,
            r#"{"metadata":{"name":"cx","resourceVersion":"1"},"data":{}}"#,
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"cx\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "PUT",
            &cx,
            JSON,
            r#"{"metadata":{"name":"cy"}}"#,
            400,
            "BadRequest",
            "the name of the object (cy) does not match the name on the URL (cx)",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"a","namespace":"y"}}"#,
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#,
            400,
            "BadRequest",
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        (
            "PATCH",
            &cx,
            "text/plain",
            "{}",
            415,
            "UnsupportedMediaType",
            "415: Unsupported Media Type",
        ),
        (
            "POST",
            &cx,
            JSON,
            r#"{"metadata":{"name":"cx"}}"#,
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "GET",
            &format!("{pods}?labelSelector=a%3D%3D%3Db"),
            JSON,
            "",
            400,
            "BadRequest",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        (
            "GET",
            &format!("{pods}?fieldSelector=spec.foo%3Db"),
            JSON,
            "",
            400,
            "BadRequest",
            "field label not supported: spec.foo",
        ),
        (
            "PATCH",
            &cx,
            APPLY,
            r#"{"apiVersion":"v1","kind":"ConfigMap"}"#,
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "PATCH",
            &format!("{cx}?fieldManager=m"),
            APPLY,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {managedFields: []}",
            400,
            "BadRequest",
            "metadata.managedFields must be nil",
        ),
        (
            "PATCH",
            &cx,
            "application/json-patch+json",
            r#"[{"op":"replace","path":"/metadata/labels/z/y","value":"1"}]"#,
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        (
            "DELETE",
            &cx,
            JSON,
            r#"{"preconditions":{"resourceVersion":"1"}}"#,
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"cx\": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (2). The object might have been deleted and then recreated",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default",
            JSON,
            "",
            403,
            "Forbidden",
            "namespaces \"default\" is forbidden: this namespace may not be deleted",
        ),
        (
            "POST",
            "/apis/apps/v1/namespaces/default/deployments?fieldValidation=Strict",
            JSON,
            r#"{"metadata":{"name":"d"},"spec":{"foo":1}}"#,
            400,
            "BadRequest",
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\"",
        ),
    ];
    for (method, path, content_type, body, code, reason, message) in cases {
        let (is, status) = ask(&running, method, path, content_type, body).await;
        assert_eq!(
            (
                is,
                status["reason"].as_str().unwrap(),
                status["message"].as_str().unwrap()
            ),
            (*code, *reason, *message),
            "{method} {path}"
        );
        assert_eq!(
            (&status["kind"], &status["status"], &status["code"]),
            (&json!("Status"), &json!("Failure"), &json!(code))
        );
    }
    let (code, _) = ask(&running, "GET", "/apis/nope.io/v1/foos", JSON, "").await;
    assert_eq!(code, 404);
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let (code, status) = json_of(send(&running, "GET", MAPS, &accept, "").await).await;
    assert_eq!(
        (code.as_u16(), status["message"].as_str()),
        (406, Some("406: Not Acceptable"))
    );
    let (code, status) = ask(
        &running,
        "POST",
        MAPS,
        "application/vnd.kubernetes.protobuf",
        "k8s\0",
    )
    .await;
    assert_eq!(code, 415);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("kubectl apply -f")
    );
    let (code, status) = ask(&running, "POST", MAPS, JSON, &"x".repeat((3 << 20) + 1)).await;
    assert_eq!(
        (code, status["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );
    let future = format!("{MAPS}?resourceVersion=99999999&resourceVersionMatch=NotOlderThan");
    let (code, status) = ask(&running, "GET", &future, JSON, "").await;
    assert_eq!(
        (code, status["details"]["retryAfterSeconds"].as_i64()),
        (504, Some(1))
    );
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning() {
    let running = Running::start().await;
    let body = json!({"metadata": {"name": "w"}, "daata": {"k": "1"}}).to_string();
    let response = send(&running, "POST", MAPS, &[("content-type", JSON)], body).await;
    assert_eq!(
        response.headers()["warning"],
        "299 - \"unknown field \\\"daata\\\"\""
    );
    let (code, made) = json_of(response).await;
    assert_eq!((code, made.get("daata")), (StatusCode::CREATED, None));
}

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

/// The next lines of a watch, within five seconds.
async fn lines(body: &mut ApiBody, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    while found.len() < count {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await;
        let bytes = frame
            .expect("an event in time")
            .expect("no end")
            .unwrap()
            .into_data()
            .unwrap();
        found.extend(
            bytes
                .split(|b| *b == b'\n')
                .filter(|l| !l.is_empty())
                .map(|l| serde_json::from_slice(l).unwrap()),
        );
    }
    found
}

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

trait Slice {
    fn cells(&self) -> &[Value];
}

impl Slice for Value {
    fn cells(&self) -> &[Value] {
        self.as_array().map_or(&[], Vec::as_slice)
    }
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
    let groups = groups["groups"]
        .cells()
        .iter()
        .map(|g| g["name"].as_str().unwrap().to_owned());
    for group in std::iter::once(String::new()).chain(groups) {
        let path = if group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{group}/v1")
        };
        let (_, list) = ask(&running, "GET", &path, JSON, "").await;
        for resource in list["resources"].cells() {
            let name = resource["name"].as_str().unwrap();
            if !name.contains('/') {
                plain.push(format!("{group}/{name}"));
            }
        }
    }
    assert_eq!(found, plain);
    assert_eq!(found.len(), kinds::ALL.len());
    let (_, version) = ask(&running, "GET", "/version", JSON, "").await;
    assert_eq!(
        (version["major"].as_str(), version["minor"].as_str()),
        (Some("1"), Some("34"))
    );
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
