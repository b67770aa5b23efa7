//! A declared HTTPRoute at a stage of a promotion.

use serde_json::{Value, json};

use super::{LARGEST, Part, ShareError, Stage, weights};

/// Which workload is being promoted, and how far it may go.
#[derive(Debug, Clone, Copy)]
pub struct Moving<'a> {
    /// The workload's Service.
    pub service: &'a str,
    /// Its canary's Service, with the same ports.
    pub canary: &'a str,
    /// The largest weight: [`LARGEST`] or
    /// [`LARGEST_ON_GOOGLE_CLOUD`](super::LARGEST_ON_GOOGLE_CLOUD).
    pub largest: u32,
}

/// The declared route with the weights of a stage, in all rules that the workload is a
/// backend of, also those that a header leads to. Where it is none, the route is as it was.
///
/// A backend of weight 0 gets no canary: it has no requests to share.
///
/// # Errors
/// When the object is no HTTPRoute, or weights can't be said.
pub fn route_at(declared: &Value, moving: &Moving<'_>, stage: Stage) -> Result<Value, ShareError> {
    let name = declared["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let bad = |problem: &str| ShareError::NotARoute {
        name: name.clone(),
        problem: problem.to_owned(),
    };
    if declared["kind"] != "HTTPRoute" {
        return Err(bad("is of another kind"));
    }
    let mut out = declared.clone();
    let Some(rules) = out.pointer_mut("/spec/rules").and_then(Value::as_array_mut) else {
        return Err(bad("has no rules"));
    };
    for rule in rules {
        let Some(refs) = rule.get_mut("backendRefs").and_then(Value::as_array_mut) else {
            continue;
        };
        let mut parts = Vec::with_capacity(refs.len());
        for backend in refs.iter() {
            let service = backend["name"]
                .as_str()
                .ok_or_else(|| bad("has a backend without a name"))?;
            // The API server's default.
            let weight = match backend.get("weight") {
                None => 1,
                Some(weight) => weight
                    .as_u64()
                    .and_then(|weight| u32::try_from(weight).ok())
                    .filter(|weight| *weight <= LARGEST)
                    .ok_or_else(|| bad("has a weight that is no number from 0 to 1000000"))?,
            };
            parts.push(Part::new(service, weight));
        }
        let Some(at) = parts.iter().position(|part| part.service == moving.service) else {
            continue;
        };
        if parts[at].weight == 0 || stage == Stage::Declared {
            continue;
        }
        let new = weights(&parts, moving.service, moving.canary, stage, moving.largest)?;
        // The canary is stable's backend under another name: port, filters and all.
        let mut canary = refs[at].clone();
        canary["name"] = json!(moving.canary);
        refs.insert(at + 1, canary);
        for (backend, part) in refs.iter_mut().zip(new) {
            backend["weight"] = json!(part.weight);
        }
    }
    Ok(out)
}
