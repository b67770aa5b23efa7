//! `/api3/records` and `/api3/stats`, beside what every service answers.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Serialize;
use telemetry::http::{App, not_found, probe_routes, query, reading};
use telemetry::problem::{FieldError, Problem};
use telemetry::read::{Page, Records, page};

use crate::feed::{Away, Feed, Split};
use crate::tally::{Counts, WINDOW_S};

/// Most records of one page.
const MAX_PAGE: u32 = 500;

/// The longest window of the statistics: a day.
const MAX_WINDOW_S: i64 = 86_400;

type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;

/// All routes of api3 but Socket.IO's.
pub fn routes(app: &App, feed: Arc<Feed>) -> Router {
    Router::new()
        .route("/api3/records", reading(get(records)))
        .route("/api3/stats", reading(get(stats)))
        .merge(probe_routes())
        .fallback(not_found)
        .with_state(app.clone())
        .layer(Extension(feed))
}

async fn records(State(app): State<App>, parameters: Parameters) -> Result<Json<Records>, Problem> {
    let wanted = Page::from_query(&query(parameters)?, MAX_PAGE)?;
    Ok(Json(page(app.db(), wanted).await?))
}

#[derive(Serialize)]
struct Stats {
    total: u64,
    counts: Counts,
    #[serde(flatten)]
    split: Split,
}

async fn stats(
    Extension(feed): Extension<Arc<Feed>>,
    parameters: Parameters,
) -> Result<Json<Stats>, Problem> {
    let window_s = match query(parameters)?
        .get("window_s")
        .map(|text| text.parse::<i64>())
    {
        None => WINDOW_S,
        Some(Ok(window_s)) if (1..=MAX_WINDOW_S).contains(&window_s) => window_s,
        Some(_) => {
            return Err(Problem::unprocessable(
                "the query has bad parameters",
                vec![FieldError {
                    field: "window_s".to_owned(),
                    index: None,
                    message: format!("expected a whole number of seconds from 1 to {MAX_WINDOW_S}"),
                }],
            ));
        }
    };
    let (snapshot, split) = feed.split(window_s).await?;
    Ok(Json(Stats {
        total: snapshot.total,
        counts: snapshot.counts,
        split,
    }))
}

impl From<Away> for Problem {
    fn from(away: Away) -> Self {
        Self::unavailable(format!("{away}; try again in a moment"))
    }
}
