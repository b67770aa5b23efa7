//! Deployments, ReplicaSets and Knative Services.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME,
    text::{NONE, age, containers, int, list, name, or, str_of},
};
use crate::api::render::selector_text;

const CONTAINERS: Column = ("Containers", "string", "", 1);
const IMAGES: Column = ("Images", "string", "", 1);
const SELECTOR: Column = ("Selector", "string", "", 1);

pub const DEPLOYMENT: &[Column] = &[
    NAME,
    ("Ready", "string", "", 0),
    ("Up-to-date", "string", "", 0),
    ("Available", "string", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn selector(object: &Value) -> Value {
    json!(or(&selector_text(&object["spec"]["selector"]), NONE))
}

pub fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let [names, images] = containers(&spec["template"]["spec"]);
    vec![
        name(deployment),
        json!(format!(
            "{}/{}",
            int(&status["readyReplicas"]),
            int(&spec["replicas"])
        )),
        json!(int(&status["updatedReplicas"])),
        json!(int(&status["availableReplicas"])),
        age(deployment, now),
        names,
        images,
        selector(deployment),
    ]
}

pub const REPLICA_SET: &[Column] = &[
    NAME,
    ("Desired", "integer", "", 0),
    ("Current", "integer", "", 0),
    ("Ready", "integer", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn replica_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&set["spec"], &set["status"]);
    let [names, images] = containers(&spec["template"]["spec"]);
    vec![
        name(set),
        json!(int(&spec["replicas"])),
        json!(int(&status["replicas"])),
        json!(int(&status["readyReplicas"])),
        age(set, now),
        names,
        images,
        selector(set),
    ]
}

/// The printer columns of Knative's own definition, which has no age.
pub const KNATIVE: &[Column] = &[
    NAME,
    ("URL", "string", "", 0),
    ("LatestCreated", "string", "", 0),
    ("LatestReady", "string", "", 0),
    ("Ready", "string", "", 0),
    ("Reason", "string", "", 0),
];

pub fn knative(service: &Value, _now: Timestamp) -> Vec<Value> {
    let status = &service["status"];
    let ready = list(&status["conditions"])
        .iter()
        .find(|c| c["type"] == "Ready");
    let of = |field: &str| ready.map(|c| str_of(&c[field])).unwrap_or_default();
    vec![
        name(service),
        json!(str_of(&status["url"])),
        json!(str_of(&status["latestCreatedRevisionName"])),
        json!(str_of(&status["latestReadyRevisionName"])),
        json!(of("status")),
        json!(of("reason")),
    ]
}
