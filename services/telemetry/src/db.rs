//! The database behind `cloudsql`: a lazy pool, and what its errors mean for
//! the one who called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySql, MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::config;

/// A connection that lay idle for longer is asked before it is used: while the
/// service is busy nothing is asked, and after a restart of the database no
/// request is spent on finding out that the old connections are dead.
const ASK_AFTER_IDLE: Duration = Duration::from_millis(500);

/// How many requests may wait for a connection: enough for any burst that the
/// database can catch up with within the acquire timeout, and few while it is
/// away, so that an outage costs neither memory nor two seconds a request.
const WAITING_WHEN_HERE: usize = 2048;
const WAITING_WHEN_AWAY: usize = 64;

/// A handle to the database; clones share the pool.
#[derive(Debug, Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: MySqlPool,
    away: AtomicBool,
    waiting: AtomicUsize,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It can't be reached, or is not able to serve for now.
    #[error("the database can't be reached")]
    Away(#[source] sqlx::Error),
    /// More requests wait for a connection than can be served in time.
    #[error("too many requests wait for the database already")]
    Busy,
    /// It took the statement and did not answer.
    #[error("the database did not answer within {0:?}")]
    Late(Duration),
    /// Every attempt was rolled back because of another transaction's locks.
    #[error("the database rolled back every attempt because of other transactions")]
    Contended(#[source] sqlx::Error),
    /// It refused the statement: a mistake of this program or of the schema.
    #[error("the database refused the statement")]
    Refused(#[source] sqlx::Error),
}

impl DbError {
    /// Whether the same request may succeed later without anyone's change.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// What an error of the driver means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server is away or not able to serve; what was asked may or may not
    /// have been done.
    Away,
    /// The transaction was rolled back because of locks: try again.
    RolledBack,
    /// A row with this key exists.
    Duplicate,
    /// The statement itself was refused.
    Refused,
}

/// Sorts an error of the driver. Numbers: MySQL's "Server Error Message
/// Reference", and MariaDB's error codes from 1900 on.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(e) => {
            let Some(e) = e.try_downcast_ref::<MySqlDatabaseError>() else {
                return Fault::Refused;
            };
            match e.number() {
                1062 => Fault::Duplicate,
                // 1020: MariaDB 11.6.2 and newer, a row changed since the snapshot.
                1020 | 1205 | 1213 => Fault::RolledBack,
                // Starting, stopping, too many connections, credentials or schema
                // not there yet, read-only (a failover), disk full, killed.
                1021
                | 1030
                | 1040
                | 1044
                | 1045
                | 1049
                | 1053
                | 1077..=1080
                | 1114
                | 1129
                | 1130
                | 1146
                | 1152
                | 1158..=1161
                | 1180
                | 1184
                | 1203
                | 1226
                | 1290
                | 1317
                | 1792
                | 1836
                | 1927
                | 1969
                | 3024
                | 3032
                | 3168
                | 3169
                | 3170
                | 4031 => Fault::Away,
                _ => Fault::Refused,
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => Fault::Away,
        _ => Fault::Refused,
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match fault(&error) {
            Fault::Away => Self::Away(error),
            Fault::RolledBack => Self::Contended(error),
            Fault::Duplicate | Fault::Refused => Self::Refused(error),
        }
    }
}

impl Db {
    /// A pool that opens its first connection when one is needed. Must be
    /// called within a tokio runtime, where the pool keeps its upkeep task.
    pub fn new(config: &config::Database) -> Self {
        let options = MySqlConnectOptions::new()
            .host(&config.host)
            .port(config.port)
            .username(&config.user)
            .password(config.password.reveal())
            .database(&config.name)
            .disable_statement_logging();
        let pool = MySqlPoolOptions::new()
            .max_connections(config.pool_max)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1800))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > ASK_AFTER_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Rows and keys are only ever added: no gap locks needed,
                    // and so hardly ever a deadlock. A duplicate waits for the
                    // first of its key, but not for a minute.
                    connection
                        .execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                        .await?;
                    connection
                        .execute("SET SESSION innodb_lock_wait_timeout = 3")
                        .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Self {
            inner: Arc::new(Inner {
                pool,
                away: AtomicBool::new(false),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// A connection that works, as far as can be known without asking.
    ///
    /// # Errors
    /// [`DbError::Away`] after the acquire timeout at the latest,
    /// [`DbError::Busy`] at once when too many wait already.
    pub async fn acquire(&self) -> Result<PoolConnection<MySql>, DbError> {
        let limit = if self.is_away() {
            WAITING_WHEN_AWAY
        } else {
            WAITING_WHEN_HERE
        };
        let _ticket = Ticket::take(&self.inner.waiting, limit).ok_or(DbError::Busy)?;
        match self.inner.pool.acquire().await {
            Ok(connection) => {
                if self.inner.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the database is back");
                }
                Ok(connection)
            }
            Err(error) => {
                self.note_away(&error);
                Err(error.into())
            }
        }
    }

    /// Takes the outcome of work on `connection`, bounded by `limit`, and
    /// parts with the connection: kept if sound, closed if work was cut off.
    ///
    /// # Errors
    /// The outer error when the connection is lost or time ran out; the inner
    /// one is the driver's, for the caller to sort.
    pub async fn bounded<T>(
        &self,
        mut connection: PoolConnection<MySql>,
        limit: Duration,
        work: impl AsyncWork<T>,
    ) -> Result<Result<T, sqlx::Error>, DbError> {
        match tokio::time::timeout(limit, work.run(&mut connection)).await {
            Ok(Ok(value)) => Ok(Ok(value)),
            Ok(Err(error)) if fault(&error) == Fault::Away => {
                // Half a conversation can't go on; a rollback is implied.
                connection.close_on_drop();
                self.note_away(&error);
                Err(DbError::Away(error))
            }
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => {
                connection.close_on_drop();
                Err(DbError::Late(limit))
            }
        }
    }

    /// Whether rows could be written now: a connection is had within `limit`
    /// and the table is there.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn check(&self, limit: Duration) -> Result<(), DbError> {
        let work = async {
            let mut connection = self.acquire().await?;
            sqlx::query("SELECT 1 FROM records LIMIT 1")
                .execute(&mut *connection)
                .await?;
            Ok(())
        };
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(DbError::Late(limit)))
    }

    /// Whether the last thing heard of the database was that it is away.
    pub fn is_away(&self) -> bool {
        self.inner.away.load(Ordering::Relaxed)
    }

    /// Connections in use, connections idle, most that may be opened.
    pub fn connections(&self) -> (usize, usize, u32) {
        let size = self.inner.pool.size() as usize;
        let idle = self.inner.pool.num_idle();
        (
            size.saturating_sub(idle),
            idle,
            self.inner.pool.options().get_max_connections(),
        )
    }

    /// Closes the pool once what is in use came back, or after `limit`.
    pub async fn close(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.inner.pool.close()).await;
    }

    /// Notes that the database is away, and logs it once.
    fn note_away(&self, error: &sqlx::Error) {
        if !self.inner.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the database is away");
        }
    }
}

/// Work on a connection. A trait and not a closure, because an async closure
/// can't promise that its future may move between threads.
pub trait AsyncWork<T> {
    /// Does it.
    fn run(
        self,
        connection: &mut sqlx::MySqlConnection,
    ) -> impl Future<Output = Result<T, sqlx::Error>> + Send;
}

/// One place among those who wait for a connection.
struct Ticket<'a>(&'a AtomicUsize);

impl<'a> Ticket<'a> {
    fn take(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let ticket = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(ticket)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bounded_and_come_back() {
        let waiting = AtomicUsize::new(0);
        let first = Ticket::take(&waiting, 2);
        let second = Ticket::take(&waiting, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Ticket::take(&waiting, 2).is_none());
        drop(first);
        assert!(Ticket::take(&waiting, 2).is_some());
        drop(second);
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_lost_connection_is_passing_a_bad_statement_is_not() {
        let io = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(fault(&io()), Fault::Away);
        assert!(DbError::from(io()).is_passing());
        assert!(DbError::from(sqlx::Error::PoolTimedOut).is_passing());
        assert!(!DbError::from(sqlx::Error::ColumnNotFound("x".into())).is_passing());
    }
}
