//! Nodes that stop to be ready while the system is up: told once, as a trouble until they are
//! ready again.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use devenv_platform::{NodeState, NodeTrouble};
use futures_util::StreamExt;
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc::UnboundedSender,
    },
    task::JoinHandle,
};

use crate::{
    event::{Event, Report},
    live::Live,
};

/// The nodes that are not ready now, by name.
#[derive(Debug, Default)]
pub(crate) struct NotReady(Mutex<BTreeMap<String, NodeTrouble>>);

impl NotReady {
    /// As the events that told of them.
    pub fn events(&self) -> Vec<Event> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = |(name, trouble): (&String, &NodeTrouble)| event(name, Some(trouble));
        all.iter().map(event).collect()
    }

    fn take(&self, state: &NodeState) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.trouble {
            Some(trouble) => all.insert(state.name.clone(), trouble.clone()),
            None => all.remove(&state.name),
        };
    }
}

fn event(name: &str, trouble: Option<&NodeTrouble>) -> Event {
    Event::Node {
        name: name.to_owned(),
        ready: trouble.is_none(),
        reason: trouble.map(|t| t.reason.clone()),
        help: trouble.map(|t| t.help.clone()),
    }
}

/// Follows the nodes of the system's target until it is stopped.
#[derive(Debug)]
pub(crate) struct Follower(JoinHandle<()>);

impl Follower {
    pub fn start(live: &Arc<Live>) -> Self {
        let mut states = live.target.nodes();
        // Whoever ends the system ends this first; it must not keep it.
        let weak = Arc::downgrade(live);
        Self(tokio::spawn(async move {
            while let Some(state) = states.next().await {
                let Some(live) = weak.upgrade() else { return };
                tell(&live, &state);
            }
        }))
    }

    /// When this returns, nothing of it holds the system.
    pub async fn stop(mut self) {
        self.0.abort();
        // How it ended does not count.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn tell(live: &Live, state: &NodeState) {
    live.not_ready.take(state);
    let what = format!("Node {}", state.name);
    match &state.trouble {
        Some(trouble) => {
            tracing::warn!(node = state.name, trouble.reason, "a node is not ready");
            let report = Report {
                message: format!("it is not ready: {}", trouble.reason),
                causes: Vec::new(),
                help: Some(trouble.help.clone()),
                output: None,
                exit_code: 1,
            };
            live.journal.trouble(&what, &report);
        }
        None => {
            tracing::info!(node = state.name, "a node is ready again");
            live.journal.mended(&what);
        }
    }
    live.bus.emit(event(&state.name, state.trouble.as_ref()));
}

/// Does `work`, and passes on what is told of nodes meanwhile: it may wait for one.
pub(crate) async fn told_meanwhile<T>(
    events: &mut Receiver<Arc<Event>>,
    event_tx: &UnboundedSender<Event>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            event = events.recv() => match event {
                Ok(event) => pass_on(&event, event_tx),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return work.await,
            },
        }
    }
}

/// Passes an event on if it tells of a node.
pub(crate) fn pass_on(event: &Event, event_tx: &UnboundedSender<Event>) {
    if matches!(event, Event::Node { .. }) {
        // Whoever asked may have gone.
        let _ = event_tx.send(event.clone());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::event::Bus;

    fn away() -> NodeState {
        NodeState {
            name: "n".into(),
            trouble: Some(NodeTrouble {
                reason: "gone".into(),
                help: "look".into(),
            }),
        }
    }

    #[test]
    fn a_node_that_is_ready_again_is_no_longer_told_of() {
        let nodes = NotReady::default();
        nodes.take(&away());
        let told = Event::Node {
            name: "n".into(),
            ready: false,
            reason: Some("gone".into()),
            help: Some("look".into()),
        };
        assert_eq!(nodes.events(), [told]);
        nodes.take(&NodeState {
            trouble: None,
            ..away()
        });
        assert_eq!(nodes.events(), []);
    }

    #[tokio::test]
    async fn who_waits_hears_of_nodes_and_of_nothing_else() {
        let bus = Bus::default();
        let (_, mut events) = bus.subscribe();
        let (event_tx, mut event_rx) = mpsc::unbounded_channel();
        bus.emit(Event::Stopping);
        bus.emit(event("n", None));
        let heard = async { event_rx.recv().await };
        let heard = told_meanwhile(&mut events, &event_tx, heard).await;
        assert_eq!(heard, Some(event("n", None)));
    }
}
