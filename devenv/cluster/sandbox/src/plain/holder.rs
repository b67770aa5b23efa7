//! `devenv holder`: holds the program of one container, and all that comes of it.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, getpid, getppid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    process::{PidfdFlags, pidfd_open},
};

use crate::{
    error::{Cause, Context, Failure},
    launch::{Launched, launch},
    plain::{
        family,
        listening::listening,
        messages::{HeldEvent, HolderReply, HolderRequest, PlainLaunch},
    },
    privileges,
    reaper::Reaper,
    spec::{Exit, HostProcess},
    wire::{Channel, Launch, Site, exactly},
};

/// Returns the exit code when the program has ended, or nobody wants it any
/// more, and nothing of it is left.
pub(crate) fn run(channel: Channel, site: Site) -> i32 {
    let mut holder = match Holder::start(&channel, &site) {
        Ok(holder) => holder,
        Err(failure) => {
            // If the supervisor is gone too, there is no one to tell.
            let _ = channel.send(&HolderReply::Failed(failure), &[]);
            return 1;
        }
    };
    let served = holder.serve(&channel);
    family::end(&holder.reaper);
    match served {
        Ok(Some(exit)) => {
            // Nobody may be listening any more.
            let _ = holder.events.send(&HeldEvent::Ended(exit), &[]);
            0
        }
        Ok(None) => 0,
        Err(_) => 1,
    }
}

struct Holder {
    reaper: Reaper,
    /// The keeper: without it nobody would adopt what is left here.
    keeper: OwnedFd,
    events: Channel,
    main: Option<Pid>,
    execs: Vec<(Pid, String)>,
}

impl Holder {
    fn start(channel: &Channel, site: &Site) -> Result<Holder, Failure> {
        let keeper = getppid();
        privileges::become_plain_user(site)?;
        family::adopt_orphans().step("adopt orphans")?;
        let reaper = Reaper::new().step("receive signals as events")?;
        let pid = rustix::process::Pid::from_raw(keeper.as_raw());
        let gone = || {
            Failure::plain(Cause::Died {
                name: "keeper".into(),
            })
        };
        let keeper =
            pidfd_open(pid.ok_or_else(gone)?, PidfdFlags::empty()).step("watch the keeper")?;
        let (events, theirs) = Channel::pair().step("make a socket pair")?;
        channel
            .send(&HolderReply::Ready, &[theirs.as_fd()])
            .step("say that the holder stands")?;
        Ok(Holder {
            reaper,
            keeper,
            events,
            main: None,
            execs: Vec::new(),
        })
    }

    /// How the program ended; `None` when the supervisor or the keeper is gone.
    fn serve(&mut self, channel: &Channel) -> Result<Option<Exit>, Failure> {
        loop {
            let mut fds = [
                PollFd::new(channel, PollFlags::IN),
                PollFd::new(&self.reaper, PollFlags::IN),
                PollFd::new(&self.keeper, PollFlags::IN),
            ];
            retry_on_intr(|| poll(&mut fds, None)).step("wait for requests")?;
            let [asked, ended, orphaned] = fds.map(|fd| !fd.revents().is_empty());
            if orphaned {
                return Ok(None);
            }
            if ended && let Some(exit) = self.reap()? {
                return Ok(Some(exit));
            }
            if asked && !self.answer(channel)? {
                return Ok(None);
            }
        }
    }

    /// Reaps what has ended; how the program did, if it is among that.
    fn reap(&mut self) -> Result<Option<Exit>, Failure> {
        self.reaper.acknowledge().step("read signals")?;
        while let Some(ended) = self.reaper.next_ended().step("wait for children")? {
            if self.main == Some(ended.pid) {
                ended.kill_group();
                return Ok(Some(ended.reap()));
            }
            let exec = self.execs.iter().position(|(pid, _)| *pid == ended.pid);
            let Some(exec) = exec else {
                ended.reap();
                continue;
            };
            ended.kill_group();
            let (_, name) = self.execs.swap_remove(exec);
            let exit = ended.reap();
            self.events
                .send(&HeldEvent::ExecEnded { name, exit }, &[])
                .step("tell an event")?;
        }
        Ok(None)
    }

    /// Serves one request; false when the supervisor is gone.
    fn answer(&mut self, channel: &Channel) -> Result<bool, Failure> {
        let Some((request, fds)) = channel.recv().step("read a request")? else {
            return Ok(false);
        };
        let done = match request {
            HolderRequest::Start(process) => self.begin(process, fds).map(started),
            HolderRequest::Exec { name, process } => self.exec(name, process, fds).map(started),
            HolderRequest::Signal(signal) => {
                self.signal(signal).map(|()| (HolderReply::Signalled, None))
            }
            HolderRequest::KillExec(name) => {
                if let Some((pid, _)) = self.execs.iter().find(|(_, n)| *n == name) {
                    let _ = killpg(*pid, Signal::SIGKILL);
                }
                Ok((HolderReply::Signalled, None))
            }
            HolderRequest::Listening => {
                let found = listening(&family::descendants());
                Ok((HolderReply::Listening(found), None))
            }
        };
        let (reply, pidfd) = done.unwrap_or_else(|failure| (HolderReply::Failed(failure), None));
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        Ok(channel.send(&reply, &fds).is_ok())
    }

    fn begin(&mut self, process: HostProcess, fds: Vec<OwnedFd>) -> Result<OwnedFd, Failure> {
        if self.main.is_some() {
            let container = process.argv[0].clone();
            return Err(Failure::plain(Cause::AlreadyRunning { container }));
        }
        let launched = spawn(process, fds)?;
        self.main = Some(launched.pid);
        Ok(launched.pidfd)
    }

    fn exec(
        &mut self,
        name: String,
        process: HostProcess,
        fds: Vec<OwnedFd>,
    ) -> Result<OwnedFd, Failure> {
        let launched = spawn(process, fds)?;
        self.execs.push((launched.pid, name));
        Ok(launched.pidfd)
    }

    fn signal(&self, signal: i32) -> Result<(), Failure> {
        let Some(main) = self.main else {
            let container = "program".to_owned();
            return Err(Failure::plain(Cause::NotRunning { container }));
        };
        // Not reaped yet, so the group's id still is this program's.
        Signal::try_from(signal)
            .and_then(|signal| killpg(main, signal))
            .step("signal a container")
    }
}

fn spawn(process: HostProcess, fds: Vec<OwnedFd>) -> Result<Launched, Failure> {
    let [stdout, stderr] = exactly(fds)?;
    let name = process.argv[0].clone();
    let what = Launch::Plain(PlainLaunch {
        process,
        parent: getpid().as_raw(),
        site: None,
    });
    launch(&name, &what, stdout, stderr, None)
}

fn started(pidfd: OwnedFd) -> (HolderReply, Option<OwnedFd>) {
    (HolderReply::Started, Some(pidfd))
}
