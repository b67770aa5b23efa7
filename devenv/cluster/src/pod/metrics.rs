//! What containers and this machine use, measured when somebody asks.
//!
//! CPU usage is a rate, so it takes two readings. Nothing is read between
//! requests: what the last one read is the first of the two when it is not too
//! old, and otherwise the first is read now and the second a [`LEAST_WINDOW`]
//! later, of all containers side by side. The window is told with the answer.

mod machine;
pub(super) mod processes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::runtime::{Meter, Reading, RuntimeError};
use crate::api::{ContainerMetrics, Measured, MetricsSource};
use crate::controllers::node;
use machine::Machine;

/// The shortest time over which a rate is told.
const LEAST_WINDOW: Duration = Duration::from_millis(250);
/// The longest: what was read before that says little of now. It is
/// metrics-server's default resolution.
const MOST_WINDOW: Duration = Duration::from_secs(15);
/// Who asks again so soon is told the same.
const FRESH: Duration = Duration::from_secs(1);
/// How long a request waits. What was not read by then (an engine that hangs) is left out.
const LIMIT: Duration = Duration::from_millis(1500);

/// All running containers and what measures them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics {
    /// By the pod's uid.
    running: Arc<Mutex<HashMap<String, Vec<Arc<Run>>>>>,
    machine: Arc<Run>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            running: Arc::default(),
            machine: Arc::new(Run::new(node::NAME, Arc::new(Machine))),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A running container's place, given up when this is dropped.
pub struct Entry {
    metrics: Metrics,
    uid: String,
    run: Arc<Run>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("container", &self.run.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.metrics.lock();
        if let Some(runs) = running.get_mut(&self.uid) {
            runs.retain(|run| !Arc::ptr_eq(run, &self.run));
            if runs.is_empty() {
                running.remove(&self.uid);
            }
        }
    }
}

impl Metrics {
    /// A container of the pod `uid` began to run.
    pub fn enter(&self, uid: &str, container: &str, meter: Arc<dyn Meter>) -> Entry {
        let run = Arc::new(Run::new(container, meter));
        let mut running = self.lock();
        running.entry(uid.to_owned()).or_default().push(run.clone());
        drop(running);
        Entry {
            metrics: self.clone(),
            uid: uid.to_owned(),
            run,
        }
    }

    fn is_running(&self, uid: &str, run: &Arc<Run>) -> bool {
        let running = self.lock();
        let mut runs = running.get(uid).into_iter().flatten();
        runs.any(|known| Arc::ptr_eq(known, run))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Run>>>> {
        // A map is whole after a panic elsewhere.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MetricsSource for Metrics {
    async fn pods(&self, uids: &[String]) -> HashMap<String, Vec<ContainerMetrics>> {
        let deadline = Instant::now() + LIMIT;
        let of = |uid: &String| Some((uid.clone(), self.lock().get(uid)?.clone()));
        let pods: Vec<(String, Vec<Arc<Run>>)> = uids.iter().filter_map(of).collect();
        let measured = pods.into_iter().map(|(uid, runs)| async move {
            let each = join_all(runs.iter().map(|run| measure(run, deadline))).await;
            let each = runs.iter().zip(each);
            let still = each.filter(|(run, told)| told.is_some() || self.is_running(&uid, run));
            let told = still.map(|(run, told)| {
                Some(ContainerMetrics {
                    name: run.name.clone(),
                    measured: told?,
                })
            });
            // A pod without one of its containers would be told to use less than it does.
            let all: Option<Vec<_>> = told.collect();
            Some((uid, all?))
        });
        join_all(measured).await.into_iter().flatten().collect()
    }

    async fn node(&self, name: &str) -> Option<Measured> {
        if name != node::NAME {
            return None;
        }
        measure(&self.machine, Instant::now() + LIMIT).await
    }
}

/// One run of a container.
struct Run {
    name: String,
    meter: Arc<dyn Meter>,
    /// Held while it is read: of readings that hang there is one.
    kept: Arc<tokio::sync::Mutex<Kept>>,
}

/// What was read last, and what came of it.
#[derive(Default)]
struct Kept {
    last: Option<Sample>,
    told: Option<(Instant, Measured)>,
}

struct Sample {
    reading: Reading,
    at: Instant,
}

impl Run {
    fn new(name: &str, meter: Arc<dyn Meter>) -> Run {
        Run {
            name: name.to_owned(),
            meter,
            kept: Arc::default(),
        }
    }
}

/// What a run uses; `None` when that can't be known by the deadline.
async fn measure(run: &Run, deadline: Instant) -> Option<Measured> {
    let kept = timeout_at(deadline, run.kept.clone().lock_owned()).await;
    let mut kept = kept.ok()?;
    if let Some((at, told)) = &kept.told
        && at.elapsed() < FRESH
    {
        return Some(*told);
    }
    let meter = run.meter.clone();
    // A task of its own, which keeps its lock when nobody waits any more.
    let measuring = tokio::spawn(async move { kept.measure(&*meter).await });
    match timeout_at(deadline, measuring).await {
        Ok(Ok(Ok(measured))) => measured,
        Ok(Ok(Err(error))) => {
            // It has ended, as a rule.
            debug!(container = run.name, error = %error.full(), "a container could not be measured");
            None
        }
        // It took too long, or devenv is shutting down.
        Ok(Err(_)) | Err(_) => None,
    }
}

impl Kept {
    async fn measure(&mut self, meter: &dyn Meter) -> Result<Option<Measured>, RuntimeError> {
        let usable = |sample: &Sample| sample.at.elapsed() <= MOST_WINDOW;
        let first = match self.last.take().filter(usable) {
            Some(first) => first,
            None => sample(meter).await?,
        };
        sleep_until(first.at + LEAST_WINDOW).await;
        let second = sample(meter).await?;
        let measured = between(&first.reading, &second.reading, Timestamp::now());
        self.told = measured.map(|measured| (second.at, measured));
        self.last = Some(second);
        Ok(measured)
    }
}

async fn sample(meter: &dyn Meter) -> Result<Sample, RuntimeError> {
    let reading = meter.read().await?;
    let at = Instant::now();
    Ok(Sample { reading, at })
}

/// The rate between two readings of one run, and the later one's memory; `None` where no time
/// lies between them: the meter's clock was set back.
fn between(first: &Reading, second: &Reading, timestamp: Timestamp) -> Option<Measured> {
    let window = second.at.checked_sub(first.at).filter(|w| !w.is_zero())?;
    // It can go back where processes are summed up: one that ended, and nobody waited for.
    let cpu = second.usage.cpu.saturating_sub(first.usage.cpu);
    let nanocores = cpu.as_nanos().saturating_mul(1_000_000_000) / window.as_nanos();
    Some(Measured {
        timestamp,
        window,
        nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX),
        memory: second.usage.memory,
    })
}
