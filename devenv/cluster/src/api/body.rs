//! Bodies of answers.

use std::convert::Infallible;

use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use serde::Serialize;

/// The body of every answer: whole or a stream, never failing half-way.
pub type ApiBody = UnsyncBoxBody<Bytes, Infallible>;

fn response(code: StatusCode, content_type: &'static str, body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer.
pub(super) fn json(code: StatusCode, value: &impl Serialize) -> Response<ApiBody> {
    json_as(code, "application/json", value)
}

/// A JSON answer with its own media type.
pub(super) fn json_as(
    code: StatusCode,
    content_type: &'static str,
    value: &impl Serialize,
) -> Response<ApiBody> {
    // What we answer with is JSON in memory: it always has a JSON form.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    response(
        code,
        content_type,
        Full::new(Bytes::from(bytes)).boxed_unsync(),
    )
}

/// An answer in a form of its own.
pub(super) fn bytes(
    code: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<ApiBody> {
    response(code, content_type, Full::new(bytes.into()).boxed_unsync())
}

/// A plain text answer.
pub(super) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<ApiBody> {
    response(
        code,
        "text/plain; charset=utf-8",
        Full::new(text.into()).boxed_unsync(),
    )
}

/// An answer that goes on as long as the stream does.
pub(super) fn stream(
    content_type: &'static str,
    chunks: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<ApiBody> {
    let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
    response(
        StatusCode::OK,
        content_type,
        StreamBody::new(frames).boxed_unsync(),
    )
}
