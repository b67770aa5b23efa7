//! The kinds of objects that this version runs, and what each must have.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::de::{Checked, check};
use crate::knative;
use crate::names::NameRule;
use crate::node::Node;

/// What is known of a kind.
pub(crate) struct Kind {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Position in the order of applying: what others refer to comes first.
    pub order: u8,
    pub names: NameRule,
    /// Reads an object as the kind's Rust type.
    pub check: fn(&Node) -> Checked<()>,
    /// Fields without which the API server rejects the object. `[]` stands for every
    /// element; a field under an absent parent is not missed. A list must not be empty.
    pub required: &'static [&'static str],
    /// Where the pod template's spec lies, if the kind has one.
    pub pod_spec: Option<&'static [&'static str]>,
    /// Where the pod's own metadata (labels) lies.
    pub pod_metadata: Option<&'static [&'static str]>,
}

impl Kind {
    /// The name for messages: two kinds are called Service.
    pub(crate) fn title(&self) -> &'static str {
        match (self.api_version, self.kind) {
            ("serving.knative.dev/v1", "Service") => "Cloud Run service",
            (_, kind) => kind,
        }
    }
}

macro_rules! checked_as {
    ($type:ty) => {
        |node| check::<$type>(node).findings()
    };
}

const TEMPLATE_SPEC: &[&str] = &["spec", "template", "spec"];
const TEMPLATE_METADATA: &[&str] = &["spec", "template", "metadata"];

/// All kinds, in the order of applying.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        api_version: "v1",
        kind: "Namespace",
        namespaced: false,
        order: 0,
        names: NameRule::Label,
        check: checked_as!(Namespace),
        required: &[],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "networking.k8s.io/v1",
        kind: "IngressClass",
        namespaced: false,
        order: 1,
        names: NameRule::Subdomain,
        check: checked_as!(IngressClass),
        required: &["spec", "spec.controller"],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "v1",
        kind: "ConfigMap",
        namespaced: true,
        order: 2,
        names: NameRule::Subdomain,
        check: checked_as!(ConfigMap),
        required: &[],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "v1",
        kind: "Secret",
        namespaced: true,
        order: 2,
        names: NameRule::Subdomain,
        check: checked_as!(Secret),
        required: &[],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "v1",
        kind: "Service",
        namespaced: true,
        order: 3,
        names: NameRule::Label1035,
        check: checked_as!(Service),
        required: &["spec", "spec.ports[].port"],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        namespaced: true,
        order: 4,
        names: NameRule::Subdomain,
        check: checked_as!(EndpointSlice),
        required: &["addressType", "endpoints[].addresses"],
        pod_spec: None,
        pod_metadata: None,
    },
    Kind {
        api_version: "apps/v1",
        kind: "Deployment",
        namespaced: true,
        order: 5,
        names: NameRule::Subdomain,
        check: checked_as!(Deployment),
        required: &[
            "spec",
            "spec.selector",
            "spec.template",
            "spec.template.metadata.labels",
            "spec.template.spec",
        ],
        pod_spec: Some(TEMPLATE_SPEC),
        pod_metadata: Some(TEMPLATE_METADATA),
    },
    Kind {
        api_version: "apps/v1",
        kind: "ReplicaSet",
        namespaced: true,
        order: 5,
        names: NameRule::Subdomain,
        check: checked_as!(ReplicaSet),
        required: &[
            "spec",
            "spec.selector",
            "spec.template",
            "spec.template.metadata.labels",
            "spec.template.spec",
        ],
        pod_spec: Some(TEMPLATE_SPEC),
        pod_metadata: Some(TEMPLATE_METADATA),
    },
    Kind {
        api_version: "v1",
        kind: "Pod",
        namespaced: true,
        order: 5,
        names: NameRule::Subdomain,
        check: checked_as!(Pod),
        required: &["spec"],
        pod_spec: Some(&["spec"]),
        pod_metadata: Some(&["metadata"]),
    },
    Kind {
        api_version: "serving.knative.dev/v1",
        kind: "Service",
        namespaced: true,
        order: 6,
        names: NameRule::Label1035,
        check: checked_as!(knative::Service),
        required: &["spec", "spec.template", "spec.template.spec"],
        pod_spec: Some(TEMPLATE_SPEC),
        pod_metadata: Some(TEMPLATE_METADATA),
    },
    Kind {
        api_version: "networking.k8s.io/v1",
        kind: "Ingress",
        namespaced: true,
        order: 7,
        names: NameRule::Subdomain,
        check: checked_as!(Ingress),
        required: &[
            "spec",
            "spec.rules[].http.paths",
            "spec.rules[].http.paths[].pathType",
            "spec.rules[].http.paths[].backend",
        ],
        pod_spec: None,
        pod_metadata: None,
    },
];

/// What a pod's spec must have, wherever it lies.
pub(crate) const POD_REQUIRED: &[&str] = &[
    "containers",
    "containers[].image",
    "containers[].ports[].containerPort",
    "containers[].env[].name",
    "containers[].volumeMounts[].name",
    "containers[].volumeMounts[].mountPath",
    "initContainers[].name",
    "initContainers[].image",
    "initContainers[].env[].name",
    "volumes[].name",
];

/// The kind of exactly this version.
pub(crate) fn find(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.api_version == api_version && k.kind == kind)
}

/// All versions under which a kind of this name is known.
pub(crate) fn named(kind: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |k| k.kind == kind)
}

/// The group of an apiVersion: empty for the core group.
pub(crate) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Kinds of Kubernetes whose objects live in no namespace: kustomize's `namespace`
/// leaves them alone. Kinds that aren't known count as namespaced.
pub(crate) fn is_cluster_scoped(api_version: &str, kind: &str) -> bool {
    match find(api_version, kind) {
        Some(k) => !k.namespaced,
        None => matches!(
            kind,
            "Namespace"
                | "Node"
                | "PersistentVolume"
                | "StorageClass"
                | "CSIDriver"
                | "ClusterRole"
                | "ClusterRoleBinding"
                | "CustomResourceDefinition"
                | "IngressClass"
                | "GatewayClass"
                | "PriorityClass"
                | "RuntimeClass"
                | "APIService"
                | "MutatingWebhookConfiguration"
                | "ValidatingWebhookConfiguration"
                | "ValidatingAdmissionPolicy"
        ),
    }
}

/// Kinds that Kubernetes has and this version does not run.
pub(crate) const NOT_EMULATED: &[&str] = &[
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "CustomResourceDefinition",
    "LimitRange",
    "ResourceQuota",
    "Endpoints",
    "ReplicationController",
    "Gateway",
    "HTTPRoute",
];
