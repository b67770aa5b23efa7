//! Asking the database what is new, for all who want to know at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, MySql, QueryBuilder};
use telemetry::db::{AsyncWork, Db, DbError};
use telemetry::read::{Page, StoredRecord, newest};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::tally::{Counts, Row, Tally, WINDOW_S, gaps_from, shares, total};

/// How long one look may take; a page learns of an outage after this.
const LOOK_WITHIN: Duration = Duration::from_millis(800);

/// How long a recount may take: the whole index is read.
const RECOUNT_WITHIN: Duration = Duration::from_secs(120);

/// A recount puts right what counting by id can't see. It comes this often, or
/// seldom enough to use two percent of the time.
const RECOUNT_EVERY: Duration = Duration::from_secs(30);

/// How often the highest id is asked for, which tells that the table was emptied.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Most rows of one look; who is further behind counts anew.
const MAX_ROWS: i64 = 20_000;

/// What is known at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The newest row; null in an empty table.
    pub record: Option<StoredRecord>,
    /// Rows of each API.
    pub counts: Counts,
    /// All rows.
    pub total: u64,
    /// Grows whenever any of the above changed.
    #[serde(skip)]
    pub version: u64,
    #[serde(skip)]
    tally: Arc<Tally>,
    #[serde(skip)]
    second: i64,
}

/// The split of the last `window_s` seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Split {
    /// Seconds looked back.
    pub window_s: i64,
    /// Rows of each API in them.
    pub by_api: Counts,
    /// The part of each, 0 to 1.
    pub share: BTreeMap<String, f64>,
}

impl Split {
    fn of(window_s: i64, by_api: Counts) -> Self {
        Self {
            window_s,
            share: shares(&by_api),
            by_api,
        }
    }
}

impl Snapshot {
    /// The split of at most the last [`WINDOW_S`] seconds.
    pub fn split(&self, window_s: i64) -> Split {
        Split::of(window_s, self.tally.lately(window_s, self.second))
    }
}

/// The database could not be asked; clones tell all who waited.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Away(String);

impl From<DbError> for Away {
    fn from(error: DbError) -> Self {
        if !error.is_passing() {
            tracing::error!(
                error = telemetry::service::chain(&error),
                "a statement failed"
            );
        }
        Self(error.to_string())
    }
}

/// The one who asks.
#[derive(Debug)]
pub struct Feed {
    db: Db,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: Option<Arc<Tally>>,
    newest: Option<StoredRecord>,
    /// The database's clock minus ours, seconds.
    ahead: i64,
    version: u64,
    looked: Option<(Instant, Result<(), Away>)>,
    checked: Option<Instant>,
    recount_due: Option<Instant>,
    recount: Option<JoinHandle<Result<Recount, DbError>>>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(recount) = self.recount.take() {
            recount.abort();
        }
    }
}

impl Feed {
    /// A feed that has asked nothing yet.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            state: Mutex::default(),
        }
    }

    /// The database that is asked.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What is known, at most `max_age` old: asks the database when it is
    /// older. Those who come meanwhile wait and share the answer, a failure
    /// too.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn snapshot(&self, max_age: Duration) -> Result<Snapshot, Away> {
        let mut state = self.state.lock().await;
        let fresh = match &state.looked {
            Some((at, outcome)) if at.elapsed() < max_age => Some(outcome.clone()),
            _ => None,
        };
        let outcome = match fresh {
            Some(outcome) => outcome,
            None => {
                let outcome = self.look(&mut state).await.map_err(Away::from);
                state.looked = Some((Instant::now(), outcome.clone()));
                outcome
            }
        };
        outcome?;
        let tally = state.tally.clone().unwrap_or_default();
        Ok(Snapshot {
            record: state.newest.clone(),
            counts: tally.counts().clone(),
            total: total(tally.counts()),
            version: state.version,
            tally,
            second: unix_now() + state.ahead,
        })
    }

    /// The split of any window, from memory when that reaches back so far.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn split(&self, window_s: i64) -> Result<(Snapshot, Split), Away> {
        let snapshot = self.snapshot(Duration::from_millis(100)).await?;
        let split = if window_s <= WINDOW_S {
            snapshot.split(window_s)
        } else {
            let connection = self.db.acquire().await?;
            let work = CountSince { window_s };
            let mut by_api = self
                .db
                .bounded(connection, Duration::from_secs(10), work)
                .await?
                .map_err(DbError::from)?;
            for api in snapshot.counts.keys() {
                by_api.entry(api.clone()).or_default();
            }
            Split::of(window_s, by_api)
        };
        Ok((snapshot, split))
    }

    /// One look at the database.
    async fn look(&self, state: &mut State) -> Result<(), DbError> {
        if state.tally.is_none() {
            self.recount_now(state).await?;
        }
        self.take_recount(state).await;
        let now = Instant::now();
        let check = state.checked.is_none_or(|at| now >= at + CHECK_EVERY);
        let tally = state.tally.clone().unwrap_or_default();
        let work = Look {
            tally: &tally,
            newest_id: state.newest.as_ref().map(|r| r.id),
            check,
        };
        let seen = tokio::time::timeout(LOOK_WITHIN, async {
            let connection = self.db.acquire().await?;
            Ok(self.db.bounded(connection, LOOK_WITHIN, work).await??)
        })
        .await
        .unwrap_or(Err(DbError::Late(LOOK_WITHIN)))?;
        if check {
            state.checked = Some(now);
        }
        if seen.emptied || seen.rows.len() as i64 == MAX_ROWS {
            return self.recount_now(state).await;
        }
        let mut tally = tally;
        // Copies only when a snapshot of before is still being read.
        let own = Arc::make_mut(&mut tally);
        if own.add(&seen.rows, now) > 0 {
            state.version += 1;
        }
        own.forget(now, unix_now() + state.ahead);
        if let Some(newest) = seen.newest {
            state.newest = Some(newest);
        }
        state.tally = Some(tally);
        if state.recount.is_none() && state.recount_due.is_some_and(|due| now >= due) {
            let db = self.db.clone();
            state.recount = Some(tokio::spawn(async move { recount(&db).await }));
        }
        Ok(())
    }

    async fn recount_now(&self, state: &mut State) -> Result<(), DbError> {
        state.use_recount(recount(&self.db).await?);
        Ok(())
    }

    /// Takes over the result of a recount in the background. Rows that came
    /// while it ran lie above its last id and are found by the next look.
    async fn take_recount(&self, state: &mut State) {
        if !state.recount.as_ref().is_some_and(JoinHandle::is_finished) {
            return;
        }
        let Some(recount) = state.recount.take() else {
            return;
        };
        match recount.await {
            Ok(Ok(recount)) => state.use_recount(recount),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the recount failed");
                state.recount_due = Some(Instant::now() + RECOUNT_EVERY);
            }
            Err(error) => tracing::error!(%error, "the recount panicked"),
        }
    }
}

impl State {
    fn use_recount(&mut self, recount: Recount) {
        self.recount_due = Some(Instant::now() + RECOUNT_EVERY.max(recount.took * 50));
        self.ahead = recount.second - unix_now();
        self.tally = Some(Arc::new(recount.tally));
        self.newest = recount.newest;
        self.version += 1;
    }
}

fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

/// What a look found.
struct Seen {
    rows: Vec<Row>,
    newest: Option<StoredRecord>,
    /// The highest id is lower than before.
    emptied: bool,
}

struct Look<'a> {
    tally: &'a Tally,
    newest_id: Option<i64>,
    check: bool,
}

impl AsyncWork<Seen> for Look<'_> {
    async fn run(self, connection: &mut MySqlConnection) -> Result<Seen, sqlx::Error> {
        let last_id = self.tally.last_id();
        let mut query = QueryBuilder::<MySql>::new(
            "SELECT id, api, COALESCE(CAST(FLOOR(UNIX_TIMESTAMP(created_at)) AS SIGNED), 0) \
             FROM records WHERE id > ",
        );
        query.push_bind(last_id);
        let mut gaps = 0;
        for gap in self.tally.gaps() {
            gaps += 1;
            query
                .push(" OR id BETWEEN ")
                .push_bind(gap.first)
                .push(" AND ")
                .push_bind(gap.last);
        }
        query.push(" ORDER BY id LIMIT ").push_bind(MAX_ROWS);
        let rows: Vec<(i64, String, i64)> = query
            .build_query_as()
            // Without gaps the text is always the same, and stays prepared.
            .persistent(gaps == 0)
            .fetch_all(&mut *connection)
            .await?;
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(id, api, second)| Row { id, api, second })
            .collect();
        let highest = rows.last().map_or(last_id, |row| row.id.max(last_id));
        let newest = if self.newest_id.unwrap_or(0) < highest {
            newest(
                connection,
                Page {
                    limit: 1,
                    after: None,
                },
            )
            .await?
            .records
            .pop()
        } else {
            None
        };
        let emptied = self.check && {
            let highest: Option<i64> = sqlx::query_scalar("SELECT MAX(id) FROM records")
                .fetch_one(connection)
                .await?;
            highest.unwrap_or(0) < last_id
        };
        Ok(Seen {
            rows,
            newest,
            emptied,
        })
    }
}

/// All rows, counted at one moment.
#[derive(Debug)]
struct Recount {
    tally: Tally,
    newest: Option<StoredRecord>,
    /// The database's clock, Unix seconds.
    second: i64,
    took: Duration,
}

async fn recount(db: &Db) -> Result<Recount, DbError> {
    // The wait for a connection is short, as pages wait for the answer.
    let connection = tokio::time::timeout(LOOK_WITHIN, db.acquire())
        .await
        .unwrap_or(Err(DbError::Late(LOOK_WITHIN)))?;
    Ok(db.bounded(connection, RECOUNT_WITHIN, CountAll).await??)
}

struct CountAll;

impl AsyncWork<Recount> for CountAll {
    async fn run(self, connection: &mut MySqlConnection) -> Result<Recount, sqlx::Error> {
        let started = Instant::now();
        // The statements must see the same rows.
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .execute(&mut *connection)
            .await?;
        let mut transaction = connection
            .begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await?;
        let counts: Vec<(String, i64)> =
            sqlx::query_as("SELECT api, COUNT(*) FROM records GROUP BY api")
                .fetch_all(&mut *transaction)
                .await?;
        let (last_id, second): (i64, i64) = sqlx::query_as(
            "SELECT COALESCE(MAX(id), 0), CAST(UNIX_TIMESTAMP() AS SIGNED) FROM records",
        )
        .fetch_one(&mut *transaction)
        .await?;
        let newest_ids: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM records WHERE id >= ? ORDER BY id")
                .bind(gaps_from(last_id))
                .fetch_all(&mut *transaction)
                .await?;
        let seconds: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT api, COALESCE(CAST(FLOOR(UNIX_TIMESTAMP(created_at)) AS SIGNED), 0) AS s, COUNT(*) \
             FROM records WHERE created_at >= UTC_TIMESTAMP(6) - INTERVAL ? SECOND GROUP BY api, s",
        )
        .bind(WINDOW_S)
        .fetch_all(&mut *transaction)
        .await?;
        let newest = newest(
            &mut transaction,
            Page {
                limit: 1,
                after: None,
            },
        )
        .await?
        .records
        .pop();
        transaction.commit().await?;

        let mut lately: BTreeMap<i64, Counts> = BTreeMap::new();
        for (api, second, n) in seconds {
            lately
                .entry(second)
                .or_default()
                .insert(api, n.unsigned_abs());
        }
        let counts = counts
            .into_iter()
            .map(|(api, n)| (api, n.unsigned_abs()))
            .collect();
        let now = Instant::now();
        Ok(Recount {
            tally: Tally::recounted(counts, last_id, &newest_ids, lately, now),
            newest,
            second,
            took: started.elapsed(),
        })
    }
}

struct CountSince {
    window_s: i64,
}

impl AsyncWork<Counts> for CountSince {
    async fn run(self, connection: &mut MySqlConnection) -> Result<Counts, sqlx::Error> {
        let counts: Vec<(String, i64)> = sqlx::query_as(
            "SELECT api, COUNT(*) FROM records \
             WHERE created_at >= UTC_TIMESTAMP(6) - INTERVAL ? SECOND GROUP BY api",
        )
        .bind(self.window_s)
        .fetch_all(connection)
        .await?;
        Ok(counts
            .into_iter()
            .map(|(api, n)| (api, n.unsigned_abs()))
            .collect())
    }
}
