//! Nodes that stop to be ready while the system is up, and those that are again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep_until};

use super::api;
use crate::target::{NodeState, NodeTrouble};

/// A kubelet that is started again says for a moment that it is not ready.
const FLICKER: Duration = Duration::from_secs(5);

/// Follows the nodes of the cluster; never ends.
pub fn changes(client: &Client) -> BoxStream<'static, NodeState> {
    let all = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
    let events = all.default_backoff().boxed();
    stream::unfold((events, Seen::default()), |(mut events, mut seen)| async {
        loop {
            if let Some(change) = seen.due(Instant::now()) {
                return Some((change, (events, seen)));
            }
            let next = seen.next();
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                () = due => continue,
                event = events.next() => event?,
            };
            let change = match event {
                Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                    seen.take(node.name_any(), api::state(&node, None), Instant::now())
                }
                Ok(watcher::Event::Delete(node)) => {
                    let gone = Err("it was removed from the cluster".to_owned());
                    seen.take(node.name_any(), gone, Instant::now())
                }
                // An API that is away says nothing of nodes; the watch goes on by itself.
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => None,
            };
            if let Some(change) = change {
                return Some((change, (events, seen)));
            }
        }
    })
    .boxed()
}

/// What is known of nodes that are not ready.
#[derive(Debug, Default)]
struct Seen {
    /// Those that were ready at some time: of others `up` tells.
    been: BTreeSet<String>,
    /// By name: since when, and why.
    late: BTreeMap<String, (Instant, String)>,
    told: BTreeSet<String>,
}

impl Seen {
    fn take(&mut self, name: String, state: Result<(), String>, now: Instant) -> Option<NodeState> {
        match state {
            Ok(()) => {
                self.late.remove(&name);
                self.been.insert(name.clone());
                self.told.remove(&name).then_some(NodeState {
                    name,
                    trouble: None,
                })
            }
            Err(_) if !self.been.contains(&name) => None,
            Err(reason) => {
                let known = self.late.entry(name).or_insert((now, String::new()));
                known.1 = reason;
                None
            }
        }
    }

    /// The next that has been away for long enough, and when that was.
    fn first(&self) -> Option<(Instant, &String, &String)> {
        let untold = self
            .late
            .iter()
            .filter(|(name, _)| !self.told.contains(*name));
        let due = untold.map(|(name, (since, reason))| (*since + FLICKER, name, reason));
        due.min_by_key(|(at, ..)| *at)
    }

    fn next(&self) -> Option<Instant> {
        self.first().map(|(at, ..)| at)
    }

    fn due(&mut self, now: Instant) -> Option<NodeState> {
        let (_, name, reason) = self.first().filter(|(at, ..)| *at <= now)?;
        let state = NodeState {
            name: name.clone(),
            trouble: Some(NodeTrouble {
                reason: reason.trim_end_matches('.').to_owned(),
                help: format!(
                    "docker exec {name} journalctl -u kubelet -n 50 says why; until it is ready \
                     again, Services send its pods nothing"
                ),
            }),
        };
        self.told.insert(state.name.clone());
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_is_told_once_and_when_it_is_ready_again() {
        let mut seen = Seen::default();
        let begin = Instant::now();
        let node = || "n".to_owned();
        let away = || Err("Kubelet stopped posting node status.".to_owned());
        // It sets itself up.
        assert_eq!(seen.take(node(), away(), begin), None);
        assert_eq!(seen.next(), None);
        assert_eq!(seen.take(node(), Ok(()), begin), None);
        assert_eq!(seen.next(), None);
        assert_eq!(seen.take(node(), away(), begin), None);
        assert_eq!(seen.next(), Some(begin + FLICKER));
        assert_eq!(seen.due(begin + FLICKER - SECOND), None);
        // It says so again and again, which is nothing new.
        assert_eq!(seen.take(node(), away(), begin + SECOND), None);
        let told = seen.due(begin + FLICKER).unwrap();
        let trouble = told.trouble.unwrap();
        assert_eq!(trouble.reason, "Kubelet stopped posting node status");
        assert!(trouble.help.contains("docker exec n journalctl"));
        assert_eq!(seen.due(begin + 2 * FLICKER), None);
        assert_eq!(seen.next(), None);
        let ready = seen.take(node(), Ok(()), begin + 3 * FLICKER).unwrap();
        assert_eq!((ready.name.as_str(), ready.trouble), ("n", None));
    }

    #[test]
    fn what_is_over_at_once_is_not_told() {
        let mut seen = Seen::default();
        let begin = Instant::now();
        let away = Err("container runtime is down".to_owned());
        assert_eq!(seen.take("n".to_owned(), away, begin), None);
        assert_eq!(seen.take("n".to_owned(), Ok(()), begin + SECOND), None);
        assert_eq!(seen.due(begin + 2 * FLICKER), None);
    }
}
