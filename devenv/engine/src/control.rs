//! How another `devenv` asks the running system for something: a socket in the state
//! folder, which only the project's owner can enter.
//!
//! The client writes a line, [`Ask`] as JSON; the supervisor answers with lines, the
//! events that come meanwhile and at last [`Reply::Done`], [`Reply::Debugging`] or
//! [`Reply::Refused`]. Only [`Ask::Follow`] has no such end.

use std::{collections::BTreeSet, fs, io, os::fd::AsRawFd, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};

use crate::{
    debug::{self, Session, Wish},
    event::{Event, Report},
    live::Live,
    nodes,
    reload::{Outcome, Request},
    up::UpError,
    wait,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// Build and roll these images or workloads, all where there is none, changed or
    /// not.
    Reload {
        /// Names of `[image.NAME]` or of workloads.
        names: BTreeSet<String>,
    },
    /// Run a workload under its debugger.
    Debug {
        /// Which, and how.
        wish: Wish,
    },
    /// Run a workload without a debugger again.
    DebugOff {
        /// Which.
        wish: Wish,
    },
    /// Read the project's files and apply what they say, and wait until it is ready.
    Apply {
        /// How long to wait, in seconds.
        timeout_s: u64,
    },
    /// Tell what happens from now on, until the client goes or the system does.
    Follow,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Something happened.
    Event {
        /// What.
        happened: Event,
    },
    /// To [`Ask::Follow`]: nothing that happens after this is left out.
    Following,
    /// Some of what happened is not told: the client or this machine was too slow.
    Lagged,
    /// The debugger listens.
    Debugging {
        /// Where, and what it has.
        session: Box<Session>,
    },
    /// What was asked for is done.
    Done,
    /// It could not be done.
    Refused {
        /// Why.
        report: Report,
    },
}

const SOCKET: &str = "control.sock";

/// A path of the socket that is short enough for every state folder: sockets' names have
/// at most 108 bytes.
fn short(state_dir: &Path) -> io::Result<(fs::File, std::path::PathBuf)> {
    let folder = fs::File::open(state_dir.join("run"))?;
    let path = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(SOCKET);
    Ok((folder, path))
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    task: AbortHandle,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    /// Listens in the state folder; requests for reloads go to `requests_tx`.
    pub fn start(
        live: &Arc<Live>,
        requests_tx: mpsc::Sender<Request>,
        tracker: &tokio_util::task::TaskTracker,
    ) -> io::Result<Self> {
        let (_folder, path) = short(&live.state_dir)?;
        let listener = UnixListener::bind(path)?;
        let live = live.clone();
        let serve = async move {
            let mut clients = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let (live, requests_tx) = (live.clone(), requests_tx.clone());
                        clients.spawn(async move {
                            if let Err(e) = serve(&live, &requests_tx, stream).await {
                                tracing::debug!(error = %e, "a client of the control socket");
                            }
                        });
                    }
                    Some(_) = clients.join_next() => {}
                }
            }
        };
        let task = tracker.spawn(serve).abort_handle();
        Ok(Self { task })
    }
}

async fn serve(
    live: &Arc<Live>,
    requests_tx: &mpsc::Sender<Request>,
    stream: UnixStream,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read);
    read.read_line(&mut line).await?;
    let ask: Ask = serde_json::from_str(&line).map_err(io::Error::other)?;
    let (_, mut events) = live.bus.subscribe();
    if ask == Ask::Follow {
        return follow(&mut events, read, &mut write).await;
    }
    let (event_tx, mut event_rx) = mpsc::unbounded_channel();
    let telling = async {
        while let Some(event) = event_rx.recv().await {
            send(&mut write, &Reply::Event { happened: event }).await?;
        }
        io::Result::Ok(&mut write)
    };
    let doing = async {
        let done = answer(live, requests_tx, ask, &mut events, &event_tx).await;
        drop(event_tx);
        done
    };
    let (write, reply) = tokio::join!(telling, doing);
    send(write?, &reply).await
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Tells what happens, but for the lines that builds print: those of one that fails are
/// told with it.
async fn follow(
    events: &mut Events,
    mut client: impl AsyncRead + Unpin,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    send(write, &Reply::Following).await?;
    let mut nothing = [0; 1];
    loop {
        let reply = tokio::select! {
            // Clients have said all: what comes is their end.
            _ = client.read(&mut nothing) => return Ok(()),
            event = events.recv() => match event {
                Ok(event) if matches!(*event, Event::Output { .. }) => continue,
                Ok(event) => Reply::Event {
                    happened: (*event).clone(),
                },
                Err(RecvError::Lagged(_)) => Reply::Lagged,
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        send(write, &reply).await?;
    }
}

type Events = tokio::sync::broadcast::Receiver<Arc<Event>>;

async fn answer(
    live: &Arc<Live>,
    requests_tx: &mpsc::Sender<Request>,
    ask: Ask,
    events: &mut Events,
    event_tx: &mpsc::UnboundedSender<Event>,
) -> Reply {
    if matches!(ask, Ask::Reload { .. } | Ask::Apply { .. }) {
        for event in live.not_ready.events() {
            // Whoever asked may have gone.
            let _ = event_tx.send(event);
        }
    }
    match ask {
        // Has no answer of this kind.
        Ask::Follow => Reply::Done,
        Ask::Debug { wish } => match debug::start(live, &wish).await {
            Ok(session) => Reply::Debugging {
                session: Box::new(session),
            },
            Err(e) => Reply::Refused { report: e.report() },
        },
        Ask::DebugOff { wish } => match debug::stop(live, &wish).await {
            Ok(()) => Reply::Done,
            Err(e) => Reply::Refused { report: e.report() },
        },
        Ask::Reload { names } => {
            let (answer_tx, answer_rx) = oneshot::channel();
            let sent = requests_tx.send(Request::Images(names.clone(), answer_tx));
            let images = match sent.await {
                Ok(()) => answer_rx.await.unwrap_or_default(),
                Err(_) => return refused("this system does not reload (up --no-watch)", None),
            };
            if images.is_empty() {
                let names: Vec<String> = names.into_iter().collect();
                let known = "devenv status lists the workloads";
                let what = format!(
                    "nothing that is built from source is called {}",
                    names.join(", ")
                );
                return refused(&what, Some(known));
            }
            reloaded(images, events, event_tx).await
        }
        Ask::Apply { timeout_s } => {
            let (answer_tx, answer_rx) = oneshot::channel();
            if requests_tx.send(Request::Project(answer_tx)).await.is_err() {
                return refused("this system does not reload (up --no-watch)", None);
            }
            let timeout = Duration::from_secs(timeout_s);
            let ready = async {
                // Dropped only when the system goes down.
                let _ = answer_rx.await;
                let topology = live.topology();
                wait::until_ready(
                    &live.client,
                    &live.observer,
                    &topology.project().namespace,
                    topology.objects(),
                    timeout,
                    &live.bus,
                )
                .await
            };
            match nodes::told_meanwhile(events, event_tx, ready).await {
                Ok(()) => Reply::Done,
                Err(late) => Reply::Refused {
                    report: UpError::NotReady {
                        waited: timeout,
                        late,
                    }
                    .report(),
                },
            }
        }
    }
}

/// Tells of each image's reload, until the last has ended in one way or another.
async fn reloaded(
    mut images: BTreeSet<String>,
    events: &mut Events,
    event_tx: &mpsc::UnboundedSender<Event>,
) -> Reply {
    let mut failed = None;
    while !images.is_empty() {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return refused("the system is going down", None),
        };
        nodes::pass_on(&event, event_tx);
        let Event::Reload { reload } = &*event else {
            continue;
        };
        let mut concerned = false;
        for name in reload.what.split(", ") {
            concerned |= images.remove(name);
        }
        if !concerned {
            continue;
        }
        let good = matches!(
            reload.outcome,
            Outcome::Reloaded | Outcome::Synced | Outcome::Applied | Outcome::Superseded
        );
        if !good {
            failed.clone_from(&reload.error);
        }
        // Whoever asked may have gone.
        let _ = event_tx.send((*event).clone());
    }
    match failed {
        None => Reply::Done,
        Some(report) => Reply::Refused { report },
    }
}

fn refused(message: &str, help: Option<&str>) -> Reply {
    Reply::Refused {
        report: Report {
            message: message.to_owned(),
            causes: Vec::new(),
            help: help.map(str::to_owned),
            output: None,
            exit_code: 1,
        },
    }
}

/// A question to the supervisor of a project, and its answers.
#[derive(Debug)]
pub struct Asking {
    lines: tokio::io::Lines<BufReader<UnixStream>>,
}

impl Asking {
    /// Asks the supervisor whose state folder this is.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn start(state_dir: &Path, ask: &Ask) -> io::Result<Self> {
        let (_folder, path) = short(state_dir)?;
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(ask).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        Ok(Self {
            lines: BufReader::new(stream).lines(),
        })
    }

    /// The next answer; nothing when the supervisor has ended.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn next(&mut self) -> io::Result<Option<Reply>> {
        match self.lines.next_line().await? {
            Some(line) => serde_json::from_str(&line)
                .map(Some)
                .map_err(io::Error::other),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Bus;

    #[tokio::test]
    async fn a_follower_is_told_what_comes_until_the_system_goes() {
        let bus = Bus::default();
        bus.emit(Event::Stopping);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, mut write) = ours.into_split();
        let (_, mut events) = bus.subscribe();
        let serving = tokio::spawn(async move { follow(&mut events, read, &mut write).await });
        let mut asking = Asking {
            lines: BufReader::new(theirs).lines(),
        };
        assert_eq!(asking.next().await.unwrap(), Some(Reply::Following));
        bus.emit(Event::Output {
            source: "api1".into(),
            line: "Compiling".into(),
        });
        let rolling = Event::Rolling {
            workload: "Deployment api1".into(),
        };
        bus.emit(rolling.clone());
        let told = Reply::Event { happened: rolling };
        assert_eq!(asking.next().await.unwrap(), Some(told));
        drop(bus);
        assert_eq!(asking.next().await.unwrap(), None);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_follower_that_goes_is_noticed_though_nothing_happens() {
        let bus = Bus::default();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, mut write) = ours.into_split();
        let (_, mut events) = bus.subscribe();
        drop(theirs);
        // Writing the first line may fail already.
        let _ = follow(&mut events, read, &mut write).await;
    }
}
