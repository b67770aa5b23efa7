//! EndpointSlice of `discovery.k8s.io/v1beta1`, as Kubernetes 1.17 to 1.20 serve
//! it; k8s-openapi has only what current versions serve.
//!
//! Source: `staging/src/k8s.io/api/discovery/v1beta1/types.go` of Kubernetes
//! 1.20. Fields that routing could not use are left out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ListableResource, Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// Some endpoints of a Service that have their ports in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    /// Name, namespace and labels.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default)]
    pub address_type: String,
    /// Go writes an empty list as null.
    #[serde(default)]
    pub endpoints: Option<Vec<Endpoint>>,
    /// Ports are the same type in both versions.
    #[serde(default)]
    pub ports: Option<Vec<EndpointPort>>,
}

/// One endpoint, usually a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// Addresses that are equivalent.
    #[serde(default)]
    pub addresses: Option<Vec<String>>,
    /// `serving` and `terminating` came with 1.20.
    #[serde(default)]
    pub conditions: Option<EndpointConditions>,
    /// For DNS.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The pod.
    #[serde(default)]
    pub target_ref: Option<ObjectReference>,
    /// Labels of the node: host name, zone, region.
    #[serde(default)]
    pub topology: Option<BTreeMap<String, String>>,
    /// Behind a feature gate of 1.20; before it, see `topology`.
    #[serde(default)]
    pub node_name: Option<String>,
}

impl Resource for EndpointSlice {
    const API_VERSION: &'static str = "discovery.k8s.io/v1beta1";
    const GROUP: &'static str = "discovery.k8s.io";
    const KIND: &'static str = "EndpointSlice";
    const VERSION: &'static str = "v1beta1";
    const URL_PATH_SEGMENT: &'static str = "endpointslices";
    type Scope = NamespaceResourceScope;
}

impl ListableResource for EndpointSlice {
    const LIST_KIND: &'static str = "EndpointSliceList";
}

impl Metadata for EndpointSlice {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
