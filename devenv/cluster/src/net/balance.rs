//! Which endpoint is next: in turn, or the one that a client had before.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many clients are remembered before those that were not seen for long are forgotten.
const MANY: usize = 1024;

/// The endpoints behind one address. The proxy asks it, the controller tells it.
#[derive(Debug, Default)]
pub struct Balancer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    endpoints: Arc<[SocketAddrV4]>,
    turn: usize,
    /// How long a client keeps its endpoint after its last connection; without it they go in turn.
    affinity: Option<Duration>,
    kept: HashMap<Ipv4Addr, (SocketAddrV4, Instant)>,
}

impl Balancer {
    /// From now on these are the endpoints; `affinity` is `sessionAffinity: ClientIP` with its
    /// timeout.
    pub fn set(&self, endpoints: Vec<SocketAddrV4>, affinity: Option<Duration>) {
        let mut state = self.lock();
        state.kept.retain(|_, (kept, _)| endpoints.contains(kept));
        if affinity.is_none() {
            state.kept.clear();
        }
        state.endpoints = endpoints.into();
        state.affinity = affinity;
    }

    /// The endpoints for a new connection of this client, the best first.
    pub fn order(&self, client: Ipv4Addr) -> Vec<SocketAddrV4> {
        let mut state = self.lock();
        let State {
            endpoints,
            turn,
            affinity,
            kept,
        } = &mut *state;
        if endpoints.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let known = kept
            .get(&client)
            .filter(|(_, until)| *until > now)
            .and_then(|(endpoint, _)| endpoints.iter().position(|e| e == endpoint));
        let first = known.unwrap_or_else(|| {
            *turn = (*turn + 1) % endpoints.len();
            (*turn + endpoints.len() - 1) % endpoints.len()
        });
        if let Some(timeout) = *affinity {
            if kept.len() >= MANY {
                kept.retain(|_, (_, until)| *until > now);
            }
            kept.insert(client, (endpoints[first], now + timeout));
        }
        let (before, after) = endpoints.split_at(first);
        [after, before].concat()
    }

    /// Whether traffic may still go to this endpoint.
    pub fn has(&self, endpoint: SocketAddrV4) -> bool {
        self.lock().endpoints.contains(&endpoint)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new([10, 244, 0, n].into(), 80)
    }

    fn balancer(endpoints: &[u8], affinity: Option<u64>) -> Balancer {
        let balancer = Balancer::default();
        let all = endpoints.iter().map(|n| at(*n)).collect();
        balancer.set(all, affinity.map(Duration::from_secs));
        balancer
    }

    const ANA: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
    const BEN: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

    #[tokio::test(start_paused = true)]
    async fn everyone_gets_a_turn() {
        let all = balancer(&[1, 2, 3], None);
        let first: Vec<SocketAddrV4> = (0..4).map(|_| all.order(ANA)[0]).collect();
        assert_eq!(first, [at(1), at(2), at(3), at(1)]);
        assert_eq!(all.order(ANA), [at(2), at(3), at(1)]);
        assert_eq!(balancer(&[], None).order(ANA), []);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_endpoints_and_none() {
        let all = balancer(&[1, 2, 3], None);
        all.order(ANA);
        all.order(ANA);
        all.set(vec![at(1)], None);
        assert_eq!(all.order(ANA), [at(1)]);
        assert!(all.has(at(1)) && !all.has(at(2)));
        all.set(Vec::new(), None);
        assert_eq!(all.order(ANA), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_keeps_its_endpoint_until_it_was_silent_for_long() {
        let all = balancer(&[1, 2, 3], Some(10));
        for _ in 0..3 {
            assert_eq!((all.order(ANA)[0], all.order(BEN)[0]), (at(1), at(2)));
            // Each connection counts anew.
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(all.order(ANA)[0], at(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_endpoint_went_gets_another() {
        let all = balancer(&[1, 2], Some(10));
        assert_eq!((all.order(ANA)[0], all.order(BEN)[0]), (at(1), at(2)));
        all.set(vec![at(2), at(3)], Some(Duration::from_secs(10)));
        assert_ne!(all.order(ANA)[0], at(1));
        assert_eq!(all.order(BEN)[0], at(2));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_long_ago_are_forgotten() {
        let all = balancer(&[1], Some(1));
        for n in 0..5000u32 {
            all.order(Ipv4Addr::from(0x0a00_0000 + n));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let kept = all.lock().kept.len();
        assert!(kept <= MANY, "{kept}");
    }
}
