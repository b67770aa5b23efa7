//! What can go wrong, for callers ([`SandboxError`]) and between roles ([`Failure`]).

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why the sandbox could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The machine does not let this user make the namespaces that pods need.
    #[error("pods need namespaces of their own, and {by} forbids them; {remedy}")]
    NamespacesForbidden {
        /// The setting or limit that forbids it.
        by: String,
        /// The command that mends it, in words around it where it needs them.
        remedy: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A step of the set-up failed.
    #[error("cannot {step}")]
    Step {
        /// The step and its object, as an infinitive.
        step: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The program could not be executed.
    #[error(
        "cannot execute {argv0}; it must be an executable file that is visible there (a script's interpreter too)"
    )]
    Exec {
        /// The first element of `argv`.
        argv0: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The working directory could not be entered.
    #[error("cannot enter the working directory {}; it must exist there and be open to the user that runs the program", cwd.display())]
    Cwd {
        /// The directory that was asked for.
        cwd: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A host path could not be shown in the container.
    #[error("cannot show {} as {} in the container", from.display(), target.display())]
    Bind {
        /// The path on the host.
        from: PathBuf,
        /// The path in the container.
        target: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A file with given contents could not be placed in the container.
    #[error("cannot place the file {} in the container", path.display())]
    File {
        /// The path in the container.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A specification is not usable; nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// A container of this name is running or its last processes are still ending.
    #[error(
        "container {container} is still running; wait for its exit event before starting it again"
    )]
    AlreadyRunning {
        /// The container's name.
        container: String,
    },
    /// No container of this name is running.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container's name.
        container: String,
    },
    /// A process died before it could execute the program.
    #[error("the process for {name} died during its set-up; it may have been killed, see dmesg")]
    Died {
        /// The container or program.
        name: String,
    },
    /// The pod is dead.
    #[error("pod {pod} is gone; make it anew")]
    PodGone {
        /// The pod's host name.
        pod: String,
    },
    /// The janitor or the cluster below it is dead.
    #[error("the sandbox's processes are gone (killed from outside?); start it anew")]
    ClusterGone,
    /// Talking to one of the sandbox's processes failed.
    #[error("cannot talk to the sandbox's processes")]
    Wire(#[source] io::Error),
}

/// A failure in a role, on its way to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub cause: Cause,
    /// The kernel's answer, 0 where it was not asked.
    pub errno: i32,
}

/// Mirrors the variants of [`SandboxError`] that arise in roles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Cause {
    Forbidden { by: String, remedy: String },
    Step(String),
    Exec { argv0: String },
    Cwd { cwd: PathBuf },
    Bind { from: PathBuf, target: PathBuf },
    File { path: PathBuf },
    AlreadyRunning { container: String },
    NotRunning { container: String },
    Died { name: String },
}

impl Failure {
    /// A failure without an answer of the kernel.
    pub fn plain(cause: Cause) -> Failure {
        Failure { cause, errno: 0 }
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> SandboxError {
        let source = io::Error::from_raw_os_error(failure.errno);
        match failure.cause {
            Cause::Forbidden { by, remedy } => {
                SandboxError::NamespacesForbidden { by, remedy, source }
            }
            Cause::Step(step) => SandboxError::Step { step, source },
            Cause::Exec { argv0 } => SandboxError::Exec { argv0, source },
            Cause::Cwd { cwd } => SandboxError::Cwd { cwd, source },
            Cause::Bind { from, target } => SandboxError::Bind {
                from,
                target,
                source,
            },
            Cause::File { path } => SandboxError::File { path, source },
            Cause::AlreadyRunning { container } => SandboxError::AlreadyRunning { container },
            Cause::NotRunning { container } => SandboxError::NotRunning { container },
            Cause::Died { name } => SandboxError::Died { name },
        }
    }
}

/// Says what was being done when an operating system call failed.
pub(crate) trait Context<T> {
    /// The cause is built only on failure.
    fn cause(self, cause: impl FnOnce() -> Cause) -> Result<T, Failure>;

    /// [`Cause::Step`]: an infinitive with its object, such as "mount /proc".
    fn step(self, step: &str) -> Result<T, Failure>
    where
        Self: Sized,
    {
        self.cause(|| Cause::Step(step.to_owned()))
    }
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn cause(self, cause: impl FnOnce() -> Cause) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            cause: cause(),
            errno: errno(&error.into()),
        })
    }
}

/// The number to carry across a process boundary. Errors that std makes up
/// itself carry none and get the nearest one.
fn errno(error: &io::Error) -> i32 {
    use nix::errno::Errno;
    error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT as i32,
        io::ErrorKind::PermissionDenied => Errno::EACCES as i32,
        io::ErrorKind::InvalidInput => Errno::EINVAL as i32,
        _ => Errno::EIO as i32,
    })
}
