//! `devenv pause`: PID 1 of the container whose network the other containers of a pod
//! use, as with Kubernetes' pause container. It joins the cluster's network.
//!
//! The container is made without a network and with the capability to make links. In a
//! network namespace of the machine's first user namespace, that capability reaches into
//! the cluster's namespace as well, also where an ordinary user made that one: so the pod
//! makes its own link to the bridge, and nothing outside needs privileges for it.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Failure},
    netlink::{LOOPBACK, Route},
    network::{GATEWAY, POD_LINK, POD_PREFIX, mac},
    reaper::Reaper,
    wire::{Channel, exactly},
};

/// To the pause process, with the cluster's network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    pub ip: Ipv4Addr,
    /// The name of the link's other end, in the cluster's namespace.
    pub link: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum JoinReply {
    Joined,
    Failed(Failure),
}

/// Runs until the supervisor hangs up; returns the exit code.
pub(crate) fn run(arguments: &[OsString]) -> i32 {
    let [socket] = arguments else {
        return 2;
    };
    let channel = match Channel::connect(Path::new(socket)) {
        Ok(channel) => channel,
        Err(error) => {
            eprintln!(
                "pause: cannot reach devenv at {}: {error}",
                socket.display()
            );
            return 1;
        }
    };
    match serve(&channel) {
        Ok(()) => 0,
        Err(failure) => {
            // If the supervisor is gone, there is no one to tell.
            let _ = channel.send(&JoinReply::Failed(failure), &[]);
            1
        }
    }
}

fn serve(channel: &Channel) -> Result<(), Failure> {
    let reaper = Reaper::new().step("receive signals as events")?;
    let Some((join, fds)) = channel.recv::<Join>().step("hear which network to join")? else {
        return Ok(());
    };
    let [network] = exactly(fds)?;
    link(&join, &network)?;
    channel
        .send(&JoinReply::Joined, &[])
        .step("say that the pod has its network")?;
    loop {
        let mut fds = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(&reaper, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None)).step("wait for the pod's end")?;
        let [gone, ended] = fds.map(|fd| !fd.revents().is_empty());
        if ended {
            reaper.acknowledge().step("read signals")?;
            while let Some(ended) = reaper.next_ended().step("wait for orphans")? {
                ended.reap();
            }
        }
        if gone {
            return Ok(());
        }
    }
}

fn link(join: &Join, network: &OwnedFd) -> Result<(), Failure> {
    let mut route = Route::new().step("open a netlink socket")?;
    route
        .up(LOOPBACK)
        .step("bring the pod's loopback link up")?;
    route
        .veth_into(POD_LINK, mac(join.ip), &join.link, network.as_fd())
        .step("make the pod's link into the cluster's network")?;
    let link = route.index(POD_LINK).step("find the pod's link")?;
    route
        .address(link, join.ip, POD_PREFIX)
        .step("give the pod its address")?;
    route.up(link).step("bring the pod's link up")?;
    route
        .default_route(GATEWAY)
        .step("route the pod to its gateway")
}
