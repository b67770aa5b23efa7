//! The local target's Cloud SQL: an engine of this machine in a pod, or the container that
//! a Compose file describes; and the application's way to it.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use devenv_cluster::ServicePort;
use devenv_model::{CloudSql, CloudSqlEngine, Topology};
use futures_util::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret, Service},
};
use kube::Api;
use sqlx::{
    ConnectOptions, Row,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

use super::{LocalTarget, MYSQL, at, follow, io_error};
use crate::{
    address,
    cloudsql::{self, ContainerServer, Credentials, Engine, Server},
    containers::ContainerEngine,
    target::{BuiltImage, Database, DatabaseFacts, Target, TargetError, Volumes},
};

/// A database that comes up: where it is, and what is known of it.
struct Coming {
    places: BoxStream<'static, Result<follow::Place, String>>,
    /// Its name and version; `None`: it has to be asked.
    engine: Option<(String, String)>,
    /// [`DatabaseFacts::compose_project`].
    compose_project: Option<String>,
    /// [`Database::note`].
    note: Option<String>,
}

impl LocalTarget {
    /// Starts what stands in for Cloud SQL, and makes the application's Service lead to it.
    pub(super) async fn cloud_sql(
        &self,
        topology: &Topology,
        config: &CloudSql,
    ) -> Result<Database, TargetError> {
        let namespace = &topology.project().namespace;
        let service = service_of(topology, &config.service)?;
        let (account, made_here) = self.credentials(topology)?;
        let coming = match config.engine_beside(self.containers().is_some()) {
            CloudSqlEngine::Local => self.engine_here(&account).await?,
            CloudSqlEngine::Container => self.container(config, &account).await?,
        };
        if made_here {
            let secrets: Api<Secret> = Api::namespaced(self.client(), namespace);
            let object = serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": config.secret, "namespace": namespace},
                "stringData": {
                    cloudsql::CREDENTIALS_USER: account.user,
                    cloudsql::CREDENTIALS_PASSWORD: account.password,
                },
            });
            self.apply(&secrets, &config.secret, &object).await?;
        }
        let (client, name) = (self.client(), config.service.clone());
        follow::database(client, namespace.clone(), name, service, coming.places).await?;
        let kept = self
            .database_port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let bound = match kept {
            Some(bound) => bound,
            None => address::bind_or_next(at(self.address, MYSQL), "")?,
        };
        let (host, port) = (bound.address.ip().to_string(), bound.address.port());
        let to = ServicePort {
            namespace: namespace.clone(),
            service: config.service.clone(),
            port: config.port,
        };
        self.cluster.forward(bound.listener, to).await?;
        let connect = MySqlConnectOptions::new()
            .host(&host)
            .port(port)
            .username(&account.user)
            .password(&account.password)
            .database(&account.database)
            // A server of this machine is asked without; one that wants TLS (MySQL's own
            // way of sending a password) gets it.
            .ssl_mode(match coming.engine {
                Some(_) => MySqlSslMode::Disabled,
                None => MySqlSslMode::Preferred,
            });
        let (flavour, version) = match coming.engine {
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
            compose_project: coming.compose_project,
        };
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .database = Some(facts.clone());
        Ok(Database {
            facts,
            connect,
            note: coming.note,
        })
    }

    /// An engine of this machine, as a pod.
    async fn engine_here(&self, account: &Credentials) -> Result<Coming, TargetError> {
        let state_dir = &self.options.state_dir;
        let run = state_dir.join("run");
        let data = data_dir(state_dir);
        let owner = self.owner;
        let cache = cache_dir(&self.options.hidden);
        let failed = |e: tokio::task::JoinError| TargetError::Database {
            reason: e.to_string(),
        };
        let search = self
            .engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let engine = search
            .unwrap_or_else(|| tokio::task::spawn_blocking(Engine::find))
            .await
            .map_err(failed)??;
        let server = tokio::task::spawn_blocking({
            let (run, data) = (run.clone(), data.clone());
            move || -> Result<Server, TargetError> {
                cloudsql::template::ensure_data(&engine, &cache, &data, owner)?;
                Ok(Server {
                    engine,
                    data,
                    run,
                    owner,
                })
            }
        })
        .await
        .map_err(failed)??;
        let init = server
            .write_init_file(account)
            .map_err(|e| io_error("write the database's accounts in", &run, e))?;
        let run = server.run_spec(&init);
        self.deliver(&BuiltImage {
            name: server.image(),
            entrypoint: run.argv.len(),
            run,
        })
        .await?;
        let [namespace, deployment] = server.objects();
        let namespaces: Api<Namespace> = Api::all(self.client());
        self.apply(&namespaces, cloudsql::NAMESPACE, &namespace)
            .await?;
        let deployments: Api<Deployment> = Api::namespaced(self.client(), cloudsql::NAMESPACE);
        self.apply(&deployments, "cloudsql", &deployment).await?;
        let note = cloudsql::has_container(state_dir).then(|| {
            "an engine of this machine stands in for Cloud SQL, with data of its own; what was \
             in the container before is in its volume still (devenv down -v removes both)"
                .to_owned()
        });
        Ok(Coming {
            compose_project: None,
            note,
            places: follow::pod(&self.client()).boxed(),
            engine: Some((server.engine.flavour.to_string(), server.engine.version)),
        })
    }

    /// The container of the Compose file.
    async fn container(
        &self,
        config: &CloudSql,
        account: &Credentials,
    ) -> Result<Coming, TargetError> {
        let engine = match &self.options.containers {
            Some(engine) => engine.clone(),
            None => ContainerEngine::connect().await?,
        };
        let state_dir = &self.options.state_dir;
        let run = match self.options.volumes {
            Volumes::Keep => None,
            Volumes::Delete => state_dir.file_name().and_then(|name| name.to_str()),
        };
        let engine = engine.engine().clone();
        let folders = (self.options.root.as_path(), state_dir.as_path());
        let server = ContainerServer::up(engine, config, account, run, folders, &|_| ()).await?;
        let places = server.places().map(Ok).boxed();
        let compose_project = Some(server.project().to_owned());
        let data = data_dir(state_dir);
        let note = data.is_dir().then(|| {
            format!(
                "a container stands in for Cloud SQL, with data of its own; what was in the engine \
                 of this machine before is in {} still (devenv down -v removes both)",
                data.display()
            )
        });
        Ok(Coming {
            compose_project,
            note,
            places,
            engine: None,
        })
    }

    /// The account of the application: from the project's own Secret, or made by
    /// devenv once and kept in the state folder.
    fn credentials(&self, topology: &Topology) -> Result<(Credentials, bool), TargetError> {
        let config = topology.cloud_sql().ok_or_else(|| {
            TargetError::Unsupported("devenv.toml has no [cloudsql] section".to_owned())
        })?;
        if let Some((user, password)) = secret_of(topology, &config.secret) {
            return Ok((
                Credentials {
                    user,
                    password,
                    database: config.database.clone(),
                },
                false,
            ));
        }
        let path = self.options.state_dir.join("secrets").join("cloudsql");
        let password = kept_password(&path).map_err(|e| io_error("keep", &path, e))?;
        let account = Credentials {
            user: config.user.clone(),
            password,
            database: config.database.clone(),
        };
        Ok((account, true))
    }
}

fn data_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("data").join("cloudsql")
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

/// The Service that the project says leads to the database.
fn service_of(topology: &Topology, name: &str) -> Result<Service, TargetError> {
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
    Some((
        key(cloudsql::CREDENTIALS_USER)?,
        key(cloudsql::CREDENTIALS_PASSWORD)?,
    ))
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

/// Where prepared data directories are kept for all projects of this user.
fn cache_dir(state_dir: &Path) -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    base.map_or_else(|| state_dir.join("cache"), |b| b.join("devenv-gke"))
        .join("cloudsql")
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
