use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{
    api::{defaults, status::Failure},
    kinds::{
        CONFIG_MAP, DEPLOYMENT, ENDPOINT_SLICE, INGRESS, KNATIVE_SERVICE, NAMESPACE, POD, SECRET,
        SERVICE,
    },
};

fn message(kind: KindRef, mut value: Value, old: Option<Value>) -> String {
    defaults::apply(kind, &mut value);
    let old = old.map(|mut old| {
        defaults::apply(kind, &mut old);
        old
    });
    let causes = validate(kind, &value, old.as_ref());
    if causes.is_empty() {
        return String::new();
    }
    Failure::invalid(
        kind,
        value["metadata"]["name"].as_str().unwrap_or_default(),
        &causes,
    )
    .message
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn the_words_of_a_real_server() {
    assert_eq!(
        message(&NAMESPACE, json!({"metadata": {"name": "so1_fase2"}}), None),
        format!(
            "Namespace \"so1_fase2\" is invalid: metadata.name: Invalid value: \"so1_fase2\": {LABEL}"
        )
    );
    assert_eq!(
        message(&CONFIG_MAP, json!({"metadata": {"name": "A_b"}}), None),
        "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    );
    let three = json!({"metadata": {"name": "d"}, "spec": {"replicas": -1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "C_", "image": ""}]}}}});
    assert_eq!(
        message(&DEPLOYMENT, three, None),
        format!(
            "Deployment.apps \"d\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.template.metadata.labels: Invalid value: map[string]string{{\"a\":\"c\"}}: `selector` does not match template `labels`, spec.template.spec.containers[0].name: Invalid value: \"C_\": {LABEL}, spec.template.spec.containers[0].image: Required value]"
        )
    );
    assert_eq!(
        message(
            &DEPLOYMENT,
            json!({"metadata": {"name": "d"}, "spec": {}}),
            None
        ),
        "Deployment.apps \"d\" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does not match template `labels`, spec.template.spec.containers: Required value]"
    );
    assert_eq!(
        message(
            &SERVICE,
            json!({"metadata": {"name": "s9"}, "spec": {"ports": [{"port": 99999}, {"port": 80}]}}),
            None
        ),
        "Service \"s9\" is invalid: [spec.ports[0].name: Required value, spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive, spec.ports[1].name: Required value]"
    );
}

fn web(selector: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": selector}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn selectors_do_not_change() {
    assert_eq!(message(&DEPLOYMENT, web("web"), Some(web("web"))), "");
    assert_eq!(
        message(&DEPLOYMENT, web("zz"), Some(web("web"))),
        "Deployment.apps \"web\" is invalid: [spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"web\"}: `selector` does not match template `labels`, spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{\"app\":\"zz\"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable]"
    );
}

fn fields(kind: KindRef, value: Value, old: Option<Value>) -> Vec<String> {
    let mut value = value;
    value["metadata"] = json!({"name": "x"});
    defaults::apply(kind, &mut value);
    validate(kind, &value, old.as_ref())
        .into_iter()
        .map(|c| format!("{} {}", c.field, c.reason))
        .collect()
}

#[rstest]
#[case(json!({"rules": [{"http": {"paths": [{"path": "api", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}),
    &["spec.rules[0].http.paths[0].pathType FieldValueRequired"])]
#[case(json!({"rules": [{"host": "10.0.0.1", "http": {"paths": [{"path": "api", "pathType": "Prefix", "backend": {"service": {"name": "s"}}}]}}]}),
    &["spec.rules[0].host FieldValueInvalid", "spec.rules[0].http.paths[0].path FieldValueInvalid",
      "spec.rules[0].http.paths[0].backend.service.port FieldValueRequired"])]
#[case(json!({}), &["spec FieldValueInvalid"])]
#[case(json!({"rules": [{"host": "*.example.com", "http": {"paths": [{"pathType": "Sometimes", "backend": {}}]}}]}),
    &["spec.rules[0].http.paths[0].pathType FieldValueNotSupported", "spec.rules[0].http.paths[0].backend FieldValueRequired"])]
fn ingresses(#[case] spec: Value, #[case] wanted: &[&str]) {
    assert_eq!(fields(&INGRESS, json!({"spec": spec}), None), wanted);
}

#[rstest]
#[case(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}), &["spec.containers[1].name FieldValueDuplicate"])]
#[case(json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
    &["spec.containers[0].volumeMounts[0].name FieldValueNotFound"])]
#[case(json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 0}], "env": [{"value": "x"}], "readinessProbe": {}}], "restartPolicy": "Maybe"}),
    &["spec.containers[0].ports[0].containerPort FieldValueInvalid", "spec.containers[0].env[0].name FieldValueRequired",
      "spec.containers[0].readinessProbe FieldValueRequired", "spec.restartPolicy FieldValueNotSupported"])]
#[case(json!({"containers": [{"name": "a", "image": "i", "env": [{"name": "X", "value": ""}],
    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v"}]}), &[])]
fn pods(#[case] spec: Value, #[case] wanted: &[&str]) {
    assert_eq!(fields(&POD, json!({"spec": spec}), None), wanted);
}

#[test]
fn the_rest() {
    let old = json!({"metadata": {"name": "x"}, "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 1}]}});
    let moved = json!({"spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}});
    assert_eq!(
        fields(&SERVICE, moved, Some(old)),
        ["spec.clusterIPs[0] FieldValueInvalid"]
    );
    assert_eq!(
        fields(&SERVICE, json!({"spec": {"type": "ExternalName"}}), None),
        ["spec.externalName FieldValueRequired"]
    );
    let frozen = json!({"immutable": true, "data": {"a": "1"}});
    assert_eq!(
        fields(
            &CONFIG_MAP,
            json!({"data": {"a": "2", "b c": ""}}),
            Some(frozen)
        ),
        [
            "data[b c] FieldValueInvalid",
            "immutable FieldValueForbidden",
            "data FieldValueForbidden"
        ]
    );
    assert_eq!(
        fields(&SECRET, json!({"type": "a"}), Some(json!({"type": "b"}))),
        ["type FieldValueInvalid"]
    );
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}], "ports": [{"port": 0}]});
    assert_eq!(
        fields(&ENDPOINT_SLICE, slice, None),
        [
            "endpoints[0].addresses[0] FieldValueInvalid",
            "ports[0].port FieldValueInvalid"
        ]
    );
    assert_eq!(
        fields(
            &KNATIVE_SERVICE,
            json!({"spec": {"foo": 1, "template": {"spec": {"containers": [{}]}}}}),
            None
        ),
        [
            "spec.template.spec.containers[0].image FieldValueRequired",
            "spec.foo FieldValueForbidden"
        ]
    );
    let mut wanted = json!({"metadata": {"labels": {"a b": "c", "ok": "-"}, "name": "x"}});
    defaults::apply(&CONFIG_MAP, &mut wanted);
    assert_eq!(validate(&CONFIG_MAP, &wanted, None).len(), 2);
    let pod = |image: &str, args: &str| json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": image, "args": [args], "imagePullPolicy": "Always"}]}});
    assert_eq!(message(&POD, pod("j", "1"), Some(pod("i", "1"))), "");
    assert!(
        message(&POD, pod("i", "2"), Some(pod("i", "1")))
            .contains("pod updates may not change fields")
    );
}
