//! What the cluster warns of: the Warning Events of this run, each once.

use std::collections::BTreeMap;

use devenv_model::Topology;
use devenv_platform::Scope;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::ListParams};
use serde::Serialize;

use crate::reload::told::COMPONENT;

/// Something that an object's controller warns of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// The object's kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The sort of warning.
    pub reason: String,
    /// What it is.
    pub message: String,
    /// How often it was said.
    pub count: i32,
}

impl Warning {
    /// For people; with the place of the object where the project's files have it.
    pub fn text(&self, topology: Option<&Topology>) -> String {
        let place = topology
            .into_iter()
            .flat_map(Topology::objects)
            .find(|o| o.kind() == self.kind && o.name() == self.name)
            .map(|o| format!(" ({})", o.origin()));
        let (kind, name, place) = (&self.kind, &self.name, place.unwrap_or_default());
        format!("{kind} {name}{place}: {}", self.message)
    }
}

/// Namespaces of a cluster's own parts, which nobody who develops an application can mend.
const OF_THE_CLUSTER: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The warnings since `since` (seconds since 1970) about everything but pods, whose
/// troubles are told with their workload, and the cluster's own parts.
///
/// # Errors
/// When the API does not answer.
pub async fn since(
    client: &Client,
    scope: &Scope,
    since: i64,
) -> Result<Vec<Warning>, kube::Error> {
    let events: Api<Event> = scope.api(client);
    let list = events.list(&ListParams::default()).await?;
    Ok(distinct(list.items, since))
}

fn distinct(events: Vec<Event>, since: i64) -> Vec<Warning> {
    let mut seen: BTreeMap<(String, String, String, String), Warning> = BTreeMap::new();
    for e in events {
        let about = e.involved_object;
        let kind = about.kind.unwrap_or_default();
        // Told as troubles, which go away when they are mended.
        let of_reload = e.source.and_then(|s| s.component).as_deref() == Some(COMPONENT);
        let last = e.last_timestamp.map_or(i64::MAX, |t| t.0.as_second());
        if e.type_.as_deref() != Some("Warning") || kind == "Pod" || of_reload || last < since {
            continue;
        }
        let namespace = about.namespace.as_deref().unwrap_or_default();
        if kind == "Node" || OF_THE_CLUSTER.contains(&namespace) {
            continue;
        }
        let warning = Warning {
            kind,
            namespace: about.namespace.unwrap_or_default(),
            name: about.name.unwrap_or_default(),
            reason: e.reason.unwrap_or_default(),
            message: e.message.unwrap_or_default(),
            count: e.count.unwrap_or(1),
        };
        let key = (
            warning.kind.clone(),
            warning.namespace.clone(),
            warning.name.clone(),
            warning.message.clone(),
        );
        seen.entry(key)
            .and_modify(|w| w.count += warning.count)
            .or_insert(warning);
    }
    seen.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_warning_of_this_run_is_told_once() {
        let event = |kind: &str, sort: &str, second: u32, message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {"name": "e", "namespace": "n"},
                "involvedObject": {"kind": kind, "name": "web", "namespace": "n"},
                "type": sort, "reason": "Ingress", "message": message, "count": 1,
                "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            }))
            .unwrap()
        };
        let start = "2026-01-01T00:00:10Z".parse::<jiff::Timestamp>().unwrap();
        let told = distinct(
            vec![
                event("Ingress", "Warning", 9, "earlier"),
                event("Ingress", "Warning", 10, "tls is not served"),
                event("Ingress", "Warning", 11, "tls is not served"),
                event("Ingress", "Normal", 11, "Sync"),
                event("Pod", "Warning", 11, "Readiness probe failed"),
            ],
            start.as_second(),
        );
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].count, 2);
        assert_eq!(told[0].text(None), "Ingress web: tls is not served");
    }
}
