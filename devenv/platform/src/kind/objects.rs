//! What a cluster without Knative is given for a Cloud Run service: a Deployment, and a
//! Service that is reached at a port of the node.

use std::sync::Arc;

use devenv_cluster::controllers::knative::plan;
use devenv_model::{Object, Topology};
use serde_json::{Value, json};

use super::config::CLOUD_RUN_NODE_PORT;
use super::laptop;
use crate::target::Adapter;

/// Makes a topology one for this cluster: `around` is in the environment of Cloud Run services.
pub fn adapter(around: Vec<(String, String)>) -> Adapter {
    Arc::new(move |topology: Topology| {
        let names: Vec<String> = topology.cloud_run().map(|o| o.name().to_owned()).collect();
        topology.with_made(|object| {
            if !object.is_cloud_run() {
                return laptop::made(object).map(|value| vec![value]);
            }
            let number = names.iter().position(|name| *name == object.name())?;
            made(object, number, &around)
        })
    })
}

fn made(object: &Object, number: usize, around: &[(String, String)]) -> Option<Vec<Value>> {
    // A template without containers was refused while loading.
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
    service["spec"]["type"] = json!("NodePort");
    let node_port = usize::from(CLOUD_RUN_NODE_PORT) + number;
    service["spec"]["ports"][0]["nodePort"] = json!(node_port);
    Some(vec![service, deployment])
}

/// On Cloud Run a limit is what an instance is given. Kubernetes would keep as much free for
/// each pod, which a laptop has not.
pub(crate) fn ask_for_little(container: &mut Value) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
