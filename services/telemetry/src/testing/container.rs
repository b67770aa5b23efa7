//! Real MySQL in a container of this machine's Docker Engine, by testcontainers: its image
//! is [`IMAGE`]'s, its port is one of loopback, and it ends with this process ([`Keeper`]).

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::sync::OnceCell;

use super::free_port;
use super::keeper::{self, Keeper};

/// The variable that names another image than MySQL's own.
pub const IMAGE: &str = "DEVENV_TEST_MYSQL_IMAGE";
const OFFICIAL: &str = "mysql:8.4";

/// MySQL's port in the container.
const PORT: &str = "3306/tcp";
// Images put it into statements as it is.
const ROOT_PASSWORD: &str = "a secret of root";
/// How long a server may take to answer. Its first start makes the data directory.
const PATIENCE: Duration = Duration::from_secs(180);

/// The image that is run.
pub fn image() -> String {
    std::env::var(IMAGE).unwrap_or_else(|_| OFFICIAL.to_owned())
}

/// Whether an engine answers that has the image already.
pub fn is_here() -> bool {
    Command::new("docker")
        .args(["image", "inspect", &image()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A server in a container.
#[derive(Debug)]
pub struct MySql {
    /// Ends before the keeper, which finds nothing to do then.
    container: ContainerAsync<GenericImage>,
    port: u16,
    _keeper: Keeper,
}

impl MySql {
    /// The one for all tests of this process that need none alone. Nothing drops it: its
    /// keeper removes it.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<MySql> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts one. An image that is not here is pulled.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        keeper::sweep();
        let port = free_port();
        let keeper = Keeper::of_container(port);
        let image = image();
        // What follows the last colon is a registry's port if it holds a folder.
        let (name, tag) = image
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .unwrap_or((&image, "latest"));
        let container = GenericImage::new(name, tag)
            // A kill is one of the process, never of the machine: what the kernel has been
            // given is kept, and waiting for the disk would take most of the tests' time.
            .with_cmd([
                "--skip-name-resolve",
                "--max-connections=200",
                "--skip-log-bin",
                "--innodb-doublewrite=OFF",
                "--innodb-flush-log-at-trx-commit=2",
            ])
            .with_env_var("MYSQL_ROOT_PASSWORD", ROOT_PASSWORD)
            .with_labels(keeper.labels().to_vec())
            // Pulled, unpacked and started.
            .with_startup_timeout(PATIENCE)
            // A fixed one, so that it is the same after a kill.
            .with_host_config_modifier(move |host| {
                let binding = PortBinding {
                    host_ip: Some("127.0.0.1".to_owned()),
                    host_port: Some(port.to_string()),
                };
                let bindings = HashMap::from([(PORT.to_owned(), Some(vec![binding]))]);
                host.port_bindings = Some(bindings);
                host.publish_all_ports = Some(false);
            })
            .start()
            .await
            .unwrap_or_else(|error| panic!("a container of {image} can't be started: {error}"));
        let server = Self {
            container,
            port,
            _keeper: keeper,
        };
        server.until_it_answers().await;
        server
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How its administrator connects.
    pub fn root(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("root")
            .password(ROOT_PASSWORD)
    }

    /// Kills it without warning; returns when the container has ended.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn kill(&self) {
        if !self.is_up().await {
            return;
        }
        let docker = docker_client_instance().await.expect("the engine is here");
        let id = self.container.id();
        docker
            .kill_container(id, None)
            .await
            .unwrap_or_else(|error| panic!("the container is killed: {error}"));
        // Its exit code, which makes an error of bollard's, is that of a kill.
        docker.wait_container(id, None).next().await;
    }

    /// Whether its container runs.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub async fn is_up(&self) -> bool {
        self.container
            .is_running()
            .await
            .expect("the engine answers")
    }

    /// Starts it again on the same port and files; returns when it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn up(&self) {
        self.container
            .start()
            .await
            .unwrap_or_else(|error| panic!("the container starts again: {error}"));
        self.until_it_answers().await;
    }

    /// The log of the official image says "ready" of a server that only makes the data
    /// directory as well; a connection can't be mistaken.
    async fn until_it_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = MySqlConnection::connect_with(&self.root()).await {
            let state = error.as_database_error().and_then(|e| e.code());
            let refused = state.is_some_and(|state| state == "28000");
            let runs = self.is_up().await;
            assert!(
                runs && !refused && Instant::now() < deadline,
                "MySQL in a container: {error}\n{}",
                self.log_tail().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log.
    pub async fn log_tail(&self) -> String {
        let log = self.container.stderr_to_vec().await.unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned()
    }
}
