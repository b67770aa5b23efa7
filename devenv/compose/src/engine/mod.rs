//! A project on a Docker Engine.

mod body;
mod down;
mod error;
mod image;
mod labels;
mod logs;
mod ps;
mod running;
mod share;
mod up;
mod wait;

use bollard::Docker;

pub use self::error::{EngineError, is_disk_full};
pub use self::logs::{LogLine, LogOptions, Stream};
pub use self::ps::{Container, Published};
pub use self::share::Share;

/// Where an engine listens when `DOCKER_HOST` says nothing.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// A Docker Engine that answers.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    host: String,
}

/// What happens, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An image is being pulled.
    Pulling {
        /// Its reference.
        image: String,
    },
    /// One more step of that: what the registry or engine says.
    PullStep {
        /// Its reference.
        image: String,
        /// `Downloading`, `Pull complete`…
        status: String,
    },
    /// A network was made.
    NetworkCreated(String),
    /// A volume was made.
    VolumeCreated(String),
    /// Containers that no service of the file owns any more; they are left alone.
    Orphans(Vec<String>),
    /// A container was made.
    Created(String),
    /// A container was made anew, because its configuration or its image has changed.
    Recreated(String),
    /// A container runs as it should and was left alone.
    Unchanged(String),
    /// A container was started.
    Started(String),
    /// A container is waited for.
    Waiting {
        /// Its name.
        container: String,
        /// `healthy`, `ended`.
        until: &'static str,
    },
    /// A container's healthcheck passes.
    Healthy(String),
    /// A container was stopped.
    Stopped(String),
    /// A container, network or volume was removed.
    Removed(String),
}

/// Who is told of the [`Progress`].
pub type Told<'t> = &'t (dyn Fn(Progress) + Send + Sync);

impl Engine {
    /// The engine at `host` (the value of `DOCKER_HOST`: `unix://…` or `tcp://…`), or at
    /// [`DEFAULT_HOST`]. The version of its API is agreed on.
    ///
    /// # Errors
    /// [`EngineError::Missing`] when none answers.
    pub async fn connect(host: Option<&str>) -> Result<Self, EngineError> {
        let host = host.filter(|h| !h.is_empty()).unwrap_or(DEFAULT_HOST);
        let docker = Docker::connect_with_host(host).map_err(|e| error::missing(host, &e))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|e| error::missing(host, &e))?;
        Ok(Self {
            docker,
            host: host.into(),
        })
    }

    /// Where it listens.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The client, for what is beyond Compose.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }
}
