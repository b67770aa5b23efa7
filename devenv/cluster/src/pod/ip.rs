//! Pod addresses: 10.244.0.0/16, the bridge has .0.1.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

const NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);
const FIRST: u32 = 2;
const LAST: u32 = 0xFFFE;

/// The addresses in use. Goes round, so that an address rests long before it is given again.
#[derive(Debug, Clone, Default)]
pub struct IpPool {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: u32,
    used: HashSet<u32>,
}

/// An address that returns to its pool when dropped.
#[derive(Debug)]
pub struct PodIp {
    pool: IpPool,
    host: u32,
}

impl IpPool {
    /// The next free address; `None` when all 65,533 are in use.
    pub fn take(&self) -> Option<PodIp> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let span = LAST - FIRST + 1;
        let start = state.last.max(FIRST - 1) + 1;
        let host = (0..span)
            .map(|n| FIRST + (start - FIRST + n) % span)
            .find(|h| !state.used.contains(h))?;
        state.last = host;
        state.used.insert(host);
        Some(PodIp {
            pool: self.clone(),
            host,
        })
    }
}

impl PodIp {
    /// The address.
    pub fn addr(&self) -> Ipv4Addr {
        Ipv4Addr::from(NETWORK | self.host)
    }
}

impl Drop for PodIp {
    fn drop(&mut self) {
        self.pool
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used
            .remove(&self.host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_round_and_never_gives_one_twice() {
        let pool = IpPool::default();
        let first = pool.take().expect("free");
        assert_eq!(first.addr(), Ipv4Addr::new(10, 244, 0, 2));
        drop(first);
        let second = pool.take().expect("free");
        assert_eq!(
            second.addr(),
            Ipv4Addr::new(10, 244, 0, 3),
            "an address rests before it is reused"
        );
        let all: Vec<PodIp> = std::iter::from_fn(|| pool.take()).collect();
        let distinct: HashSet<Ipv4Addr> = all.iter().map(PodIp::addr).collect();
        assert_eq!((all.len(), distinct.len()), (65_532, 65_532));
        assert!(
            !distinct.contains(&Ipv4Addr::new(10, 244, 0, 1)) && !distinct.contains(&second.addr())
        );
        drop(all);
        assert!(pool.take().is_some());
    }
}
