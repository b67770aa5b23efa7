//! Programs with the host's files and network, such as builds, which must not outlive
//! devenv.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

pub use devenv_cluster::host::Exit;
use devenv_cluster::{
    HostPrograms,
    host::{HostChild, HostProcess, SandboxError},
};
use tokio::{
    io::{AsyncRead, Interest},
    net::{UnixStream, unix::pipe},
    process::Child,
};

use crate::process::KillGroup;

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCommand {
    /// The program and its arguments; one without a slash is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The sandbox's answer.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The system's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Who runs them.
#[derive(Debug, Clone)]
pub enum Host {
    /// The cluster's first process: whatever ends devenv ends them.
    Sandbox(HostPrograms),
    /// This process, where there is no cluster. They are killed when given up, and
    /// outlive a SIGKILL.
    Plain {
        /// User and group of the checkout; used when devenv itself is root.
        owner: (u32, u32),
    },
}

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct HostRun {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Sandbox {
        child: Arc<HostChild>,
        events: UnixStream,
    },
    Plain {
        child: Child,
        group: KillGroup,
    },
}

/// What a program prints, as it comes.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

impl Host {
    /// Starts a program; returns it with its stdout and stderr.
    ///
    /// # Errors
    /// When it can't be executed there.
    pub async fn start(&self, command: HostCommand) -> Result<(HostRun, [Output; 2]), HostError> {
        match self {
            Self::Sandbox(programs) => {
                let programs = programs.clone();
                let process = HostProcess {
                    argv: command.argv,
                    env: command.env,
                    cwd: command.cwd,
                    run_as: None,
                };
                let started = tokio::task::spawn_blocking(move || programs.run(&process));
                let mut child = started.await.map_err(io::Error::other)??;
                let outputs = [pipe_of(child.stdout.take())?, pipe_of(child.stderr.take())?];
                let events = StdUnixStream::from(child.events().try_clone_to_owned()?);
                events.set_nonblocking(true)?;
                let inner = Inner::Sandbox {
                    child: Arc::new(child),
                    events: UnixStream::from_std(events)?,
                };
                Ok((HostRun { inner }, outputs))
            }
            Self::Plain { owner } => {
                let mut plain = tokio::process::Command::new(&command.argv[0]);
                plain
                    .args(&command.argv[1..])
                    .env_clear()
                    .envs(command.env)
                    .current_dir(&command.cwd)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    // A group of its own, so that what it started ends with it.
                    .process_group(0)
                    .kill_on_drop(true);
                if nix::unistd::geteuid().is_root() && owner.0 != 0 {
                    plain.uid(owner.0).gid(owner.1);
                }
                let mut child = plain.spawn()?;
                let group = KillGroup::of(child.id());
                let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
                    return Err(io::Error::other("its outputs were not piped").into());
                };
                let inner = Inner::Plain { child, group };
                Ok((HostRun { inner }, [Box::new(out), Box::new(err)]))
            }
        }
    }
}

impl HostRun {
    /// Waits for its end.
    ///
    /// # Errors
    /// When the sandbox died, and the program with it.
    pub async fn wait(&mut self) -> Result<Exit, HostError> {
        match &mut self.inner {
            Inner::Sandbox { child, events } => loop {
                events.readable().await?;
                let asked = events.try_io(Interest::READABLE, || match child.try_wait() {
                    Ok(Some(exit)) => Ok(Ok(exit)),
                    Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(e) => Ok(Err(e)),
                });
                match asked {
                    Ok(exit) => return Ok(exit?),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.into()),
                }
            },
            Inner::Plain { child, group } => {
                let status = child.wait().await?;
                group.has_ended();
                Ok(
                    match std::os::unix::process::ExitStatusExt::signal(&status) {
                        Some(signal) => Exit::Signal(signal),
                        None => Exit::Code(status.code().unwrap_or(-1)),
                    },
                )
            }
        }
    }
}

fn pipe_of(fd: Option<OwnedFd>) -> io::Result<Output> {
    let fd = fd.ok_or_else(|| io::Error::other("an output was taken before"))?;
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn plain(script: &str) -> HostCommand {
        HostCommand {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("A".into(), "b".into()),
            ],
            cwd: "/".into(),
        }
    }

    fn host() -> Host {
        Host::Plain {
            owner: (
                nix::unistd::getuid().as_raw(),
                nix::unistd::getgid().as_raw(),
            ),
        }
    }

    #[tokio::test]
    async fn output_and_end_are_told() {
        let (mut run, [mut out, mut err]) = host()
            .start(plain("echo $A $HOME; echo e >&2; exit 3"))
            .await
            .unwrap();
        let (mut o, mut e) = (String::new(), String::new());
        out.read_to_string(&mut o).await.unwrap();
        err.read_to_string(&mut e).await.unwrap();
        assert_eq!((o.trim(), e.trim()), ("b", "e"));
        assert_eq!(run.wait().await.unwrap(), Exit::Code(3));
    }

    #[tokio::test]
    async fn giving_up_kills_the_group() {
        let (run, [mut out, _err]) = host()
            .start(plain("trap '' TERM; sleep 1000 & echo $!; wait"))
            .await
            .unwrap();
        let mut first = [0; 1];
        out.read_exact(&mut first).await.unwrap();
        drop(run);
        // Ends when the last process that could write is dead.
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).await.unwrap();
    }
}
