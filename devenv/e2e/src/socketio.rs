//! A client of Socket.IO 5 over Engine.IO 4, the protocols of socket.io 4, for the
//! default namespace over either transport. It stays with its transport and never
//! connects again by itself: a test is to see what happens.
//!
//! A task of its own reads, so that pings are answered and the end of a connection is
//! noticed while a test does something else.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use packet::Packet;
use wire::{Frame, Wire};

mod packet;
mod wire;

#[cfg(test)]
mod tests;

/// How many events wait to be asked for; the oldest go first, and errors say so.
const INBOX: usize = 10_000;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// How packets come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// One connection that stays.
    #[default]
    WebSocket,
    /// HTTP requests that wait for packets, and others that send them.
    Polling,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
        })
    }
}

/// What went wrong with a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The address is not one that can be spoken to.
    #[error("{url} is not the address of a Socket.IO server: {why}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no connection.
    #[error("no Socket.IO connection over {transport}: {why}")]
    Connect {
        /// Over which transport.
        transport: Transport,
        /// What came instead.
        why: String,
    },
    /// The server did not let this client into the namespace.
    #[error("the server refused the connection: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The connection is over.
    #[error("the connection ended: {why}")]
    Ended {
        /// Who ended it, or how.
        why: String,
    },
    /// Nothing of the kind in time.
    #[error("no {what} within {within:?}{seen}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// What came meanwhile, or nothing.
        seen: String,
    },
    /// A binary attachment, which this client does not read.
    #[error("{what} has binary attachments, which are not supported: send JSON")]
    Binary {
        /// What has them.
        what: String,
    },
    /// Something that can't be sent.
    #[error("{what} can't be sent: {why}")]
    Unsendable {
        /// The event.
        what: String,
        /// Why not.
        why: String,
    },
}

/// An event from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// What came with it; mostly one value.
    pub arguments: Vec<Value>,
    binary: bool,
}

impl Event {
    /// The first argument, or null.
    pub fn payload(&self) -> &Value {
        self.arguments.first().unwrap_or(&Value::Null)
    }
}

/// What the reading task and its session share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something new in it. One session waits at a time.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the server let the client into the namespace, once it said so.
    joined: Option<Result<(), String>>,
    events: VecDeque<Event>,
    /// Events that had no room any more.
    dropped: u64,
    /// Of the acknowledgements that are awaited. `None` until it comes.
    answers: BTreeMap<u64, Option<Answer>>,
    /// Why the connection is over.
    ended: Option<String>,
}

/// An acknowledgement.
#[derive(Debug)]
struct Answer {
    arguments: Vec<Value>,
    binary: bool,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self, why: String) {
        self.with(|state| state.ended.get_or_insert(why).len());
        self.changed.notify_one();
    }
}

impl State {
    fn push(&mut self, event: Event) {
        if self.events.len() == INBOX {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }
}

/// A packet to send, and where its sender waits.
#[derive(Debug)]
struct Command {
    packet: String,
    sent_tx: oneshot::Sender<Result<(), String>>,
}

/// A connection to the default namespace. Dropped, it says goodbye in the background.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    /// Session → reading task.
    command_tx: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    last_id: u64,
}

impl Session {
    /// Opens a connection and joins the default namespace, all `within` the time given.
    /// `url` is the server's address: `http://host:port`, with a query if need be.
    ///
    /// # Errors
    /// A wrong address, no connection in time, a server that speaks something else, or
    /// one that refuses the namespace.
    pub async fn connect(
        url: &str,
        transport: Transport,
        within: Duration,
    ) -> Result<Self, SocketError> {
        let url = wire::address(url)?;
        let connect = |why| SocketError::Connect { transport, why };
        let joining = async {
            let (mut wire, handshake, came) = Wire::open(&url, transport).await.map_err(connect)?;
            wire.send("40").await.map_err(connect)?;
            let shared = Arc::new(Shared::default());
            let (command_tx, command_rx) = mpsc::channel(16);
            let reader = Reader {
                wire,
                shared: Arc::clone(&shared),
                silence: handshake.silence(),
            };
            let session = Self {
                shared,
                command_tx,
                task: tokio::spawn(reader.run(came, command_rx)),
                last_id: 0,
            };
            match session.look(|state| state.joined.take()).await {
                Ok(Ok(())) => Ok(session),
                Ok(Err(message)) => Err(SocketError::Refused { message }),
                Err(why) => Err(connect(why)),
            }
        };
        match timeout(within, joining).await {
            Ok(done) => done,
            Err(_) => Err(connect(format!("no answer from {url} within {within:?}"))),
        }
    }

    /// Sends an event: over polling the server has it then, over WebSocket it is on its way.
    ///
    /// # Errors
    /// A name that the protocol keeps to itself, a packet larger than the server takes,
    /// or the end of the connection.
    pub async fn emit(&mut self, name: &str, arguments: &[Value]) -> Result<(), SocketError> {
        let packet = packet::event(name, arguments, None)?;
        self.send(name, packet).await
    }

    /// Sends an event and gives the arguments of its acknowledgement.
    ///
    /// # Errors
    /// As [`Self::emit`]; no acknowledgement in time, or one with binary attachments.
    pub async fn emit_with_ack(
        &mut self,
        name: &str,
        arguments: &[Value],
        within: Duration,
    ) -> Result<Vec<Value>, SocketError> {
        self.last_id += 1;
        let id = self.last_id;
        let packet = packet::event(name, arguments, Some(id))?;
        self.shared.with(|state| state.answers.insert(id, None));
        let asking = async {
            self.send(name, packet).await?;
            let answer = self.look(|state| state.answers.get_mut(&id)?.take()).await;
            answer.map_err(|why| SocketError::Ended { why })
        };
        let answer = timeout(within, asking).await;
        self.shared.with(|state| state.answers.remove(&id));
        let what = || format!("acknowledgement of {name}");
        match answer {
            Ok(Ok(answer)) if answer.binary => Err(SocketError::Binary { what: what() }),
            Ok(Ok(answer)) => Ok(answer.arguments),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SocketError::Timeout {
                what: what(),
                within,
                seen: String::new(),
            }),
        }
    }

    /// The next event of this name that is `wanted`, in the order in which the server
    /// sent them. Those of the name before it are passed over and gone; those of other
    /// names stay.
    ///
    /// # Errors
    /// None in time, with the names of what came instead; the end of the connection;
    /// binary attachments.
    pub async fn event(
        &mut self,
        name: &str,
        within: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event, SocketError> {
        let mut passed_over = 0_u32;
        let waiting = self.look(|state| {
            let mut at = 0;
            while let Some(event) = state.events.get(at) {
                if event.name != name {
                    at += 1;
                    continue;
                }
                let event = state.events.remove(at)?;
                if event.binary || wanted(&event) {
                    return Some(event);
                }
                passed_over += 1;
            }
            None
        });
        match timeout(within, waiting).await {
            Ok(Ok(event)) if event.binary => Err(SocketError::Binary {
                what: format!("event {name}"),
            }),
            Ok(Ok(event)) => Ok(event),
            Ok(Err(why)) => Err(SocketError::Ended { why }),
            Err(_) => Err(SocketError::Timeout {
                what: format!("event {name}"),
                within,
                seen: self.seen(name, passed_over),
            }),
        }
    }

    /// What came in vain, for people.
    fn seen(&self, name: &str, passed_over: u32) -> String {
        let (others, dropped) = self.shared.with(|state| {
            let mut others = BTreeMap::<String, u32>::new();
            for event in &state.events {
                *others.entry(event.name.clone()).or_default() += 1;
            }
            (others, state.dropped)
        });
        let mut seen = Vec::new();
        if passed_over > 0 {
            seen.push(format!("{passed_over} × {name} that was not as expected"));
        }
        seen.extend(others.iter().map(|(name, n)| format!("{n} × {name}")));
        if dropped > 0 {
            seen.push(format!(
                "{dropped} older events that were dropped, as {INBOX} were waiting"
            ));
        }
        if seen.is_empty() {
            return "; no other event came".to_owned();
        }
        format!("; there were {}", seen.join(", "))
    }

    /// Waits until the connection is over, and says why.
    ///
    /// # Errors
    /// [`SocketError::Timeout`] when it is still there.
    pub async fn disconnected(&mut self, within: Duration) -> Result<String, SocketError> {
        let waiting = self.look(|_| None::<std::convert::Infallible>);
        match timeout(within, waiting).await {
            Ok(Err(why)) => Ok(why),
            Ok(Ok(never)) => match never {},
            Err(_) => Err(SocketError::Timeout {
                what: "end of the connection".to_owned(),
                within,
                seen: String::new(),
            }),
        }
    }

    /// Leaves the namespace and closes the connection.
    pub async fn close(self) {
        drop(self.command_tx);
        // It ends by itself within the time for a goodbye.
        let _ = self.task.await;
    }

    /// Waits for `found`; the reason when the connection ended and it is not there.
    async fn look<T>(&self, mut found: impl FnMut(&mut State) -> Option<T>) -> Result<T, String> {
        loop {
            let came = self.shared.with(|state| match found(state) {
                Some(found) => Some(Ok(found)),
                None => state.ended.clone().map(Err),
            });
            match came {
                Some(came) => return came,
                None => self.shared.changed.notified().await,
            }
        }
    }

    async fn send(&self, name: &str, packet: String) -> Result<(), SocketError> {
        let (sent_tx, sent_rx) = oneshot::channel();
        let command = Command { packet, sent_tx };
        let gone = || SocketError::Ended {
            why: (self.shared.with(|state| state.ended.clone()))
                .unwrap_or_else(|| "its task is gone".to_owned()),
        };
        (self.command_tx.send(command).await).map_err(|_| gone())?;
        match sent_rx.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(SocketError::Unsendable {
                what: name.to_owned(),
                why,
            }),
            Err(_) => Err(gone()),
        }
    }
}

/// Reads until the connection is over.
struct Reader {
    wire: Wire,
    shared: Arc<Shared>,
    /// How long the server may say nothing, not even a ping.
    silence: Duration,
}

impl Reader {
    /// `came` is what came with the handshake.
    async fn run(mut self, came: Vec<Frame>, mut command_rx: mpsc::Receiver<Command>) {
        let why = match self.talk(came, &mut command_rx).await {
            Ok(()) => {
                let _ = timeout(GOODBYE, self.wire.close()).await;
                "this client closed it".to_owned()
            }
            Err(why) => why,
        };
        // Before the commands' channel closes, so that who waits there finds it.
        self.shared.end(why);
    }

    /// `Ok` when the session is not wanted any more, else why the connection is over.
    async fn talk(
        &mut self,
        mut came: Vec<Frame>,
        command_rx: &mut mpsc::Receiver<Command>,
    ) -> Result<(), String> {
        let mut last = Instant::now();
        loop {
            for frame in came.drain(..) {
                last = Instant::now();
                self.digest(frame).await?;
            }
            tokio::select! {
                command = command_rx.recv() => {
                    let Some(Command { packet, sent_tx }) = command else {
                        return Ok(());
                    };
                    if let Some(why) = self.wire.too_large(&packet) {
                        let _ = sent_tx.send(Err(why));
                        continue;
                    }
                    // Dropped with an error, its sender learns why the connection ended.
                    self.wire.send(&packet).await?;
                    let _ = sent_tx.send(Ok(()));
                }
                next = timeout_at(last + self.silence, self.wire.receive()) => {
                    let silent = |_| format!("the server was silent for {:?}", self.silence);
                    came = next.map_err(silent)??;
                }
            }
        }
    }

    async fn digest(&mut self, frame: Frame) -> Result<(), String> {
        let packet = match frame {
            // The attachment of a packet that is known as binary already.
            Frame::Binary => return Ok(()),
            Frame::Text(text) => packet::parse(&text)?,
        };
        match packet {
            Packet::Ping => return self.wire.send("3").await,
            Packet::Closed => return Err("the server closed it".to_owned()),
            Packet::Disconnected => {
                return Err("the server disconnected this client".to_owned());
            }
            Packet::Nothing => {}
            Packet::Joined(joined) => self.shared.with(|state| state.joined = Some(joined)),
            Packet::Event(event) => self.shared.with(|state| state.push(event)),
            Packet::Answer { id, answer } => self.shared.with(|state| {
                // One that nobody waits for any more is dropped.
                if let Some(slot) = state.answers.get_mut(&id) {
                    *slot = Some(answer);
                }
            }),
        }
        self.shared.changed.notify_one();
        Ok(())
    }
}
