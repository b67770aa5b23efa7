//! `POST /api` and `GET /api/records`.

use std::collections::HashMap;
use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{App, body, not_found, observed, probe_routes, query, reading, with_allow};
use crate::problem::{FieldError, Problem};
use crate::read::{self, Page, Records};
use crate::record::{BatchError, parse_body};
use crate::write::{self, Key, Keyed, WriteError};

/// Most records of one page.
const MAX_PAGE: u32 = 1000;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// All routes of api1 and api2.
pub fn write_router(app: &App) -> Router {
    let router = Router::new()
        .route("/api", with_allow(post(accept), "POST, OPTIONS"))
        .route("/api/records", reading(get(records)))
        .merge(probe_routes())
        .fallback(not_found)
        .with_state(app.clone());
    observed(router, app.clone())
}

#[derive(Serialize)]
struct Created {
    ids: Vec<i64>,
    api: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct Warning {
    field: String,
    message: &'static str,
}

async fn accept(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let body = body::read_json(&headers, body).await?;
    let batch = parse_body(&body)?;
    let keyed = key.map(|key| Keyed {
        key,
        body_sha256: hex::encode(Sha256::digest(&body)),
    });
    drop(body);

    let started = Instant::now();
    // A task of its own: when the client hangs up, the statement under way is
    // finished in order instead of being cut off, which would cost the pool a
    // connection.
    let task = tokio::spawn({
        let app = app.clone();
        async move {
            write::insert(
                app.db(),
                app.locks(),
                app.api(),
                &batch.records,
                keyed.as_ref(),
            )
            .await
            .map(|receipt| (receipt, batch.unknown))
        }
    });
    let (receipt, unknown) = task.await.map_err(|error| {
        tracing::error!(%error, "writing records panicked");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "writing the records failed",
        )
    })??;
    if !receipt.replayed {
        app.metrics().insert(receipt.ids.len(), started.elapsed());
    }
    let warnings = unknown
        .into_iter()
        .map(|field| Warning {
            field,
            message: "is no field of a record and was ignored",
        })
        .collect();
    let created = Created {
        ids: receipt.ids,
        api: receipt.api,
        warnings,
    };
    let mut response = (StatusCode::CREATED, Json(created)).into_response();
    if receipt.replayed {
        response
            .headers_mut()
            .insert(&IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bad = |message: String| {
        Problem::unprocessable(
            "the Idempotency-Key can't be used",
            vec![FieldError {
                field: "Idempotency-Key".to_owned(),
                index: None,
                message,
            }],
        )
    };
    if values.next().is_some() {
        return Err(bad("is there twice".to_owned()));
    }
    Key::parse(value.as_bytes())
        .map(Some)
        .map_err(|error| bad(error.to_string()))
}

async fn records(
    State(app): State<App>,
    parameters: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Result<Json<Records>, Problem> {
    let page = Page::from_query(&query(parameters)?, MAX_PAGE)?;
    Ok(Json(read::page(app.db(), page).await?))
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Syntax(ref source) => {
                Problem::new(StatusCode::BAD_REQUEST, format!("{error}: {source}"))
            }
            BatchError::Fields(errors) => {
                Problem::unprocessable("the body is not a record, or not records", errors)
            }
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::KeyReused => Problem::unprocessable(
                error.to_string(),
                vec![FieldError {
                    field: "Idempotency-Key".to_owned(),
                    index: None,
                    message: "was used with another body".to_owned(),
                }],
            ),
            WriteError::Db(error) if error.is_passing() => Problem::unavailable(format!(
                "{error}; try again in a moment, with the same Idempotency-Key if there was one"
            )),
            WriteError::Db(error) => error.into(),
        }
    }
}
