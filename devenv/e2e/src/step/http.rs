//! One HTTP request.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use reqwest::{
    Client, Method, Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde_json::Value;

use super::{Context, StepResult};
use crate::{
    capture::Answer,
    matcher::shortened,
    suite::{spec::HttpSpec, value::Text},
};

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// What is shown of a body.
const SHOWN: usize = 2000;

pub(crate) fn client(redirects: bool) -> Result<Client, reqwest::Error> {
    let policy = if redirects {
        redirect::Policy::limited(10)
    } else {
        redirect::Policy::none()
    };
    Client::builder().no_proxy().redirect(policy).build()
}

/// Sends the request and reads the whole answer.
pub async fn run(spec: &HttpSpec, context: &mut Context) -> StepResult {
    let request = match prepare(spec, &context.folder).await {
        Ok(request) => request,
        Err(why) => return StepResult::failed("request", "one that can be sent", why),
    };
    let client = if spec.redirects {
        client(true)
    } else {
        Ok(context.http.clone())
    };
    let sent = match client {
        Ok(client) => request.send(&client).await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(answer) => StepResult {
            seen: Some(shown(&answer)),
            answer,
            ..StepResult::default()
        },
        Err(error) => StepResult::failed(
            "answer",
            format!("one from {} {}", request.method, request.url),
            chain(&error),
        ),
    }
}

pub(crate) fn method(spec: &HttpSpec) -> String {
    match &spec.method {
        Some(method) => method.as_str().to_ascii_uppercase(),
        None if spec.json.is_some() || spec.body.is_some() || spec.body_file.is_some() => {
            "POST".into()
        }
        None => "GET".into(),
    }
}

/// What is sent.
pub(crate) enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

/// The request that a step describes. `folder` is the suite's.
///
/// # Errors
/// Why it can't be sent, for people.
pub(crate) async fn prepare(spec: &HttpSpec, folder: &Path) -> Result<Request, String> {
    Request::new(
        &method(spec),
        spec.url.as_str(),
        &spec.headers,
        body(spec, folder).await?,
        spec.timeout.map_or(TIMEOUT, Duration::from),
    )
}

async fn body(spec: &HttpSpec, folder: &Path) -> Result<Body, String> {
    if let Some(json) = &spec.json {
        return Ok(Body::Json(json.clone()));
    }
    if let Some(text) = &spec.body {
        return Ok(Body::Bytes(text.0.clone().into_bytes()));
    }
    let Some(file) = &spec.body_file else {
        return Ok(Body::None);
    };
    let path = folder.join(file.as_str());
    let read = tokio::fs::read(&path).await;
    read.map(Body::Bytes)
        .map_err(|e| format!("body_file {}: {e}", path.display()))
}

/// A request that can be sent again and again.
pub(crate) struct Request {
    pub method: Method,
    pub url: reqwest::Url,
    pub headers: HeaderMap,
    body: Option<Vec<u8>>,
    timeout: Duration,
}

impl Request {
    pub(crate) fn new(
        method: &str,
        url: &str,
        headers: &BTreeMap<String, Text>,
        body: Body,
        timeout: Duration,
    ) -> Result<Self, String> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("{method:?} is no HTTP method"))?;
        let url = url
            .parse::<reqwest::Url>()
            .map_err(|e| format!("{url:?} is no address: {e}"))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name:?} is no header's name"))?;
            let value = HeaderValue::from_str(value.as_str())
                .map_err(|_| format!("the value of the header {name} holds what no header can"))?;
            map.insert(header, value);
        }
        let body = match body {
            Body::None => None,
            Body::Bytes(bytes) => Some(bytes),
            Body::Json(json) => {
                map.entry(CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static("application/json"));
                Some(json.to_string().into_bytes())
            }
        };
        Ok(Self {
            method,
            url,
            headers: map,
            body,
            timeout,
        })
    }

    /// The answer, read to its end.
    pub(crate) async fn send(&self, client: &Client) -> Result<Answer, reqwest::Error> {
        let mut request = client
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone())
            .timeout(self.timeout);
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        read(request.send().await?).await
    }
}

async fn read(response: Response) -> Result<Answer, reqwest::Error> {
    let status = response.status().as_u16();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers() {
        let text = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&text);
            })
            .or_insert_with(|| text.into_owned());
    }
    let bytes = response.bytes().await?;
    Ok(Answer {
        json: serde_json::from_slice(&bytes).ok(),
        status: Some(status),
        headers,
        body: Some(String::from_utf8_lossy(&bytes).into_owned()),
        ..Answer::default()
    })
}

fn shown(answer: &Answer) -> String {
    let mut out = String::from("HTTP ");
    if let Some(status) = answer.status {
        let _ = write!(out, "{status}");
        if let Some(reason) = reqwest::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
        {
            let _ = write!(out, " {reason}");
        }
    }
    for (name, value) in &answer.headers {
        let _ = write!(out, "\n{name}: {}", shortened(value, 200));
    }
    if let Some(body) = answer.body.as_deref().filter(|body| !body.is_empty()) {
        let _ = write!(out, "\n\n{}", shortened(body, SHOWN));
    }
    out
}

/// Few words, so that the same sort is counted together.
pub(crate) fn sort_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "no connection"
    } else {
        "broken connection"
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !out.contains(&text) {
            let _ = write!(out, ": {text}");
        }
        source = cause.source();
    }
    out
}
