//! Reading a request's JSON body within bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use crate::problem::Problem;

/// Largest body, bytes: nginx's `proxy-body-size` of 1m lets the same through.
pub const MAX_BODY: usize = 1 << 20;

/// How much of a body that is too large is still taken in, so that a client
/// that only listens after sending reads the 413 and not a reset.
const DRAIN_UP_TO: usize = 16 << 20;

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The whole body of a request that says it is JSON.
///
/// # Errors
/// 415, 413, 408, or 400 when the client broke off.
pub async fn read_json(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if !is_json(headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected Content-Type: application/json in UTF-8",
        ));
    }
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        // With `Expect: 100-continue` the body has not been sent yet, and by
        // not reading it hyper never asks for it.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    tokio::time::timeout(BODY_WITHIN, collect(body))
        .await
        .unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {BODY_WITHIN:?}"),
            ))
        })
}

/// Collects a body whose length is not known beforehand, or is and is small.
async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off"));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > MAX_BODY {
            discard(body).await;
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {MAX_BODY} bytes; send fewer records at a time"),
    )
}

async fn discard(body: Body) {
    let mut body = Box::pin(Limited::new(body, DRAIN_UP_TO));
    let drained = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), drained).await;
}

/// `application/json` or `application/*+json`; JSON is UTF-8 (RFC 8259).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
    else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = media == "application/json"
        || (media.starts_with("application/") && media.ends_with("+json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            let charset = charset.trim_matches('"').to_ascii_lowercase();
            matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("application/json", true)]
    #[case("Application/JSON; charset=UTF-8", true)]
    #[case("application/json;charset=\"utf-8\"", true)]
    #[case("application/vnd.telemetry+json", true)]
    #[case("application/json; charset=latin1", false)]
    #[case("text/json", false)]
    #[case("application/x-www-form-urlencoded", false)]
    #[case("", false)]
    fn json_by_its_type(#[case] value: &str, #[case] json: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        assert_eq!(is_json(&headers), json);
    }

    #[test]
    fn no_type_is_not_json() {
        assert!(!is_json(&HeaderMap::new()));
    }
}
