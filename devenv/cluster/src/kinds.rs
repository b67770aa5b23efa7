//! The kinds of object that this cluster serves.
//!
//! One static per kind; everything that depends on the kind (paths, discovery,
//! whether `metadata.generation` is counted) is read from here, so that a new
//! kind is one entry in this file.

use std::{fmt, hash::Hash, hash::Hasher};

/// What Kubernetes' discovery says of a resource, and what the store needs to know of it.
pub struct Kind {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version inside the group, such as `v1`.
    pub version: &'static str,
    /// The kind as written in manifests, such as `Deployment`.
    pub kind: &'static str,
    /// The resource as written in URLs, such as `deployments`.
    pub plural: &'static str,
    /// Singular form that kubectl accepts.
    pub singular: &'static str,
    /// Short forms that kubectl accepts.
    pub short: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
    /// Whether there is a `/status` subresource, so that an ordinary write leaves `.status` alone.
    pub has_status: bool,
    /// Whether there is a `/scale` subresource.
    pub has_scale: bool,
    /// Whether `metadata.generation` counts changes outside metadata and status.
    pub has_generation: bool,
}

/// A kind by reference to its static; two are equal when group and resource are.
pub type KindRef = &'static Kind;

impl Kind {
    /// `apiVersion` of its objects: `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `resource.group` as Kubernetes' messages write it: `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Kind.group` as Kubernetes' messages write it: `Pod`, `Deployment.apps`.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.plural == other.plural
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.group.hash(state);
        self.plural.hash(state);
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.group_resource())
    }
}

const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    namespaced: true,
    categories: &[],
    has_status: false,
    has_scale: false,
    has_generation: false,
};

/// `v1` Namespace.
pub static NAMESPACE: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    has_status: true,
    ..PLAIN
};

/// `v1` Node.
pub static NODE: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short: &["no"],
    namespaced: false,
    has_status: true,
    ..PLAIN
};

/// `v1` Pod.
pub static POD: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    categories: &["all"],
    has_status: true,
    has_generation: true,
    ..PLAIN
};

/// `v1` Service.
pub static SERVICE: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["svc"],
    categories: &["all"],
    has_status: true,
    ..PLAIN
};

/// `v1` ConfigMap.
pub static CONFIG_MAP: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short: &["cm"],
    ..PLAIN
};

/// `v1` Secret.
pub static SECRET: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    ..PLAIN
};

/// `v1` Endpoints.
pub static ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short: &["ep"],
    ..PLAIN
};

/// `v1` Event.
pub static EVENT: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    ..PLAIN
};

/// `apps/v1` Deployment.
pub static DEPLOYMENT: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short: &["deploy"],
    categories: &["all"],
    has_status: true,
    has_scale: true,
    has_generation: true,
    ..PLAIN
};

/// `apps/v1` ReplicaSet.
pub static REPLICA_SET: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short: &["rs"],
    categories: &["all"],
    has_status: true,
    has_scale: true,
    has_generation: true,
    ..PLAIN
};

/// `discovery.k8s.io/v1` EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    has_generation: true,
    ..PLAIN
};

/// `networking.k8s.io/v1` Ingress.
pub static INGRESS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short: &["ing"],
    has_status: true,
    has_generation: true,
    ..PLAIN
};

/// `networking.k8s.io/v1` IngressClass.
pub static INGRESS_CLASS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    has_generation: true,
    ..PLAIN
};

/// `serving.knative.dev/v1` Service, the form in which Cloud Run services are written.
pub static KNATIVE_SERVICE: Kind = Kind {
    group: "serving.knative.dev",
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["kservice", "ksvc"],
    categories: &["all", "knative", "serving"],
    has_status: true,
    has_generation: true,
    ..PLAIN
};

/// `metrics.k8s.io/v1beta1` NodeMetrics.
pub static NODE_METRICS: Kind = Kind {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "NodeMetrics",
    plural: "nodes",
    namespaced: false,
    ..PLAIN
};

/// `metrics.k8s.io/v1beta1` PodMetrics.
pub static POD_METRICS: Kind = Kind {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "PodMetrics",
    plural: "pods",
    ..PLAIN
};

/// Served kinds whose objects are measured when they are asked for, and never stored. They can be
/// got and listed, and nothing else.
pub static MEASURED: [KindRef; 2] = [&NODE_METRICS, &POD_METRICS];

/// Every kind that is stored, in the order in which discovery lists them.
pub static ALL: [KindRef; 14] = [
    &CONFIG_MAP,
    &ENDPOINTS,
    &EVENT,
    &NAMESPACE,
    &NODE,
    &POD,
    &SECRET,
    &SERVICE,
    &DEPLOYMENT,
    &REPLICA_SET,
    &ENDPOINT_SLICE,
    &INGRESS,
    &INGRESS_CLASS,
    &KNATIVE_SERVICE,
];

/// The kind behind a URL's group, version and resource.
pub fn by_path(group: &str, version: &str, plural: &str) -> Option<KindRef> {
    ALL.into_iter()
        .chain(MEASURED)
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The kind that a manifest's `apiVersion` and `kind` name.
pub fn by_kind(api_version: &str, kind: &str) -> Option<KindRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ALL.into_iter()
        .find(|k| k.group == group && k.version == version && k.kind == kind)
}

/// Position in [`ALL`], the store's index of tables.
pub(crate) fn index(kind: KindRef) -> usize {
    // Every `Kind` that can be had is one of the statics above: the fallback is never taken.
    ALL.iter().position(|k| *k == kind).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_paths_find_their_kind() {
        assert_eq!(by_kind("apps/v1", "Deployment"), Some(&DEPLOYMENT));
        assert_eq!(by_kind("v1", "Service"), Some(&SERVICE));
        assert_eq!(
            by_kind("serving.knative.dev/v1", "Service"),
            Some(&KNATIVE_SERVICE)
        );
        assert_eq!(by_kind("apps/v1beta1", "Deployment"), None);
        assert_eq!(by_path("", "v1", "pods"), Some(&POD));
        assert_eq!(by_path("apps", "v1", "pods"), None);
        assert_eq!(
            by_path("metrics.k8s.io", "v1beta1", "pods"),
            Some(&POD_METRICS)
        );
        assert_eq!(by_kind("metrics.k8s.io/v1beta1", "PodMetrics"), None);
    }

    #[test]
    fn no_two_kinds_share_a_path_or_a_name() {
        for (i, a) in ALL.iter().enumerate() {
            assert_eq!(index(a), i);
            for b in &ALL[i + 1..] {
                assert!(a != b, "{a:?} twice");
                assert!((a.group, a.kind) != (b.group, b.kind));
            }
        }
    }
}
