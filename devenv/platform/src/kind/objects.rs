//! What a cluster without Knative is given for a Cloud Run service: a Deployment, and a
//! Service that is reached at a port of the node.

use std::sync::Arc;

use devenv_model::{Object, Topology};
use serde_json::{Value, json};

use super::config::CLOUD_RUN_NODE_PORT;
use super::laptop;
use crate::objects::{CloudRun, cloud_run};
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
    let CloudRun {
        mut service,
        deployment,
    } = cloud_run(object, around)?;
    service["spec"]["type"] = json!("NodePort");
    let node_port = usize::from(CLOUD_RUN_NODE_PORT) + number;
    service["spec"]["ports"][0]["nodePort"] = json!(node_port);
    Some(vec![service, deployment])
}
