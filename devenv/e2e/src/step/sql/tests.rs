use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use super::*;

#[rstest]
#[case(b"2026-01-31 12:00:00.5", false, "2026-01-31 12:00:00.5")]
#[case(b"0000-00-00", true, "0000-00-00")]
#[case(&[0], false, "0000-00-00 00:00:00")]
#[case(&[0], true, "0000-00-00")]
#[case(&[4, 0xea, 0x07, 1, 31], true, "2026-01-31")]
#[case(&[4, 0xea, 0x07, 1, 31], false, "2026-01-31 00:00:00")]
#[case(&[7, 0xea, 0x07, 1, 31, 12, 30, 5], false, "2026-01-31 12:30:05")]
#[case(&[11, 0xea, 0x07, 1, 31, 12, 30, 5, 0x20, 0xa1, 7, 0], false, "2026-01-31 12:30:05.500000")]
fn dates(#[case] bytes: &[u8], #[case] day_only: bool, #[case] want: &str) {
    assert_eq!(date(bytes, day_only), want);
}

#[rstest]
#[case("5", json!(5))]
#[case("-5", json!(-5))]
#[case("18446744073709551615", json!(18446744073709551615_u64))]
#[case("1.50", json!(1.5))]
#[case("0.1", json!(0.1))]
#[case("12345678901234567890.5", json!("12345678901234567890.5"))]
#[case("x", json!("x"))]
fn numbers(#[case] text: &str, #[case] want: Value) {
    assert_eq!(number(text), want);
}

#[test]
fn rows_are_held_against_the_columns_that_matter() {
    let came = Came {
        rows: vec![json!({"n": 1, "s": "x"}), json!({"n": 2, "s": "y"})],
        affected: 0,
    };
    let expect: Expect = serde_json::from_value(json!({
        "rows": [{"n": {"gt": 1}}, {"s": "y", "z": 1}, {}], "row_count": 2
    }))
    .unwrap();
    let said: Vec<String> = check(&expect, &came)
        .into_iter()
        .map(|m| format!("{}: expected {}, got {}", m.what, m.expected, m.got))
        .collect();
    assert_eq!(
        said,
        [
            "rows: expected 3 rows, got 2 rows",
            "rows[0].n: expected more than 1, got 1",
            "rows[1].z: expected 1, got nothing there",
        ]
    );
}

/// A MariaDB on a socket of its own, without accounts; killed when dropped.
struct Server {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    async fn start() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let socket = dir.path().join("s");
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap();
        let install = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--user={}", user.name))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match install {
            Ok(status) => assert!(status.success(), "mariadb-install-db: {status}"),
            Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("{error}"),
            Err(_) => {
                println!("skipped: no MariaDB server is installed");
                return None;
            }
        }
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--skip-networking", "--skip-log-bin"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--user={}", user.name))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("mysql://root@localhost/mysql?socket={}", socket.display());
        let server = Self {
            child,
            url,
            _dir: dir,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = ask(&server.url, "SELECT 1", &[]).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(server)
    }
}

#[tokio::test]
async fn every_type_is_the_same_by_either_protocol() {
    let Some(server) = Server::start().await else {
        return;
    };
    let run = async |query: &str, args: &[Value]| ask(&server.url, query, args).await.unwrap();
    run(
        "CREATE DATABASE t; CREATE TABLE t.v (i INT, u BIGINT UNSIGNED, b BOOLEAN, f FLOAT, \
         d DOUBLE, c DECIMAL(10,2), s VARCHAR(20), x BLOB, at DATETIME(6), day DATE, \
         t TIME, y YEAR, e ENUM('a','b'), bits BIT(8), n INT)",
        &[],
    )
    .await;
    let insert = "INSERT INTO t.v VALUES (-1, 18446744073709551615, true, 0.1, 2.5, 1.50, 'ñ', \
                  x'ff00', '2026-01-31 12:00:00.25', '2026-01-31', '-26:00:01', 2026, 'b', b'101', NULL)";
    assert_eq!(run(insert, &[]).await.affected, 1);
    let want = json!({
        "i": -1, "u": 18446744073709551615_u64, "b": 1, "f": 0.1, "d": 2.5, "c": 1.5, "s": "ñ",
        "x": "0xff00", "at": "2026-01-31 12:00:00.250000", "day": "2026-01-31",
        "t": "-26:00:01", "y": 2026, "e": "b", "bits": 5, "n": null,
    });
    let text = run("SELECT * FROM t.v", &[]).await;
    assert_eq!(text.rows, std::slice::from_ref(&want), "text");
    let prepared = run(
        "SELECT * FROM t.v WHERE i = ? AND s = ?",
        &[json!(-1), json!("ñ")],
    )
    .await;
    assert_eq!(prepared.rows, [want], "binary");
    let counted = run(
        "SELECT COUNT(*) AS n, SUM(i) AS s, AVG(d) AS a FROM t.v",
        &[],
    )
    .await;
    assert_eq!(counted.rows, [json!({"n": 1, "s": -1, "a": 2.5})]);
    assert_eq!(
        run("DELETE FROM t.v WHERE i = ?", &[json!(-1)])
            .await
            .affected,
        1
    );
    assert!(ask(&server.url, "SELECT nothing", &[]).await.is_err());
}
