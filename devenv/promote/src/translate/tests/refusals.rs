//! What can't be said, and how it is told.

use rstest::rstest;

use super::*;

/// Each on main, named with what to do instead.
#[rstest]
#[case(
    "configuration-snippet",
    "more_set_headers 'X: y';",
    "nginx's configuration means nothing"
)]
#[case("auth-url", "https://auth", "Identity-Aware Proxy")]
#[case("auth-tls-secret", "ns/ca", "GCPClientTLSPolicy")]
#[case("whitelist-source-range", "10.0.0.0/8", "Cloud Armor policy")]
#[case("limit-rps", "10", "rate limit of Cloud Armor")]
#[case("enable-modsecurity", "true", "preconfigured rules")]
#[case("mirror-target", "https://m$request_uri", "RequestMirror")]
#[case("proxy-ssl-secret", "ns/x", "BackendTLSPolicy")]
#[case("backend-protocol", "HTTPS", "appProtocol")]
#[case("ssl-passthrough", "true", "TLSRoute")]
#[case("ssl-ciphers", "ALL", "GCPGatewayPolicy")]
#[case("upstream-hash-by", "$request_uri", "sessionAffinity")]
#[case("upstream-hash-by-subset", "true", "sessionAffinity")]
#[case("proxy-next-upstream", "error http_502", "Idempotency-Key")]
#[case("custom-http-errors", "404", "error pages")]
#[case("custom-headers", "ns/x", "ResponseHeaderModifier")]
#[case("proxy-cookie-path", "/ /x", "Location headers")]
#[case("from-to-www-redirect", "true", "permanent-redirect")]
#[case("rewrite-target", "/$1", "replaces a prefix")]
#[case("upstream-vhost", "$host", "fixed host name")]
#[case("permanent-redirect", "/there", "no URL")]
#[case("permanent-redirect", "https://x:8443/", "do not redirect to a port")]
#[case("permanent-redirect", "https://$host/", "fixed host")]
#[case("ssl-redirect", "yes", "\"true\" or \"false\"")]
#[case("force-ssl-redirect", "true", "no certificate")]
#[case("proxy-read-timeout", "60s", "whole seconds")]
#[case("affinity", "ip", "write \"cookie\"")]
#[case("proxy-boddy-size", "2m", "check its spelling")]
fn what_cant_be_said_is_named_with_the_alternative(
    #[case] name: &str,
    #[case] value: &str,
    #[case] says: &str,
) {
    let found = problems(&[simple("/api", "Prefix", None, &[(name, value)])]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("Ingress so1-fase2/telemetry: "),
        "{found:?}"
    );
    assert!(
        found[0].contains(name) && found[0].contains(says),
        "{found:?}"
    );
}

/// Each on the canary.
#[rstest]
#[case(&[("canary-by-cookie", "tester")], "can't match one cookie")]
#[case(&[("canary-by-header", "x"), ("canary-by-header-pattern", "a.*")], "each by nginx.ingress.kubernetes.io/canary-by-header-value")]
#[case(&[("canary-weight", "50%")], "without a sign of percent")]
#[case(&[("canary", "yes")], "an ordinary Ingress; write \"true\"")]
#[case(&[("canary", "false")], "drops all canary-* annotations")]
#[case(&[("canary-by-header", "x y")], "letters, digits and dashes")]
#[case(&[("canary-by-header", "x"), ("canary-by-header-value", "a;b")], "which ingress-nginx refuses")]
fn canaries_that_cant_be_said(#[case] annotations: &[(&str, &str)], #[case] says: &str) {
    let found = problems(&[parse(MAIN), canary_with(annotations)]);
    assert!(
        found[0].contains("telemetry-canary") && found[0].contains(says),
        "{found:#?}"
    );
}

/// What disables a canary in ingress-nginx without a word is an error here.
#[test]
fn a_canarys_stray_path_is_an_error() {
    let mut canary: Ingress = parse(CANARY);
    let paths = &mut canary.spec.as_mut().unwrap().rules.as_mut().unwrap()[0]
        .http
        .as_mut()
        .unwrap()
        .paths;
    paths.push(paths[0].clone());
    paths[1].path = Some("/api/".into());
    let found = problems(&[parse(MAIN), canary]);
    assert!(
        found[0].contains("disables the canary for all its paths"),
        "{found:#?}"
    );
}

#[test]
fn a_second_canary_and_a_canary_alone_are_errors() {
    let mut second: Ingress = parse(CANARY);
    second.metadata.name = Some("a-second".into());
    let backend = &mut second.spec.as_mut().unwrap().rules.as_mut().unwrap()[0]
        .http
        .as_mut()
        .unwrap()
        .paths[0]
        .backend;
    let service = backend.service.as_mut().unwrap();
    service.name = "api3-service".into();
    service.port.as_mut().unwrap().number = Some(8080);
    let main = simple("/api", "Prefix", None, &[]);
    // From the end of the alphabet: telemetry-canary is first.
    let found = problems(&[main, parse(CANARY), second]);
    assert!(
        found[0].starts_with("Ingress so1-fase2/a-second: "),
        "{found:#?}"
    );
    assert!(found[0].contains("looks at the first one only"));
    let found = problems(&[parse(CANARY)]);
    assert!(found[0].contains("without any ordinary Ingress"));
}

#[test]
fn all_problems_come_at_once() {
    let found = problems(&[
        main_with(&[("auth-url", "https://auth"), ("limit-rps", "5")]),
        canary_with(&[("canary-by-cookie", "x")]),
    ]);
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn paths_that_no_route_can_have() {
    for (path, regex) in [
        ("/a(b|c)", true),
        ("/a[0-9]+", true),
        ("/a b", false),
        ("a", false),
    ] {
        let annotations: &[(&str, &str)] = if regex { &[("use-regex", "true")] } else { &[] };
        let found = problems(&[simple(path, "ImplementationSpecific", None, annotations)]);
        assert!(found[0].contains(path), "{found:?}");
    }
}

#[test]
fn what_a_backend_needs() {
    let mut ingress = simple("/api", "Prefix", None, &[]);
    let service = |ingress: &mut Ingress, name: &str, port: i32| {
        let rules = ingress.spec.as_mut().unwrap().rules.as_mut().unwrap();
        let path = &mut rules[0].http.as_mut().unwrap().paths[0];
        let service = path.backend.service.as_mut().unwrap();
        service.name = name.into();
        service.port.as_mut().unwrap().number = Some(port);
    };
    service(&mut ingress, "nobody", 80);
    assert!(problems(&[ingress.clone()])[0].contains("there is no Service nobody"));
    service(&mut ingress, "api1-service", 81);
    assert!(problems(&[ingress])[0].contains("has no port \"81\""));
}
