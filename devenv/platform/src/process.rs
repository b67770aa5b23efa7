//! Other processes, and their end.

use std::fs;
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, killpg};
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

/// Kills a whole group of processes when its leader is given up.
#[derive(Debug)]
pub(crate) struct KillGroup(Option<nix::unistd::Pid>);

impl KillGroup {
    /// That of a process which leads a group of its own; of `None`, which ended before, none.
    pub(crate) fn of(leader: Option<u32>) -> Self {
        Self(leader.map(|pid| nix::unistd::Pid::from_raw(pid.cast_signed())))
    }

    /// Its leader has ended by itself.
    pub(crate) fn has_ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is as good.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The processes that were started with these words, the program's own by its file name.
pub fn with_words(words: &[&str]) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut has = line.split('\0');
        let program = has.next().and_then(|path| path.rsplit('/').next());
        program == words.first().copied() && words[1..].iter().all(|word| has.next() == Some(*word))
    })
    .collect()
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

    #[test]
    fn a_process_is_found_by_its_words() {
        let time = format!("60.{}", std::process::id());
        let mut child = std::process::Command::new("/bin/sleep")
            .arg(&time)
            .spawn()
            .unwrap();
        // The kernel lets whoever started it go on a moment before its words are there.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while with_words(&["sleep", &time]).is_empty() {
            assert!(std::time::Instant::now() < deadline, "it is not found");
            std::thread::yield_now();
        }
        assert_eq!(with_words(&["sleep", &time]), [child.id()]);
        assert_eq!(with_words(&["sleep", &time, "1"]), [0; 0]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
