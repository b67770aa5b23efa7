//! Children that ended, for the roles that wait for requests at the same time.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, killpg},
        signalfd::{SfdFlags, SignalFd},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

use crate::spec::Exit;

/// Readable when a child has ended since the last [`next`](Self::next) that
/// returned `None`.
pub(crate) struct Reaper(SignalFd);

impl Reaper {
    /// Blocks SIGCHLD for this process and what it spawns: whoever executes a program of
    /// others unblocks it.
    pub fn new() -> io::Result<Reaper> {
        let mask = SigSet::from(Signal::SIGCHLD);
        mask.thread_block()?;
        Ok(Reaper(SignalFd::with_flags(
            &mask,
            SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
        )?))
    }

    /// Forgets the pending notification; call it before asking for the ended.
    pub fn acknowledge(&self) -> io::Result<()> {
        while self.0.read_signal()?.is_some() {}
        Ok(())
    }

    /// A child that has ended but is not reaped yet, so its id still is its own.
    pub fn next_ended(&self) -> io::Result<Option<Ended>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            return match waitid(Id::All, flags) {
                Ok(WaitStatus::Exited(pid, code)) => Ok(Some(Ended {
                    pid,
                    exit: Exit::Code(code),
                })),
                Ok(WaitStatus::Signaled(pid, signal, _)) => Ok(Some(Ended {
                    pid,
                    exit: Exit::Signal(signal as i32),
                })),
                Ok(_) | Err(Errno::ECHILD) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for Reaper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A zombie child.
pub(crate) struct Ended {
    pub pid: Pid,
    pub exit: Exit,
}

impl Ended {
    /// Kills what is left of the process group that the child led. Only sound
    /// before [`reap`](Self::reap): until then no one else can have that id.
    pub fn kill_group(&self) {
        // ESRCH: no one else was in the group.
        let _ = killpg(self.pid, Signal::SIGKILL);
    }

    pub fn reap(self) -> Exit {
        // It has ended, so this neither blocks nor fails.
        let _ = waitpid(self.pid, None);
        self.exit
    }
}
