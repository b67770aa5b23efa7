//! What leads from a Service without a selector to the database, and when it leads nowhere.

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{Api, Client, ResourceExt, api::ListParams, runtime::wait::await_condition};

/// The label of slices that devenv fills in.
const OF_SLICES: &str = "endpointslice.kubernetes.io/managed-by=devenv";
/// That of Endpoints.
const OF_ENDPOINTS: &str = "app.kubernetes.io/managed-by=devenv";

/// An object that leads to the database, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lead {
    Slice(String),
    /// On clusters without EndpointSlices of version 1.
    Endpoints(String),
}

impl Lead {
    /// Those of a namespace that devenv fills in.
    pub async fn ours(client: &Client, namespace: &str) -> kube::Result<Vec<Self>> {
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        match slices.list(&ListParams::default().labels(OF_SLICES)).await {
            Ok(list) => Ok(list.iter().map(|s| Self::Slice(s.name_any())).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let all: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
                let list = all
                    .list(&ListParams::default().labels(OF_ENDPOINTS))
                    .await?;
                Ok(list.iter().map(|e| Self::Endpoints(e.name_any())).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// Until it leads to somebody who is ready, or to nobody.
    pub async fn until(&self, client: &Client, namespace: &str, filled: bool) {
        let waited = match self {
            Self::Slice(name) => {
                let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
                let condition = move |slice: Option<&EndpointSlice>| slice_leads(slice) == filled;
                await_condition(api, name, condition).await.map(drop)
            }
            Self::Endpoints(name) => {
                let api: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
                let condition = move |found: Option<&Endpoints>| endpoints_lead(found) == filled;
                await_condition(api, name, condition).await.map(drop)
            }
        };
        if let Err(error) = waited {
            tracing::debug!(%error, ?self, "waiting for the database's endpoints");
        }
    }
}

fn slice_leads(slice: Option<&EndpointSlice>) -> bool {
    let mut endpoints = slice.into_iter().flat_map(|slice| &slice.endpoints);
    endpoints.any(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|c| c.ready).unwrap_or(true)
    })
}

fn endpoints_lead(found: Option<&Endpoints>) -> bool {
    let mut subsets = found.into_iter().flat_map(|e| e.subsets.iter().flatten());
    subsets.any(|s| s.addresses.as_ref().is_some_and(|a| !a.is_empty()))
}
