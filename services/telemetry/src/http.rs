//! The HTTP side: what every service answers, and the write side's routes.

mod body;
mod observe;
mod write_side;

pub use observe::observed;
pub use write_side::write_router;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::{HeaderValue, StatusCode, header};
use std::collections::HashMap;

use crate::config::{Config, CorsOrigin};
use crate::db::{Db, DbError};
use crate::lifecycle::Drain;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::write::KeyLocks;

/// How long `/readyz` may take; a kubelet's default patience is one second.
const READY_WITHIN: Duration = Duration::from_millis(900);

/// What the handlers of a service share; clones are cheap.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    api: String,
    version: &'static str,
    cors: CorsOrigin,
    db: Db,
    metrics: Metrics,
    drain: Drain,
    locks: KeyLocks,
}

impl App {
    /// The state of a service with this configuration. Must be called within
    /// a tokio runtime.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            api: config.api_name.clone(),
            version: config.version,
            cors: config.cors.clone(),
            db: Db::new(&config.database),
            metrics: Metrics::default(),
            drain: Drain::default(),
            locks: KeyLocks::default(),
        }))
    }

    /// The name that stamps rows and metrics.
    pub fn api(&self) -> &str {
        &self.0.api
    }

    /// The version of what runs.
    pub fn version(&self) -> &'static str {
        self.0.version
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether the service is on its way out.
    pub fn drain(&self) -> &Drain {
        &self.0.drain
    }

    fn cors(&self) -> &CorsOrigin {
        &self.0.cors
    }

    fn locks(&self) -> &KeyLocks {
        &self.0.locks
    }
}

/// `/healthz`, `/readyz`, `/metrics`.
pub fn probe_routes() -> Router<App> {
    Router::new()
        .route("/healthz", reading(get(healthz)))
        .route("/readyz", reading(get(readyz)))
        .route("/metrics", reading(get(metrics)))
}

/// Adds to a route that is only read what its other methods are answered.
pub fn reading(route: MethodRouter<App>) -> MethodRouter<App> {
    with_allow(route, "GET, HEAD, OPTIONS")
}

/// Adds `OPTIONS` and the 405 of all methods that the route does not have.
fn with_allow(route: MethodRouter<App>, allow: &'static str) -> MethodRouter<App> {
    route
        .options(move || async move {
            (
                StatusCode::NO_CONTENT,
                [(header::ALLOW, HeaderValue::from_static(allow))],
            )
        })
        .fallback(move || async move { Problem::method_not_allowed(allow) })
}

/// The answer on paths that are not there.
pub async fn not_found(uri: http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
}

/// A query's parameters; the last of a name counts.
///
/// # Errors
/// 400 when it can't be read.
pub fn query(
    query: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
) -> Result<HashMap<String, String>, Problem> {
    query
        .map(|Query(map)| map)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
}

async fn healthz() -> Response {
    plain(StatusCode::OK, "ok\n")
}

async fn readyz(State(app): State<App>) -> Response {
    if app.drain().is_draining() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match app.db().check(READY_WITHIN).await {
        Ok(()) => plain(StatusCode::OK, "ok\n"),
        Err(error) => {
            tracing::debug!(%error, "not ready");
            Problem::from(error).into_response()
        }
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let text = app.metrics().render(app.api(), app.db());
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response()
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if error.is_passing() {
            Problem::unavailable(format!("{error}; try again in a moment"))
        } else {
            // The driver's words may name tables and values: for the log only.
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "a statement failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}
