//! Another process, and its end.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

/// A running process: this very one, whatever its number is used for later.
#[derive(Debug)]
pub struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process with this number; `None` if there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
        #[expect(
            deprecated,
            reason = "its unsafe successor is for types whose descriptor may change"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE).ok()?;
        Some(Self { pidfd })
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        // An error means that the runtime is going down, and with it whoever asks.
        let _ = self.pidfd.readable().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, process.ended()).await.is_err());
        child.kill().unwrap();
        let late = Duration::from_secs(10);
        tokio::time::timeout(late, process.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(Process::of(0).is_none());
    }
}
