//! A table in force: the routes plus what must survive their replacement.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, Method};

use super::stats::{Counters, Registry};
use crate::table::{Decision, Splitter, Table, Upstream, UpstreamId, UpstreamKey, mix};

/// Each worker holds its own `Arc<Live>`, so that counting references costs no
/// cache line shared between cores.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub table: Arc<Table>,
    states: Arc<[State]>,
}

/// What belongs to an upstream but outlives a table.
#[derive(Debug)]
struct State {
    counters: Arc<Counters>,
    /// Round robin's position.
    cursor: Arc<AtomicUsize>,
    /// Counts the changes of the endpoints.
    version: u64,
    /// Whether it ever had endpoints.
    served: bool,
    /// Deals between this upstream and its canary.
    splitter: Option<Arc<Splitter>>,
}

/// What an upstream was in the table before.
struct Before<'a> {
    state: &'a State,
    endpoints: &'a [SocketAddr],
    canary: Option<&'a UpstreamKey>,
}

impl Live {
    /// Puts `table` in force after `old`: unchanged upstreams keep their place
    /// in the round robin and in the block of the split, so that shares stay
    /// exact across changes of endpoints.
    pub fn new(table: Table, old: Option<&Live>, registry: &Registry, seed: u64) -> Self {
        let before: HashMap<&UpstreamKey, Before<'_>> = old
            .into_iter()
            .flat_map(|old| {
                let upstreams = old.table.upstreams.iter();
                upstreams.zip(old.states.iter()).map(|(upstream, state)| {
                    let before = Before {
                        state,
                        endpoints: &upstream.endpoints,
                        canary: upstream.alternative.map(|id| &old.table.upstream(id).key),
                    };
                    (&upstream.key, before)
                })
            })
            .collect();
        let states = table
            .upstreams
            .iter()
            .map(|upstream| {
                let key = &upstream.key;
                let kept = before.get(key);
                let canary = upstream.alternative.map(|id| table.upstream(id));
                let splitter = canary.and_then(|canary| {
                    let share = canary.policy.as_ref()?.share;
                    kept.filter(|kept| kept.canary == Some(&canary.key))
                        .and_then(|kept| kept.state.splitter.clone())
                        .filter(|splitter| splitter.deals(share))
                        .or_else(|| Splitter::new(share, seed ^ digest(key)).map(Arc::new))
                });
                State {
                    counters: registry.of(&key.namespace, &key.service),
                    cursor: kept.map_or_else(Arc::default, |kept| kept.state.cursor.clone()),
                    version: kept.map_or(0, |kept| {
                        kept.state.version + u64::from(kept.endpoints != upstream.endpoints)
                    }),
                    served: kept.is_some_and(|kept| kept.state.served)
                        || !upstream.endpoints.is_empty(),
                    splitter,
                }
            })
            .collect();
        Self {
            table: Arc::new(table),
            states,
        }
    }

    /// Which service takes a request for `main`; `None` if main has no
    /// endpoints, which is 503 whatever its canary has.
    ///
    /// A service whose endpoints are on the way counts as having them, so that
    /// the split stays exact while pods are replaced. A canary that never had
    /// any is an exception: until it serves, all is main's, as in ingress-nginx.
    pub fn choose(
        &self,
        main: UpstreamId,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<UpstreamId> {
        let upstream = self.table.upstream(main);
        if upstream.endpoints.is_empty() && !upstream.coming {
            return None;
        }
        let Some(id) = upstream.alternative else {
            return Some(main);
        };
        let canary = self.table.upstream(id);
        let Some(policy) = canary
            .policy
            .as_ref()
            .filter(|_| !canary.endpoints.is_empty() || canary.coming && self.states[id.0].served)
        else {
            return Some(main);
        };
        let to_canary = match policy.decide(headers) {
            Decision::Canary => true,
            Decision::Main => false,
            Decision::Weight => self.states[main.0]
                .splitter
                .as_ref()
                .is_some_and(|splitter| splitter.pick(method)),
        };
        Some(if to_canary { id } else { main })
    }

    /// The next endpoint of a service, round robin.
    pub fn next_endpoint(&self, id: UpstreamId) -> Option<SocketAddr> {
        match self.table.upstream(id).endpoints.as_slice() {
            [] => None,
            [only] => Some(*only),
            many => {
                let turn = self.states[id.0].cursor.fetch_add(1, Ordering::Relaxed);
                Some(many[turn % many.len()])
            }
        }
    }

    pub fn counters(&self, id: UpstreamId) -> &Counters {
        &self.states[id.0].counters
    }

    /// The upstream of that name, if this table has it.
    pub fn find(&self, key: &UpstreamKey) -> Option<UpstreamId> {
        self.table
            .upstreams
            .iter()
            .position(|upstream| upstream.key == *key)
            .map(UpstreamId)
    }

    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        self.table.upstream(id)
    }

    /// Every address a connection may be kept for.
    pub fn addresses(&self) -> HashSet<SocketAddr> {
        self.table
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.endpoints.iter().copied())
            .collect()
    }
}

/// The service that takes a request, followed by its name from table to table:
/// the pick is kept, but its endpoints are those of the moment.
#[derive(Debug)]
pub(super) struct Chosen {
    pub live: Arc<Live>,
    pub id: UpstreamId,
}

impl Chosen {
    /// Goes over to the table `now`; false if it has no such service, whose
    /// last state is then kept.
    pub fn follow(&mut self, now: Arc<Live>) -> bool {
        if Arc::ptr_eq(&self.live, &now) {
            return true;
        }
        let Some(id) = now.find(self.key()) else {
            return false;
        };
        self.live = now;
        self.id = id;
        true
    }

    pub fn key(&self) -> &UpstreamKey {
        &self.live.upstream(self.id).key
    }

    pub fn endpoints(&self) -> &[SocketAddr] {
        &self.live.upstream(self.id).endpoints
    }

    pub fn coming(&self) -> bool {
        self.live.upstream(self.id).coming
    }

    /// Another number after each change of its endpoints.
    pub fn version(&self) -> u64 {
        self.live.states[self.id.0].version
    }
}

/// A stable number from an upstream's name, so that two splits of one seed do
/// not run in step.
fn digest(key: &UpstreamKey) -> u64 {
    [&key.namespace, &key.service, &key.port]
        .into_iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0, |sum, byte| mix(sum ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{CanaryPolicy, Share};

    fn pair(weight: i64, endpoints: u8, canary: &str) -> Table {
        let upstream = |service: &str, n: u8| Upstream {
            key: UpstreamKey {
                namespace: "n".into(),
                service: service.into(),
                port: "80".into(),
            },
            endpoints: (1..=n)
                .map(|i| SocketAddr::from(([10, 0, 0, i], 80)))
                .collect(),
            coming: false,
            alternative: None,
            policy: None,
        };
        let mut main = upstream("main", endpoints);
        main.alternative = Some(UpstreamId(1));
        let mut other = upstream(canary, 1);
        other.policy = Some(CanaryPolicy {
            share: Share::new(weight, 100),
            ..CanaryPolicy::default()
        });
        Table {
            upstreams: vec![main, other],
            ..Table::default()
        }
    }

    fn picks(live: &Live, n: usize) -> usize {
        (0..n)
            .filter(|_| {
                live.choose(UpstreamId(0), &Method::POST, &HeaderMap::new()) == Some(UpstreamId(1))
            })
            .count()
    }

    /// 37 % over 100 requests, with the table replaced after every request.
    #[test]
    fn a_new_table_keeps_the_block_of_an_unchanged_split() {
        let registry = Registry::new(1);
        let mut live = Live::new(pair(37, 1, "canary"), None, &registry, 9);
        let mut canaries = 0;
        for n in 0..100 {
            canaries += picks(&live, 1);
            live = Live::new(pair(37, 1 + n % 3, "canary"), Some(&live), &registry, 9);
        }
        assert_eq!(canaries, 37);
    }

    #[test]
    fn another_weight_or_another_canary_starts_a_block_of_its_own() {
        let registry = Registry::new(1);
        let live = Live::new(pair(37, 1, "canary"), None, &registry, 9);
        picks(&live, 50);
        let live = Live::new(pair(10, 1, "canary"), Some(&live), &registry, 9);
        assert_eq!(picks(&live, 10), 1);
        picks(&live, 5);
        let live = Live::new(pair(10, 1, "other"), Some(&live), &registry, 9);
        assert_eq!(picks(&live, 10), 1);
    }

    #[test]
    fn endpoints_take_turns_across_tables() {
        let registry = Registry::new(1);
        let first = Live::new(pair(0, 2, "canary"), None, &registry, 9);
        let second = Live::new(pair(0, 2, "canary"), Some(&first), &registry, 9);
        let turns: Vec<_> = [&first, &second, &first, &second]
            .iter()
            .map(|live| live.next_endpoint(UpstreamId(0)).unwrap())
            .collect();
        assert_eq!(turns[0], turns[2]);
        assert_eq!(turns[1], turns[3]);
        assert_ne!(turns[0], turns[1]);
    }

    #[test]
    fn main_without_endpoints_takes_nothing_even_for_always() {
        let live = Live::new(pair(100, 0, "canary"), None, &Registry::new(1), 9);
        assert_eq!(
            live.choose(UpstreamId(0), &Method::GET, &HeaderMap::new()),
            None
        );
    }
}
