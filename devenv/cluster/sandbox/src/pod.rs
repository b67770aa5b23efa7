//! The supervisor's handle to a pod.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Mutex,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Signal, pidfd_send_signal},
};

use crate::{
    ask::{ask, lock, pid_of, pipe, these},
    check::{check_container, check_signal},
    error::SandboxError,
    spec::{ContainerSpec, PodEvent},
    usage::Meter,
    wire::{Channel, PodReply, PodRequest},
};

/// How long [`Pod::next_event`] waits for a dying pod's last process.
const DEATH: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A pod. Dropping it kills it.
#[derive(Debug)]
pub struct Pod {
    hostname: String,
    pid: u32,
    pidfd: OwnedFd,
    control: Mutex<Channel>,
    events: Channel,
}

impl Pod {
    pub(crate) fn new(
        hostname: &str,
        control: Channel,
        events: Channel,
        pidfd: OwnedFd,
    ) -> Result<Pod, SandboxError> {
        Ok(Pod {
            hostname: hostname.to_owned(),
            pid: pid_of(&pidfd)?,
            pidfd,
            control: Mutex::new(control),
            events,
        })
    }

    /// Process id of the pod's PID 1 on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a container and returns when its program is executed. May be
    /// called again after its exit event: a restart keeps the pod and its address.
    ///
    /// # Errors
    /// [`SandboxError::Exec`], [`Cwd`](SandboxError::Cwd),
    /// [`Bind`](SandboxError::Bind) and [`File`](SandboxError::File) name what
    /// of the specification cannot be had; [`SandboxError::AlreadyRunning`],
    /// [`SandboxError::Invalid`], [`SandboxError::PodGone`].
    pub fn start(&self, spec: &ContainerSpec) -> Result<Container, SandboxError> {
        check_container(spec)?;
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let (reply, fds) = self.ask(
            &PodRequest::Start(spec.clone()),
            &[stdout_write.as_fd(), stderr_write.as_fd()],
        )?;
        let PodReply::Started { warnings, group } = reply else {
            return Err(SandboxError::Wire(io::ErrorKind::InvalidData.into()));
        };
        let [pidfd] = these(fds)?;
        let pid = pid_of(&pidfd)?;
        Ok(Container {
            pid,
            stdout,
            stderr,
            warnings,
            meter: Meter::of_pod(group, self.pid, pid),
        })
    }

    /// Sends a signal to the container's process group: its main process and
    /// the children that did not start a group or session of their own. Those
    /// are killed when the main process has ended, and by [`kill`](Self::kill).
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`], [`SandboxError::Invalid`] for a number
    /// that is no signal, [`SandboxError::PodGone`].
    pub fn signal(&self, container: &str, signal: i32) -> Result<(), SandboxError> {
        check_signal(signal)?;
        let request = PodRequest::Signal {
            container: container.to_owned(),
            signal,
        };
        self.ask(&request, &[]).map(drop)
    }

    /// Leaves no room in what the pod's containers write to and in its [`Tmpfs`](crate::Tmpfs)
    /// (ENOSPC), for containers that start later too; or gives the room back. Files of the
    /// host that are bound writable are not touched.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when the kernel refuses, and then nothing is full;
    /// [`SandboxError::PodGone`].
    pub fn fill(&self, full: bool) -> Result<(), SandboxError> {
        self.ask(&PodRequest::Fill(full), &[]).map(drop)
    }

    /// Readable when [`next_event`](Self::next_event) has one (for `AsyncFd`).
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, without waiting for one: `None` when there is none.
    /// After a kill it waits for the last process, a millisecond as a rule and
    /// a second at most, and then answers [`PodEvent::PodGone`], again and again.
    ///
    /// # Errors
    /// [`SandboxError::Wire`] when an event cannot be read.
    pub fn next_event(&self) -> Result<Option<PodEvent>, SandboxError> {
        match self.events.try_recv() {
            Ok(Some((event, _))) => Ok(Some(event)),
            Ok(None) => {
                // PID 1 closes its end before its namespace is dead; the
                // pidfd tells when it is.
                let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
                let _ = retry_on_intr(|| poll(&mut fds, Some(&DEATH)));
                Ok(Some(PodEvent::PodGone))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(SandboxError::Wire(error)),
        }
    }

    /// Kills everything in the pod (SIGKILL of its PID 1).
    pub fn kill(&self) {
        // It fails only when the pod is dead already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn ask(
        &self,
        request: &PodRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(PodReply, Vec<OwnedFd>), SandboxError> {
        match ask(&lock(&self.control), request, fds)? {
            Some((PodReply::Failed(failure), _)) => Err(failure.into()),
            Some(reply) => Ok(reply),
            None => Err(SandboxError::PodGone {
                pod: self.hostname.clone(),
            }),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A started container.
#[derive(Debug)]
pub struct Container {
    /// Process id of its main process on the host.
    pub pid: u32,
    /// Read end of its standard output. It ends when the last process that
    /// holds the other end has died.
    pub stdout: OwnedFd,
    /// Read end of its standard error.
    pub stderr: OwnedFd,
    /// What it has to do without on this machine, each in a sentence for people.
    pub warnings: Vec<String>,
    /// Tells what this run of it uses.
    pub meter: Meter,
}
