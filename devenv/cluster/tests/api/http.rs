//! Plain requests: the exact answers, above all the refusals.

mod metrics;
mod reads;
mod refusals;
mod watches;
mod writes;

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

trait Slice {
    fn cells(&self) -> &[Value];
}

impl Slice for Value {
    fn cells(&self) -> &[Value] {
        self.as_array().map_or(&[], Vec::as_slice)
    }
}
