//! What a container uses, as the engine tells it.

use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use devenv_sandbox::Usage;
use futures_util::StreamExt;

use super::failed;
use crate::pod::runtime::{Meter, Reading, RuntimeError};

/// Asks the engine for one look at a container (`one-shot`, API 1.41): older engines take two, a
/// second apart.
#[derive(Debug)]
pub(super) struct ContainerMeter {
    docker: Docker,
    id: String,
}

impl ContainerMeter {
    pub(super) fn new(docker: Docker, id: String) -> ContainerMeter {
        ContainerMeter { docker, id }
    }
}

#[async_trait]
impl Meter for ContainerMeter {
    async fn read(&self) -> Result<Reading, RuntimeError> {
        let options = StatsOptionsBuilder::new()
            .stream(false)
            .one_shot(true)
            .build();
        let mut answers = Box::pin(self.docker.stats(&self.id, Some(options)));
        let answer = answers.next().await.transpose();
        let stats = answer.map_err(failed("ask what the container uses"))?;
        stats.as_ref().and_then(reading).ok_or_else(|| {
            RuntimeError::Other("the Docker Engine does not tell what the container uses".into())
        })
    }
}

/// `None` when the answer has no numbers: of a container that has ended they are zero, or missing.
fn reading(stats: &ContainerStatsResponse) -> Option<Reading> {
    // The engine's clock: it says when it looked, and the answer was on its way since.
    let at = stats.read?.unix_timestamp_nanos();
    let at = u64::try_from(at).ok().map(Duration::from_nanos)?;
    let used = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    Some(Reading {
        at,
        usage: Usage {
            cpu: Duration::from_nanos(used),
            memory: working_set(stats.memory_stats.as_ref()?)?,
        },
    })
}

/// Without the inactive pages of files, as the kubelet and `docker stats` count it
/// (docker/cli's `calculateMemUsageUnixNoCache`): the names are those of control groups of
/// version 1 and of version 2.
fn working_set(memory: &ContainerMemoryStats) -> Option<u64> {
    let stats = memory.stats.as_ref();
    let field = |name: &str| stats.and_then(|stats| stats.get(name)).copied();
    let inactive = field("total_inactive_file").or_else(|| field("inactive_file"));
    Some(memory.usage?.saturating_sub(inactive.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const READ: &str = "2026-01-01T00:00:10.5Z";

    #[rstest]
    #[case::version_1(
        json!({"read": READ, "cpu_stats": {"cpu_usage": {"total_usage": 1234567, "percpu_usage": [1]}},
            "memory_stats": {"usage": 9000, "stats": {"inactive_file": 1, "total_inactive_file": 4000}}}),
        Some((1_234_567, 5000))
    )]
    #[case::version_2(
        json!({"read": READ, "cpu_stats": {"cpu_usage": {"total_usage": 7}},
            "memory_stats": {"usage": 9000, "stats": {"anon": 5, "inactive_file": 100}}}),
        Some((7, 8900))
    )]
    #[case::no_details(
        json!({"read": READ, "cpu_stats": {"cpu_usage": {"total_usage": 7}}, "memory_stats": {"usage": 9000}}),
        Some((7, 9000))
    )]
    #[case::mostly_files(
        json!({"read": READ, "cpu_stats": {"cpu_usage": {"total_usage": 7}},
            "memory_stats": {"usage": 10, "stats": {"inactive_file": 11}}}),
        Some((7, 0))
    )]
    #[case::has_ended(
        json!({"read": "0001-01-01T00:00:00Z", "cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}),
        None
    )]
    #[case::without_memory(json!({"read": READ, "cpu_stats": {"cpu_usage": {"total_usage": 7}}}), None)]
    #[case::nothing(json!({}), None)]
    fn answers(#[case] stats: Value, #[case] expected: Option<(u64, u64)>) {
        let stats: ContainerStatsResponse = serde_json::from_value(stats).expect("an answer");
        let expected = expected.map(|(nanoseconds, memory)| Reading {
            // 2026 began so many seconds after 1970.
            at: Duration::from_millis(1_767_225_610_500),
            usage: Usage {
                cpu: Duration::from_nanos(nanoseconds),
                memory,
            },
        });
        assert_eq!(reading(&stats), expected);
    }
}
