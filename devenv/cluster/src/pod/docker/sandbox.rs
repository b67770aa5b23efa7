//! One pod: its pause container and the containers that use that one's network.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    LogsOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use devenv_sandbox::{Door, Joined, SandboxError};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::warn;

use super::meter::ContainerMeter;
use super::{Shared, body, failed, is_gone, output, pause, sweep};
use crate::pod::connections;
use crate::pod::runtime::{
    Ended, PodSandbox, RuntimeError, SandboxEvent, SandboxSpec, StartSpec, Started,
};

/// How long a pause container may take from its start to its call.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long the name of a container that is being removed may stay taken.
const NAME_LIMIT: Duration = Duration::from_secs(10);
/// How long an engine that was lost is left alone before it is asked again: from, to.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Exit code of a container whose end nobody saw, as containerd gives it to those that
/// were killed.
const LOST: i64 = 137;

pub(super) struct DockerSandbox {
    shared: Arc<Shared>,
    spec: SandboxSpec,
    /// Tells it from the pod's sandboxes of before.
    number: u64,
    /// The pause container.
    pause: String,
    pause_pid: u32,
    /// Keeps the pause process; taken when the pod is killed.
    joined: Mutex<Option<Joined>>,
    /// What all containers see, as paths here and there.
    files: Vec<(PathBuf, PathBuf)>,
    folder: PathBuf,
    /// The containers that were made, by their names in the pod.
    containers: Mutex<HashMap<String, Made>>,
    event_tx: mpsc::UnboundedSender<SandboxEvent>,
    event_rx: tokio::sync::Mutex<mpsc::UnboundedReceiver<SandboxEvent>>,
}

/// A container that was made.
#[derive(Debug, Clone)]
struct Made {
    id: String,
    /// What the image asks to be sent instead of SIGTERM.
    stop_signal: Option<String>,
}

impl std::fmt::Debug for DockerSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerSandbox")
            .field("pod", &self.spec.name)
            .field("pause", &self.pause)
            .finish_non_exhaustive()
    }
}

impl DockerSandbox {
    /// Makes the pod: its pause container runs, and has its address.
    pub(super) async fn create(
        shared: Arc<Shared>,
        spec: SandboxSpec,
    ) -> Result<Arc<DockerSandbox>, RuntimeError> {
        // A pod whose sandbox broke gets another one while that is still ending.
        let number = shared.number();
        let folder = shared.dir.join(format!("{}-{number}", spec.uid));
        // From here on what there is goes with this.
        let mut half_made = HalfMade {
            shared: shared.clone(),
            folder: folder.clone(),
            pause: None,
        };
        let files = write_files(&folder, &spec)?;
        let door_folder = folder.join("door");
        make_private(&door_folder)?;
        let door = Door::open(&door_folder)?;
        let name = shared.name(&spec, number, pause::NAME);
        let body = pause::body(&shared, &spec, &door_folder);
        let pause = create(&shared.docker, &name, body).await?;
        half_made.pause = Some(pause.clone());
        let joined = Self::join(&shared, &spec, &pause, number, door).await?;
        // One that has ended already has none, and that is told below.
        let pid = pid_of(&shared.docker, &pause).await.unwrap_or(0);
        let (event_tx, event_rx) = mpsc::unbounded_channel();
        watch_pause(&joined, event_tx.clone())?;
        half_made.keep();
        Ok(Arc::new(DockerSandbox {
            shared,
            spec,
            number,
            pause,
            pause_pid: pid,
            joined: Mutex::new(Some(joined)),
            files,
            folder,
            containers: Mutex::default(),
            event_tx,
            event_rx: tokio::sync::Mutex::new(event_rx),
        }))
    }

    async fn join(
        shared: &Arc<Shared>,
        spec: &SandboxSpec,
        pause: &str,
        number: u64,
        door: Door,
    ) -> Result<Joined, RuntimeError> {
        let start = shared
            .docker
            .start_container(pause, None::<StartContainerOptions>);
        start.await.map_err(failed("start the pause container"))?;
        // At most 15 bytes, as the kernel has it.
        let (netd, ip, link) = (shared.netd.clone(), spec.ip, format!("dk{number}"));
        let joining = tokio::task::spawn_blocking(move || door.join(&netd, ip, &link, JOIN_LIMIT));
        let joined = tokio::select! {
            joined = joining => joined,
            () = ended(&shared.docker, pause) => Ok(Err(SandboxError::Died {
                name: "the pause container".to_owned(),
            })),
        };
        match joined {
            Ok(Ok(joined)) => Ok(joined),
            Ok(Err(error)) => {
                let said = said(&shared.docker, pause).await;
                let error = RuntimeError::from(error).full();
                Err(RuntimeError::Other(if said.is_empty() {
                    error
                } else {
                    format!("{error}; the pause container says: {said}")
                }))
            }
            Err(_) => Err(RuntimeError::Other("devenv is shutting down".to_owned())),
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Made>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self, container: &str) -> Result<Made, RuntimeError> {
        let made = self.containers().get(container).cloned();
        made.ok_or_else(|| RuntimeError::Other(format!("container {container} is not running")))
    }

    /// Ends the pod's containers, then the pause container, then tells.
    fn end(&self) {
        let joined = self
            .joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(joined) = joined else {
            return;
        };
        let made: Vec<String> = self.containers().drain().map(|(_, made)| made.id).collect();
        let (shared, pause) = (self.shared.clone(), self.pause.clone());
        let (folder, event_tx) = (self.folder.clone(), self.event_tx.clone());
        let end = async move {
            let removed = made.iter().map(|id| sweep::remove(&shared.docker, id));
            let mut removed = futures_util::future::join_all(removed).await;
            drop(joined);
            removed.push(sweep::remove(&shared.docker, &pause).await);
            for error in removed.into_iter().filter_map(Result::err) {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a container was left"
                );
            }
            remove_folder(&folder);
            // Whoever wanted to know may be gone.
            let _ = event_tx.send(SandboxEvent::Gone);
        };
        // Without a runtime devenv ends; the janitor removes what there is.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end);
        }
    }
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes what there is of a pod that does not come about.
struct HalfMade {
    shared: Arc<Shared>,
    folder: PathBuf,
    pause: Option<String>,
}

impl HalfMade {
    fn keep(mut self) {
        self.pause = None;
        self.folder = PathBuf::new();
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            remove_folder(&self.folder);
        }
        let Some(pause) = self.pause.take() else {
            return;
        };
        // Without a runtime devenv ends; the janitor removes what there is.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let shared = self.shared.clone();
        runtime.spawn(async move {
            if let Err(error) = sweep::remove(&shared.docker, &pause).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a container was left"
                );
            }
        });
    }
}

#[async_trait]
impl PodSandbox for DockerSandbox {
    async fn start(&self, spec: StartSpec) -> Result<Started, RuntimeError> {
        let Some(image) = spec.image.clone() else {
            return Err(RuntimeError::Config(format!(
                "container {:?} runs a program of this machine, and its pod is of the docker runtime",
                spec.name
            )));
        };
        let docker = &self.shared.docker;
        let name = self.shared.name(&self.spec, self.number, &spec.name);
        let body = body::container(
            &self.shared,
            &self.spec,
            &self.pause,
            &self.files,
            &spec,
            &image,
        );
        let before = self.containers().remove(&spec.name);
        if let Some(before) = before {
            sweep::remove(docker, &before.id).await?;
        }
        let id = create(docker, &name, body).await?;
        let made = Made {
            id: id.clone(),
            stop_signal: image.stop_signal.clone(),
        };
        self.containers().insert(spec.name.clone(), made);
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = docker.attach_container(&id, Some(options)).await;
        let attached = attached.map_err(failed("read the container's output"))?;
        let started = docker
            .start_container(&id, None::<StartContainerOptions>)
            .await;
        started.map_err(failed("start the container"))?;
        let (stdout, stderr) = output::split(attached);
        let warnings = self.warnings(&spec);
        let (watched, events) = (id.clone(), self.event_tx.clone());
        tokio::spawn(watch(docker.clone(), watched, spec.name, events));
        // One that has ended already has none.
        let pid = pid_of(docker, &id).await.unwrap_or(0);
        Ok(Started {
            pid,
            stdout,
            stderr,
            warnings,
            meter: Arc::new(ContainerMeter::new(docker.clone(), id)),
        })
    }

    async fn exec(&self, spec: StartSpec) -> Result<Ended, RuntimeError> {
        let docker = &self.shared.docker;
        let made = self.made(&spec.name)?;
        let config = ExecConfig {
            cmd: Some(spec.argv),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let doing = || failed("run a command in the container");
        let exec = docker
            .create_exec(&made.id, config)
            .await
            .map_err(doing())?;
        let started = docker.start_exec(&exec.id, None::<StartExecOptions>).await;
        if let StartExecResults::Attached { mut output, .. } = started.map_err(doing())? {
            while let Some(piece) = output.next().await {
                piece.map_err(doing())?;
            }
        }
        let ended = docker.inspect_exec(&exec.id).await.map_err(doing())?;
        Ok(Ended::Code(code(ended.exit_code.unwrap_or(LOST))))
    }

    async fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError> {
        let made = self.made(container)?;
        let docker = &self.shared.docker;
        // All of its processes, as a signal to the process runtime's containers: PID 1
        // alone would stand still while what it has started goes on.
        if signal == Signal::SIGSTOP as i32 {
            let paused = docker.pause_container(&made.id).await;
            return paused.map_err(failed(format!("pause {container}")));
        }
        if signal == Signal::SIGCONT as i32 {
            let going = docker.unpause_container(&made.id).await;
            return going.map_err(failed(format!("let {container} go on")));
        }
        let asked = made
            .stop_signal
            .filter(|_| signal == Signal::SIGTERM as i32);
        let signal = asked.unwrap_or_else(|| signal.to_string());
        sweep::signal(docker, &made.id, &signal).await
    }

    async fn next_event(&self) -> SandboxEvent {
        let next = self.event_rx.lock().await.recv().await;
        // The sender is this sandbox's own.
        next.unwrap_or(SandboxEvent::Gone)
    }

    async fn inbound(&self) -> usize {
        connections::inbound(self.pause_pid)
    }

    fn kill(&self) {
        self.end();
    }
}

impl DockerSandbox {
    /// Volumes in memory would have to be the engine's, and are folders of this machine.
    fn warnings(&self, spec: &StartSpec) -> Vec<String> {
        let memory = self.spec.tmpfs.iter().filter(|tmpfs| {
            let mut sources = spec.binds.iter().map(|bind| &bind.source);
            sources.any(|source| source.starts_with(&tmpfs.path))
        });
        memory
            .map(|_| "the docker runtime keeps an emptyDir with medium Memory on disk".to_owned())
            .collect()
    }
}

/// Creates a container. One of the same name is what an interrupted try left.
async fn create(
    docker: &Docker,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, RuntimeError> {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let deadline = Instant::now() + NAME_LIMIT;
    let made = loop {
        let made = docker.create_container(Some(options.clone()), body.clone());
        match made.await {
            Err(DockerError::DockerResponseServerError {
                status_code: 409, ..
            }) if Instant::now() < deadline => {
                sweep::remove(docker, name).await?;
                // Its removal may have begun before, and not be done.
                tokio::time::sleep(FIRST_RETRY).await;
            }
            made => break made,
        }
    };
    made.map(|made| made.id)
        .map_err(failed(format!("make the container {name}")))
}

/// Its process on this machine; 0 when it has ended.
async fn pid_of(docker: &Docker, container: &str) -> Result<u32, RuntimeError> {
    let found = docker
        .inspect_container(container, None::<InspectContainerOptions>)
        .await;
    let found = found.map_err(failed("look at the container"))?;
    let pid = found.state.and_then(|state| state.pid).unwrap_or(0);
    Ok(u32::try_from(pid).unwrap_or(0))
}

/// The last that a container has said, in one line.
async fn said(docker: &Docker, container: &str) -> String {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail("5")
        .build();
    let mut lines = docker.logs(container, Some(options));
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next().await {
        said.push_str(line.to_string().trim_end());
        said.push(' ');
    }
    said.trim_end().to_owned()
}

/// Resolves when a container has ended.
async fn ended(docker: &Docker, container: &str) {
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    // However that is told: an error means that it does not run.
    let _ = docker.wait_container(container, Some(options)).next().await;
}

/// Waits for a container's end and tells it, also across restarts of the engine.
async fn watch(
    docker: Docker,
    id: String,
    container: String,
    event_tx: mpsc::UnboundedSender<SandboxEvent>,
) {
    let mut rest = FIRST_RETRY;
    let status = loop {
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        match docker.wait_container(&id, Some(options)).next().await {
            Some(Ok(ended)) => break ended.status_code,
            // Any code but 0 is told as an error.
            Some(Err(DockerError::DockerContainerWaitError { code, .. })) => break code,
            Some(Err(error)) if is_gone(&error) => break LOST,
            Some(Err(_)) | None if event_tx.is_closed() => return,
            Some(Err(_)) | None => {
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(LAST_RETRY);
            }
        }
    };
    let state = docker
        .inspect_container(&id, None::<InspectContainerOptions>)
        .await;
    let state = state.ok().and_then(|found| found.state);
    let out_of_memory = state.and_then(|state| state.oom_killed).unwrap_or(false);
    // Whoever wanted to know may be gone.
    let _ = event_tx.send(SandboxEvent::Exited {
        container,
        ended: Ended::Code(code(status)),
        out_of_memory,
    });
}

fn code(status: i64) -> i32 {
    i32::try_from(status).unwrap_or(-1)
}

/// Tells when the pause process is gone, and the pod's network with it.
fn watch_pause(joined: &Joined, event_tx: mpsc::UnboundedSender<SandboxEvent>) -> io::Result<()> {
    use std::os::fd::AsFd;
    // Only asked whether there is something to read.
    let channel = std::os::unix::net::UnixStream::from(joined.as_fd().try_clone_to_owned()?);
    channel.set_nonblocking(true)?;
    let channel = UnixStream::from_std(channel)?;
    tokio::spawn(async move {
        // It says nothing: what can be read is the end.
        let _ = channel.readable().await;
        let _ = event_tx.send(SandboxEvent::Gone);
    });
    Ok(())
}

fn remove_folder(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => warn!(
            error = &error as &dyn std::error::Error,
            "a pod's folder was left"
        ),
        _ => {}
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// The files of all the pod's containers, as the engine can show them.
fn write_files(folder: &Path, spec: &SandboxSpec) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let folder = folder.join("files");
    make_private(&folder)?;
    let mut written = Vec::new();
    for (number, file) in spec.files.iter().enumerate() {
        let source = folder.join(number.to_string());
        let mut made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&source)?;
        made.write_all(&file.contents)?;
        // Whatever the umask: the container's user must read it.
        made.set_permissions(fs::Permissions::from_mode(file.mode))?;
        written.push((source, file.path.clone()));
    }
    Ok(written)
}
