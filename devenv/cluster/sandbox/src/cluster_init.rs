//! `devenv cluster-init`: PID 1 of the cluster.
//!
//! It stays in the host's network namespace, where builds belong, because an
//! ordinary user could not come back to it. cluster-net makes the cluster's
//! network one level below.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};

use crate::{
    cgroup::Group,
    error::{Context, Failure},
    forbidden,
    host_children::HostChildren,
    launch::launch,
    reaper::Reaper,
    roles::{self, Role},
    spec::{HostProcess, Limits},
    wire::{Channel, Launch, RunHost, RunHostReply, Site, UpReply},
};

/// Returns the exit code when the supervisor or the network is gone; the
/// kernel then kills everything else in the namespace.
pub(crate) fn run(channel: Channel, site: Site) -> i32 {
    match ClusterInit::start(channel, site) {
        Ok(mut init) => match init.serve() {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(()) => 1,
    }
}

/// The name of the host processes' control group; no pod's begins with a letter.
const BUILDS: &str = "builds";
/// What they weigh together, in thousandths of a CPU.
const BUILDS_WEIGH: u64 = 50;

struct ClusterInit {
    channel: Channel,
    site: Site,
    reaper: Reaper,
    network: Pid,
    children: HostChildren,
    /// That of the host processes, once there was one.
    builds: Option<Group>,
}

impl ClusterInit {
    fn start(channel: Channel, site: Site) -> Result<ClusterInit, ()> {
        match prepare(&site) {
            Ok((reaper, network, to_network)) => {
                channel
                    .send(&UpReply::Ready, &[to_network.as_fd()])
                    .map_err(drop)?;
                Ok(ClusterInit {
                    channel,
                    site,
                    reaper,
                    network,
                    children: HostChildren::default(),
                    builds: None,
                })
            }
            Err(failure) => {
                // Without a listener there is no one to tell.
                let _ = channel.send(&UpReply::Failed(failure), &[]);
                Err(())
            }
        }
    }

    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            let ready = self.wait()?;
            if ready.reaper && self.reap()? {
                return Ok(());
            }
            for pid in ready.children {
                self.children.control(pid);
            }
            if ready.channel && !self.answer()? {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Ready, Failure> {
        let watched = self.children.watched();
        let mut fds = vec![
            PollFd::new(&self.channel, PollFlags::IN),
            PollFd::new(&self.reaper, PollFlags::IN),
        ];
        fds.extend(
            watched
                .iter()
                .map(|(_, channel)| PollFd::new(*channel, PollFlags::IN)),
        );
        retry_on_intr(|| poll(&mut fds, None)).step("wait for requests")?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            channel: is_ready(&fds[0]),
            reaper: is_ready(&fds[1]),
            children: watched
                .iter()
                .zip(&fds[2..])
                .filter(|(_, fd)| is_ready(fd))
                .map(|((pid, _), _)| *pid)
                .collect(),
        })
    }

    /// Reaps children and orphans; true when the network is among them.
    fn reap(&mut self) -> Result<bool, Failure> {
        self.reaper.acknowledge().step("read signals")?;
        while let Some(ended) = self.reaper.next_ended().step("wait for children")? {
            let is_network = ended.pid == self.network;
            self.children.ended(ended);
            if is_network {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Serves one request; false when the supervisor is gone.
    fn answer(&mut self) -> Result<bool, Failure> {
        let request = self.channel.recv::<RunHost>().step("read a request")?;
        let Some((RunHost(process), fds)) = request else {
            return Ok(false);
        };
        let sent = match self.run_host(process, fds) {
            Ok((pidfd, channel)) => self
                .channel
                .send(&RunHostReply::Started, &[pidfd.as_fd(), channel.as_fd()]),
            Err(failure) => self.channel.send(&RunHostReply::Failed(failure), &[]),
        };
        Ok(sent.is_ok())
    }

    fn run_host(
        &mut self,
        process: HostProcess,
        fds: Vec<OwnedFd>,
    ) -> Result<(OwnedFd, Channel), Failure> {
        let [stdout, stderr] = crate::wire::exactly(fds)?;
        let (ours, theirs) = Channel::pair().step("make a socket pair")?;
        let name = process.argv[0].clone();
        let site = Site {
            group: self.builds(),
            ..self.site.clone()
        };
        let launched = launch(&name, &Launch::Host(site, process), stdout, stderr, None)?;
        self.children.add(launched.pid, ours);
        Ok((launched.pidfd, theirs))
    }

    /// A compiler takes every processor that it can get; where groups are allowed it
    /// gets no more than a small pod while others want it, so that a build beside
    /// services under load slows down and not they.
    fn builds(&mut self) -> Group {
        let run_dir = &self.site.run_dir;
        let make = || {
            let project = Group::recorded(run_dir);
            let group = project.make_child(BUILDS).unwrap_or_default();
            group.limit(&Limits {
                cpu_request: Some(BUILDS_WEIGH),
                ..Limits::default()
            });
            group
        };
        self.builds.get_or_insert_with(make).clone()
    }
}

/// What [`ClusterInit::wait`] found.
struct Ready {
    channel: bool,
    reaper: bool,
    children: Vec<Pid>,
}

/// Also returns the supervisor's end of the channel to cluster-net.
fn prepare(site: &Site) -> Result<(Reaper, Pid, Channel), Failure> {
    // For the case that the janitor alone is killed.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask to die with the janitor")?;
    own_proc().map_err(forbidden::explain)?;
    let reaper = Reaper::new().step("receive signals as events")?;
    let (ours, theirs) = Channel::pair().step("make a socket pair")?;
    let network = roles::spawn_with_site(Role::ClusterNet, theirs, site)
        .step("start the cluster's network")?;
    Ok((reaper, Pid::from_raw(network.id().cast_signed()), ours))
}

/// A mount namespace whose /proc shows this PID namespace. Later mounts on the
/// host still arrive here; none of ours goes back.
pub(crate) fn own_proc() -> Result<(), Failure> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).step("make a mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .step("keep mounts from the host")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).step("mount /proc")
}
