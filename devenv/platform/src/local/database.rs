//! The local target's Cloud SQL: an engine of this machine in a pod, or the container that
//! a Compose file describes; and the application's way to it.

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
};

use devenv_cluster::ServicePort;
use devenv_model::{CloudSql, CloudSqlEngine, Topology};
use futures_util::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret},
};
use kube::Api;

use super::{LocalTarget, MYSQL, at, io_error};
use crate::{
    address,
    cloudsql::{self, Account, ContainerServer, Credentials, Engine, Server, follow, service_of},
    containers::ContainerEngine,
    home,
    kubernetes::apply_own,
    target::{BuiltImage, Database, ImageFact, Target, TargetError, Volumes},
};

/// A database that comes up: where it is, and what is known of it.
struct Coming {
    places: BoxStream<'static, Result<follow::Place, String>>,
    /// Its name and version; `None`: it has to be asked.
    engine: Option<(String, String)>,
    /// [`DatabaseFacts::compose_project`].
    compose_project: Option<String>,
    /// Its container's image, by its name.
    image: Option<(String, ImageFact)>,
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
        let account = Account::of(topology, &self.options.state_dir)?;
        let credentials = &account.credentials;
        let coming = match config.engine_beside(self.options.containers.is_some()) {
            CloudSqlEngine::Local => self.engine_here(credentials).await?,
            CloudSqlEngine::Container => self.container(config, credentials).await?,
        };
        if let Some(object) = &account.secret {
            let secrets: Api<Secret> = Api::namespaced(self.client(), namespace);
            apply_own(&secrets, &config.secret, object).await?;
        }
        let account = account.credentials;
        let (client, name) = (self.client(), config.service.clone());
        let way = follow::Way::EndpointSlice;
        follow::database(client, namespace.clone(), name, service, coming.places, way).await?;
        let kept = self
            .database_port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let bound = match kept {
            Some(bound) => bound,
            None => address::bind_or_next(at(self.address, MYSQL), "")?,
        };
        let to = ServicePort {
            namespace: namespace.clone(),
            service: config.service.clone(),
            port: config.port,
        };
        self.cluster.forward(bound.listener, to).await?;
        let (known, project) = (coming.engine, coming.compose_project);
        let database = cloudsql::database(config, account, bound.address, known, project);
        let database = Database {
            note: coming.note,
            ..database.await?
        };
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.database = Some(database.facts.clone());
        endpoints.images.extend(coming.image);
        drop(endpoints);
        Ok(database)
    }

    /// An engine of this machine, as a pod.
    async fn engine_here(&self, account: &Credentials) -> Result<Coming, TargetError> {
        let state_dir = &self.options.state_dir;
        let run = state_dir.join("run");
        let data = data_dir(state_dir);
        let owner = self.owner;
        let cache = home::cache().unwrap_or_else(|| self.options.hidden.join("cache"));
        let cache = cache.join("cloudsql");
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
            layer: None,
        })
        .await?;
        let [namespace, deployment] = server.objects();
        let namespaces: Api<Namespace> = Api::all(self.client());
        apply_own(&namespaces, cloudsql::NAMESPACE, &namespace).await?;
        let deployments: Api<Deployment> = Api::namespaced(self.client(), cloudsql::NAMESPACE);
        apply_own(&deployments, "cloudsql", &deployment).await?;
        let note = cloudsql::has_container(state_dir).then(|| {
            "an engine of this machine stands in for Cloud SQL, with data of its own; what was \
             in the container before is in its volume still (devenv down -v removes both)"
                .to_owned()
        });
        Ok(Coming {
            compose_project: None,
            image: None,
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
            image: server.image().await,
            note,
            places,
            engine: None,
        })
    }
}

fn data_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("data").join("cloudsql")
}
