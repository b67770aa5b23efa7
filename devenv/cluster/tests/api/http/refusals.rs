//! What is refused, in the words of a real server.

use super::*;

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
