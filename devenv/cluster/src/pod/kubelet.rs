//! The kubelet: gives each Pod of this node to a task and tells it when to look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::instance::{Control, Instance, Shared};
use crate::controllers::events::EventType;
use crate::controllers::node;
use crate::kinds;
use crate::store::{Change, Object, StoreError, WatchEvent};

/// Label and value of the pods that are stopped last: others need them while they end.
pub const ROLE_LABEL: &str = "devenv.dev/role";
const DATABASE: &str = "database";

/// What a kubelet can be told.
#[derive(Debug)]
pub enum Command {
    /// End all pods, the databases after the others; takes on no new ones from then on.
    Stop {
        /// How long each of the two groups may take before it is killed.
        grace: Duration,
        /// Told when nothing runs any more.
        done_tx: oneshot::Sender<()>,
    },
}

/// A pod's task, as seen from here.
#[derive(Debug)]
struct Handle {
    task: Id,
    namespace: String,
    name: String,
    database: bool,
    control_tx: mpsc::Sender<Control>,
}

impl Handle {
    /// Asks the task to look again. A full channel means that it will anyway.
    fn wake(&self) {
        let _ = self.control_tx.try_send(Control::Wake);
    }
}

/// The kubelet's state.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    command_rx: mpsc::Receiver<Command>,
    /// By uid: a pod of the same name may come while the old one still ends.
    pods: HashMap<String, Handle>,
    tasks: JoinSet<()>,
    stopping: Option<Stopping>,
}

#[derive(Debug)]
struct Stopping {
    grace: Duration,
    done_tx: Option<oneshot::Sender<()>>,
    databases_told: bool,
}

impl Kubelet {
    /// A kubelet that takes its commands from `command_rx`.
    pub fn new(shared: Arc<Shared>, command_rx: mpsc::Receiver<Command>) -> Kubelet {
        Kubelet {
            shared,
            command_rx,
            pods: HashMap::new(),
            tasks: JoinSet::new(),
            stopping: None,
        }
    }

    /// Runs until `stop`, which kills what still runs.
    ///
    /// # Errors
    /// When the store cannot be watched.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let watched = [&kinds::POD, &kinds::CONFIG_MAP, &kinds::SECRET];
        let mut watch = self.shared.store.watch(&watched, None)?;
        self.list();
        loop {
            self.go_on_stopping();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(command) = self.command_rx.recv() => self.take(command),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                event = watch.next() => match event {
                    Ok(event) => self.see(&event),
                    Err(StoreError::Gone { .. }) => {
                        debug!("the kubelet lagged behind, listing again");
                        watch = self.shared.store.watch(&watched, None)?;
                        self.list();
                    }
                    Err(StoreError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Takes on what is new and wakes all others: nothing is missed after a lag.
    fn list(&mut self) {
        for object in self.shared.store.list(&kinds::POD, None).0 {
            self.take_on(&object);
        }
        for handle in self.pods.values() {
            handle.wake();
        }
    }

    fn see(&mut self, event: &WatchEvent) {
        let object = &event.object;
        if *object.kind() == kinds::POD {
            match self.pods.get(object.uid()) {
                Some(handle) if matters(event) => handle.wake(),
                None if event.change != Change::Deleted => self.take_on(object),
                _ => {}
            }
        } else {
            // A pod may wait for it.
            for handle in self
                .pods
                .values()
                .filter(|h| h.namespace == object.namespace())
            {
                handle.wake();
            }
        }
    }

    fn take_on(&mut self, object: &Arc<Object>) {
        let elsewhere = object.value()["spec"]["nodeName"]
            .as_str()
            .is_some_and(|n| !n.is_empty() && n != node::NAME);
        if self.stopping.is_some() || elsewhere || self.pods.contains_key(object.uid()) {
            return;
        }
        let (control_tx, control_rx) = mpsc::channel(4);
        match Instance::new(self.shared.clone(), object.clone(), control_rx) {
            Ok(instance) => {
                let task = self.tasks.spawn(instance.run()).id();
                let handle = Handle {
                    task,
                    namespace: object.namespace().to_owned(),
                    name: object.name().to_owned(),
                    database: object.value()["metadata"]["labels"][ROLE_LABEL] == DATABASE,
                    control_tx,
                };
                self.pods.insert(object.uid().to_owned(), handle);
            }
            Err(error) => {
                let source = std::error::Error::source(&error)
                    .map_or_else(String::new, |s| format!(": {s}"));
                let message = format!("{error}{source}");
                self.shared.recorder.record(
                    object,
                    "kubelet",
                    EventType::Warning,
                    "FailedValidation",
                    &message,
                );
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let uid = self
            .pods
            .iter()
            .find(|(_, h)| h.task == id)
            .map(|(uid, _)| uid.clone());
        let Some(handle) = uid.and_then(|uid| self.pods.remove(&uid)) else {
            return;
        };
        let Err(panic) = ended else {
            return;
        };
        // Its sandbox went with it. The pod is taken on anew, so that its containers come back.
        error!(
            pod = handle.name,
            error = &panic as &dyn std::error::Error,
            "the task of a pod failed; it is started again"
        );
        if let Some(object) = self
            .shared
            .store
            .get(&kinds::POD, &handle.namespace, &handle.name)
        {
            self.shared.recorder.record(
                &object,
                "kubelet",
                EventType::Warning,
                "InternalError",
                "devenv's task for this pod failed and was started again; see supervisor.log",
            );
            self.take_on(&object);
        }
    }

    fn take(&mut self, command: Command) {
        let Command::Stop { grace, done_tx } = command;
        if self.stopping.is_some() {
            warn!("told to stop twice");
            return;
        }
        self.stopping = Some(Stopping {
            grace,
            done_tx: Some(done_tx),
            databases_told: false,
        });
        self.tell_stop(false, grace);
    }

    /// The databases are told when all others have ended; who asked is told when they have too.
    fn go_on_stopping(&mut self) {
        let workloads = self.pods.values().any(|h| !h.database);
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if !workloads && !stopping.databases_told {
            stopping.databases_told = true;
            let grace = stopping.grace;
            self.tell_stop(true, grace);
        }
        if self.pods.is_empty()
            && let Some(stopping) = &mut self.stopping
            && let Some(done_tx) = stopping.done_tx.take()
        {
            let _ = done_tx.send(());
        }
    }

    fn tell_stop(&mut self, databases: bool, grace: Duration) {
        for handle in self.pods.values().filter(|h| h.database == databases) {
            let control_tx = handle.control_tx.clone();
            // The channel may be full of wake-ups: the word to stop waits its turn.
            self.tasks.spawn(async move {
                // A task that is gone needs no word.
                let _ = control_tx.send(Control::Stop(grace)).await;
            });
        }
    }
}

/// Whether a pod's task must look at a change: its own status writes are no news to it.
fn matters(event: &WatchEvent) -> bool {
    let Some(before) = &event.previous else {
        return true;
    };
    let (a, b) = (before.value(), event.object.value());
    event.change == Change::Deleted
        || a["spec"] != b["spec"]
        || a["metadata"]["deletionTimestamp"] != b["metadata"]["deletionTimestamp"]
        || a["metadata"]["deletionGracePeriodSeconds"]
            != b["metadata"]["deletionGracePeriodSeconds"]
        || a["metadata"]["labels"] != b["metadata"]["labels"]
        || a["metadata"]["annotations"] != b["metadata"]["annotations"]
}
