//! What happens, as data: the terminal, `-o json` and tests read the same events.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use devenv_platform::Endpoints;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::reload::Reload;

/// A stage of `up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The embedded cluster: namespaces, network, API.
    Cluster,
    /// Objects that workloads refer to: namespaces, configuration, services.
    Apply,
    /// Installing and building images from source.
    Build,
    /// The database server.
    Database,
    /// The schema.
    Migrate,
    /// Workloads: applied, and waited for.
    Workloads,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A stage began.
    StepStarted {
        /// Which.
        step: Step,
    },
    /// A stage is done.
    StepDone {
        /// Which.
        step: Step,
        /// How long it took, in milliseconds.
        ms: u64,
        /// What it made, in a few words.
        detail: String,
    },
    /// A line that a build printed.
    Output {
        /// The image or command.
        source: String,
        /// The line, as it came.
        line: String,
    },
    /// Something people should know that stops nothing.
    Warning {
        /// What.
        message: String,
    },
    /// A workload's readiness changed.
    Workload {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Pods that are ready.
        ready: i32,
        /// Pods that are wanted.
        wanted: i32,
        /// Why it isn't ready, where a pod tells.
        reason: Option<String>,
    },
    /// A node of the cluster stopped to be ready, or is again.
    Node {
        /// Its name.
        name: String,
        /// Whether it is ready now.
        ready: bool,
        /// Why it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// Everything is ready.
    Ready {
        /// Milliseconds since the start of `up`.
        ms: u64,
        /// Where it is.
        endpoints: Box<Endpoints>,
    },
    /// `up` failed; nothing of it runs any more.
    Failed {
        /// Why.
        report: Report,
    },
    /// A new version of a workload begins to take the place of the one that serves; a
    /// [`Event::Reload`] of the same workload tells what came of it.
    Rolling {
        /// Such as `Deployment api1`.
        workload: String,
    },
    /// A save was answered, in one way or another.
    Reload {
        /// How.
        reload: Box<Reload>,
    },
    /// The environment is going down.
    Stopping,
}

/// An error as it crosses from one process to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What failed.
    pub message: String,
    /// Why, the outermost cause first.
    pub causes: Vec<String>,
    /// What mends it.
    pub help: Option<String>,
    /// What the failed program printed, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The exit code that goes with it.
    pub exit_code: u8,
}

impl Report {
    /// An error with its chain of causes.
    pub fn of(error: &dyn std::error::Error, help: Option<String>, exit_code: u8) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries print their source in their own message as well.
            if !causes.last().is_some_and(|c: &String| c.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        Self {
            message: error.to_string(),
            causes,
            help,
            output: None,
            exit_code,
        }
    }
}

/// How many events a late subscriber still sees.
const HISTORY: usize = 512;

/// The stream of events: whoever subscribes gets what was, then what comes.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    history: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(HISTORY);
        Self {
            inner: Arc::new(Inner {
                history: Mutex::default(),
                sender,
            }),
        }
    }
}

impl Bus {
    /// Tells everybody.
    pub fn emit(&self, event: Event) {
        let event = Arc::new(event);
        // Kept and sent under one lock: a subscriber sees each event once.
        let mut history = self
            .inner
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Nobody listening is no error.
        let _ = self.inner.sender.send(event);
    }

    /// The events so far and a receiver of those after them. A receiver that lags
    /// behind subscribes again.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let history = self
            .inner
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (
            history.iter().cloned().collect(),
            self.inner.sender.subscribe(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(n: usize) -> Event {
        Event::Warning {
            message: n.to_string(),
        }
    }

    #[tokio::test]
    async fn a_subscriber_sees_each_event_once_and_in_order() {
        let bus = Bus::default();
        for n in 0..3 {
            bus.emit(warning(n));
        }
        let (past, mut rx) = bus.subscribe();
        bus.emit(warning(3));
        let mut seen: Vec<Event> = past.iter().map(|e| (**e).clone()).collect();
        seen.push((*rx.recv().await.unwrap()).clone());
        assert_eq!(seen, (0..4).map(warning).collect::<Vec<_>>());
        assert!(rx.is_empty());
    }

    #[test]
    fn history_is_bounded() {
        let bus = Bus::default();
        for n in 0..2 * HISTORY {
            bus.emit(warning(n));
        }
        let (past, _rx) = bus.subscribe();
        assert_eq!(past.len(), HISTORY);
        assert_eq!(*past[0], warning(HISTORY));
    }

    #[test]
    fn events_travel_as_json() {
        let e = Event::StepDone {
            step: Step::Database,
            ms: 310,
            detail: "MariaDB".into(),
        };
        let text = serde_json::to_string(&e).unwrap();
        assert_eq!(
            text,
            r#"{"event":"step-done","step":"database","ms":310,"detail":"MariaDB"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), e);
    }
}
