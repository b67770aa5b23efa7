//! What Kubernetes fills in when a manifest leaves it out. Pure.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::kinds::KindRef;

/// Fills in the defaults of an object of this kind; what is there stays. Doing it again changes
/// nothing.
pub fn apply(kind: KindRef, object: &mut Value) {
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            pod_spec(at(object, "spec"));
            default(at(object, "spec"), "enableServiceLinks", json!(true));
        }
        ("", "Service") => service(at(object, "spec")),
        ("", "Secret") => secret(object),
        ("", "Namespace") => namespace(object),
        ("apps", "Deployment") => deployment(at(object, "spec")),
        ("apps", "ReplicaSet") => {
            let spec = at(object, "spec");
            default(spec, "replicas", json!(1));
            template(spec);
        }
        ("", "Endpoints") => {
            for subset in items(object, "subsets") {
                for port in items(subset, "ports") {
                    default(port, "protocol", json!("TCP"));
                }
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in items(object, "ports") {
                default(port, "name", json!(""));
                default(port, "protocol", json!("TCP"));
            }
        }
        _ => {}
    }
}

/// The member `name`, made when it is not there.
fn at<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    let member = &mut value[name];
    if member.is_null() {
        *member = json!({});
    }
    member
}

fn default(value: &mut Value, name: &str, to: Value) {
    if let Value::Object(map) = value {
        let slot = map.entry(name).or_insert(Value::Null);
        if slot.is_null() {
            *slot = to;
        }
    }
}

/// The objects of a list; none when it is not there.
fn items<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter(|v| v.is_object())
}

fn deployment(spec: &mut Value) {
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
    let strategy = at(spec, "strategy");
    default(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        let rolling = at(strategy, "rollingUpdate");
        default(rolling, "maxSurge", json!("25%"));
        default(rolling, "maxUnavailable", json!("25%"));
    } else if let Some(strategy) = strategy.as_object_mut() {
        // Left over from our own defaults when an apply changes the type: no one asked for it.
        strategy.remove("rollingUpdate");
    }
    template(spec);
}

fn template(spec: &mut Value) {
    if spec.get("template").is_some_and(Value::is_object) {
        let template = at(spec, "template");
        at(template, "metadata");
        if template.get("spec").is_some_and(Value::is_object) {
            pod_spec(at(template, "spec"));
        }
    }
}

/// Fills in a pod's spec, of a Pod or of a template.
pub fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            self::container(container);
        }
    }
    for volume in items(spec, "volumes") {
        if volume
            .as_object()
            .is_some_and(|v| v.len() == 1 && v.contains_key("name"))
        {
            volume["emptyDir"] = json!({});
        }
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source) {
                default(source, "defaultMode", json!(0o644));
            }
        }
        if let Some(host_path) = volume.get_mut("hostPath") {
            default(host_path, "type", json!(""));
        }
    }
}

fn container(container: &mut Value) {
    default(
        container,
        "terminationMessagePath",
        json!("/dev/termination-log"),
    );
    default(container, "terminationMessagePolicy", json!("File"));
    let image = container["image"].as_str().unwrap_or_default();
    let policy = if floats(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    default(container, "imagePullPolicy", json!(policy));
    let resources = at(container, "resources");
    if let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned()
        && !limits.is_empty()
    {
        let requests = at(resources, "requests");
        for (name, limit) in limits {
            default(requests, &name, limit);
        }
    }
    for port in items(container, "ports") {
        default(port, "protocol", json!("TCP"));
    }
    for env in items(container, "env") {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default(probe, "timeoutSeconds", json!(1));
            default(probe, "periodSeconds", json!(10));
            default(probe, "successThreshold", json!(1));
            default(probe, "failureThreshold", json!(3));
            http_get(probe);
            if let Some(grpc) = probe.get_mut("grpc") {
                default(grpc, "service", json!(""));
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.pointer_mut(&format!("/lifecycle/{hook}")) {
            http_get(hook);
        }
    }
}

fn http_get(action: &mut Value) {
    if let Some(get) = action.get_mut("httpGet") {
        default(get, "path", json!("/"));
        default(get, "scheme", json!("HTTP"));
    }
}

/// Whether an image name means another image tomorrow: no tag, or `latest`, and no digest.
fn floats(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn service(spec: &mut Value) {
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        let config = at(spec, "sessionAffinityConfig");
        default(at(config, "clientIP"), "timeoutSeconds", json!(10800));
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        if !number.is_null() {
            default(port, "targetPort", number);
        }
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
}

fn secret(secret: &mut Value) {
    default(secret, "type", json!("Opaque"));
    let Some(map) = secret.as_object_mut() else {
        return;
    };
    // Write-only in Kubernetes: it is merged into `data` and never shown.
    if let Some(Value::Object(text)) = map.remove("stringData") {
        let data = map
            .entry("data")
            .or_insert_with(|| Value::Object(Map::new()));
        for (key, value) in text {
            data[key] = json!(BASE64_STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }
}

fn namespace(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    if name.is_string() {
        let labels = at(at(namespace, "metadata"), "labels");
        labels["kubernetes.io/metadata.name"] = name;
    }
    default(at(namespace, "spec"), "finalizers", json!(["kubernetes"]));
    default(at(namespace, "status"), "phase", json!("Active"));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kinds::{self, DEPLOYMENT, POD, SECRET, SERVICE};

    fn defaulted(kind: KindRef, mut value: Value) -> Value {
        apply(kind, &mut value);
        let mut again = value.clone();
        apply(kind, &mut again);
        assert_eq!(again, value, "defaults of defaults");
        value
    }

    #[test]
    fn deployments() {
        let d = defaulted(
            &DEPLOYMENT,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
        );
        assert_eq!(d["spec"]["replicas"], 1);
        assert_eq!(d["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(d["spec"]["progressDeadlineSeconds"], 600);
        assert_eq!(
            d["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(d["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let recreate = defaulted(
            &DEPLOYMENT,
            json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
        );
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
        assert_eq!(recreate["spec"]["replicas"], 0);
    }

    #[test]
    fn pods() {
        let pod = defaulted(
            &POD,
            json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
                "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}}),
        );
        let spec = &pod["spec"];
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        let container = &spec["containers"][0];
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(
            container["resources"]["requests"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(
            container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
            "v1"
        );
        assert_eq!(
            spec["volumes"],
            json!([{"name": "v", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}])
        );
    }

    #[rstest]
    #[case("api1", "Always")]
    #[case("api1:latest", "Always")]
    #[case("localhost:5000/api1", "Always")]
    #[case("localhost:5000/api1:1", "IfNotPresent")]
    #[case("api1@sha256:abc", "IfNotPresent")]
    fn pull_policies(#[case] image: &str, #[case] wanted: &str) {
        let pod = defaulted(&POD, json!({"spec": {"containers": [{"image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], wanted);
    }

    #[test]
    fn services_secrets_namespaces() {
        let s = defaulted(
            &SERVICE,
            json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]}}),
        );
        assert_eq!(s["spec"]["type"], "ClusterIP");
        assert_eq!(
            s["spec"]["ports"],
            json!([{"port": 80, "protocol": "TCP", "targetPort": 80},
                {"port": 81, "protocol": "TCP", "targetPort": "web"}])
        );
        let secret = defaulted(
            &SECRET,
            json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}}),
        );
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}})
        );
        let ns = defaulted(&kinds::NAMESPACE, json!({"metadata": {"name": "x"}}));
        assert_eq!(
            ns["metadata"]["labels"],
            json!({"kubernetes.io/metadata.name": "x"})
        );
        assert_eq!(ns["status"]["phase"], "Active");
    }
}
