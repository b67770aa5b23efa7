//! From a request to the function that answers it.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use serde_json::json;

use super::{
    Context,
    body::{self, ApiBody},
    call::Call,
    delete, discovery, list, logs, metrics, openapi,
    route::{self, Query, Route, Target},
    status::Failure,
    watch, write,
};
use crate::kinds;

/// Largest body of a request, in bytes, as in Kubernetes.
const BODY_LIMIT: usize = 3 << 20;

/// Whether a path may be asked without a token.
pub(super) fn is_public(path: &str) -> bool {
    route::route(path) == Route::Health
}

pub(super) async fn dispatch<B>(ctx: &Context, request: Request<B>) -> Response<ApiBody>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let method = parts.method.clone();
    let answer = answer(ctx, parts, body).await;
    let response = answer.unwrap_or_else(Failure::into_response);
    tracing::trace!(%method, path, status = response.status().as_u16(), "API request");
    response
}

async fn answer<B>(
    ctx: &Context,
    parts: http::request::Parts,
    body: B,
) -> Result<Response<ApiBody>, Failure>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let route = route::route(parts.uri.path());
    let target = match route {
        Route::Objects(target) => target,
        Route::NoSuchResource => return Err(Failure::no_such_resource()),
        Route::NotFound => return Ok(body::text(StatusCode::NOT_FOUND, "404 page not found\n")),
        _ if parts.method != Method::GET && parts.method != Method::HEAD => {
            return Err(Failure::method_not_allowed());
        }
        Route::Health => return Ok(body::text(StatusCode::OK, "ok")),
        Route::Root => return Ok(discovery::paths()),
        Route::Version => return Ok(version(ctx)),
        Route::CoreVersions if route::wants_aggregated(&parts.headers) => {
            return Ok(discovery::aggregated(true));
        }
        Route::Groups if route::wants_aggregated(&parts.headers) => {
            return Ok(discovery::aggregated(false));
        }
        Route::CoreVersions => return Ok(discovery::core_versions()),
        Route::Groups => return Ok(discovery::groups()),
        Route::Group(group) => return Ok(discovery::group(group)),
        Route::Resources(group, version) => return Ok(discovery::resources(group, version)),
        Route::OpenApiV2 => return Ok(openapi::document_v2()),
        Route::OpenApi => return Ok(openapi::index()),
        Route::OpenApiDocument(group, version) => return Ok(openapi::document(group, version)),
    };

    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let is_log = target.kind == &kinds::POD && target.subresource.as_deref() == Some("log");
    // A log is text: it has no form to choose, and clients ask for JSON all the same.
    let form = if is_log {
        route::Form::Json
    } else {
        route::form(&parts.headers, &query)?
    };
    let body = read(body).await?;
    let call = Call::new(target, query, form, &parts.headers, body);
    objects(ctx, &parts.method, call).await
}

async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(Failure::too_large(BODY_LIMIT)),
        Err(e) => Err(Failure::bad_request(format!(
            "the request's body could not be read: {e}"
        ))),
    }
}

async fn objects(ctx: &Context, method: &Method, call: Call) -> Result<Response<ApiBody>, Failure> {
    let Target {
        kind,
        name,
        subresource,
        ..
    } = &call.target;
    if kinds::MEASURED.contains(kind) {
        return metrics::answer(ctx, method.as_str(), &call).await;
    }
    match (method.as_str(), name, subresource.as_deref()) {
        ("GET", None, _) if call.query.flag("watch") => watch::watch(ctx, &call),
        ("GET", None, _) => list::list(ctx, &call),
        ("POST", None, _) => write::create(ctx, &call).await,
        ("DELETE", None, _) => delete::delete_many(ctx, &call).await,
        ("GET", Some(_), None) if call.query.flag("watch") => watch::watch(ctx, &call),
        ("GET", Some(_), None) => list::get(ctx, &call),
        ("PUT", Some(_), None) => write::replace(ctx, &call).await,
        ("PATCH", Some(_), None) => write::patch(ctx, &call).await,
        ("DELETE", Some(_), None) => delete::delete(ctx, &call).await,
        ("GET", Some(_), Some("status")) if kind.has_status => list::get(ctx, &call),
        ("PUT", Some(_), Some("status")) if kind.has_status => write::replace(ctx, &call).await,
        ("PATCH", Some(_), Some("status")) if kind.has_status => write::patch(ctx, &call).await,
        ("GET" | "PUT" | "PATCH", Some(_), Some("scale")) if kind.has_scale => {
            write::scale(ctx, &call, method).await
        }
        ("GET", Some(_), Some("log")) if *kind == &kinds::POD => logs::get(ctx, &call).await,
        (_, Some(_), Some(what @ ("exec" | "attach" | "portforward"))) if *kind == &kinds::POD => {
            Err(Failure::not_implemented(format!(
                "devenv's API server has no pods/{what} yet: `devenv url` prints addresses that reach the services, `kubectl logs` and `devenv logs` show what a container writes"
            )))
        }
        (_, Some(_), Some(part)) if !discovery::has_subresource(kind, part) => {
            Err(Failure::no_such_resource())
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

/// `/version`: clients choose their ways by it.
fn version(ctx: &Context) -> Response<ApiBody> {
    let numbers = ctx.version.trim_start_matches('v');
    let mut parts = numbers.split('.');
    body::json(
        StatusCode::OK,
        &json!({
            "major": parts.next().unwrap_or("1"),
            "minor": parts.next().unwrap_or("34"),
            "gitVersion": ctx.version,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
        }),
    )
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
