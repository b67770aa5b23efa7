//! Which pods still get traffic: what a pod that ends waits for before its SIGTERM.
//!
//! Everything that sends traffic to endpoints (ingress, ClusterIPs, Cloud Run
//! listeners) publishes the ready addresses that it works with, after it has
//! switched over to them.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use tokio::sync::watch;

/// Ready addresses by router; cheap to clone.
#[derive(Debug, Clone)]
pub struct Routed {
    sets_tx: watch::Sender<HashMap<&'static str, HashSet<Ipv4Addr>>>,
}

impl Default for Routed {
    fn default() -> Self {
        Routed::new()
    }
}

impl Routed {
    /// Nothing is routed yet.
    pub fn new() -> Routed {
        Routed {
            sets_tx: watch::channel(HashMap::new()).0,
        }
    }

    /// `router` now sends to these addresses and to no others.
    pub fn publish(&self, router: &'static str, addresses: HashSet<Ipv4Addr>) {
        self.sets_tx
            .send_if_modified(|sets| sets.insert(router, addresses.clone()) != Some(addresses));
    }

    /// Waits until nobody sends to `ip` any more.
    pub async fn gone(&self, ip: Ipv4Addr) {
        let mut sets_rx = self.sets_tx.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _ = sets_rx
            .wait_for(|sets| sets.values().all(|set| !set.contains(&ip)))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_every_router() {
        let routed = Routed::new();
        let ip = Ipv4Addr::new(10, 244, 0, 7);
        routed.gone(ip).await;
        routed.publish("a", HashSet::from([ip]));
        routed.publish("b", HashSet::from([ip]));
        let gone = tokio::spawn({
            let routed = routed.clone();
            async move { routed.gone(ip).await }
        });
        routed.publish("a", HashSet::new());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!gone.is_finished());
        routed.publish("b", HashSet::new());
        gone.await.expect("ends");
    }
}
