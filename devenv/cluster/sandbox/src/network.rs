//! `devenv cluster-net`: the cluster's network, sockets from it, and pods on it.
//!
//! The network is one bridge. Pods hang on it by veth pairs, the Service range
//! is local to this namespace, so the supervisor can listen on any ClusterIP
//! with a socket that was born here: sockets keep their namespace when they
//! are passed on.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Child,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Pid, PidfdFlags, pidfd_open},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    cgroup::Group,
    error::{Cause, Context, Failure},
    forbidden,
    netlink::{LOOPBACK, Route},
    reaper::Reaper,
    redirect,
    roles::{self, Role},
    spec::PodSpec,
    wire::{Channel, NetReply, NetRequest, PodReply, PodRequest, Site, exactly},
};

/// The bridge's own address: the pods' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Length of the pod range's prefix.
pub const POD_PREFIX: u8 = 16;
/// ClusterIPs: network and prefix length.
pub const SERVICE_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// The pod's end of its link.
pub(crate) const POD_LINK: &str = "eth0";

/// Where connections that leave the cluster are redirected to.
const WAY_OUT: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 15001);
/// Pending connections of a listener.
const BACKLOG: i32 = 1024;

/// Returns the exit code when the supervisor is gone.
pub(crate) fn run(channel: Channel, site: Site) -> i32 {
    let network = match Network::start(site) {
        Ok(network) => network,
        Err(failure) => {
            // If the supervisor is gone too, there is no one to tell.
            let _ = channel.send(&NetReply::Failed(forbidden::explain(failure)), &[]);
            return 1;
        }
    };
    match network.serve(&channel) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

struct Network {
    site: Site,
    route: Route,
    bridge: u32,
    /// This process's own PID namespace, to come back to after each pod.
    own_pids: fs::File,
    reaper: Reaper,
    /// Numbers the bridge's links and the pods' groups.
    links: u64,
    /// The groups of pods that live.
    groups: HashMap<nix::unistd::Pid, Group>,
}

impl Network {
    fn start(site: Site) -> Result<Network, Failure> {
        let group = Group::recorded(&site.run_dir);
        let site = Site { group, ..site };
        unshare(CloneFlags::CLONE_NEWNET).step("make a network namespace")?;
        let mut route = Route::new().step("open a netlink socket")?;
        route.up(LOOPBACK).step("bring the loopback link up")?;
        let bridge = route
            .bridge("br0", mac(GATEWAY))
            .step("make the cluster's bridge")?;
        route
            .address(bridge, GATEWAY, POD_PREFIX)
            .step("give the bridge its address")?;
        route
            .local_route(SERVICE_RANGE.0, SERVICE_RANGE.1)
            .step("make the Service range local")?;
        allow_low_ports().step("allow low ports in the cluster's network")?;
        // Where br_netfilter is loaded (Docker does that), iptables would see
        // frames between pods. The setting does not exist otherwise.
        if let Err(error) = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0")
            && error.kind() != io::ErrorKind::NotFound
        {
            Err(error).step("keep iptables off the cluster's bridge")?;
        }
        Ok(Network {
            site,
            route,
            bridge,
            own_pids: fs::File::open("/proc/self/ns/pid").step("open this PID namespace")?,
            reaper: Reaper::new().step("receive signals as events")?,
            links: 0,
            groups: HashMap::new(),
        })
    }

    fn serve(mut self, channel: &Channel) -> Result<(), Failure> {
        channel
            .send(&NetReply::Ready, &[])
            .step("say that the network stands")?;
        loop {
            let mut fds = [
                PollFd::new(channel, PollFlags::IN),
                PollFd::new(&self.reaper, PollFlags::IN),
            ];
            retry_on_intr(|| poll(&mut fds, None)).step("wait for requests")?;
            let [requested, ended] = fds.map(|fd| !fd.revents().is_empty());
            if ended {
                self.reap()?;
            }
            if requested {
                let Some((request, _)) = channel.recv().step("read a request")? else {
                    return Ok(());
                };
                let (reply, fds) = self
                    .answer(request)
                    .unwrap_or_else(|failure| (NetReply::Failed(failure), Vec::new()));
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                if channel.send(&reply, &fds).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Pods die by the supervisor's signal; here they are only laid to rest.
    fn reap(&mut self) -> Result<(), Failure> {
        self.reaper.acknowledge().step("read signals")?;
        while let Some(ended) = self.reaper.next_ended().step("wait for pods")? {
            let group = self.groups.remove(&ended.pid);
            ended.reap();
            // The kernel reaped all of its processes before.
            if let Some(group) = group {
                group.remove();
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: NetRequest) -> Result<(NetReply, Vec<OwnedFd>), Failure> {
        match request {
            NetRequest::Sockets(count) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let sockets = (0..count)
                    .map(|_| {
                        rustix::net::socket_with(
                            AddressFamily::INET,
                            SocketType::STREAM,
                            flags,
                            None,
                        )
                    })
                    .collect::<Result<Vec<OwnedFd>, _>>()
                    .step("make sockets in the cluster's network")?;
                Ok((NetReply::Sockets, sockets))
            }
            NetRequest::ListenTcp(address) => {
                let listener =
                    listen(address).cause(|| Cause::Step(format!("listen on {address}")))?;
                Ok((NetReply::Sockets, vec![listener.into()]))
            }
            NetRequest::BindUdp(address) => {
                let socket = bind(address, Type::DGRAM, Protocol::UDP)
                    .cause(|| Cause::Step(format!("receive datagrams on {address}")))?;
                Ok((NetReply::Sockets, vec![socket.into()]))
            }
            NetRequest::WayOut => {
                let listener =
                    listen(WAY_OUT).step("listen for connections that leave the cluster")?;
                redirect::redirect_foreign_tcp(WAY_OUT.port())
                    .step("redirect connections that leave the cluster (nf_tables)")?;
                Ok((NetReply::Sockets, vec![listener.into()]))
            }
            NetRequest::CreatePod(spec) => {
                let [control, events, pidfd] = self.create_pod(spec)?;
                Ok((NetReply::Pod, vec![control, events, pidfd]))
            }
            NetRequest::Namespace => {
                let own =
                    fs::File::open("/proc/self/ns/net").step("open this network namespace")?;
                Ok((NetReply::Namespace, vec![own.into()]))
            }
            NetRequest::Adopt(link) => {
                let index = self.route.index(&link).step("find a pod's link")?;
                self.route
                    .attach(index, self.bridge)
                    .step("connect a pod to the bridge")?;
                Ok((NetReply::Adopted, Vec::new()))
            }
        }
    }

    /// The pod's control channel, event channel and pidfd.
    fn create_pod(&mut self, spec: PodSpec) -> Result<[OwnedFd; 3], Failure> {
        let (ours, theirs) = Channel::pair().step("make a socket pair")?;
        self.links += 1;
        let name = format!("{}-{}", self.links, spec.hostname);
        // Without it the containers say that they have no limits.
        let group = self.site.group.make_child(&name).unwrap_or_default();
        group.limit(&spec.limits);
        let site = Site {
            group: group.clone(),
            ..self.site.clone()
        };
        let mut child = match self.spawn_pod_init(&spec.hostname, theirs) {
            Ok(child) => child,
            Err(failure) => {
                group.remove();
                return Err(failure);
            }
        };
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        self.groups.insert(pid, group);
        match self.set_up_pod(site, spec, &ours, &child) {
            Ok([events, pidfd]) => Ok([ours.into(), events, pidfd]),
            Err(failure) => {
                // The reaper collects it.
                let _ = child.kill();
                Err(failure)
            }
        }
    }

    /// Its PID namespace is made by setting the one for the next child.
    fn spawn_pod_init(&self, hostname: &str, channel: Channel) -> Result<Child, Failure> {
        unshare(CloneFlags::CLONE_NEWPID).step("make a pod's PID namespace")?;
        let spawned = roles::command(Role::PodInit, channel).arg(hostname).spawn();
        setns(&self.own_pids, CloneFlags::CLONE_NEWPID)
            .step("come back from a pod's PID namespace")?;
        spawned.step("start a pod's first process")
    }

    fn set_up_pod(
        &mut self,
        site: Site,
        spec: PodSpec,
        channel: &Channel,
        child: &Child,
    ) -> Result<[OwnedFd; 2], Failure> {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).step("watch a pod")?;
        let (hostname, ip) = (spec.hostname.clone(), spec.ip);
        let died = || {
            Failure::plain(Cause::Died {
                name: format!("pod {hostname}"),
            })
        };

        channel
            .send(&PodRequest::Setup(site, spec), &[])
            .map_err(|_| died())?;
        let next = || match channel
            .recv::<PodReply>()
            .step("hear from a starting pod")?
        {
            Some((PodReply::Failed(failure), _)) => Err(failure),
            Some((_, fds)) => Ok(fds),
            None => Err(died()),
        };
        next()?; // NeedsLink
        self.route
            .veth(
                &format!("veth{}", self.links),
                self.bridge,
                POD_LINK,
                mac(ip),
                child.id(),
            )
            .step("connect a pod to the bridge")?;
        channel.send(&PodRequest::Linked, &[]).map_err(|_| died())?;
        let [events] = exactly(next()?)?; // Ready
        Ok([events, pidfd])
    }
}

/// The same address always has the same hardware address, so neighbours need
/// not learn anew when a pod takes over another's address.
pub(crate) fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d] // 02: locally administered
}

fn listen(address: SocketAddrV4) -> io::Result<Socket> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind(address: SocketAddrV4, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind.nonblocking(), Some(protocol))?;
    // A listener that comes back must not wait for old connections to time
    // out. For datagrams it would let two sockets share a port.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// In this network namespace any user may listen below 1024, as in Kubernetes
/// with containerd's default settings.
pub(crate) fn allow_low_ports() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_hardware_address() {
        assert_eq!(
            mac(Ipv4Addr::new(10, 244, 3, 7)),
            [0x02, 0x42, 10, 244, 3, 7]
        );
    }
}
