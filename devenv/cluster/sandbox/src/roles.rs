//! Which role this process plays, and how roles are started.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, RawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::{
    cgroup::Group,
    cluster_init, container,
    door::PAUSE,
    janitor, network, pause, plain, pod_init,
    wire::{Channel, Site},
};

/// The parts that this program plays below the supervisor. The names stand in
/// `argv[1]`, where `ps` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Janitor,
    ClusterInit,
    ClusterNet,
    PodInit,
    /// Where there are no namespaces: what the janitor and pod-init are otherwise.
    Keeper,
    Holder,
    /// Short-lived: becomes a container's or a host process's program.
    Launch,
}

impl Role {
    const ALL: [Role; 7] = [
        Role::Janitor,
        Role::ClusterInit,
        Role::ClusterNet,
        Role::PodInit,
        Role::Keeper,
        Role::Holder,
        Role::Launch,
    ];

    fn name(self) -> &'static str {
        match self {
            Role::Janitor => "netd",
            Role::ClusterInit => "cluster-init",
            Role::ClusterNet => "cluster-net",
            Role::PodInit => "pod-init",
            Role::Keeper => "keeper",
            Role::Holder => "holder",
            Role::Launch => "launch",
        }
    }
}

/// Plays this process's role in the sandbox, if it was re-executed for one,
/// and then never returns. Call it first in `main`, before any thread exists
/// and before the arguments are parsed.
///
/// A role is played only when standard input is the socket that the parent
/// role passes, so a person who types `devenv netd` gets the usual usage error; that of a
/// pod's pause process only by the first process of a container.
pub fn run_role_if_asked() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [name, rest @ ..] = arguments.as_slice()
        && name == PAUSE
        && std::process::id() == 1
    {
        std::process::exit(pause::run(rest));
    }
    let Some(role) = arguments
        .first()
        .and_then(|name| Role::ALL.into_iter().find(|role| name == role.name()))
    else {
        return;
    };
    if !stdin_is_channel() {
        return;
    }
    let code = match Channel::from_stdin() {
        Ok(channel) => play(role, channel, &arguments[1..]),
        Err(_) => 1,
    };
    std::process::exit(code);
}

fn play(role: Role, channel: Channel, arguments: &[OsString]) -> i32 {
    match role {
        Role::PodInit => pod_init::run(channel),
        Role::Launch => container::run(channel),
        Role::Janitor | Role::ClusterInit | Role::ClusterNet | Role::Keeper | Role::Holder => {
            let Some(site) = site_from(arguments) else {
                return 2;
            };
            match role {
                Role::Janitor => janitor::run(channel, site),
                Role::ClusterInit => cluster_init::run(channel, site),
                Role::Keeper => plain::run_keeper(channel, site),
                Role::Holder => plain::run_holder(channel, site),
                _ => network::run(channel, site),
            }
        }
    }
}

fn stdin_is_channel() -> bool {
    let stdin = io::stdin();
    !stdin.is_terminal()
        && sockopt::socket_domain(&stdin).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && sockopt::socket_type(&stdin).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// Starts this program again in a role, with `channel` as its standard input.
pub(crate) fn command(role: Role, channel: Channel) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("devenv")
        .arg(role.name())
        .stdin(channel)
        .stdout(Stdio::null());
    command
}

/// Starts one of the roles that serve the whole cluster.
pub(crate) fn spawn_with_site(role: Role, channel: Channel, site: &Site) -> io::Result<Child> {
    command(role, channel).args(site_arguments(site)).spawn()
}

/// Readable arguments rather than a message: `ps` then tells which project a
/// janitor belongs to.
fn site_arguments(site: &Site) -> [OsString; 4] {
    [
        site.run_dir.clone().into_os_string(),
        site.owner.0.to_string().into(),
        site.owner.1.to_string().into(),
        if site.privileged { "root" } else { "user" }.into(),
    ]
}

fn site_from(arguments: &[OsString]) -> Option<Site> {
    let [run_dir, uid, gid, mode] = arguments else {
        return None;
    };
    let number = |text: &OsStr| text.to_str()?.parse::<u32>().ok();
    Some(Site {
        run_dir: PathBuf::from(run_dir),
        owner: (number(uid)?, number(gid)?),
        privileged: mode == "root",
        group: Group::default(),
    })
}

/// Closes what the supervisor was started with (a shell's or make's
/// descriptors without close-on-exec), so that no pod inherits it.
pub(crate) fn close_inherited_fds(channel: &Channel) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let keep = channel.as_fd().as_raw_fd();
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<RawFd>().ok()),
        );
    }
    for fd in open {
        if fd > 2 && fd != keep {
            // The listing's own descriptor is closed already: EBADF is fine.
            let _ = nix::unistd::close(fd);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_survives_the_arguments() {
        let site = Site {
            run_dir: "/a b/ñ".into(),
            owner: (1000, 100),
            privileged: false,
            group: Group::default(),
        };
        let again = site_from(&site_arguments(&site)).unwrap();
        assert_eq!(
            (again.run_dir, again.owner, again.privileged),
            ("/a b/ñ".into(), (1000, 100), false)
        );
    }

    #[test]
    fn foreign_arguments_are_no_site() {
        assert!(site_from(&["/x".into(), "me".into(), "1".into(), "root".into()]).is_none());
        assert!(site_from(&["/x".into()]).is_none());
    }
}
