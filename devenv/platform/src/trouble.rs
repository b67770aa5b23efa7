//! What keeps a pod from being ready, in a few words, as the pod itself tells it.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// Why a pod is not ready; `None` while it is only starting.
pub fn pod_trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    status
        .container_statuses
        .iter()
        .flatten()
        .find_map(container_trouble)
}

fn container_trouble(c: &ContainerStatus) -> Option<String> {
    let state = c.state.clone().unwrap_or_default();
    if let Some(w) = state.waiting
        && let Some(reason) = w.reason
        && reason != "ContainerCreating"
        && reason != "PodInitializing"
    {
        let last = c.last_state.as_ref().and_then(ended);
        let last = last.map(|l| format!("; it {l}")).unwrap_or_default();
        let message = w.message.map(|m| format!(": {}", brief(&m)));
        return Some(format!("{reason}{}{last}", message.unwrap_or_default()));
    }
    if state.terminated.is_some() {
        return c.state.as_ref().and_then(ended).map(|e| format!("it {e}"));
    }
    // It runs again, and is not ready yet.
    if !c.ready && c.restart_count > 0 {
        let last = c.last_state.as_ref().and_then(ended)?;
        return Some(format!("it {last} and was started again"));
    }
    None
}

fn ended(state: &ContainerState) -> Option<String> {
    let t = state.terminated.as_ref()?;
    Some(match t.signal {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with exit code {}", t.exit_code),
    })
}

/// `back-off 10s restarting failed container=c pod=p_ns(uid)` without what people know
/// already.
fn brief(message: &str) -> &str {
    message
        .split_once(" restarting failed container=")
        .map_or(message, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::crash(
        json!({
            "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff",
                "message": "back-off 40s restarting failed container=c pod=a_b(1)"}},
            "lastState": {"terminated": {"exitCode": 3}},
        }),
        Some("CrashLoopBackOff: back-off 40s; it ended with exit code 3")
    )]
    #[case::starting(
        json!({"ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}}}),
        None
    )]
    #[case::ended(
        json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1}}}),
        Some("it ended with exit code 1")
    )]
    #[case::again(
        json!({"ready": false, "restartCount": 1, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 137, "signal": 9}}}),
        Some("it was ended by signal 9 and was started again")
    )]
    #[case::well(
        json!({"ready": true, "restartCount": 1, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1}}}),
        None
    )]
    fn told(#[case] mut container: Value, #[case] expected: Option<&str>) {
        for key in ["name", "image", "imageID"] {
            container[key] = json!("c");
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"}, "status": {"containerStatuses": [container]},
        }))
        .unwrap();
        assert_eq!(pod_trouble(&pod).as_deref(), expected);
    }
}
