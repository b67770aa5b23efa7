//! Writing records: all of a request or nothing, and with an
//! `Idempotency-Key` once, however often and through whichever API it comes.
//!
//! Rows and key share one transaction. The key goes in first: its primary key
//! makes a concurrent duplicate wait inside the database until the first one
//! has committed (then it reads the first one's answer) or rolled back (then
//! it takes over), also across processes and after a crash of either.

mod key;

pub use key::{BadKey, Key, KeyLocks};

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, MySql, QueryBuilder};
use tokio::time::Instant;

use crate::db::{AsyncWork, Db, DbError, Fault, fault};
use crate::record::Record;

/// How long all attempts of one write may take together. A proxy's usual
/// patience is 60 s; a client is better served with an early 503.
const LIMIT: Duration = Duration::from_secs(10);

/// Attempts when the database rolls back because of locks.
const ATTEMPTS: u32 = 6;

/// Answers to keys are kept this long, in hours.
pub const KEEP_KEYS_HOURS: u32 = 24;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Ids of the rows, in the request's order.
    pub ids: Vec<i64>,
    /// The API that took them: with a repeated key, the one that took the first.
    pub api: String,
    /// Whether this is the answer to an earlier request with the same key.
    pub replayed: bool,
}

/// Why nothing was written, or nothing is known to have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database's part.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The key was used for another body.
    #[error("this Idempotency-Key was used with another body; a new request needs a new key")]
    KeyReused,
}

/// A request's key with what it was sent for.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// The `Idempotency-Key`.
    pub key: Key,
    /// SHA-256 of the body as it came, in hexadecimal.
    pub body_sha256: String,
}

/// Commits the records, stamped with `api`.
///
/// # Errors
/// [`WriteError`]. After [`DbError::Away`] or [`DbError::Late`] it is unknown
/// whether the rows were committed; with a key, the same request sent again
/// finds out and leaves exactly one row for each record.
pub async fn insert(
    db: &Db,
    locks: &KeyLocks,
    api: &str,
    records: &[Record],
    keyed: Option<&Keyed>,
) -> Result<Receipt, WriteError> {
    let deadline = Instant::now() + LIMIT;
    // Duplicates inside this process wait here, without a connection each.
    let _turn = match keyed {
        Some(keyed) => Some(
            tokio::time::timeout_at(deadline, locks.lock(&keyed.key))
                .await
                .map_err(|_| DbError::Late(LIMIT))?,
        ),
        None => None,
    };
    let mut attempt = 1;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = db.acquire().await?;
        let work = Attempt {
            api,
            records,
            keyed,
        };
        let error = match db.bounded(connection, left, work).await? {
            Ok(Outcome::Written(ids)) => {
                return Ok(Receipt {
                    ids,
                    api: api.to_owned(),
                    replayed: false,
                });
            }
            Ok(Outcome::Found {
                api,
                ids,
                same_body: true,
            }) => {
                return Ok(Receipt {
                    ids,
                    api,
                    replayed: true,
                });
            }
            Ok(Outcome::Found {
                same_body: false, ..
            }) => return Err(WriteError::KeyReused),
            Ok(Outcome::Vanished) => None,
            Err(error) if fault(&error) == Fault::RolledBack => Some(error),
            Err(error) => return Err(DbError::from(error).into()),
        };
        if attempt == ATTEMPTS || deadline <= Instant::now() {
            return Err(error.map_or(DbError::Busy, DbError::Contended).into());
        }
        tracing::debug!(attempt, ?error, "the database rolled back, trying again");
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// A pause that doubles with each attempt, up to half of it by chance: two
/// that met must not meet again.
fn pause(attempt: u32) -> Duration {
    // The standard library's hasher is keyed at random; no crate is needed.
    let chance = RandomState::new().hash_one(attempt);
    let base = 4_000_u64 << attempt.min(8);
    Duration::from_micros(base / 2 + chance % (base / 2))
}

/// Removes answers older than [`KEEP_KEYS_HOURS`], a thousand at a time so that
/// no lock is held for long; says how many.
///
/// # Errors
/// [`DbError`]; what was removed before stays removed.
pub async fn prune(db: &Db) -> Result<u64, DbError> {
    let mut removed = 0;
    loop {
        let mut connection = db.acquire().await?;
        let batch = sqlx::query(
            "DELETE FROM idempotency WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL ? HOUR \
             ORDER BY created_at LIMIT 1000",
        )
        .bind(KEEP_KEYS_HOURS)
        .execute(&mut *connection)
        .await?
        .rows_affected();
        removed += batch;
        if batch < 1000 {
            return Ok(removed);
        }
    }
}

/// One attempt to write.
struct Attempt<'a> {
    api: &'a str,
    records: &'a [Record],
    keyed: Option<&'a Keyed>,
}

enum Outcome {
    /// Committed.
    Written(Vec<i64>),
    /// The key is taken; nothing was written.
    Found {
        api: String,
        ids: Vec<i64>,
        same_body: bool,
    },
    /// The key was taken a moment ago and is free now.
    Vanished,
}

impl AsyncWork<Outcome> for Attempt<'_> {
    async fn run(self, connection: &mut MySqlConnection) -> Result<Outcome, sqlx::Error> {
        match (self.keyed, self.records) {
            (Some(keyed), _) => self.with_key(connection, keyed).await,
            // One statement is its own transaction.
            (None, [record]) => Ok(Outcome::Written(vec![
                insert_one(connection, self.api, record).await?,
            ])),
            (None, _) => {
                let mut transaction = connection.begin().await?;
                let ids = insert_all(&mut transaction, self.api, self.records).await?;
                transaction.commit().await?;
                Ok(Outcome::Written(ids))
            }
        }
    }
}

impl Attempt<'_> {
    async fn with_key(
        &self,
        connection: &mut MySqlConnection,
        keyed: &Keyed,
    ) -> Result<Outcome, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let taken = sqlx::query(
            "INSERT INTO idempotency (`key`, body_sha256, api, ids, created_at) \
             VALUES (?, ?, ?, '[]', UTC_TIMESTAMP(6))",
        )
        .bind(keyed.key.as_str())
        .bind(&keyed.body_sha256)
        .bind(self.api)
        .execute(&mut *transaction)
        .await;
        match taken {
            Ok(_) => {}
            Err(error) if fault(&error) == Fault::Duplicate => {
                transaction.rollback().await?;
                return find(connection, keyed).await;
            }
            Err(error) => return Err(error),
        }
        let ids = match self.records {
            [record] => vec![insert_one(&mut transaction, self.api, record).await?],
            records => insert_all(&mut transaction, self.api, records).await?,
        };
        sqlx::query("UPDATE idempotency SET ids = ? WHERE `key` = ?")
            .bind(sqlx::types::Json(&ids))
            .bind(keyed.key.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Outcome::Written(ids))
    }
}

/// The first answer to a key.
async fn find(connection: &mut MySqlConnection, keyed: &Keyed) -> Result<Outcome, sqlx::Error> {
    let row: Option<(String, String, sqlx::types::Json<Vec<i64>>)> =
        sqlx::query_as("SELECT api, body_sha256, ids FROM idempotency WHERE `key` = ?")
            .bind(keyed.key.as_str())
            .fetch_optional(connection)
            .await?;
    Ok(match row {
        Some((api, body_sha256, ids)) => Outcome::Found {
            api,
            ids: ids.0,
            same_body: body_sha256 == keyed.body_sha256,
        },
        None => Outcome::Vanished,
    })
}

macro_rules! columns {
    () => {
        "INSERT INTO records (total_ram, ram_libre, uso_ram, porcentaje_ram, \
         porcentaje_cpu_uso, porcentaje_cpu_libre, procesos_corriendo, total_procesos, \
         procesos_durmiendo, procesos_zombie, procesos_parados, hora, api, created_at) "
    };
}

const INSERT_ONE: &str = concat!(
    columns!(),
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))"
);

async fn insert_one(
    connection: &mut MySqlConnection,
    api: &str,
    record: &Record,
) -> Result<i64, sqlx::Error> {
    // Kept prepared on the connection: the same text each time.
    let done = sqlx::query(INSERT_ONE)
        .bind(record.total_ram)
        .bind(record.ram_libre)
        .bind(record.uso_ram)
        .bind(record.porcentaje_ram)
        .bind(record.porcentaje_cpu_uso)
        .bind(record.porcentaje_cpu_libre)
        .bind(record.procesos_corriendo)
        .bind(record.total_procesos)
        .bind(record.procesos_durmiendo)
        .bind(record.procesos_zombie)
        .bind(record.procesos_parados)
        .bind(record.hora.as_str())
        .bind(api)
        .execute(connection)
        .await?;
    Ok(done.last_insert_id() as i64)
}

/// Inserts all in one statement. InnoDB gives the rows of an INSERT whose
/// number of rows is known beforehand ids in one run, in every
/// `innodb_autoinc_lock_mode`, `auto_increment_increment` apart (which group
/// replication and Galera set to the number of servers).
async fn insert_all(
    connection: &mut MySqlConnection,
    api: &str,
    records: &[Record],
) -> Result<Vec<i64>, sqlx::Error> {
    let step: u64 =
        sqlx::query_scalar("SELECT CAST(@@SESSION.auto_increment_increment AS UNSIGNED)")
            .fetch_one(&mut *connection)
            .await?;
    let mut query = QueryBuilder::<MySql>::new(columns!());
    query.push_values(records, |mut row, record| {
        row.push_bind(record.total_ram)
            .push_bind(record.ram_libre)
            .push_bind(record.uso_ram)
            .push_bind(record.porcentaje_ram)
            .push_bind(record.porcentaje_cpu_uso)
            .push_bind(record.porcentaje_cpu_libre)
            .push_bind(record.procesos_corriendo)
            .push_bind(record.total_procesos)
            .push_bind(record.procesos_durmiendo)
            .push_bind(record.procesos_zombie)
            .push_bind(record.procesos_parados)
            .push_bind(record.hora.as_str())
            .push_bind(api)
            .push("UTC_TIMESTAMP(6)");
    });
    // Not kept prepared: there are as many texts as lengths of arrays.
    let done = query
        .build()
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    let first = done.last_insert_id();
    Ok((0..records.len() as u64)
        .map(|n| (first + n * step) as i64)
        .collect())
}
