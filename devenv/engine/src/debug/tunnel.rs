//! The way from this machine's loopback to a debugger in a pod.
//!
//! The workload's newest pod that is debugged has it: both connections that a client of
//! Node's inspector makes must reach the same program, and after an edit it is the new
//! version that is debugged.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use devenv_model::Object;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
};
use tokio_util::task::TaskTracker;

use super::template::DEBUG;
use crate::{live::Live, observe::Observed, workload::belongs};

/// How long to rest when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A workload's debugged pods: which they are, and where they listen.
#[derive(Debug, Clone)]
pub(super) struct Debugged {
    pub object: Object,
    /// What marks their template.
    pub annotation: String,
    /// In the pod.
    pub port: u16,
    /// Whether a connection that was made only to look must be the first client's:
    /// debugpy takes no client while it still clears up after one that hung up.
    pub kept: bool,
    /// What attaches to the program, where nothing listens in the pod.
    pub attach: Option<Attach>,
    /// The pod that was found to listen.
    pub found: Arc<Mutex<Option<Found>>>,
}

/// A program of this machine that is attached to what a container runs, for as long as a
/// client is connected. What was attached to runs on when it ends.
#[derive(Debug, Clone)]
pub(super) struct Attach {
    pub container: String,
    /// gdbserver's file.
    pub program: PathBuf,
    /// As whom it runs when devenv is root: the program's own user.
    pub owner: (u32, u32),
}

/// A pod whose debugger listens.
#[derive(Debug)]
pub(super) struct Found {
    uid: String,
    /// The connection that found it out, until a client has it.
    stream: Option<TcpStream>,
}

impl Debugged {
    /// Those that run, the newest first.
    pub fn pods(&self, observed: &Observed) -> Vec<Arc<Pod>> {
        let mut found: Vec<_> = observed
            .pods
            .values()
            .filter(|p| belongs(&self.object, &p.pod))
            .filter(|p| p.pod.annotations().get(DEBUG) == Some(&self.annotation))
            .filter(|p| p.pod.metadata.deletion_timestamp.is_none())
            .filter_map(|p| Some((p.started?, p.pod.clone())))
            .collect();
        found.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
        found.into_iter().map(|(_, pod)| pod).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the newest pod's debugger listens. One that was found to listen is not
    /// asked again: its client may be connected.
    pub async fn listens(&self, live: &Live) -> bool {
        if self.attach.is_some() {
            return true;
        }
        let newest = self
            .pods(&live.observer.look())
            .first()
            .and_then(|p| p.uid());
        let known = self.lock().as_ref().map(|f| f.uid.clone());
        if known.is_some() && known == newest {
            return true;
        }
        let Ok((uid, stream)) = self.dial(live).await else {
            return false;
        };
        let stream = self.kept.then_some(stream);
        *self.lock() = Some(Found { uid, stream });
        true
    }

    /// Connects to the debugger of the newest pod that has one.
    async fn connect(&self, live: &Live) -> io::Result<TcpStream> {
        let newest = self
            .pods(&live.observer.look())
            .first()
            .and_then(|p| p.uid());
        let found = self
            .lock()
            .as_mut()
            .filter(|f| newest.as_ref() == Some(&f.uid))
            .and_then(|f| f.stream.take());
        match found {
            Some(stream) => Ok(stream),
            None => Ok(self.dial(live).await?.1),
        }
    }

    /// The newest pod that takes a connection, and that.
    async fn dial(&self, live: &Live) -> io::Result<(String, TcpStream)> {
        let pods = self.pods(&live.observer.look());
        let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
        for pod in pods {
            let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref());
            let Some(ip) = ip.and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
                continue;
            };
            match live.target.connect(SocketAddrV4::new(ip, self.port)).await {
                Ok(stream) => return Ok((pod.uid().unwrap_or_default(), stream)),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// Carries connections until it is dropped.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    /// From `listener` (non-blocking) to the debugger.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn start(
        live: &Arc<Live>,
        listener: TcpListener,
        debugged: Debugged,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // Weak: the system may go down while a client is connected.
        let live = Arc::downgrade(live);
        let task = tasks.spawn(serve(live, listener, debugged)).abort_handle();
        Ok(Self { address, task })
    }
}

async fn serve(live: Weak<Live>, listener: tokio::net::TcpListener, debugged: Debugged) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    clients.spawn(carry(live.clone(), client, debugged.clone()));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a debugger's client could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn carry(live: Weak<Live>, mut client: TcpStream, debugged: Debugged) {
    if let Some(attach) = &debugged.attach {
        let pid = live.upgrade().and_then(|live| {
            let pods = debugged.pods(&live.observer.look());
            let uid = pods.first()?.uid()?;
            live.target.container_pid(&uid, &attach.container)
        });
        if let Some(pid) = pid
            && let Err(e) = attached(client, attach, pid).await
        {
            tracing::warn!(error = %e, pid, "gdbserver");
        }
        return;
    }
    let connected = match live.upgrade() {
        Some(live) => debugged.connect(&live).await,
        None => return,
    };
    match connected {
        Ok(mut server) => {
            let _ = client.set_nodelay(true);
            // An error of either ends both.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Err(e) => tracing::debug!(error = %e, "no debugger answers"),
    }
}

/// Speaks to gdbserver by its standard input and output: when this process dies they
/// close, and it ends.
async fn attached(client: TcpStream, attach: &Attach, pid: u32) -> io::Result<()> {
    let mut command = tokio::process::Command::new(&attach.program);
    command
        .args(["--once", "--attach", "stdio", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        command.gid(attach.owner.1).uid(attach.owner.0);
    }
    let mut server = command.spawn()?;
    let (Some(stdin), Some(stdout)) = (server.stdin.take(), server.stdout.take()) else {
        return Ok(());
    };
    client.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut stdin, mut stdout) = (stdin, stdout);
    // The end of either, or its error, ends both; only a dropped pipe is closed.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut stdin) => {}
        _ = tokio::io::copy(&mut stdout, &mut to_client) => {}
    }
    drop((stdin, stdout));
    // It lets go of the program when its input ends.
    server.wait().await.map(drop)
}
