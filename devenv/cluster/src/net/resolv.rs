//! What a pod finds in `/etc/resolv.conf` and `/etc/hosts`, and its host name.

use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

use super::well_known::DNS;
use crate::pod::volumes::File;

/// The pod's host name: `spec.hostname`, or its name, cut to the 63 bytes that fit.
pub fn hostname(pod: &Pod) -> String {
    let given = pod
        .spec
        .as_ref()
        .and_then(|s| s.hostname.clone())
        .filter(|h| !h.is_empty());
    let name = given
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// The files that all containers of a pod share.
pub fn files(pod: &Pod, ip: Ipv4Addr) -> Vec<File> {
    let file = |path: &str, text: String| File {
        path: path.into(),
        contents: text.into_bytes(),
        mode: 0o644,
    };
    vec![
        file("/etc/resolv.conf", resolv_conf(pod)),
        file("/etc/hosts", hosts(pod, ip)),
    ]
}

/// Kubernetes' `ClusterFirst`, or what `dnsPolicy: None` and `dnsConfig` say.
fn resolv_conf(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.clone().unwrap_or_default();
    let config = spec.dns_config.unwrap_or_default();
    let own = spec.dns_policy.as_deref() == Some("None");
    let mut servers = if own {
        Vec::new()
    } else {
        vec![DNS.to_string()]
    };
    let mut search = if own {
        Vec::new()
    } else {
        vec![
            format!("{namespace}.svc.cluster.local"),
            "svc.cluster.local".to_owned(),
            "cluster.local".to_owned(),
        ]
    };
    let mut options: Vec<(String, Option<String>)> = if own {
        Vec::new()
    } else {
        vec![("ndots".to_owned(), Some("5".to_owned()))]
    };
    servers.extend(config.nameservers.into_iter().flatten());
    search.extend(config.searches.into_iter().flatten());
    for option in config.options.into_iter().flatten() {
        let Some(name) = option.name else {
            continue;
        };
        options.retain(|(n, _)| *n != name);
        options.push((name, option.value));
    }
    let mut text = String::new();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let shown: Vec<String> = options
            .into_iter()
            .map(|(name, value)| value.map_or_else(|| name.clone(), |v| format!("{name}:{v}")))
            .collect();
        let _ = writeln!(text, "options {}", shown.join(" "));
    }
    text
}

fn hosts(pod: &Pod, ip: Ipv4Addr) -> String {
    let name = hostname(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    let own = match spec.subdomain.filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{name}.{subdomain}.{namespace}.svc.cluster.local\t{name}"),
        None => name,
    };
    let _ = writeln!(text, "{ip}\t{own}");
    for alias in spec.host_aliases.into_iter().flatten() {
        let _ = writeln!(
            text,
            "{}\t{}",
            alias.ip,
            alias.hostnames.unwrap_or_default().join("\t")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(
            json!({"metadata": {"name": "web-1", "namespace": "ns"}, "spec": spec}),
        )
        .expect("a pod")
    }

    #[rstest]
    #[case(json!({}), "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n")]
    #[case(json!({"dnsConfig": {"searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
        "search ns.svc.cluster.local svc.cluster.local cluster.local x\nnameserver 10.96.0.10\noptions ndots:2 edns0\n")]
    #[case(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}), "nameserver 1.1.1.1\n")]
    fn resolver(#[case] spec: Value, #[case] expected: &str) {
        assert_eq!(resolv_conf(&pod(spec)), expected);
    }

    #[test]
    fn hosts_and_names() {
        let ip = Ipv4Addr::new(10, 244, 0, 9);
        assert_eq!(
            hosts(&pod(json!({})), ip),
            "127.0.0.1\tlocalhost\n10.244.0.9\tweb-1\n"
        );
        let named = pod(
            json!({"hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}),
        );
        assert_eq!(
            hosts(&named, ip),
            "127.0.0.1\tlocalhost\n10.244.0.9\th.s.ns.svc.cluster.local\th\n1.2.3.4\ta\tb\n"
        );
        let mut long = pod(json!({}));
        long.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(hostname(&long), "x".repeat(62));
    }
}
