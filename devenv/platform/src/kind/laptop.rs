//! What pods ask of a cluster that is one machine, shared with an editor and a browser.
//!
//! Neither changes what a pod is or may use: its limits, its probes and what they conclude
//! after how long stay.

use devenv_cluster::pod::milli_cpus;
use devenv_model::Object;
use serde_json::{Value, json};

/// CPU requests are divided by this: on the two processors that are left of a laptop a
/// second version would wait until the first one has ended. Their proportions stay.
const SHARE: u64 = 10;

/// A workload as it is made here; `None` where it is no other than it was.
pub fn made(object: &Object) -> Option<Value> {
    changed(object, |container| {
        ask_at_once(container);
        if let Some(resources) = container.get_mut("resources") {
            ask_for_a_share(resources);
        }
    })
}

/// The same where processors are others' business: a save waits no longer than it must.
pub(crate) fn asked_at_once(object: &Object) -> Option<Value> {
    changed(object, ask_at_once)
}

fn changed(object: &Object, change: impl Fn(&mut Value)) -> Option<Value> {
    let (_, path) = object.pod_template()?;
    let mut value = object.value().clone();
    let spec = path.iter().try_fold(&mut value, |v, key| v.get_mut(*key))?;
    for list in ["initContainers", "containers"] {
        let containers = spec[list].as_array_mut().into_iter().flatten();
        containers.for_each(&change);
    }
    (value != *object.value()).then_some(value)
}

fn ask_at_once(container: &mut Value) {
    for probe in ["readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            each_second(probe);
        }
    }
}

/// Asks each second, and concludes what it would after as many seconds as it would. A
/// kubelet begins at a random moment of the period: of ten seconds, that is what a save
/// would wait for.
fn each_second(probe: &mut Value) {
    let or = |value: &Value, default: i64| value.as_i64().unwrap_or(default);
    let period = or(&probe["periodSeconds"], 10);
    if period <= 1 {
        return;
    }
    let failures = or(&probe["failureThreshold"], 3).saturating_mul(period);
    let successes = or(&probe["successThreshold"], 1);
    probe["periodSeconds"] = json!(1);
    probe["failureThreshold"] = json!(failures.min(i64::from(i32::MAX)));
    if successes > 1 {
        let successes = (successes - 1).saturating_mul(period).saturating_add(1);
        probe["successThreshold"] = json!(successes.min(i64::from(i32::MAX)));
    }
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
    #[case(json!({"periodSeconds": 5}), json!({"periodSeconds": 1, "failureThreshold": 15}))]
    #[case(json!({}), json!({"periodSeconds": 1, "failureThreshold": 30}))]
    #[case(json!({"periodSeconds": 4, "failureThreshold": 2, "successThreshold": 3, "timeoutSeconds": 2}),
        json!({"periodSeconds": 1, "failureThreshold": 8, "successThreshold": 9, "timeoutSeconds": 2}))]
    #[case(json!({"periodSeconds": 1, "failureThreshold": 3}), json!({"periodSeconds": 1, "failureThreshold": 3}))]
    fn a_probe_asks_more_often_and_concludes_as_late(#[case] mut probe: Value, #[case] to: Value) {
        each_second(&mut probe);
        assert_eq!(probe, to);
    }

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
