//! `devenv keeper`: parent of holders and builds, and the one that ends them all.

use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::{Pid, getpid, setsid};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    process::{PidfdFlags, pidfd_open},
};

use crate::{
    error::{Context, Failure},
    host_children::HostChildren,
    launch::launch,
    plain::{
        family,
        messages::{KeeperReply, KeeperRequest, PlainLaunch},
    },
    reaper::Reaper,
    roles::{self, Role},
    spec::HostProcess,
    wire::{Channel, Launch, Site, UpReply, exactly},
};

/// Returns the exit code when the supervisor is gone and nothing is left.
pub(crate) fn run(channel: Channel, site: Site) -> i32 {
    let mut keeper = match Keeper::start(&channel, site) {
        Ok(keeper) => keeper,
        Err(failure) => {
            // If the supervisor is gone too, there is no one to tell.
            let _ = channel.send(&UpReply::Failed(failure), &[]);
            return 1;
        }
    };
    let served = keeper.serve(&channel);
    family::end(&keeper.reaper);
    if served.is_ok() { 0 } else { 1 }
}

struct Keeper {
    site: Site,
    reaper: Reaper,
    builds: HostChildren,
}

impl Keeper {
    fn start(channel: &Channel, site: Site) -> Result<Keeper, Failure> {
        roles::close_inherited_fds(channel).step("close inherited file descriptors")?;
        // Out of the terminal's process group: Ctrl-C is the supervisor's to handle.
        setsid().step("start a session")?;
        family::adopt_orphans().step("adopt orphans")?;
        let reaper = Reaper::new().step("receive signals as events")?;
        channel
            .send(&UpReply::Ready, &[])
            .step("say that the keeper stands")?;
        Ok(Keeper {
            site,
            reaper,
            builds: HostChildren::default(),
        })
    }

    /// Returns when the supervisor is gone.
    fn serve(&mut self, channel: &Channel) -> Result<(), Failure> {
        loop {
            let watched = self.builds.watched();
            let mut fds = vec![
                PollFd::new(channel, PollFlags::IN),
                PollFd::new(&self.reaper, PollFlags::IN),
            ];
            fds.extend(watched.iter().map(|(_, c)| PollFd::new(*c, PollFlags::IN)));
            retry_on_intr(|| poll(&mut fds, None)).step("wait for requests")?;
            let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            let (asked, ended) = (is_ready(&fds[0]), is_ready(&fds[1]));
            let told: Vec<Pid> = watched
                .iter()
                .zip(&fds[2..])
                .filter(|(_, fd)| is_ready(fd))
                .map(|((pid, _), _)| *pid)
                .collect();
            if ended {
                self.reaper.acknowledge().step("read signals")?;
                while let Some(ended) = self.reaper.next_ended().step("wait for children")? {
                    self.builds.ended(ended);
                }
            }
            for pid in told {
                self.builds.control(pid);
            }
            if asked && !self.answer(channel)? {
                return Ok(());
            }
        }
    }

    /// Serves one request; false when the supervisor is gone.
    fn answer(&mut self, channel: &Channel) -> Result<bool, Failure> {
        let Some((request, fds)) = channel.recv().step("read a request")? else {
            return Ok(false);
        };
        let done = match request {
            KeeperRequest::RunHost(process) => self
                .run_host(process, fds)
                .map(|fds| (KeeperReply::Running, fds)),
            KeeperRequest::Hold(user) => self.hold(user).map(|fds| (KeeperReply::Holding, fds)),
        };
        let sent = match &done {
            Ok((reply, [a, b])) => channel.send(reply, &[a.as_fd(), b.as_fd()]),
            Err(failure) => channel.send(&KeeperReply::Failed(failure.clone()), &[]),
        };
        Ok(sent.is_ok())
    }

    fn run_host(
        &mut self,
        process: HostProcess,
        fds: Vec<OwnedFd>,
    ) -> Result<[OwnedFd; 2], Failure> {
        let [stdout, stderr] = exactly(fds)?;
        let (ours, theirs) = Channel::pair().step("make a socket pair")?;
        let name = process.argv[0].clone();
        let what = Launch::Plain(PlainLaunch {
            process,
            parent: getpid().as_raw(),
            site: self.site.privileged.then(|| self.site.clone()),
        });
        let launched = launch(&name, &what, stdout, stderr, None)?;
        self.builds.add(launched.pid, ours);
        Ok([launched.pidfd, theirs.into()])
    }

    fn hold(&self, user: (u32, u32)) -> Result<[OwnedFd; 2], Failure> {
        let (ours, theirs) = Channel::pair().step("make a socket pair")?;
        let site = Site {
            owner: user,
            ..self.site.clone()
        };
        let holder = roles::spawn_with_site(Role::Holder, theirs, &site).step("start a holder")?;
        let pidfd = pidfd_open(
            rustix::process::Pid::from_child(&holder),
            PidfdFlags::empty(),
        )
        .step("watch a holder")?;
        Ok([ours.into(), pidfd])
    }
}
