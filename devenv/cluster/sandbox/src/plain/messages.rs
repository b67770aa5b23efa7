//! Messages to the keeper and the holders, and what holders tell.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    error::Failure,
    spec::{Exit, HostProcess},
    wire::Site,
};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum KeeperRequest {
    /// Run this, with stdout and stderr.
    RunHost(HostProcess),
    /// Start a holder whose programs run as this user.
    Hold((u32, u32)),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum KeeperReply {
    /// With a pidfd and the process's own channel.
    Running,
    /// With the holder's control channel and a pidfd of it.
    Holding,
    Failed(Failure),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HolderRequest {
    /// The container's program, once, with stdout and stderr.
    Start(HostProcess),
    /// A command beside it, with stdout and stderr.
    Exec { name: String, process: HostProcess },
    /// To the process group of the program.
    Signal(i32),
    /// SIGKILL to the process group of a command beside it, if it still runs.
    KillExec(String),
    /// Where the program and its descendants listen.
    Listening,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HolderReply {
    /// Unasked, once, with the event channel.
    Ready,
    /// With a pidfd.
    Started,
    Signalled,
    Listening(Vec<SocketAddr>),
    Failed(Failure),
}

/// Something that happened to what a holder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldEvent {
    /// A command beside the program ended.
    ExecEnded {
        /// The name that it was started under.
        name: String,
        /// How.
        exit: Exit,
    },
    /// The program was reaped and everything that it had left running is dead.
    /// Nothing follows.
    Ended(Exit),
}

/// To a process that is to become a program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlainLaunch {
    pub process: HostProcess,
    /// Process id of the role that starts it: it dies with that one.
    pub parent: i32,
    /// Where the user is to be switched: the parent runs as root.
    pub site: Option<Site>,
}
