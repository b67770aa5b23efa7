//! The supervisor's side: handles to the cluster and to its pods.

use std::{
    fs, io,
    net::{SocketAddrV4, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::signal::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    pipe::{PipeFlags, pipe_with},
    process::pidfd_send_signal,
    thread::CapabilitySet,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::SandboxError,
    host_child::HostChild,
    roles::{self, Role},
    rootfs::MOUNT_POINT,
    spec::{ContainerSpec, FileMount, HostProcess, PodEvent, PodSpec},
    wire::{
        Channel, MAX_FDS, NetReply, NetRequest, PodReply, PodRequest, RunHost, RunHostReply, Site,
        UpReply,
    },
};

/// How long [`Pod::next_event`] waits for a dying pod's last process.
const DEATH: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
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
        };
        make_mount_point(&site.run_dir)?;

        let (init, theirs) = Channel::pair().map_err(SandboxError::Wire)?;
        let mut janitor =
            roles::spawn_with_site(Role::Janitor, theirs, &site).map_err(|source| {
                SandboxError::Step {
                    step: "start the sandbox".into(),
                    source,
                }
            })?;
        match first_words(&init) {
            Ok(network) => Ok(Netd {
                janitor,
                site,
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
        let fds = self.ask_network(&NetRequest::CreatePod(spec.clone()))?;
        let [control, events, pidfd] = three(fds)?;
        let pid = pid_of(&pidfd)?;
        Ok(Pod {
            hostname: spec.hostname.clone(),
            pid,
            pidfd,
            control: Mutex::new(control.into()),
            events: events.into(),
        })
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
                let [pidfd, events] = two(fds)?;
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

    fn one_socket(&self, request: &NetRequest) -> Result<OwnedFd, SandboxError> {
        let mut fds = self.ask_network(request)?;
        fds.pop()
            .ok_or_else(|| SandboxError::Wire(io::ErrorKind::InvalidData.into()))
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

/// A pod. Dropping it kills it.
#[derive(Debug)]
pub struct Pod {
    hostname: String,
    pid: u32,
    pidfd: OwnedFd,
    control: Mutex<Channel>,
    events: Channel,
}

impl Pod {
    /// Process id of the pod's PID 1 on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a container and returns when its program is executed. May be
    /// called again after its exit event: a restart keeps the pod and its address.
    ///
    /// # Errors
    /// [`SandboxError::Exec`], [`Cwd`](SandboxError::Cwd),
    /// [`Bind`](SandboxError::Bind) and [`File`](SandboxError::File) name what
    /// of the specification cannot be had; [`SandboxError::AlreadyRunning`],
    /// [`SandboxError::Invalid`], [`SandboxError::PodGone`].
    pub fn start(&self, spec: &ContainerSpec) -> Result<Container, SandboxError> {
        check_container(spec)?;
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let fds = self.ask(
            &PodRequest::Start(spec.clone()),
            &[stdout_write.as_fd(), stderr_write.as_fd()],
        )?;
        let pidfd = fds
            .first()
            .ok_or_else(|| SandboxError::Wire(io::ErrorKind::InvalidData.into()))?;
        Ok(Container {
            pid: pid_of(pidfd)?,
            stdout,
            stderr,
        })
    }

    /// Sends a signal to the container's process group: its main process and
    /// the children that did not start a group or session of their own. Those
    /// are killed when the main process has ended, and by [`kill`](Self::kill).
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`], [`SandboxError::Invalid`] for a number
    /// that is no signal, [`SandboxError::PodGone`].
    pub fn signal(&self, container: &str, signal: i32) -> Result<(), SandboxError> {
        check_signal(signal)?;
        let request = PodRequest::Signal {
            container: container.to_owned(),
            signal,
        };
        self.ask(&request, &[]).map(drop)
    }

    /// Readable when [`next_event`](Self::next_event) has one (for `AsyncFd`).
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, without waiting for one: `None` when there is none.
    /// After a kill it waits for the last process, a millisecond as a rule and
    /// a second at most, and then answers [`PodEvent::PodGone`], again and again.
    ///
    /// # Errors
    /// [`SandboxError::Wire`] when an event cannot be read.
    pub fn next_event(&self) -> Result<Option<PodEvent>, SandboxError> {
        match self.events.try_recv() {
            Ok(Some((event, _))) => Ok(Some(event)),
            Ok(None) => {
                // PID 1 closes its end before its namespace is dead; the
                // pidfd tells when it is.
                let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
                let _ = retry_on_intr(|| poll(&mut fds, Some(&DEATH)));
                Ok(Some(PodEvent::PodGone))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(SandboxError::Wire(error)),
        }
    }

    /// Kills everything in the pod (SIGKILL of its PID 1).
    pub fn kill(&self) {
        // It fails only when the pod is dead already.
        let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    fn ask(
        &self,
        request: &PodRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<OwnedFd>, SandboxError> {
        match ask(&lock(&self.control), request, fds)? {
            Some((PodReply::Failed(failure), _)) => Err(failure.into()),
            Some((_, fds)) => Ok(fds),
            None => Err(SandboxError::PodGone {
                pod: self.hostname.clone(),
            }),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A started container.
#[derive(Debug)]
pub struct Container {
    /// Process id of its main process on the host.
    pub pid: u32,
    /// Read end of its standard output. It ends when the last process that
    /// holds the other end has died.
    pub stdout: OwnedFd,
    /// Read end of its standard error.
    pub stderr: OwnedFd,
}

/// Namespaces without a user namespace take the machine's root, or something
/// near it, with these capabilities.
fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN;
    nix::unistd::geteuid().is_root()
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

/// One request and its reply; `None` when the other side is gone.
fn ask<Q: Serialize, A: DeserializeOwned>(
    channel: &Channel,
    request: &Q,
    fds: &[BorrowedFd<'_>],
) -> Result<Option<(A, Vec<OwnedFd>)>, SandboxError> {
    match channel.send(request, fds) {
        Ok(()) => channel.recv().map_err(SandboxError::Wire),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(SandboxError::Wire(error)),
    }
}

/// A panic elsewhere cannot leave a request half done: requests are one packet.
fn lock(channel: &Mutex<Channel>) -> MutexGuard<'_, Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

fn two(fds: Vec<OwnedFd>) -> Result<[OwnedFd; 2], SandboxError> {
    fds.try_into()
        .map_err(|_| SandboxError::Wire(io::ErrorKind::InvalidData.into()))
}

fn three(fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], SandboxError> {
    fds.try_into()
        .map_err(|_| SandboxError::Wire(io::ErrorKind::InvalidData.into()))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| SandboxError::Step {
        step: "make a pipe".into(),
        source: error.into(),
    })
}

/// The process behind a pidfd, as this process's PID namespace numbers it; 0
/// when it was reaped meanwhile.
fn pid_of(pidfd: &OwnedFd) -> Result<u32, SandboxError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(path).map_err(SandboxError::Wire)?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0))
}

pub(crate) fn check_signal(signal: i32) -> Result<(), SandboxError> {
    match Signal::try_from(signal) {
        Ok(_) => Ok(()),
        Err(_) => Err(SandboxError::Invalid(format!(
            "{signal} is not a signal; see kill -l"
        ))),
    }
}

fn check_hostname(hostname: &str) -> Result<(), SandboxError> {
    if (1..=64).contains(&hostname.len()) && !hostname.contains(['\0', '\n', '/']) {
        return Ok(());
    }
    Err(SandboxError::Invalid(format!(
        "the host name {hostname:?} is not usable; it must have 1 to 64 bytes"
    )))
}

fn check_container(spec: &ContainerSpec) -> Result<(), SandboxError> {
    check_program(&spec.argv, &spec.env, &spec.cwd)?;
    check_files(&spec.files)?;
    let paths = spec
        .binds
        .iter()
        .flat_map(|bind| [&bind.source, &bind.target]);
    paths.into_iter().try_for_each(|path| check_absolute(path))
}

fn check_files(files: &[FileMount]) -> Result<(), SandboxError> {
    files.iter().try_for_each(|file| check_absolute(&file.path))
}

fn check_absolute(path: &Path) -> Result<(), SandboxError> {
    if path.is_absolute() {
        return Ok(());
    }
    let path = path.display();
    Err(SandboxError::Invalid(format!(
        "the path {path} is not usable; it must be absolute"
    )))
}

/// What exec would refuse or misread.
fn check_program(
    argv: &[String],
    env: &[(String, String)],
    cwd: &Path,
) -> Result<(), SandboxError> {
    let invalid = |what: String| Err(SandboxError::Invalid(what));
    if argv.first().is_none_or(String::is_empty) {
        return invalid("there is no program to execute; argv must begin with one".into());
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return invalid(format!("an argument of {} contains a NUL byte", argv[0]));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            // The value may be a secret.
            return invalid(format!(
                "the environment variable {name:?} is not usable; names must not be empty or contain '=', and neither part a NUL byte"
            ));
        }
    }
    check_absolute(cwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::no_program(&[], &[], "/", "no program")]
    #[case::empty_program(&[""], &[], "/", "no program")]
    #[case::nul(&["sh", "a\0b"], &[], "/", "NUL")]
    #[case::bad_name(&["sh"], &[("A=B", "secret")], "/", "A=B")]
    #[case::nul_value(&["sh"], &[("A", "secret\0")], "/", "NUL")]
    #[case::relative(&["sh"], &[], "src", "absolute")]
    fn unusable_programs_are_refused(
        #[case] argv: &[&str],
        #[case] env: &[(&str, &str)],
        #[case] cwd: &str,
        #[case] says: &str,
    ) {
        let argv: Vec<String> = argv.iter().map(|s| s.to_string()).collect();
        let env: Vec<_> = env
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        let message = check_program(&argv, &env, Path::new(cwd))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(says) && !message.contains("secret"),
            "{message}"
        );
    }
}
