//! What is refused before it is looked into, and how.

use super::{Clause, clauses, record};
use devenv_tests::contract::program::Implementation;
use devenv_tests::contract::stage::Stage;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const CLAUSES: &[Clause] = clauses![
    what_is_not_json_is_400,
    another_type_is_415,
    json_has_several_names,
    over_a_mebibyte_is_413,
    a_body_of_unknown_length_is_counted_too,
    a_body_that_is_refused_is_not_asked_for,
    a_body_that_is_wanted_is_asked_for,
    other_methods_are_405,
    options_names_the_methods,
    other_paths_are_404,
    head_is_get_without_a_body,
];

const LIMIT: usize = 1 << 20;

async fn what_is_not_json_is_400(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for body in [
        &b""[..],
        b"{",
        b"{\"a\":}",
        b"{}{}",
        b"total_ram=1",
        b"{'a':1}",
        b"{\"a\":NaN}",
        b"{\"total_ram\":1e400}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\\ud800\"}",
        b"\xef\xbb\xbf{}",
        b"{\0\"\0a\0\"\0:\x001\0}\0",
    ] {
        let problem = api.post(body.to_vec()).await.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("the body is not JSON"), "{detail}");
        assert!(problem.get("errors").is_none(), "{problem}");
    }
    assert_eq!(stage.database.rows().await, 0);
}

async fn another_type_is_415(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for kind in [
        None,
        Some("text/plain"),
        Some("text/json"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=latin1"),
        Some("application/jsonp"),
    ] {
        let mut request = api
            .request(Method::POST, "/api")
            .body(record(1).to_string());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        api.send(request).await.problem(415);
    }
    assert_eq!(stage.database.rows().await, 0);
}

async fn json_has_several_names(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for kind in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/vnd.telemetry+json",
    ] {
        let request = api
            .request(Method::POST, "/api")
            .body(record(1).to_string());
        api.send(request.header("content-type", kind)).await.ids();
    }
    assert_eq!(stage.database.rows().await, 4);
}

async fn over_a_mebibyte_is_413(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let mut padded = record(3).to_string();
    padded.push_str(&" ".repeat(LIMIT - padded.len()));
    api.post(padded.clone()).await.ids();
    padded.push(' ');
    api.post(padded).await.problem(413);
    // It is taken in first, so that a client that listens only after sending reads it.
    api.post(" ".repeat(9 * LIMIT)).await.problem(413);
    assert_eq!(stage.database.rows().await, 1);
}

async fn a_body_of_unknown_length_is_counted_too(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    let chunked = |text: String| {
        let chunks: Vec<_> = text
            .into_bytes()
            .chunks(70_000)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
    };
    let mut padded = record(3).to_string();
    padded.push_str(&" ".repeat(LIMIT - padded.len()));
    api.post(chunked(padded.clone())).await.ids();
    padded.push(' ');
    api.post(chunked(padded)).await.problem(413);
    assert_eq!(stage.database.rows().await, 1);
}

/// Sends a request's head and gives what comes back, up to the end of a head.
async fn head_of_answer(address: &str, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a whole head"));
    }
    (stream, String::from_utf8(answer).unwrap())
}

async fn a_body_that_is_refused_is_not_asked_for(
    stage: &mut Stage,
    implementation: Implementation,
) {
    let api = stage.write(implementation).await;
    for (kind, length, status) in [
        ("application/json", LIMIT + 1, "413"),
        ("text/plain", 10, "415"),
    ] {
        let head = format!(
            "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        let (mut stream, answer) = head_of_answer(api.address(), &head).await;
        let refused = answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(refused, "{answer}");
        // The body may still come or not, and nobody could tell it from a request.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("it closes");
    }
}

async fn a_body_that_is_wanted_is_asked_for(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    let body = record(1).to_string();
    let head = format!(
        "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let (mut stream, answer) = head_of_answer(api.address(), &head).await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

const RESOURCES: [(&str, &str); 5] = [
    ("/api", "POST, OPTIONS"),
    ("/api/records", "GET, HEAD, OPTIONS"),
    ("/healthz", "GET, HEAD, OPTIONS"),
    ("/readyz", "GET, HEAD, OPTIONS"),
    ("/metrics", "GET, HEAD, OPTIONS"),
];

async fn other_methods_are_405(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for (path, allow) in RESOURCES {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if !allow.contains(method) {
                let reply = api.call(method, path).await;
                reply.problem(405);
                assert_eq!(reply.header("allow"), allow, "{method} {path}");
            }
        }
    }
}

async fn options_names_the_methods(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for (path, allow) in RESOURCES {
        let reply = api.call("OPTIONS", path).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (204, allow),
            "{path}"
        );
    }
}

async fn other_paths_are_404(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for path in ["/", "/apix", "/api/", "/api/records/", "/API", "/docs"] {
        let problem = api.get(path).await.problem(404);
        assert_eq!(problem["detail"], format!("there is nothing at {path}"));
    }
    let long = format!("/{}", "x".repeat(5000));
    let problem = api.get(&long).await.problem(404);
    assert_eq!(
        problem["detail"],
        format!("there is nothing at {}", &long[..200])
    );
}

async fn head_is_get_without_a_body(stage: &mut Stage, implementation: Implementation) {
    let api = stage.write(implementation).await;
    for path in ["/api/records", "/healthz", "/readyz", "/metrics"] {
        let reply = api.call("HEAD", path).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, ""), "{path}");
        let get = api.get(path).await;
        assert_eq!(reply.header("content-type"), get.header("content-type"));
    }
}
