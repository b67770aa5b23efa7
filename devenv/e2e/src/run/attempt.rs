//! One test: its attempts, their steps, asking again, and the end of its time.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Run, logs, millis};
use crate::{
    environment::Environment,
    outcome::{Attempt, Mismatch, Outcome, RunEvent, StepReport, TestReport},
    redact::Redactor,
    step::{self, Context, Sessions, StepResult, Stopped},
    suite::{Step, Suite, Test},
    vars::Vars,
};

/// What closing a test's sessions may take: a fault must be lifted, a browser must end.
const CLOSING: Duration = Duration::from_secs(30);
const LOGS: Duration = Duration::from_secs(5);
const PICTURES: Duration = Duration::from_secs(10);

impl Run {
    /// Runs a test until it passes or has no more attempts.
    pub(super) async fn test(
        &self,
        suite: &Suite,
        test: &Test,
        environment: &Arc<Environment>,
    ) -> TestReport {
        let mut attempts: Vec<Attempt> = Vec::new();
        let all = test
            .retries
            .unwrap_or(self.options.retries)
            .saturating_add(1);
        let mut number = 0;
        let mut outcome = Outcome::Passed;
        while number < all {
            number += 1;
            let attempt = self.attempt(suite, test, environment, number).await;
            outcome = attempt.steps.last().map_or(Outcome::Passed, |s| s.outcome);
            let last = attempt.steps.last().cloned();
            attempts.push(attempt);
            if outcome == Outcome::Passed && number > 1 {
                outcome = Outcome::Flaky;
            }
            if outcome != Outcome::Failed || self.options.cancel.is_cancelled() {
                break;
            }
            if let Some(step) = last
                && number < all
            {
                self.tell(RunEvent::Retry {
                    suite: suite.name.clone(),
                    test: test.name.clone(),
                    attempt: number,
                    step: Box::new(step),
                });
            }
        }
        TestReport {
            name: test.name.clone(),
            place: test.place.clone(),
            outcome,
            attempts,
            reason: None,
            again: self.again(suite, &test.name),
        }
    }

    async fn attempt(
        &self,
        suite: &Suite,
        test: &Test,
        environment: &Arc<Environment>,
        number: u32,
    ) -> Attempt {
        let (started, started_ms) = (Instant::now(), self.ms());
        let folder = suite.root.join(&suite.file);
        let mut context = Context {
            vars: Vars::new(suite, environment, &self.options.id, &self.options.run_dir),
            environment: environment.clone(),
            root: suite.root.clone(),
            folder: folder.parent().unwrap_or(&suite.root).to_owned(),
            run_dir: self.options.run_dir.clone(),
            label: step::file_safe(&format!("{}.{}.{number}", suite.name, test.name)),
            deadline: started + suite.timeout,
            sessions: Sessions::default(),
            redact: Redactor::of_database(environment.database.as_deref()),
            http: self.http.clone(),
        };
        let mut steps = Vec::new();
        for step in &test.steps {
            let report = self.step(step, suite.timeout, &mut context).await;
            let passed = report.outcome == Outcome::Passed;
            steps.push(report);
            if !passed {
                break;
            }
        }
        if timeout(CLOSING, context.sessions.close()).await.is_err() {
            tracing::warn!(test = %test.name, "what the test left open could not be ended in time");
        }
        Attempt {
            started_ms,
            ms: millis(started.elapsed()),
            steps,
        }
    }

    /// Runs a step until it is as expected, its polling is over, the test's time is up,
    /// or the run is cancelled.
    async fn step(&self, step: &Step, limit: Duration, context: &mut Context) -> StepReport {
        let (started, started_ms) = (Instant::now(), self.ms());
        let since = jiff::Timestamp::now();
        let deadline = context.deadline;
        let mut last = StepResult::default();
        let ended = {
            let asked = AssertUnwindSafe(ask(step, context, &mut last)).catch_unwind();
            tokio::select! {
                biased;
                () = self.options.cancel.cancelled() => Ended::Interrupted,
                ended = timeout_at(deadline, asked) => match ended {
                    Ok(Ok(())) => Ended::Asked,
                    Ok(Err(panic)) => Ended::Panicked(words(panic.as_ref())),
                    Err(_) => Ended::TimedOut,
                },
            }
        };
        let cut = match ended {
            Ended::Asked => None,
            Ended::Interrupted => Some(("run", "its end".to_owned(), "interrupted".to_owned())),
            Ended::TimedOut => Some((
                "test",
                format!("done within {}", crate::suite::value::Time(limit)),
                "its time was up in this step".to_owned(),
            )),
            Ended::Panicked(why) => {
                Some(("step", "its end".to_owned(), format!("panicked: {why}")))
            }
        };
        if let Some((what, expected, got)) = cut {
            last.stopped = None;
            last.mismatches.push(Mismatch {
                what: what.into(),
                expected,
                got,
            });
        }
        let ms = millis(started.elapsed());
        self.report(step, last, context, since, (started_ms, ms))
            .await
    }

    async fn report(
        &self,
        step: &Step,
        mut result: StepResult,
        context: &mut Context,
        since: jiff::Timestamp,
        (started_ms, ms): (u64, u64),
    ) -> StepReport {
        let outcome = result.outcome();
        if let Some(Stopped::Missing(why) | Stopped::Unsupported(why)) = &result.stopped {
            result.mismatches.push(Mismatch {
                what: step.action.kind().into(),
                expected: "a step that can be run".into(),
                got: why.clone(),
            });
        }
        let mut logs = Default::default();
        if outcome == Outcome::Failed {
            let printed = logs::since(&context.environment, since);
            let pictures = context.sessions.pictures(&context.run_dir, &context.label);
            let (printed, pictures) =
                tokio::join!(timeout(LOGS, printed), timeout(PICTURES, pictures));
            logs = printed.unwrap_or_default();
            result.screenshots.extend(pictures.unwrap_or_default());
        }
        let redact = &context.redact;
        for mismatch in &mut result.mismatches {
            redact.apply(&mut mismatch.what);
            redact.apply(&mut mismatch.expected);
            redact.apply(&mut mismatch.got);
        }
        for line in logs.values_mut().flatten() {
            redact.apply(line);
        }
        StepReport {
            kind: step.action.kind().into(),
            name: redact.text(&step::describe(step)),
            place: step.place.clone(),
            outcome,
            started_ms,
            ms,
            mismatches: result.mismatches,
            seen: result.seen.map(|seen| redact.text(&seen)),
            logs,
            screenshots: result.screenshots,
            split: result.split,
        }
    }
}

enum Ended {
    Asked,
    Interrupted,
    TimedOut,
    Panicked(String),
}

/// Asks once, or until it is as expected. `last` is what came last, also for whoever
/// stops waiting.
async fn ask(step: &Step, context: &mut Context, last: &mut StepResult) {
    let Some(poll) = step.poll else {
        *last = step::run(step, context).await;
        return;
    };
    let end = Instant::now() + poll.within.0;
    loop {
        // One that hangs must not outlast the polling; what came before it is shown.
        match timeout_at(end, step::run(step, context)).await {
            Ok(result) => *last = result,
            Err(_) if last.mismatches.is_empty() => {
                *last =
                    StepResult::failed("answer", format!("one within {}", poll.within), "none yet");
            }
            Err(_) => {}
        }
        let again = last.outcome() == Outcome::Failed && Instant::now() + poll.every.0 < end;
        if !again {
            break;
        }
        sleep(poll.every.0).await;
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".into())
}
