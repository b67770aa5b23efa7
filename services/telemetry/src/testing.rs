//! A database for tests: real MySQL in a container ([`container`]) where a Docker Engine
//! has its image, and MariaDB of this machine ([`local`]) else; the tests are the same.
//!
//! [`CHOICE`] asks for one of them. Unset, whoever runs the tests by hand gets the container
//! if it starts without a download.

pub mod container;
mod keeper;
pub mod local;
pub mod process;

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection};

use crate::config::{Config, CorsOrigin, Database, Secret};
use container::MySql;
use local::MariaDb;

/// The variable that chooses: `container` or `local`.
pub const CHOICE: &str = "DEVENV_TEST_DATABASE";

/// Which server the tests of this process have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// MySQL in a container.
    Container,
    /// MariaDB of this machine.
    Local,
}

impl Choice {
    /// The same for the whole process, and said once. `None`: there is no server.
    ///
    /// # Panics
    /// When there is none under `CI=true`, or [`CHOICE`] is neither.
    pub fn made() -> Option<Self> {
        static MADE: OnceLock<Option<Choice>> = OnceLock::new();
        *MADE.get_or_init(|| {
            let made = Self::make();
            match made {
                Some(Self::Container) => {
                    eprintln!("database: MySQL in a container of {}", container::image());
                }
                Some(Self::Local) => eprintln!("database: MariaDB of this machine"),
                None => eprintln!("SKIPPED: mariadbd is missing; install mariadb-server-core"),
            }
            made
        })
    }

    fn make() -> Option<Self> {
        let local = || {
            let is_here = local::server().is_some();
            assert!(
                is_here || std::env::var("CI").as_deref() != Ok("true"),
                "mariadbd is missing; install mariadb-server-core"
            );
            is_here.then_some(Self::Local)
        };
        match std::env::var(CHOICE).as_deref() {
            Ok("container") => Some(Self::Container),
            Ok("local") => local(),
            Ok(other) => panic!("{CHOICE} is `{other}`; expected container or local"),
            Err(_) if container::is_here() => Some(Self::Container),
            Err(_) => local(),
        }
    }
}

/// Who answers.
#[derive(Debug)]
enum Server {
    /// A container for all tests of this process.
    Shared(&'static MySql),
    /// A container of this test.
    Own(Box<MySql>),
    /// This machine's server, with files of this test.
    Local(MariaDb),
}

impl Server {
    fn port(&self) -> u16 {
        match self {
            Self::Shared(server) => server.port(),
            Self::Own(server) => server.port(),
            Self::Local(server) => server.port(),
        }
    }

    fn root(&self) -> MySqlConnectOptions {
        match self {
            Self::Shared(server) => server.root(),
            Self::Own(server) => server.root(),
            Self::Local(server) => server.root(),
        }
    }

    async fn log_tail(&self) -> String {
        match self {
            Self::Shared(server) => server.log_tail().await,
            Self::Own(server) => server.log_tail().await,
            Self::Local(server) => server.log_tail(),
        }
    }
}

/// A schema on a running server, with an account of its own.
#[derive(Debug)]
pub struct TestDatabase {
    server: Server,
    /// The schema's name, and its account's.
    name: String,
}

impl TestDatabase {
    /// A migrated schema of its own, on a server that other tests may have theirs on.
    /// `None`, and said on standard error, where there is no server: the test is skipped.
    ///
    /// # Panics
    /// When the server is missing that was asked for, or any under `CI=true`, or it does
    /// not start.
    pub async fn start() -> Option<Self> {
        let database = Self::empty().await?;
        database.migrate_to(i64::MAX).await;
        Some(database)
    }

    /// The same without tables.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn empty() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let server = match Choice::made()? {
            Choice::Container => Server::Shared(MySql::shared().await),
            Choice::Local => Server::Local(MariaDb::start().await),
        };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Some(Self::create(server, format!("telemetry{n}")).await)
    }

    /// A server of its own, which it may kill and reconfigure, with the migrated schema
    /// `telemetry`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn alone() -> Option<Self> {
        let server = match Choice::made()? {
            Choice::Container => Server::Own(Box::new(MySql::start().await)),
            Choice::Local => Server::Local(MariaDb::start().await),
        };
        let database = Self::create(server, "telemetry".to_owned()).await;
        database.migrate_to(i64::MAX).await;
        Some(database)
    }

    async fn create(server: Server, name: String) -> Self {
        let database = Self { server, name };
        let name = &database.name;
        let create = format!(
            "CREATE DATABASE {name} CHARACTER SET utf8mb4; \
             CREATE USER {name}@'%' IDENTIFIED BY 'a test''s secret'; \
             GRANT ALL ON {name}.* TO {name}@'%'"
        );
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut database.connect_as_root().await)
            .await
            .unwrap_or_else(|error| panic!("the schema {name} is made: {error}"));
        database
    }

    /// Runs the migrations that have not run yet, to this version.
    ///
    /// # Panics
    /// When the server refuses one.
    pub async fn migrate_to(&self, version: i64) {
        migrations()
            .await
            .run_to(version, &mut self.connect().await)
            .await
            .expect("the migrations run");
    }

    /// Kills the server without warning, as a crash would; returns when it has ended.
    ///
    /// # Panics
    /// When other tests may be on it.
    pub async fn kill(&mut self) {
        match &mut self.server {
            Server::Shared(_) => panic!("a test that kills its server asks for one `alone`"),
            Server::Own(server) => server.kill().await,
            Server::Local(server) => server.kill(),
        }
    }

    /// Whether it was started and has not ended since.
    pub async fn is_up(&mut self) -> bool {
        match &mut self.server {
            Server::Shared(server) => server.is_up().await,
            Server::Own(server) => server.is_up().await,
            Server::Local(server) => server.is_up(),
        }
    }

    /// Starts the server again on the same port and files; returns when it answers.
    pub async fn up(&mut self) {
        match &mut self.server {
            Server::Shared(_) => {}
            Server::Own(server) => server.up().await,
            Server::Local(server) => server.up().await,
        }
    }

    /// A service's configuration for this database.
    pub fn config(&self, api_name: &str) -> Config {
        Config {
            database: Database {
                host: "127.0.0.1".into(),
                port: self.server.port(),
                user: self.name.clone(),
                password: Secret::new("a test's secret"),
                name: self.name.clone(),
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
        match MySqlConnection::connect_with(&options).await {
            Ok(connection) => connection,
            Err(error) => panic!(
                "the server is up: {error}\n{}",
                self.server.log_tail().await
            ),
        }
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
        MySqlConnection::connect_with(&self.server.root())
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
}

/// The migrations of the services.
///
/// # Panics
/// When they can't be read.
pub async fn migrations() -> sqlx::migrate::Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    sqlx::migrate::Migrator::new(folder)
        .await
        .expect("the migrations are read")
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
