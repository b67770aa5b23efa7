//! Migrations against a real server of this machine.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use devenv_platform::cloudsql::{Engine, MigrateError, engine::EngineError, migrate, template};
use sqlx::{
    ConnectOptions, Connection, Row,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

/// A server on a free port with a data directory of its own; killed when dropped.
struct Server {
    child: Child,
    options: MySqlConnectOptions,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    async fn start() -> Option<Self> {
        let engine = match Engine::find() {
            Ok(engine) => engine,
            Err(EngineError::NotInstalled) if std::env::var("CI").as_deref() != Ok("true") => {
                println!("skipped: no database server is installed");
                return None;
            }
            Err(e) => panic!("{e}"),
        };
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let me = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        assert!(template::ensure_data(&engine, &dir.path().join("cache"), &data, me).unwrap());
        assert!(!template::ensure_data(&engine, &dir.path().join("cache"), &data, me).unwrap());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let init = dir.path().join("init.sql");
        fs::write(&init, "CREATE DATABASE t;\nCREATE USER 'u'@'%' IDENTIFIED BY 'p';\nGRANT ALL ON t.* TO 'u'@'%';\n").unwrap();
        let child = Command::new(&engine.server)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("s").display()))
            .arg(format!("--init-file={}", init.display()))
            .arg(format!("--tmpdir={}", dir.path().display()))
            .args([
                format!("--port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
            ])
            .args(Engine::user_argument(me.0))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(port)
            .username("u")
            .password("p")
            .database("t")
            .ssl_mode(MySqlSslMode::Disabled);
        let server = Self {
            child,
            options,
            dir,
        };
        let start = Instant::now();
        while server.options.connect().await.is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the server does not answer"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(server)
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, sql: &str) {
        let folder = self.root().join("m");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), sql).unwrap();
    }

    async fn migrate(&self) -> Result<migrate::Migrated, MigrateError> {
        migrate::run(&self.options, self.root(), Path::new("m")).await
    }
}

#[tokio::test]
async fn migrations_run_once_in_order_and_failures_name_their_line() {
    let Some(server) = Server::start().await else {
        return;
    };
    server.write(
        "0001_a.sql",
        "CREATE TABLE a (id INT);\n\n-- and one more\nCREATE TABLE b (id INT);\n",
    );
    let first = server.migrate().await.unwrap();
    assert_eq!((first.before, first.applied), (0, vec![1]));
    let again = server.migrate().await.unwrap();
    assert_eq!((again.before, again.applied.len()), (1, 0));

    // sqlx's own migrator agrees with what was written down.
    let migrator = sqlx::migrate::Migrator::new(server.root().join("m"))
        .await
        .unwrap();
    let mut db = server.options.connect().await.unwrap();
    migrator.run(&mut db).await.unwrap();
    let n: i64 = sqlx::query("SELECT COUNT(*) FROM _sqlx_migrations")
        .fetch_one(&mut db)
        .await
        .unwrap()
        .get(0);
    assert_eq!(n, 1);

    // A mistake in the first statement leaves no trace and can be mended.
    server.write(
        "0002_b.sql",
        "-- first line\nCREATE TABLE c (\n  id INT,\n  name VARCHAR(10\n);\n",
    );
    let e = server.migrate().await.unwrap_err();
    let MigrateError::Statement { file, line, .. } = &e else {
        panic!("{e:?}")
    };
    assert_eq!((file.as_path(), *line), (Path::new("m/0002_b.sql"), 5));
    assert!(
        e.to_string()
            .starts_with("m/0002_b.sql:5: You have an error in your SQL syntax"),
        "{e}"
    );
    server.write("0002_b.sql", "CREATE TABLE c (id INT);");
    assert_eq!(server.migrate().await.unwrap().applied, [2]);

    // An edited one is refused.
    server.write("0002_b.sql", "CREATE TABLE c (id BIGINT);");
    assert!(matches!(
        server.migrate().await,
        Err(MigrateError::Changed { .. })
    ));
    server.write("0002_b.sql", "CREATE TABLE c (id INT);");

    // A later statement: MySQL can't undo the first, so the state is told as broken.
    server.write(
        "0003_c.sql",
        "CREATE TABLE d (id INT);\nINSERT INTO nowhere VALUES (1);\n",
    );
    let e = server.migrate().await.unwrap_err();
    let MigrateError::Statement { line, error, .. } = &e else {
        panic!("{e:?}")
    };
    assert_eq!(*line, 2);
    assert!(error.contains("t.nowhere"), "{error}");
    assert!(matches!(
        server.migrate().await,
        Err(MigrateError::Dirty { .. })
    ));
    db.close().await.unwrap();
}
