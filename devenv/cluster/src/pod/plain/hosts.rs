//! Which hosts the cluster knows, and where they really are.

use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::Service;

use super::rewrite::{Book, Place};
use crate::kinds;
use crate::net::loopback::Loopback;
use crate::store::Store;

/// The hosts as a pod of one namespace sees them.
pub(super) struct Hosts<'a> {
    pub(super) store: &'a Store,
    pub(super) loopback: &'a Loopback,
    pub(super) namespace: &'a str,
}

impl Book for Hosts<'_> {
    fn find(&self, host: &str, port: Option<u16>) -> Option<Place> {
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return self.address(ip, port, true);
        }
        let (name, namespace) = parts(host, self.namespace)?;
        let object = self.store.get(&kinds::SERVICE, namespace, name)?;
        let spec = object.typed::<Service>().ok()?.spec?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Place {
                host: spec.external_name?,
                port,
                literal: false,
            });
        }
        // A headless Service has no address that stays.
        let ip = spec.cluster_ip?.parse().ok()?;
        self.address(ip, port, false)
    }
}

impl Hosts<'_> {
    fn address(&self, ip: Ipv4Addr, port: Option<u16>, literal: bool) -> Option<Place> {
        let place = |ip: Ipv4Addr, port| Place {
            host: ip.to_string(),
            port,
            literal,
        };
        if let Some(pod) = self.loopback.pod(ip) {
            return Some(place(pod, port));
        }
        let text = ip.to_string();
        let (services, _) = self.store.list(&kinds::SERVICE, None);
        if !services
            .iter()
            .any(|s| s.value()["spec"]["clusterIP"] == text.as_str())
        {
            return None;
        }
        let real = self
            .loopback
            .real(SocketAddrV4::new(ip, port.unwrap_or(0)))?;
        Some(place(*real.ip(), port.map(|_| real.port())))
    }
}

/// Name and namespace of `name`, `name.ns`, `name.ns.svc` and the whole name.
fn parts<'a>(host: &'a str, own: &'a str) -> Option<(&'a str, &'a str)> {
    let whole = host
        .strip_suffix(".svc.cluster.local")
        .or_else(|| host.strip_suffix(".svc"));
    match whole.unwrap_or(host).split_once('.') {
        Some((name, namespace)) if !namespace.contains('.') => Some((name, namespace)),
        None if whole.is_none() => Some((host, own)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("api", Some(("api", "own")))]
    #[case("api.ns", Some(("api", "ns")))]
    #[case("api.ns.svc", Some(("api", "ns")))]
    #[case("api.ns.svc.cluster.local", Some(("api", "ns")))]
    #[case("api.svc", None)]
    #[case("example.com", Some(("example", "com")))]
    #[case("www.example.com", None)]
    fn names(#[case] host: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(parts(host, "own"), expected);
    }

    #[test]
    fn only_what_is_there_is_known() {
        let store = Store::in_memory();
        let service = |name: &str, spec| {
            let object = json!({"metadata": {"name": name, "namespace": "own"}, "spec": spec});
            store.create(&kinds::SERVICE, object).expect("created");
        };
        service("api", json!({"clusterIP": "10.96.3.4"}));
        service("headless", json!({"clusterIP": "None"}));
        service(
            "out",
            json!({"type": "ExternalName", "externalName": "example.com"}),
        );
        let loopback = Loopback::new(Ipv4Addr::new(127, 100, 7, 9));
        let hosts = Hosts {
            store: &store,
            loopback: &loopback,
            namespace: "own",
        };
        let at = |host: &str| {
            hosts
                .find(host, Some(8080))
                .map(|p| (p.host, p.port, p.literal))
        };
        let (ip, port, literal) = at("api").expect("there");
        assert!(
            ip.starts_with("127.201.7.") && port == Some(8080) && !literal,
            "{ip}"
        );
        assert_eq!(at("10.96.3.4"), Some((ip.clone(), Some(8080), true)));
        assert_eq!(at("api.own.svc"), Some((ip, Some(8080), false)));
        assert_eq!(at("out"), Some(("example.com".into(), Some(8080), false)));
        for unknown in [
            "headless",
            "api.other",
            "example.com",
            "8.8.8.8",
            "10.96.9.9",
            "10.244.0.9",
        ] {
            assert_eq!(at(unknown), None, "{unknown}");
        }
    }
}
