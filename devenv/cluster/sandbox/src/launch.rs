//! Starting a process that becomes a given program, and knowing whether it did.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    process::Stdio,
};

use nix::{sys::wait::waitpid, unistd::Pid};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::{
    error::{Cause, Context, Failure},
    roles::{self, Role},
    wire::{Channel, Launch, LaunchReply, exactly},
};

/// A program that is being executed.
pub(crate) struct Launched {
    /// In the PID namespace of the caller. It leads its session and group.
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Its mount namespace, held open: without that, the number of a dead one
    /// would be given to the next.
    pub mount_namespace: OwnedFd,
    /// The roots of the file systems in memory that were made for it.
    pub memory: Vec<OwnedFd>,
    pub warnings: Vec<String>,
}

/// Starts `what`, in the mount namespace `within` if one is given, and returns
/// when its program is executed or cannot be.
pub(crate) fn launch(
    name: &str,
    what: &Launch,
    stdout: OwnedFd,
    stderr: OwnedFd,
    within: Option<BorrowedFd<'_>>,
) -> Result<Launched, Failure> {
    let (ours, theirs) = Channel::pair().step("make a socket pair")?;
    let mut child = roles::command(Role::Launch, theirs)
        .arg(name)
        .env_clear()
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
        .step("start a process")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let launched = hand_over(name, what, within, &ours).and_then(|told| {
        let id = rustix::process::Pid::from_child(&child);
        let pidfd = pidfd_open(id, PidfdFlags::empty()).step("watch a process")?;
        Ok(Launched {
            pid,
            pidfd,
            mount_namespace: told.mount_namespace,
            memory: told.memory,
            warnings: told.warnings,
        })
    });
    if launched.is_err() {
        let _ = child.kill();
        let _ = waitpid(pid, None);
    }
    launched
}

/// What the process said of itself.
struct Told {
    mount_namespace: OwnedFd,
    memory: Vec<OwnedFd>,
    warnings: Vec<String>,
}

fn hand_over(
    name: &str,
    what: &Launch,
    within: Option<BorrowedFd<'_>>,
    channel: &Channel,
) -> Result<Told, Failure> {
    let died = || {
        Failure::plain(Cause::Died {
            name: name.to_owned(),
        })
    };
    // A process that died at once is reported by the hang-up below.
    let _ = channel.send(what, within.as_slice());
    let next = || {
        channel
            .recv::<LaunchReply>()
            .step("hear from a starting process")
    };
    let mut warnings = Vec::new();
    let mut memory = Vec::new();
    let [mount_namespace] = loop {
        match next()? {
            Some((LaunchReply::Warning(warning), _)) => warnings.push(warning),
            Some((LaunchReply::Memory, fds)) => memory = fds,
            Some((LaunchReply::Executing, fds)) => break exactly(fds)?,
            Some((LaunchReply::Failed(failure), _)) => return Err(failure),
            None => return Err(died()),
        }
    };
    // exec closes the channel; a failed exec is told first.
    match next()? {
        None => Ok(Told {
            mount_namespace,
            memory,
            warnings,
        }),
        Some((LaunchReply::Failed(failure), _)) => Err(failure),
        Some(_) => Err(died()),
    }
}
