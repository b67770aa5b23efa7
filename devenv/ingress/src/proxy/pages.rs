//! The small HTML pages that nginx answers with.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};

/// nginx's wording, which differs from the registered one in places.
fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        301 => "301 Moved Permanently",
        400 => "400 Bad Request",
        404 => "404 Not Found",
        405 => "405 Not Allowed",
        408 => "408 Request Time-out",
        413 => "413 Request Entity Too Large",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        _ => "500 Internal Server Error",
    }
}

/// Statuses after which nginx closes the connection.
fn closes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 408 | 413)
}

/// The page as a response whose body is these bytes.
pub(super) fn page(status: StatusCode) -> Response<Bytes> {
    let title = title(status);
    let body = Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
         <center><h1>{title}</h1></center>\r\n<hr><center>devenv</center>\r\n</body>\r\n</html>\r\n"
    ));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = HeaderValue::from(response.body().len());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_LENGTH, length);
    if closes(status) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// 503 for a service that is about to come: seconds after which to ask again.
pub(super) fn later(seconds: u32) -> Response<Bytes> {
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// nginx's redirect from `/foo` to `/foo/`.
pub(super) fn redirect(location: HeaderValue) -> Response<Bytes> {
    let mut response = page(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    response
}
