//! A client for one program, and what came back.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for an answer; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks one program; clones share its connections.
#[derive(Debug, Clone)]
pub struct Api {
    /// `http://HOST:PORT`.
    pub base: String,
    client: Client,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Api {
    /// A client that goes there and nowhere else.
    pub fn new(base: String) -> Self {
        let client = Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .expect("a client without TLS or proxy needs nothing that can fail");
        Self { base, client }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// A request to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request; the error says that no answer came.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Reply, reqwest::Error> {
        let response = request.send().await?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    /// Sends a request that must be answered.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.base))
    }

    /// GET, if it is answered at all.
    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        self.try_send(self.request(Method::GET, path)).await.ok()
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// Any method, without a body.
    pub async fn call(&self, method: &str, path: &str) -> Reply {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.send(self.request(method, path)).await
    }

    /// POST /api of a body that says it is JSON, to be completed.
    pub fn posting(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, "/api")
            .header("content-type", "application/json")
            .body(body)
    }

    /// POST /api of a body that says it is JSON.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.posting(body)).await
    }

    /// POST /api of a value.
    pub async fn post_json(&self, value: &Value) -> Reply {
        self.post(value.to_string()).await
    }

    /// The same under an `Idempotency-Key`.
    pub async fn post_keyed(&self, value: &Value, key: &str) -> Reply {
        let posting = self.posting(value.to_string());
        self.send(posting.header("idempotency-key", key)).await
    }

    /// The samples of /metrics by name and labels, as `name{a="b",c="d"}` with the
    /// labels in alphabetical order.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let reply = self.get("/metrics").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let kind = reply.header("content-type");
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        reply
            .text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                (in_order(name), value)
            })
            .collect()
    }
}

/// A sample's name with its labels in order, and a bucket's bound as a number is
/// written: `1.0` and `1` are the same bound.
fn in_order(name: &str) -> String {
    let Some((name, labels)) = name.split_once('{') else {
        return name.to_owned();
    };
    let mut labels: Vec<String> = labels
        .trim_end_matches('}')
        .split(',')
        .map(|label| {
            let bound = label
                .strip_prefix("le=\"")
                .and_then(|bound| bound.strip_suffix('"')?.parse::<f64>().ok())
                .filter(|bound| bound.is_finite());
            bound.map_or_else(|| label.to_owned(), |bound| format!("le=\"{bound}\""))
        })
        .collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The ids of a 201.
    #[track_caller]
    pub fn ids(&self) -> Vec<i64> {
        assert_eq!(self.status, 201, "{self:?}");
        let json = self.json();
        let ids = json["ids"].as_array().unwrap_or_else(|| panic!("{json}"));
        ids.iter()
            .map(|id| id.as_i64().unwrap_or_else(|| panic!("{json}")))
            .collect()
    }

    /// The problem (RFC 9457) of an answer with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{problem}"
        );
        problem
    }

    /// The bad fields that a 422 names: index, field, message.
    #[track_caller]
    pub fn errors(&self) -> Vec<(Option<u64>, String, String)> {
        let problem = self.problem(422);
        let errors = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{problem}"));
        errors
            .iter()
            .map(|error| {
                let text = |key: &str| error[key].as_str().map(str::to_owned);
                (
                    error.get("index").and_then(Value::as_u64),
                    text("field").unwrap_or_else(|| panic!("{problem}")),
                    text("message").unwrap_or_else(|| panic!("{problem}")),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_named_the_same_however_they_are_written() {
        for (written, name) in [
            ("up", "up"),
            (r#"n{b="2",a="1"}"#, r#"n{a="1",b="2"}"#),
            (r#"n_bucket{le="1.0"}"#, r#"n_bucket{le="1"}"#),
            (r#"n_bucket{le="0.0025"}"#, r#"n_bucket{le="0.0025"}"#),
            (r#"n_bucket{le="+Inf"}"#, r#"n_bucket{le="+Inf"}"#),
        ] {
            assert_eq!(in_order(written), name);
        }
    }
}
