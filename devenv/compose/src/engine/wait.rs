//! Waiting for containers by the engine's events.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;

use super::ps::name_of;
use super::{Engine, EngineError};
use crate::project::Service;

/// Restarts in a row after which a container is given up.
const MAX_RESTARTS: i64 = 5;

/// How many lines of a container that has ended are shown.
const SHOWN_LINES: usize = 10;

/// What a container is waited to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Its healthcheck passes.
    Healthy,
    /// It has ended with 0.
    Ended,
    /// It runs and, if it has a healthcheck, passes it; or it has ended with 0.
    Works,
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Reached,
    NotYet,
    Unhealthy(String),
    Ended(String),
    NoHealthcheck,
}

impl Engine {
    /// Returns when the container has come so far; the engine tells, nothing is polled.
    pub(super) async fn wait(
        &self,
        service: &Service,
        container: &str,
        goal: Goal,
    ) -> Result<(), EngineError> {
        let failed = |e| EngineError::of(e, format!("waiting for {container}"));
        // Events since before the first look: nothing that happens between the look and the
        // subscription is missed.
        let since = self.time(&format!("waiting for {container}")).await?;
        let filters = HashMap::from([
            ("type".into(), vec!["container".into()]),
            ("container".into(), vec![container.to_owned()]),
            (
                "event".into(),
                ["start", "die", "destroy", "health_status"]
                    .map(Into::into)
                    .to_vec(),
            ),
        ]);
        let mut events = Box::pin(self.docker.events(Some(EventsOptions {
            since,
            until: None,
            filters: Some(filters),
        })));
        loop {
            let look = match self.inspect(container).await? {
                Some(found) => look(&found, goal),
                None => Look::Ended("was removed".into()),
            };
            let error = match look {
                Look::Reached => return Ok(()),
                Look::NotYet => None,
                Look::Unhealthy(output) => Some(EngineError::Unhealthy {
                    service: service.name.clone(),
                    container: container.into(),
                    output,
                    origin: service.origin.clone(),
                }),
                Look::Ended(how) => Some(EngineError::Ended {
                    service: service.name.clone(),
                    container: container.into(),
                    how,
                    logs: self.last_lines(container, SHOWN_LINES).await,
                    origin: service.origin.clone(),
                }),
                Look::NoHealthcheck => Some(EngineError::NoHealthcheck {
                    service: service.name.clone(),
                    origin: service.origin.clone(),
                }),
            };
            if let Some(error) = error {
                return Err(error);
            }
            match events.next().await {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(failed(e)),
                None => {
                    let ended = std::io::ErrorKind::UnexpectedEof;
                    return Err(failed(std::io::Error::from(ended).into()));
                }
            }
        }
    }
}

impl Engine {
    /// The engine's own clock, as events are asked for by it.
    pub(super) async fn time(&self, doing: &str) -> Result<Option<String>, EngineError> {
        let info = self.docker.info().await;
        let info = info.map_err(|e| EngineError::of(e, doing))?;
        Ok(info.system_time.as_deref().and_then(unix_time))
    }
}

/// The engine tells its time as RFC 3339, and wants to be told it as seconds.
fn unix_time(text: &str) -> Option<String> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(format!(
        "{}.{:09}",
        time.as_second(),
        time.subsec_nanosecond()
    ))
}

fn look(container: &ContainerInspectResponse, goal: Goal) -> Look {
    use ContainerStateStatusEnum as Status;
    let state = container.state.clone().unwrap_or_default();
    let status = state.status.unwrap_or(Status::EMPTY);
    let code = state.exit_code.unwrap_or(0);
    let how = match state.oom_killed {
        Some(true) => "was ended by the kernel: it wanted more memory than it may have".to_owned(),
        _ => format!("ended with exit code {code}"),
    };
    match status {
        Status::EXITED | Status::DEAD if code == 0 && goal != Goal::Healthy => Look::Reached,
        Status::EXITED | Status::DEAD => Look::Ended(how),
        Status::RESTARTING if container.restart_count.unwrap_or(0) >= MAX_RESTARTS => {
            Look::Ended(format!("{how} again and again"))
        }
        Status::RUNNING if goal != Goal::Ended => healthy(container, goal),
        _ => Look::NotYet,
    }
}

/// How a running container's healthcheck stands.
fn healthy(container: &ContainerInspectResponse, goal: Goal) -> Look {
    let health = container.state.as_ref().and_then(|s| s.health.as_ref());
    match health.and_then(|h| h.status) {
        Some(HealthStatusEnum::HEALTHY) => Look::Reached,
        Some(HealthStatusEnum::STARTING) => Look::NotYet,
        Some(HealthStatusEnum::UNHEALTHY) => {
            let log = health.and_then(|h| h.log.as_ref());
            let last = log
                .and_then(|log| log.last())
                .and_then(|r| r.output.clone());
            let last = last.unwrap_or_default().trim().to_owned();
            Look::Unhealthy(match last.is_empty() {
                true => format!("the healthcheck of {} says nothing", name_of(container)),
                false => last,
            })
        }
        _ if goal == Goal::Works => Look::Reached,
        _ => Look::NoHealthcheck,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn container(state: serde_json::Value, restarts: i64) -> ContainerInspectResponse {
        let whole = serde_json::json!({"Name": "/p-s-1", "RestartCount": restarts, "State": state});
        serde_json::from_value(whole).unwrap()
    }

    #[rstest]
    #[case::runs("running", None, 0, Goal::Works, Look::Reached)]
    #[case::starting("running", Some("starting"), 0, Goal::Works, Look::NotYet)]
    #[case::healthy("running", Some("healthy"), 0, Goal::Healthy, Look::Reached)]
    #[case::no_check("running", None, 0, Goal::Healthy, Look::NoHealthcheck)]
    #[case::still_runs("running", None, 0, Goal::Ended, Look::NotYet)]
    #[case::job("exited", None, 0, Goal::Ended, Look::Reached)]
    #[case::job_works("exited", None, 0, Goal::Works, Look::Reached)]
    #[case::ended_is_not_healthy("exited", None, 0, Goal::Healthy, Look::Ended("ended with exit code 0".into()))]
    #[case::failed("exited", None, 3, Goal::Ended, Look::Ended("ended with exit code 3".into()))]
    #[case::created("created", None, 0, Goal::Works, Look::NotYet)]
    #[case::restarting("restarting", None, 1, Goal::Works, Look::NotYet)]
    fn looks(
        #[case] status: &str,
        #[case] health: Option<&str>,
        #[case] code: i64,
        #[case] goal: Goal,
        #[case] want: Look,
    ) {
        let health = health.map(|h| serde_json::json!({"Status": h}));
        let state = serde_json::json!({"Status": status, "ExitCode": code, "Health": health});
        assert_eq!(look(&container(state, 0), goal), want);
    }

    #[test]
    fn time_is_told_in_seconds() {
        let time = unix_time("2026-11-24T22:28:33.000000007Z");
        assert_eq!(time.as_deref(), Some("1795559313.000000007"));
        assert_eq!(unix_time("now"), None);
    }

    #[test]
    fn the_checks_own_words_are_told() {
        let health = serde_json::json!({"Status": "unhealthy", "Log": [{"Output": "no\n"}, {"Output": "refused\n"}]});
        let state = serde_json::json!({"Status": "running", "Health": health});
        let look = look(&container(state, 0), Goal::Works);
        assert_eq!(look, Look::Unhealthy("refused".into()));
    }

    #[test]
    fn want_of_memory_and_endless_restarts_are_told() {
        let state = serde_json::json!({"Status": "restarting", "ExitCode": 137, "OOMKilled": true});
        let Look::Ended(how) = look(&container(state, MAX_RESTARTS), Goal::Works) else {
            panic!("it has ended")
        };
        assert!(
            how.contains("memory") && how.contains("again and again"),
            "{how}"
        );
    }
}
