//! The Gateway and its listeners.

use serde_json::{Value, json};

use super::{Dialect, Findings, Options, model::Model};

/// How many listeners a Gateway may have.
const MOST_LISTENERS: usize = 64;

/// A listener for HTTPS and the hosts that its certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secure {
    pub name: String,
    /// Empty: any.
    pub host: String,
    pub secret: String,
}

/// The listeners for HTTPS, one for each host of a tls section.
pub(super) fn secure(model: &Model) -> Vec<Secure> {
    let mut found: Vec<Secure> = Vec::new();
    for tls in &model.tls {
        let any = [String::new()];
        let hosts = if tls.hosts.is_empty() {
            &any[..]
        } else {
            &tls.hosts
        };
        for host in hosts {
            if found.iter().any(|other| other.host == *host) {
                continue;
            }
            found.push(Secure {
                name: match found.len() {
                    0 => "https".to_owned(),
                    others => format!("https-{}", others + 1),
                },
                host: host.clone(),
                secret: tls.secret.clone(),
            });
        }
    }
    found
}

/// The listener that a host's certificate is at.
pub(super) fn listener_of<'a>(secure: &'a [Secure], host: &str) -> Option<&'a Secure> {
    let exact = secure.iter().find(|listener| listener.host == host);
    let wildcard = || {
        let (_, rest) = host.split_once('.')?;
        secure
            .iter()
            .find(|listener| listener.host.strip_prefix("*.") == Some(rest))
    };
    exact
        .or_else(wildcard)
        .or_else(|| secure.iter().find(|listener| listener.host.is_empty()))
}

pub(super) fn gateway(model: &Model, options: &Options, findings: &mut Findings) -> Value {
    let shown = format!("Gateway {}/{}", options.namespace, options.gateway);
    let mut listeners = vec![json!({
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": { "namespaces": { "from": "Same" } },
    })];
    let secure = secure(model);
    for listener in &secure {
        let mut value = json!({
            "name": listener.name,
            "port": 443,
            "protocol": "HTTPS",
            "tls": {
                "mode": "Terminate",
                "certificateRefs": [{ "group": "", "kind": "Secret", "name": listener.secret }],
            },
            "allowedRoutes": { "namespaces": { "from": "Same" } },
        });
        if !listener.host.is_empty() {
            value["hostname"] = json!(listener.host);
        }
        listeners.push(value);
    }
    if listeners.len() > MOST_LISTENERS {
        findings.problem(
            &shown,
            None,
            format!(
                "{} hosts with TLS, and a Gateway has {MOST_LISTENERS} listeners",
                secure.len()
            ),
            "use a certificate for a wildcard, or a certificate map",
        );
    }
    if options.dialect == Dialect::Gke && options.gateway_class.contains("gxlb") {
        findings.problem(
            &shown,
            None,
            format!(
                "the class {} has no splits by weight",
                options.gateway_class
            ),
            "use gke-l7-global-external-managed or gke-l7-regional-external-managed",
        );
    }
    findings.note(
        &shown,
        None,
        "X-Forwarded-For: the load balancer appends the client's address and its own to what the \
         client sent, where ingress-nginx replaces it; X-Real-IP is not set",
    );
    if !model.canaries.is_empty() {
        findings.note(
            &shown,
            None,
            "a canary without endpoints gets its share all the same, and answers 503, where \
             ingress-nginx sends everything to main",
        );
    }
    if options.dialect == Dialect::Gke {
        findings.note(
            &shown,
            None,
            "the load balancer takes the answer 200 alone for healthy, the kubelet all from 200 \
             to 399",
        );
    }
    let mut metadata = json!({ "name": options.gateway, "namespace": options.namespace });
    if !model.labels.is_empty() {
        metadata["labels"] = json!(model.labels);
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": { "gatewayClassName": options.gateway_class, "listeners": listeners },
    })
}
