//! The objects by which the controller runs in a cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Value, json};

/// The namespace of the controller.
pub const NAMESPACE: &str = "ingress-devenv";

/// Names everything that is the controller's.
const NAME: &str = "ingress-devenv";
const CLASS: &str = "nginx";
/// What makes a class ours: see `devenv_ingress`'s `compile::class`.
const CONTROLLER: &str = "devenv.dev/ingress";
/// Above 1023, so that no privilege is needed.
const HTTP_PORT: u16 = 8080;
const HEALTH_PORT: u16 = 10254;
/// Of the images without a user database ("nonroot" in distroless).
const USER: u32 = 65532;
/// What a pod is given on top of the requests in flight.
const END: Duration = Duration::from_secs(5);

/// What [`manifest`] needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestOptions {
    /// The image, whose entry point is `devenv`. It is pulled only where it is
    /// not loaded into the node.
    pub image: String,
    /// The port of the node that requests come in by; 80.
    pub host_port: u16,
    /// `--publish-status-address`: see
    /// [`ControllerOptions::publish_status_addresses`](crate::ControllerOptions::publish_status_addresses);
    /// 127.0.0.1, where kind's port mappings lead to the node.
    pub publish_status_addresses: Vec<IpAddr>,
    /// `--grace`, in whole seconds: see
    /// [`ControllerOptions::grace`](crate::ControllerOptions::grace); 25 s. The
    /// pod is given 5 s more.
    pub grace: Duration,
    /// Value of `DEVENV_LOG` in the container; `info`, without what kube says of each request.
    pub log: String,
}

impl ManifestOptions {
    /// The defaults, with an image.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            host_port: 80,
            publish_status_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            grace: Duration::from_secs(25),
            log: "info,kube=off,kube_client=off".to_owned(),
        }
    }
}

/// The objects that must be applied for `devenv ingress-controller` to serve a
/// cluster's Ingresses of class `nginx`, in the order in which to apply them:
/// Namespace, ServiceAccount, ClusterRole, ClusterRoleBinding, IngressClass,
/// Deployment.
///
/// For server-side apply on Kubernetes 1.20 (which knows no default of a merge
/// key, so each port has its protocol) through current. A cluster in which
/// another controller has the IngressClass `nginx` refuses ours: a class'
/// `spec.controller` cannot be changed.
///
/// The container is started with
/// `ingress-controller --listen 0.0.0.0:8080 --health 0.0.0.0:10254 --grace
/// SECONDS [--publish-status-address IP]…`, each with `=` before its value.
///
/// HTTP only: nothing serves port 443.
pub fn manifest(options: &ManifestOptions) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": with(&[
                    // Host ports are against the stricter levels, which a cluster may enforce
                    // by default.
                    ("pod-security.kubernetes.io/enforce", "privileged"),
                ]),
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels()},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME, "labels": labels()},
            "rules": rules(),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME, "labels": labels()},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": NAME,
            },
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS, "labels": labels()},
            "spec": {"controller": CONTROLLER},
        }),
        deployment(options),
    ]
}

fn labels() -> Value {
    with(&[])
}

fn with(more: &[(&str, &str)]) -> Value {
    let mut labels = selector();
    labels["app.kubernetes.io/part-of"] = json!("devenv");
    for (name, value) in more {
        labels[*name] = json!(value);
    }
    labels
}

fn selector() -> Value {
    json!({"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "controller"})
}

/// The least that works. Discovery is open to all service accounts.
fn rules() -> Value {
    let read = ["get", "list", "watch"];
    json!([
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["ingresses", "ingressclasses"],
            "verbs": read,
        },
        {
            "apiGroups": [""],
            "resources": ["services", "endpoints"],
            "verbs": read,
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": read,
        },
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["ingresses/status"],
            "verbs": ["update", "patch"],
        },
        {
            "apiGroups": [""],
            "resources": ["events"],
            "verbs": ["create", "patch"],
        },
    ])
}

fn deployment(options: &ManifestOptions) -> Value {
    let grace = options.grace.as_secs();
    let mut args = vec![
        "ingress-controller".to_owned(),
        format!("--listen=0.0.0.0:{HTTP_PORT}"),
        format!("--health=0.0.0.0:{HEALTH_PORT}"),
        format!("--grace={grace}"),
    ];
    args.extend(
        options
            .publish_status_addresses
            .iter()
            .map(|address| format!("--publish-status-address={address}")),
    );
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "health", "scheme": "HTTP"},
            "periodSeconds": period,
            "timeoutSeconds": 1,
            "failureThreshold": failures,
            "successThreshold": 1,
        })
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels()},
        "spec": {
            "replicas": 1,
            // Two pods cannot have one port of the node.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector()},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": grace + END.as_secs(),
                    // kind maps the machine's ports to this node.
                    "nodeSelector": {"ingress-ready": "true", "kubernetes.io/os": "linux"},
                    "tolerations": [
                        // The second one until 1.24.
                        {"key": "node-role.kubernetes.io/control-plane",
                         "operator": "Exists", "effect": "NoSchedule"},
                        {"key": "node-role.kubernetes.io/master",
                         "operator": "Exists", "effect": "NoSchedule"},
                    ],
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "controller",
                        "image": options.image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": args,
                        "env": [{"name": "DEVENV_LOG", "value": options.log}],
                        "ports": [
                            {"name": "http", "containerPort": HTTP_PORT,
                             "hostPort": options.host_port, "protocol": "TCP"},
                            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
                        ],
                        "readinessProbe": probe("/readyz", 1, 3),
                        "livenessProbe": probe("/healthz", 10, 5),
                        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
    use k8s_openapi::api::networking::v1::IngressClass;
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;

    fn example() -> Vec<Value> {
        manifest(&ManifestOptions::new("registry.example/devenv:1"))
    }

    #[test]
    fn it_is_as_it_is() {
        // Whether objects keep their order is decided by who else uses serde_json.
        insta::with_settings!({sort_maps => true}, {
            insta::assert_json_snapshot!(example());
        });
    }

    /// Nothing that the API does not know: it would be dropped.
    #[test]
    fn every_field_is_the_apis() {
        fn known<K: DeserializeOwned + Serialize>(value: &Value) {
            let typed: K = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(&serde_json::to_value(typed).unwrap(), value);
        }
        let objects = example();
        for object in &objects {
            match object["kind"].as_str().unwrap() {
                "Namespace" => known::<Namespace>(object),
                "ServiceAccount" => known::<ServiceAccount>(object),
                "ClusterRole" => known::<ClusterRole>(object),
                "ClusterRoleBinding" => known::<ClusterRoleBinding>(object),
                "IngressClass" => known::<IngressClass>(object),
                "Deployment" => known::<Deployment>(object),
                kind => panic!("an unknown kind: {kind}"),
            }
        }
        assert_eq!(objects.len(), 6);
    }

    #[test]
    fn options_reach_the_container() {
        let mut options = ManifestOptions::new("i:1");
        options.host_port = 8081;
        options.publish_status_addresses =
            vec!["172.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        options.grace = Duration::from_secs(7);
        let objects = manifest(&options);
        let pod = &objects[5]["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["terminationGracePeriodSeconds"], 12);
        assert_eq!(container["ports"][0]["hostPort"], 8081);
        assert_eq!(
            container["args"],
            json!([
                "ingress-controller",
                "--listen=0.0.0.0:8080",
                "--health=0.0.0.0:10254",
                "--grace=7",
                "--publish-status-address=172.18.0.2",
                "--publish-status-address=fd00::2",
            ])
        );
    }
}
