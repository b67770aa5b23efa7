//! A statement for the environment's database, and its rows as JSON.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use serde_json::{Map, Number, Value};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Either, Executor, MySql, MySqlConnection,
    Row, TypeInfo, ValueRef,
    mysql::{MySqlArguments, MySqlConnectOptions, MySqlRow, types::MySqlTime},
    query::Query,
};

use super::{Context, StepResult, http::chain};
use crate::{
    capture::Answer,
    matcher::{mismatches, shown},
    outcome::Mismatch,
    suite::spec::{Expect, SqlSpec},
};

/// Rows that are shown.
const SHOWN: usize = 20;

/// Runs the statement on a connection of its own.
pub async fn run(spec: &SqlSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let Some(url) = context.environment.database.clone() else {
        return StepResult::unsupported(
            "this environment has no database that can be reached from here",
        );
    };
    let came = match ask(&url, spec.query.as_str(), &spec.args).await {
        Ok(came) => came,
        Err(error) => return StepResult::failed("query", "an answer", chain(&error)),
    };
    let mut result = StepResult {
        seen: Some(seen(&came)),
        mismatches: check(expect, &came),
        ..StepResult::default()
    };
    result.answer = Answer {
        json: Some(Value::Array(came.rows)),
        ..Answer::default()
    };
    result
}

/// What came of a statement.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub rows: Vec<Value>,
    pub affected: u64,
}

/// Runs one statement.
pub(super) async fn ask(url: &str, query: &str, args: &[Value]) -> Result<Came, sqlx::Error> {
    let mut connection = connect(url).await?;
    let came = on(&mut connection, query, args).await;
    // The answer counts; a connection that doesn't say goodbye is closed all the same.
    let _ = connection.close().await;
    came
}

async fn connect(url: &str) -> Result<MySqlConnection, sqlx::Error> {
    let options: MySqlConnectOptions = url.parse()?;
    options
        // As a plain client's session: the server's own mode and time zone.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .disable_statement_logging()
        .connect()
        .await
}

async fn on(
    connection: &mut MySqlConnection,
    query: &str,
    args: &[Value],
) -> Result<Came, sqlx::Error> {
    let mut came = Came::default();
    // The text protocol takes statements that can't be prepared.
    let mut results = if args.is_empty() {
        connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(query.to_owned())))
    } else {
        let mut query = sqlx::query(AssertSqlSafe(query.to_owned()));
        for arg in args {
            query = bind(query, arg);
        }
        connection.fetch_many(query)
    };
    while let Some(next) = results.try_next().await? {
        match next {
            Either::Left(done) => came.affected += done.rows_affected(),
            Either::Right(row) => came.rows.push(json(&row)?),
        }
    }
    Ok(came)
}

fn bind<'q>(
    query: Query<'q, MySql, MySqlArguments>,
    arg: &Value,
) -> Query<'q, MySql, MySqlArguments> {
    match arg {
        Value::Null => query.bind(None::<String>),
        Value::Bool(value) => query.bind(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => query.bind(value),
            (None, Some(value), _) => query.bind(value),
            (None, None, value) => query.bind(value),
        },
        Value::String(text) => query.bind(text.clone()),
        other => query.bind(other.to_string()),
    }
}

fn json(row: &MySqlRow) -> Result<Value, sqlx::Error> {
    let mut out = Map::new();
    for (i, column) in row.columns().iter().enumerate() {
        out.insert(
            column.name().to_owned(),
            cell(row, i, column.type_info().name())?,
        );
    }
    Ok(Value::Object(out))
}

/// One value. What JSON has no type for is text as MySQL writes it.
fn cell(row: &MySqlRow, i: usize, kind: &str) -> Result<Value, sqlx::Error> {
    if row.try_get_raw(i)?.is_null() {
        return Ok(Value::Null);
    }
    Ok(match kind {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "INT" | "MEDIUMINT" | "BIGINT" => {
            Value::from(row.try_get_unchecked::<i64, _>(i)?)
        }
        "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "INT UNSIGNED" | "MEDIUMINT UNSIGNED"
        | "BIGINT UNSIGNED" | "YEAR" | "BIT" => Value::from(row.try_get_unchecked::<u64, _>(i)?),
        // As it is written: 0.1 as a f64 would be 0.10000000149011612.
        "FLOAT" => number(&row.try_get_unchecked::<f32, _>(i)?.to_string()),
        "DOUBLE" => Value::from(row.try_get_unchecked::<f64, _>(i)?),
        "DECIMAL" => number(&text(row, i)?),
        "JSON" => serde_json::from_str(&text(row, i)?).unwrap_or(Value::Null),
        "TIME" => Value::String(row.try_get_unchecked::<MySqlTime, _>(i)?.to_string()),
        "DATE" | "DATETIME" | "TIMESTAMP" => {
            let bytes = row.try_get_unchecked::<Vec<u8>, _>(i)?;
            Value::String(date(&bytes, kind == "DATE"))
        }
        _ => Value::String(text(row, i)?),
    })
}

/// Text, or the bytes in hexadecimal where they are none.
fn text(row: &MySqlRow, i: usize) -> Result<String, sqlx::Error> {
    let bytes = row.try_get_unchecked::<Vec<u8>, _>(i)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
        let hex: String = error
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("0x{hex}")
    }))
}

/// A number that was written out; too long for one, it stays text.
fn number(text: &str) -> Value {
    let exact = text.parse::<i64>().ok().map(Number::from);
    let exact = exact.or_else(|| text.parse::<u64>().ok().map(Number::from));
    let close = || {
        let digits = text.chars().filter(char::is_ascii_digit).count();
        let float = text.parse::<f64>().ok().filter(|_| digits <= 17)?;
        Number::from_f64(float)
    };
    exact
        .or_else(close)
        .map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// A date of either protocol: the binary one has its length in front, then year, month,
/// day, hour, minute, second and microseconds as far as they are not 0.
fn date(bytes: &[u8], day_only: bool) -> String {
    let binary = bytes
        .split_first()
        .filter(|(len, rest)| matches!(len, 0 | 4 | 7 | 11) && usize::from(**len) == rest.len());
    let Some((_, rest)) = binary else {
        return String::from_utf8_lossy(bytes).into_owned();
    };
    let at = |i: usize| rest.get(i).copied().unwrap_or_default();
    let year = u16::from_le_bytes([at(0), at(1)]);
    let micros = u32::from_le_bytes([at(7), at(8), at(9), at(10)]);
    let day = format!("{year:04}-{:02}-{:02}", at(2), at(3));
    match (day_only, micros) {
        (true, _) => day,
        (false, 0) => format!("{day} {:02}:{:02}:{:02}", at(4), at(5), at(6)),
        (false, _) => format!("{day} {:02}:{:02}:{:02}.{micros:06}", at(4), at(5), at(6)),
    }
}

fn check(expect: &Expect, came: &Came) -> Vec<Mismatch> {
    let mut out = Vec::new();
    let count = Value::from(came.rows.len());
    if let Some(written) = &expect.row_count {
        out.extend(mismatches(written, "row_count", Some(&count)));
    }
    if let Some(written) = &expect.affected {
        let affected = Value::from(came.affected);
        out.extend(mismatches(written, "affected", Some(&affected)));
    }
    let Some(rows) = &expect.rows else { return out };
    if rows.len() != came.rows.len() {
        out.push(Mismatch {
            what: "rows".into(),
            expected: rows_of(rows.len()),
            got: rows_of(came.rows.len()),
        });
    }
    for (i, (wanted, row)) in rows.iter().zip(&came.rows).enumerate() {
        out.extend(check_row(wanted, row, i));
    }
    out
}

fn check_row(wanted: &BTreeMap<String, Value>, row: &Value, i: usize) -> Vec<Mismatch> {
    wanted
        .iter()
        .flat_map(|(column, written)| {
            mismatches(written, &format!("rows[{i}].{column}"), row.get(column))
        })
        .collect()
}

fn rows_of(n: usize) -> String {
    if n == 1 {
        "1 row".into()
    } else {
        format!("{n} rows")
    }
}

fn seen(came: &Came) -> String {
    let mut out = match (came.rows.len(), came.affected) {
        (0, affected @ 1..) => format!("{affected} affected"),
        (n, _) => rows_of(n),
    };
    for row in came.rows.iter().take(SHOWN) {
        out.push('\n');
        out.push_str(&shown(row));
    }
    if came.rows.len() > SHOWN {
        out.push_str(&format!("\n… and {}", rows_of(came.rows.len() - SHOWN)));
    }
    out
}

#[cfg(test)]
mod tests;
