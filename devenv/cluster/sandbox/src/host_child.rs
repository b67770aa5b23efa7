//! A process with the host's files and network that cannot outlive the supervisor.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use crate::{
    check::check_signal,
    error::SandboxError,
    spec::Exit,
    wire::{Channel, HostExited, SignalHost},
};

/// A running [`HostProcess`](crate::HostProcess). Dropping it kills its process group.
///
/// It leads a session of its own. Signals and the final kill reach the process
/// group, so a child that starts a session too (a build daemon) lives on until
/// the cluster ends.
#[derive(Debug)]
pub struct HostChild {
    pid: u32,
    channel: Channel,
    exit: OnceLock<Exit>,
    /// The read end; take it.
    pub stdout: Option<OwnedFd>,
    /// The read end; take it.
    pub stderr: Option<OwnedFd>,
}

impl HostChild {
    pub(crate) fn new(pid: u32, channel: Channel, stdout: OwnedFd, stderr: OwnedFd) -> HostChild {
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        HostChild {
            pid,
            channel,
            exit: OnceLock::new(),
            stdout,
            stderr,
        }
    }

    /// Process id on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when [`try_wait`](Self::try_wait) has an answer (for `AsyncFd`).
    pub fn events(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// How the process ended; `None` while it runs. It was reaped and the rest
    /// of its process group killed before this tells.
    ///
    /// # Errors
    /// [`SandboxError::ClusterGone`] when the sandbox died and the process with it.
    pub fn try_wait(&self) -> Result<Option<Exit>, SandboxError> {
        if let Some(exit) = self.exit.get() {
            return Ok(Some(*exit));
        }
        match self.channel.try_recv::<HostExited>() {
            Ok(Some((HostExited(exit), _))) => Ok(Some(*self.exit.get_or_init(|| exit))),
            Ok(None) => Err(SandboxError::ClusterGone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(SandboxError::Wire(error)),
        }
    }

    /// Sends a signal to the process group. Does nothing once it has ended.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        check_signal(signal)?;
        // A hang-up means that it has ended.
        let _ = self.channel.send(&SignalHost(signal), &[]);
        Ok(())
    }

    /// Kills the process group (SIGKILL). The exit is told as usual.
    pub fn kill(&self) {
        let _ = self.channel.send(&SignalHost(nix::libc::SIGKILL), &[]);
    }
}
