//! What becomes of each field, part by part. The truth lies in the cluster crate: change
//! an entry together with what it speaks of.

mod network;
mod pods;

use super::{Lost, Part, When};
use crate::kinds::Kind;

/// The fields of a kind's objects.
pub(super) fn of(kind: &Kind) -> Option<&'static Part> {
    Some(match (kind.api_version, kind.kind) {
        ("v1", "Namespace") => &NAMESPACE,
        ("v1", "ConfigMap") => &CONFIG_MAP,
        ("v1", "Secret") => &SECRET,
        ("v1", "Pod") => &pods::POD,
        ("apps/v1", "Deployment") => &pods::DEPLOYMENT,
        ("apps/v1", "ReplicaSet") => &pods::REPLICA_SET,
        ("v1", "Service") => &network::SERVICE,
        ("discovery.k8s.io/v1", "EndpointSlice") => &network::ENDPOINT_SLICE,
        ("networking.k8s.io/v1", "Ingress") => &network::INGRESS,
        ("networking.k8s.io/v1", "IngressClass") => &network::INGRESS_CLASS,
        ("serving.knative.dev/v1", "Service") => &pods::CLOUD_RUN,
        _ => return None,
    })
}

/// Annotations of Cloud Run services, by where they stand. The others of Cloud Run are
/// about capacity, networks, keys and who may call: nothing is missed here without them.
pub(super) static ANNOTATIONS: &[(&[&str], &[Lost])] = &[(
    &["spec", "template", "metadata", "annotations"],
    &[
        Lost {
            field: "run.googleapis.com/cloudsql-instances",
            when: When::Set,
            loss: "there is no socket in /cloudsql: connect to the Service that `[cloudsql]` of devenv.toml names, by TCP",
        },
        Lost {
            field: "run.googleapis.com/container-dependencies",
            when: When::Set,
            loss: "the containers start together: let each wait for what it needs",
        },
        Lost {
            field: "run.googleapis.com/sessionAffinity",
            when: When::Is(&["true"]),
            loss: "requests of one client go to any instance",
        },
    ],
)];

const COMMON: &[&str] = &["apiVersion", "kind", "metadata"];
/// With a status, which is the target's own to write.
const WITH_STATUS: &[&str] = &["apiVersion", "kind", "metadata", "status"];

static NAMESPACE: Part = Part {
    honoured: &["apiVersion", "kind", "metadata", "status", "spec"],
    within: &[],
    quiet: &[],
    lost: &[],
};

static CONFIG_MAP: Part = Part {
    honoured: &[
        "apiVersion",
        "kind",
        "metadata",
        "binaryData",
        "data",
        "immutable",
    ],
    within: &[],
    quiet: &[],
    lost: &[],
};

static SECRET: Part = Part {
    honoured: &[
        "apiVersion",
        "kind",
        "metadata",
        "data",
        "immutable",
        "stringData",
        "type",
    ],
    within: &[],
    quiet: &[],
    lost: &[],
};
