//! Becoming a program that dies with its parent role.

use std::convert::Infallible;

use nix::{
    sys::{prctl, signal::Signal},
    unistd::getppid,
};

use crate::{
    container::execute,
    error::{Cause, Context, Failure},
    plain::PlainLaunch,
    privileges,
    wire::Channel,
};

pub(crate) fn become_program(
    channel: &Channel,
    launch: PlainLaunch,
) -> Result<Infallible, Failure> {
    let PlainLaunch {
        process,
        parent,
        site,
    } = launch;
    if let Some(site) = site {
        let user = process.run_as.unwrap_or(site.owner);
        privileges::own_output(&site, user)?;
        privileges::become_host_user(&site, user)?;
    }
    // A change of the user clears it, so it comes after that.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask to die with the parent")?;
    if getppid().as_raw() != parent {
        return Err(Failure::plain(Cause::Died {
            name: process.argv.first().cloned().unwrap_or_default(),
        }));
    }
    execute(channel, &process.argv, &process.env, &process.cwd)
}
