//! ClusterIPs: one address of 10.96.0.0/16 for each Service that wants one.

use std::{collections::HashSet, net::Ipv4Addr, sync::Arc};

use rand::RngExt as _;
use serde_json::{Value, json};

use super::status::Cause;
use crate::store::Object;

/// First address of the Services' network.
const NETWORK: u32 = u32::from_be_bytes([10, 96, 0, 0]);
/// Addresses up to this one are not given out: the API server's, the DNS server's and room for what
/// else has a fixed address.
const RESERVED: u32 = 255;
/// Broadcast address, relative to the network.
const LAST: u32 = 0xffff;

/// Gives a Service (with its defaults) its ClusterIP, unless it has one, is headless or is an
/// ExternalName. `existing` are all Services of the cluster.
///
/// # Errors
/// An address that was asked for is taken or outside the network; no address is free.
pub(super) fn assign(existing: &[Arc<Object>], service: &mut Value) -> Result<(), Cause> {
    let spec = &mut service["spec"];
    if spec["type"] == "ExternalName" {
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|k, _| !matches!(k.as_str(), "clusterIP" | "clusterIPs"));
        }
        return Ok(());
    }
    let first = spec["clusterIPs"][0].as_str().unwrap_or_default();
    let asked = spec["clusterIP"]
        .as_str()
        .filter(|ip| !ip.is_empty())
        .unwrap_or(first)
        .to_owned();
    let taken: HashSet<&str> = existing
        .iter()
        .filter_map(|s| s.value()["spec"]["clusterIP"].as_str())
        .collect();
    let ip = match asked.as_str() {
        "None" => asked,
        "" => free(&taken).ok_or_else(|| {
            Cause::invalid(
                "spec.clusterIPs",
                "[]",
                "failed to allocate a serviceIP: range is full",
            )
        })?,
        _ => {
            let refused = |why: &str| {
                let shown = format!("[]string{{{asked:?}}}");
                let detail = format!("failed to allocate IP {asked}: {why}");
                Cause::invalid("spec.clusterIPs", &shown, &detail)
            };
            let number = asked.parse::<Ipv4Addr>().map(u32::from);
            match number {
                Ok(number) if (NETWORK + 1..NETWORK + LAST).contains(&number) => {}
                _ => {
                    return Err(refused(
                        "the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16",
                    ));
                }
            }
            if taken.contains(asked.as_str()) || asked == "10.96.0.1" || asked == "10.96.0.10" {
                return Err(refused("provided IP is already allocated"));
            }
            asked
        }
    };
    spec["clusterIP"] = json!(ip);
    spec["clusterIPs"] = json!([ip]);
    Ok(())
}

fn free(taken: &HashSet<&str>) -> Option<String> {
    // From a random place, so that an address is not soon used again by another Service.
    let size = LAST - RESERVED - 1;
    let start = rand::rng().random_range(0..size);
    (0..size)
        .map(|i| Ipv4Addr::from(NETWORK + RESERVED + 1 + (start + i) % size).to_string())
        .find(|ip| !taken.contains(ip.as_str()))
}

/// Carries a Service's address over into its new state, where a manifest that does not name it
/// leaves it out.
pub(super) fn keep(old: &Value, new: &mut Value) {
    let external = |s: &Value| s["spec"]["type"] == "ExternalName";
    if external(old) || external(new) {
        return;
    }
    for field in ["clusterIP", "clusterIPs"] {
        if new["spec"][field].is_null() || new["spec"][field] == "" {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    if new["spec"]["clusterIP"] == old["spec"]["clusterIP"] {
        new["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::SERVICE, store::Store};

    fn service(ip: &str) -> Value {
        let mut service =
            json!({"metadata": {"name": "s", "namespace": "x"}, "spec": {"type": "ClusterIP"}});
        if !ip.is_empty() {
            service["spec"]["clusterIP"] = json!(ip);
        }
        service
    }

    #[test]
    fn every_service_has_its_own_address() {
        let store = Store::in_memory();
        let mut seen = HashSet::new();
        for i in 0..200 {
            let mut new = service("");
            new["metadata"]["name"] = json!(format!("s{i}"));
            assign(&store.list(&SERVICE, None).0, &mut new).unwrap();
            let ip: Ipv4Addr = new["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
            assert!(
                u32::from(ip) > NETWORK + RESERVED && u32::from(ip) < NETWORK + LAST,
                "{ip}"
            );
            assert!(seen.insert(ip));
            store.create(&SERVICE, new).unwrap();
        }
        let all: HashSet<String> = (RESERVED + 1..LAST)
            .map(|i| Ipv4Addr::from(NETWORK + i).to_string())
            .collect();
        let mut all: HashSet<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(free(&all), None);
        all.remove("10.96.200.7");
        assert_eq!(free(&all).as_deref(), Some("10.96.200.7"));
    }

    #[test]
    fn addresses_that_were_asked_for() {
        let store = Store::in_memory();
        let assigned = |ip: &str| {
            let mut new = service(ip);
            assign(&store.list(&SERVICE, None).0, &mut new).map(|()| new["spec"].clone())
        };
        assert_eq!(assigned("None").unwrap()["clusterIPs"], json!(["None"]));
        assert_eq!(
            assigned("10.96.1.2").unwrap()["clusterIPs"],
            json!(["10.96.1.2"])
        );
        for wrong in ["10.97.0.1", "x", "10.96.0.1", "10.96.0.10", "10.96.255.255"] {
            assert!(assigned(wrong).is_err(), "{wrong}");
        }
        store.create(&SERVICE, service("10.96.1.2")).unwrap();
        assert!(
            assigned("10.96.1.2")
                .unwrap_err()
                .message
                .contains("already allocated")
        );
        let mut external = json!({"spec": {"type": "ExternalName", "clusterIP": "10.96.1.3"}});
        assign(&[], &mut external).unwrap();
        assert_eq!(external, json!({"spec": {"type": "ExternalName"}}));
    }

    #[test]
    fn an_update_keeps_the_address() {
        let mut old = service("10.96.1.2");
        old["spec"]["clusterIPs"] = json!(["10.96.1.2"]);
        let mut new = service("");
        keep(&old, &mut new);
        assert_eq!(new, old);
    }
}
