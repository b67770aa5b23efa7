//! Why a workload is not debugged, for people.

use std::{io, time::Duration};

use devenv_platform::{TargetError, address::AddressError};

use crate::{apply::ApplyError, build::BuildError, event::Report, workload::NotReady};

/// Why a workload is not debugged.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// No workload has the name.
    #[error("there is no workload `{name}` that could be debugged; there {}", list(.known))]
    NoWorkload {
        /// As asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No container has the name.
    #[error("{workload} has no container `{name}` that is built from source; there {}", list(.known))]
    NoContainer {
        /// The workload.
        workload: String,
        /// As asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Nothing of it is built from source.
    #[error("no container of {workload} is built from source")]
    NoSource {
        /// The workload.
        workload: String,
        /// Its images.
        images: Vec<String>,
    },
    /// Several are.
    #[error("several containers of {workload} are built from source: {}", .known.join(", "))]
    Which {
        /// The workload.
        workload: String,
        /// Their names.
        known: Vec<String>,
    },
    /// It can't be told how to debug it.
    #[error("it can't be told how {workload} is debugged: {why}")]
    Unrecognised {
        /// The workload.
        workload: String,
        /// The image's key in devenv.toml.
        image: String,
        /// Why not.
        why: String,
    },
    /// The debugger of machine programs is missing.
    #[error("a machine program is debugged with gdbserver, which is not in PATH")]
    NoGdbserver,
    /// A machine program runs before it is attached to.
    #[error("a machine program is attached to while it runs: it can't wait for a client")]
    NoWait,
    /// It is not debugged.
    #[error("{0} is not being debugged")]
    NotDebugged(String),
    /// The debugged version does not get ready.
    #[error("{0}")]
    NotReady(NotReady),
    /// The debugger does not listen.
    #[error("{debugger} of {workload} did not listen on port {port} of its pod within {} s", waited.as_secs())]
    Silent {
        /// The workload.
        workload: String,
        /// The debugger.
        debugger: &'static str,
        /// Where it should listen.
        port: u16,
        /// How long was waited.
        waited: Duration,
    },
    /// The port.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The listener.
    #[error("can't listen for the debugger's client")]
    Listen(#[source] io::Error),
    /// The debugger could not be installed.
    #[error("debugpy could not be installed")]
    Install(#[source] Box<BuildError>),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The object.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

fn list(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        known => format!("is {}", known.join(", ")),
    }
}

impl DebugError {
    /// The error for another process or a terminal.
    pub fn report(&self) -> Report {
        let help = match self {
            Self::Which { .. } => Some("name one: --container NAME".to_owned()),
            Self::NoSource { images, .. } => Some(format!(
                "devenv.toml says how an image is built and run: [image.NAME] for {}",
                images.join(", ")
            )),
            Self::Unrecognised { image, .. } => Some(format!(
                "say in devenv.toml what runs it under a debugger that listens at \
                 $(DEVENV_DEBUG_HOST):$(DEVENV_DEBUG_PORT): [image.{image}] debug = [\"…\"]"
            )),
            Self::NoGdbserver => Some("apt-get install gdbserver".to_owned()),
            Self::NotReady(_) | Self::Silent { .. } => {
                Some("it runs without a debugger again; devenv logs shows what it said".to_owned())
            }
            Self::Install(_) => Some(
                "it comes from PyPI: look at the network and pip's settings, or add debugpy to \
                 what the image installs"
                    .to_owned(),
            ),
            _ => None,
        };
        let code = match self {
            Self::NoGdbserver => 3,
            _ => 1,
        };
        let mut report = Report::of(self, help, code);
        if let Self::Install(e) = self {
            report.output = e.output().map(str::to_owned);
        }
        report
    }
}
