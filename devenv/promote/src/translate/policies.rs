//! GKE's policies: health checks from probes, timeouts from annotations.
//!
//! Without them a backend of GKE's Gateways is asked `/`, where only a 200 is healthy, has
//! 30 seconds for an answer, and its connections are cut as its pods go.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, PodSpec, Probe, Service},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use super::{
    Findings, Inputs, Options,
    model::{Location, Model, Upstream},
};

/// What all locations that lead to a Service ask of it.
struct Wanted<'a> {
    upstream: &'a Upstream,
    timeout: u32,
    timeout_is_set: bool,
    affinity: Option<u32>,
    object: &'a str,
}

pub(super) fn policies(
    model: &Model,
    inputs: &Inputs<'_>,
    options: &Options,
    findings: &mut Findings,
) -> Vec<Value> {
    let mut wanted: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    for location in model.hosts.iter().flat_map(|host| &host.locations) {
        if location.settings.redirect.is_some() {
            continue;
        }
        want(&mut wanted, &location.upstream, location, findings);
        if let Some(canary) = model.canaries.get(&location.upstream) {
            want(&mut wanted, &canary.upstream, location, findings);
        }
    }
    if wanted.values().any(|wanted| !wanted.timeout_is_set) {
        findings.note(
            &format!("Gateway {}/{}", options.namespace, options.gateway),
            None,
            "an answer may take 60 s where no proxy-read-timeout is said, as in nginx, but all of \
             it, and so may a WebSocket: a higher proxy-read-timeout keeps those open",
        );
    }
    let mut checks = Vec::new();
    let mut backends = Vec::new();
    for (name, wanted) in &wanted {
        let pods = pods_of(name, inputs);
        checks.push(health_check(
            wanted.upstream,
            pods,
            inputs,
            options,
            findings,
        ));
        backends.push(backend_policy(wanted, pods, options));
    }
    checks.extend(backends);
    checks
}

/// The policies of a Service for its canary's Service as well: GKE would ask the canary `/`
/// otherwise, and a canary that is never healthy gets no request.
///
/// `objects` is a [`Translation`](super::Translation)'s; what is no policy of `service` is
/// left out.
pub fn policies_of_canary(objects: &[Value], service: &str, canary: &str) -> Vec<Value> {
    objects
        .iter()
        .filter(|object| object.pointer("/spec/targetRef/name") == Some(&json!(service)))
        .map(|object| {
            let mut policy = object.clone();
            for at in ["/metadata/name", "/spec/targetRef/name"] {
                if let Some(name) = policy.pointer_mut(at) {
                    *name = json!(canary);
                }
            }
            policy
        })
        .collect()
}

/// A canary inherits from main. A Service has one policy, so its locations must agree.
fn want<'a>(
    wanted: &mut BTreeMap<&'a str, Wanted<'a>>,
    upstream: &'a Upstream,
    location: &'a Location,
    findings: &mut Findings,
) {
    let settings = &location.settings;
    let new = Wanted {
        upstream,
        timeout: settings.read_timeout,
        timeout_is_set: settings.read_timeout_is_set,
        affinity: settings.affinity,
        object: &location.object,
    };
    match wanted.get(upstream.service.as_str()) {
        None => {
            wanted.insert(&upstream.service, new);
        }
        Some(old) => {
            if old.timeout != new.timeout {
                findings.problem(
                    new.object,
                    Some("proxy-read-timeout"),
                    format!(
                        "is {} s for the Service {}, and {} s in {}; a Service has one timeout",
                        new.timeout, upstream.service, old.timeout, old.object
                    ),
                    "say the same in both, or use a second Service",
                );
            }
            if old.affinity != new.affinity {
                findings.problem(
                    new.object,
                    Some("affinity"),
                    format!(
                        "{} wants it otherwise for the Service {}",
                        old.object, upstream.service
                    ),
                    "say the same in both, or use a second Service",
                );
            }
            if old.upstream.port != new.upstream.port {
                findings.note(
                    new.object,
                    None,
                    format!(
                        "the Service {} is used by its ports {} and {}: the health check is that \
                         of the first one",
                        upstream.service, old.upstream.port, new.upstream.port
                    ),
                );
            }
        }
    }
}

fn service_of<'a>(name: &str, services: &'a [Service]) -> Option<&'a Service> {
    services
        .iter()
        .find(|service| service.metadata.name.as_deref() == Some(name))
}

/// The pods that a Service selects, by the Deployment that makes them.
fn pods_of<'a>(name: &str, inputs: &Inputs<'a>) -> Option<&'a PodSpec> {
    let selector = service_of(name, inputs.services)?
        .spec
        .as_ref()?
        .selector
        .as_ref()?;
    let selects = |deployment: &&Deployment| {
        let labels = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.template.metadata.as_ref())
            .and_then(|metadata| metadata.labels.as_ref());
        !selector.is_empty()
            && labels.is_some_and(|labels| {
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            })
    };
    let deployment = inputs.deployments.iter().find(selects)?;
    deployment.spec.as_ref()?.template.spec.as_ref()
}

fn number_of(port: &IntOrString, container: &Container) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port),
    }
}

/// The container behind a port of a Service, and that port's number in it.
fn serving<'a>(
    upstream: &Upstream,
    pods: Option<&'a PodSpec>,
    inputs: &Inputs<'_>,
) -> Option<(&'a Container, i32)> {
    let spec = service_of(&upstream.service, inputs.services)?
        .spec
        .as_ref()?;
    let port = spec
        .ports
        .iter()
        .flatten()
        .find(|port| port.port == i32::from(upstream.port))?;
    let target = port
        .target_port
        .clone()
        .unwrap_or(IntOrString::Int(port.port));
    let containers = &pods?.containers;
    containers
        .iter()
        .filter_map(|container| Some((container, number_of(&target, container)?)))
        .find(|(container, number)| {
            let ports = container.ports.as_deref().unwrap_or_default();
            containers.len() == 1 || ports.iter().any(|port| port.container_port == *number)
        })
}

fn health_check(
    upstream: &Upstream,
    pods: Option<&PodSpec>,
    inputs: &Inputs<'_>,
    options: &Options,
    findings: &mut Findings,
) -> Value {
    let shown = format!("Service {}/{}", options.namespace, upstream.service);
    let serving = serving(upstream, pods, inputs);
    let probe = serving.and_then(|(container, _)| container.readiness_probe.as_ref());
    let config = match (serving, probe) {
        (Some((container, port)), Some(probe)) => {
            config_of(probe, container, port, &shown, findings)
        }
        _ => None,
    };
    if config.is_none() {
        findings.note(
            &shown,
            None,
            "no readinessProbe tells how to ask its pods: the load balancer looks whether their \
             port is open",
        );
    }
    let config = config.unwrap_or_else(|| {
        json!({
            "type": "TCP",
            "tcpHealthCheck": { "portSpecification": "USE_SERVING_PORT" },
        })
    });
    // The API server's defaults, where the probe has none.
    let seconds =
        |value: Option<i32>, default: i32, most: i32| value.unwrap_or(default).clamp(1, most);
    let interval = seconds(probe.and_then(|p| p.period_seconds), 10, 300);
    let timeout = seconds(probe.and_then(|p| p.timeout_seconds), 1, 300).min(interval);
    object(
        "HealthCheckPolicy",
        &upstream.service,
        options,
        json!({
            "checkIntervalSec": interval,
            "timeoutSec": timeout,
            "healthyThreshold": seconds(probe.and_then(|p| p.success_threshold), 1, 10),
            "unhealthyThreshold": seconds(probe.and_then(|p| p.failure_threshold), 3, 10),
            "config": config,
        }),
    )
}

fn config_of(
    probe: &Probe,
    container: &Container,
    serving: i32,
    shown: &str,
    findings: &mut Findings,
) -> Option<Value> {
    let at = |number: i32| {
        if number == serving {
            json!({ "portSpecification": "USE_SERVING_PORT" })
        } else {
            json!({ "portSpecification": "USE_FIXED_PORT", "port": number })
        }
    };
    if let Some(http) = &probe.http_get {
        let mut check = at(number_of(&http.port, container)?);
        check["requestPath"] = json!(http.path.as_deref().unwrap_or("/"));
        for header in http.http_headers.iter().flatten() {
            if header.name.eq_ignore_ascii_case("host") {
                check["host"] = json!(header.value);
            } else {
                findings.note(
                    shown,
                    None,
                    format!(
                        "its readinessProbe sends the header {}, which a health check can't",
                        header.name
                    ),
                );
            }
        }
        return Some(if http.scheme.as_deref() == Some("HTTPS") {
            json!({ "type": "HTTPS", "httpsHealthCheck": check })
        } else {
            json!({ "type": "HTTP", "httpHealthCheck": check })
        });
    }
    if let Some(grpc) = &probe.grpc {
        let mut check = at(grpc.port);
        if let Some(service) = grpc.service.as_deref().filter(|name| !name.is_empty()) {
            check["grpcServiceName"] = json!(service);
        }
        return Some(json!({ "type": "GRPC", "grpcHealthCheck": check }));
    }
    let tcp = probe.tcp_socket.as_ref()?;
    let check = at(number_of(&tcp.port, container)?);
    Some(json!({ "type": "TCP", "tcpHealthCheck": check }))
}

fn backend_policy(wanted: &Wanted<'_>, pods: Option<&PodSpec>, options: &Options) -> Value {
    // While a pod ends it may finish what it has begun.
    let grace = pods
        .and_then(|pods| pods.termination_grace_period_seconds)
        .unwrap_or(30)
        .clamp(0, 3600);
    let mut config = json!({
        "timeoutSec": wanted.timeout,
        "connectionDraining": { "drainingTimeoutSec": grace },
    });
    if let Some(age) = wanted.affinity {
        config["sessionAffinity"] = json!({ "type": "GENERATED_COOKIE", "cookieTtlSec": age });
    }
    object(
        "GCPBackendPolicy",
        &wanted.upstream.service,
        options,
        config,
    )
}

fn object(kind: &str, service: &str, options: &Options, default: Value) -> Value {
    json!({
        "apiVersion": "networking.gke.io/v1",
        "kind": kind,
        "metadata": { "name": service, "namespace": options.namespace },
        "spec": {
            "default": default,
            "targetRef": { "group": "", "kind": "Service", "name": service },
        },
    })
}
