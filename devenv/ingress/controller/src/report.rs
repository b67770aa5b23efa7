//! What the controller writes to the API: where Ingresses are reached, and what
//! is wrong with them.
//!
//! A task of its own, so that a slow API holds up no table. It looks at the last
//! outcome only; what was overtaken meanwhile is never written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use devenv_ingress::Warning;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

/// Field manager of statuses, and who Events come from.
const COMPONENT: &str = "devenv-ingress-controller";
const REASON: &str = "Ingress";
/// How often statuses are looked at without a change, as ingress-nginx does:
/// somebody may have removed what was written.
const RESYNC: Duration = Duration::from_secs(60);
/// When something could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// Longest message of an Event, in bytes, by `events.k8s.io`.
const LONGEST_MESSAGE: usize = 1024;
/// Longest name of an object, in bytes.
const LONGEST_NAME: usize = 253;

/// What the table in force was compiled to.
#[derive(Debug, Default)]
struct Outcome {
    accepted: Vec<(String, String)>,
    warnings: Vec<Warning>,
}

/// The running task.
#[derive(Debug)]
pub(crate) struct Reporting {
    outcome_tx: watch::Sender<Arc<Outcome>>,
    task: JoinHandle<()>,
}

/// Starts the task. It reads the Ingresses' own state from `ingresses`; with no
/// `addresses` it leaves statuses alone.
pub(crate) fn spawn(
    client: Client,
    ingresses: Store<Ingress>,
    addresses: Vec<IpAddr>,
) -> Reporting {
    let (outcome_tx, outcome_rx) = watch::channel(Arc::default());
    let reporter = Reporter {
        client,
        ingresses,
        addresses,
        told: BTreeMap::new(),
    };
    Reporting {
        outcome_tx,
        task: tokio::spawn(reporter.run(outcome_rx)),
    }
}

impl Reporting {
    /// Has `accepted` (namespace, name) get its status, and `warnings` be told.
    pub fn tell(&self, accepted: Vec<(String, String)>, warnings: Vec<Warning>) {
        self.outcome_tx
            .send_replace(Arc::new(Outcome { accepted, warnings }));
    }

    /// Ends the task at once; what was being written may or may not be.
    pub async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

struct Reporter {
    client: Client,
    ingresses: Store<Ingress>,
    addresses: Vec<IpAddr>,
    /// Warnings that last, and whether their Event was written.
    told: BTreeMap<Said, bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    /// A new object of an old name is told again.
    uid: String,
    message: String,
}

impl Reporter {
    async fn run(mut self, mut outcome_rx: watch::Receiver<Arc<Outcome>>) {
        loop {
            let outcome = outcome_rx.borrow_and_update().clone();
            let statuses = self.write_statuses(&outcome.accepted).await;
            let events = self.tell(&outcome.warnings).await;
            let pause = if statuses && events { RESYNC } else { RETRY };
            tokio::select! {
                changed = outcome_rx.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Ingress>> {
        self.ingresses.get(&ObjectRef::new(name).within(namespace))
    }

    /// Writes the statuses that differ; returns whether all are right now.
    async fn write_statuses(&self, accepted: &[(String, String)]) -> bool {
        if self.addresses.is_empty() {
            return true;
        }
        let wanted: Vec<_> = self
            .addresses
            .iter()
            .map(|ip| json!({"ip": ip.to_string()}))
            .collect();
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": wanted}}}));
        let params = PatchParams {
            field_manager: Some(COMPONENT.to_owned()),
            ..PatchParams::default()
        };
        let mut all = true;
        for (namespace, name) in accepted {
            let Some(ingress) = self.find(namespace, name) else {
                continue;
            };
            if leads_to(&ingress, &self.addresses) {
                continue;
            }
            let api: Api<Ingress> = Api::namespaced(self.client.clone(), namespace);
            match api.patch_status(name, &params, &patch).await {
                Ok(_) => debug!(namespace, name, "status written"),
                // Deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        namespace, name, "the status could not be written"
                    );
                    all = false;
                }
            }
        }
        all
    }

    /// Tells what is new of `warnings` and forgets what no longer holds; returns
    /// whether every one has its Event now.
    async fn tell(&mut self, warnings: &[Warning]) -> bool {
        let mut now = BTreeMap::new();
        for warning in warnings {
            // Deleted meanwhile, or made anew: then there is another outcome soon.
            let Some(ingress) = self.find(&warning.namespace, &warning.name) else {
                continue;
            };
            let said = Said {
                uid: ingress.metadata.uid.clone().unwrap_or_default(),
                message: warning.message.clone(),
            };
            let before = self.told.get(&said).copied();
            if before.is_none() {
                warn!(
                    namespace = warning.namespace,
                    ingress = warning.name,
                    "{}",
                    warning.message
                );
            }
            let written = match before {
                Some(true) => true,
                _ => self.record(&ingress, &said).await,
            };
            now.insert(said, written);
        }
        self.told = now;
        self.told.values().all(|written| *written)
    }

    /// Writes a warning's Event; returns whether that is done with.
    async fn record(&self, ingress: &Ingress, said: &Said) -> bool {
        let event = event(ingress.object_ref(&()), said, Timestamp::now());
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let error = match api.create(&PostParams::default(), &event).await {
            // An earlier run told it: not once more, but again.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let again = json!({"lastTimestamp": event.last_timestamp});
                let patch = Patch::Merge(&again);
                match api.patch(name, &PatchParams::default(), &patch).await {
                    Ok(_) => return true,
                    Err(error) => error,
                }
            }
            Ok(_) => return true,
            Err(error) => error,
        };
        // The API will not have it, such as in a namespace that is ending; asking again and
        // again would not change that. The log has it.
        let refused =
            matches!(&error, kube::Error::Api(status) if (400..429).contains(&status.code));
        warn!(
            error = &error as &dyn std::error::Error,
            namespace,
            ingress = ingress.metadata.name,
            "an Event could not be written"
        );
        refused
    }
}

/// Whether an Ingress' status says just these addresses.
fn leads_to(ingress: &Ingress, addresses: &[IpAddr]) -> bool {
    let status = ingress.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_deref());
    let points = points.unwrap_or_default();
    points.len() == addresses.len()
        && points.iter().zip(addresses).all(|(point, address)| {
            point.hostname.is_none() && point.ip.as_deref() == Some(&address.to_string())
        })
}

/// The Event of a warning. Its name is that of the object and of what is said, so
/// that the controller's next run finds it.
fn event(object: ObjectReference, said: &Said, now: Timestamp) -> Event {
    let digest = Sha256::digest(format!("{}\n{}", said.uid, said.message));
    let suffix = hex::encode(&digest[..8]);
    let object_name = object.name.as_deref().unwrap_or_default();
    let room = LONGEST_NAME - suffix.len() - 1;
    // A cut may end in what no part of a name may end in.
    let prefix = cut(object_name, room).trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            namespace: object.namespace.clone(),
            name: Some(format!("{prefix}.{suffix}")),
            ..ObjectMeta::default()
        },
        involved_object: object,
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        message: Some(cut(&said.message, LONGEST_MESSAGE).to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(COMPONENT.to_owned()),
        ..Event::default()
    }
}

/// At most so many bytes, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    #[rstest]
    #[case::nothing_yet(json!(null), &["10.0.0.1"], false)]
    #[case::empty(json!({"loadBalancer": {}}), &["10.0.0.1"], false)]
    #[case::the_same(json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}), &["10.0.0.1"], true)]
    #[case::another(json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}]}}), &["10.0.0.1"], false)]
    #[case::more(
        json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}}),
        &["10.0.0.1"],
        false
    )]
    #[case::a_name(
        json!({"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}),
        &["10.0.0.1"],
        false
    )]
    #[case::both_families(
        json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
        &["10.0.0.1", "fd00:0::1"],
        true
    )]
    fn a_status_is_written_only_when_it_differs(
        #[case] status: Value,
        #[case] addresses: &[&str],
        #[case] right: bool,
    ) {
        let ingress: Ingress =
            serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap();
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(leads_to(&ingress, &addresses), right);
    }

    fn told(name: &str, message: &str) -> Event {
        let object = ObjectReference {
            namespace: Some("n".to_owned()),
            name: Some(name.to_owned()),
            uid: Some("u".to_owned()),
            ..ObjectReference::default()
        };
        let said = Said {
            uid: "u".to_owned(),
            message: message.to_owned(),
        };
        event(object, &said, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_event_is_named_by_what_it_says() {
        let name = |event: Event| event.metadata.name.unwrap();
        assert_eq!(name(told("web", "a")), name(told("web", "a")));
        assert_ne!(name(told("web", "a")), name(told("web", "b")));
        assert!(name(told("web", "a")).starts_with("web."));
    }

    #[test]
    fn long_names_and_messages_are_cut() {
        let long = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        let event = told(&long, &"é".repeat(1000));
        let name = event.metadata.name.unwrap();
        assert!(name.len() <= LONGEST_NAME && !name.contains(".."), "{name}");
        assert_eq!(event.message.unwrap().len(), LONGEST_MESSAGE);
    }
}
