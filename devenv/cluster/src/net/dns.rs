//! Cluster DNS at 10.96.0.10: `svc.cluster.local` from the store, the rest from the host's resolver.

pub mod answer;
pub mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::store::Store;
use answer::{Verdict, verdict};
use upstream::Upstream;

/// Questions that may wait for the host's resolver, and TCP connections, at a time: as many as
/// CoreDNS forwards in a cluster that kubeadm made.
const AT_ONCE: usize = 1000;
/// How long a TCP connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The largest UDP answer to a client that does not say more.
const UDP_PLAIN: usize = 512;
/// The largest UDP answer that is sent at all.
const UDP_MOST: usize = 1232;

/// The DNS server.
#[derive(Debug, Clone)]
pub struct Dns {
    store: Store,
    upstream: Arc<Upstream>,
    limit: Arc<Semaphore>,
}

impl Dns {
    /// A server on this store that asks `upstream` for names outside the cluster.
    pub fn new(store: Store, upstream: Upstream) -> Dns {
        Dns {
            store,
            upstream: Arc::new(upstream),
            limit: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Answers over UDP and TCP until `stop`.
    ///
    /// # Errors
    /// When a socket breaks.
    pub async fn run(
        self,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::from_std(udp)?);
        let tcp = TcpListener::from_std(tcp)?;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            result = self.serve_udp(udp, &stop) => result,
            result = self.serve_tcp(tcp, &stop) => result,
        }
    }

    async fn serve_udp(&self, udp: Arc<UdpSocket>, stop: &CancellationToken) -> io::Result<()> {
        let mut buffer = vec![0; 4096];
        loop {
            let (len, client) = match udp.recv_from(&mut buffer).await {
                Ok(received) => received,
                // A client that closed its port shows up here on Linux.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            match self.local(&buffer[..len]) {
                Local::Reply(reply, size) => send(&udp, fit(&reply, size), client).await,
                Local::Ask(question, size) => {
                    let Ok(permit) = self.limit.clone().try_acquire_owned() else {
                        // Dropped under load: the client asks again.
                        continue;
                    };
                    let (dns, udp, stop) = (self.clone(), udp.clone(), stop.clone());
                    let packet = buffer[..len].to_vec();
                    tokio::spawn(async move {
                        let _permit = permit;
                        tokio::select! {
                            reply = question.answer(&dns.upstream, &packet, false) => send(&udp, cut(reply, size), client).await,
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Local::Ignore => {}
            }
        }
    }

    async fn serve_tcp(&self, tcp: TcpListener, stop: &CancellationToken) -> io::Result<()> {
        loop {
            let (stream, _) = match tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "a DNS connection could not be accepted"
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = self.limit.clone().try_acquire_owned() else {
                continue;
            };
            let (dns, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                tokio::select! {
                    result = dns.converse(stream) => if let Err(error) = result {
                        debug!(error = &error as &dyn std::error::Error, "a DNS connection broke");
                    },
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let len = match tokio::time::timeout(TCP_IDLE, stream.read_u16()).await {
                Ok(Ok(len)) => usize::from(len),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let mut packet = vec![0; len];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut packet)).await??;
            let reply = match self.local(&packet) {
                Local::Reply(reply, _) => encode(&reply),
                Local::Ask(question, _) => question.answer(&self.upstream, &packet, true).await,
                Local::Ignore => return Ok(()),
            };
            let mut framed = u16::try_from(reply.len())
                .unwrap_or(0)
                .to_be_bytes()
                .to_vec();
            framed.extend_from_slice(&reply);
            stream.write_all(&framed).await?;
        }
    }

    fn local(&self, packet: &[u8]) -> Local {
        let Ok(query) = Message::from_vec(packet) else {
            return Local::Ignore;
        };
        let size = query.edns.as_ref().map_or(UDP_PLAIN, |e| {
            usize::from(e.max_payload()).clamp(UDP_PLAIN, UDP_MOST)
        });
        match verdict(&query, &self.store) {
            Verdict::Reply(reply) => Local::Reply(reply, size),
            Verdict::Forward => Local::Ask(Question::Theirs(Box::new(query)), size),
            Verdict::Follow(reply, target) => Local::Ask(Question::Target(reply, target), size),
            Verdict::Ignore => Local::Ignore,
        }
    }
}

enum Local {
    Reply(Box<Message>, usize),
    Ask(Question, usize),
    Ignore,
}

/// What the host's resolver is asked.
enum Question {
    /// The client's own question.
    Theirs(Box<Message>),
    /// What the name at the end of this answer stands for.
    Target(Box<Message>, Name),
}

impl Question {
    /// The answer to the client, whose own `packet` goes on as it is where it can.
    async fn answer(self, upstream: &Upstream, packet: &[u8], tcp: bool) -> Vec<u8> {
        let (mut reply, target) = match self {
            Question::Theirs(query) => return upstream.ask(&query, packet, tcp).await,
            Question::Target(reply, target) => (reply, target),
        };
        let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_queries(reply.queries.iter().map(|asked| {
            let mut asked = asked.clone();
            asked.set_name(target.clone());
            asked
        }));
        query.edns = reply.edns.clone();
        let packet = encode(&query);
        let answer = upstream.ask(&query, &packet, tcp).await;
        match Message::from_vec(&answer) {
            Ok(answer) => {
                reply.metadata.response_code = answer.metadata.response_code;
                reply.metadata.truncation = answer.metadata.truncation;
                reply.add_answers(answer.answers);
            }
            Err(_) => reply.metadata.response_code = ResponseCode::ServFail,
        }
        encode(&reply)
    }
}

async fn send(udp: &UdpSocket, reply: Vec<u8>, client: SocketAddr) {
    if reply.is_empty() {
        return;
    }
    if let Err(error) = udp.send_to(&reply, client).await {
        debug!(
            error = &error as &dyn std::error::Error,
            "a DNS answer was not sent"
        );
    }
}

fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|error| {
        warn!(
            error = &error as &dyn std::error::Error,
            "a DNS answer could not be encoded"
        );
        Vec::new()
    })
}

/// An answer that fits into `size`: cut short it tells the client to ask again over TCP.
fn fit(message: &Message, size: usize) -> Vec<u8> {
    let whole = encode(message);
    if whole.len() <= size {
        whole
    } else {
        encode(&message.truncate())
    }
}

fn cut(reply: Vec<u8>, size: usize) -> Vec<u8> {
    if reply.len() <= size {
        return reply;
    }
    Message::from_vec(&reply).map_or(reply, |message| fit(&message, size))
}

#[cfg(test)]
mod tests;
