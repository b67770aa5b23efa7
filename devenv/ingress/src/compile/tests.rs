use std::net::SocketAddr;

use rstest::rstest;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::table::{Route, Share};

/// `kind: Ingress` documents only; every service has port 80 (http, target
/// 8080) and one endpoint whose address ends in the service's number: `s3` is
/// 10.0.0.3.
fn compile_yaml(text: &str) -> Compiled {
    compile_with(text, &[])
}

fn compile_with(text: &str, without_endpoints: &[&str]) -> Compiled {
    let ingresses: Vec<Ingress> = documents(text);
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let services: Vec<Service> = names
        .iter()
        .map(|name| {
            yaml(&format!(
                "metadata: {{namespace: n, name: {name}}}\nspec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}"
            ))
        })
        .collect();
    let endpoint_slices: Vec<EndpointSlice> = names
        .iter()
        .filter(|name| !without_endpoints.contains(&name.as_str()))
        .map(|name| {
            yaml(&format!(
                "addressType: IPv4\nmetadata: {{namespace: n, name: {name}-x, labels: {{kubernetes.io/service-name: {name}}}}}\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.0.0.{}]}}]",
                &name[1..]
            ))
        })
        .collect();
    compile(&Inputs {
        ingresses: &ingresses,
        classes: &[],
        services: &services,
        endpoint_slices: &endpoint_slices,
        coming: &[],
    })
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

fn documents<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.split("\n---\n").map(yaml).collect()
}

/// Short form of an Ingress: `name age [weight]` and `host path type service`.
#[derive(Deserialize)]
struct Short {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    age: u32,
    #[serde(default)]
    weight: Option<i64>,
    #[serde(default)]
    default: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
}

/// Expands the short form, so that a table of cases stays readable.
fn short(text: &str) -> String {
    let all: Vec<Short> = yaml(text);
    all.iter()
        .map(|s| {
            let mut out = format!(
                "metadata:\n  name: {}\n  namespace: {}\n  creationTimestamp: \"2026-01-01T00:00:{:02}Z\"\n  annotations:\n    x: y\n",
                s.name,
                s.namespace.as_deref().unwrap_or("n"),
                s.age
            );
            if let Some(weight) = s.weight {
                out += &format!(
                    "    nginx.ingress.kubernetes.io/canary: \"true\"\n    nginx.ingress.kubernetes.io/canary-weight: \"{weight}\"\n"
                );
            }
            out += "spec:\n  ingressClassName: nginx\n";
            if let Some(service) = &s.default {
                out += &format!(
                    "  defaultBackend: {{service: {{name: {service}, port: {{number: 80}}}}}}\n"
                );
            }
            if !s.rules.is_empty() {
                out += "  rules:\n";
            }
            for rule in &s.rules {
                let [host, path, kind, service] =
                    rule.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let (service, port) = service.split_once(':').unwrap_or((service, "80"));
                let port = if port.parse::<u16>().is_ok() {
                    format!("number: {port}")
                } else {
                    format!("name: {port}")
                };
                out += &format!(
                    "  - {{{}http: {{paths: [{{path: {path}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{{port}}}}}}}}}]}}}}\n",
                    if host == "-" { String::new() } else { format!("host: \"{host}\", ") },
                );
            }
            out
        })
        .collect::<Vec<_>>()
        .join("\n---\n")
}

/// `s1` or `s1+s2` (split with the canary s2), or the status.
fn served(table: &Table, url: &str) -> String {
    let (host, path) = url.split_once('/').unwrap();
    match table.route(host, format!("/{path}").as_bytes()) {
        Route::NotFound => "404".into(),
        Route::AddSlash => "301".into(),
        Route::Location(location) => {
            let main = table.upstream(location.upstream.unwrap());
            if main.endpoints.is_empty() {
                return "503".into();
            }
            match main.alternative.map(|id| table.upstream(id)) {
                Some(canary)
                    if !canary.endpoints.is_empty()
                        && canary
                            .policy
                            .as_ref()
                            .is_some_and(|p| p.share != Share::Never) =>
                {
                    format!("{}+{}", main.key.service, canary.key.service)
                }
                _ => main.key.service.clone(),
            }
        }
    }
}

#[rstest]
#[case::the_pair(
    "- {name: main, rules: ['- /api Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api", "s1+s2"), ("h/api/x", "s1+s2"), ("h/", "404"), ("h/apix", "404")], &[])]
#[case::canary_older_than_main(
    "- {name: main, age: 1, rules: ['- /api Prefix s1']}
- {name: canary, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api", "s1+s2")], &[])]
#[case::implementation_specific_is_prefix(
    "- {name: main, rules: ['- /api ImplementationSpecific s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api/x", "s1+s2")], &[])]
#[case::canary_only(
    "- {name: canary, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api", "404")], &["canary: is a canary without any ordinary"])]
#[case::unknown_host_is_harmless(
    "- {name: main, rules: ['a.b /api Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['x.y /api Prefix s2', 'a.b /api Prefix s2']}",
    &[("a.b/api", "s1+s2")], &["canary: no ordinary Ingress has host x.y"])]
#[case::hostless_merges_only_with_hostless(
    "- {name: main, rules: ['a.b /api Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2']}",
    &[("a.b/api", "s1")], &["canary: no ordinary Ingress has path /api (Prefix) on host *"])]
#[case::one_stray_path_disables_all(
    "- {name: main, rules: ['a.b /api Prefix s1', 'a.b /x Prefix s3']}
- {name: canary, age: 1, weight: 50, rules: ['a.b /api Prefix s2', 'a.b /stray Prefix s2', 'a.b /x Prefix s2']}",
    &[("a.b/api", "s1"), ("a.b/x", "s3")], &["canary: no ordinary Ingress has path /stray"])]
#[case::path_text_must_be_the_same(
    "- {name: main, rules: ['- /foo Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /foo/ Prefix s2']}",
    &[("h/foo", "s1")], &["canary: no ordinary Ingress has path /foo/ (Prefix)"])]
#[case::path_type_must_be_the_same(
    "- {name: main, rules: ['- /foo Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /foo Exact s2']}",
    &[("h/foo", "s1")], &["canary: no ordinary Ingress has path /foo (Exact)"])]
#[case::namespaces_are_not_compared(
    "- {name: main, namespace: other, rules: ['- /foo Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /foo Prefix s2']}",
    &[("h/foo", "503")], &["main: service s1 does not exist in namespace other"])]
#[case::every_location_of_the_service_is_split(
    "- {name: main, rules: ['a.b /api Prefix s1', 'a.b /other Prefix s1', 'c.d / Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['a.b /api Prefix s2']}",
    &[("a.b/api", "s1+s2"), ("a.b/other", "s1+s2"), ("c.d/q", "s1+s2")],
    &["canary: also takes its share of path /other on host a.b", "canary: also takes its share of path / on host c.d"])]
#[case::port_by_name_is_another_upstream(
    "- {name: main, rules: ['- /api Prefix s1', '- /named Prefix s1:http']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api", "s1+s2"), ("h/named", "s1")], &[])]
#[case::canary_on_an_ordinary_service(
    "- {name: main, rules: ['- /api Prefix s1', '- /two Prefix s2']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2:http', '- /three Prefix s2']}",
    &[("h/api", "s1+s2"), ("h/two", "s2"), ("h/three", "s2")], &[])]
#[case::canary_on_the_very_ordinary_upstream(
    "- {name: main, rules: ['- /api Prefix s1']}
- {name: second, age: 1, rules: ['x.y /two Prefix s2']}
- {name: canary, age: 2, weight: 50, rules: ['- /api Prefix s2']}",
    &[("h/api", "s1"), ("x.y/two", "s2")], &["canary: never gets a request"])]
#[case::ordinary_after_canary_is_never_created(
    "- {name: canary, weight: 50, rules: ['- /api Prefix s2']}
- {name: main, age: 1, rules: ['- /api Prefix s1', '- /two Prefix s2']}",
    &[("h/api", "s1+s2"), ("h/two", "404")], &["main: path /two of host * is not served"])]
#[case::two_canaries_of_one_service_share_the_older_policy(
    "- {name: main, rules: ['- /a Prefix s1', '- /b Prefix s3']}
- {name: old, age: 1, weight: 0, rules: ['- /a Prefix s2']}
- {name: new, age: 2, weight: 100, rules: ['- /b Prefix s2']}",
    &[("h/a", "s1"), ("h/b", "s3")], &["new: its canary-* annotations are not used"])]
#[case::only_the_first_canary_counts(
    "- {name: main, rules: ['- /a Prefix s1']}
- {name: first, age: 1, weight: 50, rules: ['- /a Prefix s2']}
- {name: second, age: 2, weight: 50, rules: ['- /a Prefix s3']}",
    &[("h/a", "s1+s2")], &["second: is not the first canary of service s1: only n/first"])]
#[case::ties_go_from_the_end_of_the_alphabet(
    "- {name: main, rules: ['- /a Prefix s1']}
- {name: aaa, age: 1, weight: 50, rules: ['- /a Prefix s2']}
- {name: zzz, age: 1, weight: 50, rules: ['- /a Prefix s3']}",
    &[("h/a", "s1+s3")], &["aaa: is not the first canary"])]
#[case::canary_default_backend_goes_everywhere_hostless(
    "- {name: main, rules: ['- /a Prefix s1', '- /b Prefix s3', 'x.y /c Prefix s4']}
- {name: canary, age: 1, weight: 50, default: s2}",
    &[("h/a", "s1+s2"), ("h/b", "s3+s2"), ("x.y/c", "s4")], &[])]
#[case::default_backend_without_rules_serves_unknown_hosts_only(
    "- {name: main, rules: ['a.b /api Prefix s1']}
- {name: all, age: 1, default: s3}",
    &[("q/zzz", "s3"), ("a.b/api", "s1"), ("a.b/zzz", "404")], &[])]
#[case::default_backend_with_rules_serves_its_own_hosts(
    "- {name: main, default: s3, rules: ['a.b /api Prefix s1']}
- {name: more, age: 1, default: s4, rules: ['a.b /more Prefix s2', 'c.d /x Prefix s2']}",
    &[("a.b/zzz", "s3"), ("a.b/more", "s2"), ("c.d/zzz", "s4"), ("q/zzz", "404")], &[])]
#[case::a_rule_for_the_root_takes_the_implicit_one(
    "- {name: main, default: s3, rules: ['a.b /api Prefix s1', 'a.b / Prefix s2']}",
    &[("a.b/zzz", "s2")], &[])]
#[case::the_oldest_keeps_a_path(
    "- {name: young, age: 1, rules: ['a.b /api Prefix s2']}
- {name: old, rules: ['a.b /api Prefix s1']}",
    &[("a.b/api", "s1")], &["young: path /api of host a.b is already served by n/old"])]
#[case::types_of_one_path_coexist(
    "- {name: main, rules: ['- /a Prefix s1', '- /a Exact s2']}",
    &[("h/a", "s2"), ("h/a/b", "s1")], &[])]
#[case::no_fall_through_between_servers(
    "- {name: main, rules: ['x.example.com /a Prefix s1', '*.example.com /b Prefix s2', '- /c Prefix s3']}",
    &[("x.example.com/a", "s1"), ("x.example.com/b", "404"), ("x.example.com/c", "404"),
      ("y.example.com/b", "s2"), ("y.example.com/c", "404"), ("z.y.example.com/c", "s3"), ("z.y.example.com/b", "404")], &[])]
#[case::wildcard_merges_with_the_same_wildcard(
    "- {name: main, rules: ['*.e.com / Prefix s1', 'a.e.com / Prefix s3']}
- {name: canary, age: 1, weight: 50, rules: ['*.e.com / Prefix s2']}",
    &[("q.e.com/", "s1+s2"), ("a.e.com/", "s3")], &[])]
#[case::target_port_counts_as_port(
    "- {name: main, rules: ['- /a Prefix s1:8080', '- /b Prefix s1:81']}",
    &[("h/a", "s1"), ("h/b", "503")], &["main: service s1 has no port 81 (it has 80 (http))"])]
fn routes(#[case] objects: &str, #[case] urls: &[(&str, &str)], #[case] warned: &[&str]) {
    let compiled = compile_yaml(&short(objects));
    for (url, expected) in urls {
        assert_eq!(&served(&compiled.table, url), expected, "{url}");
    }
    let got: Vec<String> = compiled
        .warnings
        .iter()
        .map(|w| format!("{}: {}", w.name, w.message))
        .collect();
    assert_eq!(got.len(), warned.len(), "{got:#?}");
    for start in warned {
        assert!(
            got.iter().any(|w| w.starts_with(start)),
            "{start}\n{got:#?}"
        );
    }
}

const PAIR: &str = "- {name: main, rules: ['- /api Prefix s1']}
- {name: canary, age: 1, weight: 50, rules: ['- /api Prefix s2']}
- {name: late, age: 2, weight: 50, rules: ['- /api Prefix s3']}";

#[test]
fn a_canary_without_endpoints_leaves_main_alone_and_the_second_is_not_used() {
    let compiled = compile_with(&short(PAIR), &["s2"]);
    assert_eq!(served(&compiled.table, "h/api"), "s1");
}

#[test]
fn main_without_endpoints_is_503_whatever_the_canary_has() {
    let compiled = compile_with(&short(PAIR), &["s1"]);
    assert_eq!(served(&compiled.table, "h/api"), "503");
}

#[test]
fn accepted_are_ours_in_the_order_in_which_they_take_effect() {
    let text = short(PAIR)
        + "\n---\nmetadata: {name: foreign, namespace: n}\nspec: {ingressClassName: traefik}"
        + "\n---\nmetadata: {name: classless, namespace: n}\nspec: {}";
    let compiled = compile_yaml(&text);
    let names: Vec<&str> = compiled.accepted.iter().map(|(_, n)| n.as_str()).collect();
    assert_eq!(names, ["main", "canary", "late"]);
    assert!(compiled.warnings.iter().any(|w| w.name == "classless"));
    assert!(compiled.warnings.iter().all(|w| w.name != "foreign"));
}

#[test]
fn tls_and_resource_backends_are_warned_about() {
    let compiled = compile_yaml(
        "metadata: {name: t, namespace: n}
spec:
  ingressClassName: nginx
  tls: [{hosts: [a.b]}]
  rules:
  - http: {paths: [{path: /a, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}]}",
    );
    let messages: Vec<&str> = compiled
        .warnings
        .iter()
        .map(|w| w.message.as_str())
        .collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("spec.tls"));
    assert!(messages[1].contains("not a Service"));
}

#[test]
fn a_path_without_text_is_the_root_and_a_rule_without_http_is_nothing() {
    let compiled = compile_yaml(
        "metadata: {name: t, namespace: n}
spec:
  ingressClassName: nginx
  rules:
  - {host: x.y}
  - http: {paths: [{pathType: ImplementationSpecific, backend: {service: {name: s1, port: {number: 80}}}}]}",
    );
    assert_eq!(served(&compiled.table, "h/any"), "s1");
    assert_eq!(served(&compiled.table, "x.y/any"), "404");
}

#[test]
fn settings_come_from_the_ingress_that_made_the_location() {
    let compiled = compile_yaml(
        "metadata:
  name: t
  namespace: n
  annotations: {nginx.ingress.kubernetes.io/proxy-body-size: 8m}
spec:
  ingressClassName: nginx
  rules:
  - http: {paths: [{path: /a, pathType: Prefix, backend: {service: {name: s1, port: {number: 80}}}}]}",
    );
    let Route::Location(location) = compiled.table.route("h", b"/a") else {
        panic!("no location")
    };
    assert_eq!(location.settings.body_limit, Some(8 << 20));
}

#[test]
fn endpoints_are_found_by_target_port() {
    let compiled = compile_yaml(&short("- {name: main, rules: ['- / Prefix s7']}"));
    let expected: SocketAddr = "10.0.0.7:8080".parse().unwrap();
    assert_eq!(compiled.table.upstreams()[0].endpoints, [expected]);
}
