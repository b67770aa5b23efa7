//! Runs the project's SQL migrations against Cloud SQL before any workload starts.
//!
//! Files and bookkeeping are sqlx's (`0001_name.sql`, table `_sqlx_migrations`), so
//! `sqlx migrate` works on the same database. Statements are sent one at a time,
//! because a failure must name its line.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, MySqlConnection,
    migrate::{AppliedMigration, Migrate, Migration, Migrator},
    mysql::MySqlConnectOptions,
};

use super::statements;

/// sqlx's own bookkeeping table; both it and we use the default name.
const TABLE: &str = "_sqlx_migrations";

/// What a run of the migrations did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// How many were already there.
    pub before: usize,
    /// The versions applied now.
    pub applied: Vec<i64>,
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The folder can't be read or a file's name has no version.
    #[error("can't read the migrations in {folder}: {reason}; files are named 0001_what.sql")]
    Folder {
        /// The folder, as devenv.toml names it.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A statement was refused.
    #[error("{}:{line}: {error}\n  in: {statement}", file.display())]
    Statement {
        /// Whether statements before it are applied, so that the file can't simply be
        /// run again: MySQL commits DDL at once.
        half_way: bool,
        /// The migration's file.
        file: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// The server's own words, with its error number.
        error: String,
        /// The beginning of the statement.
        statement: String,
    },
    /// An applied migration was edited afterwards.
    #[error("{} was changed after it had been applied; put it back and add a new migration, or start afresh with: devenv down -v", file.display())]
    Changed {
        /// The migration's file.
        file: PathBuf,
    },
    /// An applied migration is not in the folder any more.
    #[error("the database has migration {version}, which is not in {}; bring the file back, or start afresh with: devenv down -v", folder.display())]
    Missing {
        /// Its version.
        version: i64,
        /// The folder.
        folder: PathBuf,
    },
    /// A migration failed half way in an earlier run.
    #[error("migration {} failed half way earlier, and MySQL can't undo DDL; start afresh with: devenv down -v", file.display())]
    Dirty {
        /// The migration's file.
        file: PathBuf,
    },
    /// The database could not be asked.
    #[error("the database did not answer during the migrations")]
    Database(#[source] sqlx::Error),
}

/// Brings the schema up to date with the folder `root/folder`.
///
/// A migration that fails in its first statement leaves no trace; one that fails
/// later is marked as failed, since MySQL commits DDL at once, and is refused until
/// the data is thrown away.
pub async fn run(
    options: &MySqlConnectOptions,
    root: &Path,
    folder: &Path,
) -> Result<Migrated, MigrateError> {
    let migrator = Migrator::new(root.join(folder))
        .await
        .map_err(|e| MigrateError::Folder {
            folder: folder.to_owned(),
            reason: e.to_string(),
        })?;
    let mut db = options.connect().await.map_err(MigrateError::Database)?;
    let done = run_on(&mut db, &migrator, root, folder).await;
    // The lock and the session end with the connection, also after a failure.
    db.close().await.ok();
    done
}

async fn run_on(
    db: &mut MySqlConnection,
    migrator: &Migrator,
    root: &Path,
    folder: &Path,
) -> Result<Migrated, MigrateError> {
    db.lock().await.map_err(asked)?;
    db.ensure_migrations_table(TABLE).await.map_err(asked)?;
    if let Some(version) = db.dirty_version(TABLE).await.map_err(asked)? {
        let file = file_of(root, folder, version);
        return Err(MigrateError::Dirty { file });
    }
    let applied = db.list_applied_migrations(TABLE).await.map_err(asked)?;
    check_applied(&applied, migrator, root, folder)?;
    let mut now = Vec::new();
    for migration in migrator
        .iter()
        .filter(|m| !m.migration_type.is_down_migration())
    {
        if applied.iter().all(|a| a.version != migration.version) {
            apply(db, migration, &file_of(root, folder, migration.version)).await?;
            now.push(migration.version);
        }
    }
    Ok(Migrated {
        before: applied.len(),
        applied: now,
    })
}

fn check_applied(
    applied: &[AppliedMigration],
    migrator: &Migrator,
    root: &Path,
    folder: &Path,
) -> Result<(), MigrateError> {
    for a in applied {
        let Some(m) = migrator
            .iter()
            .find(|m| m.version == a.version && !m.migration_type.is_down_migration())
        else {
            return Err(MigrateError::Missing {
                version: a.version,
                folder: folder.to_owned(),
            });
        };
        if m.checksum != a.checksum {
            return Err(MigrateError::Changed {
                file: file_of(root, folder, a.version),
            });
        }
    }
    Ok(())
}

async fn apply(
    db: &mut MySqlConnection,
    migration: &Migration,
    file: &Path,
) -> Result<(), MigrateError> {
    let start = Instant::now();
    for (n, statement) in statements::split(migration.sql.as_str()).iter().enumerate() {
        let refused = match db
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement.sql)))
            .await
        {
            Ok(_) => continue,
            Err(e) => e,
        };
        if !matches!(refused, sqlx::Error::Database(_)) {
            return Err(MigrateError::Database(refused));
        }
        if n > 0 {
            record(db, migration, start.elapsed(), false).await?;
        }
        let (line, error) = place(statement.line, &refused);
        return Err(MigrateError::Statement {
            half_way: n > 0,
            file: file.to_owned(),
            line,
            error,
            statement: shortened(statement.sql),
        });
    }
    record(db, migration, start.elapsed(), true).await
}

/// Writes the row that sqlx itself would write.
async fn record(
    db: &mut MySqlConnection,
    migration: &Migration,
    took: Duration,
    success: bool,
) -> Result<(), MigrateError> {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(migration.version)
    .bind(migration.description.as_ref())
    .bind(success)
    .bind(migration.checksum.as_ref())
    .bind(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX))
    .execute(&mut *db)
    .await
    .map(drop)
    .map_err(MigrateError::Database)
}

/// The line of the file, and the server's words without its own line number.
fn place(first: usize, refused: &sqlx::Error) -> (usize, String) {
    let text = match refused {
        sqlx::Error::Database(d) => match d.code() {
            Some(state) => format!("{} (SQLSTATE {state})", d.message()),
            None => d.message().to_owned(),
        },
        other => other.to_string(),
    };
    // «… near 'x' at line 3»: counted from the start of the statement.
    let within = text.rsplit_once(" at line ").and_then(|(_, n)| {
        n.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse::<usize>()
            .ok()
    });
    let words = match (within, text.rsplit_once(" at line ")) {
        (Some(n), Some((before, after))) => format!("{before}{}", &after[n.to_string().len()..]),
        _ => text.clone(),
    };
    (first + within.map_or(0, |n| n.saturating_sub(1)), words)
}

fn shortened(sql: &str) -> String {
    let one_line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(120) {
        Some((cut, _)) => format!("{}…", &one_line[..cut]),
        None => one_line,
    }
}

fn asked(e: sqlx::migrate::MigrateError) -> MigrateError {
    match e {
        sqlx::migrate::MigrateError::Execute(e) => MigrateError::Database(e),
        other => MigrateError::Database(sqlx::Error::Configuration(Box::new(other))),
    }
}

/// The file of a version, as devenv.toml's folder and the file's name.
fn file_of(root: &Path, folder: &Path, version: i64) -> PathBuf {
    let name = std::fs::read_dir(root.join(folder))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name())
        .find(|n| {
            n.to_str().is_some_and(|n| {
                n.ends_with(".sql")
                    && !n.ends_with(".down.sql")
                    && n.split('_').next().and_then(|v| v.parse::<i64>().ok()) == Some(version)
            })
        });
    folder.join(name.unwrap_or_else(|| format!("{version:04}_*.sql").into()))
}
