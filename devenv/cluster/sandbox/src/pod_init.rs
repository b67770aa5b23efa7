//! `devenv pod-init`: PID 1 of a pod. Makes the pod's network, starts its
//! containers, reaps, and tells how containers ended.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        stat::fstat,
    },
    unistd::{Pid, sethostname},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};

use crate::{
    cgroup::Group,
    cluster_init::own_proc,
    error::{Cause, Context, Failure},
    launch::launch,
    memory::{self, Memory},
    netlink::{LOOPBACK, Route},
    network::{GATEWAY, POD_LINK, POD_PREFIX, allow_low_ports},
    reaper::Reaper,
    spec::{Bind, ContainerSpec, Exit, FileMount, PodEvent, PodSpec, Tmpfs},
    wire::{Channel, Launch, PodReply, PodRequest, Site, exactly},
};

/// Returns the exit code when the supervisor has let go of the pod. The kernel
/// then kills everything else in it.
pub(crate) fn run(channel: Channel) -> i32 {
    let mut pod = match PodInit::start(&channel) {
        Ok(pod) => pod,
        Err(failure) => {
            // If cluster-net is gone too, there is no one to tell.
            let _ = channel.send(&PodReply::Failed(failure), &[]);
            return 1;
        }
    };
    match pod.serve(&channel) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

struct PodInit {
    site: Site,
    /// For every container, before its own.
    files: Vec<FileMount>,
    /// Where the pod has memory of its own.
    tmpfs: Vec<PathBuf>,
    /// The same, to be filled.
    memory: Vec<Memory>,
    /// Whether no room is to be left in what the pod writes to.
    full: bool,
    reaper: Reaper,
    events: Channel,
    /// Events that the supervisor's buffer had no room for yet.
    unsent: VecDeque<PodEvent>,
    containers: Vec<Running>,
    /// Groups of ended containers that are not gone yet.
    emptied: Vec<Group>,
    /// Numbers the containers' groups: a restart has a fresh one.
    runs: u64,
}

struct Running {
    name: String,
    pid: Pid,
    /// Tells this container's processes from others, whatever their session.
    /// `None` for what runs within another container.
    mount_namespace: Option<OwnedFd>,
    /// Of what runs within another container: that container's.
    group: Group,
    /// What it writes to, beside the pod's.
    memory: Vec<Memory>,
    /// Set once the main process was reaped; the rest is being killed.
    exit: Option<Exit>,
}

impl PodInit {
    fn start(channel: &Channel) -> Result<PodInit, Failure> {
        let Some((PodRequest::Setup(site, spec), _)) =
            channel.recv().step("read the pod's specification")?
        else {
            return Err(Failure::plain(Cause::Died {
                name: "cluster-net".into(),
            }));
        };
        // cluster-net does not end before the cluster does.
        prctl::set_pdeathsig(Signal::SIGKILL).step("ask to die with the cluster")?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
            .step("make the pod's network, IPC and host name namespaces")?;
        // cluster-net makes the link while the mounts are made here.
        channel
            .send(&PodReply::NeedsLink, &[])
            .step("ask for the pod's link")?;
        own_proc()?;
        let memory = spec
            .tmpfs
            .iter()
            .map(mount_tmpfs)
            .collect::<Result<_, _>>()?;
        sethostname(&spec.hostname).step("set the pod's host name")?;
        let reaper = Reaper::new().step("receive signals as events")?;
        let (events, theirs) = Channel::pair().step("make a socket pair")?;
        if channel
            .recv::<PodRequest>()
            .step("wait for the pod's link")?
            .is_none()
        {
            return Err(Failure::plain(Cause::Died {
                name: "cluster-net".into(),
            }));
        }
        set_up_network(&spec)?;
        channel
            .send(&PodReply::Ready, &[theirs.as_fd()])
            .step("say that the pod stands")?;

        let mut files = spec.files;
        files.insert(
            0,
            FileMount {
                path: "/etc/hostname".into(),
                contents: format!("{}\n", spec.hostname).into_bytes(),
                mode: 0o644,
            },
        );
        Ok(PodInit {
            site,
            files,
            tmpfs: spec.tmpfs.into_iter().map(|tmpfs| tmpfs.path).collect(),
            memory,
            full: false,
            reaper,
            events,
            unsent: VecDeque::new(),
            emptied: Vec::new(),
            containers: Vec::new(),
            runs: 0,
        })
    }

    fn serve(&mut self, channel: &Channel) -> Result<(), Failure> {
        loop {
            let wants = if self.unsent.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            let mut fds = [
                PollFd::new(channel, PollFlags::IN),
                PollFd::new(&self.reaper, PollFlags::IN),
                PollFd::new(&self.events, wants),
            ];
            retry_on_intr(|| poll(&mut fds, None)).step("wait for requests")?;
            let [requested, ended, writable] = fds.map(|fd| fd.revents());
            if writable.contains(PollFlags::HUP) {
                return Ok(());
            }
            if !ended.is_empty() {
                self.reap()?;
            }
            self.tell()?;
            if !requested.is_empty() && !self.answer(channel)? {
                return Ok(());
            }
        }
    }

    /// Serves one request; false when the supervisor is gone.
    fn answer(&mut self, channel: &Channel) -> Result<bool, Failure> {
        let Some((request, fds)) = channel.recv().step("read a request")? else {
            return Ok(false);
        };
        let result = match request {
            PodRequest::Start(spec) => self
                .start_container(spec, fds)
                .map(|(pidfd, reply)| (reply, Some(pidfd))),
            PodRequest::Signal { container, signal } => self
                .signal(container, signal)
                .map(|()| (PodReply::Signalled, None)),
            PodRequest::Fill(full) => self.fill(full).map(|()| (PodReply::Filled, None)),
            PodRequest::Setup(..) | PodRequest::Linked => {
                Err(Failure::plain(Cause::Step("set the pod up twice".into())))
            }
        };
        let (reply, pidfd) = result.unwrap_or_else(|failure| (PodReply::Failed(failure), None));
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        Ok(channel.send(&reply, &fds).is_ok())
    }

    fn start_container(
        &mut self,
        mut spec: ContainerSpec,
        fds: Vec<OwnedFd>,
    ) -> Result<(OwnedFd, PodReply), Failure> {
        let [stdout, stderr] = exactly(fds)?;
        let name = spec.name.clone();
        if self.containers.iter().any(|running| running.name == name) {
            return Err(Failure::plain(Cause::AlreadyRunning { container: name }));
        }
        self.make_sources(&spec.binds)?;
        let is_guest = spec.within.is_some();
        let (group, mut warnings) = match &spec.within {
            Some(host) => (self.running(host)?.group.clone(), Vec::new()),
            None => self.make_group(&spec),
        };
        let within = match &spec.within {
            None => None,
            Some(host) => self.running(host)?.mount_namespace.as_ref(),
        };
        spec.files.splice(0..0, self.files.iter().cloned());
        let site = Site {
            group: group.clone(),
            ..self.site.clone()
        };
        let what = Launch::Container(site, spec);
        let launched = launch(&name, &what, stdout, stderr, within.map(AsFd::as_fd));
        let launched = launched.inspect_err(|_| {
            if !is_guest {
                group.remove();
            }
        })?;
        let mut memory: Vec<_> = launched.memory.into_iter().map(Memory::new).collect();
        if self.full
            && let Err(error) = memory.iter_mut().try_for_each(Memory::fill)
        {
            warnings.push(format!(
                "it can write although its disk is to be full ({error})"
            ));
        }
        self.containers.push(Running {
            name,
            pid: launched.pid,
            mount_namespace: (!is_guest).then_some(launched.mount_namespace),
            group: group.clone(),
            memory,
            exit: None,
        });
        warnings.extend(launched.warnings);
        Ok((launched.pidfd, PodReply::Started { warnings, group }))
    }

    /// Makes what is to be shown of the pod's memory and is not there yet: only
    /// this process and its children see inside.
    fn make_sources(&self, binds: &[Bind]) -> Result<(), Failure> {
        let inside = |bind: &&Bind| self.tmpfs.iter().any(|top| bind.source.starts_with(top));
        for bind in binds
            .iter()
            .filter(inside)
            .filter(|bind| !bind.source.exists())
        {
            fs::create_dir_all(&bind.source)
                .and_then(|()| fs::set_permissions(&bind.source, Permissions::from_mode(0o777)))
                .cause(|| Cause::Bind {
                    from: bind.source.clone(),
                    target: bind.target.clone(),
                })?;
        }
        Ok(())
    }

    /// A group for one run of a container, with its limits, and what of them is
    /// not enforced.
    fn make_group(&mut self, spec: &ContainerSpec) -> (Group, Vec<String>) {
        self.runs += 1;
        match self
            .site
            .group
            .make_child(&format!("{}.{}", spec.name, self.runs))
        {
            Ok(group) => {
                let warnings = group.limit(&spec.limits);
                (group, warnings)
            }
            Err(error) => (
                Group::default(),
                vec![format!(
                    "its limits are not enforced: no control group can be made ({error})"
                )],
            ),
        }
    }

    /// A container that runs, not a guest of one.
    fn running(&self, container: &str) -> Result<&Running, Failure> {
        self.containers
            .iter()
            .find(|running| {
                running.name == container
                    && running.exit.is_none()
                    && running.mount_namespace.is_some()
            })
            .ok_or_else(|| {
                Failure::plain(Cause::NotRunning {
                    container: container.to_owned(),
                })
            })
    }

    fn signal(&self, container: String, signal: i32) -> Result<(), Failure> {
        let running = self
            .containers
            .iter()
            .find(|running| running.name == container && running.exit.is_none());
        let Some(running) = running else {
            return Err(Failure::plain(Cause::NotRunning { container }));
        };
        // Not reaped yet, so the group's id still is this container's.
        let signal = Signal::try_from(signal);
        signal
            .and_then(|signal| killpg(running.pid, signal))
            .step("signal a container")
    }

    /// All or nothing is full.
    fn fill(&mut self, full: bool) -> Result<(), Failure> {
        let of_containers = self.containers.iter_mut().flat_map(|c| &mut c.memory);
        let mut all: Vec<_> = self.memory.iter_mut().chain(of_containers).collect();
        self.full = full;
        if full {
            let filled = all.iter_mut().try_for_each(|memory| memory.fill());
            if let Err(error) = filled {
                self.full = false;
                for memory in all {
                    // The first failure is the one to tell.
                    let _ = memory.free();
                }
                return Err(error).step("fill the pod's memory");
            }
            return Ok(());
        }
        let freed: Vec<_> = all.into_iter().map(Memory::free).collect();
        freed
            .into_iter()
            .collect::<io::Result<()>>()
            .step("give the pod's memory back")
    }

    /// Reaps containers and orphans, and ends what ended containers left.
    fn reap(&mut self) -> Result<(), Failure> {
        self.reaper.acknowledge().step("read signals")?;
        while let Some(ended) = self.reaper.next_ended().step("wait for children")? {
            let main = self
                .containers
                .iter_mut()
                .find(|c| c.pid == ended.pid && c.exit.is_none());
            if main.as_ref().is_some_and(|c| c.mount_namespace.is_none()) {
                // What it started in its own session goes with it; the rest is its host's.
                ended.kill_group();
            }
            let exit = ended.reap();
            if let Some(container) = main {
                container.exit = Some(exit);
            }
        }
        // Leftovers that die are orphans of this process, so each of their
        // deaths brings us here again until none is left.
        let mut index = 0;
        while let Some(container) = self.containers.get(index) {
            match container.exit {
                Some(exit) if !has_leftovers(container)? => {
                    let ended = self.containers.remove(index);
                    let out_of_memory = ended.group.ran_out_of_memory();
                    if ended.mount_namespace.is_some() {
                        self.emptied.push(ended.group);
                    }
                    self.unsent.push_back(PodEvent::Exited {
                        container: ended.name,
                        exit,
                        out_of_memory,
                    });
                }
                _ => index += 1,
            }
        }
        // A leftover that is dying has no namespaces any more and is in its group until
        // it is reaped, which brings us here again.
        self.emptied.retain(|group| !group.remove());
        Ok(())
    }

    fn tell(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.unsent.front() {
            match self.events.try_send(event) {
                Ok(()) => self.unsent.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).step("tell an event"),
            };
        }
        Ok(())
    }
}

/// Whether an ended container still has processes, which are being killed then.
fn has_leftovers(container: &Running) -> Result<bool, Failure> {
    match &container.mount_namespace {
        Some(namespace) => kill_leftovers(namespace),
        None => Ok(false),
    }
}

/// Kills every process that lives in a container's mount namespace, also those
/// that left its session; true when there are some. It repeats until a look
/// finds no new ones, so that a process forked meanwhile is not missed.
fn kill_leftovers(mount_namespace: &OwnedFd) -> Result<bool, Failure> {
    let wanted = fstat(mount_namespace)
        .step("identify a mount namespace")?
        .st_ino;
    let mut killed = HashSet::new();
    loop {
        let mut any = false;
        let mut new = false;
        for entry in fs::read_dir("/proc").step("look for leftover processes")? {
            let entry = entry.step("look for leftover processes")?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            // A process that is dead already has no namespaces any more.
            let Ok(namespace) = fs::metadata(entry.path().join("ns/mnt")) else {
                continue;
            };
            if namespace.ino() == wanted {
                any = true;
                new |= killed.insert(pid);
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if !new {
            return Ok(any);
        }
    }
}

/// In this process's mounts, which every container's begin with.
fn mount_tmpfs(tmpfs: &Tmpfs) -> Result<Memory, Failure> {
    let size = tmpfs.size.map(|bytes| format!(",size={bytes}"));
    // Any user of the pod may write there, as in the kubelet's emptyDirs.
    let options = format!("mode=0777{}", size.unwrap_or_default());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let kind = Some("tmpfs");
    mount(kind, &tmpfs.path, kind, flags, Some(options.as_str()))
        .map_err(io::Error::from)
        .and_then(|()| memory::open(&tmpfs.path))
        .map(Memory::new)
        .cause(|| Cause::Step(format!("mount memory at {}", tmpfs.path.display())))
}

fn set_up_network(spec: &PodSpec) -> Result<(), Failure> {
    allow_low_ports().step("allow low ports in the pod")?;
    // Announces the address when the link comes up: the bridge may still
    // connect it with the link of a pod that is just dying.
    fs::write(
        format!("/proc/sys/net/ipv4/conf/{POD_LINK}/arp_notify"),
        "1",
    )
    .step("announce the pod's address")?;
    let mut route = Route::new().step("open a netlink socket")?;
    route
        .up(LOOPBACK)
        .step("bring the pod's loopback link up")?;
    let link = route.index(POD_LINK).step("find the pod's link")?;
    let ip = spec.ip;
    route
        .address(link, ip, POD_PREFIX)
        .cause(|| Cause::Step(format!("give the pod the address {ip}")))?;
    route.up(link).step("bring the pod's link up")?;
    route
        .default_route(GATEWAY)
        .step("route the pod to its gateway")
}
