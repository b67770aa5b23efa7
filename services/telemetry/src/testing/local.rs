//! MariaDB of this machine: a server with its own data directory and loopback port,
//! killed by its process id when dropped, or when this process ends ([`Keeper`]).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tempfile::TempDir;

use super::free_port;
use super::keeper::Keeper;

/// A running server.
#[derive(Debug)]
pub struct MariaDb {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    keeper: Keeper,
}

/// The server's program.
pub fn server() -> Option<PathBuf> {
    [
        "/usr/sbin/mariadbd",
        "/usr/libexec/mariadbd",
        "/usr/local/bin/mariadbd",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.exists())
}

impl MariaDb {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("telemetry-db-")
            .tempdir()
            .expect("a temp dir");
        let mut server = Self {
            keeper: Keeper::of_process(dir.path()),
            dir,
            port: free_port(),
            child: None,
        };
        server.install();
        server.up().await;
        // Anonymous users would be matched before ours on localhost.
        sqlx::raw_sql("DELETE FROM mysql.global_priv WHERE User = ''; FLUSH PRIVILEGES")
            .execute(
                &mut MySqlConnection::connect_with(&server.root())
                    .await
                    .expect("root connects"),
            )
            .await
            .expect("anonymous users go");
        server
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.keeper.tell(None);
        }
    }

    /// Whether it was started and has not ended since.
    pub fn is_up(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts it again on the same port and files; returns when it answers.
    ///
    /// # Panics
    /// When it does not.
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
        self.keeper.tell(Some(child.id()));
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

    /// How its administrator connects.
    pub fn root(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .socket(self.dir.path().join("s"))
            .username("root")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.dir.path().join("log")) {
            let end = file.seek(SeekFrom::End(0)).unwrap_or(0);
            let _ = file.seek(SeekFrom::Start(end.saturating_sub(2000)));
            let _ = file.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether this is root, to whom mariadbd must be told so.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
