//! The way to a pod: which real port answers for one of its ports.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use devenv_sandbox::Holder;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::loopback::{Door, dial};

/// How long a port that another program was found to hold is not looked at again.
const FOREIGN: Duration = Duration::from_millis(500);

/// What leads to one pod.
pub(super) struct PodDoor {
    name: String,
    ip: Ipv4Addr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    containers: HashMap<String, Given>,
    /// Ports that were connected to, and what answers for them.
    known: HashMap<u16, Answer>,
    /// Ports that belong to another program, until when that is believed.
    foreign: HashMap<u16, Instant>,
}

/// What a container was started with.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// The port in `PORT`.
    pub(super) port: u16,
    /// The port of the manifest that it stands for; any when `None`.
    pub(super) stands_for: Option<u16>,
    /// The ports that the manifest declares.
    pub(super) declared: Vec<u16>,
    /// The present run.
    pub(super) holder: Weak<Holder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The port that a container was given.
    Given(u16),
    /// The port itself: a program does not heed `PORT`.
    Fixed,
}

impl fmt::Debug for PodDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodDoor")
            .field("name", &self.name)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

impl PodDoor {
    /// The door of a pod whose servers are reached at `ip`.
    pub(super) fn new(name: String, ip: Ipv4Addr) -> PodDoor {
        PodDoor {
            name,
            ip,
            state: Mutex::default(),
        }
    }

    /// The pod's real address.
    pub(super) fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// A container begins a run with this.
    pub(super) fn begin(&self, container: &str, given: Given) {
        let mut state = self.lock();
        state.known.clear();
        state.foreign.clear();
        state.containers.insert(container.to_owned(), given);
    }

    /// A container's run ended: what it listened at is nobody's. Returns what it had been given,
    /// and whether it was ever seen listening.
    pub(super) fn end(&self, container: &str) -> Option<(Given, bool)> {
        let mut state = self.lock();
        let given = state.containers.remove(container)?;
        let mine = |port: u16, answer: Answer| {
            answer == Answer::Given(given.port)
                || (answer == Answer::Fixed && given.declared.contains(&port))
        };
        let listened = state
            .known
            .iter()
            .any(|(port, answer)| mine(*port, *answer));
        state.known.clear();
        Some((given, listened))
    }

    /// Whether the pod's program was reached at the port that it was given for this one.
    pub(super) fn heeds_port(&self, port: u16) -> bool {
        matches!(self.lock().known.get(&port), Some(Answer::Given(_)))
    }

    /// The real ports at which the pod's servers were reached.
    pub(super) fn real_ports(&self) -> HashSet<u16> {
        let real = |(port, answer): (&u16, &Answer)| match answer {
            Answer::Given(given) => *given,
            Answer::Fixed => *port,
        };
        self.lock().known.iter().map(real).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        dial(SocketAddrV4::new(self.ip, port)).await
    }

    fn learn(&self, port: u16, answer: Answer) {
        self.lock().known.insert(port, answer);
    }

    /// Where the pod's programs listen, as the kernel has it now.
    async fn listening(&self) -> Vec<SocketAddr> {
        let holders: Vec<Arc<Holder>> = {
            let state = self.lock();
            let all = state.containers.values();
            all.filter_map(|given| given.holder.upgrade()).collect()
        };
        let asked = tokio::task::spawn_blocking(move || {
            let found = holders.iter().map(|holder| holder.listening());
            // One that has ended listens nowhere.
            found.flat_map(Result::unwrap_or_default).collect()
        });
        asked.await.unwrap_or_default()
    }

    /// Whether a program of this pod listens at `port` so that this address reaches it.
    async fn owns(&self, port: u16) -> bool {
        if self
            .lock()
            .foreign
            .get(&port)
            .is_some_and(|until| Instant::now() < *until)
        {
            return false;
        }
        let owns = self.listening().await.iter().any(|at| self.is_at(at, port));
        if !owns {
            self.lock().foreign.insert(port, Instant::now() + FOREIGN);
        }
        owns
    }

    fn is_at(&self, at: &SocketAddr, port: u16) -> bool {
        at.port() == port && (at.ip().is_unspecified() || at.ip() == self.ip)
    }
}

#[async_trait]
impl Door for PodDoor {
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let (known, candidates) = {
            let state = self.lock();
            let stands = |given: &&Given| given.stands_for.is_none_or(|p| p == port);
            let given: Vec<u16> = state
                .containers
                .values()
                .filter(stands)
                .map(|g| g.port)
                .collect();
            (state.known.get(&port).copied(), given)
        };
        match known {
            Some(Answer::Given(given)) => return self.dial(given).await,
            Some(Answer::Fixed) => return self.dial(port).await,
            None => {}
        }
        for given in candidates {
            if let Ok(stream) = self.dial(given).await {
                self.learn(port, Answer::Given(given));
                return Ok(stream);
            }
        }
        // Whoever answers at the port itself may be any program of this machine.
        let stream = self.dial(port).await?;
        if self.owns(port).await {
            self.learn(port, Answer::Fixed);
            return Ok(stream);
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    async fn fixed_ports(&self) -> Vec<u16> {
        let listening = self.listening().await;
        let state = self.lock();
        let is_given = |port: u16| state.containers.values().any(|g| g.port == port);
        let is_public = |port: u16| {
            let declared = |g: &Given| g.declared.contains(&port) || g.stands_for == Some(port);
            state.containers.values().any(declared)
                || state.known.get(&port) == Some(&Answer::Fixed)
        };
        let everywhere = listening.iter().filter(|at| at.ip().is_unspecified());
        everywhere
            .map(SocketAddr::port)
            .filter(|port| is_public(*port) && !is_given(*port))
            .collect()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
