//! Objects of a Kubernetes API by what they say of themselves: which kinds there are, and
//! server-side apply.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::discovery::{self, Discovery};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::target::{Serves, TargetError};

/// The field manager of everything that devenv applies.
pub const FIELD_MANAGER: &str = "devenv";

/// How much of a cluster is a system's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of it: nobody else uses it.
    #[default]
    Cluster,
    /// This namespace: what is in others is other people's, and may not even be looked at.
    Namespace(String),
}

impl Scope {
    /// The system's objects of a kind.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }

    /// The same for a namespaced kind that is known by its name.
    pub fn api_of(&self, client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
        match self {
            Self::Cluster => Api::all_with(client.clone(), resource),
            Self::Namespace(name) => Api::namespaced_with(client.clone(), name, resource),
        }
    }
}

/// The kinds that an API serves.
#[derive(Debug, Clone)]
pub struct Kinds {
    /// By apiVersion and kind; and whether it is namespaced.
    all: BTreeMap<(String, String), (ApiResource, bool)>,
}

impl Kinds {
    /// Asks the API.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask(client: &Client) -> kube::Result<Self> {
        let discovery = match Discovery::new(client.clone()).run_aggregated().await {
            Ok(discovery) if discovery.has_group("") => discovery,
            // Kubernetes before 1.26 tells of one group at a time, and takes the question
            // for one that it knows.
            _ => Discovery::new(client.clone()).run().await?,
        };
        let mut all = BTreeMap::new();
        for group in discovery.groups() {
            let resources = group.versions().flat_map(|v| group.versioned_resources(v));
            for (resource, capabilities) in resources {
                let namespaced = capabilities.scope == discovery::Scope::Namespaced;
                let key = (resource.api_version.clone(), resource.kind.clone());
                all.insert(key, (resource, namespaced));
            }
        }
        Ok(Self { all })
    }

    /// Whether it serves this kind.
    pub fn has(&self, api_version: &str, kind: &str) -> bool {
        let key = (api_version.to_owned(), kind.to_owned());
        self.all.contains_key(&key)
    }

    /// Where objects of a kind are, in `namespace` if they are in any; `None`: it is not
    /// served.
    pub fn api(
        &self,
        client: &Client,
        (api_version, kind): (&str, &str),
        namespace: &str,
    ) -> Option<Api<DynamicObject>> {
        let key = (api_version.to_owned(), kind.to_owned());
        let (resource, namespaced) = self.all.get(&key)?;
        Some(match namespaced {
            true => Api::namespaced_with(client.clone(), namespace, resource),
            false => Api::all_with(client.clone(), resource),
        })
    }

    /// The namespaced ones.
    pub fn namespaced(&self) -> impl Iterator<Item = &ApiResource> {
        let all = self.all.values();
        all.filter(|(_, namespaced)| *namespaced)
            .map(|(resource, _)| resource)
    }
}

/// Applies an object for devenv, whoever else has had a say; returns what it has become.
///
/// # Errors
/// When the API refuses.
pub async fn apply<K>(api: &Api<K>, name: &str, object: &Value) -> kube::Result<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(object)).await
}

/// The same for an object of devenv's own.
pub(crate) async fn apply_own<K>(
    api: &Api<K>,
    name: &str,
    object: &Value,
) -> Result<(), TargetError>
where
    K: Clone + Debug + DeserializeOwned,
{
    let applied = apply(api, name, object).await;
    applied.map(drop).map_err(|source| TargetError::Api {
        what: format!("{} {name}", object["kind"].as_str().unwrap_or("object")),
        source: Box::new(source),
    })
}

/// A client from a kubeconfig's current context, for `namespace` where nobody names one. With
/// `connect` a server that does not take a connection for so long is given up.
///
/// # Errors
/// What is wrong with the file.
pub(crate) async fn client(
    kubeconfig: &Path,
    namespace: &str,
    connect: Option<Duration>,
) -> Result<Client, String> {
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| e.to_string())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| e.to_string())?;
    namespace.clone_into(&mut config.default_namespace);
    if connect.is_some() {
        config.connect_timeout = connect;
    }
    Client::try_from(config).map_err(|e| e.to_string())
}

/// What an API serves of what targets differ in.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn serves(client: &Client) -> kube::Result<Serves> {
    let kinds = Kinds::ask(client).await?;
    Ok(Serves {
        knative: kinds.has("serving.knative.dev/v1", "Service"),
        endpoint_slices: kinds.has("discovery.k8s.io/v1", "EndpointSlice"),
    })
}

/// The API's address, as the kubeconfig says it.
pub(crate) fn server(kubeconfig: &Path) -> String {
    let file = Kubeconfig::read_from(kubeconfig).ok();
    let server = file.and_then(|f| f.clusters.into_iter().next()?.cluster?.server);
    server.unwrap_or_default()
}
