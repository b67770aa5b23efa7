//! Carrying datagrams to the endpoints of a Service, and the answers back.
//!
//! UDP has no connections: who sent lately has a session, which keeps its
//! endpoint and a socket of its own towards it, so that answers find their way.
//! Sessions end as entries of the kernel's connection tracking do, which
//! kube-proxy relies on (`nf_conntrack_udp_timeout` and `…_stream`).

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::balance::Balancer;
use super::dial::Dialer;

/// How long a session lasts after its last datagram while nobody has answered,
const UNREPLIED: Duration = Duration::from_secs(30);
/// and once somebody has.
const REPLIED: Duration = Duration::from_secs(120);
/// Sessions of one port at a time. When there are more, the one that was silent for longest ends.
const MOST: usize = 512;
/// The largest datagram there is.
const LARGEST: usize = 65_535;

/// Makes the socket from which a session's datagrams reach an endpoint.
pub trait Towards: Send + Sync + 'static {
    /// A socket connected to `endpoint`.
    fn towards(&self, endpoint: SocketAddrV4)
    -> impl Future<Output = io::Result<UdpSocket>> + Send;
}

impl Towards for Dialer {
    async fn towards(&self, endpoint: SocketAddrV4) -> io::Result<UdpSocket> {
        self.datagrams(endpoint).await
    }
}

/// What a session's two directions share.
#[derive(Debug)]
struct Session {
    number: u64,
    endpoint: SocketAddrV4,
    upstream: UdpSocket,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    /// When the last datagram went either way.
    last: Instant,
    replied: bool,
    /// Nobody reads answers any more.
    over: bool,
}

impl Life {
    fn ends(&self) -> Instant {
        self.last + if self.replied { REPLIED } else { UNREPLIED }
    }
}

impl Session {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a datagram of the client; false when the session is over.
    fn go_on(&self) -> bool {
        let mut life = self.life();
        life.last = Instant::now();
        !life.over
    }

    fn replied(&self) {
        let mut life = self.life();
        (life.last, life.replied) = (Instant::now(), true);
    }

    fn ends(&self) -> Instant {
        self.life().ends()
    }

    /// At `ends`: true, and over for the client too, unless a datagram came meanwhile.
    fn end_at(&self, ends: Instant) -> bool {
        let mut life = self.life();
        life.over = life.ends() == ends;
        life.over
    }
}

/// The sessions of one front.
struct Sessions<T> {
    front: Arc<UdpSocket>,
    towards: T,
    balancer: Arc<Balancer>,
    open: HashMap<SocketAddrV4, (Arc<Session>, tokio::task::AbortHandle)>,
    /// The answering halves; they end with this.
    answering: JoinSet<()>,
    /// Sessions that were silent for too long, from their answering half to the loop.
    ended_tx: mpsc::UnboundedSender<(SocketAddrV4, u64)>,
    count: u64,
}

/// Carries datagrams that arrive at `front` until `stop`. Answers leave from `front`, so that the
/// client gets them from the address that it sent to.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(
    front: UdpSocket,
    towards: impl Towards,
    balancer: Arc<Balancer>,
    stop: CancellationToken,
) -> io::Result<()> {
    let front = Arc::new(front);
    let (ended_tx, mut ended_rx) = mpsc::unbounded_channel();
    let mut sessions = Sessions::new(front.clone(), towards, balancer, ended_tx);
    let mut buffer = vec![0; LARGEST];
    loop {
        let (len, client) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some((client, number)) = ended_rx.recv() => {
                sessions.forget(client, number);
                continue;
            }
            // Keeps the set from growing; what they had to say came through the channel.
            Some(_) = sessions.answering.join_next() => continue,
            received = front.recv_from(&mut buffer) => match received {
                Ok((len, SocketAddr::V4(client))) => (len, client),
                Ok(_) => continue,
                // A client that closed its port shows up here on Linux.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            },
        };
        match sessions.of(client).await {
            Ok(Some(session)) => {
                if let Err(error) = session.upstream.send(&buffer[..len]).await {
                    debug!(
                        endpoint = %session.endpoint,
                        error = &error as &dyn std::error::Error,
                        "a datagram was not delivered"
                    );
                }
            }
            // Between the end of the last endpoint and that of this front.
            Ok(None) => {}
            Err(error) => debug!(
                error = &error as &dyn std::error::Error,
                "a datagram has no way to its endpoint"
            ),
        }
    }
}

impl<T: Towards> Sessions<T> {
    fn new(
        front: Arc<UdpSocket>,
        towards: T,
        balancer: Arc<Balancer>,
        ended_tx: mpsc::UnboundedSender<(SocketAddrV4, u64)>,
    ) -> Sessions<T> {
        Sessions {
            front,
            towards,
            balancer,
            open: HashMap::new(),
            answering: JoinSet::new(),
            ended_tx,
            count: 0,
        }
    }

    /// The session of a client: the one that it has, or a new one where that leads nowhere any more.
    async fn of(&mut self, client: SocketAddrV4) -> io::Result<Option<Arc<Session>>> {
        if let Some((session, _)) = self.open.get(&client) {
            if self.balancer.has(session.endpoint) && session.go_on() {
                return Ok(Some(session.clone()));
            }
            let number = session.number;
            self.forget(client, number);
        }
        let Some(endpoint) = self.balancer.order(*client.ip()).first().copied() else {
            return Ok(None);
        };
        if self.open.len() >= MOST
            && let Some((silent, number)) = self
                .open
                .iter()
                .min_by_key(|(_, (session, _))| session.life().last)
                .map(|(client, (session, _))| (*client, session.number))
        {
            self.forget(silent, number);
        }
        self.count += 1;
        let session = Arc::new(Session {
            number: self.count,
            endpoint,
            upstream: self.towards.towards(endpoint).await?,
            life: Mutex::new(Life {
                last: Instant::now(),
                replied: false,
                over: false,
            }),
        });
        let (front, ended_tx) = (self.front.clone(), self.ended_tx.clone());
        let answers = answer(session.clone(), front, client);
        let number = session.number;
        let task = self.answering.spawn(async move {
            answers.await;
            // The loop is gone only when the front is.
            let _ = ended_tx.send((client, number));
        });
        self.open.insert(client, (session.clone(), task));
        Ok(Some(session))
    }

    /// Ends a session, unless the client has a newer one.
    fn forget(&mut self, client: SocketAddrV4, number: u64) {
        let is_it = |(session, _): &(Arc<Session>, _)| session.number == number;
        if self.open.get(&client).is_some_and(is_it)
            && let Some((_, task)) = self.open.remove(&client)
        {
            task.abort();
        }
    }
}

/// Carries answers until the session was silent for too long.
async fn answer(session: Arc<Session>, front: Arc<UdpSocket>, client: SocketAddrV4) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let ends = session.ends();
        let len = tokio::select! {
            received = session.upstream.recv(&mut buffer) => match received {
                Ok(len) => len,
                // Nobody listens there now; somebody may when the client tries again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    debug!(
                        endpoint = %session.endpoint,
                        error = &error as &dyn std::error::Error,
                        "a session of datagrams broke"
                    );
                    session.life().over = true;
                    return;
                }
            },
            () = tokio::time::sleep_until(ends) => {
                if session.end_at(ends) {
                    return;
                }
                continue;
            }
        };
        session.replied();
        if let Err(error) = front.send_to(&buffer[..len], client).await {
            debug!(
                %client,
                error = &error as &dyn std::error::Error,
                "an answering datagram was not delivered"
            );
        }
    }
}

#[cfg(test)]
mod tests;
