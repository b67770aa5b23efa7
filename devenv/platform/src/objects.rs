//! What clusters without Knative, or with other things to do, are given in place of a project's
//! objects.

use devenv_cluster::controllers::knative::plan;
use devenv_model::Object;
use serde_json::{Value, json};

/// What runs a Cloud Run service where there is no Knative.
pub(crate) struct CloudRun {
    /// A Service of type ClusterIP.
    pub service: Value,
    /// The Deployment that it leads to.
    pub deployment: Value,
}

/// What a Cloud Run service becomes, with `around` in its environment; `None` for a template
/// without containers, which is refused while loading.
pub(crate) fn cloud_run(object: &Object, around: &[(String, String)]) -> Option<CloudRun> {
    let made = plan::plan(object.value(), None, None, around).ok()?;
    let mut deployment = made.deployment;
    deployment["apiVersion"] = json!("apps/v1");
    deployment["kind"] = json!("Deployment");
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        ask_for_little(container);
    }
    let mut service = made.service;
    service["apiVersion"] = json!("v1");
    service["kind"] = json!("Service");
    Some(CloudRun {
        service,
        deployment,
    })
}

/// On Cloud Run a limit is what an instance is given. Kubernetes would keep as much free for
/// each pod, which a laptop has not.
fn ask_for_little(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let Some(limits) = resources["limits"].as_object() else {
        return;
    };
    let wanted = [("cpu", "10m"), ("memory", "16Mi")];
    let asked: Vec<(&str, &str)> = wanted
        .into_iter()
        .filter(|(name, _)| limits.contains_key(*name) && resources["requests"][*name].is_null())
        .collect();
    for (name, amount) in asked {
        resources["requests"][name] = json!(amount);
    }
}

/// A workload whose probes ask each second; `None` where it is no other than it was.
pub(crate) fn asked_at_once(object: &Object) -> Option<Value> {
    in_containers(object, ask_at_once)
}

/// An object with `change` made in each container of its pods; `None` where it is no other than
/// it was.
pub(crate) fn in_containers(object: &Object, change: impl Fn(&mut Value)) -> Option<Value> {
    let (_, path) = object.pod_template()?;
    let mut value = object.value().clone();
    let spec = path.iter().try_fold(&mut value, |v, key| v.get_mut(*key))?;
    for list in ["initContainers", "containers"] {
        let containers = spec[list].as_array_mut().into_iter().flatten();
        containers.for_each(&change);
    }
    (value != *object.value()).then_some(value)
}

/// Makes readiness and startup probes ask each second: a save waits no longer than it must.
pub(crate) fn ask_at_once(container: &mut Value) {
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

    #[test]
    fn what_is_asked_for_by_name_stays() {
        let mut container = json!({"resources": {
            "limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"memory": "64Mi"},
        }});
        ask_for_little(&mut container);
        let requests = &container["resources"]["requests"];
        assert_eq!(requests, &json!({"cpu": "10m", "memory": "64Mi"}));
        let mut without = json!({"image": "x"});
        ask_for_little(&mut without);
        assert_eq!(without, json!({"image": "x"}));
    }
}
