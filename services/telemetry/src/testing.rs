//! A private MariaDB for tests: its own data directory and loopback port,
//! killed by its process id when dropped.

pub mod process;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tempfile::TempDir;

use crate::config::{Config, CorsOrigin, Database, Secret};

/// A running server with the schema `telemetry`, migrated.
#[derive(Debug)]
pub struct TestDatabase {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

fn server() -> Option<PathBuf> {
    [
        "/usr/sbin/mariadbd",
        "/usr/libexec/mariadbd",
        "/usr/local/bin/mariadbd",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.exists())
}

impl TestDatabase {
    /// Starts one, or says on standard error that the test is skipped for want
    /// of a server.
    ///
    /// # Panics
    /// When the server is missing under `CI=true`, or does not start.
    pub async fn start() -> Option<Self> {
        if server().is_none() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "mariadbd is missing; install mariadb-server-core"
            );
            eprintln!("SKIPPED: mariadbd is missing; install mariadb-server-core");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("telemetry-db-")
            .tempdir()
            .expect("a temp dir");
        let mut database = Self {
            dir,
            port: free_port(),
            child: None,
        };
        database.install();
        database.up().await;
        database.prepare().await;
        Some(database)
    }

    /// Kills the server without warning, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it was started and has not ended since.
    pub fn is_up(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts the server again on the same port and files; returns when it answers.
    pub async fn up(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log file");
        let child = Command::new(server().expect("checked at the start"))
            .args(self.common())
            .arg(format!("--port={}", self.port))
            .args([
                "--bind-address=127.0.0.1",
                "--skip-networking=0",
                "--skip-log-bin",
            ])
            .args([
                "--innodb-buffer-pool-size=16M",
                "--innodb-flush-log-at-trx-commit=1",
            ])
            .args([
                "--performance-schema=0",
                "--max-connections=200",
                "--skip-name-resolve",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("mariadbd starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while MySqlConnection::connect_with(&self.root()).await.is_err() {
            let ended = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten());
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "mariadbd: {}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A service's configuration for this database.
    pub fn config(&self, api_name: &str) -> Config {
        Config {
            database: Database {
                host: "127.0.0.1".into(),
                port: self.port,
                user: "telemetry".into(),
                password: Secret::new("a test's secret"),
                name: "telemetry".into(),
                pool_max: 10,
                acquire_timeout: Duration::from_secs(2),
            },
            port: 0,
            version: "test",
            api_name: api_name.into(),
            cors: CorsOrigin::Any,
            log: "info".into(),
        }
    }

    /// A connection as the services have it, past their pools.
    ///
    /// # Panics
    /// When the server is down.
    pub async fn connect(&self) -> MySqlConnection {
        let config = self.config("test").database;
        let options = MySqlConnectOptions::new()
            .host(&config.host)
            .port(config.port)
            .username(&config.user)
            .password(config.password.reveal())
            .database(&config.name);
        MySqlConnection::connect_with(&options)
            .await
            .unwrap_or_else(|error| panic!("the server is up: {error}\n{}", self.log_tail()))
    }

    /// Runs statements as the server's administrator.
    ///
    /// # Panics
    /// When the server refuses them.
    pub async fn as_root(&self, statements: &'static str) {
        sqlx::raw_sql(statements)
            .execute(&mut self.connect_as_root().await)
            .await
            .expect(statements);
    }

    /// A connection as the server's administrator.
    ///
    /// # Panics
    /// When the server is down.
    pub async fn connect_as_root(&self) -> MySqlConnection {
        MySqlConnection::connect_with(&self.root())
            .await
            .expect("root connects")
    }

    /// The database as a URL.
    pub fn url(&self) -> String {
        let config = self.config("").database;
        format!(
            "mysql://{}:{}@{}:{}/{}",
            config.user,
            // The only characters in it that a URL would take otherwise.
            config.password.reveal().replace(' ', "%20"),
            config.host,
            config.port,
            config.name
        )
    }

    /// Rows of `records`.
    pub async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM records")
            .fetch_one(&mut self.connect().await)
            .await
            .expect("the table is there")
    }

    fn common(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut args = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", path("data")),
            format!("--socket={}", path("s")),
            format!("--pid-file={}", path("pid")),
            format!("--tmpdir={}", self.dir.path().display()),
        ];
        if is_root() {
            args.push("--user=root".to_owned());
        }
        args
    }

    fn install(&self) {
        let data = self.dir.path().join("data");
        let mut command = Command::new("mariadb-install-db");
        command
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            // A server that starts sweeps its tmpdir, tables of other servers included.
            .arg(format!("--tmpdir={}", self.dir.path().display()))
            .arg(format!("--datadir={}", data.display()));
        if is_root() {
            command.arg("--user=root");
        }
        let output = command.output().expect("mariadb-install-db runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    async fn prepare(&self) {
        // Anonymous users would be matched before telemetry@'%' on localhost.
        self.as_root(
            "DELETE FROM mysql.global_priv WHERE User = ''; FLUSH PRIVILEGES; \
             CREATE DATABASE telemetry CHARACTER SET utf8mb4; \
             CREATE USER telemetry@'%' IDENTIFIED BY 'a test''s secret'; \
             GRANT ALL ON telemetry.* TO telemetry@'%'",
        )
        .await;
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        sqlx::migrate::Migrator::new(migrations)
            .await
            .expect("the migrations are read")
            .run(&mut self.connect().await)
            .await
            .expect("the migrations run");
    }

    fn root(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .socket(self.dir.path().join("s"))
            .username("root")
    }

    fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.dir.path().join("log")) {
            let end = file.seek(SeekFrom::End(0)).unwrap_or(0);
            let _ = file.seek(SeekFrom::Start(end.saturating_sub(2000)));
            let _ = file.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether this is root, to whom mariadbd must be told so.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// A port that nobody listens on; the server takes it a moment later. Below the
/// range from which the kernel gives outgoing connections theirs: while the
/// server is down, none of them may come to lie on its port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7);
    loop {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (n % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
