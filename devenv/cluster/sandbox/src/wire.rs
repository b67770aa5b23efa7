//! Messages between the roles, and the socket pairs that carry them.
//!
//! A message is one packet: a tag byte, then a postcard value, either inline
//! or in a memory file passed along. The memory file makes ConfigMaps of a
//! mebibyte fit, which a packet would not hold.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    mem::MaybeUninit,
    net::SocketAddrV4,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::{
    fs::MemfdFlags,
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cgroup::Group,
    error::{Context, Failure},
    plain::PlainLaunch,
    spec::{ContainerSpec, Exit, HostProcess, PodSpec},
};

/// Most descriptors of one message; the kernel's own limit is 253.
pub(crate) const MAX_FDS: usize = 128;
/// The descriptors and a memory file.
const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS + 1));
/// Longer values travel in a memory file. A socket's buffer is 208 KiB.
const INLINE: usize = 32 * 1024;
const TAG_INLINE: u8 = 0;
const TAG_MEMFD: u8 = 1;

/// What every role knows of the whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Site {
    /// Canonical; its folder `root` is where roots are mounted.
    pub run_dir: PathBuf,
    pub owner: (u32, u32),
    /// No user namespace: the tree runs as the machine's root.
    pub privileged: bool,
    /// The project's, the pod's or the container's, depending on who is told.
    pub group: Group,
}

/// From the janitor or cluster-init, once, on the supervisor's first channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum UpReply {
    /// With the channel to cluster-net.
    Ready,
    Failed(Failure),
}

/// To cluster-init afterwards: run this, with stdout and stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunHost(pub HostProcess);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RunHostReply {
    /// With a pidfd and the child's own channel.
    Started,
    Failed(Failure),
}

/// On a host child's channel, towards cluster-init. Its hang-up kills the child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignalHost(pub i32);

/// On a host child's channel, towards the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostExited(pub Exit);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NetRequest {
    Sockets(usize),
    ListenTcp(SocketAddrV4),
    BindUdp(SocketAddrV4),
    WayOut,
    CreatePod(PodSpec),
    /// The network namespace itself.
    Namespace,
    /// Puts this link, which a pod of others has made, on the bridge.
    Adopt(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NetReply {
    /// The network stands (sent unasked, once).
    Ready,
    /// With what was asked for.
    Sockets,
    /// With the pod's control channel, its event channel and a pidfd of its PID 1.
    Pod,
    /// With the namespace.
    Namespace,
    Adopted,
    Failed(Failure),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PodRequest {
    /// First message, from cluster-net.
    Setup(Site, PodSpec),
    /// Second message, from cluster-net: eth0 is in the pod.
    Linked,
    /// From the supervisor, with stdout and stderr.
    Start(ContainerSpec),
    Signal {
        container: String,
        signal: i32,
    },
    /// Leave no room in its memory file systems, or give it back.
    Fill(bool),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PodReply {
    /// The pod's namespaces exist; it waits for its eth0.
    NeedsLink,
    /// With the event channel.
    Ready,
    /// With a pidfd of the container's main process.
    Started {
        /// [`crate::Container::warnings`].
        warnings: Vec<String>,
        /// That of this run; empty where there is none.
        group: Group,
    },
    Signalled,
    Filled,
    Failed(Failure),
}

/// To a process that is to become a container or a host process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Launch {
    /// With the mount namespace of the container that it is to run in, if any.
    Container(Site, ContainerSpec),
    Host(Site, HostProcess),
    Plain(PlainLaunch),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LaunchReply {
    /// What the program has to do without; before [`Executing`](Self::Executing).
    Warning(String),
    /// With the roots of the file systems in memory that were made for the container;
    /// before [`Executing`](Self::Executing).
    Memory,
    /// Everything but the execution is done; after this, a hang-up without a
    /// further message means that it was executed. With the process's mount
    /// namespace.
    Executing,
    Failed(Failure),
}

/// One end of a packet socket pair, closed on exec.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(a), Channel(b)))
    }

    /// A listener for channels; a caller's [`connect`](Self::connect) makes one.
    pub fn listen(path: &Path) -> io::Result<OwnedFd> {
        let socket = Self::socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    }

    /// The next that calls at a listener.
    pub fn accept(listener: &OwnedFd) -> io::Result<Channel> {
        let channel = retry_on_intr(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))?;
        Ok(Channel(channel))
    }

    /// Calls at a listener.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = Self::socket()?;
        retry_on_intr(|| rustix::net::connect(&socket, &SocketAddrUnix::new(path)?))?;
        Ok(Channel(socket))
    }

    fn socket() -> io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(socket)
    }

    /// The channel that a role finds as its standard input.
    pub fn from_stdin() -> io::Result<Channel> {
        Ok(Channel(io::stdin().as_fd().try_clone_to_owned()?))
    }

    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.try_clone()?))
    }

    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, fds, SendFlags::empty())
    }

    /// Like [`send`](Self::send), but fails with `WouldBlock` when the other
    /// end does not keep up.
    pub fn try_send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_with(message, &[], SendFlags::DONTWAIT)
    }

    fn send_with<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        if fds.len() > MAX_FDS {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if body.len() <= INLINE {
            let parts = [IoSlice::new(&[TAG_INLINE]), IoSlice::new(&body)];
            return self.send_packet(&parts, fds, flags);
        }
        let mut file = File::from(rustix::fs::memfd_create("message", MemfdFlags::CLOEXEC)?);
        file.write_all(&body)?;
        let mut all = vec![file.as_fd()];
        all.extend_from_slice(fds);
        self.send_packet(&[IoSlice::new(&[TAG_MEMFD])], &all, flags)
    }

    fn send_packet(
        &self,
        parts: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let flags = flags | SendFlags::NOSIGNAL;
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("no room for a message's descriptors"));
        }
        retry_on_intr(|| rustix::net::sendmsg(&self.0, parts, &mut ancillary, flags))?;
        Ok(())
    }

    /// Waits for a message; `None` when the other end hung up.
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.recv_with(RecvFlags::empty())
    }

    /// Like [`recv`](Self::recv), but fails with `WouldBlock` when there is nothing.
    pub fn try_recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.recv_with(RecvFlags::DONTWAIT)
    }

    fn recv_with<T: DeserializeOwned>(
        &self,
        flags: RecvFlags,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut packet = vec![0; INLINE + 1];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = match retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut packet)],
                &mut ancillary,
                flags | RecvFlags::CMSG_CLOEXEC,
            )
        }) {
            // The other end closed with a message of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other(
                "a message was cut off (too many open files?)",
            ));
        }
        let value = match packet[..received.bytes].split_first() {
            None => return Ok(None),
            Some((&TAG_INLINE, body)) => postcard::from_bytes(body),
            Some((&TAG_MEMFD, _)) if !fds.is_empty() => {
                let mut file = File::from(fds.remove(0));
                let mut body = Vec::new();
                file.rewind()?;
                file.read_to_end(&mut body)?;
                postcard::from_bytes(&body)
            }
            Some(_) => return Err(io::Error::other("a message of an unknown form")),
        };
        Ok(Some((value.map_err(io::Error::other)?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for Stdio {
    fn from(channel: Channel) -> Stdio {
        Stdio::from(channel.0)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.0
    }
}

/// A channel that was passed along as a descriptor.
impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Channel {
        Channel(fd)
    }
}

/// The descriptors that a message must have brought along.
pub(crate) fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], Failure> {
    fds.try_into()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        .step("read a message that lacks its file descriptors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FileMount, Limits};

    fn spec(bytes: usize) -> PodSpec {
        let contents = (0..bytes).map(|i| i as u8).collect();
        PodSpec {
            hostname: "p".into(),
            ip: [10, 244, 0, 2].into(),
            files: vec![FileMount {
                path: "/f".into(),
                contents,
                mode: 0o600,
            }],
            limits: Limits::default(),
            tmpfs: vec![],
        }
    }

    #[rstest::rstest]
    #[case::empty(0)]
    #[case::inline(INLINE - 64)]
    #[case::at_the_edge(INLINE)]
    #[case::config_map_limit(1024 * 1024)]
    #[case::larger(5 * 1024 * 1024)]
    fn values_of_any_size_arrive_with_their_descriptors(#[case] bytes: usize) {
        let (a, b) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        a.send(
            &NetRequest::CreatePod(spec(bytes)),
            &[null.as_fd(), a.as_fd()],
        )
        .unwrap();
        let (request, fds) = b.recv::<NetRequest>().unwrap().unwrap();
        let NetRequest::CreatePod(received) = request else {
            panic!("{request:?}")
        };
        assert_eq!(received.files[0].contents, spec(bytes).files[0].contents);
        assert_eq!(fds.len(), 2);
        for fd in &fds {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn as_many_descriptors_as_promised_arrive() {
        let (a, b) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        a.send(&NetReply::Sockets, &vec![null.as_fd(); MAX_FDS])
            .unwrap();
        assert_eq!(b.recv::<NetReply>().unwrap().unwrap().1.len(), MAX_FDS);
        assert!(
            a.send(&NetReply::Sockets, &vec![null.as_fd(); MAX_FDS + 1])
                .is_err()
        );
    }

    #[test]
    fn a_hang_up_is_told_from_silence() {
        let (a, b) = Channel::pair().unwrap();
        let silence = b.try_recv::<NetReply>().unwrap_err();
        assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
        b.send(&NetReply::Ready, &[]).unwrap();
        drop(a);
        assert!(b.recv::<NetReply>().unwrap().is_none());
    }
}
