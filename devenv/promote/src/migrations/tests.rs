use rstest::rstest;

use super::*;

/// What has been applied already.
const APPLIED: &str = r"
CREATE TABLE IF NOT EXISTS records (
    id     BIGINT       NOT NULL AUTO_INCREMENT,
    ram    DOUBLE       NOT NULL,
    cpu    FLOAT,
    n      INT UNSIGNED NOT NULL,
    small  SMALLINT,
    api    VARCHAR(32)  NOT NULL,
    state  ENUM('on','off') NOT NULL DEFAULT 'on',
    price  DECIMAL(10,2),
    at     DATETIME(3)  NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
    note   TEXT,
    PRIMARY KEY (id),
    KEY by_api (api, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
";

fn check(sql: &str) -> Vec<Finding> {
    let mut checker = Checker::new();
    checker.learn(APPLIED);
    checker.check("0003.sql", sql)
}

#[rstest]
// New things.
#[case("CREATE TABLE t (id INT PRIMARY KEY)")]
#[case("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)")]
#[case("CREATE INDEX i ON records (api)")]
#[case("CREATE VIEW v AS SELECT id FROM records")]
#[case("ALTER TABLE records ADD COLUMN x INT")]
#[case("ALTER TABLE records ADD x INT NOT NULL DEFAULT 0, ADD INDEX i (x)")]
#[case("ALTER TABLE records ADD COLUMN x INT GENERATED ALWAYS AS (n + 1) STORED")]
#[case("INSERT INTO records (ram, n, api) VALUES (1, 2, 'a')")]
#[case("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2")]
// Rows by name.
#[case("DELETE FROM records WHERE at < '2020-01-01'")]
#[case("UPDATE records SET note = NULL WHERE id = 7")]
// Wider.
#[case("ALTER TABLE records MODIFY api VARCHAR(64) NOT NULL")]
#[case("ALTER TABLE records MODIFY COLUMN api TEXT NOT NULL")]
#[case("ALTER TABLE records MODIFY small INT")]
#[case("ALTER TABLE records MODIFY n BIGINT NOT NULL")]
#[case("ALTER TABLE records MODIFY cpu DOUBLE")]
#[case("ALTER TABLE records MODIFY price DECIMAL(12,3)")]
#[case("ALTER TABLE records MODIFY state ENUM('on','off','idle') NOT NULL DEFAULT 'on'")]
#[case("ALTER TABLE records CHANGE api api VARCHAR(40) NOT NULL")]
#[case("ALTER TABLE records MODIFY id BIGINT NOT NULL AUTO_INCREMENT")]
// Looser.
#[case("ALTER TABLE records ALTER COLUMN note SET DEFAULT 'x'")]
#[case("ALTER TABLE records DROP INDEX by_api")]
#[case("DROP INDEX by_api ON records")]
#[case("DROP TEMPORARY TABLE t")]
// Nothing at all.
#[case("SELECT 1; ; -- only a comment\n # another\n /* and */")]
#[case("SET NAMES utf8mb4")]
#[case("SET SESSION sql_mode = 'ANSI'")]
#[case("SET foreign_key_checks = 0")]
#[case("WITH x AS (SELECT 1) SELECT * FROM x")]
fn what_only_expands_needs_no_consent(#[case] sql: &str) {
    assert_eq!(check(sql), []);
}

#[rstest]
#[case("DROP TABLE records", "drops the table records")]
#[case("drop table if exists records, others", "drops the table records")]
#[case("DROP DATABASE telemetry", "drops the database telemetry")]
#[case("DROP SCHEMA telemetry", "drops the schema telemetry")]
#[case("DROP VIEW v", "drops the view v")]
#[case("TRUNCATE TABLE records", "deletes all rows of records")]
#[case("TRUNCATE records", "deletes all rows of records")]
#[case("ALTER TABLE records DROP COLUMN api", "drops the column api")]
#[case("ALTER TABLE records DROP api", "drops the column api")]
#[case("ALTER TABLE records DROP PRIMARY KEY", "without its primary key")]
#[case("RENAME TABLE records TO old", "still asks for the table records")]
#[case(
    "ALTER TABLE records RENAME TO old",
    "still asks for the table records"
)]
#[case(
    "ALTER TABLE records RENAME COLUMN api TO service",
    "still asks for the column api"
)]
#[case(
    "ALTER TABLE records CHANGE api service VARCHAR(32) NOT NULL",
    "still asks for the column api"
)]
#[case(
    "ALTER TABLE records ADD COLUMN x INT NOT NULL",
    "leave x out, and fail"
)]
#[case(
    "ALTER TABLE records MODIFY api VARCHAR(16) NOT NULL",
    "api: VARCHAR(32) → VARCHAR(16)"
)]
#[case("ALTER TABLE records MODIFY n INT NOT NULL", "n: INT UNSIGNED → INT")]
#[case("ALTER TABLE records MODIFY small TINYINT", "does not hold all")]
#[case("ALTER TABLE records MODIFY ram FLOAT NOT NULL", "does not hold all")]
#[case("ALTER TABLE records MODIFY price DECIMAL(10,3)", "does not hold all")]
#[case(
    "ALTER TABLE records MODIFY at DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP())",
    "does not hold all"
)]
#[case(
    "ALTER TABLE records MODIFY state ENUM('off','on') NOT NULL DEFAULT 'on'",
    "does not hold all"
)]
#[case("ALTER TABLE records MODIFY note INT", "does not hold all")]
#[case("ALTER TABLE records MODIFY cpu DOUBLE NOT NULL", "forbids NULL")]
#[case(
    "ALTER TABLE records MODIFY state ENUM('on','off') NOT NULL",
    "loses its default"
)]
#[case("ALTER TABLE records MODIFY id BIGINT NOT NULL", "loses its default")]
#[case(
    "ALTER TABLE records ALTER COLUMN state DROP DEFAULT",
    "may leave state out"
)]
#[case("ALTER TABLE records ADD UNIQUE KEY u (api)", "makes values unique")]
#[case("CREATE UNIQUE INDEX u ON records (api)", "makes values unique")]
#[case(
    "ALTER TABLE records ADD CONSTRAINT c CHECK (n > 0)",
    "checks what is written"
)]
#[case(
    "ALTER TABLE records ADD FOREIGN KEY (api) REFERENCES apis (name)",
    "wants another row"
)]
#[case("DELETE FROM records", "deletes all rows")]
#[case("DELETE FROM records WHERE 1", "deletes all rows")]
#[case("DELETE FROM records WHERE (1 = 1) OR api = 'x'", "deletes all rows")]
#[case("UPDATE records SET note = 'x'", "overwrites a column in all rows")]
#[case("REPLACE INTO records (id) VALUES (1)", "REPLACE deletes")]
#[case(
    "CREATE OR REPLACE TABLE records (id INT)",
    "replaces the table records"
)]
#[case("REVOKE INSERT ON records FROM 'app'", "takes a right away")]
// The server runs what stands in such a comment.
#[case("/*!50000 DROP TABLE records */", "drops the table records")]
#[case("SELECT ';DROP'; DROP TABLE `records`", "drops the table `records`")]
fn what_takes_something_away_does(#[case] sql: &str, #[case] why: &str) {
    let found = check(sql);
    assert!(!found.is_empty(), "nothing found");
    assert_eq!(found[0].kind, Kind::Destructive, "{found:#?}");
    assert!(found[0].why.contains(why), "{found:#?}");
}

#[rstest]
#[case(
    "ALTER TABLE unknown MODIFY a INT",
    "nobody knows here what a of unknown was"
)]
#[case(
    "ALTER TABLE records MODIFY note JSON",
    "note: whether TEXT → JSON holds"
)]
#[case("ALTER TABLE records CONVERT TO CHARACTER SET latin1", "grammar")]
#[case("CREATE OR REPLACE VIEW v AS SELECT 1", "replaces a view")]
#[case("CALL clean_up()", "is not looked at")]
#[case("LOCK TABLES records WRITE", "locks tables")]
#[case("FROBNICATE records", "grammar")]
#[case("WITH x AS (SELECT 1) DELETE FROM records", "behind a WITH")]
#[case("SET GLOBAL sql_mode = ''", "the whole server")]
#[case("SET @@global.sql_mode = ''", "the whole server")]
#[case("/*M! DROP TABLE records */", "MariaDB runs")]
#[case(
    "DELIMITER //\nCREATE PROCEDURE p() BEGIN DROP TABLE records; END //",
    "grammar"
)]
#[case("INSERT INTO t VALUES ('never closed", "can't be read")]
fn what_nobody_knows_needs_consent_too(#[case] sql: &str, #[case] why: &str) {
    let found = check(sql);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].kind, Kind::CantTell);
    assert!(found[0].why.contains(why), "{found:#?}");
}

#[test]
fn places_are_lines_and_one_bad_statement_hides_no_other() {
    let sql = "-- first\n\nSELECT 1;\nFROBNICATE;\n\n  -- then\n  DROP TABLE\n    records;\n";
    let found = check(sql);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "0003.sql:4: can't be judged: FROBNICATE: the grammar of MySQL that is known here does \
             not have it; look at it yourself, and say that it may run",
            "0003.sql:7: destructive: DROP TABLE records: drops the table records; do it in a \
             release after the one that no longer uses it",
        ]
    );
}

#[test]
fn literals_are_never_shown() {
    for sql in [
        "REPLACE INTO users VALUES ('hunter2', \"hunter2\", N'hunter2', X'hunter2')",
        "UPDATE users SET password = 'hunter2'",
        "FROBNICATE 'hunter2'",
        "SELECT 'hunter2",
        "CREATE USER x IDENTIFIED BY 'hunter2'; CALL p('hunter2')",
    ] {
        for finding in check(sql) {
            assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
        }
    }
}

#[test]
fn what_a_pending_migration_made_it_may_unmake() {
    let mut checker = Checker::new();
    checker.learn(APPLIED);
    assert_eq!(
        checker.check(
            "1.sql",
            "CREATE TABLE t (a INT); ALTER TABLE records ADD x INT;"
        ),
        []
    );
    let undo = "ALTER TABLE t DROP COLUMN a, ADD b INT NOT NULL;
                UPDATE records SET x = n;
                ALTER TABLE records DROP COLUMN x;
                DROP TABLE t;";
    assert_eq!(checker.check("2.sql", undo), []);
    // But not what may have been there before.
    let found = checker.check(
        "3.sql",
        "CREATE TABLE IF NOT EXISTS u (a INT); DROP TABLE u;",
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn deep_nesting_is_refused_and_ends_nothing() {
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let found = check(&deep);
    assert_eq!(found[0].kind, Kind::CantTell);
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(sql in ".{0,200}") {
        check(&sql);
    }
}

/// The migrations of this repository themselves, as they are now.
#[test]
fn the_repositorys_own_migrations_only_expand() {
    let mut checker = Checker::new();
    for (file, sql) in [
        (
            "0001_records.sql",
            include_str!("../../../../services/migrations/0001_records.sql"),
        ),
        (
            "0002_idempotency.sql",
            include_str!("../../../../services/migrations/0002_idempotency.sql"),
        ),
    ] {
        assert_eq!(checker.check(file, sql), []);
    }
}
