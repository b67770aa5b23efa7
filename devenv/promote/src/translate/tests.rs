use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{schema::violations, *};

mod refusals;

/// Objects of the reference application's shape; tests change them.
const MAIN: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: telemetry
  namespace: so1-fase2
  labels: { app.kubernetes.io/part-of: telemetry }
  annotations:
    nginx.ingress.kubernetes.io/proxy-body-size: "2m"
spec:
  ingressClassName: nginx
  rules:
    - http:
        paths:
          - path: /api
            pathType: Prefix
            backend: { service: { name: api1-service, port: { number: 5000 } } }
          - path: /socket.io
            pathType: Prefix
            backend: { service: { name: api3-service, port: { number: 8080 } } }
          - path: /api3
            pathType: Prefix
            backend: { service: { name: api3-service, port: { number: 8080 } } }
"#;

const CANARY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: telemetry-canary
  namespace: so1-fase2
  annotations:
    nginx.ingress.kubernetes.io/canary: "true"
    nginx.ingress.kubernetes.io/canary-weight: "50"
spec:
  ingressClassName: nginx
  rules:
    - http:
        paths:
          - path: /api
            pathType: Prefix
            backend: { service: { name: api2-service, port: { number: 3000 } } }
"#;

fn parse<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).expect("a test's YAML")
}

fn annotate(ingress: &mut Ingress, annotations: &[(&str, &str)]) {
    let all = ingress.metadata.annotations.get_or_insert_default();
    for (name, value) in annotations {
        all.insert(format!("{PREFIX}{name}"), (*value).to_owned());
    }
}

fn main_with(annotations: &[(&str, &str)]) -> Ingress {
    let mut ingress: Ingress = parse(MAIN);
    annotate(&mut ingress, annotations);
    ingress
}

fn canary_with(annotations: &[(&str, &str)]) -> Ingress {
    let mut ingress: Ingress = parse(CANARY);
    annotate(&mut ingress, annotations);
    ingress
}

/// One path, `/api` of type Prefix, to api1 alone.
fn simple(path: &str, kind: &str, host: Option<&str>, annotations: &[(&str, &str)]) -> Ingress {
    let mut ingress = main_with(annotations);
    ingress
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(&format!("{PREFIX}proxy-body-size"));
    let rules = ingress.spec.as_mut().unwrap().rules.as_mut().unwrap();
    rules[0].host = host.map(str::to_owned);
    let paths = &mut rules[0].http.as_mut().unwrap().paths;
    paths.truncate(1);
    paths[0].path = Some(path.to_owned());
    paths[0].path_type = kind.to_owned();
    ingress
}

fn services() -> Vec<Service> {
    [("api1", 5000), ("api2", 3000), ("api3", 8080)]
        .into_iter()
        .map(|(name, port)| {
            parse(&format!(
                "metadata: {{ name: {name}-service }}\n\
                 spec:\n  selector: {{ app: {name} }}\n  ports: [{{ name: http, port: {port}, targetPort: http }}]\n"
            ))
        })
        .collect()
}

fn deployments() -> Vec<Deployment> {
    [("api1", 5000), ("api2", 3000), ("api3", 8080)]
        .into_iter()
        .map(|(name, port)| {
            parse(&format!(
                r#"
metadata: {{ name: {name} }}
spec:
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: {name}
          ports: [{{ name: http, containerPort: {port} }}]
          readinessProbe:
            httpGet: {{ path: /readyz, port: http }}
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 3
"#
            ))
        })
        .collect()
}

fn options() -> Options {
    Options::gke("so1-fase2", "telemetry")
}

fn run(ingresses: &[Ingress], options: &Options) -> Result<Translation, Vec<Untranslatable>> {
    let (services, deployments) = (services(), deployments());
    let inputs = Inputs {
        ingresses,
        services: &services,
        deployments: &deployments,
    };
    let found = translate(&inputs, options);
    if let Ok(found) = &found {
        for object in &found.objects {
            assert_eq!(violations(object), Vec::<String>::new(), "{object:#}");
        }
        // Neither the order of objects nor of a run shows.
        let turned: Vec<Ingress> = ingresses.iter().rev().cloned().collect();
        let again = translate(
            &Inputs {
                ingresses: &turned,
                ..inputs
            },
            options,
        );
        assert_eq!(again.as_ref(), Ok(found));
    }
    found
}

fn gke(ingresses: &[Ingress]) -> Translation {
    run(ingresses, &options()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn standard(ingresses: &[Ingress]) -> Translation {
    let options = Options {
        gateway_class: "devenv".into(),
        dialect: Dialect::Standard,
        ..options()
    };
    run(ingresses, &options).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn problems(ingresses: &[Ingress]) -> Vec<String> {
    let found = run(ingresses, &options()).expect_err("there is a problem");
    found.iter().map(ToString::to_string).collect()
}

fn of_kind<'a>(translation: &'a Translation, kind: &str) -> Vec<&'a Value> {
    let kinds = translation.objects.iter().filter(|o| o["kind"] == kind);
    kinds.collect()
}

fn rules(translation: &Translation) -> Value {
    of_kind(translation, "HTTPRoute")[0]["spec"]["rules"].clone()
}

fn backend(name: &str, port: u16, weight: u32) -> Value {
    json!({ "group": "", "kind": "Service", "name": name, "port": port, "weight": weight })
}

fn prefix(path: &str) -> Value {
    json!({ "path": { "type": "PathPrefix", "value": path } })
}

#[test]
fn the_reference_applications_pair() {
    let found = gke(&[parse(MAIN), parse(CANARY)]);
    assert_eq!(
        rules(&found),
        json!([
            {
                "matches": [prefix("/api")],
                "backendRefs": [backend("api1-service", 5000, 50), backend("api2-service", 3000, 50)],
            },
            {
                "matches": [prefix("/socket.io"), prefix("/api3")],
                "backendRefs": [backend("api3-service", 8080, 1)],
            },
        ])
    );
    let gateway = of_kind(&found, "Gateway")[0];
    assert_eq!(
        gateway["spec"],
        json!({
            "gatewayClassName": "gke-l7-global-external-managed",
            "listeners": [{
                "name": "http",
                "port": 80,
                "protocol": "HTTP",
                "allowedRoutes": { "namespaces": { "from": "Same" } },
            }],
        })
    );
    let checks = of_kind(&found, "HealthCheckPolicy");
    assert_eq!(checks.len(), 3);
    assert_eq!(
        checks[0]["spec"],
        json!({
            "default": {
                "checkIntervalSec": 5,
                "timeoutSec": 2,
                "healthyThreshold": 1,
                "unhealthyThreshold": 3,
                "config": {
                    "type": "HTTP",
                    "httpHealthCheck": {
                        "portSpecification": "USE_SERVING_PORT",
                        "requestPath": "/readyz",
                    },
                },
            },
            "targetRef": { "group": "", "kind": "Service", "name": "api1-service" },
        })
    );
    let policies = of_kind(&found, "GCPBackendPolicy");
    assert_eq!(
        policies[2]["spec"]["default"],
        json!({ "timeoutSec": 60, "connectionDraining": { "drainingTimeoutSec": 20 } })
    );
    let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
    assert!(
        notes.contains(
            &"Ingress so1-fase2/telemetry: nginx.ingress.kubernetes.io/proxy-body-size: has no \
              meaning there: the load balancer has no limit on bodies: what a service takes is up \
              to the service"
                .to_owned()
        ),
        "{notes:#?}"
    );
}

#[rstest]
#[case(&[("canary-weight", "30")], "api1-service 70, api2-service 30")]
#[case(&[("canary-weight", "0")], "api1-service 1")]
#[case(&[("canary-weight", "-5")], "api1-service 1")]
#[case(&[("canary-weight", "100")], "api2-service 1")]
#[case(&[("canary-weight", "150")], "api2-service 1")]
#[case(&[("canary-weight", "1"), ("canary-weight-total", "1000")], "api1-service 999, api2-service 1")]
// ingress-nginx ignores a total up to 100.
#[case(&[("canary-weight", "5"), ("canary-weight-total", "10")], "api1-service 95, api2-service 5")]
// A URL map's weights end at 1000.
#[case(&[("canary-weight", "2000"), ("canary-weight-total", "10000")], "api1-service 4, api2-service 1")]
fn weights_mean_what_they_mean_in_nginx(#[case] annotations: &[(&str, &str)], #[case] says: &str) {
    let found = gke(&[parse(MAIN), canary_with(annotations)]);
    let shown: Vec<String> = rules(&found)[0]["backendRefs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| format!("{} {}", b["name"].as_str().unwrap(), b["weight"]))
        .collect();
    assert_eq!(shown.join(", "), says);
}

#[test]
fn a_header_without_a_value_is_always_or_never_before_the_weight() {
    let found = gke(&[
        parse(MAIN),
        canary_with(&[("canary-by-header", "X_Canary"), ("canary-weight", "10")]),
    ]);
    let header = |value: &str| {
        json!({
            "path": { "type": "PathPrefix", "value": "/api" },
            "headers": [{ "type": "Exact", "name": "X-Canary", "value": value }],
        })
    };
    let found = rules(&found);
    assert_eq!(
        found[0],
        json!({ "matches": [header("always")], "backendRefs": [backend("api2-service", 3000, 1)] })
    );
    assert_eq!(
        found[1],
        json!({ "matches": [header("never")], "backendRefs": [backend("api1-service", 5000, 1)] })
    );
    assert_eq!(
        found[2]["backendRefs"],
        json!([
            backend("api1-service", 5000, 90),
            backend("api2-service", 3000, 10)
        ])
    );
}

/// With a value, `always` and `never` are ordinary values.
#[test]
fn a_headers_value_is_the_only_one_that_counts() {
    let found = gke(&[
        parse(MAIN),
        canary_with(&[
            ("canary-by-header", "x-group"),
            ("canary-by-header-value", "testers"),
        ]),
    ]);
    let found = rules(&found);
    assert_eq!(found[0]["matches"][0]["headers"][0]["value"], "testers");
    assert_eq!(found.as_array().unwrap().len(), 3);
}

/// The canary hangs on main's Service and port, also where another Ingress uses them.
#[test]
fn a_canary_splits_every_path_of_mains_service() {
    let mut other = simple("/other", "Exact", Some("shop.example.com"), &[]);
    other.metadata.name = Some("other".into());
    let found = gke(&[parse(MAIN), parse(CANARY), other]);
    let routes = of_kind(&found, "HTTPRoute");
    assert_eq!(routes[0]["metadata"]["name"], "other-shop-example-com");
    assert_eq!(routes[0]["spec"]["hostnames"], json!(["shop.example.com"]));
    assert_eq!(
        routes[0]["spec"]["rules"][0]["backendRefs"][1]["name"],
        "api2-service"
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("takes its share of /other on shop")),
        "{:#?}",
        found.notes
    );
}

/// By name and by number a port is two upstreams to ingress-nginx.
#[test]
fn another_way_to_write_the_port_is_another_upstream() {
    let mut other = simple("/other", "Exact", None, &[]);
    other.metadata.name = Some("other".into());
    let backend = &mut other.spec.as_mut().unwrap().rules.as_mut().unwrap()[0]
        .http
        .as_mut()
        .unwrap()
        .paths[0]
        .backend;
    let port = backend.service.as_mut().unwrap().port.as_mut().unwrap();
    (port.number, port.name) = (None, Some("http".into()));
    let found = gke(&[parse(MAIN), parse(CANARY), other]);
    let rules = rules(&found);
    let of_other = rules
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["matches"][0]["path"]["value"] == "/other")
        .unwrap();
    assert_eq!(of_other["backendRefs"].as_array().unwrap().len(), 1);
}

#[test]
fn wildcards_are_said_to_be_wider() {
    let found = gke(&[simple("/", "Prefix", Some("*.example.com"), &[])]);
    let route = of_kind(&found, "HTTPRoute")[0];
    assert_eq!(route["spec"]["hostnames"], json!(["*.example.com"]));
    assert_eq!(route["metadata"]["name"], "telemetry-any-example-com");
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("exactly one label"))
    );
}

#[test]
fn tls_has_listeners_and_a_redirect() {
    let mut ingress = simple("/api", "Prefix", Some("shop.example.com"), &[]);
    ingress.spec.as_mut().unwrap().tls = Some(parse(
        "- { hosts: [shop.example.com], secretName: shop-tls }\n- { hosts: [\"*.b.example.com\"], secretName: b-tls }",
    ));
    let found = gke(&[ingress.clone()]);
    let listeners = &of_kind(&found, "Gateway")[0]["spec"]["listeners"];
    assert_eq!(listeners[1]["hostname"], "shop.example.com");
    assert_eq!(
        listeners[1]["tls"]["certificateRefs"][0]["name"],
        "shop-tls"
    );
    let routes = of_kind(&found, "HTTPRoute");
    assert_eq!(routes[0]["spec"]["parentRefs"][0]["sectionName"], "https");
    assert_eq!(
        routes[1]["metadata"]["name"],
        "telemetry-shop-example-com-to-https"
    );
    assert_eq!(routes[1]["spec"]["parentRefs"][0]["sectionName"], "http");
    let redirect = |route: &Value| {
        route["spec"]["rules"][0]["filters"][0]["requestRedirect"]["statusCode"].clone()
    };
    assert_eq!(redirect(routes[1]), 301);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("make a GET of a POST"))
    );
    let found = standard(&[ingress.clone()]);
    assert_eq!(redirect(of_kind(&found, "HTTPRoute")[1]), 308);

    annotate(&mut ingress, &[("ssl-redirect", "false")]);
    let found = gke(&[ingress]);
    let routes = of_kind(&found, "HTTPRoute");
    assert_eq!(routes.len(), 1);
    assert_eq!(
        routes[0]["spec"]["parentRefs"],
        json!([{ "name": "telemetry" }])
    );
}

/// What a route can say in so many words.
#[rstest]
#[case("upstream-vhost", "api.internal", json!({
    "type": "URLRewrite", "urlRewrite": { "hostname": "api.internal" },
}))]
#[case("x-forwarded-prefix", "/v1", json!({
    "type": "RequestHeaderModifier",
    "requestHeaderModifier": { "set": [{ "name": "X-Forwarded-Prefix", "value": "/v1" }] },
}))]
#[case("permanent-redirect", "https://new.example.com/there", json!({
    "type": "RequestRedirect",
    "requestRedirect": {
        "scheme": "https",
        "hostname": "new.example.com",
        "path": { "type": "ReplaceFullPath", "replaceFullPath": "/there" },
        "statusCode": 301,
    },
}))]
#[case("temporal-redirect", "https://new.example.com$request_uri", json!({
    "type": "RequestRedirect",
    "requestRedirect": { "scheme": "https", "hostname": "new.example.com", "statusCode": 302 },
}))]
fn filters(#[case] name: &str, #[case] value: &str, #[case] filter: Value) {
    let found = gke(&[simple("/api", "Prefix", None, &[(name, value)])]);
    assert_eq!(rules(&found)[0]["filters"], json!([filter]));
    let has_backend = rules(&found)[0].get("backendRefs").is_some();
    assert_eq!(has_backend, !name.ends_with("redirect"));
}

#[test]
fn app_root_is_a_redirect_of_the_root_alone() {
    let found = gke(&[simple("/", "Prefix", None, &[("app-root", "/app")])]);
    let rules = rules(&found);
    assert_eq!(
        rules[0]["matches"],
        json!([{ "path": { "type": "Exact", "value": "/" } }])
    );
    assert_eq!(rules[1]["backendRefs"][0]["name"], "api1-service");
}

#[test]
fn the_prefix_idiom_is_a_rewrite() {
    let annotations = [("use-regex", "true"), ("rewrite-target", "/v2/$2")];
    let found = gke(&[simple(
        "/api(/|$)(.*)",
        "ImplementationSpecific",
        None,
        &annotations,
    )]);
    assert_eq!(
        rules(&found),
        json!([{
            "matches": [prefix("/api")],
            "filters": [{
                "type": "URLRewrite",
                "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2" } },
            }],
            "backendRefs": [backend("api1-service", 5000, 1)],
        }])
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("regex mode"))
    );
}

/// A target without groups is what every request below becomes, not a new prefix.
#[test]
fn a_plain_rewrite_replaces_the_whole_path() {
    let ingress = simple("/api", "Prefix", None, &[("rewrite-target", "/v2")]);
    let found = standard(std::slice::from_ref(&ingress));
    assert_eq!(
        rules(&found)[0]["filters"][0]["urlRewrite"]["path"],
        json!({ "type": "ReplaceFullPath", "replaceFullPath": "/v2" })
    );
    let found = problems(&[ingress]);
    assert!(found[0].contains("HTTPRoutePathRewrite"), "{found:?}");
    assert!(
        found[0].contains("/api(/|$)(.*)") && found[0].ends_with("/v2/$2"),
        "{found:?}"
    );
    // None at all: the path as ingress-nginx writes it.
    gke(&[simple("/", "Prefix", None, &[("rewrite-target", "/")])]);
}

#[test]
fn timeouts_are_policies_on_gke_and_fields_elsewhere() {
    let ingress = main_with(&[("proxy-read-timeout", "300")]);
    let found = gke(&[ingress.clone(), parse(CANARY)]);
    for policy in of_kind(&found, "GCPBackendPolicy") {
        assert_eq!(policy["spec"]["default"]["timeoutSec"], 300);
    }
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("WebSocket"))
    );
    let found = standard(&[ingress]);
    assert_eq!(
        rules(&found)[0]["timeouts"],
        json!({ "backendRequest": "300s" })
    );
    assert!(of_kind(&found, "GCPBackendPolicy").is_empty());
}

#[test]
fn sticky_sessions_can_be_said_without_a_split() {
    let annotations = [("affinity", "cookie"), ("session-cookie-max-age", "3600")];
    let ingress = simple("/api", "Prefix", None, &annotations);
    let found = gke(std::slice::from_ref(&ingress));
    assert_eq!(
        of_kind(&found, "GCPBackendPolicy")[0]["spec"]["default"]["sessionAffinity"],
        json!({ "type": "GENERATED_COOKIE", "cookieTtlSec": 3600 })
    );
    let found = problems(&[ingress, parse(CANARY)]);
    assert_eq!(
        found,
        [
            "Ingress so1-fase2/telemetry: nginx.ingress.kubernetes.io/affinity: sticky sessions and a \
          split by weights exclude each other on Google Cloud, where the split comes first; keep \
          sessions in the database, or split by header alone without affinity"
        ]
    );
}

#[test]
fn cors_is_a_filter_where_there_is_one() {
    let annotations = [
        ("enable-cors", "true"),
        ("cors-allow-origin", "https://a.example.com"),
    ];
    let ingress = simple("/api", "Prefix", None, &annotations);
    let found = standard(std::slice::from_ref(&ingress));
    let cors = &rules(&found)[0]["filters"][0]["cors"];
    assert_eq!(cors["allowOrigins"], json!(["https://a.example.com"]));
    assert_eq!(cors["maxAge"], 1_728_000);
    assert!(problems(&[ingress])[0].contains("no CORS filter"));
}

/// More rules than a route has are spread over several routes of the same hosts.
#[test]
fn many_rules_are_several_routes() {
    let ingresses: Vec<Ingress> = (0..20)
        .map(|n| {
            let host = format!("h{n}.internal");
            let path = format!("/p{n}");
            let mut ingress = simple(&path, "Prefix", None, &[("upstream-vhost", &host)]);
            ingress.metadata.name = Some(format!("many-{n:02}"));
            ingress
        })
        .collect();
    let found = gke(&ingresses);
    let routes = of_kind(&found, "HTTPRoute");
    let counts: Vec<usize> = routes
        .iter()
        .map(|route| route["spec"]["rules"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [16, 4]);
}

#[test]
fn default_backends() {
    let mut ingress = simple("/api", "Prefix", Some("a.example.com"), &[]);
    let backend = parse("service: { name: api3-service, port: { number: 8080 } }");
    ingress.spec.as_mut().unwrap().default_backend = Some(backend);
    let found = gke(&[ingress]);
    assert_eq!(rules(&found)[1]["matches"], json!([prefix("/")]));
    assert_eq!(of_kind(&found, "HTTPRoute").len(), 1);
}

#[test]
fn without_a_probe_the_port_is_asked_and_said() {
    let services = services();
    let inputs = Inputs {
        ingresses: &[simple("/api", "Prefix", None, &[])],
        services: &services,
        deployments: &[],
    };
    let found = translate(&inputs, &options()).unwrap();
    let check = of_kind(&found, "HealthCheckPolicy")[0];
    assert_eq!(violations(check), Vec::<String>::new());
    assert_eq!(check["spec"]["default"]["config"]["type"], "TCP");
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.contains("no readinessProbe"))
    );
}

#[test]
fn other_classes_are_left_alone_and_said() {
    let mut other = simple("/x", "Prefix", None, &[("auth-url", "https://x")]);
    other.metadata.name = Some("other".into());
    other.spec.as_mut().unwrap().ingress_class_name = Some("traefik".into());
    let found = gke(&[parse(MAIN), other]);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.message.starts_with("is of class traefik"))
    );
}

/// The checker itself finds what is wrong.
#[test]
fn the_schemas_refuse_what_they_should() {
    let good = gke(&[parse(MAIN), parse(CANARY)]);
    let route = of_kind(&good, "HTTPRoute")[0].clone();
    let broken: [(&str, Value); 6] = [
        ("/spec/rules/0/backendRefs/0/weight", json!(1_000_001)),
        ("/spec/rules/0/matches/0/path/value", json!("api")),
        (
            "/spec/rules/0/matches/0/path/type",
            json!("RegularExpression"),
        ),
        ("/spec/parentRefs", json!([])),
        ("/spec/rules/0/backendRefs/0/port", json!(0)),
        ("/metadata/name", json!("A_b")),
    ];
    for (at, value) in broken {
        let mut object = route.clone();
        *object.pointer_mut(at).unwrap() = value;
        assert_eq!(
            violations(&object).len(),
            1,
            "{at}: {:?}",
            violations(&object)
        );
    }
    let mut health = of_kind(&good, "HealthCheckPolicy")[0].clone();
    health["spec"]["default"]["timeoutSec"] = json!(6);
    assert_eq!(violations(&health).len(), 1);
}

#[test]
fn a_canary_of_a_release_has_its_workloads_policies() {
    let found = gke(&[parse(MAIN), parse(CANARY)]);
    let policies = policies_of_canary(&found.objects, "api1-service", "api1-canary");
    let kinds: Vec<&str> = policies
        .iter()
        .filter_map(|policy| policy["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["HealthCheckPolicy", "GCPBackendPolicy"]);
    for policy in &policies {
        assert_eq!(violations(policy), Vec::<String>::new());
        assert_eq!(policy["metadata"]["name"], "api1-canary");
    }
    assert_eq!(
        policies[0]["spec"]["default"]["config"]["httpHealthCheck"]["requestPath"],
        "/readyz"
    );
}

/// The manifests of this repository themselves, as they are now.
#[test]
fn the_repositorys_own_pair() {
    let ingresses: Vec<Ingress> = include_str!("../../../../kind/base/ingress.yaml")
        .split("\n---\n")
        .map(parse)
        .collect();
    let found = gke(&ingresses);
    assert_eq!(
        rules(&found)[0]["backendRefs"],
        json!([
            backend("api1-service", 5000, 50),
            backend("api2-service", 3000, 50)
        ])
    );
}

#[test]
fn what_has_no_route_and_what_lasts_is_noted() {
    let mut ingress: Ingress = parse(MAIN);
    let rules = ingress.spec.as_mut().unwrap().rules.as_mut().unwrap();
    rules.push(parse("host: empty.example.com"));
    let found = gke(&[ingress]);
    for says in ["empty.example.com has no paths", "so may a WebSocket"] {
        assert!(
            found.notes.iter().any(|note| note.message.contains(says)),
            "{says}: {:#?}",
            found.notes
        );
    }
}
