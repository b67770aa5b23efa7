//! Idle connections to endpoints, one pool per worker thread.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::upstream::Conn;
use crate::table::mix;

/// Shorter than the 5 s after which Node.js and uvicorn close idle
/// connections, so that it is we who close nearly always.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// ingress-nginx's `upstream-keepalive-connections`.
const MAX_PER_ADDRESS: usize = 320;

/// The lock is only ever contended by [`Pool::keep_only`].
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

type Idle = HashMap<SocketAddr, Vec<Box<Conn>>, BuildHasherDefault<Mixer>>;

/// Addresses come from the cluster's own objects, so that nobody can choose
/// them to collide; the default hasher's protection would cost more than all
/// the rest of taking a connection.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mix(self.0 ^ u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used connection: the least likely to be stale. See
    /// [`Conn::wake_up`] for `probe`.
    pub fn take(&self, address: SocketAddr, probe: bool) -> Option<Box<Conn>> {
        let mut idle = self.lock();
        let connections = idle.get_mut(&address)?;
        let mut connection = connections.pop()?;
        drop(idle);
        if connection.is_over() || connection.idle_for() > MAX_IDLE {
            return None;
        }
        connection.wake_up(probe);
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
