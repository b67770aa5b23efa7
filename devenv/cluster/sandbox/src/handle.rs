//! The supervisor's handle to the cluster.

use std::{
    fs, io,
    net::{SocketAddrV4, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    process::Child,
    sync::Mutex,
};

use rustix::thread::CapabilitySet;

use crate::{
    ask::{ask, lock, pid_of, pipe, these},
    cgroup::{self, Group},
    check::{check_absolute, check_files, check_hostname, check_program},
    error::SandboxError,
    host_child::HostChild,
    pod::Pod,
    roles::{self, Role},
    rootfs::MOUNT_POINT,
    spec::{HostProcess, PodSpec},
    wire::{Channel, MAX_FDS, NetReply, NetRequest, RunHost, RunHostReply, Site, UpReply},
};

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub struct NetdOptions {
    /// An existing directory of mode 0700. The roots of containers are mounted
    /// below it, in mount namespaces that the host does not see.
    pub run_dir: PathBuf,
    /// User id that containers and builds run as unless they say otherwise.
    pub owner_uid: u32,
    /// The same for the group id.
    pub owner_gid: u32,
}

/// A running cluster network with its pods. Dropping it ends all of that.
///
/// The methods block for a few milliseconds at most; on an async runtime call
/// them where blocking is allowed.
#[derive(Debug)]
pub struct Netd {
    janitor: Child,
    site: Site,
    limits_missing: Option<String>,
    /// To cluster-init. `None` only while being dropped.
    init: Option<Mutex<Channel>>,
    /// To cluster-net. `None` only while being dropped.
    network: Option<Mutex<Channel>>,
}

impl Netd {
    /// Makes the cluster's namespaces and network: a bridge at
    /// [`GATEWAY`](crate::GATEWAY) and a local [`SERVICE_RANGE`](crate::SERVICE_RANGE).
    ///
    /// # Errors
    /// [`SandboxError::NamespacesForbidden`] with what forbids them and what
    /// mends it; [`SandboxError::Step`] for anything else.
    pub fn start(options: NetdOptions) -> Result<Netd, SandboxError> {
        let run_dir = options
            .run_dir
            .canonicalize()
            .map_err(|source| SandboxError::Step {
                step: format!("find the run directory {}", options.run_dir.display()),
                source,
            })?;
        let site = Site {
            run_dir,
            owner: (options.owner_uid, options.owner_gid),
            privileged: is_privileged(),
            group: Group::default(),
        };
        make_mount_point(&site.run_dir)?;
        // What an earlier tree left: a janitor that was killed, too, removed nothing.
        Group::recorded(&site.run_dir).forget(&site.run_dir);
        let (group, limits_missing) = cgroup::make_project(&site.run_dir);
        let site = Site { group, ..site };

        let (init, theirs) = Channel::pair().map_err(SandboxError::Wire)?;
        let mut janitor =
            roles::spawn_with_site(Role::Janitor, theirs, &site).map_err(|source| {
                site.group.forget(&site.run_dir);
                SandboxError::Step {
                    step: "start the sandbox".into(),
                    source,
                }
            })?;
        match first_words(&init) {
            Ok(network) => Ok(Netd {
                janitor,
                site,
                limits_missing,
                init: Some(Mutex::new(init)),
                network: Some(Mutex::new(network)),
            }),
            Err(error) => {
                // The hang-up ends what was started.
                drop(init);
                let _ = janitor.wait();
                Err(error)
            }
        }
    }

    /// Makes `count` non-blocking TCP/IPv4 sockets in the cluster's network,
    /// to be connected to pod addresses. 64 at a time cost about as much as one.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when descriptors run out, [`SandboxError::ClusterGone`].
    pub fn sockets(&self, count: usize) -> Result<Vec<OwnedFd>, SandboxError> {
        let mut sockets = Vec::with_capacity(count);
        while sockets.len() < count {
            let batch = (count - sockets.len()).min(MAX_FDS);
            let received = self.ask_network(&NetRequest::Sockets(batch))?;
            if received.len() != batch {
                return Err(SandboxError::Wire(io::ErrorKind::InvalidData.into()));
            }
            sockets.extend(received);
        }
        Ok(sockets)
    }

    /// Listens in the cluster's network, non-blocking, with a backlog of 1024.
    /// Any address of the Service range can be used, and the gateway's.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when the address is taken, [`SandboxError::ClusterGone`].
    pub fn listen_tcp(&self, address: SocketAddrV4) -> Result<TcpListener, SandboxError> {
        self.one_socket(&NetRequest::ListenTcp(address))
            .map(TcpListener::from)
    }

    /// Binds a non-blocking UDP socket in the cluster's network.
    ///
    /// # Errors
    /// As [`listen_tcp`](Self::listen_tcp).
    pub fn bind_udp(&self, address: SocketAddrV4) -> Result<UdpSocket, SandboxError> {
        self.one_socket(&NetRequest::BindUdp(address))
            .map(UdpSocket::from)
    }

    /// Redirects every TCP connection that leaves the pod and Service ranges
    /// to the returned non-blocking listener. `SO_ORIGINAL_DST` of an accepted
    /// connection tells where it wanted to go. Pods see their connections
    /// accepted before the far side has answered. Call it once.
    ///
    /// # Errors
    /// [`SandboxError::Step`] when called again or where the kernel lacks
    /// nf_tables, [`SandboxError::ClusterGone`].
    pub fn way_out(&self) -> Result<TcpListener, SandboxError> {
        self.one_socket(&NetRequest::WayOut).map(TcpListener::from)
    }

    /// Makes a pod with its namespaces, link and address. Nothing runs in it yet.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for an unusable specification,
    /// [`SandboxError::Step`] for a step that failed, [`SandboxError::ClusterGone`].
    pub fn create_pod(&self, spec: &PodSpec) -> Result<Pod, SandboxError> {
        check_hostname(&spec.hostname)?;
        check_files(&spec.files)?;
        spec.tmpfs
            .iter()
            .try_for_each(|tmpfs| check_absolute(&tmpfs.path))?;
        let fds = self.ask_network(&NetRequest::CreatePod(spec.clone()))?;
        let [control, events, pidfd] = these(fds)?;
        Pod::new(&spec.hostname, control.into(), events.into(), pidfd)
    }

    /// The cluster's network namespace, for [`Door`](crate::Door).
    pub(crate) fn network_namespace(&self) -> Result<OwnedFd, SandboxError> {
        self.one_socket(&NetRequest::Namespace)
    }

    /// Puts a link that a pod made into the cluster's network on its bridge.
    pub(crate) fn adopt(&self, link: &str) -> Result<(), SandboxError> {
        self.ask_network(&NetRequest::Adopt(link.to_owned()))
            .map(drop)
    }

    /// Runs a program with the host's files and network, such as a build. It
    /// dies with the supervisor, in whatever way that dies.
    ///
    /// As an ordinary user the program sees files of other users as owned by
    /// `nobody`, and set-user-id programs (sudo) do not work in it.
    ///
    /// # Errors
    /// [`SandboxError::Exec`] and [`SandboxError::Cwd`] when the program could
    /// not be executed, [`SandboxError::Invalid`], [`SandboxError::ClusterGone`].
    pub fn run_host(&self, process: &HostProcess) -> Result<HostChild, SandboxError> {
        check_program(&process.argv, &process.env, &process.cwd)?;
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let channel = self.init.as_ref().ok_or(SandboxError::ClusterGone)?;
        let reply = ask(
            &lock(channel),
            &RunHost(process.clone()),
            &[stdout_write.as_fd(), stderr_write.as_fd()],
        )?;
        match reply {
            Some((RunHostReply::Started, fds)) => {
                let [pidfd, events] = these(fds)?;
                Ok(HostChild::new(
                    pid_of(&pidfd)?,
                    events.into(),
                    stdout,
                    stderr,
                ))
            }
            Some((RunHostReply::Failed(failure), _)) => Err(failure.into()),
            None => Err(SandboxError::ClusterGone),
        }
    }

    /// Process id of the janitor on the host.
    pub fn pid(&self) -> u32 {
        self.janitor.id()
    }

    /// True when containers really switch users, because this runs as root;
    /// false when they only appear as theirs, in a user namespace.
    pub fn is_privileged(&self) -> bool {
        self.site.privileged
    }

    /// Which limits of pods and containers are not enforced on this machine, why,
    /// and what would mend it, in a sentence for people; `None` when all are.
    pub fn limits_missing(&self) -> Option<&str> {
        self.limits_missing.as_deref()
    }

    fn one_socket(&self, request: &NetRequest) -> Result<OwnedFd, SandboxError> {
        let [socket] = these(self.ask_network(request)?)?;
        Ok(socket)
    }

    fn ask_network(&self, request: &NetRequest) -> Result<Vec<OwnedFd>, SandboxError> {
        let channel = self.network.as_ref().ok_or(SandboxError::ClusterGone)?;
        match ask(&lock(channel), request, &[])? {
            Some((NetReply::Failed(failure), _)) => Err(failure.into()),
            Some((_, fds)) => Ok(fds),
            None => Err(SandboxError::ClusterGone),
        }
    }
}

/// Ends the cluster and waits until all of its processes are dead.
impl Drop for Netd {
    fn drop(&mut self) {
        self.init = None;
        self.network = None;
        let _ = self.janitor.wait();
    }
}

/// Namespaces without a user namespace take the machine's root, or something
/// near it, with these capabilities. Root of a user namespace that knows only
/// one user (`unshare -r`), where setgroups is denied, is an ordinary user.
fn is_privileged() -> bool {
    let one_user =
        fs::read_to_string("/proc/self/setgroups").is_ok_and(|rule| rule.trim() == "deny");
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN;
    nix::unistd::geteuid().is_root()
        && !one_user
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

fn make_mount_point(run_dir: &Path) -> Result<(), SandboxError> {
    let path = run_dir.join(MOUNT_POINT);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(SandboxError::Step {
            step: format!("make {}", path.display()),
            source,
        }),
        _ => Ok(()),
    }
}

/// Waits until cluster-init and cluster-net have said that they stand.
fn first_words(init: &Channel) -> Result<Channel, SandboxError> {
    let gone = || SandboxError::ClusterGone;
    let network: Channel = match init.recv().map_err(SandboxError::Wire)? {
        Some((UpReply::Ready, mut fds)) => fds.pop().ok_or_else(gone)?.into(),
        Some((UpReply::Failed(failure), _)) => return Err(failure.into()),
        None => return Err(gone()),
    };
    match network.recv().map_err(SandboxError::Wire)? {
        Some((NetReply::Failed(failure), _)) => Err(failure.into()),
        Some(_) => Ok(network),
        None => Err(gone()),
    }
}
