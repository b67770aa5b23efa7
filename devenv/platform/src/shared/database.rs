//! Cloud SQL on a cluster that others use: the Compose file's image as a pod of the
//! developer's own namespace, with a volume where the cluster makes them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use devenv_compose::{MountKind, Service};
use devenv_model::{CloudSql, Topology};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::error::KubeError;
use super::forward::Pods;
use super::{KubeTarget, forward};
use crate::address;
use crate::cloudsql::{self, Account, described, service_of};
use crate::kubernetes::{apply, apply_own};
use crate::pods::{is_available, pods_say};
use crate::target::{Database, ImageFact, TargetError};

/// The label of the database's pod.
pub const OF_DATABASE: (&str, &str) = ("devenv.dev/role", "database");
/// What is the database's in the namespace.
const NAME: &str = "devenv-cloudsql";
const MYSQL: u16 = 3306;
/// How long it may take to be there: an image is pulled and a volume made meanwhile.
const READY: Duration = Duration::from_secs(300);
/// How much the volume holds.
const SIZE: &str = "2Gi";
/// What marks the StorageClass that is taken where none is named.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

impl KubeTarget {
    /// Starts it, waits until it takes connections, and makes it one of this machine, too.
    pub(super) async fn cloud_sql(
        &self,
        topology: &Topology,
        config: &CloudSql,
    ) -> Result<Database, TargetError> {
        cloudsql::in_container(config, "another cluster")?;
        service_of(topology, &config.service)?;
        let account = Account::of(topology, &self.options.state_dir)?;
        let namespace = &self.namespace;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        if let Some(object) = &account.secret {
            apply_own(&secrets, &config.secret, object).await?;
        }
        let account = account.credentials;
        let service = described(config, &account, &self.options.root)?;
        apply_own(&secrets, NAME, &environment(&service)).await?;
        let keeps = self.has_storage().await;
        if keeps {
            let claims: Api<PersistentVolumeClaim> =
                Api::namespaced(self.client.clone(), namespace);
            apply_own(&claims, NAME, &claim()).await?;
        }
        self.start_database(&deployment(&service, keeps)).await?;
        let wanted = SocketAddr::new(IpAddr::V4(self.options.address), MYSQL);
        let bound = address::bind_or_next(wanted, "")?;
        let pods = Pods {
            client: self.client.clone(),
            namespace: namespace.clone(),
            labels: format!("{}={}", OF_DATABASE.0, OF_DATABASE.1),
            port: Some(MYSQL),
        };
        self.keep(forward::listen(bound.listener, bound.address, pods)?);
        let mut database = cloudsql::database(config, account, bound.address, None, None).await?;
        database.facts.workload = Some(NAME.to_owned());
        let lost =
            "this cluster has no default StorageClass: the database's data goes with its pod";
        let notes = [bound.note, (!keeps).then(|| lost.to_owned())];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        let database = Database {
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            ..database
        };
        let unknown = ImageFact::Unknown("the cluster has pulled it by itself".to_owned());
        self.with_endpoints(|endpoints| {
            endpoints.database = Some(database.facts.clone());
            endpoints.images.insert(service.image.clone(), unknown);
        });
        Ok(database)
    }

    /// Whether a volume is made for who asks for one. Who may not ask is taken at the word
    /// of most clusters, which make them.
    async fn has_storage(&self) -> bool {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let Ok(list) = classes.list(&ListParams::default()).await else {
            return true;
        };
        let is_default = |class: &StorageClass| {
            let marked = class.annotations().get(DEFAULT_CLASS);
            marked.is_some_and(|value| value == "true")
        };
        list.items.iter().any(is_default)
    }

    async fn start_database(&self, object: &Value) -> Result<(), TargetError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let applied = apply(&api, NAME, object).await;
        let applied = applied.map_err(|e| self.api_error("Deployment of the database", &e))?;
        let generation = applied.metadata.generation.unwrap_or(0);
        let is_ready = move |found: Option<&Deployment>| {
            found.is_some_and(|deployment| is_available(deployment, generation))
        };
        match tokio::time::timeout(READY, await_condition(api, NAME, is_ready)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(KubeError::Api {
                context: self.options.context.clone(),
                what: "waiting for the database".to_owned(),
                reason: e.to_string(),
            }
            .into()),
            Err(_) => Err(KubeError::Database {
                reason: pods_say(&self.client, &self.namespace).await,
                seconds: READY.as_secs(),
            }
            .into()),
        }
    }
}

/// What the Compose file sets, kept from whoever may read pods only.
fn environment(service: &Service) -> Value {
    let set = service.environment.iter();
    let set: BTreeMap<&str, &str> = set
        .filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": NAME},
        "stringData": set,
    })
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": SIZE}}},
    })
}

fn deployment(service: &Service, keeps: bool) -> Value {
    let labels = json!({OF_DATABASE.0: OF_DATABASE.1});
    let data = service.mounts.iter();
    let data = data.filter(|m| matches!(m.kind, MountKind::Volume { .. }));
    let data: Vec<Value> = data
        .enumerate()
        .map(|(n, mount)| {
            // A new file system has a folder of its own at its root, which a server takes
            // for somebody's data.
            json!({"name": "data", "mountPath": mount.target, "subPath": format!("data-{n}")})
        })
        .collect();
    let mut container = json!({
        "name": "mysql",
        "image": service.image,
        "envFrom": [{"secretRef": {"name": NAME}}],
        "ports": [{"name": "mysql", "containerPort": MYSQL, "protocol": "TCP"}],
        // While the image sets itself up, its server listens on no port.
        "readinessProbe": {"tcpSocket": {"port": MYSQL}, "periodSeconds": 1},
        "volumeMounts": data,
    });
    if let Some(entrypoint) = &service.entrypoint {
        container["command"] = json!(entrypoint);
    }
    if let Some(command) = &service.command {
        container["args"] = json!(command);
    }
    let volume = match keeps {
        true => json!({"name": "data", "persistentVolumeClaim": {"claimName": NAME}}),
        false => json!({"name": "data", "emptyDir": {}}),
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 1,
            // Two servers never share a data directory.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container],
                    "volumes": [volume],
                    "enableServiceLinks": false,
                },
            },
        },
    })
}
