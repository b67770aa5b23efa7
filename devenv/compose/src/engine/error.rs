//! What the engine refuses, in words that say what to do.

use bollard::errors::Error as Docker;
use devenv_model::Origin;

/// Why something can't be done on the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers: it is not installed, not started, or not ours to use.
    #[error("no Docker Engine answers at {host}: {what}")]
    Missing {
        /// Where it was looked for.
        host: String,
        /// What is the matter.
        what: String,
        /// The command that mends it.
        help: String,
    },
    /// The engine was there and is not any more.
    #[error("the Docker Engine went away while {doing}")]
    Lost {
        /// What was being done.
        doing: String,
        /// How it showed.
        source: Docker,
    },
    /// An image is not there and can't be had.
    #[error("{origin}: the image {image} of service {service} is not there{}", pulled(.why))]
    NoImage {
        /// The service.
        service: String,
        /// Its image.
        image: String,
        /// Where the file says so.
        origin: Origin,
        /// What pulling it said; nothing if the file forbids to pull.
        why: Option<String>,
    },
    /// Somebody listens on a port that is to be published.
    #[error(
        "{origin}: service {service} can't have the port {address} of the host: {} has it",
        holder.as_deref().unwrap_or("another program")
    )]
    PortTaken {
        /// The service.
        service: String,
        /// `ADDRESS:PORT` as the engine says it.
        address: String,
        /// The container that has it; nothing if no container does.
        holder: Option<String>,
        /// Where the file says so.
        origin: Origin,
    },
    /// Something else is called that.
    #[error("{origin}: {what} {name} is there already and is not of this project: {holder}")]
    NameTaken {
        /// `the container`, `the network` or `the volume`.
        what: &'static str,
        /// The name.
        name: String,
        /// Whose it is.
        holder: String,
        /// Where the file says so.
        origin: Origin,
    },
    /// What the file calls external is not there.
    #[error("{origin}: the external {what} {name} is not there")]
    NoExternal {
        /// `network` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Where the file says so.
        origin: Origin,
    },
    /// The engine's disk is full.
    #[error("the disk of the Docker Engine is full: {message}")]
    DiskFull {
        /// What the engine said.
        message: String,
    },
    /// A container's healthcheck fails.
    #[error("{origin}: service {service} is unhealthy: {output}")]
    Unhealthy {
        /// The service.
        service: String,
        /// Its container.
        container: String,
        /// What the check said last.
        output: String,
        /// Where the file says so.
        origin: Origin,
    },
    /// A service is to be waited for until healthy, and nothing says how to tell.
    #[error(
        "{origin}: service {service} has no healthcheck, and another one waits for it to be healthy"
    )]
    NoHealthcheck {
        /// The service.
        service: String,
        /// Where the file says so.
        origin: Origin,
    },
    /// A container has ended, or was removed, that should run.
    #[error("{origin}: service {service} {how}{}", last(.logs))]
    Ended {
        /// The service.
        service: String,
        /// Its container.
        container: String,
        /// `ended with exit code 1`, `was removed`.
        how: String,
        /// The last lines that it wrote.
        logs: Vec<String>,
        /// Where the file says so.
        origin: Origin,
    },
    /// A network can't be removed: somebody is on it.
    #[error("the network {name} is still used by {}", users.join(", "))]
    NetworkUsed {
        /// Its name.
        name: String,
        /// The containers on it.
        users: Vec<String>,
    },
    /// A volume can't be removed: somebody uses it.
    #[error("the volume {name} is still used: {message}")]
    VolumeUsed {
        /// Its name.
        name: String,
        /// What the engine said.
        message: String,
    },
    /// Anything else that the engine refuses.
    #[error("the Docker Engine failed while {doing}: {message}")]
    Refused {
        /// What was being done.
        doing: String,
        /// What it said.
        message: String,
    },
}

fn pulled(why: &Option<String>) -> String {
    match why {
        Some(why) => format!(" and can't be pulled: {why}"),
        None => ", and `pull_policy: never` forbids to pull it".into(),
    }
}

fn last(logs: &[String]) -> String {
    match logs {
        [] => String::new(),
        lines => format!("; it wrote last:\n  {}", lines.join("\n  ")),
    }
}

impl EngineError {
    /// Whether an engine is what is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self, EngineError::Missing { .. })
    }

    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            EngineError::Missing { help, .. } => Some(help.clone()),
            EngineError::Lost { .. } => {
                Some("look at `journalctl -u docker`, start it, and run the command again".into())
            }
            EngineError::NoImage { image, .. } => Some(format!(
                "check the name and the network, or bring it: docker pull {image} (or docker load)"
            )),
            EngineError::PortTaken { .. } => {
                Some("stop what has it, or publish another port".into())
            }
            EngineError::NameTaken { what, name, .. } => Some(match *what {
                "the container" => format!("remove it (docker rm {name}) or rename the project"),
                _ => "write `external: true` to use it, or rename the project".into(),
            }),
            EngineError::NoExternal { what, name, .. } => {
                Some(format!("make it: docker {what} create {name}"))
            }
            EngineError::DiskFull { .. } => {
                Some("see what takes the room with `docker system df`; `docker system prune` frees what nothing uses".into())
            }
            EngineError::Unhealthy { container, .. } | EngineError::Ended { container, .. } => {
                Some(format!("see `docker logs {container}`"))
            }
            EngineError::NoHealthcheck { .. } => {
                Some("give it a `healthcheck`, or wait for `service_started`".into())
            }
            EngineError::NetworkUsed { .. } => Some("stop those containers first".into()),
            EngineError::VolumeUsed { .. } => Some("remove the containers that use it first".into()),
            EngineError::Refused { .. } => None,
        }
    }

    /// What the engine answered while `doing`.
    pub fn of(error: Docker, doing: impl Into<String>) -> Self {
        match said(error) {
            Ok((_, message)) if is_disk_full(&message) => EngineError::DiskFull { message },
            Ok((_, message)) => EngineError::Refused {
                doing: doing.into(),
                message,
            },
            Err(source) => EngineError::Lost {
                doing: doing.into(),
                source,
            },
        }
    }
}

/// The engine's own words with the status code; or the error, if it did not speak.
pub(super) fn said(error: Docker) -> Result<(u16, String), Docker> {
    match error {
        Docker::DockerResponseServerError {
            status_code,
            message,
        } => Ok((status_code, message)),
        Docker::DockerStreamError { error } => Ok((500, error)),
        other => Err(other),
    }
}

/// Whether these are an engine's, a node's or this system's words for a full disk (ENOSPC).
pub fn is_disk_full(message: &str) -> bool {
    message.to_lowercase().contains("no space left on device")
}

/// Whether the engine says that it knows no such thing.
pub(super) fn is_not_found(error: &Docker) -> bool {
    matches!(
        error,
        Docker::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// Whether it is so already, or somebody else is doing it.
pub(super) fn is_conflict(error: &Docker) -> bool {
    matches!(
        error,
        Docker::DockerResponseServerError {
            status_code: 304 | 409,
            ..
        }
    )
}

/// The address in what the engine says when a port is taken.
pub(super) fn taken_port(message: &str) -> Option<String> {
    // "Bind for 127.0.0.1:80 failed: port is already allocated"
    if let Some((before, _)) = message.split_once(" failed: port is already allocated") {
        return before.rsplit_once(' ').map(|(_, address)| address.into());
    }
    // "listen tcp4 127.0.0.1:80: bind: address already in use", and in newer ones
    // "failed to bind host port 127.0.0.1:80/tcp: address already in use"
    let (before, _) = message.split_once("address already in use")?;
    before
        .split(|c: char| c.is_whitespace())
        .map(|word| word.trim_end_matches([':', ',']))
        .map(|word| word.split_once('/').map_or(word, |(address, _)| address))
        .rfind(|word| {
            word.rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        })
        .map(Into::into)
}

/// Why nothing answers at `host`, and what to do.
pub(super) fn missing(host: &str, error: &Docker) -> EngineError {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    let mut kind = None;
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
            words = io.to_string();
        }
        source = inner.source();
    }
    let socket = host.strip_prefix("unix://").unwrap_or(host);
    let (what, help) = match (error, kind) {
        (Docker::SocketNotFoundError(_), _) | (_, Some(std::io::ErrorKind::NotFound)) => (
            "its socket is not there".to_owned(),
            "start it: sudo systemctl start docker (not installed: sudo apt-get install docker.io)",
        ),
        (_, Some(std::io::ErrorKind::ConnectionRefused)) => (
            "nobody listens on its socket".into(),
            "start it: sudo systemctl start docker",
        ),
        (_, Some(std::io::ErrorKind::PermissionDenied)) => (
            format!("this user may not open {socket}"),
            "join its group and log in again: sudo usermod -aG docker $USER",
        ),
        (Docker::UnsupportedURISchemeError { .. }, _) => (
            "devenv speaks unix:// and tcp:// only".into(),
            "set DOCKER_HOST to the socket of an engine, or unset it",
        ),
        _ => (words, "see `docker version`"),
    };
    EngineError::Missing {
        host: host.into(),
        what,
        help: help.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "driver failed programming external connectivity on endpoint p-web-1 (4f): Bind for 127.0.0.1:80 failed: port is already allocated",
        Some("127.0.0.1:80")
    )]
    #[case(
        "driver failed programming external connectivity on endpoint a (4f): Error starting userland proxy: listen tcp4 127.0.0.1:3306: bind: address already in use",
        Some("127.0.0.1:3306")
    )]
    #[case(
        "failed to set up container networking: driver failed programming external connectivity on endpoint a (4f): failed to bind host port 0.0.0.0:80/tcp: address already in use",
        Some("0.0.0.0:80")
    )]
    #[case("OCI runtime create failed: no such file", None)]
    fn a_taken_port_is_read_from_the_message(#[case] message: &str, #[case] want: Option<&str>) {
        assert_eq!(taken_port(message).as_deref(), want);
    }

    #[test]
    fn a_full_disk_is_told_from_other_refusals() {
        let answer = |message: &str| Docker::DockerResponseServerError {
            status_code: 500,
            message: message.into(),
        };
        let full = EngineError::of(answer("mkdir /x: no space left on device"), "making it");
        assert!(matches!(full, EngineError::DiskFull { .. }));
        let other = EngineError::of(answer("no"), "making it");
        assert_eq!(
            other.to_string(),
            "the Docker Engine failed while making it: no"
        );
    }
}
