//! Programs: run in a process group of their own that ends with the step, with the test,
//! and with devenv, however that ends.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

/// The end of an output that is kept: a program that prints without end must not fill
/// the memory.
const KEPT: usize = 4 << 20;
/// Ends the group when its standard input closes without a line, when devenv dies, and
/// removes a folder that would be left.
const GUARD: &str = "read -r _ || { kill -KILL -- \"-$1\" 2>/dev/null; \
    [ -z \"$2\" ] || rm -rf -- \"$2\" || { sleep 1; rm -rf -- \"$2\"; }; }";

/// What to run.
pub(super) struct Run {
    pub argv: Vec<String>,
    pub dir: PathBuf,
    pub env: BTreeMap<String, String>,
    pub stdin: Option<String>,
    /// Nothing: only the test's own time limits it.
    pub timeout: Option<Duration>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Finished {
    /// The exit code; 128 and the signal's number if a signal ended it.
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
    pub timed_out: bool,
}

/// Why it could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("there is no program {0}")]
    NotFound(String),
    #[error("{program} can't be run")]
    Failed {
        program: String,
        #[source]
        source: io::Error,
    },
}

/// Runs a program to its end. Whoever drops the future ends the whole group.
pub(super) async fn run(run: Run) -> Result<Finished, RunError> {
    let program = run.argv.first().cloned().unwrap_or_default();
    let failed = |source: io::Error| RunError::Failed {
        program: program.clone(),
        source,
    };
    if !run.dir.is_dir() {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no folder {}", run.dir.display()),
        )));
    }
    let mut command = Command::new(&program);
    command
        .args(run.argv.iter().skip(1))
        .current_dir(&run.dir)
        .envs(
            run.env
                .iter()
                .map(|(k, v)| (OsString::from(k), OsString::from(v))),
        )
        .stdin(if run.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => RunError::NotFound(program.clone()),
        _ => failed(e),
    })?;
    let mut group = Group::guard(&child, None).await.map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let (Some(mut pipe), Some(text)) = (stdin, &run.stdin) {
            // A program need not read what it is given.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let finish = async {
        let both = async { tokio::join!(write, keep(stdout, &mut out), keep(stderr, &mut err)) };
        let mut both = std::pin::pin!(both);
        // What it started in the background may hold the pipes open: its own end counts.
        tokio::select! {
            _ = &mut both => child.wait().await,
            status = child.wait() => {
                let _ = timeout(Duration::from_millis(500), both).await;
                status
            }
        }
    };
    let status = match run.timeout {
        Some(limit) => timeout(limit, finish).await,
        None => Ok(finish.await),
    };
    let (exit, timed_out) = match status {
        Ok(status) => (code(status.map_err(failed)?), false),
        Err(_) => {
            group.kill();
            (code(child.wait().await.map_err(failed)?), true)
        }
    };
    group.end().await;
    Ok(Finished {
        exit,
        stdout: text(&out),
        stderr: text(&err),
        timed_out,
    })
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads to the end, and keeps the last part.
async fn keep(pipe: Option<impl tokio::io::AsyncRead + Unpin>, out: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        out.extend_from_slice(&buffer[..read]);
        if out.len() > 2 * KEPT {
            out.drain(..out.len() - KEPT);
        }
    }
}

/// A process group that ends when this is dropped, or when devenv dies.
pub(super) struct Group {
    /// Nothing once it has ended.
    leader: Option<Pid>,
    guard: Child,
}

impl Group {
    /// Guards the group that this child leads. `leftover` is a folder that goes with it
    /// when devenv dies; otherwise it is its owner's.
    pub(super) async fn guard(child: &Child, leftover: Option<&Path>) -> io::Result<Self> {
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| io::Error::other("it ended before it began"))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &id.to_string()])
            .arg(leftover.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a Ctrl-C for devenv's own group.
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self {
                leader: Some(Pid::from_raw(id)),
                guard,
            }),
            Err(error) => {
                let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
                Err(error)
            }
        }
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader {
            // Nothing of the group may be left: that is the ordinary case.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// Ends what is left of the group, and lets the guard go.
    pub(super) async fn end(mut self) {
        self.kill();
        self.leader = None;
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = pipe.write_all(b"\n").await;
        }
        let _ = self.guard.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The guard's input closes with this, and it ends what is left.
        self.kill();
    }
}
