//! The supervisor's end of a pod whose containers somebody else runs, such as a Docker
//! Engine: where its pause process calls, and how it gets its network.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use crate::{
    error::SandboxError,
    handle::Netd,
    pause::{Join, JoinReply},
    wire::Channel,
};

/// The argument that makes this program a pod's pause process; the path of a [`Door`] in
/// its container follows.
pub const PAUSE: &str = "pause";
/// Its file in the folder that was given.
const SOCKET: &str = "link";

/// A socket in a folder that the pod's pause process sees, too.
#[derive(Debug)]
pub struct Door {
    listener: OwnedFd,
    path: PathBuf,
}

/// A pod with a place in the cluster's network. Dropping it ends its pause process.
#[derive(Debug)]
pub struct Joined {
    channel: Channel,
}

impl Door {
    /// Opens it in an existing private folder.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when the socket can't be made there.
    pub fn open(folder: &Path) -> Result<Door, SandboxError> {
        let path = folder.join(SOCKET);
        let failed = |source| SandboxError::Step {
            step: format!("listen at {}", path.display()),
            source,
        };
        let directory = File::open(folder).map_err(failed)?;
        // By a short name: the address of a socket holds 107 bytes.
        let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let _ = std::fs::remove_file(&path);
        let listener = Channel::listen(Path::new(&short)).map_err(failed)?;
        Ok(Door { listener, path })
    }

    /// Where the pause process finds it, below the folder.
    pub fn file_name() -> &'static str {
        SOCKET
    }

    /// Waits for the pod's pause process and gives it the address `ip` in the cluster of
    /// `netd`. `link` names its link there and must be unique.
    ///
    /// # Errors
    /// [`SandboxError::Died`] when it does not call in time, [`SandboxError::Step`] for
    /// what failed, [`SandboxError::ClusterGone`].
    pub fn join(
        self,
        netd: &Netd,
        ip: Ipv4Addr,
        link: &str,
        within: Duration,
    ) -> Result<Joined, SandboxError> {
        let died = || SandboxError::Died {
            name: format!("the pod at {ip}"),
        };
        let deadline = Instant::now() + within;
        if !is_readable(&self.listener, deadline)? {
            return Err(died());
        }
        let channel = Channel::accept(&self.listener).map_err(SandboxError::Wire)?;
        let network = netd.network_namespace()?;
        let join = Join {
            ip,
            link: link.to_owned(),
        };
        channel
            .send(&join, &[network.as_fd()])
            .map_err(|_| died())?;
        if !is_readable(&channel, deadline)? {
            return Err(died());
        }
        match channel.recv().map_err(SandboxError::Wire)? {
            Some((JoinReply::Joined, _)) => {}
            Some((JoinReply::Failed(failure), _)) => return Err(failure.into()),
            None => return Err(died()),
        }
        netd.adopt(link)?;
        Ok(Joined { channel })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Whoever called has its own connection; left behind it is in nobody's way.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsFd for Joined {
    /// Readable when the pause process is gone.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn is_readable(fd: &impl AsFd, deadline: Instant) -> Result<bool, SandboxError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let ready = retry_on_intr(|| poll(&mut fds, Some(&left)));
    ready
        .map(|count| count > 0)
        .map_err(|error| SandboxError::Wire(io::Error::from(error)))
}
