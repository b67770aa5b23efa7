//! Around every request: counting, CORS, and the farewell of a service that
//! is on its way out.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::App;
use crate::config::CorsOrigin;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Idempotency-Key, Accept, X-Request-ID, traceparent, tracestate",
);
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Retry-After, Idempotency-Replayed, X-Request-ID");
const VERSION: HeaderName = HeaderName::from_static("x-service-version");
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Wraps `router` so that each request is counted and answered with the CORS
/// headers of the configuration.
pub fn observed(router: Router, app: App) -> Router {
    router.layer(axum::middleware::from_fn_with_state(app, observe))
}

async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // Socket.IO is a layer before the routes and so has no template.
    let unmatched = if request.uri().path().starts_with("/socket.io") {
        "/socket.io"
    } else {
        "other"
    };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = method == Method::OPTIONS
        && origin.is_some()
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        // Whether the page may go on is said by the headers alone; the path
        // need not know of it.
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let status = response.status();
    app.metrics().request(
        route.as_ref().map_or(unmatched, MatchedPath::as_str),
        &method,
        status,
    );
    allow(
        app.cors(),
        origin.as_ref(),
        preflight,
        response.headers_mut(),
    );
    response
        .headers_mut()
        .insert(VERSION, HeaderValue::from_static(app.version()));
    if app.drain().is_draining() && status != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Adds the CORS headers (Fetch standard, "CORS protocol").
fn allow(
    cors: &CorsOrigin,
    origin: Option<&HeaderValue>,
    preflight: bool,
    headers: &mut HeaderMap,
) {
    let allowed = match cors {
        CorsOrigin::None => return,
        CorsOrigin::Any => Some(HeaderValue::from_static("*")),
        CorsOrigin::List(list) => {
            // Caches must keep the answers to different pages apart.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
            origin
                .filter(|o| {
                    o.to_str()
                        .is_ok_and(|o| list.iter().any(|l| l.eq_ignore_ascii_case(o)))
                })
                .cloned()
        }
    };
    let Some(allowed) = allowed else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cors: &CorsOrigin, origin: Option<&'static str>, preflight: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        allow(
            cors,
            origin.map(HeaderValue::from_static).as_ref(),
            preflight,
            &mut headers,
        );
        headers
    }

    #[test]
    fn a_star_allows_any_page() {
        let h = headers(&CorsOrigin::Any, Some("http://x"), true);
        assert_eq!(h[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(h.contains_key(header::ACCESS_CONTROL_ALLOW_HEADERS));
        assert!(!h.contains_key(header::VARY));
    }

    #[test]
    fn a_list_allows_its_own_and_varies() {
        let list = CorsOrigin::List(vec!["http://a.example".into()]);
        let h = headers(&list, Some("http://a.example"), false);
        assert_eq!(h[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a.example");
        assert_eq!(h[header::VARY], "Origin");
        assert!(h.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS));
        let h = headers(&list, Some("http://b.example"), true);
        assert!(!h.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(h[header::VARY], "Origin");
    }

    #[test]
    fn nothing_configured_allows_nothing() {
        assert!(headers(&CorsOrigin::None, Some("http://x"), true).is_empty());
    }
}
