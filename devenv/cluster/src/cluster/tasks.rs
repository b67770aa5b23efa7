//! Everything that runs, tracked: nothing ends unnoticed.

use std::error::Error;
use std::future::Future;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// A part of the cluster that ended although nobody stopped it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster's {task} ended: {why}; see supervisor.log, then `devenv down` and `devenv up`"
)]
pub struct TaskFailed {
    /// Which part.
    pub task: &'static str,
    /// Why, with its causes.
    pub why: String,
}

/// The tasks of one stage: they are stopped together.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failed_tx: mpsc::Sender<TaskFailed>,
}

impl Tasks {
    /// Failures go to `failed_tx`.
    pub(super) fn new(failed_tx: mpsc::Sender<TaskFailed>) -> Tasks {
        Tasks {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            failed_tx,
        }
    }

    /// What ends them.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The tracker, for tasks that may end at any time (connections).
    pub(super) fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Runs a task that goes on until it is stopped. Its end before that, by an error, a panic or
    /// without a word, is logged and reported.
    pub(super) fn spawn<E: Error + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failed_tx) = (self.stop.clone(), self.failed_tx.clone());
        let inner = tokio::spawn(task);
        self.tracker.spawn(async move {
            let why = match inner.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => "it stopped by itself".to_owned(),
                Ok(Err(error)) => with_causes(&error),
                Err(panic) => with_causes(&panic),
            };
            error!(task = name, why, "a part of the cluster failed");
            // A full channel already tells that the cluster is failing.
            let _ = failed_tx.try_send(TaskFailed { task: name, why });
        });
    }

    /// Stops them all and waits for their end.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_a_panic_and_a_silent_end_are_reported() {
        let (failed_tx, mut failed_rx) = mpsc::channel(4);
        let tasks = Tasks::new(failed_tx);
        let stop = tasks.stop_token();
        tasks.spawn("good", async move {
            stop.cancelled().await;
            Ok::<(), std::io::Error>(())
        });
        tasks.spawn("error", async { Err(std::io::Error::other("boom")) });
        assert_eq!(
            failed_rx.recv().await.expect("told"),
            TaskFailed {
                task: "error",
                why: "boom".into()
            }
        );
        tasks.spawn("silent", async { Ok::<(), std::io::Error>(()) });
        assert_eq!(failed_rx.recv().await.expect("told").task, "silent");
        tasks.spawn("panic", async {
            assert_eq!(1 + 1, 3, "on purpose");
            Ok::<(), std::io::Error>(())
        });
        assert!(failed_rx.recv().await.expect("told").why.contains("panic"));
        tasks.stop().await;
        assert!(
            failed_rx.try_recv().is_err(),
            "the good one was stopped, which is no failure"
        );
    }
}
