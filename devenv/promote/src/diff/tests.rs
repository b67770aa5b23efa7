use rstest::rstest;
use serde_json::json;

use super::*;

/// A Deployment as it is written.
fn wanted() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "api2", "namespace": "so1-fase2", "labels": { "app": "api2" } },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "api2" } },
            "template": {
                "metadata": { "labels": { "app": "api2" } },
                "spec": { "containers": [{
                    "name": "api2",
                    "image": "reg/api2@sha256:aaa",
                    "ports": [{ "name": "http", "containerPort": 3000 }],
                    "env": [
                        { "name": "PORT", "value": "3000" },
                        { "name": "DB_HOST", "value": "cloudsql" },
                        { "name": "DB_PASSWORD", "value": "hunter2" },
                    ],
                    "resources": { "limits": { "memory": "128Mi" }, "requests": { "cpu": "50m" } },
                    "readinessProbe": { "httpGet": { "path": "/readyz", "port": "http" } },
                }]},
            },
        },
    })
}

/// The same as an API server has it.
fn live() -> Value {
    let mut live = wanted();
    live["metadata"]["uid"] = json!("u");
    live["metadata"]["resourceVersion"] = json!("7");
    live["metadata"]["generation"] = json!(3);
    live["metadata"]["creationTimestamp"] = json!("2026-11-01T00:00:00Z");
    live["metadata"]["annotations"] = json!({
        "deployment.kubernetes.io/revision": "3",
        "kubectl.kubernetes.io/last-applied-configuration": "{\"hunter2\":1}",
    });
    live["status"] = json!({ "replicas": 1, "hunter2": true });
    let spec = &mut live["spec"];
    spec["progressDeadlineSeconds"] = json!(600);
    spec["revisionHistoryLimit"] = json!(10);
    spec["strategy"] = json!({
        "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" },
    });
    let pod = &mut spec["template"]["spec"];
    pod["dnsPolicy"] = json!("ClusterFirst");
    pod["restartPolicy"] = json!("Always");
    pod["schedulerName"] = json!("default-scheduler");
    pod["securityContext"] = json!({});
    pod["terminationGracePeriodSeconds"] = json!(30);
    let container = &mut pod["containers"][0];
    container["imagePullPolicy"] = json!("IfNotPresent");
    container["terminationMessagePath"] = json!("/dev/termination-log");
    container["terminationMessagePolicy"] = json!("File");
    container["ports"][0]["protocol"] = json!("TCP");
    container["resources"] = json!({
        "limits": { "memory": "134217728" },
        "requests": { "cpu": "0.05" },
    });
    let probe = &mut container["readinessProbe"];
    probe["httpGet"]["scheme"] = json!("HTTP");
    probe["periodSeconds"] = json!(10);
    probe["successThreshold"] = json!(1);
    probe["failureThreshold"] = json!(3);
    probe["timeoutSeconds"] = json!(1);
    live
}

fn says(live: &Value, wanted: &Value) -> String {
    let found = diff(
        std::slice::from_ref(live),
        std::slice::from_ref(wanted),
        "devenv",
    );
    found.to_string().trim_end().to_owned()
}

#[test]
fn what_the_server_adds_is_no_change() {
    assert_eq!(says(&live(), &wanted()), "");
    assert_eq!(says(&wanted(), &wanted()), "");
}

#[test]
fn a_release_in_a_sentence() {
    let mut wanted = wanted();
    wanted["spec"]["replicas"] = json!(3);
    let container = &mut wanted["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("reg/api2@sha256:bbb");
    container["env"].as_array_mut().unwrap().remove(1);
    assert_eq!(
        says(&live(), &wanted),
        "Deployment api2: replicas 1 → 3; env DB_HOST removed; image reg/api2@sha256:aaa → \
         reg/api2@sha256:bbb"
    );
}

/// A field, its new value, and what is said.
#[rstest]
#[case("/spec/template/spec/containers/0/resources/limits/memory", json!("256Mi"), "memory limit 134217728 → 256Mi")]
#[case("/spec/template/spec/containers/0/resources/requests/cpu", json!("0.05"), "")]
#[case("/spec/template/spec/containers/0/env/0/value", json!("3001"), "env PORT 3000 → 3001")]
#[case("/spec/template/spec/containers/0/env/2/value", json!("hunter3"), "env DB_PASSWORD changed")]
#[case("/spec/template/spec/containers/0/readinessProbe/httpGet/path", json!("/healthz"), "readinessProbe.httpGet.path /readyz → /healthz")]
#[case("/metadata/labels/app", json!("x"), "label app api2 → x")]
#[case("/spec/template/metadata/labels/app", json!("x"), "pods' label app api2 → x")]
fn fields_by_the_words_of_people(#[case] at: &str, #[case] value: Value, #[case] text: &str) {
    let mut wanted = wanted();
    *wanted.pointer_mut(at).unwrap() = value;
    let expected = if text.is_empty() {
        String::new()
    } else {
        format!("Deployment api2: {text}")
    };
    assert_eq!(says(&live(), &wanted), expected);
}

#[test]
fn order_is_no_change_where_items_have_names() {
    let mut wanted = wanted();
    let env = &mut wanted["spec"]["template"]["spec"]["containers"][0]["env"];
    env.as_array_mut().unwrap().reverse();
    assert_eq!(says(&live(), &wanted), "");
}

#[test]
fn new_things_within() {
    let mut wanted = wanted();
    let pod = &mut wanted["spec"]["template"]["spec"];
    pod["volumes"] = json!([{ "name": "tmp", "emptyDir": {} }]);
    let container = &mut pod["containers"][0];
    container["volumeMounts"] = json!([{ "name": "tmp", "mountPath": "/tmp" }]);
    container["command"] = json!(["api2"]);
    container["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "NEW", "value": "1" }));
    pod["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "side", "image": "x" }));
    assert_eq!(
        says(&live(), &wanted),
        "Deployment api2: container api2: command added; container api2: env NEW added; \
         container api2: mount /tmp added; container side added; volume tmp added"
    );
}

#[test]
fn ingresses_routes_services_and_maps() {
    let ingress = |weight: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "name": "telemetry-canary",
                "annotations": { "nginx.ingress.kubernetes.io/canary-weight": weight },
            },
            "spec": { "rules": [{ "http": { "paths": [{ "path": "/api", "pathType": "Prefix" }] } }] },
        })
    };
    assert_eq!(
        says(&ingress("50"), &ingress("5")),
        "Ingress telemetry-canary: canary weight 50 → 5"
    );
    let route = |weight: u32, more: bool| {
        let mut refs = vec![json!({ "name": "api1-service", "port": 5000, "weight": weight })];
        if more {
            refs.push(json!({ "name": "api1-canary", "port": 5000, "weight": 5 }));
        }
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": "telemetry" },
            "spec": { "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": "/api" } }],
                "backendRefs": refs,
            }] },
        })
    };
    assert_eq!(
        says(&route(50, false), &route(45, true)),
        "HTTPRoute telemetry: weight of api1-service at /api 50 → 45; backend api1-canary at /api \
         added"
    );
    let service = |target: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "api1-service" },
            "spec": { "ports": [{ "port": 80, "targetPort": target }] },
        })
    };
    assert_eq!(
        says(&service("http"), &service("web")),
        "Service api1-service: port 80/TCP: targetPort http → web"
    );
    let map = |level: &str, token: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "config" },
            "data": { "LOG_LEVEL": level, "TOKEN": token },
        })
    };
    assert_eq!(
        says(&map("info", "hunter2"), &map("debug", "hunter3")),
        "ConfigMap config: key LOG_LEVEL info → debug; key TOKEN changed"
    );
}

fn secret(data: Value) -> Value {
    let mut out = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "credentials" },
    });
    for (name, value) in data.as_object().unwrap() {
        out[name] = value.clone();
    }
    out
}

#[test]
fn secrets_say_which_key_and_never_what() {
    // hunter2 in base64.
    let live =
        secret(json!({ "type": "Opaque", "data": { "A": "aHVudGVyMg==", "B": "aHVudGVyMg==" } }));
    assert_eq!(
        says(
            &live,
            &secret(json!({ "stringData": { "A": "hunter2", "B": "hunter2" } }))
        ),
        ""
    );
    let wanted = secret(json!({ "stringData": { "A": "hunter3", "C": "hunter2" } }));
    let found = diff(
        std::slice::from_ref(&live),
        std::slice::from_ref(&wanted),
        "devenv",
    );
    assert_eq!(
        found.to_string(),
        "Secret credentials: key A changed; key B removed; key C added\n"
    );
    let all = format!("{found:?} {}", serde_json::to_string(&found).unwrap());
    for planted in ["hunter", "aHVudGVy"] {
        assert!(!all.contains(planted), "{all}");
    }
    // Also where a whole Secret comes or goes.
    for found in [
        diff(&[], std::slice::from_ref(&wanted), "x"),
        diff(&[live], &[], "x"),
    ] {
        let all = format!(
            "{found:?} {found} {}",
            serde_json::to_string(&found).unwrap()
        );
        assert!(
            !all.contains("hunter") && !all.contains("aHVudGVy"),
            "{all}"
        );
    }
}

#[test]
fn objects_come_and_go() {
    let found = diff(&[live()], &[secret(json!({}))], "devenv");
    assert_eq!(
        found.to_string(),
        "Deployment api2: removed\nSecret credentials: new\n"
    );
}

#[test]
fn as_json() {
    let mut wanted = wanted();
    wanted["spec"]["replicas"] = json!(3);
    let found = diff(&[live()], &[wanted], "devenv");
    assert_eq!(
        serde_json::to_value(&found).unwrap(),
        json!({ "objects": [{
            "kind": "Deployment",
            "group": "apps",
            "namespace": "so1-fase2",
            "name": "api2",
            "change": "changed",
            "fields": [{
                "path": "spec.replicas",
                "label": "replicas",
                "from": 1,
                "to": 3,
                "kind": "changed",
                "secret": false,
            }],
        }]})
    );
}

#[test]
fn unknown_kinds_have_paths() {
    let object = |value: u32| {
        json!({
            "apiVersion": "x.example.com/v1",
            "kind": "Widget",
            "metadata": { "name": "w" },
            "spec": { "deep": [{ "a": { "b.c/d": value } }] },
        })
    };
    assert_eq!(
        says(&object(1), &object(2)),
        "Widget w: spec.deep[0].a[b.c/d] 1 → 2"
    );
}

/// What a manager's entry looks like: fields of the Deployment above.
fn managed(manager: &str, fields: Value) -> Value {
    json!({
        "manager": manager,
        "operation": if manager == "devenv" { "Apply" } else { "Update" },
        "apiVersion": "apps/v1",
        "time": "2026-11-20T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    })
}

fn container_fields(fields: Value) -> Value {
    json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": {
        "k:{\"name\":\"api2\"}": fields,
    } } } } })
}

#[test]
fn what_is_not_ours_stays_and_what_is_goes() {
    let mut live = live();
    live["metadata"]["annotations"]["team"] = json!("core");
    live["spec"]["minReadySeconds"] = json!(7);
    live["metadata"]["managedFields"] = json!([
        managed(
            "devenv",
            json!({
                "f:spec": { "f:minReadySeconds": {} },
                "f:metadata": { "f:labels": { "f:app": {} } },
            })
        ),
        managed(
            "kubectl-annotate",
            json!({ "f:metadata": { "f:annotations": { "f:team": {} } } })
        ),
    ]);
    assert_eq!(
        says(&live, &wanted()),
        "Deployment api2: minReadySeconds removed".replace("minReady", "spec.minReady")
    );
    // Nobody knows whose they are: what is no default is taken to go.
    live["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(
        says(&live, &wanted()),
        "Deployment api2: annotation team removed; spec.minReadySeconds removed"
    );
}

#[test]
fn drift_names_who_changed_what() {
    let mut live = live();
    live["spec"]["replicas"] = json!(5);
    let container = &mut live["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("reg/api2@sha256:evil");
    container["env"][2]["value"] = json!("hunter3");
    live["metadata"]["annotations"]["team"] = json!("core");
    let mut of_status = managed(
        "kube-controller-manager",
        json!({ "f:status": { "f:replicas": {} } }),
    );
    of_status["subresource"] = json!("status");
    live["metadata"]["managedFields"] = json!([
        managed(
            "devenv",
            container_fields(json!({ ".": {}, "f:name": {}, "f:ports": {
            "k:{\"containerPort\":3000,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} },
        } }))
        ),
        managed(
            "kubectl-edit",
            container_fields(json!({
                "f:image": {},
                "f:env": { "k:{\"name\":\"DB_PASSWORD\"}": { ".": {}, "f:value": {} } },
                "f:resources": { "f:limits": { "f:memory": {} } },
            }))
        ),
        managed(
            "kubectl-annotate",
            json!({ "f:metadata": { "f:annotations": { ".": {}, "f:team": {} } } })
        ),
        managed("hpa", json!({ "f:spec": { "f:replicas": {} } })),
        of_status,
        managed(
            "kube-controller-manager",
            json!({
                "f:metadata": { "f:annotations": { "f:deployment.kubernetes.io/revision": {} } },
            })
        ),
    ]);
    let found = drift(std::slice::from_ref(&live), &[wanted()], "devenv", &["hpa"]);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "Deployment api2: annotation team core is set beside (by kubectl-annotate, \
             2026-11-20T10:00:00Z)",
            "Deployment api2: env DB_PASSWORD is another; image is reg/api2@sha256:evil, \
             reg/api2@sha256:aaa is wanted (by kubectl-edit, 2026-11-20T10:00:00Z)",
        ]
    );
    assert!(found[1].fields.iter().all(|field| field.conflicts));
    let all = format!("{found:?} {}", serde_json::to_string(&found).unwrap());
    assert!(!all.contains("hunter"), "{all}");
    assert_eq!(drift(&[live], &[], "devenv", &[]), []);
}

/// Whatever a cluster or a file holds.
#[rstest]
#[case(json!(null))]
#[case(json!([]))]
#[case(json!({ "kind": 7, "metadata": "x", "spec": [[[1]]] }))]
#[case(json!({ "kind": "Secret", "data": 5, "stringData": { "a": [] } }))]
#[case(json!({ "metadata": { "managedFields": [{ "fieldsV1": { "k:{": {}, "i:x": {}, "f:a": 5, "v:1": {} } }] }, "a": 1 }))]
fn what_is_no_object_is_no_panic(#[case] object: Value) {
    let odd = [object];
    diff(&odd, &[wanted()], "devenv").to_string();
    diff(&[live()], &odd, "devenv").to_string();
    let other = json!({ "kind": odd[0]["kind"], "metadata": { "a": 1 }, "spec": { "x": [1, {}] } });
    diff(&odd, std::slice::from_ref(&other), "devenv").to_string();
    drift(&odd, &[other], "devenv", &[]);
}

/// In whole containers, in URLs and in arguments as well.
#[test]
fn what_looks_like_a_secret_is_not_told() {
    let mut wanted = wanted();
    let pod = &mut wanted["spec"]["template"]["spec"];
    let container = &mut pod["containers"][0];
    container["env"][0]["value"] = json!("mysql://me:hunter2@cloudsql/x");
    container["args"] = json!(["--db-password=hunter2", "--port=1"]);
    pod["containers"].as_array_mut().unwrap().push(json!({
        "name": "side",
        "env": [
            { "name": "API_TOKEN", "value": "hunter2" },
            { "name": "URL", "value": "https://example.com/a:b@c" },
            { "name": "REF_TOKEN", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
        ],
    }));
    let found = diff(&[live()], &[wanted], "devenv");
    let all = format!(
        "{found:?} {found} {}",
        serde_json::to_string(&found).unwrap()
    );
    assert!(!all.contains("hunter2"), "{all}");
    for kept in ["--port=1", "https://example.com/a:b@c", "secretKeyRef"] {
        assert!(all.contains(kept), "{kept} is no secret: {all}");
    }
}
