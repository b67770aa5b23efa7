//! Becoming the user that a program runs as, for good.

use std::io;

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, User, fchown, getgrouplist, setgroups, setresgid, setresuid},
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::{
    error::{Cause, Context, Failure},
    janitor::map_user,
    wire::Site,
};

/// What root in a container may do: what container runtimes give it, except
/// making device nodes, for which they rely on a device cgroup.
const CONTAINER_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE);

/// Gives the output pipes to `user`, so that programs that open
/// `/dev/stdout` anew (nginx's logs) may.
pub(crate) fn own_output(site: &Site, (uid, gid): (u32, u32)) -> Result<(), Failure> {
    if site.privileged {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchown(io::stdout(), uid, gid).step("give standard output to its user")?;
        fchown(io::stderr(), uid, gid).step("give standard error to its user")?;
    }
    Ok(())
}

/// As root: really that user. Otherwise: that user in the eyes of the
/// program, and still the caller for the machine.
pub(crate) fn become_container_user(site: &Site, user: (u32, u32)) -> Result<(), Failure> {
    if site.privileged {
        limit_capabilities()?;
        switch_user(user, &[Gid::from_raw(user.1)])?;
    } else {
        appear_as(user)?;
        // The new user namespace came with a full bounding set.
        limit_capabilities()?;
        drop_capabilities(user)?;
    }
    set_no_new_privs(true).step("forbid new privileges")
}

/// Host processes keep what their user has: groups (as root), set-user-id programs.
pub(crate) fn become_host_user(site: &Site, user: (u32, u32)) -> Result<(), Failure> {
    if !site.privileged {
        appear_as(user)?;
        return drop_capabilities(user);
    }
    if user.0 == 0 {
        return Ok(());
    }
    let gid = Gid::from_raw(user.1);
    let groups = match User::from_uid(Uid::from_raw(user.0)) {
        Ok(Some(entry)) => std::ffi::CString::new(entry.name)
            .map_err(io::Error::other)
            .and_then(|name| Ok(getgrouplist(&name, gid)?))
            .step("list the owner's groups")?,
        // A numeric user without an account has no further groups.
        _ => vec![gid],
    };
    switch_user(user, &groups)
}

/// The owner of `site`, without namespaces: as root really that user, with the
/// capabilities of a container's root at most. What it executes gains none.
pub(crate) fn become_plain_user(site: &Site) -> Result<(), Failure> {
    let own = rustix::thread::capabilities(None).step("read capabilities")?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        limit_capabilities()?;
    }
    if site.privileged {
        become_host_user(site, site.owner)?;
    }
    set_no_new_privs(true).step("forbid new privileges")
}

/// The new namespace comes with all capabilities in it.
fn appear_as((uid, gid): (u32, u32)) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER).step("make the program's user namespace")?;
    map_user((uid, 0), (gid, 0)).cause(|| {
        Cause::Step(format!(
            "let the program appear as user {uid} and group {gid}"
        ))
    })
}

/// A user other than 0 has none. exec would see to that, but the working
/// directory is entered before.
fn drop_capabilities((uid, _): (u32, u32)) -> Result<(), Failure> {
    if uid == 0 {
        return Ok(());
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).step("drop the program's capabilities")
}

fn switch_user((uid, gid): (u32, u32), groups: &[Gid]) -> Result<(), Failure> {
    let cause = || Cause::Step(format!("become user {uid} and group {gid}"));
    setgroups(groups).cause(cause)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid).cause(cause)?;
    // From 0 to another user, the kernel drops all capabilities.
    setresuid(uid, uid, uid).cause(cause)
}

/// What is not in the bounding set cannot be gained by any exec.
fn limit_capabilities() -> Result<(), Failure> {
    for capability in CapabilitySet::all()
        .difference(CONTAINER_CAPABILITIES)
        .iter()
    {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not know it.
            Err(rustix::io::Errno::INVAL) => {}
            other => other.step("limit the container's capabilities")?,
        }
    }
    Ok(())
}
