//! Pods: what `READY`, `STATUS` and `RESTARTS` say.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME,
    text::{NONE, age, human, int, list, name, or, str_of},
};

pub const COLUMNS: &[Column] = &[
    NAME,
    ("Ready", "string", "", 0),
    ("Status", "string", "", 0),
    ("Restarts", "string", "", 0),
    AGE,
    ("IP", "string", "", 1),
    ("Node", "string", "", 1),
    ("Nominated Node", "string", "", 1),
    ("Readiness Gates", "string", "", 1),
];

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let mut restarts = summary.restarts.to_string();
    if summary.restarts > 0
        && let Some(last) = summary.last_restart
    {
        restarts = format!(
            "{restarts} ({} ago)",
            human(now.as_second() - last.as_second())
        );
    }
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let ip = match str_of(&status["podIP"]) {
        "" => str_of(&status["podIPs"][0]["ip"]),
        ip => ip,
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(ip, NONE)),
        json!(or(str_of(&spec["nodeName"]), NONE)),
        json!(or(str_of(&status["nominatedNodeName"]), NONE)),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"])
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

/// How a terminated container ended.
fn ended(terminated: &Value) -> String {
    match (str_of(&terminated["reason"]), int(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// The same decisions as Kubernetes' own printer, in the same order.
fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = str_of(&status["phase"]);
    let mut summary = Summary {
        ready: 0,
        total: list(&spec["containers"]).len(),
        reason: or(str_of(&status["reason"]), phase).to_owned(),
        restarts: 0,
        last_restart: None,
    };
    let gated = list(&status["conditions"])
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated {
        summary.reason = "SchedulingGated".to_owned();
    }
    let inits = list(&spec["initContainers"]);
    let sidecar = |name: &Value| {
        inits
            .iter()
            .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
    };
    summary.total += inits
        .iter()
        .filter(|c| c["restartPolicy"] == "Always")
        .count();

    let mut initializing = false;
    for (i, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        count_restarts(container, &mut summary);
        let state = &container["state"];
        let terminated = &state["terminated"];
        if terminated.is_object() && int(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar(&container["name"]) && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = str_of(&state["waiting"]["reason"]);
        summary.reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", inits.len())
        };
        initializing = true;
        break;
    }

    if !initializing || condition(status, "Initialized") {
        let mut running = false;
        // Only the restarts of what runs now count, those of sidecars among them.
        let sidecars = list(&status["initContainerStatuses"])
            .iter()
            .filter(|c| sidecar(&c["name"]));
        (summary.restarts, summary.last_restart) = (0, None);
        for container in sidecars {
            count_restarts(container, &mut summary);
        }
        for container in list(&status["containerStatuses"]).iter().rev() {
            count_restarts(container, &mut summary);
            let state = &container["state"];
            let waiting = str_of(&state["waiting"]["reason"]);
            if !waiting.is_empty() {
                summary.reason = waiting.to_owned();
            } else if state["terminated"].is_object() {
                summary.reason = ended(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                summary.ready += 1;
            }
        }
        if summary.reason == "Completed" && running {
            let ready = condition(status, "Ready");
            summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn count_restarts(container: &Value, summary: &mut Summary) {
    summary.restarts += int(&container["restartCount"]);
    let finished = str_of(&container["lastState"]["terminated"]["finishedAt"])
        .parse()
        .ok();
    summary.last_restart = summary.last_restart.max(finished);
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates
        .iter()
        .filter(|g| condition(&pod["status"], str_of(&g["conditionType"])))
        .count();
    format!("{met}/{}", gates.len())
}
