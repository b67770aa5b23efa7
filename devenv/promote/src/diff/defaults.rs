//! What the API server puts where nothing was said (Kubernetes 1.34, Gateway API v1).
//!
//! Needed only of objects without managed fields: with them, what is not ours stays.

use serde_json::{Value, json};

use super::path::Path;

/// Whether a field has the value that it gets where nothing is said.
pub(super) fn is_default(path: &Path, value: &Value) -> bool {
    let name = path.last();
    let text = value.as_str();
    match name {
        // Given by the API server or by controllers, whatever the value is.
        "clusterIP"
        | "clusterIPs"
        | "ipFamilies"
        | "ipFamilyPolicy"
        | "nodePort"
        | "healthCheckNodePort"
        | "finalizers"
        | "imagePullPolicy"
        | "serviceAccount"
        | "volumeName"
        | "ownerReferences"
        | "uid" => true,
        "terminationMessagePath" => text == Some("/dev/termination-log"),
        "terminationMessagePolicy" => text == Some("File"),
        "protocol" => text == Some("TCP"),
        "dnsPolicy" => text == Some("ClusterFirst"),
        "restartPolicy" => text == Some("Always"),
        "schedulerName" => text == Some("default-scheduler"),
        "sessionAffinity" => text == Some("None"),
        "internalTrafficPolicy" | "externalTrafficPolicy" => text == Some("Cluster"),
        "scheme" => text == Some("HTTP"),
        "group" => matches!(text, Some("" | "gateway.networking.k8s.io")),
        "kind" => matches!(text, Some("Service" | "Gateway" | "Secret")),
        "apiVersion" => text == Some("v1"),
        "type" => matches!(
            text,
            Some("ClusterIP" | "Opaque" | "RollingUpdate" | "PathPrefix" | "Exact" | "")
        ),
        "from" => text == Some("Same"),
        "mode" => text == Some("Terminate"),
        "maxSurge" | "maxUnavailable" => text == Some("25%"),
        "terminationGracePeriodSeconds" => *value == 30,
        "progressDeadlineSeconds" => *value == 600,
        "revisionHistoryLimit" => *value == 10,
        "replicas" | "successThreshold" | "timeoutSeconds" | "weight" => *value == 1,
        "failureThreshold" => *value == 3,
        "periodSeconds" => *value == 10,
        "initialDelaySeconds" | "minReadySeconds" => *value == 0,
        "defaultMode" => *value == 420,
        "divisor" => text == Some("0"),
        "securityContext" | "resources" | "strategy" | "emptyDir" | "rollingUpdate"
        | "allowedRoutes" | "namespaces" | "creationTimestamp" | "annotations" | "labels" => {
            is_empty_or_default(path, value)
        }
        "matches" => *value == json!([{ "path": { "type": "PathPrefix", "value": "/" } }]),
        _ => value.is_null(),
    }
}

fn is_empty_or_default(path: &Path, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields
            .iter()
            .all(|(name, value)| is_default(&path.field(name), value)),
        _ => false,
    }
}
