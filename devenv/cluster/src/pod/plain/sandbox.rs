//! One pod as plain processes.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use devenv_sandbox::{Exit, HeldEvent, Holder, HostProcess, SandboxError};
use k8s_openapi::api::core::v1::Container;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Shared;
use super::door::{Given, PodDoor};
use super::hosts::Hosts;
use super::listen::Listen;
use super::paths::{self, Moved};
use super::rewrite;
use super::room::Room;
use crate::net::loopback::is_free;
use crate::pod::connections::inbound_at;
use crate::pod::metrics::processes::ProcessMeter;
use crate::pod::runtime::{
    Ended, Output, PodSandbox, RuntimeError, SandboxEvent, SandboxSpec, StartSpec, Started,
};

/// Where a program is told to listen.
const PORT: &str = "PORT";
const HOST: &str = "HOST";
/// Where its temporary files go.
const TEMPORARY: &str = "TMPDIR";
/// Values of `HOST` that mean every address.
const EVERYWHERE: [&str; 3] = ["0.0.0.0", "::", "[::]"];
/// Folders that every program may write to on this machine as well.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// One pod.
pub(super) struct PlainSandbox {
    pod: Arc<PlainPod>,
    events_rx: tokio::sync::Mutex<mpsc::UnboundedReceiver<SandboxEvent>>,
    /// Ends the tasks, and with them what they hold.
    dropped: CancellationToken,
}

/// What the tasks of its containers share with it.
struct PlainPod {
    shared: Arc<Shared>,
    spec: SandboxSpec,
    door: Arc<PodDoor>,
    room: Room,
    state: Mutex<State>,
    events_tx: mpsc::UnboundedSender<SandboxEvent>,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Run>,
    prepared: HashMap<String, Prepared>,
    /// Why runs ended, by container.
    explained: HashMap<String, String>,
    killed: bool,
}

/// A container that runs.
#[derive(Clone)]
struct Run {
    holder: Arc<Holder>,
    execs: Arc<Mutex<HashMap<String, oneshot::Sender<Ended>>>>,
}

impl Run {
    fn execs(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Ended>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a container is given before it is started.
#[derive(Debug, Clone)]
struct Prepared {
    port: u16,
    stands_for: Option<u16>,
    declared: Vec<u16>,
    mounts: Vec<PathBuf>,
}

impl std::fmt::Debug for PlainSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainSandbox")
            .field("pod", &self.pod.spec.hostname)
            .finish_non_exhaustive()
    }
}

impl Drop for PlainSandbox {
    fn drop(&mut self) {
        self.dropped.cancel();
        let pod = &self.pod;
        let mut state = pod.lock();
        // Nothing is started any more, and what runs is killed.
        state.killed = true;
        state.running.clear();
        for prepared in state.prepared.values() {
            pod.shared.loopback.give_back(prepared.port);
        }
        pod.shared.loopback.dismiss(pod.spec.ip);
        drop(state);
        pod.room.clear();
    }
}

impl PlainSandbox {
    pub(super) fn new(shared: Arc<Shared>, spec: SandboxSpec, door: Arc<PodDoor>) -> PlainSandbox {
        let (events_tx, events_rx) = mpsc::unbounded_channel();
        // Without dots: in a path it must not be taken for the pod's address.
        let name = spec.ip.to_string().replace('.', "-");
        let room = Room::new(shared.dir.join(name), shared.owner);
        PlainSandbox {
            pod: Arc::new(PlainPod {
                shared,
                spec,
                door,
                room,
                state: Mutex::default(),
                events_tx,
            }),
            events_rx: tokio::sync::Mutex::new(events_rx),
            dropped: CancellationToken::new(),
        }
    }

    fn running(&self, container: &str) -> Result<Run, RuntimeError> {
        let run = self.pod.lock().running.get(container).cloned();
        run.ok_or_else(|| {
            RuntimeError::Sandbox(SandboxError::NotRunning {
                container: container.to_owned(),
            })
        })
    }

    /// Follows a run to its end.
    fn follow(&self, name: String, run: Run) -> Result<(), RuntimeError> {
        let events =
            std::os::unix::net::UnixStream::from(run.holder.events().try_clone_to_owned()?);
        events.set_nonblocking(true)?;
        let events = UnixStream::from_std(events)?;
        let (pod, dropped) = (self.pod.clone(), self.dropped.clone());
        tokio::spawn(async move {
            tokio::select! {
                ended = until_ended(&run, &events) => pod.has_ended(name, ended).await,
                () = dropped.cancelled() => {}
            }
        });
        Ok(())
    }
}

impl PlainPod {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: SandboxEvent) {
        // Nobody listens to a pod that was dropped.
        let _ = self.events_tx.send(event);
    }

    fn prepared(&self, container: &str) -> Option<Prepared> {
        self.lock().prepared.get(container).cloned()
    }

    fn prepare(
        &self,
        container: &Container,
        image: &[(String, String)],
        own: &mut Vec<(String, String)>,
    ) {
        let find = |name: &str| {
            let all = own.iter().chain(image);
            all.clone()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.clone())
        };
        let (port, host) = (find(PORT), find(HOST));
        let ports = container.ports.iter().flatten();
        let declared: Vec<u16> = ports
            .filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP")
            .filter_map(|p| u16::try_from(p.container_port).ok())
            .collect();
        let named = port
            .and_then(|text| text.parse().ok())
            .filter(|port| *port > 0);
        let stands_for = named.or_else(|| declared.first().copied());
        let before = self.prepared(&container.name).map(|p| p.port);
        let kept = before.filter(|port| is_free(*port));
        let Some(given) = kept.or_else(|| self.shared.loopback.give_port()) else {
            warn!(pod = self.spec.hostname, "no port is free for a container");
            return;
        };
        if let Some(before) = before.filter(|port| *port != given) {
            self.shared.loopback.give_back(before);
        }
        let mut set = |name: &str, value: String| match own.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => own.push((name.to_owned(), value)),
        };
        set(PORT, given.to_string());
        if host.is_none_or(|host| EVERYWHERE.contains(&host.as_str())) {
            set(HOST, self.door.ip().to_string());
        }
        let prepared = Prepared {
            port: given,
            stands_for,
            declared,
            mounts: container
                .volume_mounts
                .iter()
                .flatten()
                .map(|mount| PathBuf::from(&mount.mount_path))
                .collect(),
        };
        // Now, so that `$(NAME)` in the command line has the new values.
        self.listen(&prepared, |listen| listen.variables(own));
        self.lock()
            .prepared
            .insert(container.name.clone(), prepared);
    }

    fn listen(&self, prepared: &Prepared, f: impl FnOnce(&Listen<'_>)) {
        if let Some(stands_for) = prepared.stands_for {
            f(&Listen {
                stands_for,
                host: &self.door.ip().to_string(),
                port: prepared.port,
            });
        }
    }

    /// The process that a container is, or a command beside it: with real addresses and paths.
    fn process(&self, spec: StartSpec, beside: bool) -> Result<HostProcess, RuntimeError> {
        let StartSpec {
            name,
            mut argv,
            mut env,
            mut cwd,
            binds,
            run_as,
            ..
        } = spec;
        let prepared = self.prepared(&name);
        let mounts = prepared
            .as_ref()
            .map(|p| p.mounts.clone())
            .unwrap_or_default();
        let mut moved: Vec<Moved> = binds
            .into_iter()
            .map(|bind| Moved {
                optional: beside
                    || bind.source == bind.target
                    || !mounts.contains(&bind.target)
                    || is_scratch(&bind.target),
                from: bind.target,
                to: bind.source,
            })
            .collect();
        if let Some(scratch) = moved.iter().find(|m| is_scratch(&m.from)) {
            let place = scratch.to.to_string_lossy();
            for (_, value) in env.iter_mut().filter(|(name, _)| name == TEMPORARY) {
                *value = place.clone().into_owned();
            }
        }
        // What is a path of this machine already stays, also below one that is replaced.
        let real = moved.iter().map(|m| m.to.clone());
        let real: Vec<PathBuf> = real.chain([self.shared.dir.clone()]).collect();
        moved.extend(real.into_iter().map(|path| Moved {
            from: path.clone(),
            to: path,
            optional: true,
        }));
        paths::replace(&mut moved, &mut env, &mut argv, &mut cwd).map_err(|path| {
            RuntimeError::Config(format!(
                "a volume is to be mounted at {}, and without namespaces nothing can be mounted; no variable and \
                 no argument of container {name:?} names that path, so it cannot be given another: let one name \
                 it, or {}",
                path.display(),
                self.shared.remedy
            ))
        })?;
        if let Some(prepared) = &prepared {
            self.listen(prepared, |listen| {
                listen.variables(&mut env);
                if !beside {
                    listen.arguments(&mut argv);
                } else if self.door.heeds_port(listen.stands_for) {
                    listen.arguments(&mut argv);
                    listen.beside(&mut argv);
                }
            });
        }
        let hosts = Hosts {
            store: &self.shared.store,
            loopback: &self.shared.loopback,
            namespace: &self.spec.namespace,
        };
        rewrite::variables(&mut env, &hosts);
        rewrite::arguments(&mut argv, &hosts);
        Ok(HostProcess {
            argv,
            env,
            cwd,
            run_as,
        })
    }

    /// Starts a container's program under a holder of its own.
    fn begin(&self, mut spec: StartSpec) -> Result<(Run, devenv_sandbox::Container), RuntimeError> {
        let name = spec.name.clone();
        let user = spec.run_as.unwrap_or(self.shared.owner);
        let temporary = self.room.temporary(&name, user)?;
        if !spec.env.iter().any(|(name, _)| name == TEMPORARY) {
            let place = temporary.to_string_lossy().into_owned();
            spec.env.push((TEMPORARY.to_owned(), place));
        }
        let process = self.process(spec, false)?;
        let run = Run {
            holder: Arc::new(self.shared.plain.hold(process.run_as)?),
            execs: Arc::default(),
        };
        let started = run.holder.start(&process)?;
        if let Some(prepared) = self.prepared(&name) {
            self.door.begin(
                &name,
                Given {
                    port: prepared.port,
                    stands_for: prepared.stands_for,
                    declared: prepared.declared,
                    holder: Arc::downgrade(&run.holder),
                },
            );
        }
        let mut state = self.lock();
        if state.killed {
            return Err(RuntimeError::Other("the pod is being ended".to_owned()));
        }
        state.explained.remove(&name);
        state.running.insert(name, run.clone());
        drop(state);
        Ok((run, started))
    }

    async fn has_ended(&self, container: String, ended: Ended) {
        let left = self.door.end(&container);
        let failed = ended != Ended::Code(0) && !self.lock().killed;
        if let Some((given, false)) = left
            && failed
            && let Some(why) = self.taken(&given, &container).await
        {
            self.lock().explained.insert(container.clone(), why);
        }
        let is_last = {
            let mut state = self.lock();
            state.running.remove(&container);
            state.killed && state.running.is_empty()
        };
        self.tell(SandboxEvent::Exited {
            container,
            ended,
            // Nothing counts its memory.
            out_of_memory: false,
        });
        if is_last {
            self.tell(SandboxEvent::Gone);
        }
    }

    /// Why a program that failed and was never seen listening may have failed: its port is another's.
    async fn taken(&self, given: &Given, container: &str) -> Option<String> {
        let mut ports = given
            .stands_for
            .into_iter()
            .chain(given.declared.iter().copied());
        let port = ports.find(|port| !is_free(*port))?;
        let holder = self.shared.loopback.holder_of(port, self.spec.ip).await;
        let holder = holder.unwrap_or_else(|| "another program of this machine".to_owned());
        Some(format!(
            "container {container:?} ended while port {port} was held by {holder}; without namespaces only one \
             program can listen there: let it listen at the port in PORT, or set replicas to 1, or {}",
            self.shared.remedy
        ))
    }
}

/// Kills a command beside a container when its caller has stopped waiting.
struct ExecGuard {
    run: Run,
    name: String,
}

impl Drop for ExecGuard {
    fn drop(&mut self) {
        if self.run.execs().remove(&self.name).is_some() {
            let (holder, name) = (self.run.holder.clone(), self.name.clone());
            tokio::task::spawn_blocking(move || holder.kill_exec(&name));
        }
    }
}

#[async_trait]
impl PodSandbox for PlainSandbox {
    fn prepare(
        &self,
        container: &Container,
        image: &[(String, String)],
        own: &mut Vec<(String, String)>,
    ) {
        self.pod.prepare(container, image, own);
    }

    async fn start(&self, spec: StartSpec) -> Result<Started, RuntimeError> {
        let (pod, name) = (self.pod.clone(), spec.name.clone());
        let (run, started) = blocking(move || pod.begin(spec)).await??;
        let outputs = output(started.stdout).and_then(|out| Ok((out, output(started.stderr)?)));
        let begun = outputs.and_then(|outputs| {
            self.follow(name.clone(), run)?;
            Ok(outputs)
        });
        if begun.is_err() {
            // Nobody would hear of its end.
            self.pod.lock().running.remove(&name);
        }
        let (stdout, stderr) = begun?;
        Ok(Started {
            pid: started.pid,
            stdout,
            stderr,
            warnings: Vec::new(),
            meter: ProcessMeter::new(started.meter),
        })
    }

    async fn exec(&self, spec: StartSpec) -> Result<Ended, RuntimeError> {
        let run = self.running(&spec.name)?;
        let (done_tx, done_rx) = oneshot::channel();
        let name = uuid::Uuid::new_v4().simple().to_string();
        // Before it starts: it may end before `exec` has returned.
        run.execs().insert(name.clone(), done_tx);
        let pod = self.pod.clone();
        let started = blocking({
            let (run, name) = (run.clone(), name.clone());
            move || {
                let process = pod.process(spec, true)?;
                Ok::<_, RuntimeError>(run.holder.exec(&name, &process)?)
            }
        })
        .await?;
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                run.execs().remove(&name);
                return Err(error);
            }
        };
        let _guard = ExecGuard {
            run: run.clone(),
            name,
        };
        // Read to the end, so that it never blocks on a full pipe.
        let (mut stdout, mut stderr) = (output(started.stdout)?, output(started.stderr)?);
        tokio::spawn(async move {
            let (mut nowhere, mut nowhere_else) = (tokio::io::sink(), tokio::io::sink());
            let _ = tokio::join!(
                tokio::io::copy(&mut stdout, &mut nowhere),
                tokio::io::copy(&mut stderr, &mut nowhere_else)
            );
        });
        done_rx.await.map_err(|_| {
            RuntimeError::Other("the container went before the command ended".to_owned())
        })
    }

    async fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError> {
        let run = self.running(container)?;
        Ok(blocking(move || run.holder.signal(signal)).await??)
    }

    async fn next_event(&self) -> SandboxEvent {
        let mut events = self.events_rx.lock().await;
        events.recv().await.unwrap_or(SandboxEvent::Gone)
    }

    fn explain(&self, container: &str) -> Option<String> {
        self.pod.lock().explained.get(container).cloned()
    }

    async fn inbound(&self) -> usize {
        let ports = self.pod.door.real_ports();
        if ports.is_empty() {
            return 0;
        }
        blocking(move || inbound_at(&ports))
            .await
            .unwrap_or_default()
    }

    fn kill(&self) {
        let runs: Vec<Run> = {
            let mut state = self.pod.lock();
            state.killed = true;
            state.running.values().cloned().collect()
        };
        if runs.is_empty() {
            self.pod.tell(SandboxEvent::Gone);
        } else {
            // Asking blocks for a moment.
            tokio::task::spawn_blocking(move || runs.iter().for_each(|run| run.holder.kill()));
        }
    }
}

fn is_scratch(path: &Path) -> bool {
    SCRATCH.iter().any(|scratch| path == Path::new(scratch))
}

async fn until_ended(run: &Run, events: &UnixStream) -> Ended {
    loop {
        let next = match events.readable().await {
            Ok(()) => events.try_io(Interest::READABLE, || match run.holder.next_event() {
                Ok(Some(event)) => Ok(event),
                Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(io::Error::other(error)),
            }),
            Err(error) => Err(error),
        };
        match next {
            Ok(HeldEvent::Ended(exit)) => return ended(exit),
            Ok(HeldEvent::ExecEnded { name, exit }) => {
                if let Some(done_tx) = run.execs().remove(&name) {
                    // Nobody waits any more when the probe timed out.
                    let _ = done_tx.send(ended(exit));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a container's events cannot be read"
                );
                return Ended::Signal(nix::sys::signal::Signal::SIGKILL as i32);
            }
        }
    }
}

fn ended(exit: Exit) -> Ended {
    match exit {
        Exit::Code(code) => Ended::Code(code),
        Exit::Signal(signal) => Ended::Signal(signal),
    }
}

fn output(fd: OwnedFd) -> Result<Output, RuntimeError> {
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
}

/// Runs what blocks for a few milliseconds.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(f).await.map_err(|_| {
        RuntimeError::Other("a call did not come back: devenv is shutting down".to_owned())
    })
}
