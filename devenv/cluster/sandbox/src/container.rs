//! `devenv launch`: turns this process into a container's or a host process's
//! program. What fails on the way is told to the parent role.

use std::{
    convert::Infallible,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        signal::SigSet,
        stat::{Mode, umask},
    },
    unistd::setsid,
};

use crate::{
    error::{Cause, Context, Failure},
    plain, privileges, rootfs,
    spec::{ContainerSpec, HostProcess},
    wire::{Channel, Launch, LaunchReply, Site},
};

/// Returns (an exit code) only when the program could not be executed.
pub(crate) fn run(channel: Channel) -> i32 {
    let failure = match channel.recv::<Launch>().step("read what to execute") {
        Ok(Some((what, fds))) => match become_program(&channel, what, fds.first()) {
            Ok(never) => match never {},
            Err(failure) => failure,
        },
        Ok(None) => return 1,
        Err(failure) => failure,
    };
    // Without a parent there is no one to tell.
    let _ = channel.send(&LaunchReply::Failed(failure), &[]);
    1
}

fn become_program(
    channel: &Channel,
    what: Launch,
    within: Option<&OwnedFd>,
) -> Result<Infallible, Failure> {
    // A session of its own: signals reach the program and its children as a
    // group, and no terminal reaches them.
    setsid().step("start a session")?;
    umask(Mode::from_bits_truncate(0o022));
    match what {
        Launch::Container(site, spec) => become_container(channel, &site, &spec, within),
        Launch::Host(site, process) => become_host_process(channel, &site, &process),
        Launch::Plain(launch) => plain::become_program(channel, launch),
    }
}

fn become_container(
    channel: &Channel,
    site: &Site,
    spec: &ContainerSpec,
    within: Option<&OwnedFd>,
) -> Result<Infallible, Failure> {
    let user = spec.run_as.unwrap_or(site.owner);
    // First, so that what is put into the root counts as the container's memory.
    site.group
        .join()
        .step("enter the container's control group")?;
    match within {
        Some(root) => {
            setns(root, CloneFlags::CLONE_NEWNS).step("enter the root of a running container")?;
        }
        None => {
            let entered = rootfs::enter(site, spec, user)?;
            let memory: Vec<_> = entered.memory.iter().map(AsFd::as_fd).collect();
            channel
                .send(&LaunchReply::Memory, &memory)
                .step("show the container's memory")?;
            for warning in entered.warnings {
                channel
                    .send(&LaunchReply::Warning(warning), &[])
                    .step("say what the container has to do without")?;
            }
        }
    }
    privileges::own_output(site, user)?;
    privileges::become_container_user(site, user)?;
    execute(channel, &spec.argv, &spec.env, &spec.cwd)
}

fn become_host_process(
    channel: &Channel,
    site: &Site,
    process: &HostProcess,
) -> Result<Infallible, Failure> {
    let user = process.run_as.unwrap_or(site.owner);
    // A group only spares the others; without it the build runs all the same.
    let _ = site.group.join();
    privileges::own_output(site, user)?;
    privileges::become_host_user(site, user)?;
    execute(channel, &process.argv, &process.env, &process.cwd)
}

pub(crate) fn execute(
    channel: &Channel,
    argv: &[String],
    env: &[(String, String)],
    cwd: &Path,
) -> Result<Infallible, Failure> {
    std::env::set_current_dir(cwd).cause(|| Cause::Cwd {
        cwd: cwd.to_owned(),
    })?;
    let [program, arguments @ ..] = argv else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).step("execute an empty argv");
    };
    let mount_namespace = File::open("/proc/self/ns/mnt").step("open the mount namespace")?;
    channel
        .send(&LaunchReply::Executing, &[mount_namespace.as_fd()])
        .step("say that the program is executed")?;
    // The roles above wait for their children with SIGCHLD blocked, and a mask outlives
    // exec: a program that is not told of its children's ends waits for them for ever.
    SigSet::empty()
        .thread_set_mask()
        .step("unblock all signals")?;
    // exec searches the new environment's PATH. It replaces standard input, the first
    // copy of the channel; the second one closes itself.
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .exec();
    Err(error).cause(|| Cause::Exec {
        argv0: program.clone(),
    })
}
