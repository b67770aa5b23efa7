//! Reading records: newest first, page by page along the primary key.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use crate::db::{AsyncWork, Db, DbError};
use crate::problem::{FieldError, Problem};
use crate::record::{Hora, Record};

/// How long one page may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A record as it lies in the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredRecord {
    /// Primary key.
    pub id: i64,
    /// The twelve fields.
    #[serde(flatten)]
    pub record: Record,
    /// The API that took it.
    pub api: String,
    /// When it was written, UTC, RFC 3339 with microseconds.
    pub created_at: String,
}

/// Which records: the newest `limit` ones with an id below `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most records, 1 or more.
    pub limit: u32,
    /// The last id of the page before, which is not shown again.
    pub after: Option<i64>,
}

/// A page and where the next one starts.
#[derive(Debug, Serialize)]
pub struct Records {
    /// Newest first.
    pub records: Vec<StoredRecord>,
    /// `after` of the next page; null on the last one.
    pub next_after: Option<i64>,
}

impl Page {
    /// Reads `limit` (default 100, at most `max`) and `after` from a query.
    ///
    /// # Errors
    /// 422 that names each bad parameter.
    pub fn from_query(query: &HashMap<String, String>, max: u32) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let mut bad = |field: &str, message: String| {
            errors.push(FieldError {
                field: field.to_owned(),
                index: None,
                message,
            });
        };
        let limit = match query.get("limit").map(|text| text.parse::<u32>()) {
            None => max.min(100),
            Some(Ok(limit)) if (1..=max).contains(&limit) => limit,
            Some(_) => {
                bad("limit", format!("expected a whole number from 1 to {max}"));
                1
            }
        };
        let after = match query.get("after").map(|text| text.parse::<i64>()) {
            None => None,
            Some(Ok(after)) if after >= 0 => Some(after),
            Some(_) => {
                bad("after", "expected the id of a record".to_owned());
                None
            }
        };
        if errors.is_empty() {
            Ok(Self { limit, after })
        } else {
            Err(Problem::unprocessable(
                "the query has bad parameters",
                errors,
            ))
        }
    }
}

/// Reads one page.
///
/// # Errors
/// [`DbError`].
pub async fn page(db: &Db, page: Page) -> Result<Records, DbError> {
    let connection = db.acquire().await?;
    Ok(db.bounded(connection, LIMIT, Newest(page)).await??)
}

struct Newest(Page);

impl AsyncWork<Records> for Newest {
    async fn run(self, connection: &mut MySqlConnection) -> Result<Records, sqlx::Error> {
        newest(connection, self.0).await
    }
}

/// Reads one page on a connection of the caller's.
///
/// # Errors
/// The driver's.
pub async fn newest(connection: &mut MySqlConnection, page: Page) -> Result<Records, sqlx::Error> {
    // One row more than asked for tells whether there is another page.
    let mut records = sqlx::query(
        "SELECT id, total_ram, ram_libre, uso_ram, porcentaje_ram, porcentaje_cpu_uso, \
         porcentaje_cpu_libre, procesos_corriendo, total_procesos, procesos_durmiendo, \
         procesos_zombie, procesos_parados, DATE_FORMAT(hora, '%Y-%m-%d %H:%i:%s') AS hora, api, \
         DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') AS created_at \
         FROM records WHERE id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(page.after.unwrap_or(i64::MAX))
    .bind(page.limit + 1)
    .try_map(stored)
    .fetch_all(connection)
    .await?;
    let more = records.len() > page.limit as usize;
    records.truncate(page.limit as usize);
    let next_after = records.last().filter(|_| more).map(|last| last.id);
    Ok(Records {
        records,
        next_after,
    })
}

fn stored(row: MySqlRow) -> Result<StoredRecord, sqlx::Error> {
    Ok(StoredRecord {
        id: row.try_get("id")?,
        record: Record {
            total_ram: row.try_get("total_ram")?,
            ram_libre: row.try_get("ram_libre")?,
            uso_ram: row.try_get("uso_ram")?,
            porcentaje_ram: row.try_get("porcentaje_ram")?,
            porcentaje_cpu_uso: row.try_get("porcentaje_cpu_uso")?,
            porcentaje_cpu_libre: row.try_get("porcentaje_cpu_libre")?,
            procesos_corriendo: row.try_get("procesos_corriendo")?,
            total_procesos: row.try_get("total_procesos")?,
            procesos_durmiendo: row.try_get("procesos_durmiendo")?,
            procesos_zombie: row.try_get("procesos_zombie")?,
            procesos_parados: row.try_get("procesos_parados")?,
            hora: Hora::from_database(row.try_get("hora")?),
        },
        api: row.try_get("api")?,
        created_at: row.try_get("created_at")?,
    })
}
