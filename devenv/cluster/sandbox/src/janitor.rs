//! `devenv netd`: makes the cluster's namespaces and waits for the end.
//!
//! It does nothing but wait, so nothing can keep it from tearing the cluster
//! down. A hang-up is awaited rather than a parent-death signal, because that
//! signal follows the parent's *thread* and the supervisor has many.

use std::{fs, io};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getgid, getuid, setsid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    cgroup::Group,
    error::{Context, Failure},
    forbidden,
    roles::{self, Role},
    wire::{Channel, Site, UpReply},
};

/// Returns the exit code once the cluster is dead.
pub(crate) fn run(channel: Channel, site: Site) -> i32 {
    let group = Group::recorded(&site.run_dir);
    let run_dir = site.run_dir.clone();
    let supervised = supervise(&channel, site);
    // Everything that was in it is dead.
    group.forget(&run_dir);
    match supervised {
        Ok(()) => 0,
        Err(failure) => {
            // If the supervisor is gone too, there is no one to tell.
            let _ = channel.send(&UpReply::Failed(failure), &[]);
            1
        }
    }
}

fn supervise(channel: &Channel, site: Site) -> Result<(), Failure> {
    roles::close_inherited_fds(channel).step("close inherited file descriptors")?;
    // Out of the terminal's process group: Ctrl-C is the supervisor's to handle.
    setsid().step("start a session")?;
    enter_namespaces(&site).map_err(forbidden::explain)?;

    let stdin = channel.try_clone().step("duplicate the channel")?;
    let mut init = roles::spawn_with_site(Role::ClusterInit, stdin, &site)
        .step("start the cluster's first process")?;
    let init_fd = pidfd_open(Pid::from_child(&init), PidfdFlags::empty())
        .step("watch the cluster's first process")?;

    // POLLHUP is always reported; asking for nothing else leaves the messages
    // on this shared socket to cluster-init.
    let mut fds = [
        PollFd::new(channel, PollFlags::empty()),
        PollFd::new(&init_fd, PollFlags::IN),
    ];
    let waited = retry_on_intr(|| poll(&mut fds, None)).step("wait for the supervisor");
    // In every case: killing PID 1 kills its whole namespace, and waiting for
    // it waits for all of that.
    let killed = init.kill().step("end the cluster");
    init.wait().step("wait for the cluster's end")?;
    waited.and(killed.map(drop))
}

/// The PID namespace holds the processes that this process spawns from now on.
/// The network and mount namespaces are made further down.
fn enter_namespaces(site: &Site) -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    if !site.privileged {
        unshare(CloneFlags::CLONE_NEWUSER).step("make a user namespace")?;
        // Inside, uid 0 is the caller: exec keeps the capabilities that
        // the namespace gives, which it would not for any other uid.
        map_user((0, uid.as_raw()), (0, gid.as_raw())).step("map the user into its namespace")?;
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .step("make PID, IPC and host name namespaces")
}

/// Maps one user and one group (inside, outside) of a user namespace that this
/// process has just made. The kernel wants setgroups denied for that.
pub(crate) fn map_user(uid: (u32, u32), gid: (u32, u32)) -> io::Result<()> {
    match fs::write("/proc/self/setgroups", "deny") {
        // A parent namespace denied it already, and that is inherited.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => other?,
    }
    fs::write("/proc/self/uid_map", format!("{} {} 1", uid.0, uid.1))?;
    fs::write("/proc/self/gid_map", format!("{} {} 1", gid.0, gid.1))
}
