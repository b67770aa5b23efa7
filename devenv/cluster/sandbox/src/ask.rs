//! The supervisor's side of requests: what the handles share.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::SandboxError, wire::Channel};

/// One request and its reply; `None` when the other side is gone.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
    channel: &Channel,
    request: &Q,
    fds: &[BorrowedFd<'_>],
) -> Result<Option<(A, Vec<OwnedFd>)>, SandboxError> {
    match channel.send(request, fds) {
        Ok(()) => channel.recv().map_err(SandboxError::Wire),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(SandboxError::Wire(error)),
    }
}

/// A panic elsewhere cannot leave a request half done: requests are one packet.
pub(crate) fn lock(channel: &Mutex<Channel>) -> MutexGuard<'_, Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors that a reply must have brought along.
pub(crate) fn these<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], SandboxError> {
    fds.try_into()
        .map_err(|_| SandboxError::Wire(io::ErrorKind::InvalidData.into()))
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| SandboxError::Step {
        step: "make a pipe".into(),
        source: error.into(),
    })
}

/// The process behind a pidfd, as this process's PID namespace numbers it; 0
/// when it was reaped meanwhile.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Result<u32, SandboxError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(path).map_err(SandboxError::Wire)?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0))
}
