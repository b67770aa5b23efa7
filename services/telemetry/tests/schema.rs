//! The migrations on a real database: from each earlier version with rows in its tables, to
//! the newest.

use sqlx::{Executor, MySqlConnection, Row};
use telemetry::testing::{TestDatabase, migrations};

/// What a table is made of, a line for each column and each part of an index.
async fn schema(database: &TestDatabase) -> Vec<String> {
    let mut connection = database.connect().await;
    let columns = "SELECT CONCAT_WS(' ', table_name, column_name, column_type, is_nullable, \
         column_default, collation_name, extra) FROM information_schema.columns \
         WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position";
    let indexes = "SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, \
         non_unique) FROM information_schema.statistics \
         WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index";
    let mut lines = Vec::new();
    for query in [columns, indexes] {
        let rows = sqlx::query_scalar::<_, String>(query);
        lines.extend(rows.fetch_all(&mut connection).await.unwrap());
    }
    lines
}

/// Every row of every table, as text, without what the migrations note down themselves.
async fn rows(connection: &mut MySqlConnection, tables: &[String]) -> Vec<Vec<Option<String>>> {
    let mut all = Vec::new();
    for table in tables {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
        )
        .bind(table)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let columns: Vec<String> = columns
            .iter()
            .map(|name| format!("CAST(`{name}` AS CHAR)"))
            .collect();
        let query = format!("SELECT {} FROM {table} ORDER BY 1", columns.join(", "));
        for row in connection
            .fetch_all(sqlx::raw_sql(sqlx::AssertSqlSafe(query)))
            .await
            .unwrap()
        {
            all.push((0..row.len()).map(|n| row.get(n)).collect());
        }
    }
    all
}

async fn tables(connection: &mut MySqlConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT table_name FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name <> '_sqlx_migrations' ORDER BY table_name",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn from_each_earlier_version_rows_are_kept_and_the_schema_is_a_new_one_s() {
    let Some(fresh) = TestDatabase::start().await else {
        return;
    };
    let fresh = schema(&fresh).await;
    assert!(fresh.iter().any(|line| line.starts_with("records id ")));
    let versions: Vec<i64> = migrations().await.iter().map(|m| m.version).collect();
    let (newest, earlier) = versions.split_last().expect("there are migrations");
    assert!(!earlier.is_empty());
    for version in earlier {
        let database = TestDatabase::empty().await.expect("there was one before");
        database.migrate_to(*version).await;
        let mut connection = database.connect().await;
        sqlx::query(
            "INSERT INTO records (total_ram, ram_libre, uso_ram, porcentaje_ram, \
             porcentaje_cpu_uso, porcentaje_cpu_libre, procesos_corriendo, total_procesos, \
             procesos_durmiendo, procesos_zombie, procesos_parados, hora, api) VALUES \
             (16000, 8000, 8000, 50, 12.5, 87.5, 2, 300, 296, 1, 1, '2026-05-04 10:11:12', 'api1'), \
             (0.1, 0, 0.1, 100, 0, 100, 0, 0, 0, 0, 0, '1999-12-31 23:59:59', 'ñandú'), \
             (1e9, 5e8, 5e8, 50, 99.99, 0.01, 4294967295, 1, 1, 1, 1, '2026-05-04 10:11:13', 'b')",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        let before = tables(&mut connection).await;
        let kept = rows(&mut connection, &before).await;
        assert_eq!(kept.len(), 3, "{kept:?}");

        database.migrate_to(*newest).await;
        assert_eq!(rows(&mut connection, &before).await, kept, "{version}");
        assert_eq!(schema(&database).await, fresh, "{version}");
        // Once more, as at each start of a system.
        database.migrate_to(*newest).await;
        let applied: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY 1")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        assert_eq!(applied, versions);
    }
}
