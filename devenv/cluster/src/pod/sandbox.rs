//! The process runtime: pods as sandboxes of [`devenv_sandbox`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use devenv_sandbox::{ContainerSpec, Exit, FileMount, Netd, Pod, PodEvent, PodSpec};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tracing::warn;

use super::metrics::processes::ProcessMeter;
use super::runtime::{
    Ended, Output, PodRuntime, PodSandbox, RuntimeError, SandboxEvent, SandboxSpec, StartSpec,
    Started,
};
use super::volumes::File;

/// Runs pods as processes under `netd`.
pub struct ProcessRuntime {
    netd: Arc<Netd>,
}

impl std::fmt::Debug for ProcessRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRuntime").finish_non_exhaustive()
    }
}

impl ProcessRuntime {
    /// A runtime whose pods live in this cluster network.
    pub fn new(netd: Arc<Netd>) -> ProcessRuntime {
        ProcessRuntime { netd }
    }
}

#[async_trait]
impl PodRuntime for ProcessRuntime {
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        let netd = self.netd.clone();
        let spec = PodSpec {
            hostname: spec.hostname,
            ip: spec.ip,
            files: files(spec.files),
            limits: spec.limits,
            tmpfs: spec.tmpfs,
        };
        let pod = blocking(move || netd.create_pod(&spec)).await??;
        let pod = Arc::new(pod);
        let events = std::os::unix::net::UnixStream::from(pod.events().try_clone_to_owned()?);
        events.set_nonblocking(true)?;
        let events = UnixStream::from_std(events)?;
        Ok(Arc::new(ProcessSandbox {
            pod,
            events,
            execs: Mutex::default(),
        }))
    }

    fn limits_missing(&self) -> Option<String> {
        self.netd.limits_missing().map(str::to_owned)
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(f).await.map_err(|_| {
        RuntimeError::Other(
            "a call of the sandbox did not come back: devenv is shutting down".to_owned(),
        )
    })
}

fn files(files: Vec<File>) -> Vec<FileMount> {
    files
        .into_iter()
        .map(|f| FileMount {
            path: f.path,
            contents: f.contents,
            mode: f.mode,
        })
        .collect()
}

fn container(spec: StartSpec, within: Option<String>) -> ContainerSpec {
    ContainerSpec {
        name: spec.name,
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        binds: spec.binds,
        // What objects hold is bound; only what all containers of the pod share is made.
        files: Vec::new(),
        run_as: spec.run_as,
        hidden: spec.hidden,
        within,
        limits: spec.limits,
    }
}

struct ProcessSandbox {
    pod: Arc<Pod>,
    /// The pod's event socket, duplicated: only asked whether there is something to read.
    events: UnixStream,
    /// Who waits for the end of a command that was started beside the containers.
    execs: Mutex<HashMap<String, oneshot::Sender<Ended>>>,
}

impl std::fmt::Debug for ProcessSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessSandbox")
            .field("pid", &self.pod.pid())
            .finish_non_exhaustive()
    }
}

impl ProcessSandbox {
    fn execs(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Ended>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn launch(&self, spec: ContainerSpec) -> Result<Started, RuntimeError> {
        let pod = self.pod.clone();
        let started = blocking(move || pod.start(&spec)).await??;
        Ok(Started {
            pid: started.pid,
            stdout: output(started.stdout)?,
            stderr: output(started.stderr)?,
            warnings: started.warnings,
            meter: ProcessMeter::new(started.meter),
        })
    }

    /// The event as the instance sees it; `None` when it was the end of an exec.
    fn deliver(&self, event: PodEvent) -> Option<SandboxEvent> {
        match event {
            PodEvent::Exited {
                container,
                exit,
                out_of_memory,
            } => {
                let ended = match exit {
                    Exit::Code(code) => Ended::Code(code),
                    Exit::Signal(signal) => Ended::Signal(signal),
                };
                if let Some(done_tx) = self.execs().remove(&container) {
                    // Nobody waits any more when the probe timed out.
                    let _ = done_tx.send(ended);
                    return None;
                }
                Some(SandboxEvent::Exited {
                    container,
                    ended,
                    out_of_memory,
                })
            }
            PodEvent::PodGone => Some(SandboxEvent::Gone),
        }
    }
}

/// Kills an exec whose caller stopped waiting.
struct ExecGuard<'a> {
    sandbox: &'a ProcessSandbox,
    name: String,
}

impl Drop for ExecGuard<'_> {
    fn drop(&mut self) {
        let waiting = self.sandbox.execs().contains_key(&self.name);
        if waiting {
            // Stays in the map, so that its end is not taken for that of a container.
            let (pod, name) = (self.sandbox.pod.clone(), self.name.clone());
            tokio::task::spawn_blocking(move || pod.signal(&name, libc_sigkill()));
        }
    }
}

fn libc_sigkill() -> i32 {
    nix::sys::signal::Signal::SIGKILL as i32
}

#[async_trait]
impl PodSandbox for ProcessSandbox {
    async fn start(&self, spec: StartSpec) -> Result<Started, RuntimeError> {
        if spec.image.is_some() {
            return Err(RuntimeError::Config(format!(
                "container {:?} has an image of a container engine, and its pod asks for processes",
                spec.name
            )));
        }
        self.launch(container(spec, None)).await
    }

    async fn exec(&self, mut spec: StartSpec) -> Result<Ended, RuntimeError> {
        let (done_tx, done_rx) = oneshot::channel();
        let within = spec.name.clone();
        spec.name = format!("{}-exec-{}", spec.name, uuid::Uuid::new_v4().simple());
        let name = spec.name.clone();
        // Before it starts: it may end before `start` has returned.
        self.execs().insert(name.clone(), done_tx);
        let started = match self.launch(container(spec, Some(within))).await {
            Ok(started) => started,
            Err(error) => {
                self.execs().remove(&name);
                return Err(error);
            }
        };
        let _guard = ExecGuard {
            sandbox: self,
            name,
        };
        // Read to the end, so that it never blocks on a full pipe.
        let (mut stdout, mut stderr) = (started.stdout, started.stderr);
        tokio::spawn(async move {
            let (mut nowhere, mut nowhere_else) = (tokio::io::sink(), tokio::io::sink());
            let _ = tokio::join!(
                tokio::io::copy(&mut stdout, &mut nowhere),
                tokio::io::copy(&mut stderr, &mut nowhere_else)
            );
        });
        done_rx
            .await
            .map_err(|_| RuntimeError::Other("the pod went before the command ended".to_owned()))
    }

    async fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError> {
        let (pod, container) = (self.pod.clone(), container.to_owned());
        Ok(blocking(move || pod.signal(&container, signal)).await??)
    }

    async fn fill_disk(&self, full: bool) -> Result<(), RuntimeError> {
        let pod = self.pod.clone();
        Ok(blocking(move || pod.fill(full)).await??)
    }

    async fn next_event(&self) -> SandboxEvent {
        loop {
            let next = match self.events.readable().await {
                // What is not there yet is waited for again; that is what WouldBlock says.
                Ok(()) => self
                    .events
                    .try_io(Interest::READABLE, || match self.pod.next_event() {
                        Ok(Some(event)) => Ok(event),
                        Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                        Err(error) => Err(io::Error::other(error)),
                    }),
                Err(error) => Err(error),
            };
            match next {
                Ok(event) => {
                    if let Some(event) = self.deliver(event) {
                        return event;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "a pod's events cannot be read"
                    );
                    return SandboxEvent::Gone;
                }
            }
        }
    }

    async fn inbound(&self) -> usize {
        super::connections::inbound(self.pod.pid())
    }

    fn kill(&self) {
        self.pod.kill();
    }
}

fn output(fd: OwnedFd) -> Result<Output, RuntimeError> {
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
}
