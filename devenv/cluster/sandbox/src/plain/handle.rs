//! The supervisor's handles to the keeper and its holders.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Child,
    sync::Mutex,
};

use nix::unistd::{Gid, Uid, fchown, geteuid};
use rustix::thread::CapabilitySet;

use crate::{
    ask::{ask, lock, pid_of, pipe, these},
    cgroup::Group,
    check::{check_program, check_signal},
    error::SandboxError,
    handle::NetdOptions,
    host_child::HostChild,
    plain::{
        messages::{HeldEvent, HolderReply, HolderRequest, KeeperReply, KeeperRequest},
        sweep::{MARKER, sweep},
    },
    pod::Container,
    roles::{self, Role},
    spec::HostProcess,
    usage::Meter,
    wire::{Channel, Site, UpReply},
};

/// The keeper: programs without namespaces that still end with the supervisor.
/// Dropping it ends them all.
///
/// The methods block for a few milliseconds at most; on an async runtime call
/// them where blocking is allowed.
#[derive(Debug)]
pub struct Plain {
    keeper: Child,
    site: Site,
    /// `None` only while being dropped.
    channel: Option<Mutex<Channel>>,
}

impl Plain {
    /// Starts the keeper, and ends what an earlier run with the same run
    /// directory may have left.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when a process cannot be started.
    pub fn start(options: &NetdOptions) -> Result<Plain, SandboxError> {
        let step = |step: &str| {
            let step = step.to_owned();
            move |source| SandboxError::Step { step, source }
        };
        let run_dir = options
            .run_dir
            .canonicalize()
            .map_err(step("find the run directory"))?;
        let site = Site {
            run_dir,
            owner: (options.owner_uid, options.owner_gid),
            privileged: may_switch_users(),
            group: Group::default(),
        };
        sweep(&site.run_dir.to_string_lossy()).map_err(step("look for leftover processes"))?;
        let (channel, theirs) = Channel::pair().map_err(SandboxError::Wire)?;
        let mut keeper = roles::spawn_with_site(Role::Keeper, theirs, &site)
            .map_err(step("start the keeper"))?;
        let error = match channel.recv().map_err(SandboxError::Wire)? {
            Some((UpReply::Ready, _)) => {
                return Ok(Plain {
                    keeper,
                    site,
                    channel: Some(Mutex::new(channel)),
                });
            }
            Some((UpReply::Failed(failure), _)) => failure.into(),
            None => SandboxError::ClusterGone,
        };
        drop(channel);
        let _ = keeper.wait();
        Err(error)
    }

    /// Runs a program, such as a build; see [`Netd::run_host`](crate::Netd::run_host).
    /// Here an ordinary user's program sees the host's files as their owners'.
    ///
    /// # Errors
    /// [`SandboxError::Exec`] and [`SandboxError::Cwd`] when the program could
    /// not be executed, [`SandboxError::Invalid`], [`SandboxError::ClusterGone`].
    pub fn run_host(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        check_program(&process.argv, &process.env, &process.cwd)?;
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let fds = [stdout_write.as_fd(), stderr_write.as_fd()];
        let [pidfd, channel] =
            these(self.ask(&KeeperRequest::RunHost(self.marked(process)), &fds)?)?;
        Ok(HostChild::new(
            pid_of(&pidfd)?,
            channel.into(),
            stdout,
            stderr,
        ))
    }

    /// Starts a holder for one run of a container. Programs run as `user`, or
    /// as the owner of the checkout; where devenv is not root, as its own user.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when it cannot be started, [`SandboxError::ClusterGone`].
    pub fn hold(&self, user: Option<(u32, u32)>) -> Result<Holder, SandboxError> {
        let user = user.unwrap_or(self.site.owner);
        let [control, pidfd] = these(self.ask(&KeeperRequest::Hold(user), &[])?)?;
        let control = Channel::from(control);
        let events = match control.recv().map_err(SandboxError::Wire)? {
            Some((HolderReply::Ready, mut fds)) => fds.pop().ok_or_else(gone)?.into(),
            Some((HolderReply::Failed(failure), _)) => return Err(failure.into()),
            Some(_) | None => return Err(gone()),
        };
        Ok(Holder {
            pid: pid_of(&pidfd)?,
            run_dir: self.site.run_dir.to_string_lossy().into_owned(),
            outputs_of: self.site.privileged.then_some(user),
            control: Mutex::new(control),
            events,
        })
    }

    /// Process id of the keeper.
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    fn marked(&self, process: &HostProcess) -> HostProcess {
        marked(process, &self.site.run_dir.to_string_lossy())
    }

    fn ask(
        &self,
        request: &KeeperRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<OwnedFd>, SandboxError> {
        let channel = self.channel.as_ref().ok_or_else(gone)?;
        match ask(&lock(channel), request, fds)? {
            Some((KeeperReply::Failed(failure), _)) => Err(failure.into()),
            Some((_, fds)) => Ok(fds),
            None => Err(gone()),
        }
    }
}

/// Ends everything and waits until it is dead.
impl Drop for Plain {
    fn drop(&mut self) {
        self.channel = None;
        let _ = self.keeper.wait();
    }
}

/// One run of a container. Dropping it kills the program and all that came of it.
#[derive(Debug)]
pub struct Holder {
    pid: u32,
    run_dir: String,
    /// Whom the output pipes are given to, where that is another user.
    outputs_of: Option<(u32, u32)>,
    control: Mutex<Channel>,
    events: Channel,
}

impl Holder {
    /// Process id of the holder.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts the program and returns when it is executed; once only.
    /// [`HostProcess::run_as`] has no meaning here: the holder has its user.
    ///
    /// # Errors
    /// [`SandboxError::Exec`] and [`SandboxError::Cwd`] when it could not be
    /// executed, [`SandboxError::AlreadyRunning`], [`SandboxError::Invalid`],
    /// [`SandboxError::ClusterGone`].
    pub fn start(&self, process: &HostProcess) -> Result<Container, SandboxError> {
        self.run(process, HolderRequest::Start)
    }

    /// Runs a command beside the program; [`HeldEvent::ExecEnded`] tells its
    /// end. It ends with the program at the latest.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn exec(&self, name: &str, process: &HostProcess) -> Result<Container, SandboxError> {
        let name = name.to_owned();
        self.run(process, |process| HolderRequest::Exec { name, process })
    }

    fn run(
        &self,
        process: &HostProcess,
        request: impl FnOnce(HostProcess) -> HolderRequest,
    ) -> Result<Container, SandboxError> {
        check_program(&process.argv, &process.env, &process.cwd)?;
        let (stdout, stdout_write) = self.output()?;
        let (stderr, stderr_write) = self.output()?;
        let request = request(marked(process, &self.run_dir));
        let fds = [stdout_write.as_fd(), stderr_write.as_fd()];
        let (_, fds) = self.ask(&request, &fds)?;
        let [pidfd] = these(fds)?;
        let pid = pid_of(&pidfd)?;
        Ok(Container {
            pid,
            stdout,
            stderr,
            warnings: Vec::new(),
            meter: Meter::of_holder(self.pid, pid),
        })
    }

    /// A pipe that the program's user may open anew, as `/dev/stdout`.
    fn output(&self) -> Result<(OwnedFd, OwnedFd), SandboxError> {
        let (read, write) = pipe()?;
        if let Some((uid, gid)) = self.outputs_of {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchown(&write, Some(uid), Some(gid)).map_err(|error| SandboxError::Step {
                step: "give an output to its user".into(),
                source: error.into(),
            })?;
        }
        Ok((read, write))
    }

    /// Sends a signal to the program's process group.
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`], [`SandboxError::Invalid`] for a number
    /// that is no signal, [`SandboxError::ClusterGone`].
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        check_signal(signal)?;
        self.ask(&HolderRequest::Signal(signal), &[]).map(drop)
    }

    /// Kills a command beside the program with its process group; its end is
    /// told as usual. Does nothing once it has ended.
    pub fn kill_exec(&self, name: &str) {
        // A holder that is gone has taken it along.
        let _ = self.ask(&HolderRequest::KillExec(name.to_owned()), &[]);
    }

    /// The TCP addresses at which the program and its descendants listen.
    ///
    /// # Errors
    /// [`SandboxError::ClusterGone`] when the holder has ended.
    pub fn listening(&self) -> Result<Vec<SocketAddr>, SandboxError> {
        match self.ask(&HolderRequest::Listening, &[])? {
            (HolderReply::Listening(found), _) => Ok(found),
            _ => Err(gone()),
        }
    }

    /// Kills the program's process group; the rest follows, and then the end is told.
    pub fn kill(&self) {
        // It has ended already, or nothing runs in it yet: dropping it ends it then.
        let _ = self.signal(nix::libc::SIGKILL);
    }

    /// Readable when [`next_event`](Self::next_event) has something (for `AsyncFd`).
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, if there is one by now. A holder that was killed is
    /// told as [`HeldEvent::Ended`] by SIGKILL.
    ///
    /// # Errors
    /// [`SandboxError::Wire`] when the channel cannot be read.
    pub fn next_event(&self) -> Result<Option<HeldEvent>, SandboxError> {
        match self.events.try_recv() {
            Ok(Some((event, _))) => Ok(Some(event)),
            Ok(None) => Ok(Some(HeldEvent::Ended(crate::Exit::Signal(
                nix::libc::SIGKILL,
            )))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(SandboxError::Wire(error)),
        }
    }

    fn ask(
        &self,
        request: &HolderRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(HolderReply, Vec<OwnedFd>), SandboxError> {
        match ask(&lock(&self.control), request, fds)? {
            Some((HolderReply::Failed(failure), _)) => Err(failure.into()),
            Some(answer) => Ok(answer),
            None => Err(gone()),
        }
    }
}

fn marked(process: &HostProcess, run_dir: &str) -> HostProcess {
    let mut process = process.clone();
    process.env.retain(|(name, _)| name != MARKER);
    process.env.push((MARKER.to_owned(), run_dir.to_owned()));
    process
}

fn gone() -> SandboxError {
    SandboxError::ClusterGone
}

/// Root, with what root needs for that: a container's root may lack it.
fn may_switch_users() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}
