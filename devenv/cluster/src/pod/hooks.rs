//! preStop hooks: what is done in a container, or asked of it, before its SIGTERM.
//!
//! Source: kubelet's `lifecycle/handlers.go`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::probes::{Action, Prober, Target, http_action};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Nothing, for so long: the routers leave the pod meanwhile.
    Sleep(Duration),
    /// A command, or a request.
    Do(Action),
}

/// The container's preStop hook.
pub(crate) fn pre_stop(container: &Container) -> Option<Hook> {
    let handler = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        return Some(Hook::Sleep(Duration::from_secs(seconds)));
    }
    Some(Hook::Do(if let Some(exec) = &handler.exec {
        // As it stands: the kubelet expands no variables in hooks.
        Action::Exec(exec.command.clone().unwrap_or_default())
    } else if let Some(http) = &handler.http_get {
        http_action(http, container)
    } else {
        Action::Unsupported(
            "this kind of hook is not supported: use exec, httpGet or sleep".to_owned(),
        )
    }))
}

impl Hook {
    /// Whether it does nothing but wait, as for routers to leave the pod.
    pub(crate) fn only_waits(&self) -> bool {
        match self {
            Hook::Sleep(_) => true,
            Hook::Do(Action::Exec(command)) => {
                is_sleep(&command.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Hook::Do(_) => false,
        }
    }
}

fn is_sleep(command: &[&str]) -> bool {
    let name = |path: &str| path.rsplit('/').next() == Some("sleep");
    let time = |t: &str| t.trim_end_matches(['s', 'm']).parse::<f64>().is_ok();
    match command {
        [shell, "-c", script] if shell.ends_with("sh") => {
            is_sleep(&script.split_whitespace().collect::<Vec<_>>())
        }
        [program, seconds] => name(program) && time(seconds),
        _ => false,
    }
}

/// Runs a hook to its end; the caller limits the time.
///
/// # Errors
/// What went wrong, for the pod's events.
pub(crate) async fn run(hook: Hook, prober: &dyn Prober, target: &Target) -> Result<(), String> {
    match hook {
        Hook::Sleep(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Hook::Do(action) => prober.check(&action, target).await,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::none(json!({}), None)]
    #[case::sleep(json!({"sleep": {"seconds": 5}}), Some(Hook::Sleep(Duration::from_secs(5))))]
    #[case::exec(json!({"exec": {"command": ["sh", "-c", "echo $(X)"]}}), Some(Hook::Do(Action::Exec(vec!["sh".into(), "-c".into(), "echo $(X)".into()]))))]
    #[case::http(json!({"httpGet": {"port": "web", "path": "drain"}}), Some(Hook::Do(Action::Http { host: None, port: 80, path: "/drain".into(), headers: vec![] })))]
    fn hooks(#[case] handler: Value, #[case] expected: Option<Hook>) {
        let lifecycle = match &expected {
            None => json!({}),
            Some(_) => json!({"preStop": handler}),
        };
        let container: Container = serde_json::from_value(json!({
            "name": "c", "lifecycle": lifecycle,
            "ports": [{"name": "web", "containerPort": 80}],
        }))
        .expect("a container");
        assert_eq!(pre_stop(&container), expected);
    }

    #[rstest]
    #[case(&["sleep", "5"], true)]
    #[case(&["/bin/sleep", "0.5s"], true)]
    #[case(&["sh", "-c", "sleep 10"], true)]
    #[case(&["/bin/bash", "-c", " sleep 10 "], true)]
    #[case(&["sh", "-c", "sleep 10 && nginx -s quit"], false)]
    #[case(&["nginx", "-s", "quit"], false)]
    #[case(&["sleep", "$WAIT"], false)]
    #[case(&["sleep"], false)]
    #[case(&[], false)]
    fn hooks_that_only_wait(#[case] command: &[&str], #[case] want: bool) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(Hook::Do(Action::Exec(command)).only_waits(), want);
    }

    #[test]
    fn what_is_no_hook_says_so() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "lifecycle": {"preStop": {"tcpSocket": {"port": 1}}},
        }))
        .expect("a container");
        assert!(matches!(
            pre_stop(&container),
            Some(Hook::Do(Action::Unsupported(_)))
        ));
    }
}
