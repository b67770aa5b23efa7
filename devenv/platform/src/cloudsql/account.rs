//! The account of the application, and what is found out about the server that it is for.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use devenv_model::{CloudSql, CloudSqlEngine, Topology};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Row};

use super::{CREDENTIALS_PASSWORD, CREDENTIALS_USER, Credentials};
use crate::target::{Database, DatabaseFacts, TargetError};

/// An account, and whether devenv made it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub credentials: Credentials,
    /// The Secret that has to be applied, where the project has none of its own.
    pub secret: Option<Value>,
}

impl Account {
    /// From the project's own Secret, or made once and kept in the state folder.
    pub fn of(topology: &Topology, state_dir: &Path) -> Result<Self, TargetError> {
        let config = topology.cloud_sql().ok_or_else(|| {
            TargetError::Unsupported("devenv.toml has no [cloudsql] section".to_owned())
        })?;
        if let Some((user, password)) = secret_of(topology, &config.secret) {
            let credentials = Credentials {
                user,
                password,
                database: config.database.clone(),
            };
            return Ok(Self {
                credentials,
                secret: None,
            });
        }
        let path = state_dir.join("secrets").join("cloudsql");
        let password = kept_password(&path).map_err(|source| TargetError::Io {
            what: "keep",
            path: path.clone(),
            source,
        })?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": config.secret, "namespace": topology.project().namespace},
            "stringData": {CREDENTIALS_USER: config.user, CREDENTIALS_PASSWORD: password},
        });
        let credentials = Credentials {
            user: config.user.clone(),
            password,
            database: config.database.clone(),
        };
        Ok(Self {
            credentials,
            secret: Some(secret),
        })
    }
}

/// A database that came up at this address of this machine: what is said of it, and how it is
/// reached. `known` are its name and version, where the server need not be asked.
pub(crate) async fn database(
    config: &CloudSql,
    account: Credentials,
    at: SocketAddr,
    known: Option<(String, String)>,
    compose_project: Option<String>,
) -> Result<Database, TargetError> {
    let (host, port) = (at.ip().to_string(), at.port());
    let connect = MySqlConnectOptions::new()
        .host(&host)
        .port(port)
        .username(&account.user)
        .password(&account.password)
        .database(&account.database)
        // A server of this machine is asked without; one that wants TLS (MySQL's own
        // way of sending a password) gets it.
        .ssl_mode(match known {
            Some(_) => MySqlSslMode::Disabled,
            None => MySqlSslMode::Preferred,
        });
    let (flavour, version) = match known {
        Some(known) => known,
        None => ask(&connect).await?,
    };
    let facts = DatabaseFacts {
        stands_in: stands_in(&config.version, &flavour, &version),
        engine: flavour,
        version,
        asked: config.version.clone(),
        host,
        port,
        user: account.user,
        database: account.database,
        secret: config.secret.clone(),
        compose_project,
        workload: None,
    };
    Ok(Database {
        facts,
        connect,
        note: None,
    })
}

/// The name and version of a server that is known by its answers alone.
async fn ask(connect: &MySqlConnectOptions) -> Result<(String, String), TargetError> {
    let unknown = |e: sqlx::Error| TargetError::Database {
        reason: format!("it does not answer: {e}"),
    };
    let mut connection = connect.connect().await.map_err(unknown)?;
    let row = sqlx::query("SELECT VERSION()")
        .fetch_one(&mut connection)
        .await;
    let version: String = row.and_then(|row| row.try_get(0)).map_err(unknown)?;
    Ok(match version.split_once("-MariaDB") {
        Some((version, _)) => ("MariaDB".to_owned(), version.to_owned()),
        None => ("MySQL".to_owned(), version),
    })
}

/// That a container stands in, since no engine of this machine can be reached from `cluster`.
///
/// # Errors
/// When devenv.toml says otherwise.
pub(crate) fn in_container(config: &CloudSql, cluster: &str) -> Result<(), TargetError> {
    match config.engine_beside(true) {
        CloudSqlEngine::Container => Ok(()),
        CloudSqlEngine::Local => Err(TargetError::Unsupported(format!(
            "{}: an engine of this machine can't be reached from {cluster}; leave [cloudsql] \
             engine out, or say engine = \"container\"",
            config.origin
        ))),
    }
}

/// The Service that the project says leads to the database.
pub(crate) fn service_of(topology: &Topology, name: &str) -> Result<Service, TargetError> {
    let namespace = &topology.project().namespace;
    topology
        .of_kind("v1", "Service")
        .find(|o| o.name() == name && o.namespace() == Some(namespace))
        .and_then(|o| o.typed().ok())
        .ok_or_else(|| TargetError::Database {
            reason: format!(
                "the manifests have no Service {name} in the namespace {namespace}, which is that of \
                 [project] in devenv.toml (or of -n)"
            ),
        })
}

/// `mysql:8.4` asked for and MariaDB running, or another major version.
fn stands_in(asked: &str, flavour: &str, running: &str) -> bool {
    let (name, version) = asked.split_once(':').unwrap_or((asked, ""));
    let same_name = name.eq_ignore_ascii_case(flavour);
    !same_name || !running.starts_with(version)
}

/// User and password of a Secret among the project's own objects.
fn secret_of(topology: &Topology, name: &str) -> Option<(String, String)> {
    let secret = topology
        .objects()
        .iter()
        .find(|o| o.kind() == "Secret" && o.name() == name)?;
    let key = |key: &str| {
        if let Some(text) = secret.value()["stringData"][key].as_str() {
            return Some(text.to_owned());
        }
        let data = secret.value()["data"][key].as_str()?;
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).ok()?;
        String::from_utf8(bytes).ok()
    };
    Some((key(CREDENTIALS_USER)?, key(CREDENTIALS_PASSWORD)?))
}

fn kept_password(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let bytes: [u8; 18] = rand::random();
    let password = hex::encode(bytes);
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut &file, password.as_bytes())?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_is_told() {
        assert!(stands_in("mysql:8.4", "MariaDB", "10.11.19"));
        assert!(!stands_in("mysql:8.4", "MySQL", "8.4.3"));
        assert!(stands_in("mysql:8.0", "MySQL", "9.7.4"));
        assert!(!stands_in("mysql", "MySQL", "9.7.4"));
    }

    #[test]
    fn a_password_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets/cloudsql");
        let first = kept_password(&path).unwrap();
        assert_eq!(first.len(), 36);
        assert_eq!(first, kept_password(&path).unwrap());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
