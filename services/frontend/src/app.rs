//! Routes and headers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::config::Config;
use crate::site::{File, Site};

/// What `/config.json` says; read by web/src/config.ts.
#[derive(serde::Serialize)]
struct PageConfig<'a> {
    api3_url: &'a str,
    ingress_url: &'a str,
    k_service: &'a str,
    k_revision: &'a str,
}

/// The whole server: the page, its configuration, and `/healthz`.
pub fn app(config: &Config, site: Site) -> Router {
    let page = PageConfig {
        api3_url: &config.api3_url,
        ingress_url: &config.ingress_url,
        k_service: &config.k_service,
        k_revision: &config.k_revision,
    };
    // Serialised once; `Value`'s Display cannot fail.
    let page = Bytes::from(serde_json::json!(page).to_string());
    let policy = policy(&config.api3_url);
    Router::new()
        .route(
            "/config.json",
            get(move || async move {
                (
                    [
                        (header::CONTENT_TYPE, "application/json"),
                        (header::CACHE_CONTROL, "no-store"),
                    ],
                    page,
                )
            }),
        )
        .route(
            "/healthz",
            get(|| async { ([(header::CACHE_CONTROL, "no-store")], "ok\n") }),
        )
        .fallback(file)
        .with_state(Arc::new(site))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let policy = policy.clone();
            async move { guarded(next.run(request).await, policy) }
        }))
}

async fn file(
    State(site): State<Arc<Site>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD")],
        )
            .into_response();
    }
    let Some(file) = site.get(uri.path()) else {
        return (
            StatusCode::NOT_FOUND,
            [(header::CACHE_CONTROL, "no-store")],
            "not found\n",
        )
            .into_response();
    };
    // Vite puts a hash of the contents into the names of what it writes to assets/.
    let cache = if uri.path().starts_with("/assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tags| matches(tags, &file.etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        whole(file, &method)
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    // A tag is sixteen hexadecimal digits in quotes.
    if let Ok(tag) = HeaderValue::from_str(&file.etag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn whole(file: &File, method: &Method) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(file.content_type),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(file.bytes.len())),
    ];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(file.bytes.clone())
    };
    (headers, body).into_response()
}

/// RFC 9110, 13.1.2: a list of tags, compared weakly, or `*`.
fn matches(tags: &HeaderValue, etag: &str) -> bool {
    tags.to_str().is_ok_and(|tags| {
        tags.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

fn guarded(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// The page loads its own files only and talks to its origin and to api3, by HTTP and by WebSocket.
fn policy(api3_url: &str) -> HeaderValue {
    let mut connect = "'self'".to_owned();
    if let Some((scheme, rest)) = api3_url.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let socket = if scheme == "https" { "wss" } else { "ws" };
        connect.push_str(&format!(" {scheme}://{host} {socket}://{host}"));
    }
    let text = format!(
        "default-src 'self'; connect-src {connect}; base-uri 'none'; object-src 'none'; frame-ancestors 'self'"
    );
    // Config lets no character into the URL that a header does not take.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::fs;
    use tower::ServiceExt;

    fn serve(variables: &[(&str, &str)]) -> Router {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("assets")).unwrap();
        fs::write(dir.path().join("index.html"), "<!doctype html>").unwrap();
        fs::write(dir.path().join("favicon.svg"), "<svg/>").unwrap();
        fs::write(dir.path().join("assets/index-1a2b.js"), "run()").unwrap();
        fs::write(dir.path().join(".secret"), "no").unwrap();
        let config = Config::from_env(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
        .unwrap();
        let site = Site::load(dir.path()).unwrap();
        assert_eq!(site.len(), 3);
        // The folder goes away here: what is served comes from memory.
        app(&config, site)
    }

    async fn ask(
        app: &Router,
        method: &str,
        path: &str,
        tag: Option<&str>,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            head.status,
            head.headers,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn the_page_is_asked_for_anew_and_its_assets_are_kept() {
        let app = serve(&[]);
        for path in ["/", "/index.html"] {
            let (status, headers, body) = ask(&app, "GET", path, None).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, "<!doctype html>"));
            assert_eq!(headers["cache-control"], "no-cache");
            assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        }
        let (status, headers, body) = ask(&app, "GET", "/assets/index-1a2b.js", None).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "run()"));
        assert_eq!(
            headers["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    #[tokio::test]
    async fn a_known_tag_is_not_sent_again() {
        let app = serve(&[]);
        let (_, headers, _) = ask(&app, "GET", "/", None).await;
        let tag = headers["etag"].to_str().unwrap();
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let (status, headers, body) = ask(&app, "GET", "/", Some(&known)).await;
            assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
            assert_eq!(headers["etag"], tag);
        }
        let (status, ..) = ask(&app, "GET", "/", Some("\"x\"")).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn head_has_the_length_and_no_body() {
        let (status, headers, body) = ask(&serve(&[]), "HEAD", "/", None).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
        assert_eq!(headers["content-length"], "15");
    }

    #[tokio::test]
    async fn what_is_not_there_or_hidden_is_404_and_not_kept() {
        let app = serve(&[]);
        for path in [
            "/nothing",
            "/.secret",
            "/assets/",
            "/assets/../.secret",
            "/assets/old.js",
            "//index.html",
        ] {
            let (status, headers, _) = ask(&app, "GET", path, None).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(headers["cache-control"], "no-store", "{path}");
        }
        let (status, headers, _) = ask(&app, "POST", "/", None).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers["allow"], "GET, HEAD");
    }

    #[tokio::test]
    async fn the_configuration_is_the_environments() {
        let app = serve(&[
            ("API3_URL", "http://127.9.8.7:8080/"),
            ("INGRESS_URL", "http://127.9.8.7:8080"),
            ("K_SERVICE", "frontend"),
            ("K_REVISION", "frontend-00002"),
        ]);
        let (status, headers, body) = ask(&app, "GET", "/config.json", None).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["cache-control"], "no-store");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "api3_url": "http://127.9.8.7:8080",
                "ingress_url": "http://127.9.8.7:8080",
                "k_service": "frontend",
                "k_revision": "frontend-00002",
            })
        );
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("connect-src 'self' http://127.9.8.7:8080 ws://127.9.8.7:8080;"),
            "{policy}"
        );
    }

    #[tokio::test]
    async fn it_is_alive() {
        let (status, _, body) = ask(&serve(&[]), "GET", "/healthz", None).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ok\n"));
    }

    #[test]
    fn a_page_that_was_not_built_names_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let error = Site::load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("npm --prefix services/frontend/web run build"),
            "{error}"
        );
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    }
}
