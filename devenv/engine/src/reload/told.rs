//! Troubles, told where people look: the journal, and an Event of each workload that
//! does not get its newest version.

use devenv_model::Object;
use devenv_platform::FIELD_MANAGER;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{event::Report, live::Live};

/// `source.component` of such Events.
pub(crate) const COMPONENT: &str = "devenv-reload";
/// What an Event's message holds at most, in bytes.
const MESSAGE: usize = 1024;

/// Something keeps `workloads` from their newest version; returns whether that is news.
pub(crate) async fn trouble(
    live: &Live,
    what: &str,
    reason: &str,
    report: &Report,
    workloads: &[Object],
) -> bool {
    if !live.journal.trouble(what, report) {
        return false;
    }
    let mut message = report.message.clone();
    for more in report.causes.iter().chain(&report.output) {
        message.push('\n');
        message.push_str(more);
    }
    let message = cut(&message);
    for object in workloads {
        let Some(namespace) = object.namespace() else {
            continue;
        };
        let (name, now) = (name_of(object), Timestamp::now());
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": object.api_version(), "kind": object.kind(),
                "name": object.name(), "namespace": namespace,
            },
            "type": "Warning", "reason": reason, "message": message, "count": 1,
            "firstTimestamp": time, "lastTimestamp": time,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT, "reportingInstance": "",
        });
        let api: Api<Event> = Api::namespaced(live.client.clone(), namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        if let Err(e) = api.patch(&name, &params, &Patch::Apply(&event)).await {
            tracing::debug!(error = %e, "an event of a reload could not be written");
        }
    }
    true
}

/// All is well again.
pub(crate) async fn mended(live: &Live, what: &str, workloads: &[Object]) {
    if !live.journal.mended(what) {
        return;
    }
    for object in workloads {
        let Some(namespace) = object.namespace() else {
            continue;
        };
        let api: Api<Event> = Api::namespaced(live.client.clone(), namespace);
        // One that is not there is as good as one that was removed.
        let _ = api.delete(&name_of(object), &DeleteParams::default()).await;
    }
}

fn name_of(object: &Object) -> String {
    let kind = object.kind().to_lowercase();
    format!("{}.{kind}.{COMPONENT}", object.name())
}

/// The beginning, where compilers put what counts.
fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(MESSAGE);
        assert_eq!(cut(&long).len(), MESSAGE);
        let odd = format!("a{}", "é".repeat(MESSAGE));
        assert_eq!(cut(&odd).len(), MESSAGE - 1);
    }
}
