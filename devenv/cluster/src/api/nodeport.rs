//! Node ports: one of 30000 to 32767 for each port of a Service that wants to be reached from
//! outside.
//!
//! Sources: `pkg/registry/core/service/storage/alloc.go` and `…/storage.go` (patchAllocatedValues),
//! and the band for ports that are asked for (KEP-3668): ports that nobody asked for come from the
//! rest of the range, so that a port with a number of its own seldom finds it taken.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use rand::RngExt as _;
use serde_json::{Value, json};

use super::status::Cause;
use crate::store::Object;

const RANGE: RangeInclusive<i64> = 30_000..=32_767;
/// Ports below this one are given out only when all others are taken.
const UNASKED: i64 = 30_086;

/// Gives the ports of a Service (with its defaults) their node ports, where it wants some and has
/// none. `existing` are all Services of the cluster.
///
/// # Errors
/// A port that was asked for is taken or outside the range; no port is free.
pub(super) fn assign(existing: &[Arc<Object>], service: &mut Value) -> Result<(), Cause> {
    if !is_reached_from_outside(service) {
        return Ok(());
    }
    let all = service["spec"]["allocateLoadBalancerNodePorts"] != false
        || service["spec"]["type"] == "NodePort";
    let mut taken: HashSet<i64> = existing
        .iter()
        .filter(|other| !is_same(other, service))
        .flat_map(|other| node_ports(other.value()))
        .collect();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else {
        return Ok(());
    };
    // A number that has several protocols has one node port.
    let mut own: HashMap<i64, i64> = HashMap::new();
    for (i, port) in ports.iter().enumerate() {
        let Some(asked) = asked(port) else { continue };
        let refused = |why: &str| {
            let field = format!("spec.ports[{i}].nodePort");
            Cause::invalid(field, &asked.to_string(), why)
        };
        if !RANGE.contains(&asked) {
            return Err(refused(
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ));
        }
        if taken.contains(&asked) {
            return Err(refused("provided port is already allocated"));
        }
        own.entry(number(port)).or_insert(asked);
    }
    taken.extend(own.values());
    for (i, port) in ports.iter_mut().enumerate() {
        if asked(port).is_some() || !all {
            continue;
        }
        let found = match own.get(&number(port)) {
            Some(known) => *known,
            None => free(&taken).ok_or_else(|| {
                let field = format!("spec.ports[{i}].nodePort");
                Cause::invalid(field, "0", "failed to allocate a nodePort: range is full")
            })?,
        };
        taken.insert(found);
        own.insert(number(port), found);
        port["nodePort"] = json!(found);
    }
    Ok(())
}

/// Carries node ports over into a Service's new state, where a manifest that does not name them
/// leaves them out, and drops them where the new type has none.
pub(super) fn keep(old: &Value, new: &mut Value) {
    if !is_reached_from_outside(old) {
        return;
    }
    let before: Vec<i64> = node_ports(old).collect();
    let wanted = is_reached_from_outside(new);
    let mut used: HashSet<i64> = node_ports(new).collect();
    let Some(ports) = new["spec"]["ports"].as_array_mut() else {
        return;
    };
    for port in ports {
        match asked(port) {
            // Left over from the old type; a number that is new was asked for, and is refused.
            Some(asked) if !wanted && before.contains(&asked) => drop_node_port(port),
            None if wanted => {
                let same = |p: &&Value| p["name"].as_str() == port["name"].as_str();
                let known = old["spec"]["ports"].as_array().into_iter().flatten();
                let known = known.filter(same).find_map(asked);
                if let Some(known) = known.filter(|known| used.insert(*known)) {
                    port["nodePort"] = json!(known);
                }
            }
            _ => {}
        }
    }
}

/// A node port by its number; 0 asks for any.
fn asked(port: &Value) -> Option<i64> {
    port["nodePort"].as_i64().filter(|number| *number != 0)
}

fn number(port: &Value) -> i64 {
    port["port"].as_i64().unwrap_or(0)
}

fn drop_node_port(port: &mut Value) {
    if let Some(port) = port.as_object_mut() {
        port.remove("nodePort");
    }
}

fn node_ports(service: &Value) -> impl Iterator<Item = i64> {
    let ports = service["spec"]["ports"].as_array();
    ports.into_iter().flatten().filter_map(asked)
}

fn is_reached_from_outside(service: &Value) -> bool {
    matches!(
        service["spec"]["type"].as_str(),
        Some("NodePort" | "LoadBalancer")
    )
}

fn is_same(other: &Object, service: &Value) -> bool {
    let own = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
    (other.namespace(), other.name()) == (own("namespace"), own("name"))
}

fn free(taken: &HashSet<i64>) -> Option<i64> {
    // From a random place, so that a port is not soon used again by another Service.
    let (first, last) = (UNASKED, *RANGE.end());
    let size = last - first + 1;
    let start = rand::rng().random_range(0..size);
    (0..size)
        .map(|i| first + (start + i) % size)
        .chain(*RANGE.start()..first)
        .find(|port| !taken.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::SERVICE, store::Store};

    fn service(name: &str, kind: &str, ports: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"type": kind, "ports": ports}})
    }

    fn assigned(store: &Store, mut new: Value) -> Result<Vec<i64>, String> {
        assign(&store.list(&SERVICE, None).0, &mut new)
            .map(|()| node_ports(&new).collect())
            .map_err(|cause| format!("{}: {}", cause.field, cause.message))
    }

    #[test]
    fn who_gets_ports() {
        let store = Store::in_memory();
        let one = json!([{"port": 80}]);
        let given = |kind: &str| assigned(&store, service("s", kind, one.clone())).unwrap();
        assert_eq!(given("ClusterIP"), [0i64; 0]);
        for kind in ["NodePort", "LoadBalancer"] {
            let port = given(kind)[0];
            assert!((UNASKED..=32_767).contains(&port), "{port}");
        }
        let mut without = service("s", "LoadBalancer", one);
        without["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        assert_eq!(assigned(&store, without.clone()).unwrap(), [0i64; 0]);
        without["spec"]["ports"][0]["nodePort"] = json!(30_001);
        assert_eq!(assigned(&store, without).unwrap(), [30_001]);
    }

    #[test]
    fn ports_that_were_asked_for() {
        let store = Store::in_memory();
        let with = |name: &str, port: i64| {
            service(name, "NodePort", json!([{"port": 80, "nodePort": port}]))
        };
        store.create(&SERVICE, with("a", 30_080)).unwrap();
        assert_eq!(assigned(&store, with("a", 30_080)).unwrap(), [30_080]);
        assert_eq!(
            assigned(&store, with("b", 30_080)).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        );
        for wrong in [80, 29_999, 32_768] {
            let refused = assigned(&store, with("b", wrong)).unwrap_err();
            assert!(refused.contains("30000-32767"), "{refused}");
        }
        assert_eq!(assigned(&store, with("b", 30_081)).unwrap(), [30_081]);
    }

    #[test]
    fn protocols_of_one_number_share_a_port() {
        let store = Store::in_memory();
        let ports = json!([
            {"name": "t", "port": 53, "protocol": "TCP"},
            {"name": "u", "port": 53, "protocol": "UDP"},
            {"name": "w", "port": 80},
        ]);
        let given = assigned(&store, service("dns", "NodePort", ports)).unwrap();
        assert_eq!(given[0], given[1]);
        assert_ne!(given[0], given[2]);
    }

    #[test]
    fn the_range_has_an_end() {
        let mut taken: HashSet<i64> = RANGE.collect();
        assert_eq!(free(&taken), None);
        taken.remove(&30_005);
        assert_eq!(free(&taken), Some(30_005));
        taken.remove(&32_000);
        assert_eq!(free(&taken), Some(32_000), "the lower band comes last");
    }

    #[test]
    fn updates_keep_ports_and_other_types_drop_them() {
        let ports = json!([{"name": "a", "port": 80, "nodePort": 30_100}, {"name": "b", "port": 81, "nodePort": 30_101}]);
        let old = service("s", "NodePort", ports.clone());
        let kept = |kind: &str, ports: Value| {
            let mut new = service("s", kind, ports);
            keep(&old, &mut new);
            node_ports(&new).collect::<Vec<i64>>()
        };
        let renumbered = json!([{"name": "b", "port": 9}, {"name": "c", "port": 80}]);
        assert_eq!(kept("LoadBalancer", renumbered), [30_101]);
        let moved =
            json!([{"name": "a", "port": 80}, {"name": "c", "port": 81, "nodePort": 30_100}]);
        assert_eq!(kept("NodePort", moved), [30_100], "never twice");
        assert_eq!(kept("ClusterIP", ports), [0i64; 0]);
        let other = json!([{"name": "a", "port": 80, "nodePort": 31_000}]);
        assert_eq!(
            kept("ClusterIP", other),
            [31_000],
            "for validation to refuse"
        );
    }
}
