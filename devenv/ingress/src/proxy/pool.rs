//! Idle connections to endpoints, one pool per worker thread.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::upstream::Conn;

/// Shorter than the 5 s after which Node.js and uvicorn close idle
/// connections, so that it is we who close nearly always.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// ingress-nginx's `upstream-keepalive-connections`.
const MAX_PER_ADDRESS: usize = 320;

/// The lock is only ever contended by [`Pool::keep_only`].
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Box<Conn>>>>,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Box<Conn>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used connection: the least likely to be stale.
    pub fn take(&self, address: SocketAddr) -> Option<Box<Conn>> {
        let mut idle = self.lock();
        let connections = idle.get_mut(&address)?;
        let mut connection = connections.pop()?;
        drop(idle);
        if connection.is_over() || connection.idle_for() > MAX_IDLE {
            return None;
        }
        connection.wake_up();
        Some(connection)
    }

    /// Keeps a connection whose response has been read to its end, if its
    /// endpoint is still in the table.
    pub fn put(&self, mut connection: Box<Conn>) {
        if connection.is_over() {
            return;
        }
        connection.rest();
        let mut idle = self.lock();
        if let Some(connections) = idle.get_mut(&connection.address)
            && connections.len() < MAX_PER_ADDRESS
        {
            connections.push(connection);
        }
    }

    /// Closes the connections to endpoints that are gone: a pod that is told
    /// to stop must not have to wait for them.
    pub fn keep_only(&self, addresses: &HashSet<SocketAddr>) {
        let mut idle = self.lock();
        idle.retain(|address, _| addresses.contains(address));
        for address in addresses {
            idle.entry(*address).or_default();
        }
    }

    /// Closes what has been idle for too long; whether anything is left.
    pub fn sweep(&self) -> bool {
        let mut idle = self.lock();
        let mut left = false;
        for connections in idle.values_mut() {
            connections
                .retain(|connection| !connection.is_over() && connection.idle_for() <= MAX_IDLE);
            left |= !connections.is_empty();
        }
        left
    }
}
