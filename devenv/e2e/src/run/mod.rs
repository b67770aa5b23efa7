//! Runs suites: those that take turns in one environment, those that may run beside
//! others each in one of its own.

mod attempt;
mod logs;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    environment::{Environment, Provider},
    outcome::{Outcome, RunEvent, RunReport, SuiteReport, TestReport},
    plan::{PlannedSuite, Selection, full_name, plan},
    suite::Suite,
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which tests, and where.
    pub selection: Selection,
    /// How many more attempts a failed test has, unless it says so itself.
    pub retries: u32,
    /// How often to run everything; at least once.
    pub repeat: u32,
    /// Stop after the first round with a failure; with `repeat` 1, go on until there is
    /// one.
    pub until_fail: bool,
    /// How many suites at once.
    pub jobs: usize,
    /// The run's id.
    pub id: String,
    /// Its folder, which is there.
    pub run_dir: PathBuf,
    /// Ends the run: the test under way fails as interrupted, environments are discarded.
    pub cancel: CancellationToken,
    /// Ends the run after the tests under way: those that have not begun are left out.
    pub stop: CancellationToken,
}

/// What all suites of a run share.
struct Run {
    options: Options,
    provider: Arc<dyn Provider>,
    events: mpsc::UnboundedSender<RunEvent>,
    started: Instant,
    slots: Semaphore,
    ready_ms: OnceLock<u64>,
    done: AtomicUsize,
    total: AtomicUsize,
    http: reqwest::Client,
}

/// Why nothing could be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No request could be sent.
    #[error("the HTTP client can't be set up")]
    Http(#[from] reqwest::Error),
}

/// Runs what the options select of `suites`, and tells `events` as it happens.
///
/// # Errors
/// If nothing could be tried at all. What fails in a suite is in the report.
pub async fn run(
    suites: Vec<Suite>,
    options: Options,
    provider: Arc<dyn Provider>,
    events: mpsc::UnboundedSender<RunEvent>,
) -> Result<RunReport, RunError> {
    let wall = jiff::Timestamp::now();
    let planned = plan(suites, &options.selection);
    let tests: usize = planned.iter().map(|p| p.tests.len()).sum();
    let rounds = match (options.repeat, options.until_fail) {
        (0 | 1, true) => None,
        (n, _) => Some(n.max(1)),
    };
    let run = Arc::new(Run {
        provider,
        events,
        started: Instant::now(),
        slots: Semaphore::new(options.jobs.max(1)),
        ready_ms: OnceLock::new(),
        done: AtomicUsize::new(0),
        total: AtomicUsize::new(tests * rounds.unwrap_or(1) as usize),
        http: crate::step::http_client()?,
        options,
    });
    let (mut parallel, turns): (Vec<_>, Vec<_>) =
        (planned.into_iter()).partition(|p| p.suite.parallel && !run.provider.is_shared());
    // What may take longest begins first, so that the run doesn't end with waiting for it.
    parallel.sort_by_key(|p| Reverse(p.suite.timeout.as_secs() * p.tests.len() as u64));
    let mut kept = Lane::default();
    let mut reports: BTreeMap<String, SuiteReport> = BTreeMap::new();
    let mut round = 0;
    while tests > 0 && rounds.is_none_or(|rounds| round < rounds) {
        round += 1;
        if rounds.is_none() && round > 1 {
            run.total.fetch_add(tests, Ordering::Relaxed);
        }
        let ended = run.round(&turns, &parallel, &mut kept).await;
        let failed = ended.iter().any(has_failed);
        for report in ended {
            match reports.get_mut(&report.name) {
                None => {
                    reports.insert(report.name.clone(), report);
                }
                Some(before) => merge(before, report, round),
            }
        }
        if run.is_ending() || (failed && run.options.until_fail) {
            break;
        }
    }
    kept.end(&run).await;
    if round > 1 {
        reports
            .values_mut()
            .flat_map(|r| &mut r.tests)
            .for_each(|test| {
                test.reason
                    .get_or_insert_with(|| format!("the same in each of {round} rounds"));
            });
    }
    let ms = run.ms();
    let report = RunReport {
        id: run.options.id.clone(),
        started: wall,
        ms,
        ready_ms: run.ready_ms.get().copied().unwrap_or(ms),
        target: run.options.selection.target.clone(),
        profile: run.options.selection.profile.clone(),
        suites: reports.into_values().collect(),
    };
    run.tell(RunEvent::Ended {
        report: Box::new(report.clone()),
    });
    Ok(report)
}

/// The environment of suites that take turns, once there is one.
#[derive(Default)]
struct Lane {
    environment: Option<Arc<Environment>>,
}

impl Lane {
    async fn end(&mut self, run: &Run) {
        if let Some(environment) = self.environment.take() {
            run.provider.discard((*environment).clone()).await;
        }
    }
}

impl Run {
    fn ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Whether nothing more is to begin.
    fn is_ending(&self) -> bool {
        self.options.cancel.is_cancelled() || self.options.stop.is_cancelled()
    }

    /// Nobody may be listening.
    fn tell(&self, event: RunEvent) {
        let _ = self.events.send(event);
    }

    /// Everything once.
    async fn round(
        self: &Arc<Self>,
        turns: &[PlannedSuite],
        parallel: &[PlannedSuite],
        kept: &mut Lane,
    ) -> Vec<SuiteReport> {
        // They are the most, as a rule: no other suite comes before them.
        let slot = if turns.is_empty() {
            None
        } else {
            self.slots.acquire().await.ok()
        };
        let mut beside = JoinSet::new();
        // Whoever gets a slot takes the next one: in which order tasks come to run is not
        // for us to say.
        let queue: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(parallel.to_vec().into()));
        for _ in parallel {
            let (run, queue) = (self.clone(), queue.clone());
            beside.spawn(async move {
                let _slot = run.slots.acquire().await;
                let next = queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let mut lane = Lane::default();
                let report = run.suites(next.as_slice(), &mut lane).await;
                lane.end(&run).await;
                report
            });
        }
        let mut reports = if turns.is_empty() {
            Vec::new()
        } else {
            self.suites(turns, kept).await
        };
        drop(slot);
        while let Some(ended) = beside.join_next().await {
            match ended {
                Ok(more) => reports.extend(more),
                Err(error) => tracing::error!(%error, "a suite ended early"),
            }
        }
        reports
    }

    /// Suites one after the other.
    async fn suites(&self, planned: &[PlannedSuite], lane: &mut Lane) -> Vec<SuiteReport> {
        let mut reports = Vec::new();
        let mut refused: Option<String> = None;
        for (i, one) in planned.iter().enumerate() {
            let started = Instant::now();
            let started_ms = self.ms();
            if self.options.stop.is_cancelled() {
                break;
            }
            let mut skipped = one.skipped.clone();
            if skipped.is_none() && lane.environment.is_none() && refused.is_none() {
                let waiting: Vec<String> = planned[i..]
                    .iter()
                    .filter(|p| p.skipped.is_none())
                    .map(|p| p.suite.name.clone())
                    .collect();
                match self.environment(waiting).await {
                    Ok(environment) => lane.environment = Some(Arc::new(environment)),
                    Err(why) => refused = Some(why),
                }
            }
            let error = refused.clone().filter(|_| skipped.is_none());
            if error.is_some() {
                skipped = Some("there is no environment to run it in".into());
            }
            let environment = lane.environment.as_ref().filter(|_| skipped.is_none());
            let mut tests = Vec::new();
            for &index in &one.tests {
                if self.options.stop.is_cancelled() {
                    break;
                }
                let report = match (environment, &skipped) {
                    (Some(environment), None) if !self.options.cancel.is_cancelled() => {
                        self.tell(RunEvent::TestStarted {
                            suite: one.suite.name.clone(),
                            test: one.suite.tests[index].name.clone(),
                        });
                        self.test(&one.suite, &one.suite.tests[index], environment)
                            .await
                    }
                    (_, reason) => self.skipped(
                        &one.suite,
                        index,
                        reason
                            .clone()
                            .unwrap_or_else(|| "the run was interrupted".into()),
                    ),
                };
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                self.tell(RunEvent::TestEnded {
                    suite: one.suite.name.clone(),
                    report: Box::new(report.clone()),
                    done,
                    total: self.total.load(Ordering::Relaxed),
                });
                tests.push(report);
            }
            if tests.is_empty() {
                break;
            }
            reports.push(SuiteReport {
                name: one.suite.name.clone(),
                file: one.suite.file.clone(),
                environment: environment.map_or(String::new(), |e| e.name.clone()),
                started_ms,
                ms: millis(started.elapsed()),
                tests,
                error,
            });
        }
        reports
    }

    async fn environment(&self, suites: Vec<String>) -> Result<Environment, String> {
        if self.options.cancel.is_cancelled() {
            return Err("the run was interrupted".into());
        }
        self.tell(RunEvent::Preparing { suites });
        let started = Instant::now();
        let made = tokio::select! {
            biased;
            made = self.provider.fresh() => made?,
            () = self.options.cancel.cancelled() => return Err("the run was interrupted".into()),
        };
        let _ = self.ready_ms.set(self.ms());
        self.tell(RunEvent::Ready {
            environment: made.name.clone(),
            ms: millis(started.elapsed()),
        });
        Ok(made)
    }

    fn skipped(&self, suite: &Suite, index: usize, reason: String) -> TestReport {
        let test = &suite.tests[index];
        TestReport {
            name: test.name.clone(),
            place: test.place.clone(),
            outcome: Outcome::Skipped,
            attempts: Vec::new(),
            reason: Some(reason),
            again: self.again(suite, &test.name),
        }
    }

    /// The command that runs a test again.
    fn again(&self, suite: &Suite, test: &str) -> String {
        let mut out = format!(
            "devenv test e2e --filter {}",
            quoted(&full_name(&suite.name, test))
        );
        let selection = &self.options.selection;
        if selection.target != "local" && !selection.target.is_empty() {
            out.push_str(&format!(" --target {}", quoted(&selection.target)));
        }
        if let Some(profile) = &selection.profile {
            out.push_str(&format!(" --profile {}", quoted(profile)));
        }
        out
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn has_failed(report: &SuiteReport) -> bool {
    report.error.is_some()
        || report
            .tests
            .iter()
            .any(|test| matches!(test.outcome, Outcome::Failed | Outcome::Missing))
}

/// Of several rounds the worst counts: the first failure, else the first that was flaky,
/// else the last.
fn merge(before: &mut SuiteReport, round: SuiteReport, number: u32) {
    let rank = |outcome: Outcome| match outcome {
        Outcome::Failed | Outcome::Missing => 2,
        Outcome::Flaky => 1,
        _ => 0,
    };
    before.ms += round.ms;
    before.error = before.error.take().or(round.error);
    for (before, mut now) in before.tests.iter_mut().zip(round.tests) {
        let (old, new) = (rank(before.outcome), rank(now.outcome));
        if new > old {
            now.reason = Some(format!("in round {number}"));
            *before = now;
        } else if new == old && old == 0 {
            *before = now;
        } else if before.reason.is_none() {
            before.reason = Some("in round 1".into());
        }
    }
}

#[cfg(test)]
mod tests;
