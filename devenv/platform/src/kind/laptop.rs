//! What pods ask of a cluster that is one machine, shared with an editor and a browser.
//!
//! Neither changes what a pod is or may use: its limits, its probes and what they conclude
//! after how long stay.

use devenv_cluster::pod::milli_cpus;
use devenv_model::Object;
use serde_json::{Value, json};

use crate::objects::{ask_at_once, in_containers};

/// CPU requests are divided by this: on the two processors that are left of a laptop a
/// second version would wait until the first one has ended. Their proportions stay.
const SHARE: u64 = 10;

/// A workload as it is made here; `None` where it is no other than it was.
pub fn made(object: &Object) -> Option<Value> {
    in_containers(object, |container| {
        ask_at_once(container);
        if let Some(resources) = container.get_mut("resources") {
            ask_for_a_share(resources);
        }
    })
}

fn ask_for_a_share(resources: &mut Value) {
    let cpu = |list: &str| match &resources[list]["cpu"] {
        Value::String(text) => milli_cpus(text),
        Value::Number(number) => milli_cpus(&number.to_string()),
        _ => None,
    };
    // A request that is not given is the limit.
    let Some(asked) = cpu("requests").or_else(|| cpu("limits")) else {
        return;
    };
    let share = asked.div_ceil(SHARE);
    if !resources["requests"].is_object() {
        resources["requests"] = json!({});
    }
    resources["requests"]["cpu"] = json!(format!("{share}m"));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(json!({"requests": {"cpu": "200m", "memory": "1Gi"}}), json!({"requests": {"cpu": "20m", "memory": "1Gi"}}))]
    #[case(json!({"limits": {"cpu": 2}}), json!({"limits": {"cpu": 2}, "requests": {"cpu": "200m"}}))]
    #[case(json!({"requests": {"cpu": "5m"}}), json!({"requests": {"cpu": "1m"}}))]
    #[case(json!({"limits": {"memory": "1Gi"}}), json!({"limits": {"memory": "1Gi"}}))]
    #[case(json!({}), json!({}))]
    fn requests_are_a_share(#[case] mut resources: Value, #[case] to: Value) {
        ask_for_a_share(&mut resources);
        assert_eq!(resources, to);
    }
}
