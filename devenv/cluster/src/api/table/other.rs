//! ConfigMaps, Secrets, Namespaces, Nodes, Events and what is measured.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME,
    text::{NONE, UNKNOWN, age, int, list, name, or, since, str_of},
};

pub fn plain(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub const CONFIG_MAP: &[Column] = &[NAME, ("Data", "string", "", 0), AGE];

pub fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(map),
        json!(entries(&map["data"]) + entries(&map["binaryData"])),
        age(map, now),
    ]
}

pub const SECRET: &[Column] = &[
    NAME,
    ("Type", "string", "", 0),
    ("Data", "string", "", 0),
    AGE,
];

pub fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(secret),
        json!(str_of(&secret["type"])),
        json!(entries(&secret["data"])),
        age(secret, now),
    ]
}

pub const NAMESPACE: &[Column] = &[NAME, ("Status", "string", "", 0), AGE];

pub fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(namespace),
        json!(str_of(&namespace["status"]["phase"])),
        age(namespace, now),
    ]
}

pub const NODE: &[Column] = &[
    NAME,
    ("Status", "string", "", 0),
    ("Roles", "string", "", 0),
    AGE,
    ("Version", "string", "", 0),
    ("Internal-IP", "string", "", 1),
    ("External-IP", "string", "", 1),
    ("OS-Image", "string", "", 1),
    ("Kernel-Version", "string", "", 1),
    ("Container-Runtime", "string", "", 1),
];

pub fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let status = &node["status"];
    let ready = list(&status["conditions"])
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut shown = match ready.map(|c| str_of(&c["status"])) {
        Some("True") => "Ready",
        Some("Unknown") | None => "Unknown",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        shown.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        let found = list(&status["addresses"])
            .iter()
            .find(|a| a["type"] == kind);
        or(
            found.map(|a| str_of(&a["address"])).unwrap_or_default(),
            NONE,
        )
        .to_owned()
    };
    let info = &status["nodeInfo"];
    vec![
        name(node),
        json!(shown),
        json!(or(&roles.join(","), NONE)),
        age(node, now),
        json!(str_of(&info["kubeletVersion"])),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(or(str_of(&info["osImage"]), UNKNOWN)),
        json!(or(str_of(&info["kernelVersion"]), UNKNOWN)),
        json!(or(str_of(&info["containerRuntimeVersion"]), UNKNOWN)),
    ]
}

pub const EVENT: &[Column] = &[
    ("Last Seen", "string", "", 0),
    ("Type", "string", "", 0),
    ("Reason", "string", "", 0),
    ("Object", "string", "", 0),
    ("Subobject", "string", "", 1),
    ("Source", "string", "", 1),
    ("Message", "string", "", 0),
    ("First Seen", "string", "", 1),
    ("Count", "string", "", 1),
    ("Name", "string", "name", 1),
];

pub fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let time = |fields: &[&Value]| {
        let found = fields.iter().find(|t| t.is_string());
        found.map_or_else(|| UNKNOWN.to_owned(), |t| since(t, now))
    };
    let first = time(&[&event["firstTimestamp"], &event["eventTime"]]);
    let last = time(&[
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["firstTimestamp"],
        &event["eventTime"],
    ]);
    let count = match (int(&event["series"]["count"]), int(&event["count"])) {
        (0, 0) => 1,
        (0, count) | (count, _) => count,
    };
    let about = &event["involvedObject"];
    let source = &event["source"];
    let component = or(
        str_of(&source["component"]),
        str_of(&event["reportingComponent"]),
    )
    .to_owned();
    let source = match str_of(&source["host"]) {
        "" => component,
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(str_of(&event["type"])),
        json!(str_of(&event["reason"])),
        json!(format!(
            "{}/{}",
            str_of(&about["kind"]).to_lowercase(),
            str_of(&about["name"])
        )),
        json!(str_of(&about["fieldPath"])),
        json!(source),
        json!(str_of(&event["message"]).trim()),
        json!(first),
        json!(count),
        name(event),
    ]
}

pub const METRICS: &[Column] = &[
    NAME,
    ("CPU", "string", "", 0),
    ("Memory", "string", "", 0),
    ("Window", "string", "", 0),
];

/// As metrics-server shows them; a pod's numbers are its containers' together.
pub fn metrics(metrics: &Value, _: Timestamp) -> Vec<Value> {
    let one = std::slice::from_ref(metrics);
    let parts = match &metrics["containers"] {
        Value::Array(containers) => containers,
        _ => one,
    };
    // The units are those in which we answer ourselves.
    let sum = |resource: &str, unit: &str| -> u64 {
        let amounts = parts.iter().map(|part| {
            let text = str_of(&part["usage"][resource]);
            text.trim_end_matches(unit).parse().unwrap_or(0)
        });
        amounts.fold(0, u64::saturating_add)
    };
    vec![
        name(metrics),
        json!(format!("{}m", sum("cpu", "n").div_ceil(1_000_000))),
        json!(format!("{}Ki", sum("memory", "Ki"))),
        json!(str_of(&metrics["window"])),
    ]
}
